//! The path of a decoded write: which ring, which shares, to whom, and how many must have said yes.
//!
//! Knows neither HTTP nor gRPC: both doors come here, and what comes back is an outcome per sample.
//!
//! Where the ring is agreed on, a write is placed by one epoch and asked for in it alone. A replica that has moved on says so,
//! and what its epoch is: the write is placed anew by that one and sent again as a whole, within the same request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agreed::{EpochNumber, View};
use hashring::Ring;
use model::{Kind, Labels, TenantId, Timestamp};
use rpc::StaleEpoch;
use runtime::{ByteGate, BytePermit};
use storage::WriteBatch;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::epochs::gate::Closed;
use crate::epochs::told::Told;
use crate::hints::Hints;
use crate::local::Local;
use crate::pending::{Answer, Collected, Part, Pending, bytes_of};
use crate::quorum::{Outcome, Quorum};
use crate::replicate;
use crate::ring::{Current, RingHolder, Target};
use crate::route::{self, Share};
use crate::settings::{Mode, Settings};
use crate::status::Denial;

/// How long peers that are left alone are spared while the others have not answered.
const SPARED: Duration = Duration::from_millis(100);

/// How long after its beginning a write may be tried again, and after which pause.
const AGAIN_WITHIN: Duration = Duration::from_millis(700);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What routes, stores and waits.
pub struct Writer {
    mode: Mode,
    ring: RingHolder,
    local: Arc<Local>,
    hints: Arc<Hints>,
    /// Bytes of local copies under way, those behind an ack as well.
    under_way: ByteGate,
    /// How many there are.
    local_copies: watch::Sender<usize>,
    /// Copies and those that make an ack, where the ring is a file.
    copies: (usize, usize),
    timeout: Duration,
    /// Of which cluster the epochs are; known with the first.
    cluster: OnceLock<String>,
}

/// A write that knows where it goes.
pub struct Plan {
    pub(crate) current: Arc<Current>,
    pub(crate) shares: Vec<Share>,
    quorum: Quorum,
}

/// Where a share waits.
enum Place {
    Taken(BytePermit),
    /// Not for its replica, and why. Among the hints, where there are any.
    Beside(Option<BytePermit>, String),
    /// Nowhere, and why.
    None(String),
}

/// See [`Writer::place`].
pub struct Owned {
    ring: Option<Arc<Ring>>,
    local: Option<usize>,
}

impl Owned {
    pub fn stores_here(&self, hash: u64) -> bool {
        let (Some(ring), Some(local)) = (&self.ring, self.local) else { return false };
        ring.replicas(hash).iter().any(|at| usize::from(*at) == local)
    }
}

impl Writer {
    pub fn new(settings: &Settings, ring: RingHolder, local: Arc<Local>, hints: Arc<Hints>) -> Writer {
        let replication = &settings.replication;
        // What waits for an answer is bounded by the door; a queue's worth may be behind that.
        let most = settings.admission.max_inflight.bytes() + replication.forward_queue.bytes();
        Writer {
            mode: settings.mode(),
            ring,
            local,
            hints,
            under_way: ByteGate::new(most),
            local_copies: watch::Sender::new(0),
            copies: (
                replication.replication_factor as usize,
                replication.quorum.needed(replication.replication_factor as usize),
            ),
            timeout: replication.forward_timeout.as_duration(),
            cluster: OnceLock::new(),
        }
    }

    pub fn ring(&self) -> &RingHolder {
        &self.ring
    }

    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Copies of each series, and how many of them must be durable for an ack.
    pub fn copies(&self) -> (usize, usize) {
        let current = self.ring.current();
        match current.epoch {
            0 => self.copies,
            _ => (current.rings.replication_factor(), current.needed),
        }
    }

    /// Takes an epoch over for placing; true if it is a later one.
    pub fn learn(
        &self,
        cluster: &str,
        generation: u32,
        number: EpochNumber,
        view: &View,
    ) -> Result<bool, Error> {
        let ours = self.cluster.get_or_init(|| cluster.to_owned());
        if ours != cluster {
            let message = format!("the ring of cluster {cluster} is not taken for that of {ours}");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.ring.learn(generation, number, view)
    }

    /// What a replica says of the epoch that it is in, once it has left that of a write.
    fn correct(&self, stale: &StaleEpoch) {
        let told = match Told::decode(&stale.ring) {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(epoch = stale.epoch, %error, "a write was placed by a ring that is over");
                return;
            }
        };
        // Peers of before did not say.
        let generation = told.generation.unwrap_or_else(|| self.ring().current().generation);
        if let Err(error) = self.learn(&told.cluster, generation, told.number, &told.view) {
            tracing::warn!(epoch = stale.epoch, %error, "a ring that a peer has told of is not used");
        }
    }

