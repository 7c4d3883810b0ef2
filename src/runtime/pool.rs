//! Named threads for work that blocks or computes, so that it never holds a thread that drives sockets.
//!
//! # Cost
//! One lock and one wake-up per job on either side; one allocation for the job and one for its answer.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::threads::{Steps, Threads};

/// A bounded number of threads with a bounded queue. Clones are the same pool; with the last one the threads
/// end after the job at hand, and jobs still queued are dropped.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// One permit per place, at work or in the queue.
    places: Arc<Semaphore>,
    /// Who runs the jobs, where there are no threads.
    steps: Option<Arc<dyn Steps>>,
}

struct Shared {
    name: String,
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// Raised when nobody waits for a job's answer any more. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    pub fn is_raised(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Why a job gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every thread is busy and the queue is full.
    #[error("the {0} pool is full")]
    Full(String),
    #[error("the {0} pool is closed")]
    Closed(String),
    /// A fault of ours; the pool goes on.
    #[error("a job of the {pool} pool panicked: {message}")]
    Panicked { pool: String, message: String },
}

impl Pool {
    /// Starts `threads` threads called `name-0`, `name-1` ...; up to `queue` jobs wait for one.
    pub fn new(name: &str, threads: usize, queue: usize) -> io::Result<Pool> {
        Pool::on(&Threads::Real, name, threads, queue)
    }

    /// As [`Pool::new`]; where there are no threads, each job is a step.
    pub fn on(seam: &Threads, name: &str, threads: usize, queue: usize) -> io::Result<Pool> {
        Pool::start(seam, name, threads, queue, || {})
    }

    /// As [`Pool::on`], for work that nobody waits for: its threads give way to all others.
    pub fn behind(seam: &Threads, name: &str, threads: usize, queue: usize) -> io::Result<Pool> {
        Pool::start(seam, name, threads, queue, || {
            if let Err(error) = crate::give_way() {
                tracing::debug!(%error, "a thread for work behind keeps its priority");
            }
        })
    }

    fn start(seam: &Threads, name: &str, threads: usize, queue: usize, begin: fn()) -> io::Result<Pool> {
        let threads = threads.max(1);
        let shared =
            Arc::new(Shared { name: name.to_owned(), queue: Mutex::default(), ready: Condvar::new() });
        let pool = Pool(Arc::new(Handle {
            shared: Arc::clone(&shared),
            places: Arc::new(Semaphore::new((threads + queue).min(Semaphore::MAX_PERMITS))),
            steps: seam.steps().cloned(),
        }));
        if pool.0.steps.is_some() {
            return Ok(pool);
        }
        for n in 0..threads {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("{name}-{n}")).spawn(move || {
                begin();
                shared.work();
            })?;
        }
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool, waiting for a place in the queue. If this future is dropped, work
    /// that has not begun never does.
    pub async fn run<T, W>(&self, work: W) -> Result<T, PoolError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        self.run_abandonable(move |_| work()).await
    }

    /// Like [`Pool::run`], but fails at once when there is no place.
    pub async fn try_run<T, W>(&self, work: W) -> Result<T, PoolError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        let place = place.map_err(|_| PoolError::Full(self.name()))?;
        self.submit(place, move |_| work()).await
    }

    /// Like [`Pool::run`] for long work that looks, now and then, whether anybody still waits for it.
    pub async fn run_abandonable<T, W>(&self, work: W) -> Result<T, PoolError>
    where
        T: Send + 'static,
        W: FnOnce(&Abandoned) -> T + Send + 'static,
    {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| PoolError::Closed(self.name()))?;
        self.submit(place, work).await
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        self.0.shared.queue.lock().jobs.len()
    }

    fn name(&self) -> String {
        self.0.shared.name.clone()
    }

    async fn submit<T, W>(&self, place: OwnedSemaphorePermit, work: W) -> Result<T, PoolError>
    where
        T: Send + 'static,
        W: FnOnce(&Abandoned) -> T + Send + 'static,
    {
        let abandoned = Abandoned::default();
        let guard = RaiseOnDrop(abandoned.clone());
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let _place = place;
            if !abandoned.is_raised() {
                // Nobody waiting is not an error: the answer is dropped.
                let _ = answer.send(catch_unwind(AssertUnwindSafe(|| work(&abandoned))));
            }
        };
        {
            let mut queue = self.0.shared.queue.lock();
            if queue.closed {
                return Err(PoolError::Closed(self.name()));
            }
            queue.jobs.push_back(Box::new(job));
        }
        match &self.0.steps {
            None => {
                self.0.shared.ready.notify_one();
            }
            Some(steps) => {
                let shared = Arc::clone(&self.0.shared);
                steps.soon("pool", Box::new(move || shared.step()));
            }
        }
        let outcome = answered.await;
        drop(guard);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                Err(PoolError::Panicked { pool: self.name(), message: panic_text(panic.as_ref()) })
            }
            Err(_) => Err(PoolError::Closed(self.name())),
        }
    }
}

struct RaiseOnDrop(Abandoned);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Relaxed);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

impl Shared {
    /// The oldest job, if it was not dropped meanwhile.
    fn step(&self) {
        let job = self.queue.lock().jobs.pop_front();
        if let Some(job) = job {
            job();
        }
    }

    fn work(&self) {
        loop {
            let job = {
                let mut queue = self.queue.lock();
                loop {
                    if queue.closed {
                        return;
                    }
                    match queue.jobs.pop_front() {
                        Some(job) => break job,
                        None => self.ready.wait(&mut queue),
                    }
                }
            };
            job();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(left);
        self.shared.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn answers_come_back_from_named_threads() {
        let pool = Pool::new("append", 2, 4).unwrap();
        let name = pool.run(|| thread::current().name().map(str::to_owned)).await.unwrap().unwrap();
        assert!(name.starts_with("append-"));
        let error = pool.run(|| -> u32 { panic!("bug {}", 1) }).await.unwrap_err();
        assert_eq!(error.to_string(), "a job of the append pool panicked: bug 1");
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn full_is_said_and_abandoned_work_is_skipped() {
        let pool = Pool::new("query", 1, 1).unwrap();
        let (open, opened) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run_abandonable(move |abandoned| {
                    let _ = began.send(());
                    let _ = opened.recv();
                    abandoned.is_raised()
                })
                .await
            }
        });
        begun.await.unwrap();
        let (ran, has_run) = mpsc::channel::<()>();
        let mut queued = Box::pin(pool.run(move || ran.send(())));
        assert!(futures::poll!(&mut queued).is_pending());
        assert_eq!(pool.try_run(|| ()).await, Err(PoolError::Full("query".to_owned())));
        drop(queued);
        open.send(()).unwrap();
        assert_eq!(busy.await.unwrap(), Ok(false));
        assert_eq!(pool.run(|| 1).await, Ok(1));
        assert!(has_run.try_recv().is_err());
    }

    #[tokio::test]
    async fn running_work_learns_that_nobody_waits() {
        let pool = Pool::new("query", 1, 0).unwrap();
        let (saw, seen) = mpsc::channel();
        let (began, begun) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run_abandonable(move |abandoned| {
                    let _ = began.send(());
                    while !abandoned.is_raised() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let _ = saw.send(());
                })
                .await
            }
        });
        begun.await.unwrap();
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(seen.recv_timeout(Duration::from_secs(10)).is_ok());
    }
}
