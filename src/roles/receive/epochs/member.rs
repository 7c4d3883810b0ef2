//! This node as a member of the agreed ring: registers, warms up, promises, and reports what is in the bucket.
//!
//! Everything that it does follows from the agreed state, from its own promise (durable in its data folder) and from what
//! its engine and the bucket hold; so a restart goes on wherever it was. Proposals that are not answered are made again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agreed::{Command, EpochNumber, Needed, Registration, State, View};
use control::{About, Handle, Request, Response, Transport};
use model::{Kind, Timestamp};
use parking_lot::Mutex;
use runtime::{Shutdown, World};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tsdb::Tsdb;

use crate::Error;
use crate::epochs::drain::{Drain, Left};
use crate::epochs::gate::{Pass, Promise, returned};
use crate::epochs::told::Told;
use crate::hints::Hints;
use crate::write::Writer;

/// How often it is looked again while something is left to do, and while nothing is.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(15);
/// Pause between two cuts of what trickles into a node that is leaving.
const CUT_AGAIN: Duration = Duration::from_secs(10);
/// How long a member that left the ring may take to bring its data into the bucket before those that stay bring in
/// their copies early: it may be away for good. As long after a disk was lost.
const EARLY_AFTER_MS: i64 = 5 * 60_000;
/// After how long it is said again what this node waits for.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long writes that were let in by an earlier promise are waited for at a time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the control plane in the process, from before the engine is open.
#[derive(Default)]
pub struct Governed {
    handle: OnceLock<Handle>,
    kept: Mutex<Kept>,
    progress: Mutex<Progress>,
}

/// How far this node is, for whoever asks.
#[derive(Clone, Debug, Default)]
struct Progress {
    left: Option<Left>,
    hints: u64,
    /// Since when nothing here has been needed.
    free: Option<Instant>,
}

impl Governed {
    /// From now on the ring is the control plane's.
    pub fn set(&self, handle: Handle) {
        self.handle.get_or_init(|| handle);
    }

    pub fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    /// What was promised in an earlier life, as it was read at the start.
    pub fn keep(&self, kept: Kept) {
        *self.kept.lock() = kept;
    }

    pub fn kept(&self) -> Kept {
        self.kept.lock().clone()
    }

    /// Whether the node at `address` may be stopped and its folder deleted; else why not. `grace` is how long everybody who
    /// reads is given to hear that it is not needed any more.
    pub fn drained(&self, address: &str, grace: Duration) -> Result<(), String> {
        let Some(handle) = self.handle() else { return Ok(()) };
        let state = handle.now().state;
        let Some(current) = state.current() else {
            return Err("the control plane has not been heard since the start".to_owned());
        };
        let progress = self.progress.lock().clone();
        let left = match &progress.left {
            Some(left) => left.to_string(),
            None => "it is being looked what is left".to_owned(),
        };
        match state.needed(address) {
            Some(Needed::Member) => {
                return Err(format!("{address} is a member of the ring (epoch {})", current.number));
            }
            Some(Needed::Holds { epoch }) => {
                return Err(format!("what was acknowledged in epoch {epoch} is here: {left}"));
            }
            None => {}
        }
        if progress.left.as_ref().is_none_or(|left| !left.is_nothing()) {
            return Err(left);
        }
        if progress.hints > 0 {
            return Err(format!(
                "{} samples that other receivers missed are on their way to them",
                progress.hints
            ));
        }
        let told = progress.free.map(|since| since.elapsed()).unwrap_or_default();
        match grace.checked_sub(told) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(left) => Err(format!(
                "nothing is needed here any more; queriers are given {} s more to hear of it",
                left.as_secs() + 1
            )),
        }
    }
}

/// What this node has promised, in its data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The cluster whose data are here; empty before it has joined one.
    pub cluster: String,
    /// Of the log that the promise is about.
    pub incarnation: String,
    /// Writes of epochs before this one are not taken.
    pub min_epoch: EpochNumber,
}

impl Kept {
    fn path(dir: &Path) -> PathBuf {
        dir.join("ring-epoch.json")
    }

