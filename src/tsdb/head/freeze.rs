//! Setting a window's samples aside for a block: freeze, then drop once the block is durable, or thaw.
//!
//! Freezing seals what a tenant has in a window and marks it; what comes later goes into new chunks and is not
//! part of it. Frozen samples stay readable. The shards' locks are held for a hundred series at a time, and handed to who
//! waits for them in between.

use chunk::cut::window_start;
use model::{Labels, TimeRange, Timestamp};
use parking_lot::MutexGuard;
use storage::ChunkData;
use wal::Log;

use super::of_tenant::{Window, merge_window};
use super::order::sort_by_labels;
use super::shard::{BITE, FrozenWindow, Head, HeadSettings, Shard, ShardState};
use crate::Error;
use crate::payload::{self, FIXED_BYTES};
use crate::tenants::Tenant;

/// Samples that are set aside.
pub(crate) struct Frozen {
    tenant: u32,
    window: TimeRange,
    parts: Vec<Part>,
    /// The log says what is frozen for which block once it is durable up to here. Only then may the block get its
    /// name: a crash must find the one with the other.
    pub position: u64,
}

struct Part {
    shard: usize,
    tag: u32,
    /// Series that have frozen chunks; they keep their slots as long as they have them.
    slots: Vec<u32>,
}

impl Head {
    /// Sets aside all samples of a tenant in `window`. On an error everything is as before.
    pub(crate) fn freeze(
        &self,
        log: &Log,
        tenant: &Tenant,
        window: TimeRange,
        block: &str,
    ) -> Result<Frozen, Error> {
        let mut frozen = Frozen { tenant: tenant.index, window, parts: Vec::new(), position: 0 };
        for at in 0..self.shards.len() {
            if let Err(error) = self.freeze_shard(at, log, tenant, window, block, &mut frozen) {
                self.thaw(&frozen);
                return Err(error);
            }
        }
        Ok(frozen)
    }

    fn freeze_shard(
        &self,
        at: usize,
        log: &Log,
        tenant: &Tenant,
        window: TimeRange,
        block: &str,
        frozen: &mut Frozen,
    ) -> Result<(), Error> {
        let shard: &Shard = &self.shards[at];
        let (tag, all) = {
            let mut state = shard.state.lock();
            let Some(tag) = state.begin_freeze(tenant.index, window, block, None) else { return Ok(()) };
            (tag, state.tenant(tenant.index).map(|t| t.postings.all.to_vec()).unwrap_or_default())
        };
        frozen.parts.push(Part { shard: at, tag, slots: Vec::new() });
        let bite = BITE.min(self.settings.group_bytes / 16).max(1);
        let (mut ids, mut slots_of) = (Vec::new(), Vec::new());
        for slots in all.chunks(bite) {
            // All of them at once: who freezes waits for the last one.
            let mut permit = log.reserve((FIXED_BYTES + slots.len() * 10) as u64, 1)?.quietly();
            ids.clear();
            let mut state = shard.state.lock();
            for &slot in slots {
                let Some(mut series) = state.get_mut(slot).filter(|s| s.hot.tenant == tenant.index) else {
                    continue;
                };
                if series.freeze(window, self.settings.block_range, tag) {
                    ids.push(series.hot.id);
                    slots_of.push(slot);
                }
            }
            if let Some(part) = frozen.parts.last_mut() {
                part.slots.append(&mut slots_of);
            }
            if !ids.is_empty() {
                let record = payload::freeze(shard.index, &tenant.id, block, window, &ids);
                state.last_position = permit.enqueue(payload::FREEZE, &[&record])?;
                frozen.position = state.last_position;
            }
            MutexGuard::unlock_fair(state);
        }
        Ok(())
    }

