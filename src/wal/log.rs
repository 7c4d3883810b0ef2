//! The log as its users see it: reserve, enqueue, wait, checkpoint, close.
//!
//! # Cost
//! An append takes the staging lock twice (reserve, enqueue) and copies its bytes once; checksums are the
//! writer's work. Waiting costs nothing until the position is durable. Locks in order: staging, then state.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use model::Kind;
use parking_lot::{Condvar, Mutex};
use runtime::World;
use tokio::sync::{oneshot, watch};

use crate::Error;
use crate::reader;
use crate::record::framed_len;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::staging::Staging;
use crate::writer::Writer;

/// So many bytes are written without waiting for the end of their batch.
const WORTH_A_WRITE: usize = 256 << 10;

/// When a position counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Written and synced.
    Durable,
    /// Written; synced once a second.
    Fast,
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Settings {
    pub dir: PathBuf,
    /// Size of a segment in bytes, header included.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer.
    pub queue_bytes: u64,
    pub mode: Mode,
    /// Kinds that the caller understands; others below [`crate::FIRST_SKIPPABLE_KIND`] are refused at replay.
    pub known_kinds: &'static [u8],
}

/// A record handed back at replay.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub kind: u8,
    pub seq: u64,
    pub payload: &'a [u8],
    /// From the checkpoint, which comes before all segments and has sequence numbers of its own.
    pub from_checkpoint: bool,
    /// Bytes read so far, and in all.
    pub progress: (u64, u64),
}

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub segments: usize,
    pub records: u64,
    pub bytes: u64,
    /// Bytes of a torn tail that were never acknowledged and are gone.
    pub healed_bytes: u64,
}

/// How far the log is, and whether it failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Acknowledged up to here: synced, or in fast mode written.
    pub durable: u64,
    /// Synced up to here.
    pub synced: u64,
    pub poisoned: Option<Arc<str>>,
    pub ended: bool,
}

pub(crate) struct Shared {
    pub world: World,
    pub settings: Settings,
    pub staging: Mutex<Staging>,
    /// Wakes the writer.
    pub work: Condvar,
    /// Wakes the thread that makes spare segments, and those who wait for one.
    pub spare: Condvar,
    pub state: watch::Sender<State>,
    /// Wakes blocking waiters; guards nothing, the state is in `state`.
    pub turn: Mutex<()>,
    pub turned: Condvar,
    /// The writer, where it has no thread, and whether its next turn is asked for already.
    pub stepped: Option<Mutex<Writer>>,
    pub asked: AtomicBool,
    /// Itself, for whoever asks for a turn.
    pub own: Weak<Shared>,
    /// Tasks that wait, each for its position: only those are woken that have it.
    pub waiting: Mutex<Vec<Waiter>>,
}

pub(crate) struct Waiter {
    pub position: u64,
    pub done: oneshot::Sender<()>,
}

impl Shared {
    /// To be called after every change of the state.
    pub(crate) fn wake(&self) {
        let (durable, over) = {
            let state = self.state.borrow();
            (state.durable, state.poisoned.is_some() || state.ended)
        };
        let woken: Vec<Waiter> =
            self.waiting.lock().extract_if(.., |waiter| over || waiter.position <= durable).collect();
        for waiter in woken {
            // Who has given up needs no word.
            let _ = waiter.done.send(());
        }
        // Taking the lock orders this after the check of a waiter that is about to sleep.
        drop(self.turn.lock());
        self.turned.notify_all();
    }

    /// Wakes the writer.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
        if let Some(steps) = self.world.threads.steps()
            && !self.asked.swap(true, Relaxed)
        {
            let own = self.own.clone();
            steps.soon(
                "log",
                Box::new(move || {
                    if let Some(shared) = own.upgrade() {
                        shared.asked.store(false, Relaxed);
                        crate::writer::step(&shared);
                    }
                }),
            );
        }
    }

    /// Wakes whoever makes spare segments.
    pub(crate) fn wake_spare(&self, delay: Duration) {
        self.spare.notify_all();
        if let Some(steps) = self.world.threads.steps() {
            let own = self.own.clone();
            steps.after(
                "spare",
                delay,
                Box::new(move || {
                    if let Some(shared) = own.upgrade() {
                        crate::writer::step_spare(&shared);
                    }
                }),
            );
        }
    }
}

