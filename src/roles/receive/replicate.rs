//! Copies to peers: per peer one queue bounded in bytes and a few workers, so that a slow or dead peer costs
//! its own copy and nothing else.
//!
//! A write never waits for a place in a queue: where there is none, the peer is unavailable for that write at
//! once, as is one that failed, was slow or fell silent a moment ago (`breaker`). What is queued goes on after the write was
//! answered, until its own deadline. What a peer misses of an accepted write is kept for it (`hints`): its place in the queue is
//! its place there, until it is written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{MetricMetadata, TenantId};
use parking_lot::Mutex;
use rpc::{StaleEpoch, WriteCall};
use runtime::{ByteGate, BytePermit, Chance, Signal};
use storage::Verdict;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::pb::tributary::v1::PairSighting;

use crate::breaker::{Breaker, Cause, Pass, Role, Rules};
use crate::hints::Untaken;
use crate::pending::{Answer, Part};
use crate::write::Going;

/// The way to a peer: gRPC in life, a function in tests.
pub trait Remote: Send + Sync + 'static {
    /// Sends rows of a batch; a verdict for each of their samples, in order.
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>>;

    /// Series that have a name on the way, where there are names.
    fn names(&self) -> Option<usize> {
        None
    }

    /// Tells what is known of HA pairs, and is told the same.
    fn exchange_pairs(
        &self,
        _told: Vec<PairSighting>,
    ) -> BoxFuture<'_, Result<Vec<PairSighting>, storage::Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Tells what is said of metrics.
    fn write_metadata<'a>(
        &'a self,
        _tenant: &'a TenantId,
        _said: &'a [MetricMetadata],
    ) -> BoxFuture<'a, Result<(), storage::Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// Limits of the way to one peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Calls at once.
    pub workers: usize,
    pub queue_bytes: u64,
    /// From enqueueing to the end of the call.
    pub deadline: Duration,
    /// When it is left alone.
    pub rules: Rules,
}

/// A peer of the ring.
pub struct Peer {
    way: Arc<Way>,
    queue: ByteGate,
    /// None once closed.
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    limits: PeerLimits,
    /// Whether Info said that it is one of ours, to whom it does not matter which copy it stores.
    ours: AtomicBool,
}

/// What the workers of a peer share.
struct Way {
    address: String,
    remote: Arc<dyn Remote>,
    slow: Duration,
    breaker: Mutex<Breaker>,
    /// Raised where a peer is silent: calls on their way are given up.
    silenced: Signal<u64>,
    chance: Arc<dyn Chance>,
}

struct Job {
    tenant: TenantId,
    going: Going,
    part: Part,
    role: Role,
    deadline: Instant,
}

impl Peer {
    /// Starts the workers on the current runtime.
    pub fn start(
        address: &str,
        remote: Arc<dyn Remote>,
        limits: PeerLimits,
        chance: Arc<dyn Chance>,
    ) -> Arc<Peer> {
        let way = Arc::new(Way {
            address: address.to_owned(),
            remote,
            slow: limits.rules.slow,
            breaker: Mutex::new(Breaker::new(limits.rules)),
            silenced: Signal::new(0),
            chance,
        });
        let (jobs, queued) = mpsc::unbounded_channel::<Job>();
        let queued = Arc::new(tokio::sync::Mutex::new(queued));
        let workers: Vec<_> = (0..limits.workers.max(1))
            .map(|_| {
                let (queued, way) = (Arc::clone(&queued), Arc::clone(&way));
                tokio::spawn(async move {
                    loop {
                        let job = queued.lock().await.recv().await;
                        let Some(job) = job else { break };
                        way.deliver(job).await;
                    }
                })
            })
            .collect();
        Arc::new(Peer {
            way,
            queue: ByteGate::new(limits.queue_bytes),
            workers: Mutex::new(workers),
            jobs: Mutex::new(Some(jobs)),
            limits,
            ours: AtomicBool::new(false),
        })
    }

    pub fn address(&self) -> &str {
        &self.way.address
    }

    pub fn is_ours(&self) -> bool {
        self.ours.load(Relaxed)
    }

    pub fn set_ours(&self, ours: bool) {
        self.ours.store(ours, Relaxed);
    }

