//! Who does the work that goes on beside its callers: threads in life, steps of the one thread of a simulation.
//!
//! Whoever starts a thread asks [`World::threads`](crate::World) first. Where these are real, nothing here costs
//! anything. Where they are stepped, it hands over a step whenever there is work, and does inline what it would wait for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

/// One piece of work.
pub type Step = Box<dyn FnOnce() + Send>;

/// Runs steps: a simulation, which alone says when.
pub trait Steps: Send + Sync {
    /// Runs `step` once, later, on the simulation's thread; `what` tells whose it is. Never runs it at once: the caller
    /// may hold locks.
    fn soon(&self, what: &'static str, step: Step);

    /// As [`Steps::soon`], not before `delay` has passed.
    fn after(&self, what: &'static str, delay: Duration, step: Step);
}

/// Where work beside its callers is done.
#[derive(Clone, Default)]
pub enum Threads {
    #[default]
    Real,
    Stepped(Arc<dyn Steps>),
}

impl Threads {
    /// Who runs steps, where there are no threads.
    pub fn steps(&self) -> Option<&Arc<dyn Steps>> {
        match self {
            Threads::Real => None,
            Threads::Stepped(steps) => Some(steps),
        }
    }

    /// How many do something at once: cores, or one.
    pub fn cores(&self) -> usize {
        match self {
            Threads::Real => std::thread::available_parallelism().map_or(1, usize::from),
            Threads::Stepped(_) => 1,
        }
    }

    /// Runs work that waits for a disk, off the threads that drive sockets. The error is a panic, or the end of the runtime.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Threads::Real => tokio::task::spawn_blocking(work).await,
            Threads::Stepped(_) => Ok(work()),
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.steps().is_some() { "Stepped" } else { "Real" })
    }
}
