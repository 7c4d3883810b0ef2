//! A tenant's exemplars: so many, the newest kept; of each series in order of time.
//!
//! # Cost
//! One lock per tenant, held for one exemplar at a time. Memory is bounded by the number of exemplars and the length of
//! their labels ([`MAX_EXEMPLAR_RUNES`]); a series' labels are held once.

use std::collections::{HashMap, VecDeque};

use model::{Labels, Matcher, TimeRange, Timestamp};
use storage::{Exemplar, MAX_EXEMPLAR_RUNES, Refusal, SeriesExemplars, Verdict};

use crate::head::{Bounds, HeadSettings};

/// A series: its shard and its number there.
pub(crate) type Key = (u16, u64);

/// The exemplars of one tenant.
#[derive(Default)]
pub(crate) struct Ring {
    series: HashMap<Key, OfSeries>,
    /// Every exemplar in the order in which it came, by its number; also some that are gone.
    order: VecDeque<(u64, Key)>,
    count: usize,
    last: u64,
    /// How many are kept, where it is not as many as of other tenants.
    limit: Option<usize>,
}

struct OfSeries {
    labels: Labels,
    /// By time, with their numbers.
    rows: Vec<(u64, Exemplar)>,
}

impl Ring {
    /// Judges an exemplar and takes it if it may be taken, in the place of the oldest one where there is no room.
    /// `labels` are canonical bytes.
    pub(crate) fn offer(
        &mut self,
        key: Key,
        series: impl FnOnce() -> Labels,
        timestamp: Timestamp,
        value: f64,
        labels: &[u8],
        judged_at: Timestamp,
        bounds: &Bounds,
        settings: &HeadSettings,
    ) -> Verdict {
        if self.limit(settings) == 0 {
            return Verdict::Refused(Refusal::Unsupported);
        }
        let labels = match labels.is_empty() {
            true => Ok(Labels::empty()),
            false => Labels::from_bytes(labels),
        };
        let Ok(labels) = labels else { return Verdict::Refused(Refusal::InvalidExemplar) };
        if !is_short(&labels) {
            // As Prometheus has it, no fault of whoever sent it: it is what is not kept.
            return Verdict::Refused(Refusal::Unsupported);
        }
        let exemplar = Exemplar { labels, value, timestamp };
        let newest = match self.series.get(&key) {
            Some(known) if known.holds(&exemplar) => return Verdict::Duplicate,
            Some(known) => known.rows.last().map(|(_, e)| e.timestamp),
            None => None,
        };
        if let Err(refusal) = bounds.judge(timestamp, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        self.take(key, series, exemplar, settings);
        Verdict::Stored
    }

    /// Takes an exemplar unless it is there.
    pub(crate) fn take(
        &mut self,
        key: Key,
        series: impl FnOnce() -> Labels,
        exemplar: Exemplar,
        settings: &HeadSettings,
    ) {
        let limit = self.limit(settings);
        if limit == 0 {
            return;
        }
        let of_series =
            self.series.entry(key).or_insert_with(|| OfSeries { labels: series(), rows: Vec::new() });
        if of_series.holds(&exemplar) {
            return;
        }
        self.last += 1;
        let at = of_series.rows.partition_point(|(_, e)| e.timestamp <= exemplar.timestamp);
        of_series.rows.insert(at, (self.last, exemplar));
        self.order.push_back((self.last, key));
        if of_series.rows.len() > settings.max_series_exemplars {
            of_series.rows.remove(0);
        } else {
            self.count += 1;
        }
        while self.count > limit {
            let Some((number, key)) = self.order.pop_front() else { break };
            self.remove(number, key);
        }
        // What series dropped by themselves must not pile up.
        if self.order.len() > 2 * self.count + 64 {
            let series = &self.series;
            let is_there = |number: u64, key: &Key| {
                series.get(key).is_some_and(|s| s.rows.iter().any(|(n, _)| *n == number))
            };
            self.order.retain(|(number, key)| is_there(*number, key));
        }
    }

    fn remove(&mut self, number: u64, key: Key) {
        let Some(of_series) = self.series.get_mut(&key) else { return };
        if let Some(at) = of_series.rows.iter().position(|(n, _)| *n == number) {
            of_series.rows.remove(at);
            self.count -= 1;
            if of_series.rows.is_empty() {
                self.series.remove(&key);
            }
        }
    }

    fn limit(&self, settings: &HeadSettings) -> usize {
        match settings.max_series_exemplars {
            0 => 0,
            _ => self.limit.unwrap_or(settings.max_exemplars),
        }
    }

    /// From the next one on this many are kept; none: as many as the settings say.
    pub(crate) fn set_limit(&mut self, limit: Option<usize>) {
        self.limit = limit;
    }

    /// Takes out what a series has in `range`.
    pub(crate) fn delete(&mut self, key: Key, range: TimeRange) {
        let Some(of_series) = self.series.get_mut(&key) else { return };
        let before = of_series.rows.len();
        of_series.rows.retain(|(_, e)| !range.contains(e.timestamp));
        self.count -= before - of_series.rows.len();
        if of_series.rows.is_empty() {
            self.series.remove(&key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// As [`storage::Exemplars::exemplars`].
    pub(crate) fn select(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        let mut out: Vec<SeriesExemplars> = Vec::new();
        for of_series in self.series.values() {
            let labels = &of_series.labels;
            let passes = |matchers: &Vec<Matcher>| matchers.iter().all(|m| m.matches(labels.value(&m.name)));
            if !selectors.iter().any(passes) {
                continue;
            }
            let inside = of_series.rows.iter().map(|(_, e)| e).filter(|e| range.contains(e.timestamp));
            let exemplars: Vec<Exemplar> = inside.cloned().collect();
            if !exemplars.is_empty() {
                out.push(SeriesExemplars { labels: labels.clone(), exemplars });
            }
        }
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        // A series that was forgotten and came back has two entries.
        out.dedup_by(|next, kept| {
            let same = next.labels == kept.labels;
            if same {
                kept.exemplars.append(&mut next.exemplars);
                kept.exemplars.sort_by_key(|e| e.timestamp);
                kept.exemplars.dedup_by(|a, b| is_same(a, b));
            }
            same
        });
        out
    }

    /// Everything of one shard's series with numbers below `below`, in the order in which it came.
    pub(crate) fn of_shard(&self, shard: u16, below: u64) -> Vec<(u64, Exemplar)> {
        let of_shard = self.order.iter().filter(|(_, key)| key.0 == shard && key.1 < below);
        let find = |(number, key): &(u64, Key)| {
            let rows = &self.series.get(key)?.rows;
            rows.iter().find(|(n, _)| n == number).map(|(_, e)| (key.1, e.clone()))
        };
        of_shard.filter_map(find).collect()
    }
}

impl OfSeries {
    fn holds(&self, exemplar: &Exemplar) -> bool {
        let start = self.rows.partition_point(|(_, e)| e.timestamp < exemplar.timestamp);
        let at_once = self.rows[start..].iter().take_while(|(_, e)| e.timestamp == exemplar.timestamp);
        at_once.into_iter().any(|(_, e)| is_same(e, exemplar))
    }
}

fn is_same(a: &Exemplar, b: &Exemplar) -> bool {
    a.timestamp == b.timestamp && a.value.to_bits() == b.value.to_bits() && a.labels == b.labels
}

fn is_short(labels: &Labels) -> bool {
    let runes = |text: &str| text.chars().count();
    labels.iter().map(|(name, value)| runes(name) + runes(value)).sum::<usize>() <= MAX_EXEMPLAR_RUNES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max_exemplars: usize, max_series_exemplars: usize) -> HeadSettings {
        HeadSettings {
            bounds: Bounds { out_of_order_window: 100, future_tolerance: 10, max_sample_age: 1000 },
            block_range: 7_200_000,
            max_labels_bytes: 1 << 16,
            max_exemplars,
            max_series_exemplars,
            start_as_zero: false,
            group_bytes: 1 << 16,
        }
    }

    fn name(n: u64) -> Labels {
        Labels::from_pairs([("__name__", n.to_string().as_str())]).unwrap()
    }

    fn times(ring: &Ring) -> Vec<Vec<i64>> {
        let all = ring.select(&[vec![]], TimeRange::ALL);
        all.iter().map(|s| s.exemplars.iter().map(|e| e.timestamp).collect()).collect()
    }

    #[test]
    fn judged_as_samples_are() {
        let (mut ring, settings) = (Ring::default(), settings(10, 10));
        let trace = Labels::from_pairs([("trace_id", "x")]).unwrap();
        let mut offer = |t, v, labels: &Labels| {
            ring.offer((0, 1), || name(1), t, v, labels.as_bytes(), 5000, &settings.bounds, &settings)
        };
        let refused = |why| Verdict::Refused(why);
        assert_eq!(offer(4000, 1.0, &trace), Verdict::Stored);
        assert_eq!(offer(4990, 1.0, &trace), Verdict::Stored);
        assert_eq!(offer(4990, 1.0, &trace), Verdict::Duplicate);
        assert_eq!(offer(4000, 1.0, &trace), Verdict::Duplicate);
        // Late, but within the window; another at the same time; too late; too early; too long.
        assert_eq!(offer(4950, 1.0, &Labels::empty()), Verdict::Stored);
        assert_eq!(offer(4950, 2.0, &trace), Verdict::Stored);
        assert_eq!(offer(4500, 1.0, &trace), refused(Refusal::TooOld));
        assert_eq!(offer(6000, 1.0, &trace), refused(Refusal::TooFarInFuture));
        let long = |n: usize| Labels::from_pairs([("é", "é".repeat(n).as_str())]).unwrap();
        assert_eq!(offer(5000, 1.0, &long(128)), refused(Refusal::Unsupported));
        assert_eq!(offer(5000, 1.0, &long(127)), Verdict::Stored);
        assert_eq!(times(&ring), [vec![4000, 4950, 4950, 4990, 5000]]);
        let none = self::settings(0, 1);
        let verdict = ring.offer((0, 1), || name(1), 5001, 1.0, &[], 5000, &none.bounds, &none);
        assert_eq!(verdict, refused(Refusal::Unsupported));
    }

    #[test]
    fn the_newest_are_kept_of_all_and_of_each_series() {
        let (mut ring, settings) = (Ring::default(), settings(6, 3));
        let mut put = |series: u64, timestamp| {
            let exemplar = Exemplar { labels: Labels::empty(), value: 0.0, timestamp };
            ring.take((0, series), || name(series), exemplar, &settings);
            assert!(ring.order.len() <= 2 * ring.count + 64);
        };
        (0..1000).for_each(|t| put(1, t));
        put(2, 1);
        put(2, 2);
        put(3, 1);
        put(3, 2);
        // The first one that came made room.
        let mut got = times(&ring);
        assert_eq!((got.remove(0), ring.len()), (vec![998, 999], 6));
        assert_eq!(got, [[1, 2], [1, 2]]);
        assert_eq!(ring.of_shard(0, 4).len(), 6);
        assert_eq!(ring.of_shard(1, 4).len(), 0);
        // A checkpoint leaves out those of series that it does not hold itself.
        assert!(ring.of_shard(0, 3).iter().all(|(series, _)| *series < 3));
        ring.delete((0, 1), TimeRange::new(0, 998));
        ring.delete((0, 2), TimeRange::ALL);
        assert_eq!((times(&ring), ring.len()), (vec![vec![999], vec![1, 2]], 3));
        ring.set_limit(Some(2));
        let one = Exemplar { labels: Labels::empty(), value: 0.0, timestamp: 9 };
        ring.take((0, 3), || name(3), one, &settings);
        assert_eq!((times(&ring), ring.len()), (vec![vec![2, 9]], 2));
    }
}
