//! Chunks of histograms with whole counts (encoding 2).

use model::histogram::{CUSTOM_BUCKETS, Histogram, ResetHint};
use model::{Timestamp, is_stale};

use super::layout::{Layout, buckets, union, widen};
use super::{At, HEADER_BYTES, Pushed, header_bits, header_of, hint_at};
use crate::Error;
use crate::bits::{BitReader, BitWriter};
use crate::varbit::{Window, int, put_int, put_uint, uint};
use crate::xor::MAX_SAMPLES;

/// Value and last change of one number that is written as the change of its change.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    value: i64,
    delta: i64,
}

impl Track {
    fn put(&mut self, w: &mut BitWriter, out: &mut Vec<u8>, value: i64) {
        let delta = value.wrapping_sub(self.value);
        put_int(w, out, delta.wrapping_sub(self.delta));
        *self = Track { value, delta };
    }

    fn take(&mut self, r: &mut BitReader<'_>) -> Result<i64, Error> {
        self.delta = self.delta.wrapping_add(int(r)?);
        self.value = self.value.wrapping_add(self.delta);
        Ok(self.value)
    }
}

/// State needed to append to a chunk of whole counts.
#[derive(Clone, Debug, Default)]
pub struct IntAppender {
    layout: Layout,
    header: ResetHint,
    samples: u16,
    time: Track,
    count: Track,
    zero: Track,
    sum: f64,
    window: Window,
    positive: Vec<Track>,
    negative: Vec<Track>,
    free: u8,
}

impl IntAppender {
    /// A new chunk; `header` says what is known of resets at its first sample.
    pub fn new(header: ResetHint) -> IntAppender {
        IntAppender { header, ..IntAppender::default() }
    }

    /// Samples pushed so far.
    pub fn count(&self) -> u16 {
        self.samples
    }

    pub fn last_timestamp(&self) -> Timestamp {
        self.time.value
    }