    /// Reads what was promised; nothing where the log has begun anew since. Blocks on the disk.
    pub fn read(world: &World, dir: &Path, incarnation: &str) -> Result<Kept, Error> {
        let path = Kept::path(dir);
        let new = Kept { incarnation: incarnation.to_owned(), ..Kept::default() };
        if !world.disk.exists(&path) {
            return Ok(new);
        }
        let bytes = world.disk.read(&path).map_err(|error| {
            Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error)
        })?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!(
                "{} cannot be read: {error}; it says which writes this node has promised not to take. If it is lost, \
                 start with an empty data folder: the other copies have what is here",
                path.display()
            );
            Error::with_source(Kind::Corrupt, text, error)
        })?;
        Ok(if kept.incarnation == incarnation { kept } else { new })
    }

    fn write(&self, world: &World, dir: &Path) -> Result<(), Error> {
        let path = Kept::path(dir);
        let failed = |error: std::io::Error| {
            Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error)
        };
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::with_source(Kind::Internal, "a promise cannot be written", error))?;
        world.disk.write_atomic(&path, &bytes).map_err(failed)
    }
}

/// A member at work.
pub struct Member {
    pub handle: Handle,
    /// How it is found out who answers at this node's address; none where there is nobody to ask.
    pub transport: Option<Arc<dyn Transport>>,
    pub governed: Arc<Governed>,
    pub writer: Arc<Writer>,
    pub engine: Arc<Tsdb>,
    pub drain: Arc<Drain>,
    pub hints: Arc<Hints>,
    pub world: World,
    pub dir: PathBuf,
    pub address: String,
    /// Feature levels that it speaks, from and to.
    pub levels: (u32, u32),
    /// How far ahead of the clock samples may be.
    pub tolerance: i64,
    pub kept: Kept,
    /// The epoch that stale routers are told of.
    pub told: EpochNumber,
    /// Promises of before that may have writes under way.
    pub under_way: Vec<Pass>,
    /// Everything that was taken by them is at most this new.
    pub newest: Timestamp,
    pub cut: Option<Instant>,
    /// What was taken in epochs up to this one has been cut early.
    pub brought: EpochNumber,
}

