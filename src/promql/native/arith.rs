//! Sum, difference and scaling of histograms.

use std::cmp::Ordering;
use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{ResetHint, Span, spans_of};

use super::bounds::exponential;
use super::buckets::{counts, negative, positive};
use super::is_custom;

/// Buckets of one side by ascending index.
pub(super) type Side = Vec<(i32, f64)>;

/// Exponential and custom buckets have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What has to be said about two histograms that met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    /// One is said to begin with a reset, the other not to.
    pub(crate) collision: bool,
    /// Their custom bounds differed; those of both remain.
    pub(crate) reconciled: bool,
}

pub(crate) fn add(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Met, Incompatible> {
    combine(h, other, |a, b| a + b)
}

pub(crate) fn subtract(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Met, Incompatible> {
    combine(h, other, |a, b| a - b)
}

fn combine(
    h: &mut FloatHistogram,
    other: &FloatHistogram,
    op: impl Fn(f64, f64) -> f64 + Copy,
) -> Result<Met, Incompatible> {
    if is_custom(h) != is_custom(other) {
        return Err(Incompatible);
    }
    let (hint, collision) = hint_of_both(h.hint, other.hint);
    h.hint = hint;
    let mut met = Met { collision, reconciled: false };
    if !is_custom(h) && h.zero_threshold != other.zero_threshold {
        let other_zero = reconcile_zero(h, other);
        h.zero_count = op(h.zero_count, other_zero);
    } else if !is_custom(h) {
        h.zero_count = op(h.zero_count, other.zero_count);
    }
    h.count = op(h.count, other.count);
    h.sum = op(h.sum, other.sum);
    if h.schema == other.schema
        && h.positive_spans == other.positive_spans
        && h.negative_spans == other.negative_spans
        && same_bounds(&h.custom_values, &other.custom_values)
        && h.zero_threshold == other.zero_threshold
    {
        let pairs = h.positive_counts.iter_mut().zip(&other.positive_counts);
        pairs
            .chain(h.negative_counts.iter_mut().zip(&other.negative_counts))
            .for_each(|(a, b)| *a = op(*a, *b));
        return Ok(met);
    }
    let (mut up, mut down) =
        (take(&h.positive_spans, &h.positive_counts), take(&h.negative_spans, &h.negative_counts));
    let mut other_up = take(&other.positive_spans, &other.positive_counts);
    let mut other_down = take(&other.negative_spans, &other.negative_counts);
    if is_custom(h) {
        if !same_bounds(&h.custom_values, &other.custom_values) {
            met.reconciled = true;
            let common = common_bounds(&h.custom_values, &other.custom_values);
            up = rebound(up, &h.custom_values, &common);
            other_up = rebound(other_up, &other.custom_values, &common);
            h.custom_values = common;
        }
    } else {
        let schema = h.schema.min(other.schema);
        for (side, from) in [
            (&mut up, h.schema),
            (&mut down, h.schema),
            (&mut other_up, other.schema),
            (&mut other_down, other.schema),
        ] {
            coarsen(side, from, schema);
        }
        h.schema = schema;
        outside_zero(&mut other_up, schema, h.zero_threshold);
        outside_zero(&mut other_down, schema, h.zero_threshold);
    }
    put(&mut h.positive_spans, &mut h.positive_counts, &merge(&up, &other_up, op));
    put(&mut h.negative_spans, &mut h.negative_counts, &merge(&down, &other_down, op));
    Ok(met)
}

/// What is known of resets where two meet, and whether they contradict each other.
pub(super) fn hint_of_both(a: ResetHint, b: ResetHint) -> (ResetHint, bool) {
    use ResetHint::{Gauge, Unknown};
    match (a, b) {
        (a, b) if a == b => (a, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        _ => (Unknown, true),
    }
}

/// Multiplies all counts and the sum.
pub(crate) fn scale(h: &mut FloatHistogram, factor: f64) {
    each(h, |v| v * factor);
    if factor < 0.0 {
        h.hint = ResetHint::Gauge;
    }
}

/// Divides all counts and the sum; nothing is left of buckets divided by zero.
pub(crate) fn divide(h: &mut FloatHistogram, by: f64) {
    each(h, |v| v / by);
    if by == 0.0 {
        for (spans, counts) in
            [(&mut h.positive_spans, &mut h.positive_counts), (&mut h.negative_spans, &mut h.negative_counts)]
        {
            spans.clear();
            counts.clear();
        }
    }
    if by < 0.0 {
        h.hint = ResetHint::Gauge;
    }
}

fn each(h: &mut FloatHistogram, f: impl Fn(f64) -> f64) {
    for value in [&mut h.zero_count, &mut h.count, &mut h.sum] {
        *value = f(*value);
    }
    h.positive_counts.iter_mut().chain(&mut h.negative_counts).for_each(|v| *v = f(*v));
}

/// Drops empty buckets.
pub(crate) fn compact(h: &mut FloatHistogram) {
    for (spans, buckets) in
        [(&mut h.positive_spans, &mut h.positive_counts), (&mut h.negative_spans, &mut h.negative_counts)]
    {
        let joined = spans.iter().skip(1).all(|s| s.offset != 0) && spans.iter().all(|s| s.length > 0);
        if !joined || buckets.contains(&0.0) {
            let mut side = take(spans, buckets);
            side.retain(|(_, count)| *count != 0.0);
            put(spans, buckets, &side);
        }
    }
}

/// The same at a coarser schema.
pub(crate) fn to_schema(h: &FloatHistogram, schema: i32) -> FloatHistogram {
    let mut out = h.clone();
    if h.schema > schema && !is_custom(h) {
        for (spans, buckets) in [
            (&mut out.positive_spans, &mut out.positive_counts),
            (&mut out.negative_spans, &mut out.negative_counts),
        ] {
            let mut side = take(spans, buckets);
            coarsen(&mut side, h.schema, schema);
            put(spans, buckets, &side);
        }
        out.schema = schema;
    }
    out
}

pub(super) fn take(spans: &[Span], buckets: &[f64]) -> Side {
    counts(spans, buckets).collect()
}

pub(super) fn put(spans: &mut Vec<Span>, buckets: &mut Vec<f64>, side: &[(i32, f64)]) {
    *spans = spans_of(side.iter().map(|(index, _)| *index));
    buckets.clear();
    buckets.extend(side.iter().map(|(_, count)| *count));
}

/// Index in a coarser schema.
pub(super) fn coarse_index(index: i32, from: i32, to: i32) -> i32 {
    let by = (from - to).clamp(0, 31) as u32;
    if by == 0 { index } else { (index.wrapping_sub(1) >> by).wrapping_add(1) }
}

/// Adds up the buckets that fall together in a coarser schema.
pub(super) fn coarsen(side: &mut Side, from: i32, to: i32) {
    if from <= to {
        return;
    }
    side.iter_mut().for_each(|(index, _)| *index = coarse_index(*index, from, to));
    join(side);
}

fn join(side: &mut Side) {
    side.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
}

/// Drops the buckets that lie in the zero bucket.
pub(super) fn outside_zero(side: &mut Side, schema: i32, threshold: f64) {
    let inside = side.iter().take_while(|(index, _)| exponential(*index, schema) <= threshold).count();
    side.drain(..inside);
}

fn merge(a: &[(i32, f64)], b: &[(i32, f64)], op: impl Fn(f64, f64) -> f64) -> Side {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                out.push((x.0, op(x.1, y.1)));
                (i, j) = (i + 1, j + 1);
            }
            (Some(x), y) if y.is_none_or(|y| x.0 < y.0) => {
                out.push(*x);
                i += 1;
            }
            (_, Some(y)) => {
                out.push((y.0, op(0.0, y.1)));
                j += 1;
            }
            _ => return out,
        }
    }
}

