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

/// Why a node that has not taken its place takes no writes of the ring.
pub const UNPLACED: &str = "this receiver has not taken its place in the ring yet";

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
    current: Arc<Current>,
    shares: Vec<Share>,
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
    pub fn learn(&self, cluster: &str, number: EpochNumber, view: &View) -> Result<bool, Error> {
        let ours = self.cluster.get_or_init(|| cluster.to_owned());
        if ours != cluster {
            let message = format!("the ring of cluster {cluster} is not taken for that of {ours}");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.ring.learn(number, view)
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
        if let Err(error) = self.learn(&told.cluster, told.number, &told.view) {
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
            Err(Closed::Unplaced) => return part.answer(Answer::Unavailable(UNPLACED.to_owned())),
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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use rpc::WriteCall;
    use runtime::{Pool, Turns, World};
    use storage::Verdict;
    use tsdb::Tsdb;

    use super::*;
    use crate::breaker::Rules;
    use crate::pending::tests::batch;
    use crate::replicate::{Peer, PeerLimits, Remote};
    use crate::settings::Settings;

    /// Takes everything at once.
    struct Quick;

    impl Remote for Quick {
        fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
            let rows = call.rows.iter().map(|row| call.batch.series()[*row as usize].samples().len());
            let stored = vec![Verdict::Stored; rows.sum()];
            async { Ok(stored) }.boxed()
        }
    }

    /// Is away for so many calls, then takes everything.
    struct Returns(AtomicU32);

    impl Remote for Returns {
        fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
            match self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => async { Err(storage::Error::new(model::Kind::Unavailable, "refused")) }.boxed(),
                Err(_) => Quick.write(call),
            }
        }
    }

    fn door(dir: &std::path::Path) -> (Writer, Pool, Arc<Hints>) {
        door_to(dir, 1 << 20, |_| Arc::new(Quick))
    }

    /// A door with a log of its own, peers as they are given, queues of so many bytes, and the one thread that appends.
    fn door_to(
        dir: &std::path::Path,
        queue_bytes: u64,
        remote: impl Fn(&str) -> Arc<dyn Remote> + Send + Sync + 'static,
    ) -> (Writer, Pool, Arc<Hints>) {
        let world = World::real();
        let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
        settings.replication.forward_queue = ::settings::ByteSize::from_bytes(queue_bytes);
        settings.replication.forward_timeout = ::settings::Span::from_secs(4);
        settings.replication.hashrings = Some(r#"[{"endpoints": ["a:1", "b:1", "c:1"]}]"#.to_owned());
        settings.replication.local_endpoint = Some("a:1".to_owned());
        settings.replication.replication_factor = 3;
        let hints = Hints::new(&world, settings.hints(true));
        let second = Duration::from_secs(1);
        let rules = Rules { slow: second, first_pause: second, max_pause: second };
        let limits = PeerLimits { workers: 1, queue_bytes, deadline: second, rules };
        let chance = Arc::clone(&world.chance);
        let connect = Arc::new(move |address: &str| {
            let peer = Peer::start(address, remote(address), limits, Arc::clone(&chance));
            // One call for each write.
            peer.set_ours(true);
            Ok(peer)
        });
        let ring = RingHolder::open(&settings, &world, connect).unwrap();
        let pool = Pool::new("append", 1, 16).unwrap();
        let local = Local::new((pool.clone(), Turns::new(2)));
        (Writer::new(&settings, ring, Arc::new(local), Arc::clone(&hints)), pool, hints)
    }

    fn engine(dir: &std::path::Path) -> Arc<Tsdb> {
        let settings =
            tsdb::Settings { dir: dir.join("tsdb"), segment_bytes: 1 << 20, ..tsdb::Settings::default() };
        Tsdb::open(World::real(), settings).unwrap()
    }

    async fn write(writer: &Writer) -> Vec<Outcome> {
        write_of(writer, batch(20, 1)).await
    }

    async fn write_of(writer: &Writer, batch: Arc<WriteBatch>) -> Vec<Outcome> {
        let tenant = TenantId::new("t").unwrap();
        let plan = writer.plan(&tenant, &batch).unwrap();
        writer.send(plan, &tenant, batch, 0).await.outcomes
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_waits_for_this_nodes_copy_of_what_others_have_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, pool, _) = door(dir.path());
        let engine = engine(dir.path());
        writer.local().open(Arc::clone(&engine)).unwrap();
        let (open, opened) = std::sync::mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let busy = tokio::spawn(async move {
            let wait = move || began.send(()).is_ok() && opened.recv().is_ok();
            pool.run(wait).await
        });
        begun.await.unwrap();
        assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
        let mut finished = Box::pin(writer.finish(Duration::from_secs(60)));
        for _ in 0..20 {
            assert!(futures::poll!(&mut finished).is_pending());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(engine.head_stats().samples, 0);
        open.send(()).unwrap();
        finished.await;
        engine.close().unwrap();
        assert_eq!(engine.head_stats().samples, 20);
        assert!(busy.await.unwrap().unwrap());
    }

    /// As when all restart in turn: who goes was asked too late, who comes back too early.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_that_met_nobody_meets_the_one_that_is_back() {
        for (b, c, wanted) in [(1, 9, Outcome::Accepted), (2, 9, Outcome::Retryable)] {
            let dir = tempfile::tempdir().unwrap();
            let (writer, _, _) = door_to(dir.path(), 1 << 20, move |address| {
                Arc::new(Returns(AtomicU32::new(if address == "b:1" { b } else { c })))
            });
            writer.local().open(engine(dir.path())).unwrap();
            assert_eq!(write(&writer).await, [wanted; 20], "{b}");
            writer.finish(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_this_node_does_not_take_itself_is_kept_for_it_from_the_first_request_on() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, _, hints) = door(dir.path());
        // Its log is being replayed, and nobody writes hints yet.
        assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
        writer.finish(Duration::from_secs(60)).await;
        let opening = Arc::clone(&hints);
        tokio::task::spawn_blocking(move || opening.open(None)).await.unwrap().unwrap();
        // Its log has ended.
        let engine = engine(dir.path());
        writer.local().open(Arc::clone(&engine)).unwrap();
        engine.close().unwrap();
        assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
        writer.finish(Duration::from_secs(60)).await;
        let kept = || -> Vec<(String, u64)> {
            hints.figures().into_iter().map(|(peer, _, samples, _)| (peer, samples)).collect()
        };
        let wanted = [("a:1".to_owned(), 40)];
        for _ in 0..1000 {
            if kept() == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(kept(), wanted);
        tokio::task::spawn_blocking(move || hints.close()).await.unwrap();
    }

    /// A peer is away, and what it misses comes faster than it is written down: no write is acknowledged whose copy would have
    /// to be given up.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_peer_misses_is_never_more_than_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = bytes_of(&batch(20, 1), &(0..20).collect::<Vec<_>>());
        let (writer, _, hints) = door_to(dir.path(), 2 * bytes, |address| match address {
            "c:1" => Arc::new(Returns(AtomicU32::new(u32::MAX))),
            _ => Arc::new(Quick),
        });
        writer.local().open(engine(dir.path())).unwrap();
        // Nobody writes hints yet. Two have place in the queue to the peer, two beside it.
        for n in 0..4 {
            assert_eq!(write(&writer).await, [Outcome::Accepted; 20], "{n}");
        }
        let more = futures::future::join_all((0..4).map(|_| write(&writer))).await;
        assert_eq!(more, vec![[Outcome::Retryable; 20]; 4]);
        // Those that wait are answered once somebody does.
        let waiting = futures::future::join_all(
            (0..8).map(|_| async { while write(&writer).await != [Outcome::Accepted; 20] {} }),
        );
        let opening = Arc::clone(&hints);
        let opening = tokio::task::spawn_blocking(move || opening.open(None));
        let (_, opened) = futures::join!(waiting, opening);
        opened.unwrap().unwrap();
        // One that is larger than all there is has place by itself.
        while write_of(&writer, batch(200, 1)).await != [Outcome::Accepted; 200] {}
        let accepted = (4 + 8) * 20 + 200;
        writer.finish(Duration::from_secs(60)).await;
        let peers: Vec<_> = writer.ring().current().peers().cloned().collect();
        futures::future::join_all(peers.iter().map(|peer| peer.close(Duration::from_secs(60)))).await;
        let closing = Arc::clone(&hints);
        let kept = tokio::task::spawn_blocking(move || {
            while closing.figures().iter().map(|(_, _, samples, _)| samples).sum::<u64>() < accepted {
                std::thread::sleep(Duration::from_millis(5));
            }
            closing.figures().into_iter().map(|(peer, _, samples, _)| (peer, samples)).collect::<Vec<_>>()
        });
        assert_eq!(kept.await.unwrap(), [("c:1".to_owned(), accepted)]);
        tokio::task::spawn_blocking(move || hints.close()).await.unwrap();
        assert!(peers.iter().all(|peer| peer.queued_bytes() == 0));
    }
}
