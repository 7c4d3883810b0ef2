//! The series of a shard by slot: what an append needs in one cache line each, the rest apart; chunks in slabs.
//!
//! ```text
//! slot ─► Hot, 64 bytes: newest sample, state of the open chunk ──► its last 60 bytes ──► the 60 before ──► ...
//!     └─► Cold, 16 bytes: ──► pairs of its labels (head/postings.rs)
//!                         ──► newest sealed chunk ──► the one before ──► ..., pieces of a slab with a header each
//!                         ──► Rare, boxed: samples that came out of order
//! ```
//! What only some series need has its place in [`Rare`], so that the others do not pay for it; a kind of sample
//! other than floats keeps the state of its own open chunk there, and its sealed chunks in the same chain, told apart
//! by their encoding.
//!
//! # Cost
//! A sample in order reads and writes two cache lines: the hot one, and the last piece of the open chunk. One that is
//! not newer than the newest looks for its time: in the chunks that cover it, decoded, and in the out-of-order buffer.

mod open;
mod read;
mod remove;
mod sealed;
mod splice;
mod take;
#[cfg(test)]
mod tests;

use chunk::xor;
use model::{Sample, Timestamp};
use storage::SeriesHandle;

pub(crate) use self::read::{Copied, Measure};
#[cfg(test)]
pub(crate) use self::sealed::encode;

use self::sealed::NO_CHUNK;
use super::native::Natives;
use super::pages::Pages;
use super::slab::Slab;

/// No sample yet.
pub(crate) const NEVER: Timestamp = i64::MIN;

/// All series of a shard.
#[derive(Default)]
pub(crate) struct Store {
    hot: Pages<Hot>,
    cold: Pages<Cold>,
    free: Vec<u32>,
    open: Slab,
    sealed: Slab,
    /// Pairs of labels, one list per series.
    lists: Slab,
}

/// What an append needs of a series.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Hot {
    /// [`model::Labels::placement_hash`].
    pub hash: u64,
    /// Its number in the log, unique in the shard for the log's life; 0: nobody has the slot.
    pub id: u64,
    /// Newest time ever taken, cut or not; that of the open chunk's last sample, if there is one.
    pub newest: Timestamp,
    appender: xor::Packed,
    /// Index of the tenant in this process.
    pub tenant: u32,
    /// Last piece of the open chunk; worth something only while the appender has samples.
    open: u32,
    /// From the open chunk's first sample to its newest.
    span: u32,
    /// From the newest to the first time that the open chunk must not hold, as far as it is known: 0 after its first
    /// sample.
    left: u32,
    /// Low half of the time of a zero that was made up for a start timestamp and may give way to a sample; 0: none.
    /// Samples of the head are much less than 2^32 ms apart.
    made_up: u32,
    /// Pieces of the open chunk, and bytes in the last one.
    pieces: u8,
    tail: u8,
}

impl Hot {
    /// Whether this is what a handle was given for. Numbers of a shard's series are never given twice, so that four
    /// thousand million of them would have to be made for a slot to be taken for its former self, and then the hash
    /// would still have to be the same.
    #[inline]
    pub(crate) fn is(&self, handle: SeriesHandle, tenant: u32, hash: u64) -> bool {
        self.id as u32 == handle.generation && self.hash == hash && self.tenant == tenant
    }
}

impl Default for Hot {
    fn default() -> Hot {
        Hot {
            hash: 0,
            id: 0,
            newest: NEVER,
            appender: xor::Packed::default(),
            tenant: 0,
            open: 0,
            span: 0,
            left: 0,
            made_up: 0,
            pieces: 0,
            tail: 0,
        }
    }
}

/// What it needs else.
struct Cold {
    /// List of its pairs.
    list: u32,
    /// The chunk that was sealed last.
    sealed: u32,
    rare: Option<Box<Rare>>,
}

impl Default for Cold {
    fn default() -> Cold {
        Cold { list: 0, sealed: NO_CHUNK, rare: None }
    }
}

/// What only some series have.
#[derive(Default)]
struct Rare {
    /// Sorted by time, each time once.
    out_of_order: Vec<Sample>,
    /// Histograms that are in no sealed chunk.
    natives: Natives,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.out_of_order.is_empty() && self.natives.is_empty()
    }
}

