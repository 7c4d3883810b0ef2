//! Which of two histograms for one series and time every reader returns, as `pick_conflict` says it of floats.

use std::cmp::Ordering;

use crate::FloatHistogram;
use crate::histogram::{Span, indices};

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