/// The log. Dropping it without [`Log::close`] abandons what was not yet written, as a crash would.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Space in the log that is sure to be there. Unused space is given back on drop.
pub struct Permit<'a> {
    shared: &'a Shared,
    left: u64,
    /// The writer is not woken for its records, but by [`Log::announce`].
    quiet: bool,
}

impl Log {
    /// Opens or creates the log, heals a torn tail, hands every record in order to `replay`, and starts to
    /// take appends. Fails with `Corrupt` where acknowledged records are damaged or missing.
    pub fn open<E: From<Error>>(
        world: &World,
        settings: Settings,
        replay: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(Log, Report), E> {
        let opened = reader::open(world, &settings, replay)?;
        let tail = opened.staging.next_seq - 1;
        let state = State { durable: tail, synced: tail, ..State::default() };
        let stepped = world.threads.steps().map(|_| Mutex::new(Writer::new(tail)));
        let shared = Arc::new_cyclic(|own| Shared {
            world: world.clone(),
            settings,
            staging: Mutex::new(opened.staging),
            work: Condvar::new(),
            spare: Condvar::new(),
            state: watch::Sender::new(state),
            turn: Mutex::new(()),
            turned: Condvar::new(),
            stepped,
            asked: AtomicBool::new(false),
            own: own.clone(),
            waiting: Mutex::default(),
        });
        let threads = crate::writer::start(&shared)?;
        Ok((Log { shared, threads: Mutex::new(threads) }, opened.report))
    }

    /// Largest payload of one record: a quarter of a segment.
    pub fn max_payload(&self) -> usize {
        (self.shared.settings.segment_bytes / 4) as usize
    }

    /// Promises space for `records` records of `payload` bytes in all. Unavailable while the queue is over its
    /// budget, the disk is full, or the log has failed; waits a little where a spare segment is being made.
    pub fn reserve(&self, payload: u64, records: u64) -> Result<Permit<'_>, Error> {
        let shared = &*self.shared;
        let bytes = payload + records * framed_len(7) as u64;
        let mut staging = shared.staging.lock();
        let mut rounds = 0;
        loop {
            self.check_alive(&staging)?;
            let queued = staging.buf.len() as u64 + staging.reserved;
            // One batch always passes, so that a small budget slows down instead of blocking for ever.
            if queued > 0 && queued + bytes > shared.settings.queue_bytes {
                metrics::counter!("tributary_wal_refused_total", "reason" => "queue").increment(1);
                return Err(Error::new(
                    Kind::Unavailable,
                    format!(
                        "log queue is full: {queued} bytes wait to be written, {bytes} more wanted, limit {}; \
                         retry later",
                        shared.settings.queue_bytes
                    ),
                ));
            }
            if staging.fits(bytes) {
                staging.reserved += bytes;
                return Ok(Permit { shared, left: bytes, quiet: false });
            }
            if bytes > usable(&shared.settings) {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("{bytes} bytes are too much for one append to the log; split it"),
                ));
            }
            if let Some(reason) = &staging.read_only {
                metrics::counter!("tributary_wal_refused_total", "reason" => "read_only").increment(1);
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("the log takes no writes until the disk has room again: {reason}"),
                ));
            }
            if rounds == 80 {
                return Err(Error::new(Kind::Unavailable, "the disk is too slow to make log segments"));
            }
            rounds += 1;
            if shared.stepped.is_some() {
                // Nobody else does it while this one waits.
                if staging.spare.is_some() || !crate::writer::make_spare(shared, &mut staging) {
                    rounds = 80;
                }
                continue;
            }
            // Woken when the spare is there; polls because space also comes back when permits are dropped.
            shared.spare.wait_for(&mut staging, Duration::from_millis(50));
        }
    }

    /// Enqueues one record and returns its position.
    pub fn append(&self, kind: u8, payload: &[u8]) -> Result<u64, Error> {
        self.reserve(payload.len() as u64, 1)?.enqueue(kind, &[payload])
    }

    /// Wakes the writer for what was enqueued quietly. Whoever waits for a position does so, too.
    pub fn announce(&self) {
        self.announce_up_to(u64::MAX);
    }

    /// Whether records of so many bytes could be enqueued by several at once and none would have to wait for a segment
    /// or for room in the queue.
    pub fn has_room(&self, bytes: u64) -> bool {
        const SEVERAL: u64 = 8;
        let (staging, wanted) = (self.shared.staging.lock(), bytes.saturating_mul(SEVERAL));
        let queued = staging.buf.len() as u64 + staging.reserved;
        queued.saturating_add(wanted) <= self.shared.settings.queue_bytes && staging.fits(wanted)
    }

    /// Position of the last record enqueued.
    pub fn tail(&self) -> u64 {
        self.shared.staging.lock().next_seq - 1
    }

    /// Position up to which everything is durable.
    pub fn durable(&self) -> u64 {
        self.shared.state.borrow().durable
    }

    /// Index of the segment that takes the next record, and of the one that holds record `seq`.
    pub fn segment_of(&self, seq: u64) -> u64 {
        let staging = self.shared.staging.lock();
        let at = staging.firsts.partition_point(|(first, _)| *first <= seq);
        match at {
            0 => staging.firsts.first().map_or(staging.current.index, |f| f.1),
            _ if seq >= staging.next_seq => staging.current.index,
            _ => staging.firsts[at - 1].1,
        }
    }

    /// Why the log failed, if it did.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.shared.state.borrow().poisoned.clone()
    }

    /// Declares the log failed, for a reason that only its user can see: nothing is acknowledged any more.
    pub fn poison(&self, reason: &str) {
        crate::writer::poison(&self.shared, reason);
    }

    /// Returns when the log has failed, or never.
    pub async fn until_poisoned(&self) -> Arc<str> {
        let mut state = self.shared.state.subscribe();
        loop {
            if let Some(reason) = &state.borrow_and_update().poisoned {
                return reason.clone();
            }
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Why the log takes no writes for the moment, if the disk is full.
    pub fn read_only(&self) -> Option<Arc<str>> {
        self.shared.staging.lock().read_only.clone()
    }

    /// Blocks until `position` is durable.
    pub fn wait(&self, position: u64, timeout: Duration) -> Result<(), Error> {
        self.wait_until(position, timeout, |state| state.durable)
    }

    /// Blocks until `position` is synced, in fast mode as well: for records that something outside of the log
    /// must not outlive.
    pub fn wait_synced(&self, position: u64, timeout: Duration) -> Result<(), Error> {
        {
            let mut staging = self.shared.staging.lock();
            staging.sync_wanted = staging.sync_wanted.max(position);
            // What there is goes with it; nothing there is announced ahead.
            staging.announced |= !staging.buf.is_empty();
            self.shared.wake_writer();
        }
        self.wait_until(position, timeout, |state| state.synced)
    }

    fn wait_until(&self, position: u64, timeout: Duration, of: fn(&State) -> u64) -> Result<(), Error> {
        let reached = || reached(&self.shared.state.borrow(), position, of);
        if reached()? {
            return Ok(());
        }
        self.announce_up_to(position);
        if self.shared.stepped.is_some() {
            crate::writer::step(&self.shared);
            let late =
                || Error::new(Kind::Unavailable, format!("the log is not durable up to record {position}"));
            return if reached()? { Ok(()) } else { Err(late()) };
        }
        let deadline = self.shared.world.clock.monotonic() + timeout;
        let mut turn = self.shared.turn.lock();
        loop {
            // The writer changes the state before it takes `turn`, so a change is never slept through.
            if reached()? {
                return Ok(());
            }
            if self.shared.turned.wait_until(&mut turn, deadline).timed_out() && !reached()? {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("the log was not durable up to record {position} within {timeout:?}"),
                ));
            }
        }
    }

    /// As [`Log::wait`], for tasks; the caller sets its own time limit.
    pub async fn wait_async(&self, position: u64) -> Result<(), Error> {
        let reached = || reached(&self.shared.state.borrow(), position, |state| state.durable);
        if reached()? {
            return Ok(());
        }
        let (done, woken) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            // The writer changes the state before it looks for waiters, so a change is never slept through.
            if reached()? {
                return Ok(());
            }
            waiting.push(Waiter { position, done });
        }
        self.announce_up_to(position);
        let gone = woken.await.is_err();
        match reached()? {
            true => Ok(()),
            false if gone => Err(Error::new(Kind::Unavailable, "the log is closed")),
            false => {
                Err(Error::new(Kind::Internal, "a position of the log was announced before it was durable"))
            }
        }
    }

    /// Wakes the writer if a record up to `position` waits for it. To announce more than there is would make it take
    /// the next batch before that is whole.
    fn announce_up_to(&self, position: u64) {
        let mut staging = self.shared.staging.lock();
        let waits = staging.runs.first().is_some_and(|run| run.first_seq <= position);
        if waits {
            staging.announced = true;
            self.shared.wake_writer();
        }
    }

    /// Writes and syncs all that was enqueued, then ends. Appends fail from here on.
    pub fn close(&self) -> Result<(), Error> {
        {
            let mut staging = self.shared.staging.lock();
            staging.closed = true;
            self.shared.work.notify_all();
            self.shared.spare.notify_all();
        }
        if self.shared.stepped.is_some() {
            crate::writer::step(&self.shared);
        }
        self.join();
        match self.poisoned() {
            Some(reason) => Err(Error::new(Kind::Internal, reason.to_string())),
            None => Ok(()),
        }
    }

    fn join(&self) {
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log ended by a panic");
            }
        }
    }

    fn check_alive(&self, staging: &Staging) -> Result<(), Error> {
        if let Some(reason) = self.poisoned() {
            return Err(Error::new(Kind::Unavailable, format!("the log has failed: {reason}")));
        }
        if staging.closed || staging.abandoned {
            return Err(Error::new(Kind::Unavailable, "the log is closed"));
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        {
            let mut staging = self.shared.staging.lock();
            staging.abandoned = true;
            self.shared.work.notify_all();
            self.shared.spare.notify_all();
        }
        self.join();
    }
}

