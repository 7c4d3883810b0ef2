//! The float chunk of a series that still grows, in pieces of a slab.

use chunk::{Encoding, cut, xor};
use model::{TimeRange, Timestamp};

use super::sealed::push_sealed;
use super::{Hot, Series, SeriesMut};

/// An open chunk lies in pieces of one cache line each: the name of the piece before, and bytes. A chunk that grew as
/// one piece would go through many sizes, and leave behind pages half full of what grows more slowly.
pub(super) const PIECE: usize = 64;
pub(super) const LINK: usize = 4;
pub(super) const PIECE_BYTES: usize = PIECE - LINK;
/// Most bytes of an open chunk.
pub(super) const OPEN_MOST: usize = cut::MOST as usize * xor::MOST_BYTES;

pub(super) fn open_range(hot: &Hot) -> Option<TimeRange> {
    (hot.appender.count() > 0).then(|| TimeRange::new(hot.newest - i64::from(hot.span), hot.newest))
}

/// Gives the open chunk the end that it has once a sample at `t` comes, if it goes on until then.
#[cold]
pub(super) fn lengthen(hot: &mut Hot, t: Timestamp, block_range: i64) {
    let Some(open) = open_range(hot) else { return };
    if let Some(end) = cut::end(open.start, hot.appender.count().into(), t, block_range) {
        hot.left = u32::try_from(end.saturating_sub(open.end)).unwrap_or(u32::MAX);
    }
}

impl Series<'_> {
    pub(super) fn open_range(&self) -> Option<TimeRange> {
        open_range(self.hot)
    }

    /// The open chunk, put together in `room`.
    pub(super) fn open_bytes<'b>(&self, room: &'b mut [u8; OPEN_MOST]) -> &'b [u8] {
        let chunk = room.get_mut(..self.open_len()).unwrap_or_default();
        self.copy_open(chunk);
        chunk
    }

    pub(super) fn open_len(&self) -> usize {
        usize::from(self.hot.pieces).saturating_sub(1) * PIECE_BYTES + usize::from(self.hot.tail)
    }

    /// Puts the open chunk together in `chunk`, which has its length.
    pub(super) fn copy_open(&self, chunk: &mut [u8]) {
        let (pieces, mut end) = (usize::from(self.hot.pieces), self.open_len());
        let mut name = self.hot.open;
        for at in (0..pieces).rev() {
            let (link, bytes) = self.open.get(name).split_first_chunk::<LINK>().unwrap_or((&[0; 4], &[]));
            let start = at * PIECE_BYTES;
            if let (Some(to), Some(from)) = (chunk.get_mut(start..end), bytes.get(..end - start)) {
                to.copy_from_slice(from);
            }
            (end, name) = (start, u32::from_le_bytes(*link));
        }
        if let Some(count) = chunk.first_chunk_mut::<2>() {
            *count = u16::from(self.hot.appender.count()).to_be_bytes();
        }
    }
}

impl SeriesMut<'_> {
    /// Seals the open chunk, if it holds anything.
    pub(super) fn seal(&mut self, tag: u32) {
        let Some(range) = open_range(self.hot) else { return };
        let mut room = [0; OPEN_MOST];
        let chunk = self.view().open_bytes(&mut room);
        push_sealed(self.cold, self.sealed, range, Encoding::Xor, tag, chunk);
        self.free_open();
    }

    pub(super) fn free_open(&mut self) {
        if self.hot.appender.count() > 0 {
            for _ in 0..self.hot.pieces {
                let link = self.open.get(self.hot.open).first_chunk::<LINK>().copied().unwrap_or_default();
                self.open.free(self.hot.open);
                self.hot.open = u32::from_le_bytes(link);
            }
        }
        self.hot.appender = xor::Packed::default();
    }
}