/// A series to look at.
#[derive(Clone, Copy)]
pub(crate) struct Series<'a> {
    pub hot: &'a Hot,
    cold: &'a Cold,
    open: &'a Slab,
    sealed: &'a Slab,
}

/// A series to change.
pub(crate) struct SeriesMut<'a> {
    pub hot: &'a mut Hot,
    cold: &'a mut Cold,
    open: &'a mut Slab,
    sealed: &'a mut Slab,
}

impl Store {
    /// Slots ever used.
    pub(crate) fn len(&self) -> usize {
        self.hot.len()
    }

    #[inline]
    pub(crate) fn hot(&self, slot: u32) -> Option<&Hot> {
        self.hot.get(slot).filter(|hot| hot.id != 0)
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<Series<'_>> {
        let Store { open, sealed, .. } = self;
        Some(Series { hot: self.hot(slot)?, cold: self.cold.get(slot)?, open, sealed })
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<SeriesMut<'_>> {
        let Store { open, sealed, .. } = self;
        let hot = self.hot.get_mut(slot).filter(|hot| hot.id != 0)?;
        Some(SeriesMut { hot, cold: self.cold.get_mut(slot)?, open, sealed })
    }

    /// Reads a little of everything that a sample needs, of several series before any of them takes one: so their
    /// cache misses overlap instead of following one another. First all that no other read leads to, then where
    /// those lead.
    #[inline]
    pub(crate) fn touch(&self, slots: impl Iterator<Item = u32> + Clone) {
        let hot = |slot: u32| self.hot.get(slot);
        let sum = slots.clone().filter_map(hot).fold(0, |sum, hot| sum ^ hot.id);
        std::hint::black_box(sum);
        let last = |hot: &Hot| self.open.get(hot.open).first().copied();
        let sum = slots.filter_map(hot).filter_map(last).fold(0, |sum, byte| sum ^ byte);
        std::hint::black_box(sum);
    }

    /// The pairs of a series' labels, as [`super::postings::pairs_of`] reads them.
    #[inline]
    pub(crate) fn list(&self, slot: u32) -> Option<&[u8]> {
        self.hot(slot)?;
        self.cold.get(slot).map(|cold| self.lists.get(cold.list))
    }

    /// Chunks, samples (of chunks: from their heads), time range and bytes of a series' own.
    pub(crate) fn measure(&self, slot: u32) -> Option<Measure> {
        let mut measure = self.get(slot)?.measure();
        measure.bytes += self.list(slot).unwrap_or_default().len();
        Some(measure)
    }

    /// The slot that the next series gets.
    pub(crate) fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.hot.len() as u32)
    }

    /// Puts a series into [`Store::next_slot`]; `list` is a piece of [`Store::lists`].
    pub(crate) fn insert(&mut self, tenant: u32, hash: u64, id: u64, list: u32) {
        let hot = Hot { hash, id, tenant, ..Hot::default() };
        let cold = Cold { list, ..Cold::default() };
        match self.free.pop() {
            Some(slot) => {
                if let (Some(a), Some(b)) = (self.hot.get_mut(slot), self.cold.get_mut(slot)) {
                    (*a, *b) = (hot, cold);
                }
            }
            None => {
                self.hot.push(hot);
                self.cold.push(cold);
            }
        }
    }

    /// Where the pairs of labels lie.
    pub(crate) fn lists(&mut self) -> &mut Slab {
        &mut self.lists
    }

    /// Empties a slot. The caller has taken what the series' list says.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(mut series) = self.get_mut(slot) else { return };
        series.retain_sealed(|_| false);
        series.free_open();
        let list = series.cold.list;
        (*series.hot, *series.cold) = (Hot::default(), Cold::default());
        self.lists.free(list);
        self.free.push(slot);
    }

    /// Bytes of memory by part; of slabs those in use and those taken.
    pub(crate) fn parts(&self) -> [(&'static str, usize); 8] {
        let (open, sealed, lists) = (self.open.bytes(), self.sealed.bytes(), self.lists.bytes());
        [
            ("hot", self.hot.bytes()),
            ("cold", self.cold.bytes() + self.free.capacity() * 4),
            ("open chunks", open.1),
            ("open chunks, idle", open.0 - open.1),
            ("sealed chunks", sealed.1),
            ("sealed chunks, idle", sealed.0 - sealed.1),
            ("label lists", lists.1),
            ("label lists, idle", lists.0 - lists.1),
        ]
    }
}
