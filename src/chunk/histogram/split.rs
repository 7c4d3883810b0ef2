//! Histograms in order of time into as many chunks as they need.

use bytes::Bytes;
use model::histogram::{FloatHistogram, Histogram, ResetHint};
use model::{TimeRange, Timestamp};

use super::{At, FloatAppender, IntAppender, Pushed};
use crate::{ChunkData, Encoding, Error};

/// Chunks of sorted histograms with whole counts, of at most `per_chunk` samples each. Of what comes before the first
/// one nothing is known.
pub fn encode_ints(
    samples: impl IntoIterator<Item = At<Histogram>>,
    per_chunk: u16,
) -> Result<Vec<ChunkData>, Error> {
    split::<IntAppender>(samples, per_chunk)
}

/// The same of histograms with float counts.
pub fn encode_floats(
    samples: impl IntoIterator<Item = At<FloatHistogram>>,
    per_chunk: u16,
) -> Result<Vec<ChunkData>, Error> {
    split::<FloatAppender>(samples, per_chunk)
}

trait Appender {
    type Histogram;
    const ENCODING: Encoding;
    fn begin(header: ResetHint) -> Self;
    fn samples(&self) -> u16;
    fn next_header(&self, h: &Self::Histogram) -> ResetHint;
    fn add(&mut self, out: &mut Vec<u8>, t: Timestamp, h: &Self::Histogram) -> Result<Pushed, Error>;
}

macro_rules! appender {
    ($appender:ty, $histogram:ty, $encoding:expr) => {
        impl Appender for $appender {
            type Histogram = $histogram;
            const ENCODING: Encoding = $encoding;
            fn begin(header: ResetHint) -> Self {
                Self::new(header)
            }
            fn samples(&self) -> u16 {
                self.count()
            }
            fn next_header(&self, h: &$histogram) -> ResetHint {
                self.header_for_next(h)
            }
            fn add(&mut self, out: &mut Vec<u8>, t: Timestamp, h: &$histogram) -> Result<Pushed, Error> {
                self.push(out, t, h)
            }
        }
    };
}

appender!(IntAppender, Histogram, Encoding::Histogram);
appender!(FloatAppender, FloatHistogram, Encoding::FloatHistogram);

fn split<A: Appender>(
    samples: impl IntoIterator<Item = At<A::Histogram>>,
    per_chunk: u16,
) -> Result<Vec<ChunkData>, Error> {
    let (mut chunks, mut bytes, mut range) = (Vec::new(), Vec::new(), TimeRange::EMPTY);
    let mut appender = A::begin(ResetHint::Unknown);
    let mut close = |bytes: &mut Vec<u8>, range| {
        if !bytes.is_empty() {
            chunks.push(ChunkData {
                range,
                encoding: A::ENCODING,
                bytes: Bytes::from(std::mem::take(bytes)),
            });
        }
    };
    for At { timestamp, histogram } in samples {
        let pushed = match appender.samples() {
            n if n > 0 && n >= per_chunk => Pushed::NewChunk(appender.next_header(&histogram)),
            _ => appender.add(&mut bytes, timestamp, &histogram)?,
        };
        if let Pushed::NewChunk(header) = pushed {
            close(&mut bytes, range);
            range = TimeRange::EMPTY;
            appender = A::begin(header);
            appender.add(&mut bytes, timestamp, &histogram)?;
        }
        range = range.cover(&TimeRange::new(timestamp, timestamp));
    }
    close(&mut bytes, range);
    Ok(chunks)
}
