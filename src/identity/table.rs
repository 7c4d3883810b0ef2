//! The table under the lock: pages, the index into them, and tenants.

use hashbrown::HashMap;

use crate::index::Index;
use crate::key::Secret;
use crate::pages::{Entry, Pages};
use crate::{Id, Key, Met, NO_ID, Stats};

/// A tenant of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant {
    /// [`NO_ID`] for one of whom nothing is remembered.
    pub index: u32,
    pub mix: Key,
}

#[derive(Default)]
pub(crate) struct Table {
    pages: Pages,
    index: Index,
    tenants: HashMap<Box<str>, u32>,
    /// Series remembered per tenant, by index.
    series: Vec<usize>,
    /// Indices that no tenant has.
    free: Vec<u32>,
}

impl Table {
    pub(crate) fn tenant(&self, name: &str, secret: &Secret) -> Tenant {
        let index = self.tenants.get(name).copied().unwrap_or(NO_ID);
        Tenant { index, mix: secret.key(name.as_bytes()) }
    }

    pub(crate) fn tenant_or_add(&mut self, name: &str, secret: &Secret) -> Tenant {
        let tenant = self.tenant(name, secret);
        if tenant.index != NO_ID {
            return tenant;
        }
        let index = self.free.pop().unwrap_or(self.series.len() as u32);
        match self.series.get_mut(index as usize) {
            Some(count) => *count = 0,
            None => self.series.push(0),
        }
        self.tenants.insert(name.into(), index);
        Tenant { index, ..tenant }
    }

    #[inline]
    pub(crate) fn get(&self, id: Id) -> Option<&Entry> {
        self.pages.get(id)
    }

    #[inline]
    pub(crate) fn find(&self, tenant: Tenant, key: Key) -> Option<Id> {
        self.index.find(key.tag(), |id| self.get(id).is_some_and(|entry| entry.is(tenant.index, key)))
    }

    /// Remembers a series; none where there is no room.
    pub(crate) fn insert(
        &mut self,
        tenant: Tenant,
        met: &Met,
        handle: Option<u64>,
        minute: u32,
        most: usize,
    ) -> Option<Id> {
        let id = match self.find(tenant, met.key) {
            // Another request was first.
            Some(id) => id,
            None if self.index.len() >= most => return None,
            None => {
                let id = self.pages.put(Entry::new(met.key, tenant.index, met.hash, met.len, minute))?;
                self.index.insert(met.key.tag(), id);
                self.series[tenant.index as usize] += 1;
                id
            }
        };
        if let Some(handle) = handle {
            self.renew(id, tenant, met.key, handle);
        }
        Some(id)
    }

    /// Sets a handle, if `id` is still the series that it was.
    pub(crate) fn renew(&self, id: Id, tenant: Tenant, key: Key, handle: u64) {
        if let Some(entry) = self.get(id).filter(|entry| entry.is(tenant.index, key)) {
            entry.set_handle(handle);
        }
    }

    #[inline]
    pub(crate) fn link(&self, before: Id, next: Id) {
        if let Some(entry) = self.get(before)
            && !entry.is_free()
            && entry.next() != next
        {
            entry.set_next(next);
        }
    }

    /// Forgets what is idle of a page; none beyond the last page.
    pub(crate) fn sweep_page(&mut self, page: usize, minute: u32, most_idle: u32) -> Option<usize> {
        let idle = self.pages.page(page)?.filter(|(_, entry)| entry.idle(minute) > most_idle);
        let idle: Vec<(Id, Key, u32)> = idle.map(|(id, e)| (id, e.key(), e.tenant())).collect();
        for &(id, key, tenant) in &idle {
            self.index.remove(key.tag(), id);
            self.pages.remove(id);
            if let Some(count) = self.series.get_mut(tenant as usize) {
                *count = count.saturating_sub(1);
            }
        }
        Some(idle.len())
    }

    /// Gives back the indices of tenants of whom nothing is remembered.
    pub(crate) fn forget_tenants(&mut self) {
        let (series, free) = (&self.series, &mut self.free);
        self.tenants.retain(|_, index| {
            let keep = series.get(*index as usize).is_some_and(|count| *count > 0);
            if !keep {
                free.push(*index);
            }
            keep
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn stats(&self) -> Stats {
        // A name, its place in the table and the count.
        let of_tenants = self.tenants.keys().map(|name| name.len() + 32).sum::<usize>();
        let bytes = self.pages.bytes() + self.index.bytes() + of_tenants + self.series.capacity() * 8;
        Stats { series: self.index.len(), tenants: self.tenants.len(), bytes }
    }
}
