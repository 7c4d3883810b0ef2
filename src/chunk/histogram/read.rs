//! Reads the samples of a chunk of histograms: the one way for whole and float counts.

use model::Timestamp;
use model::histogram::ResetHint;

use super::layout::{Layout, buckets};
use super::{At, HEADER_BYTES, Track, header, hint_at, started_header};
use crate::Error;
use crate::bits::BitReader;
use crate::starts::ReadStarts;
use crate::varbit::int;

/// The counts of the sample read last, and how the next ones are read: what differs between the encodings.
pub trait ReadCounts: Sized {
    type Histogram;
    /// Bits that a bucket of the first sample takes at least.
    const BUCKET_BITS: usize;

    /// Before the first sample, with room for so many positive and negative buckets.
    fn new(up: usize, down: usize) -> Self;

    /// Reads the first sample, all but its time.
    fn first(&mut self, r: &mut BitReader<'_>);

    /// Reads a later one.
    fn more(&mut self, r: &mut BitReader<'_>) -> Result<(), Error>;

    /// The sample read last.
    fn histogram(&self, layout: &Layout, hint: ResetHint) -> Self::Histogram;
}

/// Walks the samples of a chunk. Ends after its count or at the first error.
pub struct Iter<'a, R> {
    reader: BitReader<'a>,
    header: ResetHint,
    starts: Option<ReadStarts>,
    /// Of the sample read last.
    start: Timestamp,
    left: u16,
    read: u16,
    layout: Layout,
    time: Track,
    counts: R,
}

impl<'a, R: ReadCounts> Iter<'a, R> {
    pub fn new(bytes: &'a [u8]) -> Result<Iter<'a, R>, Error> {
        Iter::with(bytes, crate::xor::count(bytes)?, header(bytes)?, None)
    }

    /// The same of a chunk with start times, which [`Iter::next_started`] tells.
    pub fn started(bytes: &'a [u8]) -> Result<Iter<'a, R>, Error> {
        let (left, header, starts) = started_header(bytes)?;
        Iter::with(bytes, left, header, Some(ReadStarts::new(starts)))
    }

    /// The next sample and when its counter began, 0 where that is not known.
    pub fn next_started(&mut self) -> Option<Result<(At<R::Histogram>, Timestamp), Error>> {
        let sample = self.next()?;
        Some(sample.map(|sample| (sample, self.start)))
    }

    fn with(
        bytes: &'a [u8],
        left: u16,
        header: ResetHint,
        starts: Option<ReadStarts>,
    ) -> Result<Iter<'a, R>, Error> {
        let body = bytes.get(HEADER_BYTES..).ok_or(Error::Truncated)?;
        let mut reader = BitReader::new(body);
        let layout = if left > 0 { Layout::take(&mut reader)? } else { Layout::default() };
        let (up, down) = (buckets(&layout.positive), buckets(&layout.negative));
        // Nothing is allocated for what is not there.
        if (up + down) * R::BUCKET_BITS > reader.left() {
            return Err(Error::Truncated);
        }
        let (time, counts) = (Track::default(), R::new(up, down));
        Ok(Iter { reader, header, starts, start: 0, left, read: 0, layout, time, counts })
    }

    fn step(&mut self) -> Result<At<R::Histogram>, Error> {
        let before = self.time.value;
        let r = &mut self.reader;
        if self.read == 0 {
            self.time.value = int(r);
            self.counts.first(r);
        } else {
            self.time.take(r);
            self.counts.more(r)?;
        }
        let timestamp = self.time.value;
        if let Some(starts) = &mut self.starts {
            self.start = starts.next(r, self.read, before, timestamp)?;
        }
        r.check()?;
        let hint = hint_at(self.header, self.read);
        self.read += 1;
        Ok(At { timestamp, histogram: self.counts.histogram(&self.layout, hint) })
    }
}

impl<R: ReadCounts> Iterator for Iter<'_, R> {
    type Item = Result<At<R::Histogram>, Error>;

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