    /// The frozen series by labels, each with its chunks by time, possibly overlapping. Labels and chunks are
    /// looked up one series at a time, so that a cut takes little memory.
    pub(crate) fn frozen_series<'a>(
        &'a self,
        frozen: &'a mut Frozen,
    ) -> impl Iterator<Item = (Labels, Vec<ChunkData>)> + 'a {
        for part in &mut frozen.parts {
            sort_by_labels(&self.shards[part.shard], frozen.tenant, &mut part.slots);
        }
        let parts = &frozen.parts;
        let lists = parts.iter().map(|part| (part.shard, part.slots.as_slice())).collect();
        self.merge_by_labels(lists).map(move |(labels, at, slot)| {
            let state = self.shards[parts[at].shard].state.lock();
            let chunks = state.get(slot).map(|series| series.frozen(parts[at].tag)).unwrap_or_default();
            (labels, chunks)
        })
    }

    /// Makes frozen samples ordinary ones again.
    pub(crate) fn thaw(&self, frozen: &Frozen) {
        for part in &frozen.parts {
            let shard = &self.shards[part.shard];
            for slots in part.slots.chunks(BITE) {
                let mut state = shard.state.lock();
                for &slot in slots {
                    if let Some(mut series) = state.get_mut(slot) {
                        series.thaw(part.tag);
                    }
                }
                MutexGuard::unlock_fair(state);
            }
            shard.state.lock().end_freeze(part.tag, Outcome::Thawed);
        }
    }

    /// Drops frozen samples, whose block is durable and open for reading by now. Those whose times may still be
    /// written are remembered: the same again is a duplicate, and another value a conflict, as before the cut.
    pub(crate) fn drop_frozen(&self, frozen: &Frozen, now: Timestamp) {
        let remember = self.settings.is_open(frozen.window.start, now);
        for part in &frozen.parts {
            let shard = &self.shards[part.shard];
            for slots in part.slots.chunks(BITE) {
                let mut state = shard.state.lock();
                for &slot in slots {
                    if let Some(mut series) = state.get_mut(slot).filter(|s| s.hot.tenant == frozen.tenant) {
                        series.drop_frozen(part.tag, remember);
                    }
                }
                MutexGuard::unlock_fair(state);
            }
            shard.state.lock().end_freeze(part.tag, Outcome::dropped(remember));
        }
    }

    /// Forgets what was cut of windows whose times are all too old by now to be written.
    pub(crate) fn forget_cut(&self, now: Timestamp) {
        for shard in &self.shards {
            let mut state = shard.state.lock();
            if state.cut.iter().all(|w| self.settings.is_open(w.start, now)) {
                continue;
            }
            state.cut.retain(|w| self.settings.is_open(w.start, now));
            drop(state);
            let mut from = 0;
            while shard.state.lock().forget_cut(from, self.settings.open_from(now)) {
                from += BITE;
            }
        }
    }
}

impl HeadSettings {
    /// Start of the oldest window of which some times may still be written in any order.
    pub(crate) fn open_from(&self, now: Timestamp) -> Timestamp {
        window_start(now.saturating_sub(self.bounds.out_of_order_window), self.block_range)
    }

    /// Whether any time of the window that begins at `start` may still be written in any order.
    pub(crate) fn is_open(&self, start: Timestamp, now: Timestamp) -> bool {
        start >= self.open_from(now)
    }
}

/// What became of a freeze.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its samples are ordinary ones again.
    Thawed,
    /// They are gone, their values are remembered.
    Remembered,
    /// They are gone.
    Dropped,
}

impl Outcome {
    pub(crate) fn dropped(remember: bool) -> Outcome {
        if remember { Outcome::Remembered } else { Outcome::Dropped }
    }
}

impl ShardState {
    /// Moves a window out of the live ones; none where the tenant has no samples in it. A replay, which knows
    /// that there were some, says from which position on.
    pub(crate) fn begin_freeze(
        &mut self,
        tenant: u32,
        window: TimeRange,
        block: &str,
        replayed_at: Option<u64>,
    ) -> Option<u32> {
        let live = self.existing_tenant_mut(tenant).and_then(|known| {
            let at = known.windows.iter().position(|w| w.start == window.start)?;
            Some(known.windows.swap_remove(at))
        });
        let again = self.frozen.iter().find(|f| f.tenant == tenant && f.window.start == window.start);
        let window = live.or(again.map(|f| f.window)).or(replayed_at.map(|position| Window {
            start: window.start,
            first_position: position,
            first_write: i64::MIN,
            last_write: i64::MIN,
        }))?;
        self.last_tag += 1;
        let tag = self.last_tag;
        self.frozen.push(FrozenWindow { tag, tenant, block: block.into(), window });
        Some(tag)
    }

    /// Forgets a freeze and puts its window where its samples are.
    pub(crate) fn end_freeze(&mut self, tag: u32, outcome: Outcome) {
        let Some(at) = self.frozen.iter().position(|f| f.tag == tag) else { return };
        let frozen = self.frozen.swap_remove(at);
        match outcome {
            Outcome::Thawed => merge_window(&mut self.tenants.made(frozen.tenant).windows, frozen.window),
            // One entry for all tenants: it is kept for its position in the log.
            Outcome::Remembered => merge_window(&mut self.cut, frozen.window),
            Outcome::Dropped => {}
        }
    }
}
