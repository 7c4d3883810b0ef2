//! Appending to one shard: judge, stage and enqueue under one lock.
//!
//! # Cost
//! Per group of rows: one reservation in the log, one shard lock, one or two records. Per row with a handle:
//! one look at the series. Per row without: one compare of the label bytes (and a table probe where the series
//! is not the one after the last row's). Per sample: the push, and about five bytes of record. No allocation
//! once the buffers have grown, but for chunks and new series.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use model::{Labels, Sample, Timestamp};
use storage::{Refusal, SampleKind, SeriesHandle, Verdict, WriteBatch};
use wal::Log;

use super::judge::Bounds;
use super::of_tenant::ShardTenants;
use super::series::SeriesMut;
use super::shard::{Head, Shard, ShardState};
use crate::Error;
use crate::payload::{self, FIXED_BYTES, Floats, SAMPLE_BYTES, SERIES_BYTES, ZERO_BYTES};
use crate::rows;
use crate::tenants::Tenant;

/// Series whose cache misses are taken together.
pub(crate) const AHEAD: usize = 32;

/// Part of one series of a batch: index of the row, and samples of one kind by the indices of their verdicts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub row: u32,
    pub start: u32,
    pub end: u32,
}

/// Where a row's samples go.
struct Place<'a> {
    tenant: &'a Tenant,
    slot: u32,
    judged_at: Timestamp,
    position: u64,
    bounds: &'a Bounds,
}

/// What an append did, summed over groups.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Floats.
    pub stored: u64,
    /// Histograms.
    pub natives: u64,
    /// Floats older than the newest of their series.
    pub late: u64,
    pub created: u32,
    /// The window of the last sample, noted already.
    window: Option<Timestamp>,
    /// Slot of the last row.
    last_slot: u32,
}

/// What an append finds out about rows, apart from verdicts.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Rows that were not judged because their handles find nothing and their labels are not there, and their
    /// hashes.
    pub missed: Vec<(Rows, u64)>,
    /// Whether anybody wants to know handles.
    pub learns: bool,
    pub learned: Vec<(u32, SeriesHandle)>,
}

impl Notes {
    pub(crate) fn clear(&mut self) {
        self.missed.clear();
        self.learned.clear();
    }
}

impl Head {
    /// Most bytes that a part of a row takes in the log.
    pub(crate) fn cost(batch: &WriteBatch, rows: Rows) -> usize {
        let labels = batch.label_bytes(&batch.series()[rows.row as usize]).len();
        let first = rows.start as usize;
        let entries = match batch.kind_of(first) {
            SampleKind::Float if batch.has_starts() => {
                (rows.end - rows.start) as usize * (2 * SAMPLE_BYTES + ZERO_BYTES)
            }
            SampleKind::Float => (rows.end - rows.start) as usize * SAMPLE_BYTES,
            // Twice: there may be one of zero at the start.
            SampleKind::Histogram => (batch.histograms().iter().skip(first - batch.first_histogram()))
                .take((rows.end - rows.start) as usize)
                .map(|row| match (rows::native_cost(&row.histogram), row.start) {
                    (cost, 0) => cost,
                    (cost, _) => 2 * cost + ZERO_BYTES,
                })
                .sum(),
            SampleKind::Exemplar => (batch.exemplars().iter().skip(first - batch.first_exemplar()))
                .take((rows.end - rows.start) as usize)
                .map(|row| rows::exemplar_cost(batch.exemplar_labels(row)))
                .sum(),
        };
        labels + SERIES_BYTES + entries
    }

