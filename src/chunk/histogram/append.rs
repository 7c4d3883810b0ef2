//! Appends histograms to a chunk: the one way for whole and float counts.

use model::Timestamp;
use model::histogram::{ResetHint, Shape, Span};

use super::judge::{self, Judgement};
use super::layout::{Layout, buckets};
use super::read::{Iter, ReadCounts};
use super::{At, Pushed, Track};
use crate::varbit::BitWriter;
use crate::{Encoding, Error};

/// The counts of a chunk's last sample, and how the next ones are written: what differs between the encodings.
pub trait Counts: Clone + Default {
    type Histogram;
    /// A bucket as it is written.
    type Bucket: Copy;
    type Reader: ReadCounts<Histogram = Self::Histogram>;
    const ENCODING: Encoding;

    /// What of a sample decides, besides its counts.
    fn shape(h: &Self::Histogram) -> Shape<'_>;

    /// The positive and the negative buckets.
    fn buckets(h: &Self::Histogram) -> (&[Self::Bucket], &[Self::Bucket]);

    /// Buckets of `spans` as those of `wider`.
    fn widen(spans: &[Span], buckets: &[Self::Bucket], wider: &[Span]) -> Vec<Self::Bucket>;

    /// Gives `h` other spans, which hold its own, and the buckets that these have.
    fn respan(h: &mut Self::Histogram, positive: &[Span], negative: &[Span]);

    /// Writes the first sample, all but its time.
    fn first(&mut self, w: &mut BitWriter<'_>, h: &Self::Histogram);

    /// Writes a later one, its buckets being `up` and `down` in the chunk's layout.
    fn more(
        &mut self,
        w: &mut BitWriter<'_>,
        h: &Self::Histogram,
        up: &[Self::Bucket],
        down: &[Self::Bucket],
    );

    /// Whether the last sample is a stale marker.
    fn is_stale(&self) -> bool;

    /// How many positive and negative buckets there are.
    fn sizes(&self) -> (usize, usize);

    /// Whether any count of `h` is below the last one.
    fn fall_to(&self, layout: &Layout, h: &Self::Histogram) -> bool;

    fn heap_bytes(&self) -> usize;
}

/// State needed to append to a chunk.
#[derive(Clone, Debug, Default)]
pub struct Appender<C> {
    layout: Layout,
    header: ResetHint,
    samples: u16,
    time: Track,
    counts: C,
    free: u8,
}

impl<C: Counts> Appender<C> {
    /// A new chunk; `header` says what is known of resets at its first sample.
    pub fn new(header: ResetHint) -> Appender<C> {
        Appender { header, ..Appender::default() }
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
        self.counts.heap_bytes() + self.layout.heap_bytes()
    }

    /// The header that a chunk must carry if `h` is its first sample and the last sample here came before it.
    pub fn header_for_next(&self, h: &C::Histogram) -> ResetHint {
        match self.samples {
            0 => judge::header_for_next(&Judgement::NewChunk(ResetHint::Unknown), &C::shape(h)),
            _ => judge::header_for_next(&self.judge(h), &C::shape(h)),
        }
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call. `h` has
    /// passed its `check`; one whose buckets do not fit its spans is refused.
    pub fn push(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        h: &C::Histogram,
    ) -> Result<Pushed, Error> {
        let (up, down) = C::buckets(h);
        let new = C::shape(h);
        judge::check(&new, self.samples, up.len(), down.len())?;
        if self.samples == 0 {
            self.first(out, timestamp, h);
            return Ok(Pushed::Appended);
        }
        match self.judge(h) {
            Judgement::NewChunk(header) => return Ok(Pushed::NewChunk(header)),
            Judgement::Same => self.more(out, timestamp, h, up, down),
            Judgement::Wider { positive, negative } => {
                let (most_up, most_down) = self.counts.sizes();
                if buckets(&positive) > most_up || buckets(&negative) > most_down {
                    self.recode(out, &positive, &negative)?;
                }
                let up = C::widen(new.positive, up, &positive);
                let down = C::widen(new.negative, down, &negative);
                self.more(out, timestamp, h, &up, &down);
            }
        }
        Ok(Pushed::Appended)
    }

    fn judge(&self, h: &C::Histogram) -> Judgement {
        judge::judge(&self.layout, self.header, self.counts.is_stale(), &C::shape(h), || {
            self.counts.fall_to(&self.layout, h)
        })
    }

    fn first(&mut self, out: &mut Vec<u8>, timestamp: Timestamp, h: &C::Histogram) {
        let new = C::shape(h);
        self.header = judge::header(&new, self.header);
        self.layout = Layout::of(&new);
        let mut w = self.layout.begin(out, self.header);
        w.int(timestamp);
        self.time = Track { value: timestamp, delta: 0 };
        self.counts.first(&mut w, h);
        self.free = w.free();
        self.samples = 1;
    }

    fn more(
        &mut self,
        out: &mut Vec<u8>,
        timestamp: Timestamp,
        h: &C::Histogram,
        up: &[C::Bucket],
        down: &[C::Bucket],
    ) {
        let mut w = BitWriter::new(out, self.free);
        self.time.put(&mut w, timestamp);
        self.counts.more(&mut w, h, up, down);
        self.free = w.free();
        self.samples += 1;
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
    }

    /// Writes the chunk anew with room for more buckets.
    fn recode(&mut self, out: &mut Vec<u8>, positive: &[Span], negative: &[Span]) -> Result<(), Error> {
        let mut wider = Appender::<C>::new(self.header);
        let mut fresh = Vec::with_capacity(out.len() * 2);
        for sample in Iter::<C::Reader>::new(out)? {
            let At { timestamp, histogram: mut h } = sample?;
            C::respan(&mut h, positive, negative);
            match wider.samples {
                0 => wider.first(&mut fresh, timestamp, &h),
                _ => {
                    let (up, down) = C::buckets(&h);
                    wider.more(&mut fresh, timestamp, &h, up, down);
                }
            }
        }
        *out = fresh;
        *self = wider;
        Ok(())
    }
}