    /// Whether a write that says it is copy number `replica` is stored here, whatever the ring says. A router
    /// that stores nothing places it anew, and a node without a ring stores everything.
    pub fn stores_here(&self, replica: u32) -> bool {
        match self.mode {
            Mode::IngestorOnly => true,
            Mode::RouterIngestor => replica > 0,
            Mode::RouterOnly => false,
        }
    }

    /// How long a write waits for its copies.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// External labels that the ring gives to a tenant.
    pub fn ring_labels(&self, tenant: &str) -> Labels {
        self.ring.current().rings.external_labels(tenant)
    }

    /// Which of a tenant's series are stored here, by the ring as it is now.
    pub fn place(&self, tenant: &TenantId) -> Owned {
        let current = self.ring.current();
        let local = current.targets.iter().position(|target| matches!(target, Target::Local));
        Owned { ring: current.rings.resolve(tenant.as_str()), local }
    }

    /// Places a batch. Asks the ring once per series; for a thread that may compute.
    pub fn plan(&self, tenant: &TenantId, batch: &WriteBatch) -> Result<Plan, Denial> {
        let current = self.ring.current();
        if self.ring.is_unknown() {
            return Err(Denial::Busy(
                "the ring is not known yet: it comes from the control plane, which has not been heard since the start"
                    .to_owned(),
            ));
        }
        let Some(ring) = current.rings.resolve(tenant.as_str()) else {
            return Err(Denial::Invalid(format!(
                "no ring takes tenant {:?}; add it to a ring, or add a ring without tenants",
                tenant.as_str()
            )));
        };
        let samples = batch.verdicts();
        let new = (current.rings.replication_factor(), current.needed);
        // A tenant that the old ring does not take was never acked by it.
        let before = current.before.as_ref();
        let before = before.and_then(|before| Some((before, before.rings.resolve(tenant.as_str())?)));
        let (shares, quorum) = match before {
            Some((before, old)) => {
                let shares = route::split_joint(batch, (&old, &before.place), &ring, current.targets.len());
                let old = (before.rings.replication_factor(), before.needed);
                (shares, Quorum::joint(samples, old, new))
            }
            None => {
                let wants_copy = |endpoint| match &current.targets[usize::from(endpoint)] {
                    Target::Local => false,
                    // The control plane's members are ours.
                    Target::Peer(peer) => current.epoch == 0 && !peer.is_ours(),
                };
                let shares = route::split(batch, &ring, current.targets.len(), wants_copy);
                (shares, Quorum::new(samples, new.0, new.1))
            }
        };
        Ok(Plan { current, shares, quorum })
    }

    /// Sends a placed batch to all its replicas and waits for the quorum. Copies beyond it go on by themselves.
    ///
    /// What failed only because a replica was not reached is tried once more: where one goes and another comes back, as when
    /// all restart in turn, a write can meet the one too early and the other too late.
    pub async fn send(
        &self,
        plan: Plan,
        tenant: &TenantId,
        batch: Arc<WriteBatch>,
        judged_at: Timestamp,
    ) -> Collected {
        let began = Instant::now();
        let mut collected = self.send_rows(plan, None, tenant, &batch, judged_at).await;
        if collected.away && lost(&collected) && began.elapsed() < AGAIN_WITHIN {
            tokio::time::sleep(AGAIN_AFTER).await;
            if let Ok(plan) = self.plan(tenant, &batch) {
                let rows = rows_lost(&batch, &collected.outcomes);
                let again = self.send_rows(plan, Some(&rows), tenant, &batch, judged_at).await;
                for (first, second) in collected.outcomes.iter_mut().zip(again.outcomes) {
                    if *first == Outcome::Retryable {
                        *first = second;
                    }
                }
                collected.trouble = again.trouble.or(collected.trouble);
            }
        }
        let result = if lost(&collected) { "error" } else { "success" };
        metrics::counter!("thanos_receive_replications_total", "result" => result).increment(1);
        collected
    }

