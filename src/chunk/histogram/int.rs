//! Chunks of histograms with whole counts (encoding 2).

use model::histogram::{Histogram, ResetHint, Span, absolutes, differences};
use model::{Timestamp, is_stale};

use super::judge::{self, Incoming, Judgement};
use super::layout::{Layout, buckets, fell, widen};
use super::{At, HEADER_BYTES, Pushed, header, hint_at, started_header};
use crate::Error;
use crate::bits::BitReader;
use crate::starts::ReadStarts;
use crate::varbit::{BitWriter, int, uint};
use crate::window::{ReadWindow, Window};

/// Value and last change of one number that is written as the change of its change.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    value: i64,
    delta: i64,
}

impl Track {
    fn put(&mut self, w: &mut BitWriter<'_>, value: i64) {
        let delta = value.wrapping_sub(self.value);
        w.int(delta.wrapping_sub(self.delta));
        *self = Track { value, delta };
    }

    fn take(&mut self, r: &mut BitReader<'_>) {
        self.delta = self.delta.wrapping_add(int(r));
        self.value = self.value.wrapping_add(self.delta);
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

    /// Time of the last sample; meaningless while empty.
    pub fn last_timestamp(&self) -> Timestamp {
        self.time.value
    }

    /// Unused low bits of the chunk's last byte.
    pub(super) fn free_bits(&mut self) -> &mut u8 {
        &mut self.free
    }

    /// Heap bytes beside the chunk's own.
    pub fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Track>() + self.layout.heap_bytes()
    }

