//! Whole counts (encoding 2): each number is written as the change of its change.

use model::histogram::{Histogram, ResetHint, Shape, Span, absolutes, differences};
use model::is_stale;

use super::Track;
use super::append::Counts;
use super::layout::{Layout, fell, widen};
use super::read::ReadCounts;
use crate::bits::BitReader;
use crate::varbit::{BitWriter, int, uint};
use crate::window::{ReadWindow, Window};
use crate::{Encoding, Error};

/// Counts of the last sample that was appended; of a bucket, its difference to the one before.
#[derive(Clone, Debug, Default)]
pub struct IntCounts {
    count: Track,
    zero: Track,
    sum: f64,
    window: Window,
    positive: Vec<Track>,
    negative: Vec<Track>,
}

impl Counts for IntCounts {
    type Histogram = Histogram;
    type Bucket = i64;
    type Reader = ReadInts;
    const ENCODING: Encoding = Encoding::Histogram;

    fn shape(h: &Histogram) -> Shape<'_> {
        h.shape()
    }

    fn buckets(h: &Histogram) -> (&[i64], &[i64]) {
        (&h.positive_deltas, &h.negative_deltas)
    }

    fn widen(spans: &[Span], deltas: &[i64], wider: &[Span]) -> Vec<i64> {
        let mut counts = widen(spans, absolutes(deltas.iter().copied()), wider);
        differences(&mut counts);
        counts
    }

    fn respan(h: &mut Histogram, positive: &[Span], negative: &[Span]) {
        h.positive_deltas = Self::widen(&h.positive_spans, &h.positive_deltas, positive);
        h.negative_deltas = Self::widen(&h.negative_spans, &h.negative_deltas, negative);
        (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
    }

    fn first(&mut self, w: &mut BitWriter<'_>, h: &Histogram) {
        let empty = Histogram::default();
        let (sum, h) = (h.sum, if h.is_stale() { &empty } else { h });
        w.uint(h.count);
        w.uint(h.zero_count);
        w.bits(sum.to_bits(), 64);
        let mut side = |deltas: &[i64]| -> Vec<Track> {
            deltas.iter().for_each(|d| w.int(*d));
            deltas.iter().map(|d| Track { value: *d, delta: 0 }).collect()
        };
        self.positive = side(&h.positive_deltas);
        self.negative = side(&h.negative_deltas);
        self.count = Track { value: h.count as i64, delta: 0 };
        self.zero = Track { value: h.zero_count as i64, delta: 0 };
        self.sum = sum;
    }

    fn more(&mut self, w: &mut BitWriter<'_>, h: &Histogram, up: &[i64], down: &[i64]) {
        let xor = self.sum.to_bits() ^ h.sum.to_bits();
        self.sum = h.sum;
        if h.is_stale() {
            // Counts mean nothing here; no change of their change is the shortest way to say so.
            w.bits(0, 2);
            w.xor(&mut self.window, xor);
            return;
        }
        self.count.put(w, h.count as i64);
        self.zero.put(w, h.zero_count as i64);
        w.xor(&mut self.window, xor);
        self.positive.iter_mut().zip(up).for_each(|(track, value)| track.put(w, *value));
        self.negative.iter_mut().zip(down).for_each(|(track, value)| track.put(w, *value));
    }

    fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    fn sizes(&self) -> (usize, usize) {
        (self.positive.len(), self.negative.len())
    }

    fn fall_to(&self, layout: &Layout, h: &Histogram) -> bool {
        let side = |old, tracks: &[Track], new, deltas: &[i64]| {
            let (last, next) = (tracks.iter().map(|t| t.value), deltas.iter().copied());
            fell((old, absolutes(last)), (new, absolutes(next)))
        };
        h.count < self.count.value as u64
            || h.zero_count < self.zero.value as u64
            || side(&layout.positive, &self.positive, &h.positive_spans, &h.positive_deltas)
            || side(&layout.negative, &self.negative, &h.negative_spans, &h.negative_deltas)
    }

    fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Track>()
    }
}

/// The same on the reader's side.
pub struct ReadInts {
    count: Track,
    zero: Track,
    sum: u64,
    window: ReadWindow,
    positive: Vec<Track>,
    negative: Vec<Track>,
}

impl ReadCounts for ReadInts {
    type Histogram = Histogram;
    const BUCKET_BITS: usize = 1;

    fn new(up: usize, down: usize) -> ReadInts {
        ReadInts {
            count: Track::default(),
            zero: Track::default(),
            sum: 0,
            window: ReadWindow::default(),
            positive: vec![Track::default(); up],
            negative: vec![Track::default(); down],
        }
    }

    fn first(&mut self, r: &mut BitReader<'_>) {
        self.count.value = uint(r) as i64;
        self.zero.value = uint(r) as i64;
        self.sum = r.bits(64);
        for track in self.positive.iter_mut().chain(&mut self.negative) {
            track.value = int(r);
        }
    }

    fn more(&mut self, r: &mut BitReader<'_>) -> Result<(), Error> {
        self.count.take(r);
        self.zero.take(r);
        let bits = r.peek();
        self.sum ^= self.window.take(r, bits, 0)?;
        if !is_stale(f64::from_bits(self.sum)) {
            for track in self.positive.iter_mut().chain(&mut self.negative) {
                track.take(r);
            }
        }
        Ok(())
    }

    fn histogram(&self, layout: &Layout, hint: ResetHint) -> Histogram {
        let sum = f64::from_bits(self.sum);
        if is_stale(sum) {
            return Histogram { sum, ..Histogram::default() };
        }
        Histogram {
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.value as u64,
            count: self.count.value as u64,
            sum,
            hint,
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_deltas: self.positive.iter().map(|t| t.value).collect(),
            negative_deltas: self.negative.iter().map(|t| t.value).collect(),
            custom_values: layout.custom.clone(),
        }
    }
}