    /// Sends a batch once, or those of its rows that are given (ascending), in one ring epoch after the other until one is
    /// not over.
    async fn send_rows(
        &self,
        mut plan: Plan,
        only: Option<&[u32]>,
        tenant: &TenantId,
        batch: &Arc<WriteBatch>,
        judged_at: Timestamp,
    ) -> Collected {
        let deadline = Instant::now() + self.timeout;
        loop {
            let epoch = plan.current.epoch;
            let going = Going { judged_at, replica: 0, ring_epoch: epoch };
            let collected = self.attempt(plan, only, tenant, batch, going, deadline).await;
            let Some(stale) = &collected.stale else { return collected };
            self.correct(stale);
            metrics::counter!("tributary_receive_replanned_total").increment(1);
            // Epochs only grow, so that this ends.
            if self.ring.current().epoch <= epoch || Instant::now() >= deadline {
                return collected;
            }
            match self.plan(tenant, batch) {
                Ok(again) => plan = again,
                Err(denial) => {
                    tracing::debug!(?denial, "a write cannot be placed by the new ring");
                    return collected;
                }
            }
        }
    }

    /// Asks every replica of the plan's epoch, of all rows or of those that are given.
    async fn attempt(
        &self,
        plan: Plan,
        only: Option<&[u32]>,
        tenant: &TenantId,
        batch: &Arc<WriteBatch>,
        going: Going,
        deadline: Instant,
    ) -> Collected {
        let Plan { current, mut shares, quorum } = plan;
        if let Some(only) = only {
            shares.iter_mut().for_each(|share| share.keep(|row| only.binary_search(&row).is_ok()));
            shares.retain(|share| !share.rows.is_empty());
        }
        let others = only.map_or(0, |rows| batch.verdicts() - samples_of(batch, rows));
        let pending = Pending::with(Arc::clone(batch), quorum.without(others));
        let places = self.places(&current, batch, &shares).await;
        let mut spared = Vec::new();
        for (share, place) in shares.into_iter().zip(places) {
            let going = Going { replica: share.copy as u32 + 1, ..going };
            let (held, refused) = match place {
                Place::Taken(held) => (Some(held), None),
                Place::Beside(held, why) => (held, Some(why)),
                Place::None(why) => {
                    // Nobody is asked: what would be missed could not be kept.
                    pending.part_of(share.rows, share.sides, None).answer(Answer::Unavailable(why));
                    continue;
                }
            };
            let address = current.address_of(share.endpoint);
            let keeper = self.hints.keeper(address, tenant, going.replica, going.judged_at, held);
            let part = pending.part_of(share.rows, share.sides, keeper);
            if let Some(why) = refused {
                replicate::miss(part, Answer::Unavailable(why));
                continue;
            }
            match &current.targets[usize::from(share.endpoint)] {
                Target::Peer(peer) if peer.is_away() => spared.push((peer, going, part)),
                Target::Peer(peer) => peer.send(tenant, going, part, false),
                Target::Local => self.store(tenant, going, part),
            }
        }
        if !spared.is_empty() {
            // Who is left alone is asked only where the others do not suffice: it may be back since a moment ago.
            let needed = !pending.settles_without(spared.len(), SPARED).await;
            for (peer, going, part) in spared {
                peer.send(tenant, going, part, needed);
            }
        }
        pending.collect(deadline.saturating_duration_since(Instant::now())).await
    }

