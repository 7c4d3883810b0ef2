//! Random days: whatever is appended, cut, killed and read, the engine agrees with a map of samples.

mod rig;

use std::collections::{BTreeMap, BTreeSet};

use model::{TimeRange, pick_conflict};
use proptest::prelude::*;
use rig::{HOUR, MINUTE, NOON, Rig, Samples, tenant};
use storage::{Refusal, Verdict};

#[derive(Clone, Debug)]
enum Op {
    /// Tenant, series, and samples as (grid steps relative to now, value).
    Push(u8, u8, Vec<(i64, u8)>),
    Advance(i64),
    Cut {
        force: bool,
    },
    Kill,
    ReadSome(i64, i64),
}

fn op() -> impl Strategy<Value = Op> {
    let sample = (prop_oneof![8 => -3i64..3, 3 => -30i64..5, 1 => -700i64..5], 0u8..3);
    prop_oneof![
        12 => (0u8..2, 0u8..3, prop::collection::vec(sample, 1..6)).prop_map(|(t, s, v)| Op::Push(t, s, v)),
        6 => (1i64..40).prop_map(Op::Advance),
        1 => (60i64..600).prop_map(Op::Advance),
        2 => any::<bool>().prop_map(|force| Op::Cut { force }),
        2 => Just(Op::Kill),
        2 => (-200i64..0, 0i64..200).prop_map(|(a, b)| Op::ReadSome(a, b)),
    ]
}

/// Times lie on a grid, so that they meet.
const GRID: i64 = 5 * MINUTE;

fn value(v: u8) -> f64 {
    [1.0, f64::from_bits(model::STALE_NAN_BITS), -0.0][usize::from(v)]
}

#[derive(Default)]
struct Series {
    samples: BTreeMap<i64, u64>,
    /// Times that may lie in a block only, where an append does not look once they are too old for any order.
    cut: BTreeSet<i64>,
    /// Whether the newest time may have been forgotten.
    forgotten: bool,
}

impl Series {
    /// Checks one verdict and notes what it did.
    fn judge(&mut self, now: i64, t: i64, v: f64, verdict: Verdict) -> Result<(), TestCaseError> {
        let in_block = self.cut.contains(&t);
        let newest = self.samples.keys().next_back().copied();
        let too_old = Verdict::Refused(Refusal::TooOld);
        let in_window = now - t <= 2 * HOUR;
        let allowed: Vec<Verdict> = if t - now > 10 * MINUTE {
            vec![Verdict::Refused(Refusal::TooFarInFuture)]
        } else if let Some(bits) = self.samples.get(&t) {
            let known = match *bits == v.to_bits() {
                true => Verdict::Duplicate,
                false => Verdict::Refused(Refusal::Conflict),
            };
            // What may be written in any order is known, cut or not.
            match in_block && !in_window {
                // A conflict between block and head is settled by whoever reads.
                true => vec![
                    known,
                    Verdict::Stored,
                    Verdict::Duplicate,
                    Verdict::Refused(Refusal::Conflict),
                    too_old,
                ],
                false => vec![known],
            }
        } else if in_window {
            vec![Verdict::Stored]
        } else if now - t > 48 * HOUR {
            vec![too_old]
        } else if newest.is_none_or(|newest| t > newest) {
            vec![Verdict::Stored]
        } else if self.forgotten {
            vec![too_old, Verdict::Stored]
        } else {
            vec![too_old]
        };
        prop_assert!(allowed.contains(&verdict), "{verdict:?} for {t} at {now}; allowed: {allowed:?}");
        if verdict == Verdict::Stored {
            let kept = self.samples.get(&t).map_or(v, |b| pick_conflict(f64::from_bits(*b), v));
            self.samples.insert(t, kept.to_bits());
        }
        Ok(())
    }
}

type World = BTreeMap<(String, String), Series>;

fn wanted(world: &World, of: &str, range: TimeRange) -> Samples {
    let mut out = Samples::new();
    for ((tenant, name), series) in world {
        let samples: Vec<(i64, u64)> =
            series.samples.iter().filter(|(t, _)| range.contains(**t)).map(|(t, b)| (*t, *b)).collect();
        if tenant == of && !samples.is_empty() {
            out.insert(name.clone(), samples);
        }
    }
    out
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut rig = Rig::new();
    let mut world = World::new();
    for op in ops {
        match op {
            Op::Push(of, series, samples) => {
                let (of, name) = (format!("t{of}"), format!("s{series}"));
                let now = rig.now();
                let samples: Vec<(i64, f64)> = samples
                    .iter()
                    .map(|(at, v)| (now - now.rem_euclid(GRID) + at * GRID, value(*v)))
                    .collect();
                let verdicts = rig.push(&of, &name, &samples);
                let series = world.entry((of, name)).or_default();
                for ((t, v), verdict) in samples.iter().zip(verdicts) {
                    series.judge(now, *t, *v, verdict)?;
                }
            }
            Op::Advance(minutes) => rig.clock.advance(minutes * MINUTE),
            Op::Cut { force } => {
                for block in rig.tsdb.cut(rig.now(), force).unwrap() {
                    let range = block.meta.min_time..block.meta.max_time;
                    for ((of, _), series) in &mut world {
                        if tenant(of) == block.tenant {
                            let inside: Vec<i64> =
                                series.samples.range(range.clone()).map(|(t, _)| *t).collect();
                            series.cut.extend(inside);
                        }
                    }
                }
                world.values_mut().for_each(|s| s.forgotten = true);
            }
            Op::Kill => rig.kill(),
            Op::ReadSome(from, to) => {
                let range = TimeRange::new(rig.now() + from * GRID, rig.now() + to * GRID);
                prop_assert_eq!(rig.read_range("t0", range), wanted(&world, "t0", range));
            }
        }
    }
    for of in ["t0", "t1"] {
        prop_assert_eq!(rig.read(of), wanted(&world, of, TimeRange::ALL));
        rig.kill();
        prop_assert_eq!(rig.read(of), wanted(&world, of, TimeRange::ALL));
    }
    prop_assert!(NOON <= rig.now());
    Ok(())
}

/// `DAYS=5000 cargo test ...` for more than the usual number.
fn days() -> u32 {
    std::env::var("DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: days(), max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_day_agrees_with_a_map(ops in prop::collection::vec(op(), 1..80)) {
        run(ops)?;
    }
}
