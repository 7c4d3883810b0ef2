//! Native histograms: counts in buckets whose bounds follow from a schema, as Prometheus keeps them.
//!
//! Buckets are sparse: spans say which bucket indices are present, and the counts follow in that order.
//! [`Histogram`] is what instruments send: whole counts, each bucket as the difference to the one before.
//! [`FloatHistogram`] is what arithmetic makes of it: absolute counts as floats.

mod valid;

pub use valid::InvalidHistogram;

use std::sync::Arc;

use self::valid::sum_of_deltas;
use crate::{compare_conflict, is_stale, stale_nan};

/// Schema of histograms with bounds of their own, written out in `custom_values`.
pub const CUSTOM_BUCKETS: i32 = -53;
/// Coarsest exponential schema.
pub const MIN_SCHEMA: i32 = -4;
/// Finest exponential schema that is stored; finer ones that are sent are reduced to it.
pub const MAX_SCHEMA: i32 = 8;
/// Finest exponential schema that is accepted.
pub const MAX_SENT_SCHEMA: i32 = 52;

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Buckets left out since the previous span's end; of the first span, the index it starts at.
    pub offset: i32,
    /// Buckets in the run.
    pub length: u32,
}

/// What the sender knows about resets of the counters inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetHint {
    #[default]
    Unknown = 0,
    /// Counts started anew with this sample.
    Reset = 1,
    /// They did not.
    NotReset = 2,
    /// Counts may go down: this is a gauge.
    Gauge = 3,
}

impl ResetHint {
    pub fn from_code(code: u8) -> Option<ResetHint> {
        [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge]
            .get(code as usize)
            .copied()
    }
}

/// A histogram with whole counts.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    pub schema: i32,
    /// Observations of at most this magnitude are counted in `zero_count`.
    pub zero_threshold: f64,
    pub zero_count: u64,
    pub count: u64,
    /// The stale marker here marks the whole sample as stale.
    pub sum: f64,
    pub hint: ResetHint,
    pub positive_spans: Vec<Span>,
    pub negative_spans: Vec<Span>,
    /// Of each bucket present, its count less the count of the bucket before; the first one absolute.
    pub positive_deltas: Vec<i64>,
    pub negative_deltas: Vec<i64>,
    /// Upper bounds of [`CUSTOM_BUCKETS`]; the last bucket, up to +Inf, has none.
    pub custom_values: Arc<[f64]>,
}

/// A histogram with counts as floats.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    pub hint: ResetHint,
    pub positive_spans: Vec<Span>,
    pub negative_spans: Vec<Span>,
    /// Absolute counts of the buckets present.
    pub positive_counts: Vec<f64>,
    pub negative_counts: Vec<f64>,
    pub custom_values: Arc<[f64]>,
}

/// What a histogram of either kind says besides its counts. Equal bit for bit; of hints, as far as storage tells them apart.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    pub schema: i32,
    pub zero_threshold: f64,
    pub positive: &'a [Span],
    pub negative: &'a [Span],
    pub custom: &'a Arc<[f64]>,
    pub hint: ResetHint,
    /// Marks the end of its series: nothing else of it means anything.
    pub stale: bool,
}

impl PartialEq for Shape<'_> {
    fn eq(&self, o: &Self) -> bool {
        self.schema == o.schema
            && self.zero_threshold.to_bits() == o.zero_threshold.to_bits()
            && (self.hint == ResetHint::Gauge) == (o.hint == ResetHint::Gauge)
            && self.positive == o.positive
            && self.negative == o.negative
            && same_bits(self.custom, o.custom)
    }
}

macro_rules! shaped {
    ($histogram:ident) => {
        impl $histogram {
            /// Whether this sample marks the end of its series.
            #[inline]
            pub fn is_stale(&self) -> bool {
                is_stale(self.sum)
            }

            /// What it says besides its counts.
            #[inline]
            pub fn shape(&self) -> Shape<'_> {
                Shape {
                    schema: self.schema,
                    zero_threshold: self.zero_threshold,
                    positive: &self.positive_spans,
                    negative: &self.negative_spans,
                    custom: &self.custom_values,
                    hint: self.hint,
                    stale: self.is_stale(),
                }
            }
        }
    };
}

shaped!(Histogram);
shaped!(FloatHistogram);

/// A native histogram of either kind, as it is sent and stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Native {
    Whole(Histogram),
    Float(FloatHistogram),
}

impl Native {
    pub fn is_stale(&self) -> bool {
        match self {
            Native::Whole(h) => h.is_stale(),
            Native::Float(h) => h.is_stale(),
        }
    }

    /// As [`Histogram::check`] and [`FloatHistogram::check`].
    pub fn check(&self) -> Result<(), InvalidHistogram> {
        match self {
            Native::Whole(h) => h.check(),
            Native::Float(h) => h.check(),
        }
    }