    /// Judges and stages one group of rows of a shard, of which [`Head::cost`] sums up to `cost`. An error means that nothing of the group was judged.
    pub(crate) fn append_group(
        &self,
        shard: &Shard,
        log: &Log,
        tenant: &Tenant,
        batch: &WriteBatch,
        group: &[Rows],
        cost: usize,
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        notes: &mut Notes,
    ) -> Result<Done, Error> {
        let bytes = cost + 5 * FIXED_BYTES;
        // Before the lock: this may wait for a spare segment.
        let mut permit = log.reserve(bytes as u64, 5)?.quietly();
        let mut guard = shard.state.lock();
        let state = &mut *guard;
        let position = log.tail() + 1;
        let bounds = tenant.bounds(self.settings.bounds);
        let mut done = Done::default();
        state.floats.clear();
        state.natives.clear();
        state.exemplars.clear();
        state.zeros.clear();
        state.new_series.clear();
        for few in group.chunks(AHEAD) {
            // Without a handle, the series that most likely come now are those after the last one.
            let next = done.last_slot.wrapping_add(1);
            let slots = (next..next.saturating_add(few.len() as u32)).zip(few).map(|(guess, rows)| {
                batch.series()[rows.row as usize].handle.map_or(guess, |handle| handle.index)
            });
            state.series.touch(slots);
            for &rows in few {
                if self.append_known(
                    state, tenant, &bounds, batch, rows, judged_at, position, verdicts, &mut done, notes,
                ) {
                    continue;
                }
                self.append_rows(
                    state, shard, tenant, &bounds, batch, rows, judged_at, position, verdicts, &mut done,
                    notes,
                );
            }
        }
        if !state.new_series.is_empty() {
            state.last_position = permit.enqueue(payload::SERIES, &[&state.new_series])?;
        }
        if !state.floats.is_empty() {
            done.stored = state.floats.count();
            state.last_position = permit.enqueue(payload::SAMPLES, &state.floats.parts(shard.index))?;
        }
        if !state.natives.is_empty() {
            done.natives = state.natives.count();
            state.last_position = permit.enqueue(payload::HISTOGRAMS, &state.natives.parts(shard.index))?;
        }
        if !state.zeros.is_empty() {
            let mut record = Vec::new();
            payload::zeros(shard.index, &state.zeros, &mut record);
            state.last_position = permit.enqueue(payload::ZEROS, &[&record])?;
        }
        if !state.exemplars.is_empty() {
            state.last_position = permit.enqueue(payload::EXEMPLARS, &state.exemplars.parts(shard.index))?;
        }
        Ok(done)
    }

    /// The usual row: floats of a series that its handle finds. False where it is another one, and nothing done.
    #[inline]
    fn append_known(
        &self,
        state: &mut ShardState,
        tenant: &Tenant,
        bounds: &Bounds,
        batch: &WriteBatch,
        rows: Rows,
        judged_at: Timestamp,
        position: u64,
        verdicts: &mut [Verdict],
        done: &mut Done,
        notes: &Notes,
    ) -> bool {
        let row = &batch.series()[rows.row as usize];
        let Some(handle) = row.handle else { return false };
        let range = rows.start as usize..rows.end as usize;
        let has_more = range.end > batch.samples().len() || self.settings.start_as_zero && batch.has_starts();
        if has_more || batch.is_spliced() || !notes.missed.is_empty() {
            return false;
        }
        let ShardState { tenants, series, floats, .. } = state;
        let Some(series) = series.get_mut(handle.index).filter(|s| s.hot.is(handle, tenant.index, row.hash))
        else {
            return false;
        };
        done.last_slot = handle.index;
        let at = Place { tenant, slot: handle.index, judged_at, position, bounds };
        let (samples, verdicts) = (&batch.samples()[range.clone()], &mut verdicts[range]);
        self.push_floats(series, floats, tenants, &at, samples, verdicts, done);
        true
    }

