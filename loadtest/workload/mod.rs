//! What is sent: series, their values as a pure function of seed, series and step, and request bodies.
//!
//! Nothing is stored per sample, so that a run of any size can be verified bit for bit afterwards.

mod encode;
mod node;
mod service;

pub use encode::{BodyEncoder, body_of};
pub use node::Series;

/// A deterministic set of series scraped at a fixed interval.
pub struct Workload {
    pub series: Vec<Series>,
    pub seed: u64,
    /// Scrapes per series.
    pub steps: u32,
    /// Time of the first scrape, in milliseconds since the epoch.
    pub start_ms: i64,
    pub interval_ms: i64,
    /// Series per request.
    pub batch: usize,
}

/// One request: a run of neighbouring series at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub step: u32,
    pub first: usize,
    pub len: usize,
}

impl Workload {
    pub fn new(
        series: usize,
        steps: u32,
        start_ms: i64,
        interval_ms: i64,
        batch: usize,
        seed: u64,
    ) -> Workload {
        Workload { series: node::series(series, seed), seed, steps, start_ms, interval_ms, batch }
    }

    /// A tenth of the series are a service's histograms, and every node has an info series to join with: what
    /// queries are run over.
    pub fn for_queries(series: usize, steps: u32, start_ms: i64, interval_ms: i64, batch: usize) -> Workload {
        let mut all = node::series(series - series / 10, 1);
        all.extend(service::histograms(series / 10));
        let infos = service::infos(&all);
        all.extend(infos);
        Workload { series: all, seed: 1, steps, start_ms, interval_ms, batch }
    }

    /// Requests per step.
    pub fn batches(&self) -> usize {
        self.series.len().div_ceil(self.batch)
    }

    /// All requests there are.
    pub fn requests(&self) -> usize {
        self.batches() * self.steps as usize
    }

    pub fn request(&self, index: usize) -> Request {
        let first = index % self.batches() * self.batch;
        Request {
            step: (index / self.batches()) as u32,
            first,
            len: self.batch.min(self.series.len() - first),
        }
    }

    /// Which request carries this series at this step.
    pub fn request_of(&self, series: usize, step: u32) -> usize {
        step as usize * self.batches() + series / self.batch
    }

    pub fn time(&self, step: u32) -> i64 {
        self.start_ms + i64::from(step) * self.interval_ms
    }

    pub fn end_ms(&self) -> i64 {
        self.time(self.steps.saturating_sub(1))
    }

    /// The value of a series at a step.
    pub fn value(&self, series: usize, step: u32) -> f64 {
        self.series[series].shape.value(mix(self.seed ^ series as u64), step)
    }
}

/// A well-mixed function of its argument (the finaliser of splitmix64).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_exactly_one_request() {
        let w = Workload::new(1037, 3, 1_000_000, 15_000, 100, 7);
        let mut seen = vec![0; 1037 * 3];
        for index in 0..w.requests() {
            let r = w.request(index);
            for s in r.first..r.first + r.len {
                assert_eq!(w.request_of(s, r.step), index);
                seen[s * 3 + r.step as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
    }

    #[test]
    fn series_are_distinct_and_values_repeat() {
        let w = Workload::new(5000, 10, 0, 15_000, 100, 7);
        let labels: std::collections::HashSet<_> = w.series.iter().map(|s| s.labels.clone()).collect();
        assert_eq!(labels.len(), 5000);
        let again = Workload::new(5000, 10, 0, 15_000, 100, 7);
        for s in (0..5000).step_by(17) {
            assert_eq!(w.value(s, 9).to_bits(), again.value(s, 9).to_bits());
        }
    }
}