    /// As [`Histogram::reduce_schema`]; to be called on what has been checked.
    pub fn reduce_schema(&mut self) {
        match self {
            Native::Whole(h) => h.reduce_schema(),
            Native::Float(h) => h.reduce_schema(),
        }
    }

    /// Whether an append of the one where the other is stored changes nothing: equal bit for bit, but for empty buckets,
    /// of which a chunk may have more, and for what is said of resets.
    pub fn is_same(&self, other: &Native) -> bool {
        let exact = |a: &Histogram, b: &Histogram| {
            let full = |spans, deltas: &[i64]| {
                let counts: Vec<_> = indices(spans).zip(absolutes(deltas.iter().copied())).collect();
                counts.into_iter().filter(|(_, count)| *count != 0)
            };
            a.count == b.count
                && a.zero_count == b.zero_count
                && full(&a.positive_spans, &a.positive_deltas).eq(full(&b.positive_spans, &b.positive_deltas))
                && full(&a.negative_spans, &a.negative_deltas).eq(full(&b.negative_spans, &b.negative_deltas))
        };
        if self.is_stale() || other.is_stale() {
            return self.is_stale() && other.is_stale();
        }
        match (self, other) {
            // Whole counts beyond 2^53 are one as floats and two as numbers.
            (Native::Whole(a), Native::Whole(b)) => {
                exact(a, b) && compare_conflict(&a.to_float(), &b.to_float()).is_eq()
            }
            (Native::Float(a), Native::Float(b)) => compare_conflict(a, b).is_eq(),
            _ => false,
        }
    }

    /// Estimated bytes of memory.
    pub fn bytes(&self) -> usize {
        let (spans, counts, bounds) = match self {
            Native::Whole(h) => (
                h.positive_spans.len() + h.negative_spans.len(),
                h.positive_deltas.len() + h.negative_deltas.len(),
                h.custom_values.len(),
            ),
            Native::Float(h) => (
                h.positive_spans.len() + h.negative_spans.len(),
                h.positive_counts.len() + h.negative_counts.len(),
                h.custom_values.len(),
            ),
        };
        size_of::<Native>() + 8 * (spans + counts + bounds)
    }

    /// What is said of resets.
    pub fn hint(&self) -> ResetHint {
        match self {
            Native::Whole(h) => h.hint,
            Native::Float(h) => h.hint,
        }
    }

    pub fn set_hint(&mut self, hint: ResetHint) {
        match self {
            Native::Whole(h) => h.hint = hint,
            Native::Float(h) => h.hint = hint,
        }
    }

    /// The same histogram before anything was counted, of which nothing is known about resets.
    pub fn zeroed(&self) -> Native {
        match self {
            Native::Whole(h) => Native::Whole(Histogram {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                custom_values: h.custom_values.clone(),
                ..Histogram::default()
            }),
            Native::Float(h) => Native::Float(FloatHistogram {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                custom_values: h.custom_values.clone(),
                ..FloatHistogram::default()
            }),
        }
    }

    /// The stale marker of a series of such histograms.
    pub fn stale(&self) -> Native {
        match self {
            Native::Whole(_) => Native::Whole(Histogram { sum: stale_nan(), ..Histogram::default() }),
            Native::Float(_) => {
                Native::Float(FloatHistogram { sum: stale_nan(), ..FloatHistogram::default() })
            }
        }
    }

    /// With absolute float counts, as queries reckon.
    pub fn to_float(&self) -> FloatHistogram {
        match self {
            Native::Whole(h) => h.to_float(),
            Native::Float(h) => h.clone(),
        }
    }

    /// With absolute float counts, as queries reckon.
    pub fn into_float(self) -> FloatHistogram {
        match self {
            Native::Whole(h) => h.to_float(),
            Native::Float(h) => h,
        }
    }
}

impl Histogram {
    /// Checks what Prometheus checks on receipt.
    pub fn check(&self) -> Result<(), InvalidHistogram> {
        if self.is_stale() {
            return Ok(());
        }
        let buckets = (self.positive_deltas.len(), self.negative_deltas.len());
        self.shape().check(buckets, self.zero_count != 0)?;
        let positive = sum_of_deltas("positive", &self.positive_deltas)?;
        let negative = sum_of_deltas("negative", &self.negative_deltas)?;
        let in_buckets = positive.saturating_add(negative).saturating_add(self.zero_count);
        // Observations of NaN are counted, but lie in no bucket.
        let wrong = if self.sum.is_nan() { in_buckets > self.count } else { in_buckets != self.count };
        if wrong {
            return Err(InvalidHistogram::Count { in_buckets, count: self.count });
        }
        Ok(())
    }