    /// The header that a chunk must carry if `h` is its first sample and the last sample here came before it.
    pub fn header_for_next(&self, h: &Histogram) -> ResetHint {
        match self.samples {
            0 => judge::header_for_next(&Judgement::NewChunk(ResetHint::Unknown), &incoming(h)),
            _ => judge::header_for_next(&self.judge(h), &incoming(h)),
        }
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call. `h` has
    /// passed [`Histogram::check`]; one whose buckets do not fit its spans is refused.
    pub fn push(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &Histogram) -> Result<Pushed, Error> {
        incoming(h).check(self.samples, h.positive_deltas.len(), h.negative_deltas.len())?;
        if self.samples == 0 {
            self.first(out, timestamp, h);
            return Ok(Pushed::Appended);
        }
        match self.judge(h) {
            Judgement::NewChunk(header) => return Ok(Pushed::NewChunk(header)),
            Judgement::Same => self.more(out, timestamp, h, &h.positive_deltas, &h.negative_deltas),
            Judgement::Wider { positive, negative } => {
                if buckets(&positive) > self.positive.len() || buckets(&negative) > self.negative.len() {
                    self.recode(out, &positive, &negative)?;
                }
                let up = rewiden(&h.positive_spans, &h.positive_deltas, &positive);
                let down = rewiden(&h.negative_spans, &h.negative_deltas, &negative);
                self.more(out, timestamp, h, &up, &down);
            }
        }
        Ok(Pushed::Appended)
    }

    fn first(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &Histogram) {
        self.header = incoming(h).header(self.header);
        self.layout = Layout::of(&incoming(h));
        let empty = Histogram::default();
        let (sum, h) = (h.sum, if h.is_stale() { &empty } else { h });
        let mut w = self.layout.begin(out, self.header);
        w.int(timestamp);
        w.uint(h.count);
        w.uint(h.zero_count);
        w.bits(sum.to_bits(), 64);
        let mut side = |deltas: &[i64]| -> Vec<Track> {
            deltas.iter().for_each(|d| w.int(*d));
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

    /// `up` and `down` are the counts of `h` in the chunk's layout.
    fn more(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &Histogram, up: &[i64], down: &[i64]) {
        let mut w = BitWriter::new(out, self.free);
        let xor = self.sum.to_bits() ^ h.sum.to_bits();
        self.time.put(&mut w, timestamp);
        if h.is_stale() {
            // Counts mean nothing here; no change of their change is the shortest way to say so.
            w.bits(0, 2);
            w.xor(&mut self.window, xor);
        } else {
            self.count.put(&mut w, h.count as i64);
            self.zero.put(&mut w, h.zero_count as i64);
            w.xor(&mut self.window, xor);
            self.positive.iter_mut().zip(up).for_each(|(track, value)| track.put(&mut w, *value));
            self.negative.iter_mut().zip(down).for_each(|(track, value)| track.put(&mut w, *value));
        }
        self.free = w.free();
        self.sum = h.sum;
        self.samples += 1;
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
    }

    fn judge(&self, h: &Histogram) -> Judgement {
        judge::judge(&self.layout, self.header, is_stale(self.sum), &incoming(h), || {
            let l = &self.layout;
            let side = |old, tracks: &[Track], new, deltas: &[i64]| {
                fell(
                    (old, absolutes(tracks.iter().map(|t| t.value))),
                    (new, absolutes(deltas.iter().copied())),
                )
            };
            h.count < self.count.value as u64
                || h.zero_count < self.zero.value as u64
                || side(&l.positive, &self.positive, &h.positive_spans, &h.positive_deltas)
                || side(&l.negative, &self.negative, &h.negative_spans, &h.negative_deltas)
        })
    }

    /// Writes the chunk anew with room for more buckets.
    fn recode(&mut self, out: &mut Vec<u8>, positive: &[Span], negative: &[Span]) -> Result<(), Error> {
        let mut wider = IntAppender::new(self.header);
        let mut fresh = Vec::with_capacity(out.len() * 2);
        for sample in IntIter::new(out)? {
            let At { timestamp, histogram: mut h } = sample?;
            h.positive_deltas = rewiden(&h.positive_spans, &h.positive_deltas, positive);
            h.negative_deltas = rewiden(&h.negative_spans, &h.negative_deltas, negative);
            if wider.samples == 0 {
                (h.positive_spans, h.negative_spans) = (positive.to_vec(), negative.to_vec());
                wider.first(&mut fresh, timestamp, &h);
            } else {
                wider.more(&mut fresh, timestamp, &h, &h.positive_deltas, &h.negative_deltas);
            }
        }
        *out = fresh;
        *self = wider;
        Ok(())
    }
}

fn incoming(h: &Histogram) -> Incoming<'_> {
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

/// Deltas of the buckets of `spans`, as deltas of the buckets of `wider`.
fn rewiden(spans: &[Span], deltas: &[i64], wider: &[Span]) -> Vec<i64> {
    let mut counts = widen(spans, absolutes(deltas.iter().copied()), wider);
    differences(&mut counts);
    counts
}

/// Walks the samples of a chunk of whole counts. Ends after its count or at the first error.
pub struct IntIter<'a> {
    reader: BitReader<'a>,
    header: ResetHint,
    starts: Option<ReadStarts>,
    /// Of the sample read last.
    start: Timestamp,
    left: u16,
    read: u16,
    layout: Layout,
    time: Track,
    count: Track,
    zero: Track,
    sum: u64,
    window: ReadWindow,
    positive: Vec<Track>,
    negative: Vec<Track>,
}

impl<'a> IntIter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<IntIter<'a>, Error> {
        IntIter::with(bytes, crate::xor::count(bytes)?, header(bytes)?, None)
    }

    /// The same of a chunk with start times, which [`IntIter::next_started`] tells.
    pub fn started(bytes: &'a [u8]) -> Result<IntIter<'a>, Error> {
        let (left, header, starts) = started_header(bytes)?;
        IntIter::with(bytes, left, header, Some(ReadStarts::new(starts)))
    }

    /// The next sample and when its counter began, 0 where that is not known.
    pub fn next_started(&mut self) -> Option<Result<(At<Histogram>, Timestamp), Error>> {
        let sample = self.next()?;
        Some(sample.map(|sample| (sample, self.start)))
    }

    fn with(
        bytes: &'a [u8],
        left: u16,
        header: ResetHint,
        starts: Option<ReadStarts>,
    ) -> Result<IntIter<'a>, Error> {
        let body = bytes.get(HEADER_BYTES..).ok_or(Error::Truncated)?;
        let mut reader = BitReader::new(body);
        let layout = if left > 0 { Layout::take(&mut reader)? } else { Layout::default() };
        let (up, down) = (buckets(&layout.positive), buckets(&layout.negative));
        // Every bucket takes a bit at least: nothing is allocated for what is not there.
        if up + down > reader.left() {
            return Err(Error::Truncated);
        }
        Ok(IntIter {
            reader,
            header,
            starts,
            start: 0,
            left,
            read: 0,
            positive: vec![Track::default(); up],
            negative: vec![Track::default(); down],
            layout,
            time: Track::default(),
            count: Track::default(),
            zero: Track::default(),
            sum: 0,
            window: ReadWindow::default(),
        })
    }

    fn step(&mut self) -> Result<At<Histogram>, Error> {
        let before = self.time.value;
        let r = &mut self.reader;
        if self.read == 0 {
            self.time.value = int(r);
            self.count.value = uint(r) as i64;
            self.zero.value = uint(r) as i64;
            self.sum = r.bits(64);
            for track in self.positive.iter_mut().chain(&mut self.negative) {
                track.value = int(r);
            }
        } else {
            self.time.take(r);
            self.count.take(r);
            self.zero.take(r);
            let bits = r.peek();
            self.sum ^= self.window.take(r, bits, 0)?;
            if !is_stale(f64::from_bits(self.sum)) {
                for track in self.positive.iter_mut().chain(&mut self.negative) {
                    track.take(r);
                }
            }
        }
        if let Some(starts) = &mut self.starts {
            self.start = starts.next(r, self.read, before, self.time.value)?;
        }
        r.check()?;
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
            custom_values: self.layout.custom.clone(),
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
