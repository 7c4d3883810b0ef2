//! What replicas missed, kept on disk until they can have it: one thread writes it, one task per replica delivers it.
//!
//! A hint is made where a replica did not take its copy of a write that was accepted without it: a peer that is away, or
//! this node itself while its log is being replayed. It is never waited for and never counts towards a quorum. What waits
//! to be written is bounded in bytes: before replicas are asked, each share has a place in the queue to its replica or in the
//! one here, which stays its own until it is stored there or written down here. A write without a place waits for one, or is
//! to be sent again: nothing is acknowledged of which a copy would have to be given up.
//! Of a folder that is damaged what can be read is delivered; the rest is kept beside it, loudly.

mod folder;
mod frame;
mod mend;
mod queue;
mod replay;
mod shelf;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use catalog::Catalog;
use model::{Kind, Timestamp};
use parking_lot::Mutex;
use runtime::{ByteGate, World};
use tokio::sync::Notify;

use folder::{name_of, peer_of};
use queue::Job;
pub use replay::{Untaken, run};
pub use shelf::Bounds;
use shelf::{GONE, Shelf};

use crate::Error;

/// Size of a file of hints.
const SEGMENT_BYTES: u64 = 8 << 20;
/// A folder that could not be opened or written is tried again after this time, in milliseconds.
const AGAIN_MS: i64 = 30_000;

/// How hints are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// None keeps no hints.
    pub dir: Option<PathBuf>,
    /// Of each peer.
    pub max_bytes: u64,
    /// Milliseconds.
    pub max_age: i64,
    /// Delivered to one peer, in bytes on disk per second.
    pub rate: u64,
    /// That may wait to be written.
    pub queue_bytes: u64,
    /// Bytes of the disk that are not for hints: the log needs them to go on.
    pub reserve: u64,
    /// How much older than the clock a sample may be that a peer takes in any order, in milliseconds.
    pub window: i64,
}

/// The hints of all peers.
pub struct Hints {
    world: World,
    settings: Settings,
    queue: ByteGate,
    jobs: Mutex<Option<Sender<Job>>>,
    /// The queue's other end until somebody writes what is in it.
    unread: Mutex<Option<Receiver<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What is to be written, where there is no thread for it.
    stepped: Mutex<Option<Receiver<Job>>>,
    /// Held while opening; true once closed, after which nothing is opened any more.
    closed: Mutex<bool>,
    shelves: Mutex<BTreeMap<String, Slot>>,
    /// None before it is opened and once it is closed.
    catalog: Mutex<Option<Catalog>>,
    /// The disk is too full for hints.
    is_short: AtomicBool,
    /// Something is there to deliver.
    pub(crate) news: Notify,
}

/// A peer's hints, or since when they cannot be had.
#[derive(Clone)]
enum Slot {
    Open(Arc<Mutex<Shelf>>),
    Failed(Timestamp),
}

impl Hints {
    pub fn new(world: &World, settings: Settings) -> Arc<Hints> {
        let queue = ByteGate::new(settings.queue_bytes);
        let (sender, receiver) = settings.dir.is_some().then(channel).unzip();
        Arc::new(Hints {
            world: world.clone(),
            settings,
            queue,
            jobs: Mutex::new(sender),
            unread: Mutex::new(receiver),
            thread: Mutex::default(),
            stepped: Mutex::default(),
            closed: Mutex::new(false),
            shelves: Mutex::default(),
            catalog: Mutex::default(),
            is_short: AtomicBool::new(false),
            news: Notify::new(),
        })
    }

    /// Begins to write what was missed, from the first request on. Blocks on the disk.
    pub fn open(self: &Arc<Hints>, catalog: Option<Catalog>) -> Result<(), Error> {
        let Some(dir) = &self.settings.dir else { return Ok(()) };
        let closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        *self.catalog.lock() = catalog;
        let failed = |error: std::io::Error| {
            Error::with_source(Kind::Unavailable, format!("hints in {}: {error}", dir.display()), error)
        };
        let disk = &*self.world.disk;
        disk.create_dir_all(dir).map_err(failed)?;
        for name in disk.list(dir).map_err(failed)? {
            if name.ends_with(GONE) {
                disk.remove_dir_all(&dir.join(name)).map_err(failed)?;
            }
        }
        let Some(receiver) = self.unread.lock().take() else { return Ok(()) };
        let hints = Arc::clone(self);
        match self.world.threads.steps() {
            Some(steps) => {
                *self.stepped.lock() = Some(receiver);
                steps.soon("hints", Box::new(move || hints.step()));
            }
            None => {
                let thread = std::thread::Builder::new()
                    .name("hints".to_owned())
                    .spawn(move || hints.write(&receiver));
                *self.thread.lock() = Some(thread.map_err(failed)?);
            }
        }
        Ok(())
    }

