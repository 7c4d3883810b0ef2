//! Chunks of histograms with float counts (encoding 3).

use model::histogram::{CUSTOM_BUCKETS, FloatHistogram, ResetHint, Span};
use model::{Timestamp, is_stale};

use super::layout::{Layout, buckets, union, widen};
use super::{At, HEADER_BYTES, Pushed, header_bits, header_of, hint_at};
use crate::Error;
use crate::bits::{BitReader, BitWriter};
use crate::varbit::{Window, int, put_int};
use crate::xor::MAX_SAMPLES;

/// One number and the window in which it changes.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    bits: u64,
    window: Window,
}

impl Field {
    fn new(value: f64) -> Field {
        Field { bits: value.to_bits(), window: Window::default() }
    }

    fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    fn put(&mut self, w: &mut BitWriter, out: &mut Vec<u8>, value: f64) {
        self.window.put(w, out, self.bits, value.to_bits());
        self.bits = value.to_bits();
    }

    fn take(&mut self, r: &mut BitReader<'_>) -> Result<(), Error> {
        self.bits = self.window.take(r, self.bits)?;
        Ok(())
    }
}

/// State needed to append to a chunk of float counts.
#[derive(Clone, Debug, Default)]
pub struct FloatAppender {
    layout: Layout,
    header: ResetHint,
    samples: u16,
    time: Timestamp,
    time_delta: i64,
    count: Field,
    zero: Field,
    sum: Field,
    positive: Vec<Field>,
    negative: Vec<Field>,
    free: u8,
}

impl FloatAppender {
    /// A new chunk; `header` says what is known of resets at its first sample.
    pub fn new(header: ResetHint) -> FloatAppender {
        FloatAppender { header, ..FloatAppender::default() }
    }

    /// Samples pushed so far.
    pub fn count(&self) -> u16 {
        self.samples
    }

    pub fn last_timestamp(&self) -> Timestamp {
        self.time
    }

    /// Heap bytes beside the chunk's own.
    pub fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Field>()
            + (self.layout.positive.capacity() + self.layout.negative.capacity()) * size_of::<Span>()
    }

    /// The header that a chunk must carry if `h` is its first sample and the last sample here came before it.
    pub fn header_for_next(&self, h: &FloatHistogram) -> ResetHint {
        match self.judge(h) {
            _ if h.hint == ResetHint::Gauge => ResetHint::Gauge,
            _ if h.hint == ResetHint::Reset => ResetHint::Reset,
            Judgement::NewChunk(header) => header,
            Judgement::Same | Judgement::Wider { .. } => ResetHint::NotReset,
        }
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call.
    pub fn push(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        h: &FloatHistogram,
    ) -> Result<Pushed, Error> {
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
                self.more(out, timestamp, h, &h.positive_counts, &h.negative_counts);
                Ok(Pushed::Appended)
            }
            Judgement::Wider { positive, negative } => {
                let grows =
                    buckets(&positive) > self.positive.len() || buckets(&negative) > self.negative.len();
                if grows {
                    self.recode(out, &positive, &negative)?;
                }
                let up = widen(&h.positive_spans, &h.positive_counts, &self.layout.positive);
                let down = widen(&h.negative_spans, &h.negative_counts, &self.layout.negative);
                self.more(out, timestamp, h, &up, &down);
                Ok(Pushed::Appended)
            }
        }
    }

    fn first(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &FloatHistogram) {
        let empty = FloatHistogram::default();
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
        let mut raw = |value: f64| {
            w.write(out, value.to_bits(), 64);
            Field::new(value)
        };
        self.count = raw(h.count);
        self.zero = raw(h.zero_count);
        self.sum = raw(sum);
        self.positive = h.positive_counts.iter().map(|c| raw(*c)).collect();
        self.negative = h.negative_counts.iter().map(|c| raw(*c)).collect();
        self.free = w.free();
        self.samples = 1;
        self.time = timestamp;
        self.time_delta = 0;
    }

    fn more(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        h: &FloatHistogram,
        up: &[f64],
        down: &[f64],
    ) {
        let mut w = BitWriter::resume(self.free);
        let delta = timestamp.wrapping_sub(self.time);
        put_int(&mut w, out, delta.wrapping_sub(self.time_delta));
        (self.time, self.time_delta) = (timestamp, delta);
        let stale = h.is_stale();
        self.count.put(&mut w, out, if stale { 0.0 } else { h.count });
        self.zero.put(&mut w, out, if stale { 0.0 } else { h.zero_count });
        self.sum.put(&mut w, out, h.sum);
        if !stale {
            self.positive.iter_mut().zip(up).for_each(|(field, value)| field.put(&mut w, out, *value));
            self.negative.iter_mut().zip(down).for_each(|(field, value)| field.put(&mut w, out, *value));
        }
        self.free = w.free();
        self.samples += 1;
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
    }

    fn judge(&self, h: &FloatHistogram) -> Judgement {
        use Judgement::{NewChunk, Same, Wider};
        if self.samples == 0 {
            return NewChunk(ResetHint::Unknown);
        }
        let gauge = h.hint == ResetHint::Gauge;
        let was_stale = is_stale(self.sum.value());
        if h.is_stale() {
            return if was_stale { NewChunk(ResetHint::Unknown) } else { Same };
        }
        if was_stale || gauge != (self.header == ResetHint::Gauge) {
            return NewChunk(if gauge { ResetHint::Gauge } else { ResetHint::Unknown });
        }
        let comparable = self.layout.comparable(h.schema, h.zero_threshold, &h.custom_values);
        if gauge && !comparable {
            return NewChunk(ResetHint::Gauge);
        }
        let shrank = !gauge && (h.count < self.count.value() || h.zero_count < self.zero.value());
        if !comparable || shrank || h.hint == ResetHint::Reset {
            return NewChunk(ResetHint::Reset);
        }
        let l = &self.layout;
        let positive = union(&l.positive, &h.positive_spans);
        let negative = union(&l.negative, &h.negative_spans);
        if !gauge {
            let fell = |old: &[Span], fields: &[Field], new: &[Span], counts: &[f64], all: &[Span]| {
                let before: Vec<f64> = fields.iter().map(|f| f.value()).collect();
                let (before, after) = (widen(old, &before, all), widen(new, counts, all));
                before.iter().zip(&after).any(|(b, a)| a < b)
            };
            if fell(&l.positive, &self.positive, &h.positive_spans, &h.positive_counts, &positive)
                || fell(&l.negative, &self.negative, &h.negative_spans, &h.negative_counts, &negative)
            {
                return NewChunk(ResetHint::Reset);
            }
        }
        if l.positive == h.positive_spans && l.negative == h.negative_spans {
            return Same;
        }
        Wider { positive, negative }
    }

    /// Writes the chunk anew with room for more buckets.
    fn recode(&mut self, out: &mut Vec<u8>, positive: &[Span], negative: &[Span]) -> Result<(), Error> {
        let mut wider = FloatAppender::new(self.header);
        let mut fresh = Vec::with_capacity(out.len() * 2);
        for sample in FloatIter::new(out)? {
            let At { timestamp, histogram: mut h } = sample?;
            h.hint = self.header;
            h.positive_counts = widen(&h.positive_spans, &h.positive_counts, positive);
            h.negative_counts = widen(&h.negative_spans, &h.negative_counts, negative);
            (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
            if wider.samples == 0 {
                wider.first(&mut fresh, timestamp, &h);
            } else {
                let (up, down) =
                    (std::mem::take(&mut h.positive_counts), std::mem::take(&mut h.negative_counts));
                wider.more(&mut fresh, timestamp, &h, &up, &down);
            }
        }
        *out = fresh;
        *self = wider;
        Ok(())
    }
}

