//! The signal to stop: once for a graceful end, twice for an end at once.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::Signal;

/// How far stopping has gone; only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Now,
}

/// A handle on the process's (or a test's) end. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<Signal<Stage>>);

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown(Arc::new(Signal::new(Stage::Running)))
    }

    /// Takes SIGTERM and SIGINT: the first triggers a graceful stop, the second one at once. Must be called
    /// within a tokio runtime.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if shutdown.is_triggered() {
                    tracing::warn!(signal = name, "second stop signal: stopping at once");
                    shutdown.trigger_now();
                } else {
                    tracing::info!(signal = name, "stop signal: finishing what is in flight");
                    shutdown.trigger();
                }
            }
        });
        Ok(())
    }

    /// Asks everybody to finish and end.
    pub fn trigger(&self) {
        self.raise(Stage::Draining);
    }

    /// Asks everybody to end without finishing.
    pub fn trigger_now(&self) {
        self.raise(Stage::Now);
    }

    fn raise(&self, to: Stage) {
        self.0.change(|stage| *stage = to.max(*stage));
    }

    /// Whether a stop, graceful or at once, has been asked for.
    pub fn is_triggered(&self) -> bool {
        *self.0.get() >= Stage::Draining
    }

    pub fn is_now(&self) -> bool {
        *self.0.get() >= Stage::Now
    }

    /// Returns once a stop has been asked for.
    pub async fn wait(&self) {
        self.reach(Stage::Draining).await;
    }

    /// Returns once a stop at once has been asked for.
    pub async fn wait_now(&self) {
        self.reach(Stage::Now).await;
    }

    /// Like [`Shutdown::wait`], for those who want a future that borrows nothing.
    pub fn waiter(&self) -> impl Future<Output = ()> + Send + 'static {
        let shutdown = self.clone();
        async move { shutdown.wait().await }
    }

    async fn reach(&self, wanted: Stage) {
        self.0.until(|stage| (*stage >= wanted).then_some(())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn once_graceful_twice_now() {
        let shutdown = Shutdown::new();
        let waiter = tokio::spawn(shutdown.waiter());
        assert!(!shutdown.is_triggered());
        shutdown.clone().trigger();
        waiter.await.unwrap();
        assert!(shutdown.is_triggered() && !shutdown.is_now());
        shutdown.trigger_now();
        shutdown.trigger();
        shutdown.wait_now().await;
        assert!(shutdown.is_now());
    }
}
