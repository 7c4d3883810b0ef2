//! The two threads of a log: one writes and syncs what was enqueued, one keeps a spare segment ready.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use model::Kind;

use crate::Error;
use crate::log::{Mode, Shared, State};
use crate::record;
use crate::segment::{self, Segment};
use crate::staging::Run;

/// How often `fast` mode syncs.
const FAST_SYNC: Duration = Duration::from_secs(1);
/// How often a full disk is tried again.
const SPARE_RETRY: Duration = Duration::from_secs(1);

pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let spawn = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared)).map_err(|error| Error {
            kind: Kind::Internal,
            message: format!("start thread {name}: {error}"),
            source: Some(error),
        })
    };
    let writer = spawn("wal-writer", write)?;
    match spawn("wal-spare", keep_spare) {
        Ok(spare) => Ok(vec![writer, spare]),
        Err(error) => {
            shared.staging.lock().abandoned = true;
            shared.work.notify_all();
            Err(error)
        }
    }
}

/// Takes what has gathered, writes it, syncs it, says so; while the sync runs, the next group gathers.
fn write(shared: &Shared) {
    let mut buf = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut group = Group { synced: shared.state.borrow().durable, dirty: None };
    loop {
        let tail = {
            let mut staging = shared.staging.lock();
            while !staging.has_work() && !staging.closed && !staging.abandoned && group.dirty.is_none() {
                shared.work.wait(&mut staging);
            }
            let sync_now = staging.sync_wanted > group.synced;
            if !staging.has_work() && !staging.closed && !staging.abandoned && !sync_now {
                // Fast mode with something unsynced: wait for more, but not for long.
                shared.work.wait_for(&mut staging, FAST_SYNC);
            }
            if shared.state.borrow().poisoned.is_some() {
                break;
            }
            if staging.abandoned || (staging.closed && staging.buf.is_empty() && group.dirty.is_none()) {
                break;
            }
            staging.announced = false;
            std::mem::swap(&mut buf, &mut staging.buf);
            std::mem::swap(&mut runs, &mut staging.runs);
            staging.next_seq - 1
        };
        if let Err(error) = group.write(shared, &mut buf, &runs, tail) {
            poison(shared, &error.to_string());
            break;
        }
        buf.clear();
        runs.clear();
        // A burst must not hold its memory for ever.
        buf.shrink_to(8 << 20);
    }
    shared.state.send_modify(|state| state.ended = true);
    wake(shared);
}

/// What was written since the last sync.
struct Group {
    /// Everything up to here is synced.
    synced: u64,
    /// The segment that has unsynced bytes, with the time of the first of them and the last record.
    dirty: Option<(Arc<Segment>, std::time::Instant, u64)>,
}

impl Group {
    fn write(&mut self, shared: &Shared, buf: &mut [u8], runs: &[Run], tail: u64) -> Result<(), Error> {
        let (mut records, bytes) = (0, buf.len());
        for (at, run) in runs.iter().enumerate() {
            let next = runs.get(at + 1);
            let part = &mut buf[run.start..next.map_or(bytes, |next| next.start)];
            let last = next.map_or(tail, |next| next.first_seq - 1);
            // A segment is synced before the next one is begun: a hole in it can then never be mistaken for
            // a torn tail.
            if self.dirty.as_ref().is_some_and(|(segment, ..)| segment.index != run.segment.index) {
                self.sync(shared)?;
            }
            records += record::seal(part, self.synced);
            run.segment.file.write_all_at(part, run.offset).map_err(|error| {
                let path = segment::segment_path(&shared.settings.dir, run.segment.index);
                Error::io("write log segment", &path, error)
            })?;
            let since = self.dirty.as_ref().map_or_else(|| shared.world.clock.monotonic(), |d| d.1);
            self.dirty = Some((run.segment.clone(), since, last));
        }
        metrics::counter!("tributary_wal_written_bytes_total").increment(bytes as u64);
        metrics::counter!("tributary_wal_records_total").increment(records as u64);
        let due = match shared.settings.mode {
            Mode::Durable => true,
            Mode::Fast => {
                publish(shared, tail, self.synced);
                let asked = {
                    let staging = shared.staging.lock();
                    staging.closed || staging.sync_wanted > self.synced
                };
                let now = shared.world.clock.monotonic();
                asked || self.dirty.as_ref().is_some_and(|d| now.duration_since(d.1) >= FAST_SYNC)
            }
        };
        if due {
            self.sync(shared)?;
            publish(shared, self.synced, self.synced);
        }
        Ok(())
    }

    fn sync(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some((segment, _, last)) = self.dirty.take() else { return Ok(()) };
        let clock = &shared.world.clock;
        let start = clock.monotonic();
        segment.file.sync_data().map_err(|error| {
            Error::io("sync log segment", &segment::segment_path(&shared.settings.dir, segment.index), error)
        })?;
        metrics::histogram!("tributary_wal_fsync_duration_seconds")
            .record(clock.monotonic().duration_since(start).as_secs_f64());
        self.synced = last;
        Ok(())
    }
}

fn publish(shared: &Shared, durable: u64, synced: u64) {
    shared.state.send_modify(|state: &mut State| {
        state.durable = state.durable.max(durable);
        state.synced = state.synced.max(synced);
    });
    wake(shared);
}

fn wake(shared: &Shared) {
    // Taking the lock orders this after the check of a waiter that is about to sleep.
    drop(shared.turn.lock());
    shared.turned.notify_all();
}

pub(crate) fn poison(shared: &Shared, error: &str) {
    tracing::error!(error = %error, "the log has failed: nothing is acknowledged any more; restart the process");
    metrics::gauge!("tributary_wal_poisoned").set(1.0);
    let reason: Arc<str> = error.into();
    shared.state.send_modify(|state| state.poisoned = Some(reason));
    shared.staging.lock().closed = true;
    shared.work.notify_all();
    shared.spare.notify_all();
    wake(shared);
}

/// Makes a spare segment whenever there is none.
fn keep_spare(shared: &Shared) {
    let mut staging = shared.staging.lock();
    loop {
        if staging.closed || staging.abandoned {
            return;
        }
        if staging.spare.is_some() {
            shared.spare.wait(&mut staging);
            continue;
        }
        let index = staging.current.index + 1;
        drop(staging);
        let made =
            segment::create(&*shared.world.disk, &shared.settings.dir, index, shared.settings.segment_bytes);
        staging = shared.staging.lock();
        match made {
            Ok(segment) => {
                staging.spare = Some(Arc::new(segment));
                if staging.read_only.take().is_some() {
                    tracing::info!("the disk has room again: the log takes writes");
                }
                metrics::gauge!("tributary_wal_read_only").set(0.0);
                shared.spare.notify_all();
            }
            Err(error) => {
                if staging.read_only.is_none() {
                    tracing::warn!(error = %error, "no spare log segment; writes stop when the current one is full");
                }
                metrics::gauge!("tributary_wal_read_only").set(1.0);
                staging.read_only = Some(error.to_string().into());
                shared.spare.notify_all();
                if !staging.closed && !staging.abandoned {
                    shared.spare.wait_for(&mut staging, SPARE_RETRY);
                }
            }
        }
    }
}