enum Judgement {
    Same,
    Wider { positive: Vec<Span>, negative: Vec<Span> },
    NewChunk(ResetHint),
}

/// Walks the samples of a chunk of float counts. Ends after its count or at the first error.
pub struct FloatIter<'a> {
    reader: BitReader<'a>,
    header: ResetHint,
    left: u16,
    read: u16,
    layout: Layout,
    time: Timestamp,
    time_delta: i64,
    count: Field,
    zero: Field,
    sum: Field,
    positive: Vec<Field>,
    negative: Vec<Field>,
}

impl<'a> FloatIter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<FloatIter<'a>, Error> {
        let left = crate::xor::count(bytes)?;
        let body = bytes.get(HEADER_BYTES..).ok_or(Error::Truncated)?;
        let mut reader = BitReader::new(body);
        let layout = if left > 0 { Layout::take(&mut reader)? } else { Layout::default() };
        Ok(FloatIter {
            reader,
            header: header_of(bytes),
            left,
            read: 0,
            positive: vec![Field::default(); buckets(&layout.positive)],
            negative: vec![Field::default(); buckets(&layout.negative)],
            layout,
            time: 0,
            time_delta: 0,
            count: Field::default(),
            zero: Field::default(),
            sum: Field::default(),
        })
    }

    fn step(&mut self) -> Result<At<FloatHistogram>, Error> {
        let r = &mut self.reader;
        if self.read == 0 {
            self.time = int(r)?;
            for field in [&mut self.count, &mut self.zero, &mut self.sum] {
                field.bits = r.bits(64)?;
            }
            for field in self.positive.iter_mut().chain(&mut self.negative) {
                field.bits = r.bits(64)?;
            }
        } else {
            self.time_delta = self.time_delta.wrapping_add(int(r)?);
            self.time = self.time.wrapping_add(self.time_delta);
            for field in [&mut self.count, &mut self.zero, &mut self.sum] {
                field.take(r)?;
            }
            if !is_stale(self.sum.value()) {
                for field in self.positive.iter_mut().chain(&mut self.negative) {
                    field.take(r)?;
                }
            }
        }
        let hint = hint_at(self.header, self.read);
        self.read += 1;
        let sum = self.sum.value();
        if is_stale(sum) {
            return Ok(At {
                timestamp: self.time,
                histogram: FloatHistogram { sum, ..FloatHistogram::default() },
            });
        }
        let histogram = FloatHistogram {
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum,
            hint,
            positive_spans: self.layout.positive.clone(),
            negative_spans: self.layout.negative.clone(),
            positive_counts: self.positive.iter().map(|f| f.value()).collect(),
            negative_counts: self.negative.iter().map(|f| f.value()).collect(),
            custom_values: if self.layout.schema == CUSTOM_BUCKETS {
                self.layout.custom.clone()
            } else {
                [].into()
            },
        };
        Ok(At { timestamp: self.time, histogram })
    }
}

impl Iterator for FloatIter<'_> {
    type Item = Result<At<FloatHistogram>, Error>;

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
