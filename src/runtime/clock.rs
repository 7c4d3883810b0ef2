//! Wall-clock and monotonic time.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The one source of time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May jump.
    fn now_ms(&self) -> i64;

    /// Monotonic time, for durations and deadlines.
    fn monotonic(&self) -> Instant;
}

/// The machine's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now_ms(&self) -> i64 {
        // A clock before 1970 is shown as negative time instead of failing.
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A wall clock that a test moves by hand; monotonic time stays the machine's.
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn new(now_ms: i64) -> ManualClock {
        ManualClock(AtomicI64::new(now_ms))
    }

    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, SeqCst);
    }

    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(SeqCst)
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}
