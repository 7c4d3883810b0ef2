//! `</` and `>/`: what is left of a histogram below or above a value.

use model::FloatHistogram;

use super::buckets::{Bucket, counts, negative, positive, zero};
use super::is_custom;
use super::quantile::part_below;

/// What remains of a bucket: how many observations, and the value that stands for them.
type Rest = (f64, f64);

/// Keeps the observations below `at` (`upper`) or above it. Count and sum are estimated anew from the buckets, if
/// anything is cut off at all.
pub(crate) fn trim(h: &FloatHistogram, at: f64, upper: bool) -> FloatHistogram {
    let mut out = h.clone();
    let custom = is_custom(h);
    let (mut count, mut sum, mut cut) = (0.0, 0.0, false);
    let mut take = |rest: Rest, n: &mut f64| {
        count += rest.0;
        sum += rest.0 * rest.1;
        if *n != rest.0 {
            *n = rest.0;
            cut = true;
        }
    };
    let up = counts(&h.positive_spans, &h.positive_counts).map(|(i, n)| positive(h, i, n));
    for (bucket, n) in up.zip(&mut out.positive_counts).filter(|(b, _)| b.count != 0.0) {
        take(rest(&bucket, at, upper, custom), n);
    }
    let down = counts(&h.negative_spans, &h.negative_counts).map(|(i, n)| negative(h, i, n));
    for (bucket, n) in down.zip(&mut out.negative_counts).filter(|(b, _)| b.count != 0.0) {
        take(rest(&bucket, at, upper, custom), n);
    }
    if h.zero_count > 0.0 {
        let mut bucket = zero(h);
        let (has_up, has_down) = (!h.positive_counts.is_empty(), !h.negative_counts.is_empty());
        if has_down && !has_up {
            bucket.upper = 0.0;
        } else if has_up && !has_down {
            bucket.lower = 0.0;
        }
        take(rest_of_zero(&bucket, at, upper), &mut out.zero_count);
    }
    if cut {
        (out.count, out.sum) = (count, sum);
    }
    out
}

fn rest(b: &Bucket, at: f64, upper: bool, linear: bool) -> Rest {
    let (whole, part) = if upper { (b.upper <= at, b.lower < at) } else { (b.lower >= at, b.upper > at) };
    if whole {
        (b.count, middle(b.lower, b.upper, linear))
    } else if !part {
        (0.0, 0.0)
    } else if b.lower.is_infinite() || b.upper.is_infinite() {
        rest_of_infinite(b, at, upper)
    } else {
        let below = part_below(b, at, linear);
        if upper {
            (b.count * below, middle(b.lower, at, linear))
        } else {
            (b.count * (1.0 - below), middle(at, b.upper, linear))
        }
    }
}

/// A bucket without an end has nothing to interpolate by, except that one from below up to a positive bound is taken
/// to begin at 0.
fn rest_of_infinite(b: &Bucket, at: f64, upper: bool) -> Rest {
    let begins_at_zero = b.lower == f64::NEG_INFINITY && b.upper.is_finite() && b.upper > 0.0;
    if upper {
        if begins_at_zero && at > 0.0 {
            (b.count * at / b.upper, at / 2.0)
        } else if b.lower == f64::NEG_INFINITY && b.upper <= 0.0 {
            (b.count, at)
        } else {
            (0.0, 0.0)
        }
    } else if begins_at_zero {
        match at >= 0.0 {
            true => (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0),
            false => (0.0, 0.0),
        }
    } else if b.upper == f64::INFINITY && b.lower.is_finite() {
        (b.count, at)
    } else {
        (0.0, 0.0)
    }
}

fn rest_of_zero(b: &Bucket, at: f64, upper: bool) -> Rest {
    let width = b.upper - b.lower;
    if upper {
        if at <= b.lower {
            (0.0, 0.0)
        } else if at >= b.upper {
            (b.count, (b.lower + b.upper) / 2.0)
        } else {
            (b.count * ((at - b.lower) / width), (b.lower + at) / 2.0)
        }
    } else if at <= b.lower {
        (b.count, (b.lower + b.upper) / 2.0)
    } else if at >= b.upper {
        (0.0, 0.0)
    } else {
        (b.count * ((b.upper - at) / width), (at + b.upper) / 2.0)
    }
}

/// The value that stands for the observations between two bounds: their arithmetic or geometric mean.
fn middle(lower: f64, upper: f64, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => (lower * upper).abs().sqrt() * if upper > 0.0 { 1.0 } else { -1.0 },
    }
}