    /// The same with absolute float counts.
    pub fn to_float(&self) -> FloatHistogram {
        let absolute = |deltas: &[i64]| absolutes(deltas.iter().copied()).map(|count| count as f64).collect();
        FloatHistogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            hint: self.hint,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_counts: absolute(&self.positive_deltas),
            negative_counts: absolute(&self.negative_deltas),
            custom_values: self.custom_values.clone(),
        }
    }

    /// Reduces a schema finer than [`MAX_SCHEMA`] to it, adding up buckets that fall together.
    pub fn reduce_schema(&mut self) {
        if self.schema > MAX_SCHEMA && self.schema <= MAX_SENT_SCHEMA {
            let by = (self.schema - MAX_SCHEMA) as u32;
            for (spans, deltas) in [
                (&mut self.positive_spans, &mut self.positive_deltas),
                (&mut self.negative_spans, &mut self.negative_deltas),
            ] {
                let mut count = 0i64;
                let absolute = indices(spans).zip(deltas.iter()).map(|(index, delta)| {
                    count = count.wrapping_add(*delta);
                    (index, count)
                });
                let merged = merge_down(absolute, by, |a, b| a.wrapping_add(b));
                *spans = spans_of(merged.iter().map(|(index, _)| *index));
                let mut before = 0;
                *deltas = merged
                    .iter()
                    .map(|(_, count)| count.wrapping_sub(std::mem::replace(&mut before, *count)))
                    .collect();
            }
            self.schema = MAX_SCHEMA;
        }
    }
}

impl FloatHistogram {
    /// Checks what Prometheus checks on receipt. Counts need not add up: rates do not.
    pub fn check(&self) -> Result<(), InvalidHistogram> {
        if self.is_stale() {
            return Ok(());
        }
        let buckets = (self.positive_counts.len(), self.negative_counts.len());
        self.shape().check(buckets, self.zero_count != 0.0)?;
        if self.count < 0.0 {
            return Err(InvalidHistogram::NegativeCount(self.count));
        }
        if self.zero_count < 0.0 {
            return Err(InvalidHistogram::NegativeZero(self.zero_count));
        }
        for (side, counts) in [("positive", &self.positive_counts), ("negative", &self.negative_counts)] {
            if let Some((number, count)) = counts.iter().enumerate().find(|(_, c)| **c < 0.0) {
                return Err(InvalidHistogram::NegativeBucket { side, number, count: *count });
            }
        }
        Ok(())
    }

    /// As [`Histogram::reduce_schema`].
    pub fn reduce_schema(&mut self) {
        if self.schema > MAX_SCHEMA && self.schema <= MAX_SENT_SCHEMA {
            let by = (self.schema - MAX_SCHEMA) as u32;
            for (spans, counts) in [
                (&mut self.positive_spans, &mut self.positive_counts),
                (&mut self.negative_spans, &mut self.negative_counts),
            ] {
                let merged = merge_down(indices(spans).zip(counts.iter().copied()), by, |a, b| a + b);
                *spans = spans_of(merged.iter().map(|(index, _)| *index));
                *counts = merged.into_iter().map(|(_, count)| count).collect();
            }
            self.schema = MAX_SCHEMA;
        }
    }
}

/// Equal bit for bit, NaN and hints included: what idempotent storage compares.
impl PartialEq for Histogram {
    fn eq(&self, o: &Self) -> bool {
        if self.is_stale() || o.is_stale() {
            return self.is_stale() && o.is_stale();
        }
        self.count == o.count
            && self.zero_count == o.zero_count
            && self.sum.to_bits() == o.sum.to_bits()
            && self.shape() == o.shape()
            && self.positive_deltas == o.positive_deltas
            && self.negative_deltas == o.negative_deltas
    }
}

impl PartialEq for FloatHistogram {
    fn eq(&self, o: &Self) -> bool {
        if self.is_stale() || o.is_stale() {
            return self.is_stale() && o.is_stale();
        }
        same_bits(&[self.count, self.zero_count, self.sum], &[o.count, o.zero_count, o.sum])
            && self.shape() == o.shape()
            && same_bits(&self.positive_counts, &o.positive_counts)
            && same_bits(&self.negative_counts, &o.negative_counts)
    }
}

/// Whether two lists of floats are equal bit for bit.
pub fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Counts from the differences between neighbours.
pub fn absolutes(deltas: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    deltas.scan(0i64, |at, delta| {
        *at = at.wrapping_add(delta);
        Some(*at)
    })
}

/// The differences between neighbours, in place of the counts.
pub fn differences(counts: &mut [i64]) {
    let mut before = 0i64;
    for count in counts {
        let delta = count.wrapping_sub(before);
        before = std::mem::replace(count, delta);
    }
}

/// Bucket indices that spans name, in order.
pub fn indices(spans: &[Span]) -> impl Iterator<Item = i32> + '_ {
    let mut next = 0i32;
    spans.iter().flat_map(move |span| {
        let start = next.wrapping_add(span.offset);
        next = start.wrapping_add(span.length as i32);
        (0..span.length as i32).map(move |i| start.wrapping_add(i))
    })
}

