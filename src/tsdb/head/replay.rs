//! Rebuilding a shard from the log: the same records in the same order, hence the same samples.
//!
//! Each shard has a thread of its own; records reach it in the order of the log. What a cut dropped is dropped
//! again where the log says so, so memory stays near what it was in life; what is remembered of it is, too.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hashbrown::HashMap;
use model::{Kind, Labels, Sample, TenantId, TimeRange, Timestamp, placement_hash};
use parking_lot::Mutex;

use super::append::AHEAD;
use super::freeze::Outcome;
use super::native::Row;
use super::series::NEVER;
use super::shard::{Head, HeadSettings, Shard, ShardState};
use crate::Error;
use crate::payload::{self, Reader, broken};
use crate::rows;
use crate::tenants::Tenants;

/// Records that wait for a shard's thread.
const QUEUE: usize = 8;

enum Job {
    Record { kind: u8, position: u64, from_checkpoint: bool, payload: Box<[u8]> },
    Cut { block: Arc<str> },
}

/// Blocks that were begun and never became durable.
pub(crate) type Orphans = HashSet<(TenantId, String)>;

/// Runs `read`, which hands the log's records to its argument, and applies them.
pub(crate) fn replay<R>(
    head: &Head,
    tenants: &Tenants,
    now: Timestamp,
    read: impl FnOnce(&mut dyn FnMut(wal::Entry<'_>) -> Result<(), Error>) -> Result<R, Error>,
) -> Result<(R, Orphans), Error> {
    let orphans = Mutex::new(Orphans::new());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let result = std::thread::scope(|scope| {
        let mut queues: Vec<SyncSender<Job>> = Vec::new();
        let mut workers = Vec::new();
        for shard in &head.shards {
            let (sender, receiver) = sync_channel(QUEUE);
            queues.push(sender);
            let (orphans, failure) = (&orphans, &failure);
            workers.push(scope.spawn(move || {
                behind();
                match run(shard, &head.settings, tenants, now, receiver) {
                    Ok(found) => orphans.lock().extend(found),
                    Err(error) => *failure.lock() = Some(error),
                }
            }));
        }
        // A closed queue means that its worker failed and has said why.
        let gone = || Error::new(Kind::Internal, "replay of a shard ended early");
        let result = read(&mut |entry| {
            let mut reader = Reader::new(entry.payload);
            if entry.kind == payload::CUT {
                let _tenant = reader.tenant()?;
                let block: Arc<str> = reader.text()?.into();
                for queue in &queues {
                    queue.send(Job::Cut { block: block.clone() }).map_err(|_| gone())?;
                }
                return Ok(());
            }
            let shard = reader.shard()?;
            let queue = queues.get(usize::from(shard)).ok_or_else(|| {
                let text = format!("log names shard {shard}, the data folder has {}", queues.len());
                Error::new(Kind::Corrupt, text)
            })?;
            let job = Job::Record {
                kind: entry.kind,
                position: entry.seq,
                from_checkpoint: entry.from_checkpoint,
                payload: entry.payload.into(),
            };
            queue.send(job).map_err(|_| gone())
        });
        drop(queues);
        for worker in workers {
            if worker.join().is_err() {
                failure.lock().get_or_insert(Error::new(Kind::Internal, "replay of a shard panicked"));
            }
        }
        result
    });
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    Ok((result?, orphans.into_inner()))
}

/// Who serves on this machine goes first: another node, or the other roles of this one.
fn behind() {
    if let Err(error) = runtime::give_way() {
        tracing::debug!(%error, "replay does not give way to other threads");
    }
}

fn run(
    shard: &Shard,
    settings: &HeadSettings,
    tenants: &Tenants,
    now: Timestamp,
    jobs: Receiver<Job>,
) -> Result<Orphans, Error> {
    let mut state = shard.state.lock();
    let mut replay = Replay {
        state: &mut state,
        settings,
        tenants,
        now,
        slots: HashMap::new(),
        forgotten_before: 0,
        newest: Vec::new(),
        last: (0, 0),
        rows: Vec::new(),
    };
    for job in jobs {
        match job {
            Job::Record { kind, position, from_checkpoint, payload } => {
                replay.record(kind, position, from_checkpoint, &payload)?
            }
            Job::Cut { block } => replay.cut(&block),
        }
    }
    Ok(replay.finish())
}

struct Replay<'a> {
    state: &'a mut ShardState,
    settings: &'a HeadSettings,
    tenants: &'a Tenants,
    now: Timestamp,
    /// Slot by the series' number in the log.
    slots: HashMap<u64, u32>,
    /// Unknown numbers below this are of series that were forgotten with all their samples in blocks.
    forgotten_before: u64,
    /// What the checkpoint knew of newest times; applied at the end, so that samples keep their order.
    newest: Vec<(u32, Timestamp)>,
    /// The last number looked up, and its slot.
    last: (u64, u32),
    /// The samples of a record, used again.
    rows: Vec<(u32, Sample)>,
}

impl Replay<'_> {
    fn record(&mut self, kind: u8, position: u64, checkpoint: bool, payload: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(payload);
        reader.shard()?;
        match kind {
            payload::SERIES => self.series(reader)?,
            payload::FLOATS | payload::SAMPLES => self.floats(kind, reader, position)?,
            payload::HISTOGRAMS => self.natives(reader, position)?,
            payload::EXEMPLARS => self.exemplars(reader)?,
            payload::ZEROS => self.zeros(reader)?,
            payload::FREEZE => self.freeze(reader, position)?,
            payload::DELETE => self.delete(reader)?,
            payload::SHARD => {
                let next = reader.v()?;
                self.forgotten_before = self.forgotten_before.max(next);
                self.state.next_id = self.state.next_id.max(next);
            }
            _ => return Err(broken()),
        }
        if !checkpoint {
            self.state.last_position = position;
        }
        Ok(())
    }

    fn series(&mut self, mut reader: Reader<'_>) -> Result<(), Error> {
        let tenant = self.tenants.get_or_add(&reader.tenant()?);
        while !reader.is_empty() {
            let (id, newest) = (reader.v()?, reader.z()?);
            let labels = reader.bytes()?;
            Labels::check(labels).map_err(|error| {
                Error::with_source(Kind::Corrupt, format!("labels in the log: {error}"), error)
            })?;
            self.state.next_id = self.state.next_id.max(id.saturating_add(1));
            if self.slots.contains_key(&id) {
                continue;
            }
            let hash = placement_hash(tenant.id.as_str(), labels);
            let slot = match self.state.find(tenant.index, labels, hash) {
                // The series had been forgotten and came back under a new number.
                Some(slot) => {
                    if let Some(series) = self.state.get_mut(slot) {
                        series.hot.id = id;
                    }
                    slot
                }
                None => {
                    tenant.count_series();
                    self.state.insert(tenant.index, labels, hash, id)
                }
            };
            self.slots.insert(id, slot);
            // Most series are new where the log names them: nothing is kept for those.
            if newest != NEVER {
                self.newest.push((slot, newest));
            }
        }
        Ok(())
    }

    fn floats(&mut self, kind: u8, reader: Reader<'_>, position: u64) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let read = reader.floats(kind, |id, sample| {
            // Sums of times must not overflow, whoever wrote them.
            if sample.timestamp.unsigned_abs() > 1 << 62 {
                return Err(broken());
            }
            rows.extend(self.slot(id)?.map(|slot| (slot, sample)));
            Ok(())
        });
        if read.is_ok() {
            self.take(&rows, position);
        }
        self.rows = rows;
        read.map(|_| ())
    }

    fn take(&mut self, rows: &[(u32, Sample)], position: u64) {
        let range = self.settings.block_range;
        let mut window: Option<(u32, Timestamp)> = None;
        for few in rows.chunks(AHEAD) {
            self.state.series.touch(few.iter().map(|row| row.0));
            for &(slot, sample) in few {
                let Some(mut series) = self.state.get_mut(slot) else { continue };
                let (tenant, t) = (series.hot.tenant, sample.timestamp);
                series.replace_made_up(t);
                series.take(sample, range);
                if !window.is_some_and(|(of, start)| of == tenant && t >= start && t - start < range) {
                    self.state.tenants.note_window(tenant, t, range, position, self.now);
                    window = Some((tenant, super::window_start(t, range)));
                }
            }
        }
    }

    fn natives(&mut self, reader: Reader<'_>, position: u64) -> Result<(), Error> {
        let range = self.settings.block_range;
        rows::read_natives(reader, |id, timestamp, histogram| {
            let Some(slot) = self.slot(id)? else { return Ok(()) };
            let Some(mut series) = self.state.get_mut(slot) else { return Ok(()) };
            let tenant = series.hot.tenant;
            series.replace_made_up(timestamp);
            if !series.take_native(Row { timestamp, histogram }, range) {
                return Err(broken());
            }
            self.state.tenants.note_window(tenant, timestamp, range, position, self.now);
            Ok(())
        })
    }

    fn exemplars(&mut self, reader: Reader<'_>) -> Result<(), Error> {
        rows::read_exemplars(reader, |id, exemplar| {
            let Some(slot) = self.slot(id)? else { return Ok(()) };
            let Some(hot) = self.state.series.hot(slot) else { return Ok(()) };
            let Some(tenant) = self.tenants.by_index(hot.tenant) else { return Ok(()) };
            // By the number that the series has now.
            let key = (self.state.index, hot.id);
            tenant.exemplars.lock().take(key, || self.state.labels(slot), exemplar, self.settings);
            Ok(())
        })
    }

    fn zeros(&mut self, mut reader: Reader<'_>) -> Result<(), Error> {
        for (id, t) in reader.zeros()? {
            // Of a series that is not known, it says nothing.
            if let Some(&slot) = self.slots.get(&id)
                && let Some(mut series) = self.state.get_mut(slot)
            {
                series.mark_made_up(t);
            }
        }
        Ok(())
    }

    #[inline]
    fn slot(&mut self, id: u64) -> Result<Option<u32>, Error> {
        // Neighbours in a record are mostly neighbours in memory.
        let guess = self.last.1.wrapping_add(1);
        if id == self.last.0.wrapping_add(1) && self.state.series.hot(guess).is_some_and(|s| s.id == id) {
            self.last = (id, guess);
            return Ok(Some(guess));
        }
        match self.slots.get(&id) {
            Some(&slot) => {
                self.last = (id, slot);
                Ok(Some(slot))
            }
            None if id < self.forgotten_before => Ok(None),
            None => {
                Err(Error::new(Kind::Corrupt, format!("log has samples of series {id} without its labels")))
            }
        }
    }

    fn freeze(&mut self, mut reader: Reader<'_>, position: u64) -> Result<(), Error> {
        let tenant = self.tenants.get_or_add(&reader.tenant()?);
        let block = reader.text()?;
        let window = time_range(&mut reader)?;
        let begun = self.state.frozen.iter().find(|f| f.tenant == tenant.index && *f.block == *block);
        let tag = match begun.map(|f| f.tag) {
            Some(tag) => tag,
            None => match self.state.begin_freeze(tenant.index, window, block, Some(position)) {
                Some(tag) => tag,
                None => return Ok(()),
            },
        };
        for id in reader.ids()? {
            if let Some(slot) = self.slot(id)?
                && let Some(mut series) = self.state.get_mut(slot)
            {
                series.freeze(window, self.settings.block_range, tag);
            }
        }
        Ok(())
    }

    fn delete(&mut self, mut reader: Reader<'_>) -> Result<(), Error> {
        let range = time_range(&mut reader)?;
        for id in reader.ids()? {
            if let Some(slot) = self.slot(id)?
                && let Some(mut series) = self.state.get_mut(slot)
            {
                series.delete(range)?;
                let (tenant, id) = (series.hot.tenant, series.hot.id);
                let key = (self.state.index, id);
                if let Some(tenant) = self.tenants.by_index(tenant) {
                    tenant.exemplars.lock().delete(key, range);
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self, block: &str) {
        let Some((tag, tenant, start)) =
            self.state.frozen.iter().find(|f| *f.block == *block).map(|f| (f.tag, f.tenant, f.window.start))
        else {
            return;
        };
        let remember = self.settings.is_open(start, self.now);
        for slot in self.all_of(tenant) {
            if let Some(mut series) = self.state.get_mut(slot) {
                series.drop_frozen(tag, remember);
            }
        }
        self.state.end_freeze(tag, Outcome::dropped(remember));
    }

    fn all_of(&self, tenant: u32) -> Vec<u32> {
        self.state.tenant(tenant).map(|t| t.postings.all.to_vec()).unwrap_or_default()
    }

    fn finish(self) -> Orphans {
        let mut orphans = Orphans::new();
        for frozen in self.state.frozen.clone() {
            for slot in self.all_of(frozen.tenant) {
                if let Some(mut series) = self.state.get_mut(slot) {
                    series.thaw(frozen.tag);
                }
            }
            self.state.end_freeze(frozen.tag, Outcome::Thawed);
            if let Some(tenant) = self.tenants.by_index(frozen.tenant) {
                orphans.insert((tenant.id.clone(), frozen.block.to_string()));
            }
        }
        let newest = self.newest;
        self.state.raise_newest(&newest);
        orphans
    }
}

/// A range of times that is not empty: whoever wrote another one is damaged.
fn time_range(reader: &mut Reader<'_>) -> Result<TimeRange, Error> {
    let range = TimeRange::new(reader.z()?, reader.z()?);
    if range.is_empty() { Err(broken()) } else { Ok(range) }
}
