//! Quantiles, fractions and the variance of a histogram.

use std::cmp::Ordering;

use model::FloatHistogram;

use super::buckets::{Bucket, all_buckets};
use super::is_custom;
use crate::exec::Kahan;

/// What observations of NaN, which are counted but lie in no bucket, did to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    None,
    /// The answer itself is NaN.
    Result,
    /// It is higher than without them, or they are in no fraction.
    Skewed,
}

/// Where in a bucket `v` lies, between 0 and 1: in a straight line, or by its logarithm.
pub(super) fn part_below(b: &Bucket, v: f64, linear: bool) -> f64 {
    if linear {
        return (v - b.lower) / (b.upper - b.lower);
    }
    let [lower, upper, v_log] = [b.lower, b.upper, v].map(|x| x.abs().log2());
    if v > 0.0 { (v_log - lower) / (upper - lower) } else { 1.0 - (v_log - upper) / (lower - upper) }
}

/// A zero bucket of a histogram that has only one side ends at 0.
fn one_sided(h: &FloatHistogram, b: &mut Bucket) {
    if h.negative_counts.is_empty() && !h.positive_counts.is_empty() {
        b.lower = 0.0;
    } else if h.positive_counts.is_empty() && !h.negative_counts.is_empty() {
        b.upper = 0.0;
    }
}

/// The q-quantile.
pub(crate) fn quantile(q: f64, h: &FloatHistogram) -> (f64, Skew) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, Skew::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, Skew::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, Skew::None);
    }
    // From the nearer end; where NaN was observed, only counting from below is right.
    let forward = h.sum.is_nan() || q < 0.5;
    let rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let buckets = all_buckets(h);
    let at = |i: usize| if forward { buckets[i] } else { buckets[buckets.len() - 1 - i] };
    let mut bucket =
        Bucket { lower: 0.0, upper: 0.0, lower_inclusive: false, upper_inclusive: false, count: 0.0 };
    let (mut count, mut next) = (0.0, 0);
    while next < buckets.len() {
        bucket = at(next);
        next += 1;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if is_custom(h) {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, Skew::None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, Skew::None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided(h, &mut bucket);
    }
    count = if count > h.count { h.count } else { count };
    if count < rank {
        return if h.sum.is_nan() { (f64::NAN, Skew::Result) } else { (bucket.upper, Skew::None) };
    }
    let rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let mut skew = Skew::None;
    let found = bucket;
    if h.sum.is_nan() {
        // Infinities of both signs make a sum NaN too: only what is in no bucket was NaN.
        let total = count + (next..buckets.len()).map(|i| at(i).count).sum::<f64>();
        if total < h.count {
            skew = Skew::Skewed;
        }
    }
    let fraction = rank / found.count;
    if is_custom(h) || (found.lower <= 0.0 && found.upper >= 0.0) {
        return (found.lower + (found.upper - found.lower) * fraction, skew);
    }
    let (lower, upper) = (found.lower.abs().log2(), found.upper.abs().log2());
    let value = if found.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    };
    (value, skew)
}

/// The fraction of observations between two values.
pub(crate) fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, Skew) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, Skew::None);
    }
    if lower >= upper {
        return (0.0, Skew::None);
    }
    let buckets = all_buckets(h);
    let (mut rank, mut ranks) = (0.0, [None, None]);
    for bucket in &buckets {
        let mut b = *bucket;
        let zero = b.lower <= 0.0 && b.upper >= 0.0;
        if zero {
            one_sided(h, &mut b);
        }
        for (found, v) in ranks.iter_mut().zip([lower, upper]) {
            if found.is_some() {
                continue;
            }
            if b.lower >= v {
                *found = Some(rank);
            } else if b.upper > v {
                let linear = is_custom(h) || zero;
                *found = Some(if linear && b.lower == f64::NEG_INFINITY {
                    // Within an infinitely wide bucket there is nothing to interpolate by.
                    b.count
                } else {
                    rank + b.count * part_below(&b, v, linear)
                });
            }
        }
        if ranks.iter().all(Option::is_some) {
            break;
        }
        rank += b.count;
    }
    let mut skew = Skew::None;
    let mut count = h.count;
    if h.sum.is_nan() {
        count = buckets.iter().map(|b| b.count).sum();
        if count < h.count {
            skew = Skew::Skewed;
        }
    }
    let [lower, upper] =
        ranks.map(|rank| rank.filter(|r| r.partial_cmp(&count) != Some(Ordering::Greater)).unwrap_or(count));
    ((upper - lower) / h.count, skew)
}

/// Population variance, with each observation at the middle of its bucket.
pub(crate) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let mut sum = Kahan::default();
    for b in all_buckets(h).iter().filter(|b| b.count != 0.0) {
        let value = if is_custom(h) {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else if b.upper < 0.0 {
            -(b.upper * b.lower).sqrt()
        } else {
            (b.upper * b.lower).sqrt()
        };
        let delta = value - mean;
        sum.add(b.count * delta * delta);
    }
    (sum.sum + sum.c) / h.count
}
