//! The receiver's dictionary: what the numbers of one stream mean.
//!
//! A number stands for the hash and the store's handle of a series. The store judges handles itself and takes none
//! for another series; what it does not find counts as unknown here, and the sender sends labels again.
//!
//! # Cost
//! 16 bytes for a name, in pages of 16 KiB that count against the node's budget for all streams.

use runtime::{ByteGate, BytePermit};
use storage::SeriesHandle;

use super::request::Meaning;

const PAGE: usize = 1024;
const NO_HANDLE: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    handle: u64,
}

struct Page {
    slots: Box<[Slot]>,
    _permit: BytePermit,
}

/// The names of a stream.
pub(crate) struct Slots {
    epoch: u32,
    limit: u32,
    budget: ByteGate,
    pages: Vec<Option<Page>>,
}

impl Slots {
    /// At most `limit` names, in memory of `budget`.
    pub(crate) fn new(limit: u32, budget: ByteGate) -> Slots {
        Slots { epoch: 0, limit, budget, pages: Vec::new() }
    }

    /// Notes the epoch of a request; a new one drops all names. True if it did.
    pub(crate) fn turn(&mut self, epoch: u32) -> bool {
        let is_new = epoch > self.epoch;
        if is_new {
            self.epoch = epoch;
            self.pages.clear();
        }
        is_new
    }

    /// What a number of an epoch means.
    #[inline]
    pub(crate) fn get(&self, epoch: u32, slot: u32) -> Option<Meaning> {
        let page = self.pages.get(slot as usize / PAGE)?.as_ref().filter(|_| epoch == self.epoch)?;
        let Slot { hash, handle } = page.slots[slot as usize % PAGE];
        (handle != NO_HANDLE).then(|| (hash, SeriesHandle::from_bits(handle)))
    }

    /// Keeps a name; false if it is not kept.
    pub(crate) fn set(&mut self, epoch: u32, slot: u32, (hash, handle): Meaning) -> bool {
        if epoch != self.epoch || slot >= self.limit {
            return false;
        }
        let at = slot as usize / PAGE;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        if self.pages[at].is_none() {
            let bytes = PAGE * size_of::<Slot>();
            let Ok(permit) = self.budget.try_acquire(bytes as u64) else { return false };
            let slots = vec![Slot { hash: 0, handle: NO_HANDLE }; PAGE].into_boxed_slice();
            self.pages[at] = Some(Page { slots, _permit: permit });
        }
        if let Some(page) = &mut self.pages[at] {
            page.slots[slot as usize % PAGE] = Slot { hash, handle: handle.to_bits() };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(index: u32) -> SeriesHandle {
        SeriesHandle { index, generation: 9 }
    }

    #[test]
    fn names_live_within_their_epoch_limit_and_budget() {
        let budget = ByteGate::new(40_000);
        let mut slots = Slots::new(3000, budget.clone());
        assert!(slots.turn(1) && !slots.turn(1));
        assert!(slots.set(1, 5, (7, handle(1))));
        assert_eq!(
            (slots.get(1, 5), slots.get(1, 6), slots.get(1, 2000)),
            (Some((7, handle(1))), None, None)
        );
        assert!(slots.set(1, 2999, (8, handle(2))) && !slots.set(1, 3000, (8, handle(2))));
        // The third page is beyond the budget.
        assert!(!slots.set(1, 1500, (8, handle(2))));
        assert_eq!(budget.held(), 32_768);
        assert!(slots.turn(4) && !slots.turn(3));
        assert_eq!((slots.get(1, 5), slots.get(4, 5), budget.held()), (None, None, 0));
        assert!(!slots.set(1, 5, (7, handle(1))));
        assert!(slots.set(4, 1500, (8, handle(2))));
        drop(slots);
        assert_eq!(budget.held(), 0);
    }
}
