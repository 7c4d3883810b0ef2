//! The layout that all samples of a histogram chunk share.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS, ResetHint, Shape, Span, indices, same_bits, spans_of};

use super::header_bits;
use crate::Error;
use crate::bits::BitReader;
use crate::varbit::{BitWriter, int, uint};

/// Most buckets of one side, spans and bounds of a chunk; more are taken for damage.
pub(super) const MAX_BUCKETS: u64 = 1 << 17;

/// Schema, zero threshold, spans and bounds.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub schema: i32,
    pub zero_threshold: f64,
    pub positive: Vec<Span>,
    pub negative: Vec<Span>,
    /// Empty unless the schema is the one of custom buckets.
    pub custom: Arc<[f64]>,
}

impl Layout {
    /// Whether counts of the two can be compared at all: same schema, threshold and bounds.
    pub(super) fn comparable(&self, schema: i32, zero_threshold: f64, custom: &[f64]) -> bool {
        self.schema == schema
            && (self.zero_threshold == zero_threshold
                || self.zero_threshold.to_bits() == zero_threshold.to_bits())
            && (schema != CUSTOM_BUCKETS || same_bits(&self.custom, custom))
    }

    /// The layout of a chunk that begins with this sample; that of a stale marker is empty.
    pub(super) fn of(new: &Shape<'_>) -> Layout {
        if new.stale {
            return Layout::default();
        }
        let custom = if new.schema == CUSTOM_BUCKETS { new.custom.clone() } else { Arc::default() };
        Layout {
            schema: new.schema,
            zero_threshold: new.zero_threshold,
            positive: new.positive.to_vec(),
            negative: new.negative.to_vec(),
            custom,
        }
    }

    /// Begins a chunk of one sample, which the caller writes.
    pub(super) fn begin<'a>(&self, out: &'a mut Vec<u8>, header: ResetHint) -> BitWriter<'a> {
        out.clear();
        out.extend_from_slice(&[0, 1, header_bits(header)]);
        let mut w = BitWriter::new(out, 0);
        self.put(&mut w);
        w
    }

    /// Heap bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Span>()
    }

    pub(super) fn put(&self, w: &mut BitWriter<'_>) {
        put_zero_threshold(w, self.zero_threshold);
        w.int(i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            w.uint(spans.len() as u64);
            for span in spans {
                w.uint(u64::from(span.length));
                w.int(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS {
            w.uint(self.custom.len() as u64);
            self.custom.iter().for_each(|bound| put_bound(w, *bound));
        }
    }

    pub(super) fn take(r: &mut BitReader<'_>) -> Result<Layout, Error> {
        let zero_threshold = take_zero_threshold(r);
        let schema = int(r);
        let positive = take_spans(r)?;
        let negative = take_spans(r)?;
        let mut custom = Vec::new();
        if schema == i64::from(CUSTOM_BUCKETS) {
            let count = uint(r);
            if count > MAX_BUCKETS {
                return Err(header(r, "histogram has too many bounds"));
            }
            for _ in 0..count {
                custom.push(take_bound(r));
            }
        }
        // Beyond the end the reader sees zeroes; a layout that reaches there is none.
        r.check()?;
        let schema = i32::try_from(schema).map_err(|_| header(r, "histogram schema is out of range"))?;
        Ok(Layout { schema, zero_threshold, positive, negative, custom: custom.into() })
    }
}

/// What looks malformed may be the zeroes behind a truncated chunk.
#[cold]
fn header(r: &BitReader<'_>, what: &'static str) -> Error {
    r.check().err().unwrap_or(Error::Header(what))
}

/// Number of buckets that spans hold.
pub(super) fn buckets(spans: &[Span]) -> usize {
    spans.iter().map(|s| s.length as usize).sum()
}

/// Spans that hold the buckets of both.
pub(super) fn union(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut left, mut right) = (indices(a).peekable(), indices(b).peekable());
    let all = std::iter::from_fn(|| {
        let next = match (left.peek(), right.peek()) {
            (Some(x), Some(y)) => *x.min(y),
            (Some(x), None) => *x,
            (None, y) => *y?,
        };
        left.next_if_eq(&next);
        right.next_if_eq(&next);
        Some(next)
    });
    spans_of(all)
}

/// Counts of the buckets of `spans`, moved to the buckets of `wider`; buckets that are new hold `T::default()`.
pub(super) fn widen<T: Copy + Default>(
    spans: &[Span],
    counts: impl Iterator<Item = T>,
    wider: &[Span],
) -> Vec<T> {
    let mut have = indices(spans).zip(counts).peekable();
    indices(wider)
        .map(|index| have.next_if(|(at, _)| *at == index).map_or_else(T::default, |(_, count)| count))
        .collect()
}

/// Whether any bucket's count is lower than before; a bucket that is not there counts as empty.
pub(super) fn fell<T: Copy + Default + PartialOrd>(
    (old, before): (&[Span], impl Iterator<Item = T>),
    (new, after): (&[Span], impl Iterator<Item = T>),
) -> bool {
    if old == new {
        return before.zip(after).any(|(b, a)| a < b);
    }
    let mut after = indices(new).zip(after).peekable();
    indices(old).zip(before).any(|(index, before)| {
        while after.next_if(|(at, _)| *at < index).is_some() {}
        let now = after.next_if(|(at, _)| *at == index).map_or_else(T::default, |(_, count)| count);
        now < before
    })
}

fn take_spans(r: &mut BitReader<'_>) -> Result<Vec<Span>, Error> {
    let count = uint(r);
    if count > MAX_BUCKETS {
        return Err(header(r, "histogram has too many spans"));
    }
    let (mut spans, mut total) = (Vec::new(), 0u64);
    for _ in 0..count {
        let (length, offset) = (u32::try_from(uint(r)), i32::try_from(int(r)));
        let (Ok(length), Ok(offset)) = (length, offset) else {
            return Err(header(r, "span is out of range"));
        };
        total += u64::from(length);
        if total > MAX_BUCKETS {
            return Err(header(r, "histogram has too many buckets"));
        }
        spans.push(Span { offset, length });
    }
    r.check()?;
    Ok(spans)
}

/// A power of two from 2^-243 to 2^10 takes one byte; zero too; everything else nine.
fn put_zero_threshold(w: &mut BitWriter<'_>, threshold: f64) {
    if threshold == 0.0 {
        return w.bits(0, 8);
    }
    let bits = threshold.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52) as i32 - 1022);
    if threshold > 0.0 && fraction == 0 && (-242..=11).contains(&exponent) {
        w.bits((exponent + 243) as u64, 8);
    } else {
        w.bits(255, 8);
        w.bits(bits, 64);
    }
}

