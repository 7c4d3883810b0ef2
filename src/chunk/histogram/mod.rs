//! Native histogram chunks: integer counts (`int`) and float counts (`float`), bit for bit as Prometheus
//! writes them.
//!
//! All samples of a chunk share one layout: schema, zero threshold, spans, custom bounds. A sample with new
//! buckets makes the chunk be written anew with the wider layout; a counter reset, another schema or other
//! bounds begin a new chunk, whose header says what is known of resets at its start.
//!
//! # Cost
//! A push of an unchanged layout writes one bit field per number and allocates nothing but the growth of the
//! output. A wider layout decodes and encodes the whole chunk: rare, and bounded by the chunk's size. Reading
//! allocates the vectors of each sample.

mod append;
mod float;
mod int;
mod judge;
mod layout;
mod read;
mod split;

pub use split::{cut_floats, cut_ints, encode_floats, encode_ints, with_starts};

use model::Timestamp;
use model::histogram::ResetHint;

use crate::Error;
use crate::bits::BitReader;
use crate::varbit::BitWriter;

/// State needed to append to a chunk of whole counts.
pub type IntAppender = append::Appender<int::IntCounts>;

/// The same of float counts.
pub type FloatAppender = append::Appender<float::FloatCounts>;

/// Walks the samples of a chunk of whole counts.
pub type IntIter<'a> = read::Iter<'a, int::ReadInts>;

/// The same of float counts.
pub type FloatIter<'a> = read::Iter<'a, float::ReadFloats>;

/// Bytes before the layout: sample count and reset header.
const HEADER_BYTES: usize = 3;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The sample is in the chunk.
    Appended,
    /// It is not, and cannot be: begin a new chunk with this header and push it there.
    NewChunk(ResetHint),
}

/// One sample of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct At<H> {
    pub timestamp: Timestamp,
    pub histogram: H,
}

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
        self.delta = self.delta.wrapping_add(crate::varbit::int(r));
        self.value = self.value.wrapping_add(self.delta);
    }
}

/// What a chunk of histograms says of resets at its first sample; samples read from it do not repeat it, because
/// whoever merges or cuts chunks may show them after another sample than the one it is about.
pub fn header(bytes: &[u8]) -> Result<ResetHint, Error> {
    let flags = bytes.get(HEADER_BYTES - 1).ok_or(Error::Truncated)?;
    Ok(match flags >> 6 {
        0b10 => ResetHint::Reset,
        0b01 => ResetHint::NotReset,
        0b11 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    })
}

/// The header of a chunk with start times: its samples, what it says of resets, and the byte about starts.
fn started_header(bytes: &[u8]) -> Result<(u16, ResetHint, u8), Error> {
    let head = bytes.first_chunk::<HEADER_BYTES>().ok_or(Error::Truncated)?;
    let count = u16::from_be_bytes([head[0] & 0x3f, head[1]]);
    Ok((count, header(&[0, 0, head[0]])?, head[2]))
}

fn header_bits(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 0b10 << 6,
        ResetHint::NotReset => 0b01 << 6,
        ResetHint::Gauge => 0b11 << 6,
    }
}

/// What a reader learns of resets before sample number `read` (from 0), as Prometheus tells it.
fn hint_at(header: ResetHint, read: u16) -> ResetHint {
    match header {
        ResetHint::Gauge => ResetHint::Gauge,
        _ if read > 0 => ResetHint::NotReset,
        _ => ResetHint::Unknown,
    }
}

#[cfg(test)]
mod tests;
