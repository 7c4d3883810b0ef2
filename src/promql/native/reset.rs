//! Whether a counter histogram began anew, and whether two histograms are equal.

use model::FloatHistogram;
use model::histogram::ResetHint;

use super::arith::{
    Side, coarsen, common_bounds, outside_zero, rebound, same_bounds, take, zero_count_up_to,
};
use super::is_custom;

/// Whether the counters of `h` were reset since `before`.
pub(crate) fn is_reset(h: &FloatHistogram, before: &FloatHistogram) -> bool {
    match h.hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        // A gauge is looked at like a counter: whoever asks takes it for one.
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    if h.count < before.count || is_custom(h) != is_custom(before) {
        return true;
    }
    let (up, mut before_up) = sides(h, before, true);
    if is_custom(h) {
        if same_bounds(&h.custom_values, &before.custom_values) {
            return fell(&up, &before_up);
        }
        let common = common_bounds(&h.custom_values, &before.custom_values);
        before_up = rebound(before_up, &before.custom_values, &common);
        return fell(&rebound(up, &h.custom_values, &common), &before_up);
    }
    // A finer schema or a narrower zero bucket is never reached by counting on.
    if h.schema > before.schema || h.zero_threshold < before.zero_threshold {
        return true;
    }
    let (zero, threshold) = zero_count_up_to(before, h.zero_threshold);
    if threshold != h.zero_threshold || h.zero_count < zero {
        return true;
    }
    let (mut down, mut before_down) = sides(h, before, false);
    let mut up = up;
    for side in [&mut before_up, &mut before_down] {
        coarsen(side, before.schema, h.schema);
        outside_zero(side, h.schema, h.zero_threshold);
    }
    for side in [&mut up, &mut down] {
        outside_zero(side, h.schema, h.zero_threshold);
    }
    fell(&up, &before_up) || fell(&down, &before_down)
}

fn sides(h: &FloatHistogram, before: &FloatHistogram, positive: bool) -> (Side, Side) {
    let side = |h: &FloatHistogram| match positive {
        true => take(&h.positive_spans, &h.positive_counts),
        false => take(&h.negative_spans, &h.negative_counts),
    };
    (side(h), side(before))
}

/// Whether any bucket counts less than before.
fn fell(now: &[(i32, f64)], before: &[(i32, f64)]) -> bool {
    let mut at = 0;
    before.iter().any(|(index, count)| {
        while now.get(at).is_some_and(|n| n.0 < *index) {
            at += 1;
        }
        match now.get(at) {
            Some((found, n)) if found == index => n < count,
            _ => *count != 0.0,
        }
    })
}

/// Equal to the last bit, whatever is known of resets; an empty bucket that is written down counts.
pub(crate) fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let bits = |x: f64, y: f64| x.to_bits() == y.to_bits();
    let side = |x: (&[_], &[f64]), y: (&[_], &[f64])| {
        let (x, y) = (take(x.0, x.1), take(y.0, y.1));
        x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| x.0 == y.0 && bits(x.1, y.1))
    };
    a.schema == b.schema
        && bits(a.count, b.count)
        && bits(a.sum, b.sum)
        && (!is_custom(a) || same_bounds(&a.custom_values, &b.custom_values))
        && a.zero_threshold == b.zero_threshold
        && bits(a.zero_count, b.zero_count)
        && side((&a.positive_spans, &a.positive_counts), (&b.positive_spans, &b.positive_counts))
        && side((&a.negative_spans, &a.negative_counts), (&b.negative_spans, &b.negative_counts))
}

/// Leaves of each histogram what `histogram_count`, `histogram_sum` and `histogram_avg` need, and tells of each
/// whether it was reset since the one before: without buckets nobody could find out later.
pub(crate) fn keep_stats(histograms: &mut [FloatHistogram]) {
    for at in (0..histograms.len()).rev() {
        let (before, rest) = histograms.split_at_mut(at);
        let h = &mut rest[0];
        let earlier = before.last().filter(|b| !b.is_stale() && !h.is_stale());
        if let (ResetHint::Unknown, Some(before)) = (h.hint, earlier) {
            h.hint = if is_reset(h, before) { ResetHint::Reset } else { ResetHint::NotReset };
        }
        *h = FloatHistogram {
            schema: h.schema,
            count: h.count,
            sum: h.sum,
            hint: h.hint,
            ..FloatHistogram::default()
        };
    }
}
