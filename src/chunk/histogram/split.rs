//! Histograms in order of time into as many chunks as they need.

use bytes::Bytes;
use model::histogram::{FloatHistogram, Histogram, ResetHint};
use model::{TimeRange, Timestamp};

use super::append::{Appender, Counts};
use super::float::FloatCounts;
use super::int::IntCounts;
use super::read::Iter;
use super::{At, Pushed, header};
use crate::cut::Cut;
use crate::starts::WriteStarts;
use crate::varbit::BitWriter;
use crate::{ChunkData, Encoding, Error};

/// Most samples of a chunk with start times: its count has fewer bits.
const MAX_STARTED: u16 = (1 << 14) - 1;

/// Chunks of sorted histograms with whole counts, of at most `per_chunk` samples each. Of what comes before the first
/// one nothing is known.
pub fn encode_ints(
    samples: impl IntoIterator<Item = At<Histogram>>,
    per_chunk: u16,
) -> Result<Vec<ChunkData>, Error> {
    split::<IntCounts>(samples, Ends::Count(per_chunk))
}

/// The same of histograms with float counts.
pub fn encode_floats(
    samples: impl IntoIterator<Item = At<FloatHistogram>>,
    per_chunk: u16,
) -> Result<Vec<ChunkData>, Error> {
    split::<FloatCounts>(samples, Ends::Count(per_chunk))
}

/// Chunks of sorted histograms with whole counts that end where [`crate::cut`] says, in windows of `window` ms.
pub fn cut_ints(
    samples: impl IntoIterator<Item = At<Histogram>>,
    window: i64,
) -> Result<Vec<ChunkData>, Error> {
    split::<IntCounts>(samples, Ends::Parts(window, None))
}

/// The same of histograms with float counts.
pub fn cut_floats(
    samples: impl IntoIterator<Item = At<FloatHistogram>>,
    window: i64,
) -> Result<Vec<ChunkData>, Error> {
    split::<FloatCounts>(samples, Ends::Parts(window, None))
}

/// What ends a chunk beside what its samples are.
enum Ends {
    /// So many samples.
    Count(u16),
    /// Parts of a window of so many ms; the chunk that grows.
    Parts(i64, Option<Cut>),
}

impl Ends {
    /// Whether the chunk, which holds `count` samples, may hold one at `t`.
    fn allow(&mut self, count: u16, t: Timestamp) -> bool {
        match self {
            _ if count == 0 => {
                self.begin(t);
                true
            }
            Ends::Count(most) => count < *most,
            Ends::Parts(_, cut) => cut.as_mut().is_some_and(|cut| cut.takes(t)),
        }
    }

    /// A chunk begins at `t`.
    fn begin(&mut self, t: Timestamp) {
        if let Ends::Parts(window, cut) = self {
            *cut = Some(Cut::begin(t, *window));
        }
    }
}

/// A chunk of histograms written anew with a start time for each of its samples, 0 where it is not known.
pub fn with_starts(chunk: &ChunkData, starts: &[Timestamp]) -> Result<ChunkData, Error> {
    let (encoding, bytes) = match chunk.encoding {
        Encoding::Histogram => (Encoding::HistogramStart, start_all::<IntCounts>(&chunk.bytes, starts)?),
        Encoding::FloatHistogram => {
            (Encoding::FloatHistogramStart, start_all::<FloatCounts>(&chunk.bytes, starts)?)
        }
        _ => return Err(Error::Header("only chunks of histograms can be given start times")),
    };
    Ok(ChunkData { range: chunk.range, encoding, bytes: bytes.into() })
}

fn start_all<C: Counts>(chunk: &[u8], starts: &[Timestamp]) -> Result<Vec<u8>, Error> {
    let (mut out, mut writer) = (Vec::with_capacity(chunk.len() + 2 * starts.len()), WriteStarts::default());
    let mut appender = Appender::<C>::new(header(chunk)?);
    let (mut number, mut before) = (0u16, 0);
    for sample in Iter::<C::Reader>::new(chunk)? {
        let At { timestamp, histogram } = sample?;
        if number == MAX_STARTED {
            return Err(Error::Full);
        }
        if appender.push(&mut out, timestamp, &histogram)? != Pushed::Appended {
            return Err(Error::Header("a sample does not fit the chunk that it was read from"));
        }
        let mut w = BitWriter::new(&mut out, *appender.free_bits());
        let start = starts.get(usize::from(number)).copied().unwrap_or(0);
        writer.put(&mut w, number, before, timestamp, start);
        *appender.free_bits() = w.free();
        (number, before) = (number + 1, timestamp);
    }
    if let Some(head) = out.first_chunk_mut::<3>() {
        // What is said of resets moves to the top of the count.
        let [high, low] = number.to_be_bytes();
        *head = [high | head[2], low, writer.header];
    }
    Ok(out)
}

fn split<C: Counts>(
    samples: impl IntoIterator<Item = At<C::Histogram>>,
    mut ends: Ends,
) -> Result<Vec<ChunkData>, Error> {
    let (mut chunks, mut bytes, mut range) = (Vec::new(), Vec::new(), TimeRange::EMPTY);
    let mut appender = Appender::<C>::new(ResetHint::Unknown);
    let mut close = |bytes: &mut Vec<u8>, range| {
        if !bytes.is_empty() {
            chunks.push(ChunkData {
                range,
                encoding: C::ENCODING,
                bytes: Bytes::from(std::mem::take(bytes)),
            });
        }
    };
    for At { timestamp, histogram } in samples {
        let pushed = match ends.allow(appender.count(), timestamp) {
            false => Pushed::NewChunk(appender.header_for_next(&histogram)),
            true => appender.push(&mut bytes, timestamp, &histogram)?,
        };
        if let Pushed::NewChunk(header) = pushed {
            close(&mut bytes, range);
            range = TimeRange::EMPTY;
            appender = Appender::new(header);
            ends.begin(timestamp);
            appender.push(&mut bytes, timestamp, &histogram)?;
        }
        range = range.cover(&TimeRange::new(timestamp, timestamp));
    }
    close(&mut bytes, range);
    Ok(chunks)
}
