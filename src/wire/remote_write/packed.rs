//! A body as it came: its bytes, and how they are compressed.

use super::{Limits, decompress, decompress_zstd, zstd};
use crate::WireError;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// A snappy block, as Prometheus sends it.
    #[default]
    Snappy,
    /// A frame of Zstandard, or several, as vmagent sends it.
    Zstd,
}

/// A compressed body.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub packing: Packing,
    pub bytes: &'a [u8],
}

impl<'a> From<&'a [u8]> for Packed<'a> {
    fn from(bytes: &'a [u8]) -> Packed<'a> {
        Packed { packing: Packing::Snappy, bytes }
    }
}

impl<'a> From<&'a Vec<u8>> for Packed<'a> {
    fn from(bytes: &'a Vec<u8>) -> Packed<'a> {
        Packed::from(&bytes[..])
    }
}

impl Packed<'_> {
    /// Bytes that the body becomes, at most; 0 where it is nothing that opens.
    pub fn plain_bytes(&self) -> u64 {
        match self.packing {
            Packing::Snappy => snap::raw::decompress_len(self.bytes).unwrap_or(0) as u64,
            Packing::Zstd => zstd::extent(self.bytes).map_or(0, |extent| extent.bytes),
        }
    }

    /// Opens it into `scratch`, as [`decompress`] does.
    pub fn open<'s>(&self, limits: &Limits, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], WireError> {
        match self.packing {
            Packing::Snappy => decompress(self.bytes, limits, scratch),
            Packing::Zstd => decompress_zstd(self.bytes, limits, scratch),
        }
    }
}
