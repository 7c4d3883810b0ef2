//! Deleting from the head: samples are taken out under the shard's lock, and the log says so in the same order.
//!
//! Nothing is hidden by a list of deletions: what is deleted is gone, so reads and cuts know nothing of it, and a
//! replay takes it out again where the log says. The caller holds off cuts.

use std::sync::atomic::Ordering::Relaxed;

use model::{Matcher, TimeRange};
use wal::Log;

use super::shard::{BITE, Head};
use crate::Error;
use crate::payload::{self, FIXED_BYTES};
use crate::tenants::Tenant;

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Series that had samples in the range.
    pub series: u64,
    /// The deletion is durable once the log is, up to here.
    pub position: u64,
}

impl Head {
    /// Deletes a tenant's samples in `range` of the series that pass all matchers. On an error a part of them may
    /// be deleted; doing it again does the rest.
    pub(crate) fn delete(
        &self,
        log: &Log,
        tenant: &Tenant,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Done, Error> {
        let mut done = Done::default();
        let bite = BITE.min(self.settings.group_bytes / 16).max(1);
        for shard in &self.shards {
            let matching: Vec<(u32, u64)> = {
                let state = shard.state.lock();
                let Some(known) = state.tenant(tenant.index) else { continue };
                let slots = known.postings.resolve(matchers, &state.texts, |slot| state.series.list(slot));
                slots.into_iter().filter_map(|slot| state.series.hot(slot).map(|s| (slot, s.id))).collect()
            };
            for some in matching.chunks(bite) {
                let mut permit = log.reserve((FIXED_BYTES + some.len() * 10) as u64, 1)?;
                let mut ids = Vec::new();
                let mut state = shard.state.lock();
                for &(slot, id) in some {
                    let Some(mut series) = state.get_mut(slot).filter(|s| s.hot.id == id) else { continue };
                    if series.delete(range)? {
                        ids.push(id);
                        tenant.exemplars.lock().delete((shard.index, id), range);
                    }
                }
                if !ids.is_empty() {
                    let record = payload::delete(shard.index, range, &ids);
                    state.last_position = permit.enqueue(payload::DELETE, &[&record])?;
                    done.position = done.position.max(state.last_position);
                    done.series += ids.len() as u64;
                }
            }
        }
        Ok(done)
    }

    /// Removes all series of a tenant, of which nothing is to be kept.
    pub(crate) fn remove_tenant(&self, tenant: &Tenant) -> u64 {
        let mut removed = 0;
        for shard in &self.shards {
            let slots = shard.state.lock().tenant(tenant.index).map(|known| known.postings.all.to_vec());
            for some in slots.unwrap_or_default().chunks(BITE) {
                let mut state = shard.state.lock();
                let ours = |slot: &u32| {
                    state.get(*slot).is_some_and(|s| s.hot.tenant == tenant.index && s.is_empty())
                };
                let ours: Vec<u32> = some.iter().copied().filter(ours).collect();
                removed += state.remove(&ours).iter().map(|(_, n)| *n as u64).sum::<u64>();
            }
            let mut state = shard.state.lock();
            state.drop_empty_tenant(tenant.index);
        }
        tenant.series.fetch_sub(removed.min(tenant.series.load(Relaxed)), Relaxed);
        removed
    }
}
