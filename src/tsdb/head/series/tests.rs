//! Where chunks end, and which samples are the same again.

use chunk::xor;
use model::{Sample, TimeRange};
use storage::{Refusal, Verdict};

use super::Store;
use crate::head::judge::Bounds;

const RANGE: i64 = 7_200_000;
const BOUNDS: Bounds =
    Bounds { out_of_order_window: RANGE, future_tolerance: 600_000, max_sample_age: 24 * RANGE };

impl Store {
    /// Makes the chunk of a series that was sealed last one that does not decode; its times.
    pub(crate) fn damage_for_test(&mut self, slot: u32) -> TimeRange {
        let name = self.cold.get(slot).unwrap().sealed;
        // More samples than there are bytes for.
        self.sealed.get_mut(name)[super::sealed::HEADER..][..2].copy_from_slice(&[0xff; 2]);
        self.get(slot).unwrap().chain().next().unwrap().range
    }
}

struct One(Store);

fn series() -> One {
    let mut store = Store::default();
    let list = store.lists().alloc(4);
    store.insert(0, 0, 1, list);
    One(store)
}

impl One {
    fn offer(&mut self, sample: Sample, judged_at: i64, bounds: &Bounds, range: i64) -> Verdict {
        self.0.get_mut(0).unwrap().offer(sample, judged_at, bounds, range)
    }
}

fn s(timestamp: i64, value: f64) -> Sample {
    Sample { timestamp, value }
}

#[test]
fn chunks_end_at_the_edge_and_at_parts_of_the_window() {
    let mut series = series();
    for i in 0..300 {
        let sample = s(RANGE - 150 * 1000 + i * 1000, i as f64);
        assert_eq!(series.offer(sample, RANGE, &BOUNDS, RANGE), Verdict::Stored);
    }
    let (mut chunks, mut bytes) = (Vec::new(), Vec::new());
    series.0.get(0).unwrap().chunks(TimeRange::ALL, &mut bytes, &mut chunks);
    let counts: Vec<u16> = chunks.iter().map(|c| xor::count(&bytes[c.start..c.end]).unwrap()).collect();
    assert_eq!(counts, [30, 120, 120, 30]);
    assert_eq!(chunks[2].range.start, RANGE);
}

#[test]
fn the_same_again_is_a_duplicate_wherever_it_lies_and_another_value_a_conflict() {
    let mut series = series();
    let now = 100 * RANGE;
    // In order every other second, then out of order in between, enough to make chunks of them.
    for i in 0..600 {
        assert_eq!(series.offer(s(now + i * 2, i as f64), now, &BOUNDS, RANGE), Verdict::Stored);
    }
    for i in (0..500).rev() {
        assert_eq!(series.offer(s(now + i * 2 + 1, -1.0), now, &BOUNDS, RANGE), Verdict::Stored);
    }
    let much_later = now + 20 * RANGE;
    for i in 0..600 {
        let again = s(now + i * 2, i as f64);
        assert_eq!(series.offer(again, much_later, &BOUNDS, RANGE), Verdict::Duplicate, "{i}");
        let other = s(now + i * 2, 0.5);
        assert_eq!(series.offer(other, now, &BOUNDS, RANGE), Verdict::Refused(Refusal::Conflict), "{i}");
    }
    for i in 0..500 {
        assert_eq!(series.offer(s(now + i * 2 + 1, -1.0), now, &BOUNDS, RANGE), Verdict::Duplicate);
    }
    let stale = s(now + 5000, model::stale_nan());
    assert_eq!(series.offer(stale, now, &BOUNDS, RANGE), Verdict::Stored);
    assert_eq!(series.offer(stale, now, &BOUNDS, RANGE), Verdict::Duplicate);
    let nan = s(now + 5000, f64::NAN);
    assert_eq!(series.offer(nan, now, &BOUNDS, RANGE), Verdict::Refused(Refusal::Conflict));
}

#[test]
fn a_deletion_that_fails_changes_nothing() {
    let mut series = series();
    for i in 0..400 {
        assert_eq!(series.offer(s(i * 1000, i as f64), 400_000, &BOUNDS, RANGE), Verdict::Stored);
    }
    assert_eq!(series.offer(s(1500, 0.5), 400_000, &BOUNDS, RANGE), Verdict::Stored);
    let bad = series.0.damage_for_test(0);
    let chunks = |series: &One| {
        let (mut chunks, mut bytes) = (Vec::new(), Vec::new());
        series.0.get(0).unwrap().chunks(TimeRange::ALL, &mut bytes, &mut chunks);
        (chunks.iter().map(|c| c.range).collect::<Vec<_>>(), bytes)
    };
    let before = chunks(&series);
    // From the late sample into the damaged chunk.
    let range = TimeRange::new(1200, 300_000);
    assert!(bad.start < range.end && bad.end > range.end, "{bad:?}");
    assert!(series.0.get_mut(0).unwrap().delete(range).is_err());
    assert_eq!(chunks(&series), before);
    // What has to go whole need not decode.
    assert!(series.0.get_mut(0).unwrap().delete(TimeRange::ALL).unwrap());
    assert!(series.0.get(0).unwrap().is_empty());
}
