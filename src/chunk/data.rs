//! A chunk as it travels: its time, its encoding and its bytes.

use bytes::Bytes;
use model::{TimeRange, Timestamp};

use crate::Encoding;

/// Encoded samples of one series over a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkData {
    /// Times of the first and the last sample.
    pub range: TimeRange,
    pub encoding: Encoding,
    /// The chunk's payload as in a Prometheus chunk file, without length, encoding and checksum.
    pub bytes: Bytes,
}

impl ChunkData {
    pub fn start(&self) -> Timestamp {
        self.range.start
    }

    pub fn end(&self) -> Timestamp {
        self.range.end
    }
}
