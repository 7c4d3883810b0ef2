//! What waits to be written down: bounded in bytes, written by one thread, one sync for all that has gathered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use model::{Kind, TenantId, Timestamp};
use parking_lot::Mutex;
use rpc::{ANY_EPOCH, WriteCall};
use runtime::BytePermit;
use storage::SeriesRows;

use super::shelf::Shelf;
use super::{Hints, count, dropped, frame};
use crate::pending::Keeper;

/// Bytes of a batch that become one hint.
const HINT_BYTES: u64 = 512 << 10;

/// What a peer missed.
pub(super) struct Job {
    peer: String,
    call: WriteCall,
    kept_at: Timestamp,
    _held: Option<BytePermit>,
}

impl Hints {
    /// Whether what replicas miss is kept at all.
    pub fn are_kept(&self) -> bool {
        self.jobs.lock().is_some()
    }

    /// Place for so many bytes of what replicas may miss, taken before they are asked; waits for it in the order of arrival.
    /// More than there can be has place once nothing else waits.
    pub async fn place(&self, bytes: u64) -> Result<BytePermit, String> {
        let bytes = bytes.min(self.queue.limit());
        self.queue.acquire(bytes).await.map_err(|full| full.to_string())
    }

    /// For the share of `peer`: what others accept of it and it does not take becomes a hint. `held` is the share's place,
    /// which is given back once the hint is written.
    pub fn keeper(
        self: &Arc<Hints>,
        peer: &str,
        tenant: &TenantId,
        replica: u32,
        judged_at: Timestamp,
        held: Option<BytePermit>,
    ) -> Keeper {
        let (hints, peer, tenant) = (Arc::clone(self), peer.to_owned(), tenant.clone());
        Box::new(move |batch, rows| {
            let batch = Arc::clone(batch);
            let call = WriteCall { tenant, batch, rows, replica, judged_at, ring_epoch: ANY_EPOCH };
            hints.keep(peer, call, held);
        })
    }

    /// Keeps what a peer missed of an accepted write. Never waits.
    fn keep(self: &Arc<Hints>, peer: String, call: WriteCall, held: Option<BytePermit>) {
        let jobs = self.jobs.lock();
        let Some(sender) = &*jobs else { return dropped(&peer, "off", samples_of(&call)) };
        let kept_at = self.world.clock.now_ms();
        if let Err(unsent) = sender.send(Job { peer, call, kept_at, _held: held }) {
            let Job { peer, call, .. } = unsent.0;
            return dropped(&peer, "off", samples_of(&call));
        }
        if let Some(steps) = self.world.threads.steps() {
            let hints = Arc::clone(self);
            steps.soon("hints", Box::new(move || hints.step()));
        }
    }

    /// From now on nothing is kept, because that cannot be: nobody waits for a place that is never given back.
    pub fn give_up(&self) {
        drop(self.jobs.lock().take());
        for job in self.unread.lock().take().iter().flat_map(Receiver::try_iter) {
            dropped(&job.peer, "off", samples_of(&job.call));
        }
    }

    /// What the thread would do by now, where there is none.
    pub(super) fn step(&self) {
        let stepped = self.stepped.lock();
        while let Some(first) = stepped.as_ref().and_then(|jobs| jobs.try_recv().ok()) {
            self.turn(first, stepped.as_ref());
        }
    }

    /// The thread that writes: takes what has gathered, one sync for all of it.
    pub(super) fn write(self: Arc<Hints>, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            self.turn(first, Some(jobs));
        }
    }

    fn turn(&self, first: Job, jobs: Option<&Receiver<Job>>) {
        let mut touched: BTreeMap<String, Arc<Mutex<Shelf>>> = BTreeMap::new();
        let mut held = Vec::new();
        let more = std::iter::from_fn(|| jobs?.try_recv().ok()).take(256);
        for job in std::iter::once(first).chain(more) {
            if let Some(shelf) = self.take(&job) {
                touched.insert(job.peer.clone(), shelf);
            }
            held.push(job._held);
        }
        for (peer, shelf) in touched {
            let synced = shelf.lock().sync();
            if let Err(error) = synced {
                self.fail(&peer, &error);
            }
            self.note(&peer, &shelf);
        }
        drop(held);
        self.news.notify_one();
    }

    fn take(&self, job: &Job) -> Option<Arc<Mutex<Shelf>>> {
        if !self.has_room() {
            dropped(&job.peer, "room", samples_of(&job.call));
            return None;
        }
        let mut rows = job.call.rows.as_slice();
        let batch = &job.call.batch;
        let mut shelf = None;
        while !rows.is_empty() {
            let mut bytes = 0;
            let end = rows.iter().position(|row| {
                bytes += batch.series().get(*row as usize).map_or(0, |s| batch.bytes_of(s)) as u64;
                bytes > HINT_BYTES
            });
            let (part, rest) = rows.split_at(end.unwrap_or(rows.len()).max(1));
            rows = rest;
            let call = WriteCall { rows: part.to_vec(), ..job.call.clone() };
            let samples = samples_of(&call);
            let Some(open) = self.shelf(&job.peer) else {
                dropped(&job.peer, "damaged", samples);
                continue;
            };
            let kept = frame::encode(&call, job.kept_at).and_then(|(bytes, _)| open.lock().keep(&bytes));
            match kept {
                Ok(()) => {
                    count("tributary_hints_kept_samples_total", &job.peer, samples);
                    shelf = Some(open);
                }
                Err(error) => {
                    let full = error.kind == Kind::Unavailable;
                    dropped(&job.peer, if full { "disk" } else { "damaged" }, samples);
                    if !full {
                        self.fail(&job.peer, &error);
                    }
                    tracing::debug!(peer = job.peer, %error, "hint is not kept");
                }
            }
        }
        shelf
    }

    /// Whether the disk has more than the log will need. Told once where that changes.
    fn has_room(&self) -> bool {
        let Some(dir) = &self.settings.dir else { return false };
        let (free, reserve) = match self.world.disk.free(dir) {
            Ok(Some(free)) => (free, self.settings.reserve),
            Ok(None) => return true,
            Err(error) => {
                tracing::debug!(dir = %dir.display(), %error, "it is not known how full the disk is");
                return true;
            }
        };
        let is_short = free < reserve;
        if self.is_short.swap(is_short, Relaxed) != is_short {
            let dir = dir.display();
            match is_short {
                true => {
                    tracing::error!(%dir, free, reserve, "no hints are taken: the log needs what is left of the disk")
                }
                false => tracing::info!(%dir, free, reserve, "the disk has room for hints again"),
            }
        }
        !is_short
    }
}

fn series_of(call: &WriteCall) -> impl Iterator<Item = &SeriesRows> {
    call.rows.iter().filter_map(|row| call.batch.series().get(*row as usize))
}

fn samples_of(call: &WriteCall) -> u64 {
    series_of(call).map(|s| call.batch.verdicts_of(s).into_iter().flatten().count() as u64).sum()
}