    /// Heap bytes beside the chunk's own.
    pub fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Track>()
            + (self.layout.positive.capacity() + self.layout.negative.capacity()) * 8
    }

    /// The header that a chunk must carry if `h` is its first sample and the last sample here came before it.
    pub fn header_for_next(&self, h: &Histogram) -> ResetHint {
        match self.judge(h) {
            _ if h.hint == ResetHint::Gauge => ResetHint::Gauge,
            _ if h.hint == ResetHint::Reset => ResetHint::Reset,
            Judgement::NewChunk(header) => header,
            Judgement::Same | Judgement::Wider { .. } => ResetHint::NotReset,
        }
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call.
    pub fn push(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &Histogram) -> Result<Pushed, Error> {
        if self.samples == MAX_SAMPLES {
            return Err(Error::Full);
        }
        if self.samples == 0 {
            self.first(out, timestamp, h);
            return Ok(Pushed::Appended);
        }
        match self.judge(h) {
            Judgement::NewChunk(header) => Ok(Pushed::NewChunk(header)),
            Judgement::Same => {
                self.more(
                    out,
                    timestamp,
                    h.count,
                    h.zero_count,
                    h.sum,
                    &h.positive_deltas,
                    &h.negative_deltas,
                );
                Ok(Pushed::Appended)
            }
            Judgement::Wider { positive, negative, recode } => {
                if recode {
                    self.recode(out, &positive, &negative)?;
                }
                let widen = |spans: &[_], deltas: &[i64], wider: &[_]| {
                    differences(&widen(spans, &absolutes(deltas), wider))
                };
                let up = widen(&h.positive_spans, &h.positive_deltas, &positive);
                let down = widen(&h.negative_spans, &h.negative_deltas, &negative);
                self.more(out, timestamp, h.count, h.zero_count, h.sum, &up, &down);
                Ok(Pushed::Appended)
            }
        }
    }

    fn first(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &Histogram) {
        let empty = Histogram::default();
        let (sum, h) = (h.sum, if h.is_stale() { &empty } else { h });
        if h.hint == ResetHint::Gauge {
            self.header = ResetHint::Gauge;
        }
        self.layout = Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            positive: h.positive_spans.clone(),
            negative: h.negative_spans.clone(),
            custom: h.custom_values.clone(),
        };
        out.clear();
        out.extend_from_slice(&[0, 1, header_bits(self.header)]);
        let mut w = BitWriter::default();
        self.layout.put(&mut w, out);
        put_int(&mut w, out, timestamp);
        put_uint(&mut w, out, h.count);
        put_uint(&mut w, out, h.zero_count);
        w.write(out, sum.to_bits(), 64);
        let mut side = |deltas: &[i64]| -> Vec<Track> {
            deltas.iter().for_each(|d| put_int(&mut w, out, *d));
            deltas.iter().map(|d| Track { value: *d, delta: 0 }).collect()
        };
        self.positive = side(&h.positive_deltas);
        self.negative = side(&h.negative_deltas);
        self.free = w.free();
        self.samples = 1;
        self.time = Track { value: timestamp, delta: 0 };
        self.count = Track { value: h.count as i64, delta: 0 };
        self.zero = Track { value: h.zero_count as i64, delta: 0 };
        self.sum = sum;
    }

    fn more(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        count: u64,
        zero: u64,
        sum: f64,
        up: &[i64],
        down: &[i64],
    ) {
        let mut w = BitWriter::resume(self.free);
        self.time.put(&mut w, out, timestamp);
        if is_stale(sum) {
            // Counts mean nothing here; no change of their change is the shortest way to say so.
            w.write(out, 0, 2);
            self.window.put(&mut w, out, self.sum.to_bits(), sum.to_bits());
        } else {
            self.count.put(&mut w, out, count as i64);
            self.zero.put(&mut w, out, zero as i64);
            self.window.put(&mut w, out, self.sum.to_bits(), sum.to_bits());
            self.positive.iter_mut().zip(up).for_each(|(track, value)| track.put(&mut w, out, *value));
            self.negative.iter_mut().zip(down).for_each(|(track, value)| track.put(&mut w, out, *value));
        }
        self.free = w.free();
        self.sum = sum;
        self.samples += 1;
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
    }

    /// What must happen for `h` to follow the last sample.
    fn judge(&self, h: &Histogram) -> Judgement {
        use Judgement::{NewChunk, Same, Wider};
        if self.samples == 0 {
            return NewChunk(ResetHint::Unknown);
        }
        let gauge = h.hint == ResetHint::Gauge;
        if h.is_stale() {
            return if is_stale(self.sum) { NewChunk(ResetHint::Unknown) } else { Same };
        }
        if is_stale(self.sum) || gauge != (self.header == ResetHint::Gauge) {
            return NewChunk(if gauge { ResetHint::Gauge } else { ResetHint::Unknown });
        }
        let comparable = self.layout.comparable(h.schema, h.zero_threshold, &h.custom_values);
        if gauge && !comparable {
            return NewChunk(ResetHint::Gauge);
        }
        let shrank = !gauge && (h.count < self.count.value as u64 || h.zero_count < self.zero.value as u64);
        if !comparable || shrank || h.hint == ResetHint::Reset {
            return NewChunk(ResetHint::Reset);
        }
        let same = self.layout.positive == h.positive_spans && self.layout.negative == h.negative_spans;
        let (positive, negative) = match same {
            true => (self.layout.positive.clone(), self.layout.negative.clone()),
            false => (
                union(&self.layout.positive, &h.positive_spans),
                union(&self.layout.negative, &h.negative_spans),
            ),
        };
        if !gauge {
            let fell = |old: &[_], tracks: &[Track], new: &[_], deltas: &[i64], all: &[_]| {
                let before: Vec<i64> = tracks.iter().map(|t| t.value).collect();
                let before = widen(old, &absolutes(&before), all);
                let after = widen(new, &absolutes(deltas), all);
                before.iter().zip(&after).any(|(b, a)| a < b)
            };
            let l = &self.layout;
            if fell(&l.positive, &self.positive, &h.positive_spans, &h.positive_deltas, &positive)
                || fell(&l.negative, &self.negative, &h.negative_spans, &h.negative_deltas, &negative)
            {
                return NewChunk(ResetHint::Reset);
            }
        }
        if same {
            return Same;
        }
        let recode = buckets(&positive) > self.positive.len() || buckets(&negative) > self.negative.len();
        // Spans that name the same buckets otherwise are the same layout; the chunk's own spelling stays.
        if !recode {
            let l = &self.layout;
            return Wider { positive: l.positive.clone(), negative: l.negative.clone(), recode };
        }
        Wider { positive, negative, recode }
    }

    /// Writes the chunk anew with room for more buckets.
    fn recode(
        &mut self,
        out: &mut Vec<u8>,
        positive: &[model::histogram::Span],
        negative: &[model::histogram::Span],
    ) -> Result<(), Error> {
        let mut wider = IntAppender::new(self.header);
        let mut fresh = Vec::with_capacity(out.len() * 2);
        for sample in IntIter::new(out)? {
            let At { timestamp, histogram: mut h } = sample?;
            h.hint = self.header;
            h.positive_deltas =
                differences(&widen(&h.positive_spans, &absolutes(&h.positive_deltas), positive));
            h.negative_deltas =
                differences(&widen(&h.negative_spans, &absolutes(&h.negative_deltas), negative));
            (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
            if wider.samples == 0 {
                wider.first(&mut fresh, timestamp, &h);
            } else {
                wider.more(
                    &mut fresh,
                    timestamp,
                    h.count,
                    h.zero_count,
                    h.sum,
                    &h.positive_deltas,
                    &h.negative_deltas,
                );
            }
        }
        *out = fresh;
        *self = wider;
        Ok(())
    }
}