    /// Whether it is left alone now.
    pub fn is_away(&self) -> bool {
        self.way.breaker.lock().stops(Instant::now())
    }

    /// A place in the queue for so many bytes, if there is one now. It is to be kept until the share is stored at the peer or
    /// written down for it. More than the whole queue has place once it is empty.
    pub fn place(&self, bytes: u64) -> Result<BytePermit, String> {
        let bytes = bytes.min(self.queue.limit());
        let full = |full| format!("the queue to {} is full: {full}", self.way.address);
        self.queue.try_acquire(bytes).map_err(full)
    }

    /// Queues a share that has its place, or answers at once that the peer is left alone.
    /// A share that is `needed`, because its write cannot succeed without it, goes to a peer that is left alone as well.
    pub fn send(&self, tenant: &TenantId, going: Going, part: Part, needed: bool) {
        let now = Instant::now();
        let pass = self.way.breaker.lock().pass(now);
        let role = match pass {
            Pass::Go => Role::Usual,
            Pass::Probe => Role::Probe,
            Pass::Stop(_) if needed => Role::Needed,
            Pass::Stop(_) => {
                let why = format!("{} failed or was slow a moment ago and is left alone", self.way.address);
                return miss(part, Answer::Away(why));
            }
        };
        let deadline = now + self.limits.deadline;
        let job = Job { tenant: tenant.clone(), going, part, role, deadline };
        let lost = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(job) = lost {
            let why = format!("the way to {} is closed", self.way.address);
            miss(job.part, Answer::Unavailable(why));
        }
    }

    /// Sends something that the peer missed, beside the queue.
    pub async fn deliver_hint(&self, call: WriteCall) -> Result<Vec<Verdict>, Untaken> {
        let pass = self.way.breaker.lock().pass(Instant::now());
        let role = match pass {
            Pass::Go => Role::Usual,
            Pass::Probe => Role::Probe,
            Pass::Stop(left) => return Err(Untaken::Later(left)),
        };
        self.way.call(call, role, Instant::now() + self.limits.deadline).await.map_err(Untaken::Failed)
    }

    /// Tells the peer what is said of metrics, where it is one of ours and its queue has place. Costs the queue's bytes
    /// until it is done.
    pub async fn tell(&self, tenant: &TenantId, said: &[MetricMetadata]) -> Result<(), String> {
        if !self.is_ours() {
            return Err("it is not known to keep metadata".to_owned());
        }
        if !self.way.breaker.lock().is_closed() {
            return Err("it is left alone for a moment".to_owned());
        }
        let bytes: usize = said.iter().map(|one| one.text_bytes() + 32).sum();
        let _permit = self.queue.try_acquire(bytes as u64).map_err(|full| full.to_string())?;
        let told = self.way.remote.write_metadata(tenant, said);
        match tokio::time::timeout(self.limits.deadline, told).await {
            Ok(told) => told.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Asks the peer, if it is one of ours and knows the answer, what of a batch that asks it would take: a verdict for each
    /// sample of the call's rows.
    pub async fn ask(&self, call: WriteCall) -> Option<Vec<Verdict>> {
        match self.is_ours() {
            true => self.way.remote.write(call).await.ok(),
            false => None,
        }
    }

    /// See [`Remote::exchange_pairs`].
    pub async fn exchange_pairs(&self, told: Vec<PairSighting>) -> Result<Vec<PairSighting>, storage::Error> {
        self.way.remote.exchange_pairs(told).await
    }

    /// See [`Remote::names`].
    pub fn names(&self) -> Option<usize> {
        self.way.remote.names()
    }

    /// Bytes queued or on their way.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.held()
    }

    /// 0 while it is written to, 1 while it is probed, 2 while it is left alone.
    pub fn breaker_level(&self) -> u8 {
        self.way.breaker.lock().level()
    }

    /// Takes no more, and lets what is queued go out for at most `grace`. What does not go out is kept as hints.
    pub async fn close(&self, grace: Duration) {
        *self.jobs.lock() = None;
        let workers = std::mem::take(&mut *self.workers.lock());
        let mut workers = futures::future::join_all(workers);
        if tokio::time::timeout(grace, &mut workers).await.is_err() {
            tracing::warn!(
                peer = self.way.address,
                bytes = self.queued_bytes(),
                "copies to the peer were given up"
            );
            // Every call ends now, and what is still queued is not begun.
            self.way.breaker.lock().shut();
            self.way.silenced.change(|generation| *generation += 1);
            workers.await;
        }
    }
}

impl Drop for Peer {
    /// A peer that left the ring: its queue still goes out, then its workers end by themselves.
    fn drop(&mut self) {
        *self.jobs.lock() = None;
    }
}

impl Way {
    async fn deliver(&self, job: Job) {
        let Job { tenant, going, part, role, deadline } = job;
        if Instant::now() >= deadline {
            let why = format!("the queue to {} is too slow", self.address);
            return miss(part, Answer::Unavailable(why));
        }
        if role == Role::Usual && !self.breaker.lock().is_closed() {
            let why = format!("{} failed or was slow and is left alone", self.address);
            return miss(part, Answer::Away(why));
        }
        let (batch, rows) = (Arc::clone(part.batch()), part.rows().to_vec());
        let Going { judged_at, replica, ring_epoch } = going;
        let call = WriteCall { tenant, batch, rows, replica, judged_at, ring_epoch };
        match self.call(call, role, deadline).await {
            Ok(verdicts) if !verdicts.contains(&Verdict::Unavailable) => {
                count("success");
                part.answer(Answer::InOrder(verdicts));
            }
            Ok(verdicts) => miss(part, Answer::InOrder(verdicts)),
            Err(error) => {
                if let Some(stale) = StaleEpoch::of(&error) {
                    return miss(part, Answer::Stale(stale.clone()));
                }
                tracing::debug!(peer = self.address, %error, "copy was not taken");
                // Errors of the connection name the peer themselves.
                let mut why = error.to_string();
                if !why.starts_with(&self.address) {
                    why = format!("{}: {why}", self.address);
                }
                miss(part, Answer::Away(why));
            }
        }
    }

