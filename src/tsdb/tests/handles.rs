//! Appends by handle against appends by labels: the same verdicts and the same samples, whatever became of the
//! series since the handle was given.

mod rig;

use std::collections::HashMap;

use model::{Labels, Sample};
use proptest::prelude::*;
use rig::{HOUR, MINUTE, NOON, Rig, tenant};
use storage::{Append, Known, SeriesHandle, Verdict, WriteBatch};

/// A caller who remembers every handle that it was ever given, the last one of each series.
#[derive(Default)]
struct Caller {
    handles: HashMap<(String, String), SeriesHandle>,
    /// Rows that were asked for their labels.
    asked: usize,
}

fn labels(series: &str) -> Labels {
    Labels::from_pairs([("__name__", series), ("job", "test")]).unwrap()
}

impl Caller {
    fn push(&mut self, rig: &Rig, of: &str, rows: &[(String, Vec<(i64, f64)>)]) -> Vec<Verdict> {
        let mut batch = WriteBatch::default();
        for (series, samples) in rows {
            let labels = labels(series);
            let hash = labels.placement_hash(of);
            let samples = samples.iter().map(|&(timestamp, value)| Sample { timestamp, value });
            match self.handles.get(&(of.to_owned(), series.clone())) {
                Some(handle) => batch.push_known(*handle, hash, samples),
                None => batch.push(labels.as_bytes(), hash, samples),
            }
        }
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let mut verdicts = vec![Verdict::Unavailable; batch.samples().len()];
        let asked = std::cell::Cell::new(0);
        let labels_of = |row: u32, out: &mut Vec<u8>| {
            asked.set(asked.get() + 1);
            out.extend_from_slice(labels(&rows[row as usize].0).as_bytes());
            true
        };
        let mut learned = Vec::new();
        let known = Known { labels: &labels_of, learned: &mut learned };
        let outcome =
            rig.tsdb.append_known(&tenant(of), &batch, &all, rig.now(), &mut verdicts, known).unwrap();
        rig.tsdb.wait_durable_blocking(outcome.log_position, std::time::Duration::from_secs(20)).unwrap();
        self.asked += asked.get();
        for (row, handle) in learned {
            self.handles.insert((of.to_owned(), rows[row as usize].0.clone()), handle);
        }
        verdicts
    }
}

fn by_labels(rig: &Rig, of: &str, rows: &[(String, Vec<(i64, f64)>)]) -> Vec<Verdict> {
    let rows: Vec<(&str, &[(i64, f64)])> = rows.iter().map(|(s, v)| (s.as_str(), v.as_slice())).collect();
    rig.try_push(of, &rows).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8, Vec<(u8, Vec<(i64, u8)>)>),
    /// Time passes and everything is cut; what is idle is forgotten.
    Cut(i64),
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let row = (0u8..5, proptest::collection::vec((-30i64..20, 0u8..3), 1..4));
    prop_oneof![
        8 => (0u8..2, proptest::collection::vec(row, 1..8)).prop_map(|(of, rows)| Op::Push(of, rows)),
        3 => (0i64..600).prop_map(Op::Cut),
        1 => Just(Op::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn handles_and_labels_give_the_same(ops in proptest::collection::vec(op(), 1..25)) {
        let (mut left, mut right) = (Rig::new(), Rig::new());
        let mut caller = Caller::default();
        for op in ops {
            match op {
                Op::Push(of, rows) => {
                    let of = format!("t{of}");
                    let now = left.now();
                    let at = |(t, v): &(i64, u8)| (now + t * 10 * MINUTE, f64::from(*v));
                    let rows: Vec<(String, Vec<(i64, f64)>)> =
                        rows.iter().map(|(s, v)| (format!("s{s}"), v.iter().map(at).collect())).collect();
                    prop_assert_eq!(by_labels(&left, &of, &rows), caller.push(&right, &of, &rows));
                }
                Op::Cut(minutes) => {
                    for rig in [&left, &right] {
                        rig.clock.advance(minutes * MINUTE);
                        rig.tsdb.cut(rig.now(), true).unwrap();
                    }
                }
                Op::Kill => {
                    left.kill();
                    right.kill();
                }
            }
            prop_assert_eq!(left.tsdb.head_stats().series, right.tsdb.head_stats().series);
        }
        for of in ["t0", "t1"] {
            prop_assert_eq!(left.read(of), right.read(of));
        }
    }
}

#[test]
fn a_stale_handle_is_a_miss_and_never_another_series() {
    let rig = Rig::new();
    let mut caller = Caller::default();
    let row = |series: &str, t: i64, v: f64| vec![(series.to_owned(), vec![(t, v)])];
    for n in 0..8 {
        assert_eq!(caller.push(&rig, "t", &row(&format!("old{n}"), NOON, 1.0)), [Verdict::Stored]);
        assert_eq!(caller.push(&rig, "t", &row(&format!("old{n}"), NOON + 1, 2.0)), [Verdict::Stored]);
    }
    assert_eq!(caller.asked, 0, "handles found their series");
    rig.clock.advance(24 * HOUR);
    rig.tsdb.cut(rig.now(), true).unwrap();
    assert_eq!(rig.tsdb.head_stats().series, 0);
    // Others take their places.
    let now = rig.now();
    for n in 0..8 {
        assert_eq!(caller.push(&rig, "t", &row(&format!("new{n}"), now, 3.0)), [Verdict::Stored]);
    }
    for n in 0..8 {
        assert_eq!(caller.push(&rig, "t", &row(&format!("old{n}"), now, 4.0)), [Verdict::Stored]);
    }
    assert_eq!(caller.asked, 8, "every stale handle was a miss");
    for n in 0..8 {
        assert_eq!(caller.push(&rig, "t", &row(&format!("old{n}"), now + 1, 5.0)), [Verdict::Stored]);
    }
    assert_eq!(caller.asked, 8, "and was replaced");
    let samples = rig.read("t");
    for n in 0..8 {
        assert_eq!(samples[&format!("new{n}")], [(now, 3f64.to_bits())]);
        let old: Vec<i64> = samples[&format!("old{n}")].iter().map(|(t, _)| *t).collect();
        assert_eq!(old, [NOON, NOON + 1, now, now + 1]);
    }
}

#[test]
fn a_row_that_nobody_can_name_is_not_taken_and_no_other_suffers() {
    let rig = Rig::new();
    let mut batch = WriteBatch::default();
    let nowhere = SeriesHandle { index: 7, generation: 7 };
    let sample = Sample { timestamp: NOON, value: 1.0 };
    batch.push_known(nowhere, 42, [sample]);
    batch.push(labels("up").as_bytes(), labels("up").placement_hash("t"), [sample]);
    for known in [false, true] {
        let mut verdicts = vec![Verdict::Unavailable; 2];
        let mut learned = Vec::new();
        let known_rows = Known { labels: &|_, _| false, learned: &mut learned };
        match known {
            true => rig.tsdb.append_known(&tenant("t"), &batch, &[0, 1], NOON, &mut verdicts, known_rows),
            false => rig.tsdb.append(&tenant("t"), &batch, &[0, 1], NOON, &mut verdicts),
        }
        .unwrap();
        let taken = if known { Verdict::Duplicate } else { Verdict::Stored };
        assert_eq!(verdicts, [Verdict::Unavailable, taken]);
    }
}
