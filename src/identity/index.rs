//! From a key to a number: an open table of 8 bytes a place.
//!
//! A place holds 32 bits of the key and the number. Home places are ordered as the keys' bits are, so that growing
//! is one pass from front to back, without a look at the entries.

use crate::Id;

const EMPTY: u64 = u64::MAX;
const LEAST: usize = 64;

#[derive(Default)]
pub(crate) struct Index {
    /// A power of two of places; `tag << 32 | number`.
    places: Vec<u64>,
    used: usize,
}

impl Index {
    fn home(&self, tag: u32) -> usize {
        // The highest bits of the tag, as many as there are places.
        ((u64::from(tag) * self.places.len() as u64) >> 32) as usize
    }

    /// The first number under `tag` for which `is` answers true.
    #[inline]
    pub(crate) fn find(&self, tag: u32, is: impl Fn(Id) -> bool) -> Option<Id> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = self.home(tag);
        loop {
            let place = self.places[at];
            if place == EMPTY {
                return None;
            }
            if (place >> 32) as u32 == tag && is(Id(place as u32)) {
                return Some(Id(place as u32));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a number that is not there.
    pub(crate) fn insert(&mut self, tag: u32, id: Id) {
        if (self.used + 1) * 10 > self.places.len() * 7 {
            self.grow();
        }
        self.place(u64::from(tag) << 32 | u64::from(id.0));
        self.used += 1;
    }

    fn place(&mut self, place: u64) {
        let mask = self.places.len() - 1;
        let mut at = self.home((place >> 32) as u32);
        while self.places[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }

    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(LEAST);
        let old = std::mem::replace(&mut self.places, vec![EMPTY; size]);
        for place in old.into_iter().filter(|place| *place != EMPTY) {
            self.place(place);
        }
    }

    /// Removes a number, and moves those behind it up where they may be.
    pub(crate) fn remove(&mut self, tag: u32, id: Id) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let wanted = u64::from(tag) << 32 | u64::from(id.0);
        let mut hole = self.home(tag);
        while self.places[hole] != wanted {
            if self.places[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place == EMPTY {
                break;
            }
            let home = self.home((place >> 32) as u32);
            // It may fill the hole if that lies on its way from home.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = EMPTY;
        self.used -= 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few tags, so that runs are long, meet and wrap around the end.
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..12, 0u32..40), 0..400)) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (add, tag, id) in steps {
                let tag = [0, 1, 2, u32::MAX, u32::MAX - 1, 1 << 31][tag as usize % 6];
                if add && !model.contains_key(&id) {
                    index.insert(tag, Id(id));
                    model.insert(id, tag);
                } else if let Some(tag) = model.remove(&id) {
                    index.remove(tag, Id(id));
                }
                prop_assert_eq!(index.len(), model.len());
                for (id, tag) in &model {
                    prop_assert_eq!(index.find(*tag, |found| found == Id(*id)), Some(Id(*id)));
                }
            }
            prop_assert_eq!(index.find(77, |_| true), None);
        }
    }
}
