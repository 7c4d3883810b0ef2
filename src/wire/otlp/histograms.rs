//! OpenTelemetry's histograms as native ones.

use model::histogram::{CUSTOM_BUCKETS, MAX_SCHEMA, MIN_SCHEMA, ResetHint, Span};
use model::{Histogram, Native, stale_nan};

use super::metrics::exponential_histogram_data_point::Buckets;
use super::metrics::{ExponentialHistogramDataPoint, HistogramDataPoint};

/// What is not observed at a larger magnitude is zero, where the sender does not say.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Empty buckets that are written rather than begin a new span.
const SHORT_GAP: i64 = 2;

/// Whether nothing was recorded, which ends the series.
pub fn is_unrecorded(flags: u32) -> bool {
    flags & 1 != 0
}

/// An exponential histogram; the error says why it has no native form.
pub fn exponential(point: &ExponentialHistogramDataPoint, hint: ResetHint) -> Result<Native, String> {
    if is_unrecorded(point.flags) {
        return Ok(stale());
    }
    if point.scale < MIN_SCHEMA {
        return Err(format!(
            "exponential histogram has scale {}; the coarsest stored is {MIN_SCHEMA}",
            point.scale
        ));
    }
    let schema = point.scale.min(MAX_SCHEMA);
    let by = point.scale.saturating_sub(schema).min(63) as u32;
    let side = |buckets: &Option<Buckets>| {
        let Some(buckets) = buckets else { return Ok(Side::default()) };
        // Ours are named by their upper bound, theirs by their lower.
        let index =
            |at: usize| (((i64::from(buckets.offset) + at as i64) >> by) + 1, buckets.bucket_counts[at]);
        Side::collect((0..buckets.bucket_counts.len()).map(index))
    };
    let (positive, negative) = (side(&point.positive)?, side(&point.negative)?);
    let zero_threshold = if point.zero_threshold > 0.0 { point.zero_threshold } else { ZERO_THRESHOLD };
    checked(Histogram {
        schema,
        zero_threshold,
        zero_count: point.zero_count,
        count: point.count,
        sum: point.sum.unwrap_or(0.0),
        hint,
        positive_spans: positive.spans,
        positive_deltas: positive.deltas,
        negative_spans: negative.spans,
        negative_deltas: negative.deltas,
        custom_values: [].into(),
    })
}

/// A histogram with bounds of its own.
pub fn custom(point: &HistogramDataPoint, hint: ResetHint) -> Result<Native, String> {
    if is_unrecorded(point.flags) {
        return Ok(stale());
    }
    // A last bound of +Inf says what goes without saying: its bucket and the one beyond are one.
    let bounds = match point.explicit_bounds.as_slice() {
        [bounds @ .., f64::INFINITY] => bounds,
        bounds => bounds,
    };
    let last = if bounds.len() < point.explicit_bounds.len() { bounds.len() } else { usize::MAX };
    let counts = point.bucket_counts.iter().enumerate().map(|(at, count)| (at.min(last) as i64, *count));
    let positive = Side::collect(counts)?;
    checked(Histogram {
        schema: CUSTOM_BUCKETS,
        zero_threshold: 0.0,
        zero_count: 0,
        count: point.count,
        sum: point.sum.unwrap_or(0.0),
        hint,
        positive_spans: positive.spans,
        positive_deltas: positive.deltas,
        negative_spans: Vec::new(),
        negative_deltas: Vec::new(),
        custom_values: bounds.into(),
    })
}

fn stale() -> Native {
    Native::Whole(Histogram { sum: stale_nan(), ..Histogram::default() })
}

fn checked(histogram: Histogram) -> Result<Native, String> {
    let native = Native::Whole(histogram);
    native.check().map_err(|error| error.to_string())?;
    Ok(native)
}

/// Buckets of one sign.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
}

impl Side {
    /// Of buckets by ascending index, where several may have the same one.
    fn collect(buckets: impl Iterator<Item = (i64, u64)>) -> Result<Side, String> {
        let mut side = Side::default();
        let mut merged: Option<(i64, u64)> = None;
        let (mut end, mut last) = (0i64, 0i64);
        for (index, count) in buckets {
            match &mut merged {
                Some((at, sum)) if *at == index => *sum = sum.saturating_add(count),
                _ => {
                    if let Some((at, sum)) = merged.replace((index, count)) {
                        side.put(at, sum, &mut end, &mut last)?;
                    }
                }
            }
        }
        if let Some((at, sum)) = merged {
            side.put(at, sum, &mut end, &mut last)?;
        }
        Ok(side)
    }

