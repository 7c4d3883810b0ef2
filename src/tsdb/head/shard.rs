//! One shard: its series by hash and slot, and per tenant the postings and the windows that hold samples.

use hashbrown::HashTable;
use model::{Labels, TimeRange, Timestamp};
use parking_lot::Mutex;
use storage::SeriesHandle;

use super::Bounds;
use super::postings::Postings;
use super::series::{Measure, NEVER, Series, window_start};
use crate::Error;
use crate::payload::{self, Floats};
use crate::tenants::Tenants;

/// Series visited under one hold of a shard's lock.
pub(crate) const BITE: usize = 512;

/// What the head needs of the engine's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadSettings {
    pub bounds: Bounds,
    pub block_range: i64,
    pub max_series_per_tenant: u64,
    pub max_labels_bytes: usize,
    /// Most payload bytes per log record.
    pub group_bytes: usize,
}

pub(crate) struct Head {
    pub settings: HeadSettings,
    pub shards: Vec<Shard>,
}

pub(crate) struct Shard {
    pub index: u16,
    pub state: Mutex<ShardState>,
}

/// Everything under a shard's lock.
#[derive(Default)]
pub(crate) struct ShardState {
    table: HashTable<u32>,
    series: Vec<Option<Box<Series>>>,
    free: Vec<u32>,
    /// Tenants that have series here, by their index.
    tenants: Vec<Option<Box<ShardTenant>>>,
    /// Log number of the next new series.
    pub next_id: u64,
    /// Position of the last record that this shard enqueued.
    pub last_position: u64,
    /// Tag of the last freeze.
    pub last_tag: u32,
    pub frozen: Vec<FrozenWindow>,
    /// Windows that were cut while their times could still be written; the log keeps them until they cannot.
    pub cut: Vec<Window>,
    pub floats: Floats,
    pub new_series: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct ShardTenant {
    pub postings: Postings,
    /// Windows with samples that belong to no freeze, few and in no order.
    pub windows: Vec<Window>,
}

/// A window of time that holds samples of one tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub start: Timestamp,
    /// No record before this position holds samples of the window.
    pub first_position: u64,
    /// Door times of the first and the last write.
    pub first_write: Timestamp,
    pub last_write: Timestamp,
}

/// A window whose samples are being made a block.
#[derive(Clone, Debug)]
pub(crate) struct FrozenWindow {
    pub tag: u32,
    pub tenant: u32,
    pub block: Box<str>,
    pub window: Window,
}

impl Head {
    pub(crate) fn new(settings: HeadSettings, shards: usize) -> Head {
        let shard =
            |index| Shard { index, state: Mutex::new(ShardState { next_id: 1, ..Default::default() }) };
        Head { settings, shards: (0..shards as u16).map(shard).collect() }
    }

    /// The shard of a hash. Its low and its highest bits are left to the table.
    pub(crate) fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// The earliest position of the log that still holds samples not in a block, or whose values a restart must
    /// know.
    pub(crate) fn first_needed(&self, tail: u64) -> u64 {
        let mut first = tail + 1;
        for shard in &self.shards {
            let state = shard.state.lock();
            let live = state.tenants.iter().flatten().flat_map(|t| &t.windows).map(|w| w.first_position);
            let frozen = state.frozen.iter().map(|f| f.window.first_position);
            let cut = state.cut.iter().map(|w| w.first_position);
            first = live.chain(frozen).chain(cut).fold(first, u64::min);
        }
        first
    }

    /// The windows of every tenant, over all shards.
    pub(crate) fn windows(&self) -> Vec<(u32, Vec<Window>)> {
        let mut all: Vec<(u32, Vec<Window>)> = Vec::new();
        for shard in &self.shards {
            let state = shard.state.lock();
            for (index, tenant) in state.tenants.iter().enumerate() {
                let Some(tenant) = tenant else { continue };
                if tenant.windows.is_empty() {
                    continue;
                }
                let at = match all.binary_search_by_key(&(index as u32), |(i, _)| *i) {
                    Ok(at) => at,
                    Err(at) => {
                        all.insert(at, (index as u32, Vec::new()));
                        at
                    }
                };
                for window in &tenant.windows {
                    merge_window(&mut all[at].1, *window);
                }
            }
        }
        for (_, windows) in &mut all {
            windows.sort_by_key(|w| w.start);
        }
        all
    }

