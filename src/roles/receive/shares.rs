//! How much of the node's bytes in flight each tenant holds: when they run short, whoever holds more than an equal part
//! is asked to come again, so that the others find room.
//!
//! A tenant alone may hold everything. Nothing is set aside for those who do not write.

use std::collections::HashMap;
use std::sync::Arc;

use model::TenantId;
use parking_lot::Mutex;

/// Bytes held, by tenant; those who hold none are not in it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shares(Arc<Mutex<HashMap<TenantId, u64>>>);

/// What one request holds for its tenant; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    all: Shares,
    tenant: TenantId,
    bytes: u64,
}

impl Shares {
    /// Lets a request of a tenant in, or not: `held` of the `limit` are taken already.
    pub fn enter(&self, tenant: &TenantId, bytes: u64, held: u64, limit: u64) -> Option<Share> {
        let mut all = self.0.lock();
        let own = all.get(tenant).copied().unwrap_or(0);
        let others = all.len() - usize::from(all.contains_key(tenant));
        if !fits(own, others, held, limit) {
            return None;
        }
        *all.entry(tenant.clone()).or_default() += bytes;
        Some(Share { all: self.clone(), tenant: tenant.clone(), bytes })
    }
}

impl Share {
    /// The request turned out to need more.
    pub fn grow(&mut self, bytes: u64) {
        *self.all.0.lock().entry(self.tenant.clone()).or_default() += bytes;
        self.bytes += bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(held) = all.get_mut(&self.tenant) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                all.remove(&self.tenant);
            }
        }
    }
}

/// Whether somebody who holds `own` bytes, beside `others` who hold some, may have more: always while a quarter of the
/// limit is free.
fn fits(own: u64, others: usize, held: u64, limit: u64) -> bool {
    held < limit / 4 * 3 || others == 0 || own < limit / (others as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_is_turned_away_first() {
        let (shares, a, b) = (Shares::default(), TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let alone = shares.enter(&a, 90, 0, 100).unwrap();
        let more = shares.enter(&a, 5, 90, 100).unwrap();
        // The other one comes in however full it is, and from then on there are two.
        let mut other = shares.enter(&b, 1, 95, 100).unwrap();
        assert!(shares.enter(&a, 1, 96, 100).is_none());
        assert!(shares.enter(&a, 1, 60, 100).is_some(), "there is room");
        other.grow(50);
        assert!(shares.enter(&b, 1, 96, 100).is_none());
        drop((alone, more));
        assert!(shares.enter(&a, 1, 96, 100).is_some());
        drop(other);
        assert!(shares.0.lock().is_empty());
    }
}
