//! The two threads of a log: one writes and syncs what was enqueued, one keeps a spare segment ready.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use model::Kind;
use parking_lot::MutexGuard;

use crate::Error;
use crate::error;
use crate::log::{Mode, Shared, State};
use crate::record;
use crate::segment::{self, Segment};
use crate::staging::{Run, Staging};

/// How often `fast` mode syncs.
const FAST_SYNC: Duration = Duration::from_secs(1);
/// How often a full disk is tried again.
const SPARE_RETRY: Duration = Duration::from_secs(1);

pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    if shared.stepped.is_some() {
        shared.wake_spare(Duration::ZERO);
        return Ok(Vec::new());
    }
    let spawn = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared)).map_err(|error| Error {
            kind: Kind::Internal,
            message: format!("start thread {name}: {error}"),
            source: Some(error.into()),
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

/// The writer's own: buffers that are used again, and what is not synced yet.
pub(crate) struct Writer {
    buf: Vec<u8>,
    runs: Vec<Run>,
    group: Group,
}

impl Writer {
    /// For a log that is durable up to `tail`.
    pub(crate) fn new(tail: u64) -> Writer {
        Writer { buf: Vec::new(), runs: Vec::new(), group: Group { synced: tail, dirty: None } }
    }

    /// Takes what has gathered, writes it, syncs it, says so; false once there will be nothing more to do.
    fn turn(&mut self, shared: &Shared, mut staging: MutexGuard<'_, Staging>) -> bool {
        if shared.state.borrow().poisoned.is_some() {
            return false;
        }
        if staging.abandoned || (staging.closed && staging.buf.is_empty() && self.group.dirty.is_none()) {
            return false;
        }
        staging.announced = false;
        std::mem::swap(&mut self.buf, &mut staging.buf);
        std::mem::swap(&mut self.runs, &mut staging.runs);
        let tail = staging.next_seq - 1;
        drop(staging);
        if let Err(error) = self.group.write(shared, &mut self.buf, &self.runs, tail) {
            poison(shared, &error.to_string());
            return false;
        }
        self.buf.clear();
        self.runs.clear();
        // A burst must not hold its memory for ever.
        self.buf.shrink_to(8 << 20);
        true
    }
}

/// The thread: turn after turn; while the sync runs, the next group gathers.
fn write(shared: &Shared) {
    let mut writer = Writer::new(shared.state.borrow().durable);
    loop {
        let mut staging = shared.staging.lock();
        while !staging.has_work() && !staging.closed && !staging.abandoned && writer.group.dirty.is_none() {
            shared.work.wait(&mut staging);
        }
        let sync_now = staging.sync_wanted > writer.group.synced;
        if !staging.has_work() && !staging.closed && !staging.abandoned && !sync_now {
            // Fast mode with something unsynced: wait for more, but not for long.
            shared.work.wait_for(&mut staging, FAST_SYNC);
        }
        if !writer.turn(shared, staging) {
            break;
        }
    }
    end(shared);
}

/// What the thread would do, as long as there is something to do, where there is none.
pub(crate) fn step(shared: &Shared) {
    let Some(writer) = &shared.stepped else { return };
    let mut writer = writer.lock();
    loop {
        let staging = shared.staging.lock();
        let sync_now = staging.sync_wanted > writer.group.synced && writer.group.dirty.is_some();
        if !staging.has_work() && !staging.closed && !staging.abandoned && !sync_now {
            return;
        }
        if !writer.turn(shared, staging) {
            break;
        }
    }
    end(shared);
}

fn end(shared: &Shared) {
    shared.state.send_modify(|state| state.ended = true);
    shared.wake();
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
                error::io("write log segment", &path, error)
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
            error::io("sync log segment", &segment::segment_path(&shared.settings.dir, segment.index), error)
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
    shared.wake();
}

pub(crate) fn poison(shared: &Shared, error: &str) {
    tracing::error!(error = %error, "the log has failed: nothing is acknowledged any more; restart the process");
    metrics::gauge!("tributary_wal_poisoned").set(1.0);
    let reason: Arc<str> = error.into();
    shared.state.send_modify(|state| state.poisoned = Some(reason));
    shared.staging.lock().closed = true;
    shared.work.notify_all();
    shared.spare.notify_all();
    shared.wake();
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
        if !make_spare(shared, &mut staging) && !staging.closed && !staging.abandoned {
            shared.spare.wait_for(&mut staging, SPARE_RETRY);
        }
    }
}

/// What that thread would do, where there is none.
pub(crate) fn step_spare(shared: &Shared) {
    let mut staging = shared.staging.lock();
    let idle = staging.spare.is_some() || staging.closed || staging.abandoned;
    if !idle && !make_spare(shared, &mut staging) {
        shared.wake_spare(SPARE_RETRY);
    }
}

/// Makes a spare segment, without holding the lock meanwhile; false where that fails.
pub(crate) fn make_spare(shared: &Shared, staging: &mut MutexGuard<'_, Staging>) -> bool {
    let index = staging.current.index + 1;
    let made = MutexGuard::unlocked(staging, || {
        segment::create(&*shared.world.disk, &shared.settings.dir, index, shared.settings.segment_bytes)
    });
    let done = match made {
        Ok(segment) => {
            staging.spare = Some(Arc::new(segment));
            if staging.read_only.take().is_some() {
                tracing::info!("the disk has room again: the log takes writes");
            }
            metrics::gauge!("tributary_wal_read_only").set(0.0);
            true
        }
        Err(error) => {
            if staging.read_only.is_none() {
                tracing::warn!(error = %error, "no spare log segment; writes stop when the current one is full");
            }
            metrics::gauge!("tributary_wal_read_only").set(1.0);
            staging.read_only = Some(error.to_string().into());
            false
        }
    };
    shared.spare.notify_all();
    done
}