    /// Bounds of the times of a tenant's samples, in whole windows; empty where there are none.
    pub(crate) fn window_range(&self, tenant: u32) -> TimeRange {
        let mut range = TimeRange::EMPTY;
        for shard in &self.shards {
            let state = shard.state.lock();
            let live = state.tenant(tenant).into_iter().flat_map(|t| &t.windows);
            let frozen = state.frozen.iter().filter(|f| f.tenant == tenant).map(|f| &f.window);
            for window in live.chain(frozen) {
                range =
                    range.cover(&TimeRange::new(window.start, window.start + self.settings.block_range - 1));
            }
        }
        range
    }

    /// Writes all series into a checkpoint of the log, a few at a time.
    pub(crate) fn write_series(
        &self,
        tenants: &Tenants,
        writer: &mut wal::CheckpointWriter,
    ) -> Result<(), Error> {
        let mut record = Vec::new();
        for shard in &self.shards {
            // First, so that a series made meanwhile is above it, and in the part of the log that is kept.
            let next_id = shard.state.lock().next_id;
            writer.put(payload::SHARD, &[&payload::shard(shard.index, next_id)])?;
            let mut from = 0;
            loop {
                let mut run: Vec<(u32, u64, Timestamp, Labels)> = Vec::new();
                {
                    let state = shard.state.lock();
                    let Some(rest) = state.series.get(from..).filter(|rest| !rest.is_empty()) else { break };
                    for s in rest.iter().take(BITE).flatten() {
                        run.push((s.tenant, s.id, s.newest, s.labels.clone()));
                    }
                }
                for of_tenant in run.chunk_by(|a, b| a.0 == b.0) {
                    let Some(tenant) = tenants.by_index(of_tenant[0].0) else { continue };
                    record.clear();
                    payload::begin_series(&mut record, shard.index, &tenant.id);
                    for (_, id, newest, labels) in of_tenant {
                        payload::put_series(&mut record, *id, *newest, labels.as_bytes());
                    }
                    writer.put(payload::SERIES, &[&record])?;
                }
                from += BITE;
            }
        }
        Ok(())
    }

    /// What the head holds; visits every series, a few at a time.
    pub(crate) fn measure(&self) -> (u64, Measure) {
        let (mut series, mut sum) = (0, Measure::default());
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let state = shard.state.lock();
                let Some(rest) = state.series.get(from..).filter(|rest| !rest.is_empty()) else { break };
                for one in rest.iter().take(BITE).flatten() {
                    let m = one.measure();
                    series += 1;
                    sum.chunks += m.chunks;
                    sum.samples += m.samples;
                    sum.bytes += m.bytes;
                    sum.range = sum.range.cover(&m.range);
                }
                from += BITE;
            }
        }
        (series, sum)
    }

    /// Removes series without samples that nobody has written to since `before`; returns how many.
    pub(crate) fn forget_idle(&self, before: Timestamp, tenants: &Tenants) -> usize {
        let mut forgotten = 0;
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let mut state = shard.state.lock();
                let Some(rest) = state.series.get(from..).filter(|rest| !rest.is_empty()) else { break };
                let idle: Vec<u32> = (from as u32..)
                    .zip(rest.iter().take(BITE))
                    .filter(|(_, s)| s.as_ref().is_some_and(|s| s.is_empty() && s.newest < before))
                    .map(|(slot, _)| slot)
                    .collect();
                for slot in idle {
                    if let Some(tenant) = state.remove(slot).and_then(|index| tenants.by_index(index)) {
                        tenant.forget_series();
                        tenant.report_series();
                        forgotten += 1;
                    }
                }
                from += BITE;
            }
        }
        forgotten
    }
}

/// Adds a window to a list that has each start once.
pub(crate) fn merge_window(windows: &mut Vec<Window>, window: Window) {
    match windows.iter_mut().find(|w| w.start == window.start) {
        None => windows.push(window),
        Some(w) => {
            w.first_position = w.first_position.min(window.first_position);
            w.first_write = w.first_write.min(window.first_write);
            w.last_write = w.last_write.max(window.last_write);
        }
    }
}

impl ShardState {
    pub(crate) fn find(&self, tenant: u32, labels: &[u8], hash: u64) -> Option<u32> {
        let equal = |slot: &u32| {
            self.get(*slot)
                .is_some_and(|s| s.hash == hash && s.tenant == tenant && s.labels.as_bytes() == labels)
        };
        self.table.find(hash, equal).copied()
    }

    /// Whether a slot holds this series.
    pub(crate) fn is(&self, slot: u32, tenant: u32, labels: &[u8], hash: u64) -> bool {
        self.get(slot).is_some_and(|s| s.hash == hash && s.tenant == tenant && s.labels.as_bytes() == labels)
    }

