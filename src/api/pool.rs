//! Where queries are evaluated: a fixed number at once on threads that may block, the rest in a queue.
//!
//! Tenants take turns; within a tenant the order is that of arrival. Whoever waits keeps a place in the queue only as long as the client stays and the deadline has not passed.
//! A client who leaves raises the query's [`Cancel`], which ends the evaluation within a morsel of work.

use std::time::{Duration, Instant};

use runtime::{Turns, World};
use storage::Cancel;

use crate::{ErrorType, Problem};

/// A pool. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct QueryPool {
    turns: Turns,
    world: World,
}

/// What an evaluation gave, and how long it waited for a thread.
pub struct Ran<T> {
    pub value: T,
    pub queued: Duration,
}

impl QueryPool {
    /// `concurrent` evaluations at once, at least one.
    pub fn new(concurrent: usize, world: World) -> QueryPool {
        metrics::gauge!("thanos_query_concurrent_gate_queries_max").set(concurrent.max(1) as f64);
        QueryPool::aside(concurrent, world)
    }

    /// A pool for work that is not a query, beside the one for queries.
    pub fn aside(concurrent: usize, world: World) -> QueryPool {
        QueryPool { turns: Turns::new(concurrent), world }
    }

    /// Monotonic time, for deadlines.
    pub fn now(&self) -> Instant {
        self.world.clock.monotonic()
    }

    /// Runs `work` on a thread of its own as soon as it is `party`'s turn. Dropping the future raises `cancel`.
    pub async fn run<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        party: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Ran<T>, Problem> {
        let mut guard = RaiseOnDrop(Some(cancel.clone()));
        let entered = self.now();
        let waiting = self.turns.take(party);
        let turn = match cancel.deadline() {
            None => waiting.await,
            Some(deadline) => {
                match tokio::time::timeout(deadline.saturating_duration_since(entered), waiting).await {
                    Ok(turn) => turn,
                    Err(_) => return Err(Problem::new(ErrorType::Timeout, "query timed out in query queue")),
                }
            }
        };
        let queued = self.now().saturating_duration_since(entered);
        metrics::histogram!("thanos_query_concurrent_gate_duration_seconds").record(queued.as_secs_f64());
        let running = InFlight::enter();
        let done = tokio::task::spawn_blocking(move || {
            let value = work();
            drop((turn, running));
            value
        })
        .await;
        guard.0 = None;
        match done {
            Ok(value) => Ok(Ran { value, queued }),
            Err(error) => {
                tracing::error!(%error, "an evaluation ended abnormally");
                Err(Problem::new(ErrorType::Internal, "the evaluation ended abnormally; see the log"))
            }
        }
    }
}

/// Raises the flag unless the answer came first.
struct RaiseOnDrop(Option<Cancel>);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.raise();
        }
    }
}

struct InFlight;

impl InFlight {
    fn enter() -> InFlight {
        metrics::gauge!("thanos_query_concurrent_gate_queries_in_flight").increment(1.0);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("thanos_query_concurrent_gate_queries_in_flight").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn leaving_raises_and_frees_the_place() {
        let pool = QueryPool::new(1, World::real());
        let cancel = Cancel::new(None);
        let (started, is_running) = mpsc::channel();
        let (pool2, cancel2) = (pool.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            let seen = cancel2.clone();
            let work = move || {
                started.send(()).unwrap();
                while !seen.is_raised() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            pool2.run(&cancel2, "", work).await.map(|ran| ran.value)
        });
        tokio::task::spawn_blocking(move || is_running.recv().unwrap()).await.unwrap();
        // Somebody else waits in vain until a deadline.
        let late = Cancel::new(Some(pool.now() + Duration::from_millis(20)));
        let refused = pool.run(&late, "", || ()).await.err().unwrap();
        assert_eq!(refused.message, "query timed out in query queue");
        assert!(!cancel.is_raised());
        task.abort();
        // The place is free again once the evaluation has seen the flag.
        pool.run(&Cancel::new(None), "", || ()).await.map(|_| ()).unwrap();
        assert!(cancel.is_raised());
    }
}