    /// Adds a bucket; `end` is the index behind the one before, `last` its count.
    fn put(&mut self, index: i64, count: u64, end: &mut i64, last: &mut i64) -> Result<(), String> {
        if count == 0 {
            return Ok(());
        }
        let count = i64::try_from(count)
            .map_err(|_| format!("a bucket has the count {count}, which is too large"))?;
        let gap = index - *end;
        match self.spans.last_mut() {
            Some(span) if gap <= SHORT_GAP => {
                for _ in 0..gap {
                    self.deltas.push(-*last);
                    *last = 0;
                    span.length += 1;
                }
                span.length += 1;
            }
            _ => {
                let offset = i32::try_from(gap).map_err(|_| format!("a bucket has the index {index}"))?;
                self.spans.push(Span { offset, length: 1 });
            }
        }
        self.deltas.push(count - *last);
        (*end, *last) = (index + 1, count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(native: Native) -> Histogram {
        match native {
            Native::Whole(h) => h,
            Native::Float(_) => panic!("whole counts became floats"),
        }
    }

    fn point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            count: counts.iter().sum::<u64>() + 3,
            sum: Some(7.5),
            scale,
            zero_count: 3,
            positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
            ..Default::default()
        }
    }

    #[test]
    fn buckets_move_up_by_one_and_gaps_make_spans() {
        let h = whole(exponential(&point(2, -2, &[4, 0, 0, 5, 0, 0, 0, 1]), ResetHint::Unknown).unwrap());
        assert_eq!((h.schema, h.zero_count, h.count, h.sum), (2, 3, 13, 7.5));
        assert_eq!(h.positive_spans, [Span { offset: -1, length: 4 }, Span { offset: 3, length: 1 }]);
        assert_eq!(h.positive_deltas, [4, -4, 0, 5, -4]);
        assert_eq!(h.zero_threshold, 1e-128);
    }

    #[test]
    fn finer_scales_are_merged() {
        // Scale 9: pairs of buckets become one, odd offsets included.
        let h = whole(exponential(&point(9, 3, &[1, 2, 3, 4]), ResetHint::Unknown).unwrap());
        assert_eq!(h.schema, 8);
        // Indices 3,4,5,6 become 1,2,2,3, and one more each.
        assert_eq!(h.positive_spans, [Span { offset: 2, length: 3 }]);
        assert_eq!(h.positive_deltas, [1, 4, -1]);
        assert!(exponential(&point(-5, 0, &[1]), ResetHint::Unknown).unwrap_err().contains("scale -5"));
        assert!(exponential(&point(i32::MAX, i32::MIN, &[1]), ResetHint::Unknown).is_ok());
    }

    #[test]
    fn counts_that_do_not_add_up_are_refused() {
        let mut wrong = point(0, 0, &[1, 2]);
        wrong.count = 1;
        assert!(exponential(&wrong, ResetHint::Unknown).unwrap_err().contains("count"));
        let huge = point(0, 0, &[1 << 63]);
        assert!(exponential(&huge, ResetHint::Unknown).is_err());
    }

    #[test]
    fn explicit_bounds_become_custom_ones() {
        let point = HistogramDataPoint {
            count: 6,
            sum: Some(9.0),
            bucket_counts: vec![1, 0, 5],
            explicit_bounds: vec![0.5, 1.0],
            ..Default::default()
        };
        let h = whole(custom(&point, ResetHint::Unknown).unwrap());
        assert_eq!(h.schema, CUSTOM_BUCKETS);
        assert_eq!(*h.custom_values, [0.5, 1.0]);
        assert_eq!(h.positive_spans, [Span { offset: 0, length: 3 }]);
        assert_eq!(h.positive_deltas, [1, -1, 5]);
        assert!(
            whole(custom(&HistogramDataPoint { flags: 1, ..point }, ResetHint::Unknown).unwrap()).is_stale()
        );
    }
}
