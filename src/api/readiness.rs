//! Whether a process may be sent traffic, and if not, why.
//!
//! One probe per process: the role moves it, `/-/ready` and the query handlers read it. Ready means that
//! requests will be answered, not that the process is alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

/// A probe. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None while ready.
    reason: RwLock<Option<String>>,
    stopping: AtomicBool,
}

impl Readiness {
    /// Not ready yet, for `reason` (in words that an operator understands: "replaying the log").
    pub fn starting(reason: impl Into<String>) -> Readiness {
        let inner = Inner { reason: RwLock::new(Some(reason.into())), stopping: AtomicBool::new(false) };
        Readiness { inner: Arc::new(inner) }
    }

    /// From now on requests are answered; without effect once stopping.
    pub fn set_ready(&self) {
        let mut reason = self.inner.reason.write();
        if !self.inner.stopping.load(Relaxed) {
            *reason = None;
        }
    }

    /// Requests cannot be answered at the moment, or the reason has changed.
    pub fn set_not_ready(&self, why: impl Into<String>) {
        *self.inner.reason.write() = Some(why.into());
    }

    /// The process is about to end; nothing makes it ready again.
    pub fn set_stopping(&self) {
        let mut reason = self.inner.reason.write();
        self.inner.stopping.store(true, Relaxed);
        *reason = Some("shutting down".to_owned());
    }

    pub fn is_ready(&self) -> bool {
        self.inner.reason.read().is_none()
    }

    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Relaxed)
    }

    /// Ok if ready, else the reason.
    pub fn check(&self) -> Result<(), String> {
        match &*self.inner.reason.read() {
            None => Ok(()),
            Some(reason) => Err(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_is_final() {
        let probe = Readiness::starting("replaying the log");
        assert_eq!(probe.check(), Err("replaying the log".to_owned()));
        probe.set_ready();
        assert!(probe.clone().is_ready());
        probe.set_stopping();
        probe.set_ready();
        assert!(!probe.is_ready() && probe.is_stopping());
    }
}