    /// One call, watched: its end is told to the breaker, and it is given up where the peer falls silent.
    async fn call(
        &self,
        call: WriteCall,
        role: Role,
        deadline: Instant,
    ) -> Result<Vec<Verdict>, storage::Error> {
        let gone =
            |why: &str| storage::Error::new(model::Kind::Unavailable, format!("{} {why}", self.address));
        let before = *self.silenced.get();
        let silenced = self.silenced.until(|now| (*now != before).then_some(()));
        tokio::pin!(silenced);
        let began = Instant::now();
        // Who was silent a moment ago must not hold the workers up.
        let deadline = match role {
            Role::Usual => deadline,
            Role::Probe => deadline.min(began + self.slow),
            Role::Needed => deadline.min(began + 2 * self.slow),
        };
        self.breaker.lock().begin(began);
        let mut running = Running { way: self, role, began, answered: false };
        // An older peer takes floats alone, and is not away for that.
        let has_floats = call.rows.iter().any(|row| {
            call.batch.series().get(*row as usize).is_some_and(|series| !series.samples().is_empty())
        });
        let sent = tokio::time::timeout_at(deadline, self.remote.write(call));
        tokio::pin!(sent);
        let answer = loop {
            tokio::select! {
                // An answer that is there counts.
                biased;
                answer = &mut sent => break match answer {
                    Ok(answer) => answer,
                    Err(_) => Err(gone("did not answer in time")),
                },
                () = &mut silenced => break Err(gone("is silent")),
                () = tokio::time::sleep(self.slow) => self.look(),
            }
        };
        // Who answers that nothing can be taken is as good as away.
        running.answered = match &answer {
            Ok(verdicts) => !has_floats || verdicts.iter().any(|verdict| *verdict != Verdict::Unavailable),
            Err(error) => error.kind != model::Kind::Unavailable,
        };
        answer
    }

    fn look(&self) {
        let chance = self.chance();
        let opened = self.breaker.lock().look(Instant::now(), chance);
        if let Some(cause) = opened {
            self.opened(cause);
            self.silenced.change(|generation| *generation += 1);
        }
    }

    fn chance(&self) -> f64 {
        self.chance.below(1 << 16) as f64 / f64::from(1 << 16)
    }