    /// Whether a handle still finds the series that it was given for. Numbers of a shard's series are never
    /// given twice, so that four thousand million of them would have to be made for a slot to be taken for
    /// its former self, and then the hash would still have to be the same.
    #[inline]
    pub(crate) fn holds(&self, handle: SeriesHandle, tenant: u32, hash: u64) -> bool {
        self.get(handle.index)
            .is_some_and(|s| s.id as u32 == handle.generation && s.hash == hash && s.tenant == tenant)
    }

    /// The handle of a slot's series.
    pub(crate) fn handle(&self, slot: u32) -> Option<SeriesHandle> {
        self.get(slot).map(|s| SeriesHandle { index: slot, generation: s.id as u32 })
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Series> {
        self.series.get(slot as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Series> {
        self.series.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(crate) fn tenant(&self, index: u32) -> Option<&ShardTenant> {
        self.tenants.get(index as usize)?.as_deref()
    }

    pub(crate) fn existing_tenant_mut(&mut self, index: u32) -> Option<&mut ShardTenant> {
        self.tenants.get_mut(index as usize)?.as_deref_mut()
    }

    pub(crate) fn tenant_mut(&mut self, index: u32) -> &mut ShardTenant {
        let index = index as usize;
        if self.tenants.len() <= index {
            self.tenants.resize_with(index + 1, || None);
        }
        self.tenants[index].get_or_insert_default()
    }

    /// Adds a series; the caller has made sure that it is not there.
    pub(crate) fn insert(&mut self, tenant: u32, labels: Labels, hash: u64, id: u64) -> u32 {
        let slot = self.free.pop().unwrap_or(self.series.len() as u32);
        self.tenant_mut(tenant).postings.add(slot, &labels);
        let series = Some(Box::new(Series::new(labels, tenant, hash, id)));
        match self.series.get_mut(slot as usize) {
            Some(place) => *place = series,
            None => self.series.push(series),
        }
        let all = &self.series;
        let hasher = |slot: &u32| all[*slot as usize].as_ref().map_or(0, |s| s.hash);
        self.table.insert_unique(hash, slot, hasher);
        slot
    }

    /// Removes a series and returns its tenant.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<u32> {
        let series = self.series.get_mut(slot as usize)?.take()?;
        if let Ok(entry) = self.table.find_entry(series.hash, |s| *s == slot) {
            entry.remove();
        }
        self.free.push(slot);
        if let Some(Some(tenant)) = self.tenants.get_mut(series.tenant as usize) {
            tenant.postings.remove(slot, &series.labels);
            if tenant.postings.all.is_empty() && tenant.windows.is_empty() {
                self.tenants[series.tenant as usize] = None;
            }
        }
        Some(series.tenant)
    }

    /// Notes that a tenant has a sample at `t`. `position`: no earlier record holds it.
    #[inline]
    pub(crate) fn note_window(
        &mut self,
        tenant: u32,
        t: Timestamp,
        block_range: i64,
        position: u64,
        judged_at: Timestamp,
    ) {
        let windows = &mut self.tenant_mut(tenant).windows;
        for window in windows.iter_mut().rev() {
            if t >= window.start && t - window.start < block_range {
                window.last_write = window.last_write.max(judged_at);
                return;
            }
        }
        let start = window_start(t, block_range);
        windows.push(Window {
            start,
            first_position: position,
            first_write: judged_at,
            last_write: judged_at,
        });
    }

    /// Whether a tenant's samples here can overlap `range`.
    pub(crate) fn overlaps(&self, tenant: u32, range: TimeRange, block_range: i64) -> bool {
        let covers = |w: &Window| TimeRange::new(w.start, w.start + block_range - 1).overlaps(&range);
        self.tenant(tenant).is_some_and(|t| t.windows.iter().any(covers))
            || self.frozen.iter().any(|f| f.tenant == tenant && covers(&f.window))
    }

    /// Lets a few series from slot `from` on forget what was cut of them before `edge`; whether there were any.
    pub(crate) fn forget_cut(&mut self, from: usize, edge: Timestamp) -> bool {
        let Some(rest) = self.series.get_mut(from..).filter(|rest| !rest.is_empty()) else { return false };
        rest.iter_mut().take(BITE).flatten().for_each(|series| series.forget_cut(edge));
        true
    }

    /// Raises the newest times of series to what a checkpoint knew of them.
    pub(crate) fn raise_newest(&mut self, known: &[(u32, Timestamp)]) {
        for &(slot, newest) in known {
            if newest != NEVER
                && let Some(series) = self.get_mut(slot)
            {
                series.newest = series.newest.max(newest);
            }
        }
    }
}