impl Member {
    /// Works until the shutdown. An error is a node that must not run here: of another cluster, or too old.
    pub async fn run(mut self, until: Shutdown) -> Result<(), Error> {
        let mut seen = self.handle.seen();
        // What was replayed may be of any epoch up to the promise.
        self.newest = self.world.clock.now_ms().saturating_add(self.tolerance);
        let mut told: Option<(String, Instant)> = None;
        loop {
            let state = Arc::clone(&seen.borrow_and_update().state);
            let stepped = tokio::select! {
                biased;
                () = until.wait() => return Ok(()),
                stepped = self.step(&state) => stepped,
            };
            let busy = match stepped {
                Ok(busy) => {
                    told = None;
                    busy
                }
                Err(error) if matches!(error.kind, Kind::Unavailable | Kind::Internal) => {
                    let known = told
                        .as_ref()
                        .is_some_and(|(what, at)| *what == error.message && at.elapsed() < SAY_AGAIN);
                    if !known {
                        tracing::warn!(%error, "this node's part in the ring waits; it is tried again");
                        told = Some((error.message, Instant::now()));
                    }
                    true
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                biased;
                () = until.wait() => return Ok(()),
                changed = seen.changed() => if changed.is_err() {
                    until.wait().await;
                    return Ok(());
                },
                () = tokio::time::sleep(if busy { SOON } else { LATER }) => {}
            }
        }
    }

    /// Does what the state asks for now; true if something is left to do.
    async fn step(&mut self, state: &State) -> Result<bool, Error> {
        let Some(current) = state.current() else { return Ok(true) };
        if !self.kept.cluster.is_empty() && self.kept.cluster != state.cluster {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "the data in {} belong to cluster {}, and the control plane is that of cluster {}; give this node an \
                     empty folder, or the voters of its own cluster",
                    self.dir.display(),
                    self.kept.cluster,
                    state.cluster
                ),
            ));
        }
        let node = state.nodes.get(&self.address);
        let Some(node) = node.filter(|node| {
            node.incarnation == self.kept.incarnation
                && node.ships == self.drain.has_bucket()
                && node.levels == self.levels
        }) else {
            self.register(state).await?;
            return Ok(true);
        };
        if let Some(pending) = &state.pending
            && state.warming().contains(&self.address.as_str())
        {
            let ready = Command::Ready { address: self.address.clone(), epoch: pending.epoch };
            self.propose(ready).await?;
        }
        let number = current.number;
        if number < self.kept.min_epoch {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "this node has promised to take no writes before epoch {}, and the control plane is at epoch {number}: it \
                     has forgotten some. Writes go on once its epochs have passed the promise: `tributary ring force` \
                     begins one",
                    self.kept.min_epoch
                ),
            ));
        }
        if number > self.told {
            self.promise(state, number).await?;
        }
        if node.min_epoch < self.kept.min_epoch {
            let (address, incarnation) = (self.address.clone(), self.kept.incarnation.clone());
            let (min_epoch, time) = (self.kept.min_epoch, self.world.clock.now_ms());
            self.propose(Command::Adopted { address, incarnation, min_epoch, time }).await?;
        }
        self.bring_in(state, node.joined).await
    }

    async fn propose(&self, command: Command) -> Result<(), Error> {
        tracing::debug!(?command, "proposed");
        match self.handle.propose(command).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // What does not fit how things stand is looked at again when they have changed.
                Err(Error::with_source(Kind::Unavailable, error.message.clone(), error))
            }
        }
    }

    async fn register(&mut self, state: &State) -> Result<(), Error> {
        if let Some(transport) = &self.transport {
            let there = match transport.call(&self.address, Request::About).await {
                Ok(Response::About(about)) => Some(about),
                _ => None,
            };
            identity(state, &self.address, &self.kept.incarnation, there.as_ref())?;
        }
        let node = Registration {
            address: self.address.clone(),
            incarnation: self.kept.incarnation.clone(),
            cluster: self.kept.cluster.clone(),
            levels: self.levels,
            ships: self.drain.has_bucket(),
        };
        let register = Command::Register { node, time: self.world.clock.now_ms() };
        match self.handle.propose(register).await {
            Ok(outcome) => {
                tracing::info!(address = self.address, ?outcome, "registered with the control plane")
            }
            // Another cluster's, or of a version that does not fit: it must not run here.
            Err(error) => return Err(Error::with_source(error.kind, error.message.clone(), error)),
        }
        if self.kept.cluster.is_empty() {
            self.keep(Kept { cluster: state.cluster.clone(), ..self.kept.clone() }).await?;
        }
        Ok(())
    }

    async fn keep(&mut self, kept: Kept) -> Result<(), Error> {
        let (world, dir, writing) = (self.world.clone(), self.dir.clone(), kept.clone());
        let threads = self.world.threads.clone();
        let written = threads.blocking(move || writing.write(&world, &dir)).await;
        written
            .map_err(|error| Error::with_source(Kind::Internal, "keeping a promise broke off", error))??;
        self.kept = kept;
        Ok(())
    }

    /// From now on no write of an earlier epoch is taken: first on disk, then in force, then told.
    async fn promise(&mut self, state: &State, number: EpochNumber) -> Result<(), Error> {
        let Some(current) = state.current() else { return Ok(()) };
        if number > self.kept.min_epoch {
            let cluster = state.cluster.clone();
            self.keep(Kept { cluster, min_epoch: number, ..self.kept.clone() }).await?;
        }
        let told = Told::of(&state.cluster, state.generation, current).encode();
        let member = current.view.has(&self.address);
        let promise = Promise::From { epoch: self.kept.min_epoch, told, member };
        let before = self.writer.local().gate().raise(promise);
        self.under_way.push(before);
        self.told = number;
        self.newest = self.world.clock.now_ms().saturating_add(self.tolerance);
        metrics::gauge!("tributary_ring_min_epoch").set(self.kept.min_epoch as f64);
        tracing::info!(epoch = number, "writes of earlier ring epochs are not taken any more");
        Ok(())
    }

    /// Whether anything that was taken in an epoch that is over has to be shown to be in the bucket, and what is done for it:
    /// a node that leaves, or that has the copies of one that is gone, cuts at once; else the usual cuts do it in time.
    async fn bring_in(&mut self, state: &State, joined: EpochNumber) -> Result<bool, Error> {
        let Some(current) = state.current() else { return Ok(true) };
        let (me, through) = (self.address.as_str(), self.kept.min_epoch.saturating_sub(1));
        let owed = state.epochs.iter().any(|epoch| {
            !epoch.retired
                && (joined..=through).contains(&epoch.number)
                && epoch.view.has(me)
                && !epoch.clear.contains(me)
        });
        let leaving = !matches!(state.needed(me), Some(Needed::Member));
        if !self.drain.has_bucket() {
            return Ok(false);
        }
        if !owed && !leaving {
            self.note(None, 0, false);
            return Ok(false);
        }
        // What was let in by an earlier promise has to be in the head before it is looked at.
        while let Some(pass) = self.under_way.last() {
            if tokio::time::timeout(PATIENCE, returned(pass)).await.is_err() {
                return Ok(true);
            }
            self.under_way.pop();
        }
        let at_once = leaving || (owed && self.is_early(state, current.since));
        let head = self.engine.head_stats();
        let may_cut = self.cut.is_none_or(|at| at.elapsed() >= CUT_AGAIN);
        // Who leaves cuts until nothing trickles in any more. Who stays takes what is new all the while: one cut has all
        // that was taken before it.
        let cut_due = match leaving {
            true => head.samples > 0 || self.cut.is_none(),
            false => self.brought < through,
        };
        let left = if at_once {
            let mut left = match cut_due && may_cut {
                true => {
                    self.cut = Some(Instant::now());
                    let left = self.drain.push(&self.engine).await?;
                    self.brought = self.brought.max(through);
                    left
                }
                false => self.drain.upload(&self.engine).await?,
            };
            if !leaving && self.brought >= through {
                left.samples = 0;
            }
            left
        } else if head.range.is_some_and(|range| range.start <= self.newest) {
            // The windows of then are not all cut yet.
            return Ok(false);
        } else {
            Left { samples: 0, ..self.drain.look(&self.engine).await? }
        };
        let done = left.is_nothing();
        if done && owed {
            let (address, incarnation) = (me.to_owned(), self.kept.incarnation.clone());
            self.propose(Command::Clear { address, incarnation, through }).await?;
            tracing::info!(
                through,
                "everything of the ring epochs that are over can be read from the bucket"
            );
        }
        let hints = if leaving { self.hints_under_way().await? } else { 0 };
        let free = leaving && done && hints == 0 && state.needed(me).is_none();
        self.note(Some(left), hints, free);
        Ok(at_once)
    }

    fn note(&self, left: Option<Left>, hints: u64, free: bool) {
        let figures = left.clone().unwrap_or_default();
        metrics::gauge!("tributary_drain_samples").set(figures.samples as f64);
        metrics::gauge!("tributary_drain_blocks").set(figures.blocks() as f64);
        let mut progress = self.governed.progress.lock();
        let free = free.then(|| progress.free.unwrap_or_else(Instant::now));
        *progress = Progress { left, hints, free };
    }

    /// Whether a member of an epoch that is not in the bucket has left and has been silent about its data for long, or has
    /// come back with an empty disk: of what it had there is a copy less.
    fn is_early(&self, state: &State, since: Timestamp) -> bool {
        let Some(current) = state.current() else { return false };
        let gone = state.epochs.iter().filter(|epoch| !epoch.retired).any(|epoch| {
            let here = |a: &str| {
                current.view.has(a) && state.nodes.get(a).is_none_or(|node| node.joined <= epoch.number)
            };
            epoch.view.members().into_iter().any(|a| !here(a) && !epoch.clear.contains(a))
        });
        matches!(current.view, View::Stable(_))
            && gone
            && self.world.clock.now_ms().saturating_sub(since) >= EARLY_AFTER_MS
    }

    /// Samples of hints that can be delivered: those for a peer that is away wait for it elsewhere as copies.
    async fn hints_under_way(&self) -> Result<u64, Error> {
        let hints = Arc::clone(&self.hints);
        let figures = self.world.threads.blocking(move || hints.figures()).await;
        let figures =
            figures.map_err(|error| Error::with_source(Kind::Internal, "looking at hints", error))?;
        let current = self.writer.ring().current();
        let is_away = |peer: &str| current.peers().any(|p| p.address() == peer && p.breaker_level() > 0);
        Ok(figures.into_iter().filter(|(peer, ..)| !is_away(peer)).map(|(_, _, samples, _)| samples).sum())
    }
}

