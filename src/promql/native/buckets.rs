//! Buckets with their bounds, in the order of values.

use model::FloatHistogram;
use model::histogram::{Span, indices};

use super::bounds::bound;
use super::is_custom;
use crate::exec::format_general;

/// A bucket, its bounds and whether they belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

/// Index and count of each bucket of a side.
pub(super) fn counts<'h>(spans: &'h [Span], counts: &'h [f64]) -> impl Iterator<Item = (i32, f64)> + 'h {
    indices(spans).zip(counts.iter().copied())
}

/// A bucket of positive values (or of custom bounds).
pub(super) fn positive(h: &FloatHistogram, index: i32, count: f64) -> Bucket {
    let (lower, upper) = (bound(h, index.wrapping_sub(1)), bound(h, index));
    let custom = is_custom(h);
    Bucket {
        lower,
        upper,
        lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
        upper_inclusive: custom || upper > 0.0,
        count,
    }
}

/// A bucket of negative values.
pub(super) fn negative(h: &FloatHistogram, index: i32, count: f64) -> Bucket {
    let (lower, upper) = (-bound(h, index), -bound(h, index.wrapping_sub(1)));
    Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
}

pub(super) fn zero(h: &FloatHistogram) -> Bucket {
    Bucket {
        lower: -h.zero_threshold,
        upper: h.zero_threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count: h.zero_count,
    }
}

/// All buckets in ascending order, the zero bucket among them if it counts anything; where the zero bucket
/// reaches into another bucket, that one begins at its border.
pub fn all_buckets(h: &FloatHistogram) -> Vec<Bucket> {
    let mut out = Vec::with_capacity(h.positive_counts.len() + h.negative_counts.len() + 1);
    let threshold = h.zero_threshold;
    let clipped = |mut bucket: Bucket| {
        if bucket.upper < 0.0 && bucket.upper > -threshold {
            bucket.upper = -threshold;
        } else if bucket.lower > 0.0 && bucket.lower < threshold {
            bucket.lower = threshold;
        }
        bucket
    };
    out.extend(counts(&h.negative_spans, &h.negative_counts).map(|(i, n)| clipped(negative(h, i, n))));
    out.reverse();
    if h.zero_count > 0.0 {
        out.push(zero(h));
    }
    out.extend(counts(&h.positive_spans, &h.positive_counts).map(|(i, n)| clipped(positive(h, i, n))));
    out
}

/// A histogram in one line, as a label value names it.
pub(crate) fn show(h: &FloatHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", format_general(h.count), format_general(h.sum));
    let mut side: Vec<Bucket> =
        counts(&h.negative_spans, &h.negative_counts).map(|(i, n)| negative(h, i, n)).collect();
    side.reverse();
    side.push(zero(h));
    side.extend(counts(&h.positive_spans, &h.positive_counts).map(|(i, n)| positive(h, i, n)));
    for b in side.iter().filter(|b| b.count != 0.0) {
        out.push_str(&format!(
            ", {}{},{}{}:{}",
            if b.lower_inclusive { '[' } else { '(' },
            format_general(b.lower),
            format_general(b.upper),
            if b.upper_inclusive { ']' } else { ')' },
            format_general(b.count)
        ));
    }
    out.push('}');
    out
}
