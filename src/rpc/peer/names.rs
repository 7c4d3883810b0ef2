//! The sender's dictionary: which number a series has on a stream.
//!
//! A number is used once the receiver has confirmed it, so that requests may overtake one another. It is not given to
//! another series before the dictionary is begun anew, or the receiver said that it does not keep it.
//!
//! # Cost
//! 12 bytes for each series that this process knows, in pages of 12 KiB that are made when one of their series is
//! sent; one look at one of them for each row.

use std::time::{Duration, Instant};

use storage::RowName;

use super::request::RowRef;

const PAGE: usize = 1024;
const NO_SLOT: u32 = u32::MAX;

/// A dictionary that is full is not begun anew more often than this: with more series than names the others
/// go by their labels in between.
const LEAST_AGE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
struct Name {
    slot: u32,
    /// Of the series, in two halves that need no padding.
    check: [u32; 2],
}

const NOBODY: Name = Name { slot: NO_SLOT, check: [0; 2] };

fn halves(check: u64) -> [u32; 2] {
    [check as u32, (check >> 32) as u32]
}

/// Names given in a request, to be confirmed by its reply.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub epoch: u32,
    /// In the order of the request's definitions.
    pub names: Vec<(RowName, u32)>,
}

/// The names of a stream.
pub(crate) struct Names {
    epoch: u32,
    /// Every number below was given to somebody.
    next: u32,
    limit: u32,
    /// Numbers that the receiver did not keep.
    free: Vec<u32>,
    /// By the series' own number in this process.
    pages: Vec<Option<Box<[Name]>>>,
    confirmed: usize,
    born: Instant,
    full: bool,
}

impl Names {
    /// At most `limit` numbers.
    pub(crate) fn new(limit: u32, now: Instant) -> Names {
        Names {
            epoch: 1,
            next: 0,
            limit,
            free: Vec::new(),
            pages: Vec::new(),
            confirmed: 0,
            born: now,
            full: false,
        }
    }

    /// Begins a request: the dictionary is begun anew if it has been full for long. True if it was.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        if !self.full || now.saturating_duration_since(self.born) < LEAST_AGE || self.epoch == u32::MAX {
            return false;
        }
        *self = Names { epoch: self.epoch + 1, ..Names::new(self.limit, now) };
        true
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How a row says who it is. A definition is noted in `given`.
    #[inline]
    pub(crate) fn refer(&mut self, name: Option<RowName>, given: &mut Given) -> RowRef {
        let Some(name) = name else { return RowRef::Bare };
        if let Some(known) = self.get(name) {
            return RowRef::Known(known);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.next < self.limit => {
                self.next += 1;
                self.next - 1
            }
            None => {
                self.full = true;
                return RowRef::Bare;
            }
        };
        given.names.push((name, slot));
        RowRef::Define(slot)
    }

    #[inline]
    fn get(&self, name: RowName) -> Option<u32> {
        let page = self.pages.get(name.id as usize / PAGE)?.as_ref()?;
        let entry = page[name.id as usize % PAGE];
        (entry.slot != NO_SLOT && entry.check == halves(name.check)).then_some(entry.slot)
    }

    fn place(&mut self, id: u32) -> &mut Name {
        let page = id as usize / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| vec![NOBODY; PAGE].into_boxed_slice());
        &mut page[id as usize % PAGE]
    }

    /// The receiver keeps what was given, but for the definitions at `forgotten`.
    pub(crate) fn confirm(&mut self, given: &Given, forgotten: &[u32]) {
        if given.epoch != self.epoch {
            return;
        }
        let mut forgotten = forgotten.iter().copied().peekable();
        for (at, (name, slot)) in given.names.iter().enumerate() {
            if forgotten.next_if_eq(&(at as u32)).is_some() {
                self.free.push(*slot);
                continue;
            }
            let place = self.place(name.id);
            let was_empty = place.slot == NO_SLOT;
            *place = Name { slot: *slot, check: halves(name.check) };
            self.confirmed += usize::from(was_empty);
        }
    }

    /// Nothing of a request was judged, so that nothing of what it gave is kept.
    pub(crate) fn withdraw(&mut self, given: &Given) {
        if given.epoch == self.epoch {
            self.free.extend(given.names.iter().map(|(_, slot)| *slot));
        }
    }

    /// The receiver does not know a reference of this epoch any more.
    pub(crate) fn forget(&mut self, epoch: u32, name: RowName) {
        if epoch == self.epoch && self.get(name).is_some() {
            *self.place(name.id) = NOBODY;
            self.confirmed -= 1;
        }
    }

    /// Names in use.
    pub(crate) fn len(&self) -> usize {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        runtime::World::real().clock.monotonic()
    }

    fn name(id: u32) -> RowName {
        RowName { id, check: u64::from(id) << 40 | 7 }
    }

    fn given(names: &Names) -> Given {
        Given { epoch: names.epoch(), ..Given::default() }
    }

    #[test]
    fn a_name_is_used_once_it_is_confirmed() {
        let mut names = Names::new(10, now());
        let mut first = given(&names);
        assert_eq!(names.refer(Some(name(5000)), &mut first), RowRef::Define(0));
        assert_eq!(names.refer(Some(name(1)), &mut first), RowRef::Define(1));
        let mut second = given(&names);
        assert_eq!(names.refer(Some(name(1)), &mut second), RowRef::Define(2));
        names.confirm(&first, &[]);
        assert_eq!(names.refer(Some(name(5000)), &mut given(&names)), RowRef::Known(0));
        // What was not kept is given again, but only that.
        names.confirm(&second, &[0]);
        assert_eq!(names.refer(Some(name(1)), &mut given(&names)), RowRef::Known(1));
        assert_eq!(names.refer(Some(name(2)), &mut given(&names)), RowRef::Define(2));
        assert_eq!((names.refer(None, &mut given(&names)), names.len()), (RowRef::Bare, 2));
    }

    #[test]
    fn another_series_under_the_same_number_is_not_taken_for_it() {
        let mut names = Names::new(10, now());
        let mut first = given(&names);
        names.refer(Some(name(1)), &mut first);
        names.confirm(&first, &[]);
        let other = RowName { id: 1, check: 99 };
        assert_eq!(names.refer(Some(other), &mut given(&names)), RowRef::Define(1));
        names.forget(1, other);
        assert_eq!(names.refer(Some(name(1)), &mut given(&names)), RowRef::Known(0));
        names.forget(1, name(1));
        assert_eq!((names.refer(Some(name(1)), &mut given(&names)), names.len()), (RowRef::Define(2), 0));
    }

    #[test]
    fn a_full_dictionary_is_begun_anew_but_not_often() {
        let born = now();
        let mut names = Names::new(1, born);
        let mut first = given(&names);
        names.refer(Some(name(1)), &mut first);
        names.confirm(&first, &[]);
        assert!(!names.turn(born + LEAST_AGE));
        assert_eq!(names.refer(Some(name(2)), &mut given(&names)), RowRef::Bare);
        assert!(!names.turn(born + LEAST_AGE / 2));
        assert!(names.turn(born + LEAST_AGE));
        // What was under way is of no use any more.
        names.confirm(&first, &[]);
        names.withdraw(&first);
        names.forget(1, name(1));
        let mut second = given(&names);
        assert_eq!(names.refer(Some(name(2)), &mut second), RowRef::Define(0));
        names.withdraw(&second);
        assert_eq!(names.refer(Some(name(1)), &mut given(&names)), RowRef::Define(0));
        assert_eq!(names.epoch(), 2);
    }
}
