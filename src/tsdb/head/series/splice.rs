//! Whether a sample of another sender of the same series is taken: not beside one that is there already.
//!
//! Two Prometheus servers scrape the same target at times of their own, by clocks of their own. Where one takes the
//! place of the other, what it sends fills in what the other left out, and no more: a sample that stands closer to one
//! that is there than half the series' interval is the same scrape as far as anybody can tell, and a counter may run
//! backwards from one to the other.
//!
//! # Cost
//! Only spliced batches ask. Of a sample that is newer than all, the last few times are read from the chunk that grows;
//! of another, chunks that cover it are decoded.

use chunk::{Encoding, xor};
use model::{Native, Sample, Timestamp};

use super::open::OPEN_MOST;
use super::{NEVER, Series};
use crate::head::native;

/// Steps between samples by which the series' interval is told: the second shortest of them, because gaps make some longer,
/// also several where what fills them comes out of order, and a splice makes one shorter.
const STEPS: usize = 8;

/// What is stored around a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    /// Newest time that is not after it.
    pub before: Option<Timestamp>,
    /// Oldest time after it.
    pub after: Option<Timestamp>,
}

impl Around {
    fn see(&mut self, time: Timestamp, t: Timestamp) {
        match time <= t {
            true => self.before = self.before.max(Some(time)),
            false => self.after = Some(self.after.map_or(time, |after| after.min(time))),
        }
    }

    /// Whether a sample at `t` is taken in a series with this `interval`, if it is known. The end of a series says
    /// nothing that a counter could contradict, and is taken wherever nothing follows.
    pub(crate) fn takes(self, t: Timestamp, interval: Option<i64>, is_stale: bool) -> bool {
        let apart = interval.unwrap_or(0).unsigned_abs();
        // Exactly in the middle it is taken: an interval that was told twice too long, as every second scrape was missing, would
        // keep each other one out for ever.
        let near = |other: Timestamp| 2 * t.abs_diff(other) < apart;
        match (self.before, self.after) {
            (Some(before), _) if before == t => false,
            (_, None) if is_stale => true,
            (Some(before), Some(after)) => {
                // Between two scrapes of one sender there is nothing to fill in, however they fell.
                let whole = 2 * after.abs_diff(before) <= 3 * apart;
                !(is_stale || whole || near(before) || near(after))
            }
            // Of one sample no interval is known: what would come before it may be the same scrape, and is the beginning.
            (None, Some(_)) if interval.is_none() => false,
            (before, after) => !before.into_iter().chain(after).any(near),
        }
    }
}

impl Series<'_> {
    /// Whether a sample at `t` of another sender is taken.
    pub(crate) fn splices(&self, t: Timestamp, is_stale: bool) -> bool {
        self.around(t).takes(t, self.interval(), is_stale)
    }

    /// Whether this very sample is there.
    pub(crate) fn has_float(&self, sample: Sample) -> bool {
        self.value_at(sample.timestamp) == Some(sample.value.to_bits())
    }

    pub(crate) fn has_native(&self, t: Timestamp, histogram: &Native) -> bool {
        self.native_at(t).is_some_and(|found| found.is_same(histogram))
    }

    fn around(&self, t: Timestamp) -> Around {
        let mut around = Around::default();
        let newest = self.hot.newest;
        if newest == NEVER || newest < t {
            around.before = (newest != NEVER).then_some(newest);
            return around;
        }
        around.see(newest, t);
        let mut see = |time| around.see(time, t);
        self.out_of_order().iter().for_each(|sample| see(sample.timestamp));
        if let Some(open) = self.open_range() {
            see(open.start);
            if open.contains(t) {
                times(self.open_bytes(&mut [0; OPEN_MOST]), &mut see);
            }
        }
        // Remembered ones as well: what was cut is there.
        for chunk in self.chain() {
            match chunk.encoding {
                Encoding::Xor => {
                    see(chunk.range.start);
                    see(chunk.range.end);
                    if chunk.range.contains(t) {
                        times(chunk.bytes, &mut see);
                    }
                }
                encoding => native::times(encoding, chunk.bytes, chunk.range, t, &mut see),
            }
        }
        if let Some(rare) = &self.cold.rare {
            rare.natives.times(t, &mut see);
        }
        around
    }

    /// The usual time from one sample to the next, by the newest few; none where there are not two.
    fn interval(&self) -> Option<i64> {
        let mut last = Last::default();
        // A chunk that has only begun says too little: its one step may be the gap that is to be filled.
        if usize::from(self.hot.appender.count()) <= STEPS
            && let Some(chunk) = self.chain().max_by_key(|chunk| chunk.range.end)
        {
            match chunk.encoding {
                Encoding::Xor => times(chunk.bytes, &mut |time| last.see(time)),
                encoding => {
                    let end = chunk.range.end;
                    native::times(encoding, chunk.bytes, chunk.range, end, &mut |time| last.see(time));
                }
            }
        }
        match (self.hot.appender.count(), &self.cold.rare) {
            (0, Some(rare)) => rare.natives.times(self.hot.newest, &mut |time| last.see(time)),
            (0, None) => {}
            _ => times(self.open_bytes(&mut [0; OPEN_MOST]), &mut |time| last.see(time)),
        }
        last.usual()
    }
}

/// The last steps from one time to the next.
#[derive(Default)]
struct Last {
    at: Option<Timestamp>,
    ring: [i64; STEPS],
    steps: usize,
}

impl Last {
    /// Times that do not go on are passed over.
    fn see(&mut self, time: Timestamp) {
        if let Some(step) = self.at.and_then(|at| time.checked_sub(at)) {
            if step <= 0 {
                return;
            }
            self.ring[self.steps % STEPS] = step;
            self.steps += 1;
        }
        self.at = Some(time);
    }