    fn append_rows(
        &self,
        state: &mut ShardState,
        shard: &Shard,
        tenant: &Tenant,
        bounds: &Bounds,
        batch: &WriteBatch,
        rows: Rows,
        judged_at: Timestamp,
        position: u64,
        verdicts: &mut [Verdict],
        done: &mut Done,
        notes: &mut Notes,
    ) {
        let settings = &self.settings;
        let row = &batch.series()[rows.row as usize];
        // Of one series all samples keep their order, also where one row has a handle and another has not.
        if !notes.missed.is_empty() && notes.missed.iter().any(|(_, hash)| *hash == row.hash) {
            notes.missed.push((rows, row.hash));
            return;
        }
        let labels = batch.label_bytes(row);
        let known = row.handle.filter(|handle| state.holds(*handle, tenant.index, row.hash));
        if known.is_none() && row.handle.is_some() && labels.is_empty() {
            notes.missed.push((rows, row.hash));
            return;
        }
        let range = rows.start as usize..rows.end as usize;
        // Senders keep their order, and slots were given in it.
        let guess = done.last_slot.wrapping_add(1);
        let found = match known {
            Some(handle) => Some(handle.index),
            None if state.is(guess, tenant.index, labels, row.hash) => Some(guess),
            None => state.find(tenant.index, labels, row.hash),
        };
        let kind = batch.kind_of(range.start);
        let slot = match found {
            Some(slot) => slot,
            // Beside what is not there nothing stands.
            None if batch.asks() => {
                verdicts[range].fill(Verdict::Stored);
                return;
            }
            None if self.refuse_new.load(Relaxed) => {
                verdicts[range].fill(Verdict::Unavailable);
                return;
            }
            None => {
                let judge = |at| bounds.judge(batch.timestamp_of(at).unwrap_or_default(), judged_at, None);
                let created = match kind {
                    // An exemplar makes no series.
                    SampleKind::Exemplar => Err(Refusal::InvalidExemplar),
                    _ if range.clone().any(|at| judge(at).is_ok()) => {
                        self.create(state, shard, tenant, labels, row.hash, judged_at)
                    }
                    _ => Err(Refusal::TooOld),
                };
                match created {
                    Ok(slot) => {
                        done.created += 1;
                        slot
                    }
                    Err(refusal) => {
                        for at in range {
                            verdicts[at] = Verdict::Refused(judge(at).err().unwrap_or(refusal));
                        }
                        return;
                    }
                }
            }
        };
        done.last_slot = slot;
        if known.is_none() && notes.learns {
            notes.learned.extend(state.handle(slot).map(|handle| (rows.row, handle)));
        }
        let at = Place { tenant, slot, judged_at, position, bounds };
        match kind {
            SampleKind::Exemplar if batch.asks() => verdicts[range].fill(Verdict::Stored),
            SampleKind::Exemplar => self.append_exemplars(state, &at, batch, range, verdicts),
            _ if batch.is_spliced() => self.append_spliced(state, &at, batch, range, verdicts, done),
            SampleKind::Float if settings.start_as_zero && batch.has_starts() => {
                self.append_started(state, &at, batch, range, verdicts, done)
            }
            SampleKind::Float => {
                self.append_floats(state, &at, &batch.samples()[range.clone()], &mut verdicts[range], done)
            }
            SampleKind::Histogram => self.append_natives(state, &at, batch, range, verdicts, done),
        }
    }

    /// Floats or histograms of another sender of the series: see [`WriteBatch::splice`]. When counting started was said
    /// by the one before.
    fn append_spliced(
        &self,
        state: &mut ShardState,
        at: &Place<'_>,
        batch: &WriteBatch,
        range: Range<usize>,
        verdicts: &mut [Verdict],
        done: &mut Done,
    ) {
        let mut passed_over = 0;
        for index in range {
            let float = batch.samples().get(index);
            let native = index.checked_sub(batch.first_histogram()).and_then(|n| batch.histograms().get(n));
            let is_stale = match (float, native) {
                (Some(sample), _) => model::is_stale(sample.value),
                (None, row) => row.is_some_and(|row| row.histogram.is_stale()),
            };
            let t = batch.timestamp_of(index).unwrap_or_default();
            let passed = state.get(at.slot).is_some_and(|series| !series.splices(t, is_stale));
            if batch.asks() {
                let is_there = || {
                    let Some(series) = state.get(at.slot) else { return false };
                    match (float, native) {
                        (Some(sample), _) => series.has_float(*sample),
                        (None, row) => {
                            row.is_some_and(|row| series.has_native(row.timestamp, &row.histogram))
                        }
                    }
                };
                verdicts[index] = if passed && !is_there() { Verdict::Duplicate } else { Verdict::Stored };
                continue;
            }
            if passed {
                verdicts[index] = Verdict::Duplicate;
                passed_over += 1;
                continue;
            }
            match float {
                Some(sample) => self.append_floats(state, at, &[*sample], &mut verdicts[index..=index], done),
                None => self.append_natives(state, at, batch, index..index + 1, verdicts, done),
            }
        }
        metrics::counter!("tributary_tsdb_splice_passed_over_samples_total").increment(passed_over);
    }

    #[inline]
    fn append_floats(
        &self,
        state: &mut ShardState,
        at: &Place<'_>,
        samples: &[Sample],
        verdicts: &mut [Verdict],
        done: &mut Done,
    ) {
        let ShardState { tenants, series, floats, .. } = state;
        if let Some(series) = series.get_mut(at.slot) {
            self.push_floats(series, floats, tenants, at, samples, verdicts, done);
        }
    }

    #[inline]
    fn push_floats(
        &self,
        mut series: SeriesMut<'_>,
        floats: &mut Floats,
        tenants: &mut ShardTenants,
        at: &Place<'_>,
        samples: &[Sample],
        verdicts: &mut [Verdict],
        done: &mut Done,
    ) {
        let id = series.hot.id;
        for (sample, verdict) in samples.iter().zip(verdicts) {
            let late = sample.timestamp <= series.hot.newest;
            *verdict = series.offer(*sample, at.judged_at, at.bounds, self.settings.block_range);
            if *verdict == Verdict::Stored {
                done.late += u64::from(late);
                floats.push(id, *sample);
                self.note(tenants, at, sample.timestamp, done);
            }
        }
    }