    /// A place for each share, before anybody is asked: in the queue to its replica, else among the hints. Where those are
    /// full as well the write waits, and if that does not help, nobody is asked: the sender sends it again.
    async fn places(&self, current: &Current, batch: &WriteBatch, shares: &[Share]) -> Vec<Place> {
        let mut short = 0;
        let taken = shares.iter().map(|share| {
            let bytes = bytes_of(batch, &share.rows);
            let taken = match &current.targets[usize::from(share.endpoint)] {
                Target::Peer(peer) => peer.place(bytes),
                Target::Local => {
                    let taken = self.under_way.try_acquire(bytes.min(self.under_way.limit()));
                    taken
                        .map_err(|full| format!("too many copies wait for the disk of this receiver: {full}"))
                }
            };
            taken.map_err(|why| {
                short += bytes;
                (bytes, why)
            })
        });
        let taken: Vec<Result<BytePermit, (u64, String)>> = taken.collect();
        if short == 0 || !self.hints.are_kept() {
            let place = |taken| match taken {
                Ok(held) => Place::Taken(held),
                Err((_, why)) => Place::Beside(None, why),
            };
            return taken.into_iter().map(place).collect();
        }
        // For all of them at once: who had one and waited for the next would keep others from both.
        let waited = tokio::time::timeout(self.timeout / 2, self.hints.place(short)).await;
        let result = if matches!(waited, Ok(Ok(_))) { "found" } else { "none" };
        metrics::counter!("tributary_hints_places_total", "result" => result).increment(1);
        let Ok(Ok(mut beside)) = waited else {
            let why = taken.iter().find_map(|taken| taken.as_ref().err().map(|(_, why)| why.clone()));
            let why = format!("{}; nor is there place for what is missed", why.unwrap_or_default());
            return shares.iter().map(|_| Place::None(why.clone())).collect();
        };
        let place = |taken| match taken {
            Ok(held) => Place::Taken(held),
            Err((bytes, why)) => Place::Beside(beside.split(bytes), why),
        };
        taken.into_iter().map(place).collect()
    }

    /// Stores the copy that is this node's, beside its request: the others may be enough for an ack. What is not taken
    /// here of a write that they accept is kept for this node as it would be for a peer: nobody else brings it.
    fn store(&self, tenant: &TenantId, going: Going, part: Part) {
        let Going { judged_at, ring_epoch, .. } = going;
        let pass = match self.local.gate().pass(ring_epoch) {
            Ok(pass) => pass,
            Err(Closed::Stale(stale)) => return part.answer(Answer::Stale(stale)),
            Err(closed) => return part.answer(Answer::Unavailable(closed.why().to_owned())),
        };
        let (local, tenant) = (Arc::clone(&self.local), tenant.clone());
        let counted = Counted::new(&self.local_copies);
        tokio::spawn(async move {
            let (batch, rows) = (Arc::clone(part.batch()), part.rows().to_vec());
            part.answer(match local.write(tenant, batch, rows, judged_at, pass).await {
                Ok(verdicts) => Answer::ByIndex(verdicts),
                Err(why) => Answer::Unavailable(why),
            });
            drop(counted);
        });
    }

    /// Returns once no local copy is under way, at most after `grace`. The doors must be closed: a copy behind an ack is
    /// nobody's request any more, and is lost with the log's end.
    pub async fn finish(&self, grace: Duration) {
        let mut copies = self.local_copies.subscribe();
        if tokio::time::timeout(grace, copies.wait_for(|copies| *copies == 0)).await.is_err() {
            tracing::warn!(
                copies = *self.local_copies.borrow(),
                "copies for the disk of this receiver were given up"
            );
        }
    }
}

fn lost(collected: &Collected) -> bool {
    collected.outcomes.contains(&Outcome::Retryable)
}

/// Rows of which a sample is not settled.
fn rows_lost(batch: &WriteBatch, outcomes: &[Outcome]) -> Vec<u32> {
    let is_lost = |row: &u32| {
        let series = &batch.series()[*row as usize];
        batch
            .verdicts_of(series)
            .into_iter()
            .flatten()
            .any(|sample| outcomes.get(sample) == Some(&Outcome::Retryable))
    };
    (0..batch.series().len() as u32).filter(is_lost).collect()
}

fn samples_of(batch: &WriteBatch, rows: &[u32]) -> usize {
    let series = rows.iter().filter_map(|row| batch.series().get(*row as usize));
    series.map(|series| batch.verdicts_of(series).into_iter().flatten().count()).sum()
}

/// What goes with a share to each of its replicas.
#[derive(Clone, Copy, Debug)]
pub struct Going {
    pub judged_at: Timestamp,
    /// From 1: which copy it is.
    pub replica: u32,
    /// By which it was placed; 0 where the ring is a file.
    pub ring_epoch: EpochNumber,
}

/// One of those under way.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(copies: &watch::Sender<usize>) -> Counted {
        copies.send_modify(|copies| *copies += 1);
        Counted(copies.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|copies| *copies -= 1);
    }
}

#[cfg(test)]
mod tests;
