//! One shard: its series by hash and slot, and per tenant the postings and the windows that hold samples.

use std::sync::atomic::AtomicBool;

use hashbrown::HashTable;
use model::{Labels, TimeRange, Timestamp};
use parking_lot::Mutex;
use storage::SeriesHandle;

use super::Bounds;
use super::of_tenant::{ShardTenant, ShardTenants, Window, merge_window};
use super::postings::pairs_of;
use super::series::{Hot, Measure, NEVER, Series, SeriesMut, Store};
use super::slab::Slab;
use crate::Error;
use crate::payload::{self, Floats};
use crate::rows::Entries;
use crate::tenants::Tenants;

/// Series visited under one hold of a shard's lock.
pub(crate) const BITE: usize = 128;

/// What the head needs of the engine's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadSettings {
    pub bounds: Bounds,
    pub block_range: i64,
    pub max_labels_bytes: usize,
    /// Exemplars of one tenant, and of one series; 0: none are kept.
    pub max_exemplars: usize,
    pub max_series_exemplars: usize,
    /// Whether start timestamps are kept as samples of zero.
    pub start_as_zero: bool,
    /// Most payload bytes per log record.
    pub group_bytes: usize,
}

pub(crate) struct Head {
    pub settings: HeadSettings,
    pub shards: Vec<Shard>,
    /// The node is short of memory: samples of series that are not there have to come again.
    pub refuse_new: AtomicBool,
}

pub(crate) struct Shard {
    pub index: u16,
    pub state: Mutex<ShardState>,
}