impl Permit<'_> {
    /// Enqueues one record, its payload given in parts, and returns its position.
    pub fn enqueue(&mut self, kind: u8, parts: &[&[u8]]) -> Result<u64, Error> {
        let len = framed_len(parts.iter().map(|p| p.len()).sum()) as u64;
        if len > self.left {
            return Err(Error::new(
                Kind::Internal,
                format!("log record of {len} bytes is larger than its permit of {}", self.left),
            ));
        }
        let mut staging = self.shared.staging.lock();
        staging.reserved -= len;
        self.left -= len;
        let Some((seq, switched)) = staging.push(kind, parts) else {
            drop(staging);
            let reason = "log segment is full in spite of a permit";
            crate::writer::poison(self.shared, reason);
            return Err(Error::new(Kind::Internal, reason));
        };
        // A long batch does not wait for its end: the disk could be at work.
        if !self.quiet || staging.buf.len() >= WORTH_A_WRITE {
            staging.announced = true;
            self.shared.wake_writer();
        }
        if switched {
            self.shared.wake_spare(Duration::ZERO);
        }
        Ok(seq)
    }
}

impl Permit<'_> {
    /// Leaves it to [`Log::announce`] to wake the writer: of a batch whose records come shard by shard, the first would
    /// otherwise be written and synced alone, and the others wait for that.
    pub fn quietly(self) -> Self {
        let mut permit = self;
        permit.quiet = true;
        permit
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.shared.staging.lock().reserved -= self.left;
        }
    }
}

/// Whether a position is durable; an error where it never will be.
fn reached(state: &State, position: u64, of: fn(&State) -> u64) -> Result<bool, Error> {
    match &state.poisoned {
        _ if of(state) >= position => Ok(true),
        Some(reason) => Err(Error::new(Kind::Unavailable, format!("the log has failed: {reason}"))),
        None if state.ended => Err(Error::new(Kind::Unavailable, "the log is closed")),
        None => Ok(false),
    }
}

/// What the settings must satisfy.
pub(crate) fn check(settings: &Settings) -> Result<(), Error> {
    if settings.segment_bytes < 4096 {
        return Err(Error::new(
            Kind::Invalid,
            format!("log segments of {} bytes are too small; at least 4096", settings.segment_bytes),
        ));
    }
    Ok(())
}

/// Bytes for records in a segment of this size.
pub(crate) fn usable(settings: &Settings) -> u64 {
    settings.segment_bytes - SEGMENT_HEADER_BYTES
}
