//! What a tenant's series in the head are made of: the names, labels and values with the most of them.
//!
//! For a page that somebody looks at. Locks are held for a few hundred entries at a time, and a value of one shard
//! is looked up in the others, so that a label with a million values costs time but no memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use model::{METRIC_NAME, TimeRange};
use storage::Cancel;

use crate::TenantView;
use crate::head::BITE;

/// Figures about the series of one tenant in the head.
#[derive(Clone, Debug)]
pub struct Cardinality {
    pub series: u64,
    pub chunks: u64,
    /// Distinct pairs of label and value.
    pub label_pairs: u64,
    /// Times of the samples; empty if there are none.
    pub range: TimeRange,
    /// Series by metric name. This and the following lists: greatest first, no longer than asked for.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values by label.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of values, counted once per series, by label.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series by pair, as `label=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

impl TenantView {
    /// Counts the tenant's series in the head, with lists of at most `limit`. Visits every series and every
    /// pair; the figures are those of no single moment while writes go on.
    pub fn cardinality(&self, limit: usize, cancel: &Cancel) -> Result<Cardinality, storage::Error> {
        let (mut by_metric, mut by_values) = (Top::new(limit), Top::new(limit));
        let (mut by_bytes, mut by_pair) = (Top::new(limit), Top::new(limit));
        let mut label_pairs = 0;
        for name in self.head_label_names() {
            let (mut values, mut bytes) = (0, 0);
            self.each_value(&name, cancel, |value, series| {
                values += 1;
                bytes += value.len() as u64 * series;
                by_pair.offer(series, || format!("{name}={value}"));
                if name == METRIC_NAME {
                    by_metric.offer(series, || value.to_owned());
                }
            })?;
            label_pairs += values;
            by_values.offer(values, || name.clone());
            by_bytes.offer(bytes, || name.clone());
        }
        let (series, chunks, range) = self.head_chunks(cancel)?;
        Ok(Cardinality {
            series,
            chunks,
            label_pairs,
            range,
            series_by_metric: by_metric.finish(),
            values_by_label: by_values.finish(),
            bytes_by_label: by_bytes.finish(),
            series_by_pair: by_pair.finish(),
        })
    }

    fn head_label_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for shard in &self.engine.head.shards {
            let state = shard.state.lock();
            if let Some(tenant) = state.tenant(self.tenant.index) {
                names.extend(tenant.postings.label_names().map(str::to_owned));
            }
        }
        names
    }

    /// Calls `visit` with every value of a label, in no order, and the number of its series. A value of several
    /// shards is counted at the first of them.
    fn each_value(
        &self,
        name: &str,
        cancel: &Cancel,
        mut visit: impl FnMut(&str, u64),
    ) -> Result<(), storage::Error> {
        let shards = &self.engine.head.shards;
        let mut pair = Vec::new();
        for (at, shard) in shards.iter().enumerate() {
            let mut from = 0;
            loop {
                cancel.check(self.engine.world.clock.monotonic())?;
                let mut some: Vec<(String, usize)> = {
                    let state = shard.state.lock();
                    let values = state
                        .tenant(self.tenant.index)
                        .into_iter()
                        .flat_map(|tenant| tenant.postings.some_values(name, from, &state.texts));
                    values.take(BITE).map(|(value, series)| (value.to_owned(), series)).collect()
                };
                for (other, elsewhere) in shards.iter().enumerate().filter(|(other, _)| *other != at) {
                    let state = elsewhere.state.lock();
                    let Some(tenant) = state.tenant(self.tenant.index) else { continue };
                    for (value, series) in some.iter_mut().filter(|(_, series)| *series > 0) {
                        pair.clear();
                        model::put_label(&mut pair, name, value);
                        match tenant.postings.count(&pair, &state.texts) {
                            0 => {}
                            _ if other < at => *series = 0,
                            more => *series += more,
                        }
                    }
                }
                some.iter()
                    .filter(|(_, series)| *series > 0)
                    .for_each(|(value, series)| visit(value, *series as u64));
                if some.len() < BITE {
                    break;
                }
                from += BITE;
            }
        }
        Ok(())
    }

    fn head_chunks(&self, cancel: &Cancel) -> Result<(u64, u64, TimeRange), storage::Error> {
        let (mut series, mut chunks, mut range) = (0, 0, TimeRange::EMPTY);
        for shard in &self.engine.head.shards {
            let slots =
                shard.state.lock().tenant(self.tenant.index).map(|tenant| tenant.postings.all.to_vec());
            for bite in slots.unwrap_or_default().chunks(BITE) {
                cancel.check(self.engine.world.clock.monotonic())?;
                let state = shard.state.lock();
                for &slot in bite {
                    // Between two bites a slot may have gone to somebody else.
                    let own = state.series.hot(slot).is_some_and(|hot| hot.tenant == self.tenant.index);
                    if own && let Some(measure) = state.series.measure(slot) {
                        series += 1;
                        chunks += measure.chunks;
                        range = range.cover(&measure.range);
                    }
                }
            }
        }
        Ok((series, chunks, range))
    }
}

/// The greatest counts seen, and of equal ones the first by name.
struct Top {
    limit: usize,
    /// The least of them on top.
    kept: BinaryHeap<Reverse<(u64, Reverse<String>)>>,
}

impl Top {
    fn new(limit: usize) -> Top {
        Top { limit, kept: BinaryHeap::new() }
    }

    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        let full = self.kept.len() >= self.limit;
        if full && self.kept.peek().is_none_or(|Reverse((least, _))| count < *least) {
            return;
        }
        self.kept.push(Reverse((count, Reverse(name()))));
        if full {
            self.kept.pop();
        }
    }

    fn finish(self) -> Vec<(String, u64)> {
        let sorted = self.kept.into_sorted_vec();
        sorted.into_iter().map(|Reverse((count, Reverse(name)))| (name, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_are_kept_in_order() {
        let all = [("b", 2), ("a", 2), ("z", 9), ("c", 2), ("d", 1), ("y", 9)];
        for limit in 0..8 {
            let mut top = Top::new(limit);
            all.iter().for_each(|(name, count)| top.offer(*count, || (*name).to_owned()));
            let names: Vec<String> = top.finish().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["y", "z", "a", "b", "c", "d"][..limit.min(6)], "{limit}");
        }
    }
}