/// The spans of ascending bucket indices, neighbours joined.
pub fn spans_of(indices: impl IntoIterator<Item = i32>) -> Vec<Span> {
    let mut out: Vec<Span> = Vec::new();
    let mut next = 0i32;
    for index in indices {
        let gap = index.wrapping_sub(next);
        match out.last_mut() {
            Some(last) if gap == 0 => last.length += 1,
            _ => out.push(Span { offset: gap, length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    out
}

/// Buckets with their indices reduced by `by` halvings; those that meet are added.
fn merge_down<T: Copy>(
    buckets: impl Iterator<Item = (i32, T)>,
    by: u32,
    add: impl Fn(T, T) -> T,
) -> Vec<(i32, T)> {
    let mut out: Vec<(i32, T)> = Vec::new();
    for (index, count) in buckets {
        // Bucket i of a finer schema lies in bucket ceil(i / 2^by): bounds are upper ones.
        let index =
            if by >= 31 { i32::from(index > 0) } else { ((index.wrapping_sub(1)) >> by).wrapping_add(1) };
        match out.last_mut() {
            Some((last, sum)) if *last == index => *sum = add(*sum, count),
            _ => out.push((index, count)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Histogram {
        Histogram {
            schema: 1,
            zero_threshold: 0.001,
            zero_count: 2,
            count: 14,
            sum: 18.4,
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }],
            positive_deltas: vec![1, 1, -1, 0],
            negative_spans: vec![Span { offset: 0, length: 2 }],
            negative_deltas: vec![3, 1],
            ..Histogram::default()
        }
    }

    #[test]
    fn checks_what_is_sent() {
        let good = sample();
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.to_float().positive_counts, [1.0, 2.0, 1.0, 1.0]);
        assert_eq!(good.to_float().check(), Ok(()));
        let bad = |change: &dyn Fn(&mut Histogram)| {
            let mut h = sample();
            change(&mut h);
            h.check().unwrap_err()
        };
        assert!(matches!(bad(&|h| h.count = 99), InvalidHistogram::Count { in_buckets: 14, count: 99 }));
        assert!(matches!(bad(&|h| h.schema = 53), InvalidHistogram::Schema(53)));
        assert!(matches!(bad(&|h| h.schema = -5), InvalidHistogram::Schema(-5)));
        assert!(matches!(bad(&|h| h.positive_deltas.push(0)), InvalidHistogram::SpanBuckets { .. }));
        assert!(matches!(bad(&|h| h.positive_deltas[1] = -2), InvalidHistogram::NegativeBucket { .. }));
        assert!(matches!(bad(&|h| h.positive_spans[1].offset = -1), InvalidHistogram::SpanOffset { .. }));
        assert!(matches!(bad(&|h| h.custom_values = [1.0].into()), InvalidHistogram::ExponentialBounds));
        let mut nan = sample();
        (nan.sum, nan.count) = (f64::NAN, 15);
        assert_eq!(nan.check(), Ok(()));
    }

    #[test]
    fn custom_buckets() {
        let mut h = Histogram {
            schema: CUSTOM_BUCKETS,
            count: 3,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_deltas: vec![1, 0, 0],
            custom_values: [0.5, 1.0].into(),
            ..Histogram::default()
        };
        assert_eq!(h.check(), Ok(()));
        h.custom_values = [1.0, 0.5].into();
        assert!(matches!(h.check(), Err(InvalidHistogram::Bounds { .. })));
        h.custom_values = [0.5].into();
        assert!(matches!(h.check(), Err(InvalidHistogram::BeyondBounds { .. })));
    }

    #[test]
    fn finer_schemas_are_reduced() {
        let mut h = Histogram {
            schema: 9,
            count: 10,
            positive_spans: vec![Span { offset: 1, length: 4 }],
            positive_deltas: vec![1, 1, 1, 1],
            ..Histogram::default()
        };
        let mut f = h.to_float();
        h.reduce_schema();
        assert_eq!((h.schema, h.check()), (8, Ok(())));
        // Buckets 1, 2 | 3, 4 of the finer schema are buckets 1 | 2 of the coarser.
        assert_eq!(h.positive_spans, [Span { offset: 1, length: 2 }]);
        assert_eq!(h.positive_deltas, [3, 4]);
        f.reduce_schema();
        assert_eq!(f, h.to_float());
    }

    #[test]
    fn spans_and_indices_are_inverse() {
        let list = [-3, -2, 0, 4, 5, 6];
        let spans = spans_of(list);
        assert_eq!(spans.len(), 3);
        assert_eq!(indices(&spans).collect::<Vec<_>>(), list);
    }
}
