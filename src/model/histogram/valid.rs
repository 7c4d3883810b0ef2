//! What Prometheus asks of a histogram on receipt, and why one is refused.

use super::{CUSTOM_BUCKETS, MAX_SENT_SCHEMA, MIN_SCHEMA, Shape};

/// Why a histogram is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidHistogram {
    #[error("histogram has schema {0}; known are -4 to 52 and -53 for custom buckets")]
    Schema(i32),
    #[error("histogram's {side} side: spans hold {spans} buckets, {buckets} were given")]
    SpanBuckets { side: &'static str, spans: usize, buckets: usize },
    #[error("histogram's {side} side: span number {number} has the negative offset {offset}")]
    SpanOffset { side: &'static str, number: usize, offset: i32 },
    #[error("histogram's {side} side: bucket number {number} has the negative count {count}")]
    NegativeBucket { side: &'static str, number: usize, count: f64 },
    #[error("{in_buckets} observations found in buckets, but the count field is {count}")]
    Count { in_buckets: u64, count: u64 },
    #[error("histogram's count field is negative: {0}")]
    NegativeCount(f64),
    #[error("histogram's zero bucket has the negative count {0}")]
    NegativeZero(f64),
    #[error("custom buckets: bound number {number} is {bound}, which must be finite and above {before}")]
    Bounds { number: usize, bound: f64, before: f64 },
    #[error("custom buckets: spans reach beyond the {bounds} bounds given")]
    BeyondBounds { bounds: usize },
    #[error("custom buckets: {0} must be empty")]
    CustomExtra(&'static str),
    #[error("exponential histogram must have no custom bounds")]
    ExponentialBounds,
    #[error("histogram has more buckets than can be addressed")]
    TooMany,
}

/// Spans longer than this in all are refused before anything is allocated for them.
const MAX_BUCKETS: usize = 1 << 16;

/// The observations of one side, from its differences.
pub(super) fn sum_of_deltas(side: &'static str, deltas: &[i64]) -> Result<u64, InvalidHistogram> {
    let (mut count, mut sum) = (0i64, 0u64);
    for (number, delta) in deltas.iter().enumerate() {
        count = count.wrapping_add(*delta);
        if count < 0 {
            return Err(InvalidHistogram::NegativeBucket { side, number, count: count as f64 });
        }
        sum = sum.saturating_add(count as u64);
    }
    Ok(sum)
}

impl Shape<'_> {
    /// Whether spans, so many buckets and bounds fit each other and the schema.
    pub(super) fn check(self, buckets: (usize, usize), has_zero: bool) -> Result<(), InvalidHistogram> {
        let Shape { schema, zero_threshold, positive, negative, custom, .. } = self;
        let is_custom = schema == CUSTOM_BUCKETS;
        if !is_custom && !(MIN_SCHEMA..=MAX_SENT_SCHEMA).contains(&schema) {
            return Err(InvalidHistogram::Schema(schema));
        }
        for (side, spans, buckets) in [("positive", positive, buckets.0), ("negative", negative, buckets.1)] {
            let mut total = 0usize;
            for (number, span) in spans.iter().enumerate() {
                if number > 0 && span.offset < 0 {
                    return Err(InvalidHistogram::SpanOffset {
                        side,
                        number: number + 1,
                        offset: span.offset,
                    });
                }
                total = total.saturating_add(span.length as usize);
            }
            if total != buckets {
                return Err(InvalidHistogram::SpanBuckets { side, spans: total, buckets });
            }
            let reach: i64 = spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
            if total > MAX_BUCKETS || i32::try_from(reach).is_err() {
                return Err(InvalidHistogram::TooMany);
            }
        }
        if !is_custom {
            return if custom.is_empty() { Ok(()) } else { Err(InvalidHistogram::ExponentialBounds) };
        }
        let mut before = f64::NEG_INFINITY;
        for (number, &bound) in custom.iter().enumerate() {
            if !bound.is_finite() || bound <= before {
                return Err(InvalidHistogram::Bounds { number: number + 1, bound, before });
            }
            before = bound;
        }
        let mut reach = 0i64;
        for (number, span) in positive.iter().enumerate() {
            if span.offset < 0 {
                return Err(InvalidHistogram::SpanOffset {
                    side: "positive",
                    number: number + 1,
                    offset: span.offset,
                });
            }
            reach += i64::from(span.offset) + i64::from(span.length);
        }
        if reach > custom.len() as i64 + 1 {
            return Err(InvalidHistogram::BeyondBounds { bounds: custom.len() });
        }
        if zero_threshold != 0.0 {
            return Err(InvalidHistogram::CustomExtra("the zero threshold"));
        }
        if has_zero {
            return Err(InvalidHistogram::CustomExtra("the zero bucket"));
        }
        if !negative.is_empty() || buckets.1 > 0 {
            return Err(InvalidHistogram::CustomExtra("the negative side"));
        }
        Ok(())
    }
}