    /// Opens what an earlier life has left, which is read whole. Blocks on the disk.
    pub(crate) fn find(&self) -> Result<(), Error> {
        let Some(dir) = &self.settings.dir else { return Ok(()) };
        let closed = self.closed.lock();
        if *closed || !self.world.disk.exists(dir) {
            return Ok(());
        }
        let names = self.world.disk.list(dir).map_err(|error| {
            Error::with_source(Kind::Unavailable, format!("hints in {}: {error}", dir.display()), error)
        })?;
        for peer in names.iter().filter_map(|name| peer_of(name)) {
            self.shelf(&peer);
        }
        Ok(())
    }

    /// Opens anew what could not be read or written a while ago, whether or not there is something new for its peer: what was
    /// kept before waits in it. Blocks on the disk.
    pub(crate) fn find_again(&self) {
        let closed = self.closed.lock();
        let Some(dir) = self.settings.dir.as_ref().filter(|_| !*closed) else { return };
        let shelves = self.shelves.lock();
        let failed = shelves.iter().filter(|(_, slot)| matches!(slot, Slot::Failed(_)));
        let failed: Vec<String> = failed.map(|(peer, _)| peer.clone()).collect();
        drop(shelves);
        // What was set aside has no folder any more.
        for peer in failed.iter().filter(|peer| self.world.disk.exists(&dir.join(name_of(peer)))) {
            self.shelf(peer);
        }
    }

    /// The shelf of a peer, opened if need be; none where that fails, for a while.
    fn shelf(&self, peer: &str) -> Option<Arc<Mutex<Shelf>>> {
        let now = self.world.clock.now_ms();
        let mut shelves = self.shelves.lock();
        match shelves.get(peer) {
            Some(Slot::Open(shelf)) => return Some(Arc::clone(shelf)),
            Some(Slot::Failed(since)) if now.saturating_sub(*since) < AGAIN_MS => return None,
            _ => {}
        }
        let dir = self.settings.dir.as_ref()?.join(name_of(peer));
        let bounds = Bounds {
            max_bytes: self.settings.max_bytes,
            max_age: self.settings.max_age,
            segment_bytes: SEGMENT_BYTES.min(self.settings.max_bytes / 4),
        };
        let noted = self.catalog().and_then(|catalog| match catalog.hints() {
            Ok(mut known) => known.remove(peer).and_then(|index| index.cursor),
            Err(error) => {
                tracing::warn!(peer, %error, "hints are delivered from their beginning");
                None
            }
        });
        let opened = Shelf::open(&self.world, &dir, peer, bounds, noted);
        let slot = match opened {
            Ok(shelf) => Slot::Open(Arc::new(Mutex::new(shelf))),
            Err(error) => {
                self.set_aside(peer, &error);
                Slot::Failed(now)
            }
        };
        shelves.insert(peer.to_owned(), slot.clone());
        match slot {
            Slot::Open(shelf) => Some(shelf),
            Slot::Failed(_) => None,
        }
    }

    /// A shelf has failed: it is opened anew later, or set aside where it is not what it should be. Its lock is not held.
    pub(crate) fn fail(&self, peer: &str, error: &Error) {
        let failed = Slot::Failed(self.world.clock.now_ms());
        let before = self.shelves.lock().insert(peer.to_owned(), failed);
        if let Some(Slot::Open(shelf)) = before
            && let Err(error) = shelf.lock().end()
        {
            tracing::debug!(peer, %error, "hints of a folder that has failed may be lost");
        }
        self.set_aside(peer, error);
    }

    fn set_aside(&self, peer: &str, error: &Error) {
        if error.kind != Kind::Corrupt {
            tracing::error!(peer, %error, "hints cannot be kept or delivered; they are tried again");
            return;
        }
        let Some(dir) = self.settings.dir.as_ref().map(|dir| dir.join(name_of(peer))) else { return };
        let names = self.world.disk.list(&dir).unwrap_or_default();
        let bytes: u64 = names.iter().filter_map(|name| self.world.disk.len(&dir.join(name)).ok()).sum();
        mend::count(bytes);
        let aside = mend::aside(&self.world, &dir);
        let moved = self.world.disk.rename(&dir, &aside);
        tracing::error!(
            peer,
            %error,
            bytes,
            aside = %aside.display(),
            moved = moved.is_ok(),
            "a folder of hints is not what it should be and was set aside whole: the peer misses what is in it, the other \
             copies do not; `tributary tools wal inspect` shows its segments; put back under its name, with the node \
             stopped, once it is what it should be, it is delivered"
        );
    }

