//! Chunks of histograms with float counts (encoding 3).

use model::histogram::{FloatHistogram, ResetHint, Span};
use model::{Timestamp, is_stale};

use super::judge::{self, Incoming, Judgement};
use super::layout::{Layout, buckets, fell, widen};
use super::{At, HEADER_BYTES, Pushed, header, hint_at, started_header};
use crate::Error;
use crate::bits::BitReader;
use crate::starts::ReadStarts;
use crate::varbit::{BitWriter, int};
use crate::window::{ReadWindow, Window};

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

    fn put(&mut self, w: &mut BitWriter<'_>, value: f64) {
        w.xor(&mut self.window, self.bits ^ value.to_bits());
        self.bits = value.to_bits();
    }
}

/// The same on the reader's side.
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

    /// Unused low bits of the chunk's last byte.
    pub(super) fn free_bits(&mut self) -> &mut u8 {
        &mut self.free
    }

    /// Heap bytes beside the chunk's own.
    pub fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Field>() + self.layout.heap_bytes()
    }

    /// The header that a chunk must carry if `h` is its first sample and the last sample here came before it.
    pub fn header_for_next(&self, h: &FloatHistogram) -> ResetHint {
        match self.samples {
            0 => judge::header_for_next(&Judgement::NewChunk(ResetHint::Unknown), &incoming(h)),
            _ => judge::header_for_next(&self.judge(h), &incoming(h)),
        }
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call. `h` has
    /// passed [`FloatHistogram::check`]; one whose buckets do not fit its spans is refused.
    pub fn push(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        h: &FloatHistogram,
    ) -> Result<Pushed, Error> {
        incoming(h).check(self.samples, h.positive_counts.len(), h.negative_counts.len())?;
        if self.samples == 0 {
            self.first(out, timestamp, h);
            return Ok(Pushed::Appended);
        }
        match self.judge(h) {
            Judgement::NewChunk(header) => return Ok(Pushed::NewChunk(header)),
            Judgement::Same => self.more(out, timestamp, h, &h.positive_counts, &h.negative_counts),
            Judgement::Wider { positive, negative } => {
                if buckets(&positive) > self.positive.len() || buckets(&negative) > self.negative.len() {
                    self.recode(out, &positive, &negative)?;
                }
                let up = widen(&h.positive_spans, h.positive_counts.iter().copied(), &positive);
                let down = widen(&h.negative_spans, h.negative_counts.iter().copied(), &negative);
                self.more(out, timestamp, h, &up, &down);
            }
        }
        Ok(Pushed::Appended)
    }

    fn first(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &FloatHistogram) {
        self.header = incoming(h).header(self.header);
        self.layout = Layout::of(&incoming(h));
        let empty = FloatHistogram::default();
        let (sum, h) = (h.sum, if h.is_stale() { &empty } else { h });
        let mut w = self.layout.begin(out, self.header);
        w.int(timestamp);
        let mut raw = |value: f64| {
            w.bits(value.to_bits(), 64);
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
        let mut w = BitWriter::new(out, self.free);
        let delta = timestamp.wrapping_sub(self.time);
        w.int(delta.wrapping_sub(self.time_delta));
        (self.time, self.time_delta) = (timestamp, delta);
        let stale = h.is_stale();
        self.count.put(&mut w, if stale { 0.0 } else { h.count });
        self.zero.put(&mut w, if stale { 0.0 } else { h.zero_count });
        self.sum.put(&mut w, h.sum);
        if !stale {
            self.positive.iter_mut().zip(up).for_each(|(field, value)| field.put(&mut w, *value));
            self.negative.iter_mut().zip(down).for_each(|(field, value)| field.put(&mut w, *value));
        }
        self.free = w.free();
        self.samples += 1;
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
    }

    fn judge(&self, h: &FloatHistogram) -> Judgement {
        judge::judge(&self.layout, self.header, is_stale(self.sum.value()), &incoming(h), || {
            let l = &self.layout;
            let side = |old, fields: &[Field], new, counts: &[f64]| {
                fell((old, fields.iter().map(|f| f.value())), (new, counts.iter().copied()))
            };
            h.count < self.count.value()
                || h.zero_count < self.zero.value()
                || side(&l.positive, &self.positive, &h.positive_spans, &h.positive_counts)
                || side(&l.negative, &self.negative, &h.negative_spans, &h.negative_counts)
        })
    }

    /// Writes the chunk anew with room for more buckets.
    fn recode(&mut self, out: &mut Vec<u8>, positive: &[Span], negative: &[Span]) -> Result<(), Error> {
        let mut wider = FloatAppender::new(self.header);
        let mut fresh = Vec::with_capacity(out.len() * 2);
        for sample in FloatIter::new(out)? {
            let At { timestamp, histogram: mut h } = sample?;
            h.positive_counts = widen(&h.positive_spans, h.positive_counts.into_iter(), positive);
            h.negative_counts = widen(&h.negative_spans, h.negative_counts.into_iter(), negative);
            if wider.samples == 0 {
                (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
                wider.first(&mut fresh, timestamp, &h);
            } else {
                wider.more(&mut fresh, timestamp, &h, &h.positive_counts, &h.negative_counts);
            }
        }
        *out = fresh;
        *self = wider;
        Ok(())
    }
}

fn incoming(h: &FloatHistogram) -> Incoming<'_> {
    Incoming {
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        positive: &h.positive_spans,
        negative: &h.negative_spans,
        custom: &h.custom_values,
        hint: h.hint,
        stale: h.is_stale(),
    }
}

/// Walks the samples of a chunk of float counts. Ends after its count or at the first error.
pub struct FloatIter<'a> {
    reader: BitReader<'a>,
    header: ResetHint,
    starts: Option<ReadStarts>,
    /// Of the sample read last.
    start: Timestamp,
    left: u16,
    read: u16,
    layout: Layout,
    time: Timestamp,
    time_delta: i64,
    count: ReadField,
    zero: ReadField,
    sum: ReadField,
    positive: Vec<ReadField>,
    negative: Vec<ReadField>,
}