fn take_zero_threshold(r: &mut BitReader<'_>) -> f64 {
    match r.bits(8) {
        0 => 0.0,
        255 => f64::from_bits(r.bits(64)),
        byte => f64::from_bits((byte + 1022 - 243) << 52),
    }
}

/// Thousandths up to 33554.43 take few bits.
fn put_bound(w: &mut BitWriter<'_>, bound: f64) {
    let thousandths = bound * 1000.0;
    let whole = bound.is_sign_positive()
        && thousandths <= 33_554_430.0
        && (thousandths.round() / 1000.0).to_bits() == bound.to_bits();
    if whole {
        w.uint(thousandths.round() as u64 + 1);
    } else {
        w.bits(0, 1);
        w.bits(bound.to_bits(), 64);
    }
}

fn take_bound(r: &mut BitReader<'_>) -> f64 {
    match uint(r) {
        0 => f64::from_bits(r.bits(64)),
        n => (n - 1) as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BitWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut BitWriter::new(&mut out, 0));
        out
    }

    #[test]
    fn thresholds_and_bounds_round_trip() {
        let list = [
            0.0,
            2f64.powi(-128),
            2f64.powi(-243),
            2f64.powi(-244),
            2f64.powi(10),
            2f64.powi(11),
            0.001,
            -0.5,
            f64::MIN_POSITIVE,
            f64::INFINITY,
        ];
        for value in list {
            let out = written(|w| put_zero_threshold(w, value));
            assert_eq!(take_zero_threshold(&mut BitReader::new(&out)).to_bits(), value.to_bits(), "{value}");
        }
        let byte = |value: f64| written(|w| put_zero_threshold(w, value));
        assert_eq!((byte(2f64.powi(-128)), byte(2f64.powi(-243))), (vec![116], vec![1]));
        assert_eq!((byte(2f64.powi(10)), byte(2f64.powi(11)).len()), (vec![254], 9));
        for value in [0.0, -0.0, 0.005, 0.1, 1.0, 33_554.43, 33_554.431, -1.0, 1e300, 0.0001] {
            let out = written(|w| put_bound(w, value));
            assert_eq!(take_bound(&mut BitReader::new(&out)).to_bits(), value.to_bits(), "{value}");
        }
    }

    #[test]
    fn union_widen_and_fall() {
        let span = |offset, length| Span { offset, length };
        let (a, b) = ([span(0, 2), span(2, 1)], [span(1, 3)]);
        let all = union(&a, &b);
        assert_eq!(indices(&all).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(widen(&a, [5, 6, 7].into_iter(), &all), [5, 6, 0, 0, 7]);
        let falls = |x: [i64; 3], y: [i64; 3]| fell((&a, x.into_iter()), (&b, y.into_iter()));
        assert!(!falls([0, 6, 0], [6, 0, 0]));
        assert!(falls([0, 6, 0], [5, 9, 9]) && falls([1, 0, 0], [9, 9, 9]) && falls([0, 0, 1], [9, 9, 9]));
        assert!(fell((&a, [1, 2, 3].into_iter()), (&a, [1, 2, 2].into_iter())));
        assert!(!fell((&a, [1, 2, 3].into_iter()), (&a, [1, 2, 3].into_iter())));
    }
}
