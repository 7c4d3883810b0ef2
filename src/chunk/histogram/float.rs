//! Float counts (encoding 3): each number is written by the bits that change, in a window of its own.

use model::histogram::{FloatHistogram, ResetHint, Shape, Span};
use model::is_stale;

use super::append::Counts;
use super::layout::{Layout, fell, widen};
use super::read::ReadCounts;
use crate::bits::BitReader;
use crate::varbit::BitWriter;
use crate::window::{ReadWindow, Window};
use crate::{Encoding, Error};

/// One number and the window in which it changes.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    bits: u64,
    window: Window,
}

impl Field {
    fn first(w: &mut BitWriter<'_>, value: f64) -> Field {
        w.bits(value.to_bits(), 64);
        Field { bits: value.to_bits(), window: Window::default() }
    }

    fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    fn put(&mut self, w: &mut BitWriter<'_>, value: f64) {
        w.xor(&mut self.window, self.bits ^ value.to_bits());
        self.bits = value.to_bits();
    }
}

/// Counts of the last sample that was appended.
#[derive(Clone, Debug, Default)]
pub struct FloatCounts {
    count: Field,
    zero: Field,
    sum: Field,
    positive: Vec<Field>,
    negative: Vec<Field>,
}

impl Counts for FloatCounts {
    type Histogram = FloatHistogram;
    type Bucket = f64;
    type Reader = ReadFloats;
    const ENCODING: Encoding = Encoding::FloatHistogram;

    fn shape(h: &FloatHistogram) -> Shape<'_> {
        h.shape()
    }

    fn buckets(h: &FloatHistogram) -> (&[f64], &[f64]) {
        (&h.positive_counts, &h.negative_counts)
    }

    fn widen(spans: &[Span], counts: &[f64], wider: &[Span]) -> Vec<f64> {
        widen(spans, counts.iter().copied(), wider)
    }

    fn respan(h: &mut FloatHistogram, positive: &[Span], negative: &[Span]) {
        h.positive_counts = Self::widen(&h.positive_spans, &h.positive_counts, positive);
        h.negative_counts = Self::widen(&h.negative_spans, &h.negative_counts, negative);
        (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
    }

    fn first(&mut self, w: &mut BitWriter<'_>, h: &FloatHistogram) {
        let empty = FloatHistogram::default();
        let (sum, h) = (h.sum, if h.is_stale() { &empty } else { h });
        self.count = Field::first(w, h.count);
        self.zero = Field::first(w, h.zero_count);
        self.sum = Field::first(w, sum);
        self.positive = h.positive_counts.iter().map(|c| Field::first(w, *c)).collect();
        self.negative = h.negative_counts.iter().map(|c| Field::first(w, *c)).collect();
    }

    fn more(&mut self, w: &mut BitWriter<'_>, h: &FloatHistogram, up: &[f64], down: &[f64]) {
        let stale = h.is_stale();
        self.count.put(w, if stale { 0.0 } else { h.count });
        self.zero.put(w, if stale { 0.0 } else { h.zero_count });
        self.sum.put(w, h.sum);
        if !stale {
            self.positive.iter_mut().zip(up).for_each(|(field, value)| field.put(w, *value));
            self.negative.iter_mut().zip(down).for_each(|(field, value)| field.put(w, *value));
        }
    }

    fn is_stale(&self) -> bool {
        is_stale(self.sum.value())
    }

    fn sizes(&self) -> (usize, usize) {
        (self.positive.len(), self.negative.len())
    }

    fn fall_to(&self, layout: &Layout, h: &FloatHistogram) -> bool {
        let side = |old, fields: &[Field], new, counts: &[f64]| {
            fell((old, fields.iter().map(|f| f.value())), (new, counts.iter().copied()))
        };
        h.count < self.count.value()
            || h.zero_count < self.zero.value()
            || side(&layout.positive, &self.positive, &h.positive_spans, &h.positive_counts)
            || side(&layout.negative, &self.negative, &h.negative_spans, &h.negative_counts)
    }

    fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Field>()
    }
}

/// [`Field`] on the reader's side.
#[derive(Clone, Copy, Debug, Default)]
struct ReadField {
    bits: u64,
    window: ReadWindow,
}

impl ReadField {
    fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    fn take(&mut self, r: &mut BitReader<'_>) -> Result<(), Error> {
        let bits = r.peek();
        self.bits ^= self.window.take(r, bits, 0)?;
        Ok(())
    }
}

/// [`FloatCounts`] on the reader's side.
pub struct ReadFloats {
    count: ReadField,
    zero: ReadField,
    sum: ReadField,
    positive: Vec<ReadField>,
    negative: Vec<ReadField>,
}

impl ReadCounts for ReadFloats {
    type Histogram = FloatHistogram;
    const BUCKET_BITS: usize = 64;

    fn new(up: usize, down: usize) -> ReadFloats {
        ReadFloats {
            count: ReadField::default(),
            zero: ReadField::default(),
            sum: ReadField::default(),
            positive: vec![ReadField::default(); up],
            negative: vec![ReadField::default(); down],
        }
    }

    fn first(&mut self, r: &mut BitReader<'_>) {
        let head = [&mut self.count, &mut self.zero, &mut self.sum];
        for field in head.into_iter().chain(&mut self.positive).chain(&mut self.negative) {
            field.bits = r.bits(64);
        }
    }

    fn more(&mut self, r: &mut BitReader<'_>) -> Result<(), Error> {
        for field in [&mut self.count, &mut self.zero, &mut self.sum] {
            field.take(r)?;
        }
        if !is_stale(self.sum.value()) {
            for field in self.positive.iter_mut().chain(&mut self.negative) {
                field.take(r)?;
            }
        }
        Ok(())
    }

    fn histogram(&self, layout: &Layout, hint: ResetHint) -> FloatHistogram {
        let sum = self.sum.value();
        if is_stale(sum) {
            return FloatHistogram { sum, ..FloatHistogram::default() };
        }
        FloatHistogram {
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum,
            hint,
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_counts: self.positive.iter().map(|f| f.value()).collect(),
            negative_counts: self.negative.iter().map(|f| f.value()).collect(),
            custom_values: layout.custom.clone(),
        }
    }
}
