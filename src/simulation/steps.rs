//! The seams of one life of a node: its clock, and the steps that stand for its threads, which end with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use runtime::{Chance, Clock, Step, Steps};
use testkit::SeededChance;
use tokio::runtime::Handle;

/// When every simulation begins, in milliseconds since the epoch; an edge of a window.
pub const EPOCH: i64 = 1_700_006_400_000;

/// A node's wall clock: the true time, and how far off it is. Clones share that.
#[derive(Clone)]
pub struct SimClock {
    began: tokio::time::Instant,
    skew: Arc<AtomicI64>,
}

impl SimClock {
    /// A right one, within a runtime whose time stands still by itself.
    pub fn new(began: tokio::time::Instant) -> SimClock {
        SimClock { began, skew: Arc::default() }
    }

    pub fn set_skew(&self, ms: i64) {
        self.skew.store(ms, Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        EPOCH + self.began.elapsed().as_millis() as i64 + self.skew.load(Relaxed)
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Runs steps of one life of a node on the one thread that there is, each after a delay that the seed decides.
pub struct Stepper {
    handle: Handle,
    chance: SeededChance,
    alive: Arc<AtomicBool>,
    /// Longest delay of a sync, in microseconds.
    slowest_sync: u64,
}

impl Stepper {
    /// Once `alive` is false, no step runs any more: a dead process does nothing.
    pub fn new(seed: u64, alive: Arc<AtomicBool>, slowest_sync: Duration) -> Stepper {
        let slowest_sync = slowest_sync.as_micros() as u64;
        Stepper { handle: Handle::current(), chance: SeededChance::new(seed), alive, slowest_sync }
    }
}

impl Steps for Stepper {
    fn soon(&self, what: &'static str, step: Step) {
        let most = match what {
            "log" | "hints" => self.slowest_sync,
            _ => 1_000,
        };
        self.after(what, Duration::from_micros(self.chance.below(most)), step);
    }

    fn after(&self, _: &'static str, delay: Duration, step: Step) {
        let alive = Arc::clone(&self.alive);
        self.handle.spawn(async move {
            tokio::time::sleep(delay).await;
            if alive.load(Relaxed) {
                step();
            }
        });
    }
}