    /// Floats that say when counting started.
    fn append_started(
        &self,
        state: &mut ShardState,
        at: &Place<'_>,
        batch: &WriteBatch,
        range: Range<usize>,
        verdicts: &mut [Verdict],
        done: &mut Done,
    ) {
        let settings = &self.settings;
        for index in range {
            let (sample, start) = (batch.samples()[index], batch.start_of(index));
            let Some(mut series) = state.get_mut(at.slot) else { return };
            let t = sample.timestamp;
            if series.start(start, t, None, at.judged_at, at.bounds, settings.block_range).is_some() {
                let id = series.hot.id;
                state.floats.push(id, Sample { timestamp: start, value: 0.0 });
                state.zeros.push((id, start));
                self.note(&mut state.tenants, at, start, done);
            }
            self.append_floats(state, at, &[sample], &mut verdicts[index..=index], done);
        }
    }

    fn append_natives(
        &self,
        state: &mut ShardState,
        at: &Place<'_>,
        batch: &WriteBatch,
        range: Range<usize>,
        verdicts: &mut [Verdict],
        done: &mut Done,
    ) {
        let (bounds, block_range) = (at.bounds, self.settings.block_range);
        for index in range {
            let row = &batch.histograms()[index - batch.first_histogram()];
            let (t, h) = (row.timestamp, &row.histogram);
            let Some(mut series) = state.get_mut(at.slot) else { return };
            let id = series.hot.id;
            if self.settings.start_as_zero
                && let Some(Some(zero)) =
                    series.start(row.start, t, Some(h), at.judged_at, bounds, block_range)
            {
                state.natives.push_native(id, row.start, &zero);
                state.zeros.push((id, row.start));
                self.note(&mut state.tenants, at, row.start, done);
            }
            let Some(mut series) = state.get_mut(at.slot) else { return };
            verdicts[index] = series.offer_native(t, h, at.judged_at, bounds, block_range);
            if verdicts[index] == Verdict::Stored {
                state.natives.push_native(id, t, h);
                self.note(&mut state.tenants, at, t, done);
            }
        }
    }

    fn append_exemplars(
        &self,
        state: &mut ShardState,
        at: &Place<'_>,
        batch: &WriteBatch,
        range: Range<usize>,
        verdicts: &mut [Verdict],
    ) {
        let Some(id) = state.get(at.slot).map(|series| series.hot.id) else { return };
        for index in range {
            let row = &batch.exemplars()[index - batch.first_exemplar()];
            let labels = batch.exemplar_labels(row);
            let key = (state.index, id);
            let series = || state.labels(at.slot);
            let mut ring = at.tenant.exemplars.lock();
            verdicts[index] = ring.offer(
                key,
                series,
                row.timestamp,
                row.value,
                labels,
                at.judged_at,
                at.bounds,
                &self.settings,
            );
            drop(ring);
            if verdicts[index] == Verdict::Stored {
                state.exemplars.push_exemplar(id, row.timestamp, row.value, labels);
            }
        }
    }

    /// Notes the window of a sample that was taken.
    #[inline]
    fn note(&self, tenants: &mut ShardTenants, at: &Place<'_>, t: Timestamp, done: &mut Done) {
        let range = self.settings.block_range;
        if !done.window.is_some_and(|start| t >= start && t - start < range) {
            tenants.note_window(at.tenant.index, t, range, at.position, at.judged_at);
            done.window = Some(super::window_start(t, range));
        }
    }

    /// Makes a series within the limits.
    fn create(
        &self,
        state: &mut ShardState,
        shard: &Shard,
        tenant: &Tenant,
        bytes: &[u8],
        hash: u64,
        judged_at: Timestamp,
    ) -> Result<u32, Refusal> {
        if bytes.is_empty() || bytes.len() > self.settings.max_labels_bytes {
            return Err(Refusal::InvalidLabels);
        }
        Labels::check(bytes).map_err(|_| Refusal::InvalidLabels)?;
        tenant.admit(bytes, judged_at)?;
        let id = state.next_id;
        state.next_id += 1;
        if state.new_series.is_empty() {
            payload::begin_series(&mut state.new_series, shard.index, &tenant.id);
        }
        payload::put_series(&mut state.new_series, id, super::series::NEVER, bytes);
        Ok(state.insert(tenant.index, bytes, hash, id))
    }
}