    /// Peers for whom something waits.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let open = self.open_shelves();
        open.into_iter().filter(|(_, shelf)| shelf.lock().waiting().0 > 0).map(|(peer, _)| peer).collect()
    }

    fn open_shelves(&self) -> Vec<(String, Arc<Mutex<Shelf>>)> {
        let shelves = self.shelves.lock();
        let open = shelves.iter().filter_map(|(peer, slot)| match slot {
            Slot::Open(shelf) => Some((peer.clone(), Arc::clone(shelf))),
            Slot::Failed(_) => None,
        });
        open.collect()
    }

    /// Hints, samples and bytes that wait, by peer.
    pub fn figures(&self) -> Vec<(String, u64, u64, u64)> {
        let figures = self.open_shelves().into_iter().map(|(peer, shelf)| {
            let shelf = shelf.lock();
            let (hints, samples) = shelf.waiting();
            (peer, hints, samples, shelf.bytes())
        });
        figures.collect()
    }

    pub(crate) fn note(&self, peer: &str, shelf: &Mutex<Shelf>) {
        if let Some(catalog) = self.catalog()
            && let Err(error) = shelf.lock().note(&catalog)
        {
            tracing::debug!(peer, %error, "the index of hints is behind");
        }
    }

    /// Removes a shelf that has nothing more, unless something came meanwhile.
    pub(crate) fn retire(&self, peer: &str) {
        let mut shelves = self.shelves.lock();
        let shelf = match shelves.remove(peer) {
            Some(Slot::Open(shelf)) => shelf,
            other => {
                shelves.extend(other.map(|slot| (peer.to_owned(), slot)));
                return;
            }
        };
        // Looked at only once nobody else knows it: whoever had it a moment ago may have kept something.
        let shelf = match Arc::try_unwrap(shelf) {
            Ok(shelf) => shelf.into_inner(),
            Err(shared) => {
                shelves.insert(peer.to_owned(), Slot::Open(shared));
                return;
            }
        };
        if shelf.waiting().0 > 0 {
            shelves.insert(peer.to_owned(), Slot::Open(Arc::new(Mutex::new(shelf))));
            return;
        }
        if let Err(error) = shelf.remove(self.catalog().as_ref()) {
            tracing::warn!(peer, %error, "a folder of hints stays");
        }
        for name in ["tributary_hints_waiting_bytes", "tributary_hints_waiting_samples"] {
            metrics::gauge!(name, "peer" => peer.to_owned()).set(0.0);
        }
    }

    /// Writes what waits, makes it durable, and notes how far everything is. Blocks on the disk.
    pub fn close(&self) {
        *self.closed.lock() = true;
        drop(self.jobs.lock().take());
        self.step();
        // Nobody was there to write them.
        self.give_up();
        if self.thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that keeps hints ended by a panic");
        }
        for (peer, shelf) in self.open_shelves() {
            self.note(&peer, &shelf);
        }
        self.shelves.lock().clear();
        // Its files are for the next life, whoever still holds this one.
        *self.catalog.lock() = None;
    }

    fn catalog(&self) -> Option<Catalog> {
        self.catalog.lock().clone()
    }
}

pub(crate) fn dropped(peer: &str, reason: &'static str, samples: u64) {
    if samples > 0 {
        let labels = [("peer", peer.to_owned()), ("reason", reason.to_owned())];
        metrics::counter!("tributary_hints_dropped_samples_total", &labels[..]).increment(samples);
    }
}

pub(crate) fn count(name: &'static str, peer: &str, samples: u64) {
    if samples > 0 {
        metrics::counter!(name, "peer" => peer.to_owned()).increment(samples);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::TenantId;
    use rpc::WriteCall;
    use testkit::MemDisk;

    use super::*;
    use crate::pending::tests::batch;

    /// A disk that has failed for a moment: what was kept before that is delivered, though nothing new comes for its peer.
    #[test]
    fn hints_behind_a_failure_are_found_again() {
        let disk = MemDisk::new();
        let (world, clock) = testkit::world(Arc::new(disk.clone()), 0, 1);
        let settings = Settings {
            dir: Some(Path::new("/data/hints").to_owned()),
            max_bytes: 1 << 20,
            max_age: 3_600_000,
            rate: 1 << 20,
            queue_bytes: 1 << 20,
            reserve: 0,
            window: 3_600_000,
        };
        let hints = Hints::new(&world, settings);
        let (tenant, rows) = (TenantId::new("t").unwrap(), vec![0]);
        let call = WriteCall { tenant, batch: batch(1, 3), rows, replica: 1, judged_at: 5, ring_epoch: 0 };
        let shelf = hints.shelf("a:1").unwrap();
        shelf.lock().keep(&frame::encode(&call, 0).unwrap().0).unwrap();
        shelf.lock().sync().unwrap();
        drop(shelf);
        assert_eq!(hints.waiting(), ["a:1"]);

        hints.fail("a:1", &Error::new(Kind::Unavailable, "the disk has failed"));
        hints.find_again();
        assert_eq!(hints.waiting(), [""; 0], "it is too early");
        clock.advance(AGAIN_MS);
        hints.find_again();
        assert_eq!(hints.waiting(), ["a:1"]);
        assert_eq!(hints.figures()[0].2, 3, "samples");

        // What is damaged is set aside, and nothing is made in its place.
        hints.fail("a:1", &Error::new(Kind::Corrupt, "damaged"));
        clock.advance(AGAIN_MS);
        hints.find_again();
        assert_eq!(hints.waiting(), [""; 0]);
        assert!(!world.disk.exists(Path::new("/data/hints/a_3a1")));
    }
}
