//! Native histogram chunks: integer counts (`int`) and float counts (`float`), bit for bit as Prometheus
//! writes them.
//!
//! All samples of a chunk share one layout: schema, zero threshold, spans, custom bounds. A sample with new
//! buckets makes the chunk be written anew with the wider layout; a counter reset, another schema or other
//! bounds begin a new chunk, whose header says what is known of resets at its start.
//!
//! # Cost
//! A push of an unchanged layout writes one bit field per number and allocates nothing but the growth of the
//! output. A wider layout decodes and encodes the whole chunk: rare, and bounded by the chunk's size.

mod float;
mod int;
mod layout;

pub use float::{FloatAppender, FloatIter};
pub use int::{IntAppender, IntIter};

use model::Timestamp;
use model::histogram::ResetHint;

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

/// The reset header of a chunk.
fn header_of(bytes: &[u8]) -> ResetHint {
    match bytes.get(2).map_or(0, |flags| flags >> 6) {
        0b10 => ResetHint::Reset,
        0b01 => ResetHint::NotReset,
        0b11 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn header_bits(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 0b10 << 6,
        ResetHint::NotReset => 0b01 << 6,
        ResetHint::Gauge => 0b11 << 6,
    }
}

/// What a reader learns of resets before sample number `read` (from 0).
fn hint_at(header: ResetHint, read: u16) -> ResetHint {
    match header {
        ResetHint::Gauge => ResetHint::Gauge,
        _ if read > 0 => ResetHint::NotReset,
        other => other,
    }
}

#[cfg(test)]
mod tests;