impl<'a> FloatIter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<FloatIter<'a>, Error> {
        FloatIter::with(bytes, crate::xor::count(bytes)?, header(bytes)?, None)
    }

    /// The same of a chunk with start times, which [`FloatIter::next_started`] tells.
    pub fn started(bytes: &'a [u8]) -> Result<FloatIter<'a>, Error> {
        let (left, header, starts) = started_header(bytes)?;
        FloatIter::with(bytes, left, header, Some(ReadStarts::new(starts)))
    }

    /// The next sample and when its counter began, 0 where that is not known.
    pub fn next_started(&mut self) -> Option<Result<(At<FloatHistogram>, Timestamp), Error>> {
        let sample = self.next()?;
        Some(sample.map(|sample| (sample, self.start)))
    }

    fn with(
        bytes: &'a [u8],
        left: u16,
        header: ResetHint,
        starts: Option<ReadStarts>,
    ) -> Result<FloatIter<'a>, Error> {
        let body = bytes.get(HEADER_BYTES..).ok_or(Error::Truncated)?;
        let mut reader = BitReader::new(body);
        let layout = if left > 0 { Layout::take(&mut reader)? } else { Layout::default() };
        let (up, down) = (buckets(&layout.positive), buckets(&layout.negative));
        // Every bucket takes 64 bits at first: nothing is allocated for what is not there.
        if (up + down) * 64 > reader.left() {
            return Err(Error::Truncated);
        }
        Ok(FloatIter {
            reader,
            header,
            starts,
            start: 0,
            left,
            read: 0,
            positive: vec![ReadField::default(); up],
            negative: vec![ReadField::default(); down],
            layout,
            time: 0,
            time_delta: 0,
            count: ReadField::default(),
            zero: ReadField::default(),
            sum: ReadField::default(),
        })
    }

    fn step(&mut self) -> Result<At<FloatHistogram>, Error> {
        let before = self.time;
        let r = &mut self.reader;
        if self.read == 0 {
            self.time = int(r);
            for field in [&mut self.count, &mut self.zero, &mut self.sum] {
                field.bits = r.bits(64);
            }
            for field in self.positive.iter_mut().chain(&mut self.negative) {
                field.bits = r.bits(64);
            }
        } else {
            self.time_delta = self.time_delta.wrapping_add(int(r));
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
        if let Some(starts) = &mut self.starts {
            self.start = starts.next(r, self.read, before, self.time)?;
        }
        r.check()?;
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
            custom_values: self.layout.custom.clone(),
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