    fn opened(&self, cause: Cause) {
        let labels = [("peer", self.address.clone()), ("cause", cause.as_str().to_owned())];
        metrics::counter!("tributary_receive_peer_breaker_opened_total", &labels[..]).increment(1);
        tracing::debug!(peer = self.address, cause = cause.as_str(), "peer is left alone");
    }
}

/// A call on its way; its end is told however it ends.
struct Running<'a> {
    way: &'a Way,
    role: Role,
    began: Instant,
    answered: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        let answer = self.answered.then_some(took);
        if answer.is_some() {
            metrics::histogram!("tributary_receive_peer_write_seconds", "peer" => self.way.address.clone())
                .record(took.as_secs_f64());
        }
        let chance = self.way.chance();
        let opened = self.way.breaker.lock().end(answer, self.role, now, chance);
        if let Some(cause) = opened {
            self.way.opened(cause);
        }
    }
}

/// A share that was not taken, or not all of it.
pub fn miss(part: Part, answer: Answer) {
    count("error");
    part.answer(answer);
}

fn count(result: &'static str) {
    metrics::counter!("thanos_receive_forward_requests_total", "result" => result).increment(1);
}

/// Addresses of `peers` for logs, in order.
pub fn names<'a>(peers: impl Iterator<Item = &'a Arc<Peer>>) -> Vec<String> {
    let names: BTreeSet<_> = peers.map(|peer| peer.address().to_owned()).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::hints::Hints;
    use crate::pending::{Keeper, Pending, tests::batch};
    use crate::quorum::Outcome;

    const GOING: Going = Going { judged_at: 0, replica: 1, ring_epoch: 0 };

    /// Stores everything after `delay`.
    struct Slow(Duration);

    impl Remote for Slow {
        fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
            async move {
                tokio::time::sleep(self.0).await;
                let rows = call.rows.iter().map(|row| call.batch.series()[*row as usize].samples().len());
                Ok(vec![Verdict::Stored; rows.sum()])
            }
            .boxed()
        }
    }

    fn start(address: &str, remote: Arc<dyn Remote>, limits: PeerLimits) -> Arc<Peer> {
        Peer::start(address, remote, limits, runtime::World::real().chance)
    }

    /// With its place in the queue.
    fn queue(peer: &Arc<Peer>, pending: &Arc<Pending>, rows: Vec<u32>) {
        let held = peer.place(crate::pending::bytes_of(&batch(rows.len(), 2), &rows)).unwrap();
        let keeper: Keeper = Box::new(move |_, _| drop(held));
        peer.send(&TenantId::new("t").unwrap(), GOING, pending.part_of(rows, Vec::new(), keeper), false);
    }

    fn limits(queue_bytes: u64) -> PeerLimits {
        {
            let second = Duration::from_secs(1);
            let rules = Rules { slow: 60 * second, first_pause: second, max_pause: second };
            PeerLimits { workers: 2, queue_bytes, deadline: Duration::from_secs(30), rules }
        }
    }

    #[tokio::test]
    async fn a_slow_peer_costs_only_its_own_copy() {
        let fast = start("fast:1", Arc::new(Slow(Duration::ZERO)), limits(1 << 20));
        let slow = start("slow:1", Arc::new(Slow(Duration::from_millis(800))), limits(1 << 20));
        let pending = Pending::new(batch(10, 2), 3, 2);
        let rows: Vec<u32> = (0..10).collect();
        for peer in [&fast, &slow] {
            queue(peer, &pending, rows.clone());
        }
        pending.part(rows).answer(Answer::ByIndex(vec![Verdict::Stored; 20]));
        let began = Instant::now();
        let collected = pending.collect(Duration::from_secs(5)).await;
        assert!(began.elapsed() < Duration::from_millis(700));
        assert!(collected.outcomes.iter().all(|o| *o == Outcome::Accepted));
        // The straggler still goes out.
        assert!(slow.queued_bytes() > 0);
        slow.close(Duration::from_secs(60)).await;
        assert_eq!(slow.queued_bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once_and_an_empty_one_takes_anything() {
        let peer = start("slow:1", Arc::new(Slow(Duration::from_millis(800))), limits(100));
        let held = peer.place(10_000).unwrap();
        assert_eq!(held.bytes(), 100);
        assert!(peer.place(1).unwrap_err().contains("the queue to slow:1 is full"));
        drop(held);
        assert!(peer.place(1).is_ok());
    }

    struct Away(&'static str);

    impl Remote for Away {
        fn write(&self, _: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
            let error = storage::Error::new(model::Kind::Unavailable, self.0);
            async { Err(error) }.boxed()
        }
    }

    #[tokio::test]
    async fn an_error_names_its_peer_once() {
        let tenant = TenantId::new("t").unwrap();
        for why in ["a:1: connection refused", "connection refused"] {
            let peer = start("a:1", Arc::new(Away(why)), limits(1 << 20));
            let pending = Pending::new(batch(1, 1), 1, 1);
            peer.send(&tenant, GOING, pending.part(vec![0]), false);
            let trouble = pending.collect(Duration::from_secs(5)).await.trouble.unwrap();
            assert_eq!(trouble.matches("a:1").count(), 1, "{trouble}");
        }
    }

    #[tokio::test]
    async fn a_silent_peer_is_left_alone_and_its_queue_is_emptied_at_once() {
        let tenant = TenantId::new("t").unwrap();
        let rules = Rules { slow: Duration::from_millis(100), ..limits(0).rules };
        let limits = PeerLimits { rules, ..limits(1 << 20) };
        let peer = start("silent:1", Arc::new(Slow(Duration::from_secs(3600))), limits);
        let pending: Vec<_> = (0..20).map(|_| Pending::new(batch(1, 1), 1, 1)).collect();
        for pending in &pending {
            queue(&peer, pending, vec![0]);
        }
        assert!(peer.queued_bytes() > 0);
        for pending in &pending {
            let collected = pending.collect(Duration::from_secs(20)).await;
            assert!(collected.trouble.is_some_and(|why| !why.contains("within")));
        }
        assert_eq!((peer.queued_bytes(), peer.breaker_level()), (0, 2));
        let pending = Pending::new(batch(1, 1), 1, 1);
        peer.send(&tenant, GOING, pending.part(vec![0]), false);
        let trouble = pending.collect(Duration::from_secs(20)).await.trouble.unwrap();
        assert!(trouble.contains("is left alone"), "{trouble}");
    }

    /// What waited in the queue brings its place among the hints with it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_queue_that_is_emptied_at_once_loses_nothing() {
        let tenant = TenantId::new("t").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let world = runtime::World::real();
        let settings =
            crate::Settings { data_dir: dir.path().to_owned(), ..crate::Settings::default() }.hints(true);
        let hints = Hints::new(&world, settings);
        let rules = Rules { slow: Duration::from_millis(100), ..limits(0).rules };
        let limits = PeerLimits { rules, ..limits(1 << 20) };
        let peer = Peer::start("silent:1", Arc::new(Slow(Duration::from_secs(3600))), limits, world.chance);
        for _ in 0..50 {
            let pending = Pending::new(batch(1, 2), 2, 1);
            let keeper = hints.keeper("silent:1", &tenant, 1, 0, peer.place(100).ok());
            peer.send(&tenant, GOING, pending.part_of(vec![0], Vec::new(), keeper), false);
            pending.part(vec![0]).answer(Answer::ByIndex(vec![Verdict::Stored; 2]));
        }
        peer.close(Duration::from_secs(60)).await;
        assert_eq!(peer.queued_bytes(), 50 * 100);
        let kept = tokio::task::spawn_blocking(move || {
            hints.open(None).unwrap();
            while hints.figures().iter().map(|(_, _, samples, _)| samples).sum::<u64>() < 100 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let figures = hints.figures();
            hints.close();
            figures
        });
        assert_eq!(kept.await.unwrap().len(), 1);
        assert_eq!(peer.queued_bytes(), 0);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up() {
        let limits = PeerLimits { deadline: Duration::from_millis(100), ..limits(1 << 20) };
        let peer = start("dead:1", Arc::new(Slow(Duration::from_secs(3600))), limits);
        for _ in 0..5 {
            let pending = Pending::new(batch(1, 1), 1, 1);
            queue(&peer, &pending, vec![0]);
        }
        assert!(peer.queued_bytes() > 0);
        while peer.queued_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
