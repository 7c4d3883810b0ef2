//! Two scrapers of one target shown as one series: Thanos's penalty algorithm over decoded samples.
//!
//! Samples of the two never have equal times, so taking both would double the series. One side is followed; the
//! other is only taken up again when it is ahead by more than a penalty, which grows with the gap that made
//! the switch. Only for pairs that are not ours: copies of our own receivers merge exactly. A pure function.

use model::Timestamp;
use storage::Columns;

/// Penalty before anything is known of the distance between samples.
const INITIAL_PENALTY_MS: i64 = 5000;

/// One side's samples, and how much its counter lags behind what was shown before.
struct Side<'a> {
    columns: &'a Columns,
    at: usize,
    penalty: i64,
    /// Added to every value, so that a switch between counters shows no reset that never was.
    adjust: f64,
}

impl<'a> Side<'a> {
    fn new(columns: &'a Columns) -> Side<'a> {
        Side { columns, at: 0, penalty: 0, adjust: 0.0 }
    }

    /// Goes on to the first sample at or after `t`; false at the end.
    fn seek(&mut self, t: Timestamp) -> bool {
        while self.time().is_some_and(|own| own < t) {
            self.at += 1;
        }
        self.time().is_some()
    }

    fn time(&self) -> Option<Timestamp> {
        self.columns.timestamps.get(self.at).copied()
    }

    fn value(&self) -> f64 {
        self.columns.values.get(self.at).copied().unwrap_or(f64::NAN) + self.adjust
    }

    /// The side is taken up after `last` was shown.
    fn adjust_after(&mut self, last: f64) {
        if last > self.value() {
            self.adjust += last - self.value();
        }
    }
}

/// One series of two. With `counter`, values are lifted where a switch would look like a reset.
pub fn pair(a: &Columns, b: &Columns, counter: bool) -> Columns {
    let mut out = Columns::default();
    let (mut a, mut b) = (Side::new(a), Side::new(b));
    let mut last: Option<Timestamp> = None;
    let mut use_a = true;
    loop {
        let from = |penalty: i64| match last {
            None => i64::MIN,
            Some(last) => last.saturating_add(1).saturating_add(penalty),
        };
        let (has_a, has_b) = (a.seek(from(a.penalty)), b.seek(from(b.penalty)));
        let used_a = use_a;
        match (has_a, has_b) {
            (false, false) => return out,
            (false, true) => (use_a, b.penalty) = (false, 0),
            (true, false) => (use_a, a.penalty) = (true, 0),
            (true, true) => {
                use_a = a.time() <= b.time();
                let (taken, other) = if use_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
                other.penalty = match (last, taken.time()) {
                    (Some(last), Some(t)) => t.saturating_sub(last).saturating_mul(2),
                    _ => INITIAL_PENALTY_MS,
                };
                taken.penalty = 0;
            }
        }
        let taken = if use_a { &mut a } else { &mut b };
        if counter
            && used_a != use_a
            && let Some(shown) = out.values.last()
        {
            taken.adjust_after(*shown);
        }
        let Some(t) = taken.time() else { return out };
        out.push(t, taken.value());
        last = Some(t);
    }
}

/// One series of many: the first two, their result and the third, and so on.
pub fn fold(replicas: &[Columns], counter: bool) -> Columns {
    let mut replicas = replicas.iter();
    let Some(first) = replicas.next() else { return Columns::default() };
    replicas.fold(first.clone(), |folded, next| pair(&folded, next, counter))
}

/// Whether a function reads its argument as a counter.
pub fn reads_counter(function: &str) -> bool {
    matches!(function, "rate" | "increase" | "irate" | "resets")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(samples: &[(i64, f64)]) -> Columns {
        let mut out = Columns::default();
        samples.iter().for_each(|(t, v)| out.push(*t, *v));
        out
    }

    fn check(replicas: &[&[(i64, f64)]], counter: bool, wanted: &[(i64, f64)]) {
        let replicas: Vec<Columns> = replicas.iter().map(|r| columns(r)).collect();
        let got = fold(&replicas, counter);
        let got: Vec<(i64, f64)> = got.timestamps.into_iter().zip(got.values).collect();
        assert_eq!(got, wanted);
    }

    #[test]
    fn one_side_is_followed_until_it_ends() {
        check(
            &[
                &[(10_000, 10.0), (20_000, 11.0), (30_000, 12.0), (40_000, 13.0)],
                &[(10_001, 20.0), (20_001, 21.0), (30_001, 22.0), (45_001, 23.0)],
            ],
            false,
            // After the end of the first side the second goes on behind its penalty.
            &[(10_000, 10.0), (20_000, 11.0), (30_000, 12.0), (40_000, 13.0)],
        );
        check(&[&[(1, 1.0)], &[]], false, &[(1, 1.0)]);
        check(&[&[], &[(1, 1.0), (2, 2.0)]], false, &[(1, 1.0), (2, 2.0)]);
        check(&[], false, &[]);
    }

    #[test]
    fn a_gap_on_one_side_is_filled_from_the_other() {
        let a: Vec<(i64, f64)> =
            (0..20).filter(|i| !(5..12).contains(i)).map(|i| (i * 10_000, 1.0)).collect();
        let b: Vec<(i64, f64)> = (0..20).map(|i| (i * 10_000 + 100, 2.0)).collect();
        let got = pair(&columns(&a), &columns(&b), false);
        let gaps = got.timestamps.windows(2).map(|w| w[1] - w[0]);
        assert!(gaps.max().unwrap() <= 30_000, "{:?}", got.timestamps);
        assert!(got.values.contains(&2.0));
    }

    #[test]
    fn counters_do_not_fall_at_a_switch() {
        let a: &[(i64, f64)] = &[(0, 100.0), (10_000, 110.0)];
        let b: &[(i64, f64)] = &[(5_000, 50.0), (15_000, 60.0), (40_000, 70.0), (50_000, 80.0)];
        check(&[a, b], true, &[(0, 100.0), (10_000, 110.0), (40_000, 110.0), (50_000, 120.0)]);
        check(&[a, b], false, &[(0, 100.0), (10_000, 110.0), (40_000, 70.0), (50_000, 80.0)]);
    }

    proptest! {
        #[test]
        fn times_ascend_and_come_from_a_side(
            a in proptest::collection::btree_map(0i64..100_000, -1e6f64..1e6, 0..50),
            b in proptest::collection::btree_map(0i64..100_000, -1e6f64..1e6, 0..50),
        ) {
            let of = |m: &std::collections::BTreeMap<i64, f64>| columns(&m.iter().map(|(t, v)| (*t, *v)).collect::<Vec<_>>());
            let got = pair(&of(&a), &of(&b), false);
            prop_assert!(got.timestamps.windows(2).all(|w| w[0] < w[1]));
            for (t, v) in got.timestamps.iter().zip(&got.values) {
                prop_assert!(a.get(t) == Some(v) || b.get(t) == Some(v));
            }
            prop_assert_eq!(got.is_empty(), a.is_empty() && b.is_empty());
            // A side with its own copy is that side.
            prop_assert_eq!(pair(&of(&a), &of(&a), true).timestamps, of(&a).timestamps);
        }
    }
}