enum Judgement {
    Same,
    /// The chunk's layout becomes this; it is written anew where `recode`.
    Wider {
        positive: Vec<model::histogram::Span>,
        negative: Vec<model::histogram::Span>,
        recode: bool,
    },
    NewChunk(ResetHint),
}

fn absolutes(deltas: &[i64]) -> Vec<i64> {
    let mut at = 0i64;
    deltas
        .iter()
        .map(|d| {
            at = at.wrapping_add(*d);
            at
        })
        .collect()
}

fn differences(absolute: &[i64]) -> Vec<i64> {
    let mut before = 0i64;
    absolute.iter().map(|v| v.wrapping_sub(std::mem::replace(&mut before, *v))).collect()
}

/// Walks the samples of a chunk of whole counts. Ends after its count or at the first error.
pub struct IntIter<'a> {
    reader: BitReader<'a>,
    header: ResetHint,
    left: u16,
    read: u16,
    layout: Layout,
    time: Track,
    count: Track,
    zero: Track,
    sum: u64,
    window: Window,
    positive: Vec<Track>,
    negative: Vec<Track>,
}

impl<'a> IntIter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<IntIter<'a>, Error> {
        let left = crate::xor::count(bytes)?;
        let body = bytes.get(HEADER_BYTES..).ok_or(Error::Truncated)?;
        let mut reader = BitReader::new(body);
        let layout = if left > 0 { Layout::take(&mut reader)? } else { Layout::default() };
        Ok(IntIter {
            reader,
            header: header_of(bytes),
            left,
            read: 0,
            positive: vec![Track::default(); buckets(&layout.positive)],
            negative: vec![Track::default(); buckets(&layout.negative)],
            layout,
            time: Track::default(),
            count: Track::default(),
            zero: Track::default(),
            sum: 0,
            window: Window::default(),
        })
    }

    fn step(&mut self) -> Result<At<Histogram>, Error> {
        let r = &mut self.reader;
        if self.read == 0 {
            self.time.value = int(r)?;
            self.count.value = uint(r)? as i64;
            self.zero.value = uint(r)? as i64;
            self.sum = r.bits(64)?;
            for track in self.positive.iter_mut().chain(&mut self.negative) {
                track.value = int(r)?;
            }
        } else {
            self.time.take(r)?;
            self.count.take(r)?;
            self.zero.take(r)?;
            self.sum = self.window.take(r, self.sum)?;
            if !is_stale(f64::from_bits(self.sum)) {
                for track in self.positive.iter_mut().chain(&mut self.negative) {
                    track.take(r)?;
                }
            }
        }
        let hint = hint_at(self.header, self.read);
        self.read += 1;
        let sum = f64::from_bits(self.sum);
        if is_stale(sum) {
            return Ok(At {
                timestamp: self.time.value,
                histogram: Histogram { sum, ..Histogram::default() },
            });
        }
        let histogram = Histogram {
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.zero.value as u64,
            count: self.count.value as u64,
            sum,
            hint,
            positive_spans: self.layout.positive.clone(),
            negative_spans: self.layout.negative.clone(),
            positive_deltas: self.positive.iter().map(|t| t.value).collect(),
            negative_deltas: self.negative.iter().map(|t| t.value).collect(),
            custom_values: if self.layout.schema == CUSTOM_BUCKETS {
                self.layout.custom.clone()
            } else {
                [].into()
            },
        };
        Ok(At { timestamp: self.time.value, histogram })
    }
}

impl Iterator for IntIter<'_> {
    type Item = Result<At<Histogram>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}
