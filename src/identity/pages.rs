//! Where remembered series lie: pages of fixed size, so that growing moves nothing and reserves little.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::{Id, Key};

pub(crate) const PAGE: usize = 1024;
/// No series.
pub(crate) const NO_ID: u32 = u32::MAX;
/// Not [`NO_ID`], which stands for tenants of whom nothing is remembered.
const NO_TENANT: u32 = u32::MAX - 1;
const NO_HANDLE: u64 = u64::MAX;

/// One remembered series. What changes while requests are resolved is atomic: a value that is lost in a race is
/// a hint or a date, and a handle is judged by the store that gave it.
pub(crate) struct Entry {
    key: Key,
    pub hash: u64,
    handle: AtomicU64,
    pub len: u32,
    tenant: u32,
    /// The series that came after it the last time; of a free entry, the next free one.
    next: AtomicU32,
    /// Minute of its last use.
    used: AtomicU32,
}

impl Entry {
    fn free(next: u32) -> Entry {
        Entry {
            key: Key(0, 0),
            hash: 0,
            handle: AtomicU64::new(NO_HANDLE),
            len: 0,
            tenant: NO_TENANT,
            next: AtomicU32::new(next),
            used: AtomicU32::new(0),
        }
    }

    pub(crate) fn new(key: Key, tenant: u32, hash: u64, len: u32, minute: u32) -> Entry {
        Entry { key, hash, len, tenant, used: AtomicU32::new(minute), ..Entry::free(NO_ID) }
    }

    #[inline]
    pub(crate) fn is(&self, tenant: u32, key: Key) -> bool {
        self.key == key && self.tenant == tenant
    }

    pub(crate) fn is_free(&self) -> bool {
        self.tenant == NO_TENANT
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn tenant(&self) -> u32 {
        self.tenant
    }

    #[inline]
    pub(crate) fn next(&self) -> Id {
        Id(self.next.load(Relaxed))
    }

    #[inline]
    pub(crate) fn set_next(&self, next: Id) {
        self.next.store(next.0, Relaxed);
    }

    #[inline]
    pub(crate) fn handle(&self) -> Option<u64> {
        Some(self.handle.load(Relaxed)).filter(|handle| *handle != NO_HANDLE)
    }

    pub(crate) fn set_handle(&self, handle: u64) {
        self.handle.store(handle, Relaxed);
    }

    /// Notes a use; a line that already says so is not written to.
    #[inline]
    pub(crate) fn touch(&self, minute: u32) {
        if self.used.load(Relaxed) != minute {
            self.used.store(minute, Relaxed);
        }
    }

    pub(crate) fn idle(&self, minute: u32) -> u32 {
        // A use may be noted by somebody whose clock is a little ahead.
        (minute.wrapping_sub(self.used.load(Relaxed)) as i32).max(0) as u32
    }
}

#[derive(Default)]
pub(crate) struct Pages {
    pages: Vec<Box<[Entry]>>,
    /// Head of the list of free entries.
    free: Option<u32>,
}

impl Pages {
    #[inline]
    pub(crate) fn get(&self, id: Id) -> Option<&Entry> {
        self.pages.get(id.0 as usize / PAGE)?.get(id.0 as usize % PAGE)
    }

    /// Places an entry; none if there are no numbers left.
    pub(crate) fn put(&mut self, entry: Entry) -> Option<Id> {
        let id = match self.free {
            Some(id) => id,
            None => {
                let first =
                    u32::try_from(self.pages.len() * PAGE).ok().filter(|n| *n < NO_ID - PAGE as u32)?;
                let list = (first + 1..=first + PAGE as u32)
                    .map(|next| Entry::free(if next < first + PAGE as u32 { next } else { NO_ID }));
                self.pages.push(list.collect());
                first
            }
        };
        let place = self.pages.get_mut(id as usize / PAGE)?.get_mut(id as usize % PAGE)?;
        self.free = Some(place.next().0).filter(|next| *next != NO_ID);
        *place = entry;
        Some(Id(id))
    }

    pub(crate) fn remove(&mut self, id: Id) {
        let next = self.free.unwrap_or(NO_ID);
        let place = self.pages.get_mut(id.0 as usize / PAGE).and_then(|p| p.get_mut(id.0 as usize % PAGE));
        if let Some(place) = place {
            *place = Entry::free(next);
            self.free = Some(id.0);
        }
    }

    /// Entries of one page that are in use, with their numbers; none beyond the last page.
    pub(crate) fn page(&self, page: usize) -> Option<impl Iterator<Item = (Id, &Entry)>> {
        let entries = self.pages.get(page)?.iter().enumerate();
        let in_use = entries.filter(|(_, entry)| !entry.is_free());
        Some(in_use.map(move |(at, entry)| (Id((page * PAGE + at) as u32), entry)))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Entry>() + self.pages.capacity() * size_of::<Box<[Entry]>>()
    }
}
