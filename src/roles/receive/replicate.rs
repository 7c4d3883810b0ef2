//! Copies to peers: per peer one queue bounded in bytes and a few workers, so that a slow or dead peer costs
//! its own copy and nothing else.
//!
//! A write never waits for a place in a queue: where there is none, the peer is unavailable for that write at
//! once. What is queued goes on after the write was answered, until its own deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{MetricMetadata, TenantId, Timestamp};
use parking_lot::Mutex;
use rpc::WriteCall;
use runtime::{ByteGate, BytePermit};
use storage::Verdict;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::pending::{Answer, Part};

/// The way to a peer: gRPC in life, a function in tests.
pub trait Remote: Send + Sync + 'static {
    /// Sends rows of a batch; a verdict for each of their samples, in order.
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>>;

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
}

/// A peer of the ring.
pub struct Peer {
    address: String,
    queue: ByteGate,
    remote: Arc<dyn Remote>,
    /// None once closed.
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    limits: PeerLimits,
    /// Whether Info said that it is one of ours, to whom it does not matter which copy it stores.
    ours: AtomicBool,
}

struct Job {
    tenant: TenantId,
    judged_at: Timestamp,
    replica: u32,
    part: Part,
    deadline: Instant,
    _permit: BytePermit,
}

impl Peer {
    /// Starts the workers on the current runtime.
    pub fn start(address: &str, remote: Arc<dyn Remote>, limits: PeerLimits) -> Arc<Peer> {
        let (jobs, queued) = mpsc::unbounded_channel::<Job>();
        let queued = Arc::new(tokio::sync::Mutex::new(queued));
        let workers: Vec<_> = (0..limits.workers.max(1))
            .map(|_| {
                let (queued, remote, address) =
                    (Arc::clone(&queued), Arc::clone(&remote), address.to_owned());
                tokio::spawn(async move {
                    loop {
                        let job = queued.lock().await.recv().await;
                        let Some(job) = job else { break };
                        deliver(&address, remote.as_ref(), job).await;
                    }
                })
            })
            .collect();
        Arc::new(Peer {
            address: address.to_owned(),
            queue: ByteGate::new(limits.queue_bytes),
            remote,
            workers: Mutex::new(workers),
            jobs: Mutex::new(Some(jobs)),
            limits,
            ours: AtomicBool::new(false),
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn is_ours(&self) -> bool {
        self.ours.load(Relaxed)
    }

    pub fn set_ours(&self, ours: bool) {
        self.ours.store(ours, Relaxed);
    }

    /// Queues a share, or answers at once that there is no place. `replica` counts from 1.
    pub fn send(&self, tenant: &TenantId, judged_at: Timestamp, replica: u32, part: Part) {
        let permit = match self.queue.try_acquire(part.bytes()) {
            Ok(permit) => permit,
            Err(full) => {
                count("error");
                let why = format!("the queue to {} is full: {full}", self.address);
                part.answer(Answer::Unavailable(why));
                return;
            }
        };
        let deadline = Instant::now() + self.limits.deadline;
        let job = Job { tenant: tenant.clone(), judged_at, replica, part, deadline, _permit: permit };
        let lost = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(job) = lost {
            let why = format!("the way to {} is closed", self.address);
            job.part.answer(Answer::Unavailable(why));
        }
    }

    /// Tells the peer what is said of metrics, where it is one of ours and its queue has place. Costs the queue's bytes
    /// until it is done.
    pub async fn tell(&self, tenant: &TenantId, said: &[MetricMetadata]) -> Result<(), String> {
        if !self.is_ours() {
            return Err("it is not known to keep metadata".to_owned());
        }
        let bytes: usize = said.iter().map(|one| one.text_bytes() + 32).sum();
        let _permit = self.queue.try_acquire(bytes as u64).map_err(|full| full.to_string())?;
        match tokio::time::timeout(self.limits.deadline, self.remote.write_metadata(tenant, said)).await {
            Ok(told) => told.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Bytes queued or on their way.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.held()
    }

    /// Takes no more, and lets what is queued go out for at most `grace`.
    pub async fn close(&self, grace: Duration) {
        *self.jobs.lock() = None;
        let workers = std::mem::take(&mut *self.workers.lock());
        let aborts: Vec<_> = workers.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(grace, futures::future::join_all(workers)).await.is_err() {
            tracing::warn!(
                peer = self.address,
                bytes = self.queued_bytes(),
                "copies to the peer were given up"
            );
            for abort in aborts {
                abort.abort();
            }
        }
    }
}

impl Drop for Peer {
    /// A peer that left the ring: its queue still goes out, then its workers end by themselves.
    fn drop(&mut self) {
        *self.jobs.lock() = None;
    }
}

async fn deliver(address: &str, remote: &dyn Remote, job: Job) {
    let Job { tenant, judged_at, replica, part, deadline, _permit } = job;
    if Instant::now() >= deadline {
        count("error");
        part.answer(Answer::Unavailable(format!("the queue to {address} is too slow")));
        return;
    }
    let call =
        WriteCall { tenant, batch: Arc::clone(part.batch()), rows: part.rows().to_vec(), replica, judged_at };
    match tokio::time::timeout_at(deadline, remote.write(call)).await {
        Ok(Ok(verdicts)) => {
            count("success");
            part.answer(Answer::InOrder(verdicts));
        }
        Ok(Err(error)) => {
            count("error");
            tracing::debug!(peer = address, %error, "copy was not taken");
            // Errors of the connection name the peer themselves.
            let mut why = error.to_string();
            if !why.starts_with(address) {
                why = format!("{address}: {why}");
            }
            part.answer(Answer::Unavailable(why));
        }
        Err(_) => {
            count("error");
            part.answer(Answer::Unavailable(format!("{address} did not answer in time")));
        }
    }
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
    use crate::pending::{Pending, tests::batch};
    use crate::quorum::Outcome;

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

    fn limits(queue_bytes: u64) -> PeerLimits {
        PeerLimits { workers: 2, queue_bytes, deadline: Duration::from_secs(30) }
    }

    #[tokio::test]
    async fn a_slow_peer_costs_only_its_own_copy() {
        let tenant = TenantId::new("t").unwrap();
        let fast = Peer::start("fast:1", Arc::new(Slow(Duration::ZERO)), limits(1 << 20));
        let slow = Peer::start("slow:1", Arc::new(Slow(Duration::from_millis(800))), limits(1 << 20));
        let pending = Pending::new(batch(10, 2), 3, 2);
        let rows: Vec<u32> = (0..10).collect();
        for peer in [&fast, &slow] {
            peer.send(&tenant, 0, 1, pending.part(rows.clone()));
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
    async fn a_full_queue_answers_at_once() {
        let tenant = TenantId::new("t").unwrap();
        let peer = Peer::start("slow:1", Arc::new(Slow(Duration::from_millis(800))), limits(100));
        let pending = Pending::new(batch(10, 2), 1, 1);
        peer.send(&tenant, 0, 1, pending.part((0..10).collect()));
        let collected = pending.collect(Duration::from_secs(5)).await;
        assert!(collected.outcomes.iter().all(|o| *o == Outcome::Retryable));
        assert!(collected.trouble.unwrap().contains("the queue to slow:1 is full"));
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
            let peer = Peer::start("a:1", Arc::new(Away(why)), limits(1 << 20));
            let pending = Pending::new(batch(1, 1), 1, 1);
            peer.send(&tenant, 0, 1, pending.part(vec![0]));
            let trouble = pending.collect(Duration::from_secs(5)).await.trouble.unwrap();
            assert_eq!(trouble.matches("a:1").count(), 1, "{trouble}");
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up() {
        let tenant = TenantId::new("t").unwrap();
        let limits = PeerLimits { deadline: Duration::from_millis(100), ..limits(1 << 20) };
        let peer = Peer::start("dead:1", Arc::new(Slow(Duration::from_secs(3600))), limits);
        for _ in 0..5 {
            let pending = Pending::new(batch(1, 1), 1, 1);
            peer.send(&tenant, 0, 1, pending.part(vec![0]));
        }
        assert!(peer.queued_bytes() > 0);
        while peer.queued_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