/// Whether the node that has this log may register under this address, at which `there` answers. Two that take each other's
/// place would each make the cluster doubt the other's disk, over and over; two with one log would each pass for the other.
fn identity(state: &State, address: &str, incarnation: &str, there: Option<&About>) -> Result<(), Error> {
    let refused = |text: String| Err(Error::new(Kind::Refused, text));
    let twin = state.nodes.iter().find(|(other, node)| *other != address && node.incarnation == incarnation);
    if let Some((other, _)) = twin.filter(|(other, _)| state.needed(other).is_some()) {
        return refused(format!(
            "the data folder of this node, {address}, is that of {other}, which the ring still needs; start it as {other}, or \
             give {address} an empty folder of its own"
        ));
    }
    match there {
        Some(about) if !about.incarnation.is_empty() && about.incarnation != incarnation => refused(format!(
            "another node answers at {address}, which is this one's --receive.local-endpoint; give each node an address of \
             its own"
        )),
        Some(_) => Ok(()),
        None => match state.nodes.get(address) {
            Some(known) if known.incarnation != incarnation => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "this node has another disk than {address} had, and does not answer at that address; it takes the place \
                     once it does: is it its own --receive.local-endpoint?"
                ),
            )),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_answers_at_an_address_takes_it_and_no_log_counts_twice() {
        let mut state = State::default();
        let text = r#"[{"endpoints": ["a:1", "b:1"]}]"#.to_owned();
        let plan = agreed::RingPlan { text, replication: 1, quorum: 1, hashmod: false };
        state.apply(Command::Form { cluster: "c".to_owned(), plan, by: String::new(), time: 0 }).unwrap();
        for (address, incarnation) in [("a:1", "one"), ("b:1", "two"), ("d:1", "four")] {
            let (address, incarnation) = (address.to_owned(), incarnation.to_owned());
            let node =
                Registration { address, incarnation, cluster: String::new(), levels: (1, 1), ships: true };
            state.apply(Command::Register { node, time: 0 }).unwrap();
        }
        let there = |incarnation: &str| About { incarnation: incarnation.to_owned(), ..About::default() };
        let judged = |address: &str, incarnation: &str, at: Option<&str>| {
            let at = at.map(there);
            identity(&state, address, incarnation, at.as_ref()).map_err(|e| e.kind)
        };
        // One that is new, one that changed its settings, one whose disk is new.
        assert_eq!(judged("c:1", "three", Some("three")), Ok(()));
        assert_eq!(judged("c:1", "three", None), Ok(()));
        assert_eq!(judged("a:1", "one", None), Ok(()));
        assert_eq!(judged("a:1", "new", Some("new")), Ok(()));
        // One under another's address, whether that runs or not.
        assert_eq!(judged("a:1", "new", Some("one")), Err(Kind::Refused));
        assert_eq!(judged("c:1", "new", Some("three")), Err(Kind::Refused));
        assert_eq!(judged("a:1", "new", None), Err(Kind::Unavailable));
        // One with a copy of another's folder; the folder of one that is not needed may have another name.
        assert_eq!(judged("c:1", "two", Some("two")), Err(Kind::Refused));
        assert_eq!(judged("a:1", "two", Some("two")), Err(Kind::Refused));
        assert_eq!(judged("c:1", "four", Some("four")), Ok(()));
    }

    #[test]
    fn a_promise_is_kept_for_its_log_alone_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let none = Kept::read(&world, dir.path(), "one").unwrap();
        assert_eq!((none.min_epoch, none.cluster.as_str()), (0, ""));
        let kept = Kept { cluster: "c".to_owned(), min_epoch: 7, ..none };
        kept.write(&world, dir.path()).unwrap();
        assert_eq!(Kept::read(&world, dir.path(), "one").unwrap(), kept);
        assert_eq!(Kept::read(&world, dir.path(), "two").unwrap().min_epoch, 0);
        world.disk.write_atomic(&Kept::path(dir.path()), b"{").unwrap();
        let error = Kept::read(&world, dir.path(), "one").unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains("empty data folder"), "{error}");
    }
}