/// Brings `h` to a zero bucket that both can have; the other's count of it.
fn reconcile_zero(h: &mut FloatHistogram, other: &FloatHistogram) -> f64 {
    let (mut other_count, mut other_threshold) = (other.zero_count, other.zero_threshold);
    // Each turn widens one of them; NaN would never end.
    while other_threshold.partial_cmp(&h.zero_threshold).is_some_and(Ordering::is_ne) {
        if h.zero_threshold > other_threshold {
            (other_count, other_threshold) = zero_count_up_to(other, h.zero_threshold);
        }
        if other_threshold > h.zero_threshold {
            (h.zero_count, h.zero_threshold) = zero_count_up_to(h, other_threshold);
            clear_inside_zero(h);
        }
    }
    other_count
}

/// The count of a wider zero bucket, which grows on to the end of the bucket that it would end in.
pub(super) fn zero_count_up_to(h: &FloatHistogram, mut threshold: f64) -> (f64, f64) {
    if threshold == h.zero_threshold {
        return (h.zero_count, threshold);
    }
    'again: loop {
        let mut count = h.zero_count;
        for (index, n) in counts(&h.positive_spans, &h.positive_counts) {
            let b = positive(h, index, n);
            if b.lower >= threshold {
                break;
            }
            count += n;
            if b.upper > threshold {
                if n != 0.0 {
                    threshold = b.upper;
                }
                break;
            }
        }
        for (index, n) in counts(&h.negative_spans, &h.negative_counts) {
            let b = negative(h, index, n);
            if b.upper <= -threshold {
                break;
            }
            count += n;
            if b.lower < -threshold {
                if n != 0.0 {
                    threshold = -b.lower;
                    continue 'again;
                }
                break;
            }
        }
        return (count, threshold);
    }
}

fn clear_inside_zero(h: &mut FloatHistogram) {
    let (mut up, mut down) =
        (take(&h.positive_spans, &h.positive_counts), take(&h.negative_spans, &h.negative_counts));
    for side in [&mut up, &mut down] {
        side.retain(|(index, n)| exponential(index - 1, h.schema) >= h.zero_threshold && *n != 0.0);
    }
    put(&mut h.positive_spans, &mut h.positive_counts, &up);
    put(&mut h.negative_spans, &mut h.negative_counts, &down);
}

pub(super) fn same_bounds(a: &Arc<[f64]>, b: &Arc<[f64]>) -> bool {
    Arc::ptr_eq(a, b) || (a.len() == b.len() && a.iter().zip(b.iter()).all(|(x, y)| x == y))
}

/// The bounds that both have.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            out.push(*x);
        }
        if x <= y {
            i += 1;
        }
        if y <= x || x.is_nan() || y.is_nan() {
            j += 1;
        }
    }
    out.into()
}

/// Moves the buckets of some bounds to those of fewer bounds.
pub(super) fn rebound(mut side: Side, from: &[f64], to: &[f64]) -> Side {
    for (index, _) in &mut side {
        *index = rebound_index(*index, from, to);
    }
    join(&mut side);
    side
}

pub(super) fn rebound_index(index: i32, from: &[f64], to: &[f64]) -> i32 {
    match usize::try_from(index).ok().and_then(|at| from.get(at)) {
        Some(upper) => to.partition_point(|bound| bound < upper) as i32,
        None => to.len() as i32,
    }
}