/// Everything under a shard's lock.
#[derive(Default)]
pub(crate) struct ShardState {
    table: HashTable<u32>,
    pub series: Store,
    /// Texts of label pairs, of all tenants.
    pub texts: Slab,
    /// Tenants that have series here, by their index.
    pub tenants: ShardTenants,
    /// Log number of the next new series.
    pub next_id: u64,
    /// Position of the last record that this shard enqueued.
    pub last_position: u64,
    /// Tag of the last freeze.
    pub last_tag: u32,
    pub frozen: Vec<FrozenWindow>,
    /// Windows that were cut while their times could still be written; the log keeps them until they cannot.
    pub cut: Vec<Window>,
    /// Of the shard.
    pub index: u16,
    pub floats: Floats,
    pub natives: Entries,
    pub exemplars: Entries,
    /// Zeros that were made up for start timestamps, by the series' number.
    pub zeros: Vec<(u64, Timestamp)>,
    pub new_series: Vec<u8>,
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
        let shard = |index| Shard {
            index,
            state: Mutex::new(ShardState { index, next_id: 1, ..Default::default() }),
        };
        Head { settings, shards: (0..shards as u16).map(shard).collect(), refuse_new: AtomicBool::new(false) }
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
            let live = state.tenants.iter().flat_map(|(_, t)| &t.windows).map(|w| w.first_position);
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
            for (index, tenant) in state.tenants.iter() {
                if tenant.windows.is_empty() {
                    continue;
                }
                let at = match all.binary_search_by_key(&index, |(i, _)| *i) {
                    Ok(at) => at,
                    Err(at) => {
                        all.insert(at, (index, Vec::new()));
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
        let (mut record, mut labels) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            // First, so that a series made meanwhile is above it, and in the part of the log that is kept.
            let next_id = shard.state.lock().next_id;
            writer.put(payload::SHARD, &[&payload::shard(shard.index, next_id)])?;
            let mut from = 0;
            loop {
                let bite: Vec<(u32, u32)> = {
                    let state = shard.state.lock();
                    let slots = bite(from, state.series.len());
                    slots.clone().filter_map(|slot| Some((state.series.hot(slot)?.tenant, slot))).collect()
                };
                for of_tenant in bite.chunk_by(|a, b| a.0 == b.0) {
                    let Some(tenant) = tenants.by_index(of_tenant[0].0) else { continue };
                    record.clear();
                    payload::begin_series(&mut record, shard.index, &tenant.id);
                    let state = shard.state.lock();
                    for (index, slot) in of_tenant {
                        let Some(hot) = state.series.hot(*slot).filter(|hot| hot.tenant == *index) else {
                            continue;
                        };
                        labels.clear();
                        state.write_labels(*slot, &mut labels);
                        payload::put_series(&mut record, hot.id, hot.newest, &labels);
                    }
                    drop(state);
                    writer.put(payload::SERIES, &[&record])?;
                }
                from += BITE;
                if from >= shard.state.lock().series.len() {
                    break;
                }
            }
            self.write_exemplars(shard.index, next_id, tenants, writer)?;
        }
        Ok(())
    }

    /// Writes the exemplars of a shard behind its series: the segments that they came in go. A series that was made
    /// since the walk over them began may be missing in it, and a replay refuses what has no series; its exemplars
    /// came later still, and are in the part of the log that is kept.
    fn write_exemplars(
        &self,
        shard: u16,
        below: u64,
        tenants: &Tenants,
        writer: &mut wal::CheckpointWriter,
    ) -> Result<(), Error> {
        let mut entries = Entries::default();
        for tenant in tenants.all() {
            for (id, e) in tenant.exemplars.lock().of_shard(shard, below) {
                entries.push_exemplar(id, e.timestamp, e.value, e.labels.as_bytes());
                if entries.len() > self.settings.group_bytes / 2 {
                    writer.put(payload::EXEMPLARS, &entries.parts(shard))?;
                    entries.clear();
                }
            }
            if !entries.is_empty() {
                writer.put(payload::EXEMPLARS, &entries.parts(shard))?;
                entries.clear();
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
                let slots = bite(from, state.series.len());
                if slots.is_empty() {
                    break;
                }
                for m in slots.filter_map(|slot| state.series.measure(slot)) {
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

    /// Bytes of memory by part, over all shards.
    pub(crate) fn parts(&self) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for shard in &self.shards {
            for (part, bytes) in shard.state.lock().parts() {
                match sums.iter_mut().find(|(name, _)| *name == part) {
                    Some((_, sum)) => *sum += bytes as u64,
                    None => sums.push((part, bytes as u64)),
                }
            }
        }
        sums
    }

    /// Removes series without samples that nobody has written to since `before`; returns how many.
    pub(crate) fn forget_idle(&self, before: Timestamp, tenants: &Tenants) -> usize {
        let mut forgotten = 0;
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let mut state = shard.state.lock();
                let slots = bite(from, state.series.len());
                if slots.is_empty() {
                    break;
                }
                let is_idle = |slot: &u32| {
                    state.series.get(*slot).is_some_and(|s| s.is_empty() && s.hot.newest < before)
                };
                let idle: Vec<u32> = slots.filter(is_idle).collect();
                for (index, n) in state.remove(&idle) {
                    if let Some(tenant) = tenants.by_index(index) {
                        tenant.forget_series(n as u64);
                        tenant.report_series();
                    }
                    forgotten += n;
                }
                from += BITE;
            }
        }
        forgotten
    }
}

/// Slots visited under one hold of a shard's lock, from `from` on, of `len`.
pub(crate) fn bite(from: usize, len: usize) -> std::ops::Range<u32> {
    from.min(len) as u32..(from + BITE).min(len) as u32
}

impl ShardState {
    pub(crate) fn find(&self, tenant: u32, labels: &[u8], hash: u64) -> Option<u32> {
        self.table.find(hash, |slot| self.is(*slot, tenant, labels, hash)).copied()
    }

    /// Whether a slot holds this series.
    pub(crate) fn is(&self, slot: u32, tenant: u32, labels: &[u8], hash: u64) -> bool {
        let of_tenant = |hot: &&Hot| hot.hash == hash && hot.tenant == tenant;
        self.series.hot(slot).filter(of_tenant).is_some() && self.has_labels(slot, tenant, labels)
    }

    fn has_labels(&self, slot: u32, tenant: u32, labels: &[u8]) -> bool {
        let (Some(list), Some(tenant)) = (self.series.list(slot), self.tenant(tenant)) else { return false };
        tenant.postings.is(list, &self.texts, labels)
    }

    /// Adds the canonical label bytes of a slot's series to `out`.
    /// Labels of a slot's series.
    pub(crate) fn labels(&self, slot: u32) -> Labels {
        let mut labels = Vec::new();
        self.write_labels(slot, &mut labels);
        // They were checked when the series was made.
        Labels::from_bytes(&labels).unwrap_or_else(|_| Labels::empty())
    }

    fn buffers(&self) -> usize {
        let rows = self.natives.capacity() + self.exemplars.capacity();
        self.floats.capacity() + rows + self.new_series.capacity()
    }

    pub(crate) fn write_labels(&self, slot: u32, out: &mut Vec<u8>) {
        let Some(hot) = self.series.hot(slot) else { return };
        if let (Some(list), Some(tenant)) = (self.series.list(slot), self.tenant(hot.tenant)) {
            tenant.postings.write_labels(list, &self.texts, out);
        }
    }

    /// Whether a handle still finds the series that it was given for.
    #[inline]
    pub(crate) fn holds(&self, handle: SeriesHandle, tenant: u32, hash: u64) -> bool {
        self.series.hot(handle.index).is_some_and(|s| s.is(handle, tenant, hash))
    }

    /// The handle of a slot's series.
    pub(crate) fn handle(&self, slot: u32) -> Option<SeriesHandle> {
        self.series.hot(slot).map(|s| SeriesHandle { index: slot, generation: s.id as u32 })
    }

    pub(crate) fn get(&self, slot: u32) -> Option<Series<'_>> {
        self.series.get(slot)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<SeriesMut<'_>> {
        self.series.get_mut(slot)
    }

    pub(crate) fn tenant(&self, index: u32) -> Option<&ShardTenant> {
        self.tenants.get(index)
    }

    pub(crate) fn existing_tenant_mut(&mut self, index: u32) -> Option<&mut ShardTenant> {
        self.tenants.get_mut(index)
    }

    /// Adds a series by canonical label bytes; the caller has made sure that it is not there.
    pub(crate) fn insert(&mut self, tenant: u32, labels: &[u8], hash: u64, id: u64) -> u32 {
        let slot = self.series.next_slot();
        let postings = &mut self.tenants.made(tenant).postings;
        let list = postings.add(slot, labels, &mut self.texts, self.series.lists());
        self.series.insert(tenant, hash, id, list);
        let all = &self.series;
        self.table.insert_unique(hash, slot, |slot| all.hot(*slot).map_or(0, |s| s.hash));
        slot
    }

    /// Removes series, ascending; returns how many of which tenants.
    pub(crate) fn remove(&mut self, slots: &[u32]) -> Vec<(u32, usize)> {
        let mut gone: Vec<(u32, u32, Vec<u32>)> = Vec::with_capacity(slots.len());
        for &slot in slots {
            let (Some(hot), Some(list)) = (self.series.hot(slot), self.series.list(slot)) else { continue };
            gone.push((hot.tenant, slot, pairs_of(list).collect()));
            if let Ok(entry) = self.table.find_entry(hot.hash, |s| *s == slot) {
                entry.remove();
            }
            self.series.remove(slot);
        }
        gone.sort_by_key(|(tenant, slot, _)| (*tenant, *slot));
        let mut counts = Vec::new();
        for of_tenant in gone.chunk_by_mut(|a, b| a.0 == b.0) {
            let index = of_tenant[0].0;
            counts.push((index, of_tenant.len()));
            let Some(tenant) = self.tenants.get_mut(index) else { continue };
            let with_pairs: Vec<(u32, Vec<u32>)> =
                of_tenant.iter_mut().map(|(_, slot, pairs)| (*slot, std::mem::take(pairs))).collect();
            tenant.postings.remove(&with_pairs, &mut self.texts);
            if tenant.postings.all.is_empty() && tenant.windows.is_empty() {
                self.tenants.drop(index);
            }
        }
        counts
    }

    /// Forgets a tenant that has no series.
    pub(crate) fn drop_empty_tenant(&mut self, index: u32) {
        if self.tenants.get(index).is_some_and(|tenant| tenant.postings.all.is_empty()) {
            self.tenants.drop(index);
        }
    }

    /// Bytes of memory by part.
    fn parts(&self) -> Vec<(&'static str, usize)> {
        let mut parts = self.series.parts().to_vec();
        let texts = self.texts.bytes();
        let (mut pairs, mut slots) = (0, 0);
        for (_, tenant) in self.tenants.iter() {
            let (a, b) = tenant.postings.bytes();
            pairs += a + size_of::<ShardTenant>();
            slots += b;
        }
        parts.extend([
            ("table", self.table.capacity() / 7 * 8 * 5),
            ("label texts", texts.1),
            ("label texts, idle", texts.0 - texts.1),
            ("label pairs", pairs + self.tenants.table_bytes()),
            ("postings", slots),
            ("record buffers", self.buffers()),
        ]);
        parts
    }

    /// Whether a tenant's samples here can overlap `range`.
    pub(crate) fn overlaps(&self, tenant: u32, range: TimeRange, block_range: i64) -> bool {
        let covers = |w: &Window| TimeRange::new(w.start, w.start + block_range - 1).overlaps(&range);
        self.tenant(tenant).is_some_and(|t| t.windows.iter().any(covers))
            || self.frozen.iter().any(|f| f.tenant == tenant && covers(&f.window))
    }

    /// Lets a few series from slot `from` on forget what was cut of them before `edge`; whether there were any.
    pub(crate) fn forget_cut(&mut self, from: usize, edge: Timestamp) -> bool {
        let slots = bite(from, self.series.len());
        for slot in slots.clone() {
            if let Some(mut series) = self.series.get_mut(slot) {
                series.forget_cut(edge);
            }
        }
        !slots.is_empty()
    }

    /// Raises the newest times of series to what a checkpoint knew of them.
    pub(crate) fn raise_newest(&mut self, known: &[(u32, Timestamp)]) {
        for &(slot, newest) in known {
            if newest != NEVER
                && let Some(mut series) = self.get_mut(slot)
            {
                series.raise_newest(newest);
            }
        }
    }
}