    fn usual(mut self) -> Option<i64> {
        let steps = self.ring.get_mut(..self.steps.min(STEPS))?;
        steps.sort_unstable();
        let (first, second) = (*steps.first()?, steps.get(1).copied());
        match second {
            // What a splice puts in stands half an interval apart, so that this is one scrape twice or the other a long gap.
            Some(second) if steps.len() > 3 || 2 * first < second => Some(second),
            // Of a few, one may well be over a sample that is yet to come; too long an interval would keep the next ones out.
            _ => Some(first),
        }
    }
}

fn times(chunk: &[u8], see: &mut dyn FnMut(Timestamp)) {
    let samples = xor::Iter::new(chunk).into_iter().flat_map(|samples| samples.map_while(Result::ok));
    samples.for_each(|sample| see(sample.timestamp));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::Verdict;

    use super::super::Store;
    use super::*;
    use crate::head::judge::Bounds;

    const RANGE: i64 = 7_200_000;
    const BOUNDS: Bounds =
        Bounds { out_of_order_window: RANGE, future_tolerance: 600_000, max_sample_age: 24 * RANGE };

    fn series(times: &[i64]) -> Store {
        let mut store = Store::default();
        let list = store.lists().alloc(4);
        store.insert(0, 0, 1, list);
        for t in times {
            let sample = Sample { timestamp: *t, value: *t as f64 };
            assert_eq!(store.get_mut(0).unwrap().offer(sample, *t, &BOUNDS, RANGE), Verdict::Stored);
        }
        store
    }

    fn splices(store: &Store, t: i64) -> bool {
        store.get(0).unwrap().splices(t, false)
    }

    #[test]
    fn beside_a_sample_nothing_is_taken_and_in_a_gap_it_is() {
        let store = series(&[0, 15_000, 30_000, 45_000]);
        for (t, taken) in [
            (-20_000, true),
            (-7_000, false),
            (0, false),
            (7_500, false),
            (22_000, false),
            (45_000, false),
            (52_000, false),
            (52_501, true),
            (90_000, true),
        ] {
            assert_eq!(splices(&store, t), taken, "{t}");
        }
        // A scrape was missed: what the other has in the middle is taken.
        let store = series(&[0, 15_000, 30_000, 45_000, 60_000, 90_000]);
        for (t, taken) in [(66_000, false), (68_000, true), (75_000, true), (82_400, true), (83_000, false)] {
            assert_eq!(splices(&store, t), taken, "{t}");
        }
    }

    #[test]
    fn ends_of_series_are_taken_where_nothing_follows() {
        let store = series(&[0, 15_000, 30_000]);
        let series = store.get(0).unwrap();
        assert!(series.splices(31_000, true));
        assert!(!series.splices(16_000, true) && !series.splices(30_000, true));
    }

    #[test]
    fn one_long_pause_is_not_the_interval() {
        let mut times: Vec<i64> = (0..10).map(|n| n * 10_000).collect();
        times.extend((0..2).map(|n| 3_600_000 + n * 10_000));
        let store = series(&times);
        assert!(splices(&store, 3_616_000) && !splices(&store, 3_614_000));
        // One sample in the chunk that grows: the chunk before it says.
        let mut times: Vec<i64> = (0..10).map(|n| RANGE - 100_000 + n * 10_000).collect();
        times.push(RANGE);
        let store = series(&times);
        assert!(splices(&store, RANGE + 6_000) && !splices(&store, RANGE + 4_000));
        // Two of which one was missed: the chunk before it says as well.
        times.push(RANGE + 20_000);
        let store = series(&times);
        assert!(splices(&store, RANGE + 10_000) && !splices(&store, RANGE + 4_000));
        assert!(splices(&series(&[5]), 6), "of one sample nothing is known");
        assert!(!splices(&series(&[5]), 4), "and its beginning may be the same scrape");
        // Every other one is missing: the next is taken all the same, and the interval found again.
        let store = series(&[0, 20_000, 40_000, 60_000, 80_000, 100_000]);
        assert!(splices(&store, 110_000) && !splices(&store, 109_999));
        // One scrape was taken twice: no reason to take all of them twice.
        assert!(!splices(&series(&[0, 1_000, 11_000]), 14_000));
        // One is missing among the first: the next is no second time of the last.
        assert!(
            splices(&series(&[0, 10_000, 30_000]), 40_000) && !splices(&series(&[0, 10_000, 30_000]), 34_000)
        );
    }

    proptest! {
        /// Whatever is taken stands apart from all that is stored, in chunks that are sealed, open, and out of order.
        #[test]
        fn what_is_around_is_found_wherever_it_lies(
            mut times in proptest::collection::btree_set(0i64..4_000, 1..400), late in proptest::collection::btree_set(0i64..4_000, 0..260),
            t in -10i64..4_100,
        ) {
            let mut store = series(&times.iter().map(|t| t * 4_000).collect::<Vec<_>>());
            for late in late {
                let sample = Sample { timestamp: late * 4_000, value: 0.0 };
                let any = Bounds { out_of_order_window: 4 * RANGE, future_tolerance: 4 * RANGE, ..BOUNDS };
                store.get_mut(0).unwrap().offer(sample, RANGE, &any, RANGE);
                times.insert(late);
            }
            let t = t * 4_000 + 1_000;
            let around = store.get(0).unwrap().around(t);
            let all = times.iter().map(|t| t * 4_000);
            let before = all.clone().filter(|time| *time <= t).max();
            let after = all.filter(|time| *time > t).min();
            prop_assert_eq!(around, Around { before, after });
        }
    }
}
