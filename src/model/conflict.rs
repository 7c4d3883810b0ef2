//! Which of two histograms for one series and time every reader returns, as `pick_conflict` says it of floats.

use std::cmp::Ordering;

use crate::histogram::{Span, absolutes, indices};
use crate::{FloatHistogram, Native, is_stale};

/// The greater of the two wins. A stale marker is least; else counts, sum, layout and buckets decide by their bits, so
/// that the order in which copies arrive cannot matter. Buckets that are empty do not count: one sample has more or
/// fewer of them in different chunks. Such copies are `Equal`.
pub fn compare_conflict(a: &FloatHistogram, b: &FloatHistogram) -> Ordering {
    let head = |h: &FloatHistogram| [h.count, h.sum, h.zero_count, h.zero_threshold].map(f64::to_bits);
    match (a.is_stale(), b.is_stale()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Less,
        (false, true) => return Ordering::Greater,
        (false, false) => {}
    }
    head(a)
        .cmp(&head(b))
        .then_with(|| a.schema.cmp(&b.schema))
        .then_with(|| {
            full(&a.positive_spans, &a.positive_counts).cmp(full(&b.positive_spans, &b.positive_counts))
        })
        .then_with(|| {
            full(&a.negative_spans, &a.negative_counts).cmp(full(&b.negative_spans, &b.negative_counts))
        })
        .then_with(|| {
            let bits = |h: &FloatHistogram| h.custom_values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            bits(a).cmp(&bits(b))
        })
        .then_with(|| {
            (a.hint == crate::histogram::ResetHint::Gauge)
                .cmp(&(b.hint == crate::histogram::ResetHint::Gauge))
        })
}

/// Whether `new` takes the place of `kept` where both are a series' histogram of one time. Of equal ones the one with
/// fewer empty buckets, so that this does not depend on the order in which they arrive either.
pub fn histogram_wins(new: &FloatHistogram, kept: &FloatHistogram) -> bool {
    let room = |h: &FloatHistogram| h.positive_counts.len() + h.negative_counts.len();
    match compare_conflict(new, kept) {
        Ordering::Equal => room(new) < room(kept),
        order => order == Ordering::Greater,
    }
}

/// The same of histograms of either kind. Where they are equal as floats, whole counts win, and of these the greater.
pub fn native_wins(new: &Native, kept: &Native) -> bool {
    let (a, b) = (new.to_float(), kept.to_float());
    let exact = |h: &Native| match h {
        Native::Whole(h) => {
            let side = |spans, deltas: &[i64]| {
                let counts = indices(spans).zip(absolutes(deltas.iter().copied()));
                counts.filter(|(_, count)| *count != 0).collect::<Vec<_>>()
            };
            let positive = side(&h.positive_spans, &h.positive_deltas);
            Some((h.count, h.zero_count, positive, side(&h.negative_spans, &h.negative_deltas)))
        }
        Native::Float(_) => None,
    };
    match compare_conflict(&a, &b) {
        Ordering::Equal if a.is_stale() => matches!((new, kept), (Native::Whole(_), Native::Float(_))),
        Ordering::Equal => match exact(new).cmp(&exact(kept)) {
            Ordering::Equal => histogram_wins(&a, &b),
            order => order == Ordering::Greater,
        },
        order => order == Ordering::Greater,
    }
}

/// Whether a float wins over a histogram of the same series and time: only over a stale marker, unless it is one too.
pub fn float_wins(value: f64, histogram_is_stale: bool) -> bool {
    histogram_is_stale && !is_stale(value)
}

/// Buckets that are not empty.
fn full<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, u64)> + 'a {
    indices(spans).zip(counts).filter(|(_, c)| **c != 0.0).map(|(at, c)| (at, c.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale_nan;

    #[test]
    fn a_total_order_that_ignores_room() {
        let h = |count: f64, spans: &[(i32, u32)], counts: &[f64]| FloatHistogram {
            count,
            positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
            positive_counts: counts.to_vec(),
            ..FloatHistogram::default()
        };
        let stale = FloatHistogram { sum: stale_nan(), count: 9.0, ..FloatHistogram::default() };
        let list = [
            stale.clone(),
            h(3.0, &[(0, 2)], &[1.0, 2.0]),
            h(3.0, &[(0, 2)], &[2.0, 1.0]),
            h(3.0, &[(1, 2)], &[1.0, 2.0]),
            h(4.0, &[(0, 2)], &[2.0, 2.0]),
        ];
        for a in 0..list.len() {
            for b in 0..list.len() {
                assert_eq!(compare_conflict(&list[a], &list[b]), a.cmp(&b), "{a} and {b}");
            }
        }
        let room = h(3.0, &[(-1, 4)], &[0.0, 1.0, 2.0, 0.0]);
        assert_eq!(compare_conflict(&room, &list[1]), Ordering::Equal);
        assert_eq!(
            compare_conflict(&stale, &FloatHistogram { count: 1.0, ..stale.clone() }),
            Ordering::Equal
        );
    }
}
