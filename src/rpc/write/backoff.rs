//! How long a peer that failed is left alone.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use runtime::World;

/// First pause; it doubles with each failure in a row.
const FIRST: Duration = Duration::from_millis(100);

/// The pauses of one peer.
pub(crate) struct Backoff {
    max: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(max: Duration) -> Backoff {
        Backoff { max, state: Mutex::default() }
    }

    /// How long the peer is still to be left alone, if at all.
    pub(crate) fn pausing(&self, now: Instant) -> Option<Duration> {
        self.state.lock().until.and_then(|until| until.checked_duration_since(now)).filter(|d| !d.is_zero())
    }

    pub(crate) fn succeeded(&self) {
        *self.state.lock() = State::default();
    }

    /// Counts a failure, unless one of the same moment was counted already: many calls fail together when a
    /// peer dies.
    pub(crate) fn failed(&self, world: &World) {
        let now = world.clock.monotonic();
        let mut state = self.state.lock();
        if state.until.is_some_and(|until| until > now) {
            return;
        }
        let pause = pause(state.failures, self.max);
        // Between half and the whole of it, so that routers do not come back all at once.
        let jitter = world.chance.below(pause.as_micros() as u64 / 2 + 1);
        state.failures = state.failures.saturating_add(1);
        state.until = now.checked_add(pause - Duration::from_micros(jitter));
    }
}

fn pause(failures: u32, max: Duration) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_limit_and_forgets_on_success() {
        let max = Duration::from_secs(5);
        let pauses: Vec<_> = (0..8).map(|n| pause(n, max).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let (world, backoff) = (World::real(), Backoff::new(max));
        let now = world.clock.monotonic();
        assert_eq!(backoff.pausing(now), None);
        backoff.failed(&world);
        backoff.failed(&world);
        let left = backoff.pausing(now).unwrap();
        assert!(left <= Duration::from_millis(110), "{left:?}");
        assert_eq!(backoff.pausing(now + Duration::from_secs(1)), None);
        backoff.succeeded();
        assert_eq!(backoff.pausing(now), None);
    }
}
