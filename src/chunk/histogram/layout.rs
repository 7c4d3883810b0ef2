//! The layout that all samples of a histogram chunk share.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS, Span, indices, same_bits, spans_of};

use crate::Error;
use crate::bits::{BitReader, BitWriter};
use crate::varbit::{int, put_int, put_uint, uint};

/// More buckets than this in one chunk are taken for damage.
const MAX_BUCKETS: u64 = 1 << 17;

/// Schema, zero threshold, spans and bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub schema: i32,
    pub zero_threshold: f64,
    pub positive: Vec<Span>,
    pub negative: Vec<Span>,
    pub custom: Arc<[f64]>,
}

impl Layout {
    /// Whether counts of the two can be compared at all: same schema, threshold and bounds.
    pub(super) fn comparable(&self, schema: i32, zero_threshold: f64, custom: &[f64]) -> bool {
        self.schema == schema
            && self.zero_threshold.to_bits() == zero_threshold.to_bits()
            && same_bits(&self.custom, custom)
    }

    pub(super) fn put(&self, w: &mut BitWriter, out: &mut Vec<u8>) {
        put_zero_threshold(w, out, self.zero_threshold);
        put_int(w, out, i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            put_uint(w, out, spans.len() as u64);
            for span in spans {
                put_uint(w, out, u64::from(span.length));
                put_int(w, out, i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS {
            put_uint(w, out, self.custom.len() as u64);
            for bound in self.custom.iter() {
                put_bound(w, out, *bound);
            }
        }
    }

    pub(super) fn take(r: &mut BitReader<'_>) -> Result<Layout, Error> {
        let zero_threshold = take_zero_threshold(r)?;
        let schema = i32::try_from(int(r)?).map_err(|_| Error::Header("histogram schema is out of range"))?;
        let positive = take_spans(r)?;
        let negative = take_spans(r)?;
        let mut custom = Vec::new();
        if schema == CUSTOM_BUCKETS {
            let count = uint(r)?;
            if count > MAX_BUCKETS {
                return Err(Error::Header("histogram has too many bounds"));
            }
            for _ in 0..count {
                custom.push(take_bound(r)?);
            }
        }
        Ok(Layout { schema, zero_threshold, positive, negative, custom: custom.into() })
    }
}

/// Number of buckets that spans hold.
pub(super) fn buckets(spans: &[Span]) -> usize {
    spans.iter().map(|s| s.length as usize).sum()
}

/// Spans that hold the buckets of both.
pub(super) fn union(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut left, mut right) = (indices(a).peekable(), indices(b).peekable());
    let mut all = Vec::new();
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(x), Some(y)) => *x.min(y),
            (Some(x), None) => *x,
            (None, Some(y)) => *y,
            (None, None) => break,
        };
        left.next_if_eq(&next);
        right.next_if_eq(&next);
        all.push(next);
    }
    spans_of(all)
}

/// Counts of the buckets of `spans`, moved to the buckets of `wider`; buckets that are new hold `T::default()`.
pub(super) fn widen<T: Copy + Default>(spans: &[Span], counts: &[T], wider: &[Span]) -> Vec<T> {
    let mut have = indices(spans).zip(counts.iter().copied()).peekable();
    indices(wider)
        .map(|index| match have.peek() {
            Some((at, count)) if *at == index => {
                let count = *count;
                have.next();
                count
            }
            _ => T::default(),
        })
        .collect()
}

fn take_spans(r: &mut BitReader<'_>) -> Result<Vec<Span>, Error> {
    let count = uint(r)?;
    if count > MAX_BUCKETS {
        return Err(Error::Header("histogram has too many spans"));
    }
    let (mut spans, mut total) = (Vec::new(), 0u64);
    for _ in 0..count {
        let length = u32::try_from(uint(r)?).map_err(|_| Error::Header("span length is out of range"))?;
        let offset = i32::try_from(int(r)?).map_err(|_| Error::Header("span offset is out of range"))?;
        total += u64::from(length);
        if total > MAX_BUCKETS {
            return Err(Error::Header("histogram has too many buckets"));
        }
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

/// A power of two from 2^-243 to 2^10 takes one byte; zero too; everything else nine.
fn put_zero_threshold(w: &mut BitWriter, out: &mut Vec<u8>, threshold: f64) {
    if threshold == 0.0 {
        return w.write(out, 0, 8);
    }
    let bits = threshold.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52) as i32 - 1022);
    if threshold > 0.0 && fraction == 0 && (-242..=11).contains(&exponent) {
        w.write(out, (exponent + 243) as u64, 8);
    } else {
        w.write(out, 255, 8);
        w.write(out, bits, 64);
    }
}

fn take_zero_threshold(r: &mut BitReader<'_>) -> Result<f64, Error> {
    Ok(match r.bits(8)? {
        0 => 0.0,
        255 => f64::from_bits(r.bits(64)?),
        byte => f64::from_bits((byte as i64 - 243 + 1022) as u64 * (1 << 52)),
    })
}

/// Thousandths up to 33554.43 take few bits.
fn put_bound(w: &mut BitWriter, out: &mut Vec<u8>, bound: f64) {
    let thousandths = bound * 1000.0;
    let whole = (0.0..=33_554_430.0).contains(&thousandths)
        && (thousandths.round() / 1000.0).to_bits() == bound.to_bits();
    if whole {
        put_uint(w, out, thousandths.round() as u64 + 1);
    } else {
        w.write(out, 0, 1);
        w.write(out, bound.to_bits(), 64);
    }
}

fn take_bound(r: &mut BitReader<'_>) -> Result<f64, Error> {
    Ok(match uint(r)? {
        0 => f64::from_bits(r.bits(64)?),
        n => (n - 1) as f64 / 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_bounds_round_trip() {
        let list =
            [0.0, 2f64.powi(-128), 2f64.powi(-243), 2f64.powi(10), 2f64.powi(11), 0.001, f64::MIN_POSITIVE];
        for value in list {
            let (mut w, mut out) = (BitWriter::default(), Vec::new());
            put_zero_threshold(&mut w, &mut out, value);
            assert_eq!(
                take_zero_threshold(&mut BitReader::new(&out)).map(f64::to_bits),
                Ok(value.to_bits()),
                "{value}"
            );
        }
        let (mut w, mut out) = (BitWriter::default(), Vec::new());
        put_zero_threshold(&mut w, &mut out, 2f64.powi(-128));
        assert_eq!(out, [116]);
        for value in [0.0, -0.0, 0.005, 0.1, 1.0, 33_554.43, 33_554.431, -1.0, 1e300, 0.0001] {
            let (mut w, mut out) = (BitWriter::default(), Vec::new());
            put_bound(&mut w, &mut out, value);
            assert_eq!(
                take_bound(&mut BitReader::new(&out)).map(f64::to_bits),
                Ok(value.to_bits()),
                "{value}"
            );
        }
    }

    #[test]
    fn union_and_widen() {
        let span = |offset, length| Span { offset, length };
        let (a, b) = ([span(0, 2), span(2, 1)], [span(1, 3)]);
        let all = union(&a, &b);
        assert_eq!(indices(&all).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(widen(&a, &[5, 6, 7], &all), [5, 6, 0, 0, 7]);
    }
}
