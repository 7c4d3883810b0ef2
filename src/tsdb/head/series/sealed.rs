//! Chunks of a series that take no more samples: a chain through pieces of a slab, the one sealed last first.

use bytes::Bytes;
use chunk::{ChunkData, Encoding, cut, xor};
use model::{Sample, TimeRange};

use super::{Cold, Series, SeriesMut};
use crate::head::native::Natives;
use crate::head::slab::Slab;

/// No sealed chunk.
pub(super) const NO_CHUNK: u32 = u32::MAX;
/// Mark of chunks that were cut while their times could still be written: asked for values, so that an
/// acknowledged one stays, and never read otherwise, since a block has them.
pub(super) const REMEMBERED: u32 = u32::MAX;

/// A chunk that takes no more samples, in its piece of the slab.
///
/// ```text
/// next u32 | length u24, encoding u8 | start i64 | start to end u32 | tag u32 | bytes
/// ```
pub(super) struct Sealed<'a> {
    pub(super) name: u32,
    pub(super) next: u32,
    pub(super) range: TimeRange,
    pub(super) encoding: Encoding,
    /// The freeze that this chunk belongs to; 0 for none, or [`REMEMBERED`].
    pub(super) tag: u32,
    pub(super) bytes: &'a [u8],
}

pub(super) const HEADER: usize = 24;
pub(super) const TAG_AT: usize = 20;

pub(super) fn push_sealed(
    cold: &mut Cold,
    slab: &mut Slab,
    range: TimeRange,
    encoding: Encoding,
    tag: u32,
    bytes: &[u8],
) {
    let name = slab.alloc(HEADER + bytes.len());
    let piece = slab.get_mut(name);
    let len = bytes.len() as u32 & 0xff_ffff;
    piece[..4].copy_from_slice(&cold.sealed.to_le_bytes());
    piece[4..8].copy_from_slice(&(len | u32::from(encoding as u8) << 24).to_le_bytes());
    piece[8..16].copy_from_slice(&range.start.to_le_bytes());
    let span = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
    piece[16..TAG_AT].copy_from_slice(&span.to_le_bytes());
    piece[TAG_AT..HEADER].copy_from_slice(&tag.to_le_bytes());
    piece[HEADER..HEADER + bytes.len()].copy_from_slice(bytes);
    cold.sealed = name;
}

/// Sealed chunks, the one that was sealed last first.
pub(super) struct Chain<'a> {
    pub(super) slab: &'a Slab,
    pub(super) next: u32,
}

impl<'a> Iterator for Chain<'a> {
    type Item = Sealed<'a>;

    fn next(&mut self) -> Option<Sealed<'a>> {
        let chunk = Sealed::read(self.slab, self.next)?;
        self.next = chunk.next;
        Some(chunk)
    }
}

impl<'a> Sealed<'a> {
    pub(super) fn read(slab: &'a Slab, name: u32) -> Option<Sealed<'a>> {
        if name == NO_CHUNK {
            return None;
        }
        let piece = slab.get(name);
        let u32_at = |at: usize| piece.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        let start = piece.get(8..16)?.first_chunk::<8>().map(|b| i64::from_le_bytes(*b))?;
        let head = u32_at(4)?;
        Some(Sealed {
            name,
            next: u32_at(0)?,
            range: TimeRange::new(start, start + i64::from(u32_at(16)?)),
            encoding: Encoding::from_byte((head >> 24) as u8)?,
            tag: u32_at(TAG_AT)?,
            bytes: piece.get(HEADER..HEADER + (head & 0xff_ffff) as usize)?,
        })
    }

    pub(super) fn data(&self, bytes: Bytes) -> ChunkData {
        ChunkData { range: self.range, encoding: self.encoding, bytes }
    }
}

/// A chunk of sorted samples; none of none.
pub(crate) fn encode(samples: &[Sample]) -> Option<ChunkData> {
    let (first, last) = (samples.first()?, samples.last()?);
    let bytes = xor::encode(samples.iter().copied()).ok()?;
    let range = TimeRange::new(first.timestamp, last.timestamp);
    Some(ChunkData { range, encoding: Encoding::Xor, bytes: bytes.into() })
}

impl<'a> Series<'a> {
    pub(super) fn chain(&self) -> Chain<'a> {
        Chain { slab: self.sealed, next: self.cold.sealed }
    }

    /// Sealed chunks that are not only remembered.
    pub(super) fn readable(&self) -> impl Iterator<Item = Sealed<'a>> {
        self.chain().filter(|c| c.tag != REMEMBERED)
    }

    /// The chunks of a freeze, by time.
    pub(crate) fn frozen(&self, tag: u32) -> Vec<ChunkData> {
        let mut chunks: Vec<ChunkData> =
            self.chain().filter(|c| c.tag == tag).map(|c| c.data(Bytes::copy_from_slice(c.bytes))).collect();
        chunks.sort_by_key(|c| (c.range.start, c.range.end));
        chunks
    }
}

impl SeriesMut<'_> {
    /// Has the histograms seal some chunks, which get the tag.
    pub(super) fn seal_natives(
        &mut self,
        which: impl FnOnce(&mut Natives, &mut dyn FnMut(ChunkData)),
        tag: u32,
    ) {
        let Some(mut rare) = self.cold.rare.take() else { return };
        let (cold, slab) = (&mut *self.cold, &mut *self.sealed);
        which(&mut rare.natives, &mut |c| push_sealed(cold, slab, c.range, c.encoding, tag, &c.bytes));
        self.cold.rare = Some(rare);
        self.tidy_rare();
    }

    /// Makes chunks of sorted samples, none across a window's edge.
    pub(super) fn seal_out_of_order(&mut self, samples: &[Sample], block_range: i64, tag: u32) {
        for chunk in cut::split(samples, block_range).filter_map(encode) {
            push_sealed(self.cold, self.sealed, chunk.range, chunk.encoding, tag, &chunk.bytes);
        }
    }

    /// Gives chunks another tag; whether there were any.
    pub(super) fn mark(&mut self, tag: u32, which: impl Fn(&Sealed<'_>) -> bool) -> bool {
        let (mut next, mut any) = (self.cold.sealed, false);
        while let Some(chunk) = Sealed::read(self.sealed, next) {
            next = chunk.next;
            if which(&chunk) {
                let name = chunk.name;
                self.sealed.get_mut(name)[TAG_AT..HEADER].copy_from_slice(&tag.to_le_bytes());
                any = true;
            }
        }
        any
    }

    /// Drops all chunks that are not to be kept.
    pub(super) fn retain_sealed(&mut self, keep: impl Fn(&Sealed<'_>) -> bool) {
        let (mut next, mut before) = (self.cold.sealed, NO_CHUNK);
        while let Some(chunk) = Sealed::read(self.sealed, next) {
            next = chunk.next;
            let name = chunk.name;
            if keep(&chunk) {
                before = name;
                continue;
            }
            match before {
                NO_CHUNK => self.cold.sealed = next,
                before => self.sealed.get_mut(before)[..4].copy_from_slice(&next.to_le_bytes()),
            }
            self.sealed.free(name);
        }
    }
}
