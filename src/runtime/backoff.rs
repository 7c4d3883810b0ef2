//! Waiting longer after each failure, never in step with others.

use std::sync::Arc;
use std::time::Duration;

use crate::Chance;

/// Delays that double from `initial` to `max`, each drawn from the upper half of its step.
#[derive(Clone)]
pub struct Backoff {
    chance: Arc<dyn Chance>,
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(chance: Arc<dyn Chance>, initial: Duration, max: Duration) -> Backoff {
        Backoff { chance, initial, max, failures: 0 }
    }

    /// The delay before the next attempt; call it once after each failure.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.step();
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.chance.below(nanos.saturating_add(1)))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn step(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.initial.checked_mul(factor).unwrap_or(self.max).min(self.max)
    }
}

impl std::fmt::Debug for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backoff")
            .field("initial", &self.initial)
            .field("max", &self.max)
            .field("failures", &self.failures)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(u64);

    impl Chance for Always {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn doubles_to_the_maximum_within_its_half() {
        let ms = Duration::from_millis;
        let mut least = Backoff::new(Arc::new(Always(0)), ms(100), ms(1000));
        let mut most = Backoff::new(Arc::new(Always(u64::MAX)), ms(100), ms(1000));
        let low: Vec<_> = (0..6).map(|_| least.next_delay()).collect();
        let high: Vec<_> = (0..6).map(|_| most.next_delay()).collect();
        assert_eq!(low, [50, 100, 200, 400, 500, 500].map(ms));
        assert_eq!(high, [100, 200, 400, 800, 1000, 1000].map(ms));
        for _ in 0..100 {
            assert!(most.next_delay() <= ms(1000));
        }
        most.reset();
        assert_eq!(most.next_delay(), ms(100));
    }
}
