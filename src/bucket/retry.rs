//! When a failed operation is tried again, and after how long.

use std::time::Duration;

use model::Kind;
use runtime::World;

/// How often and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all; at least 1.
    pub attempts: u32,
    /// Longest pause before the second attempt; doubles with each further one.
    pub first_pause: Duration,
    /// Longest pause at all.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// The pause after attempt number `made` (from 1) failed so; none to give up. Between half of the step and
    /// the whole of it, by `dice` in 0..=1000, so that many nodes do not come back in step.
    pub fn pause(&self, made: u32, kind: Kind, dice: u64) -> Option<Duration> {
        if !kind.retryable() || made >= self.attempts.max(1) {
            return None;
        }
        Some(self.step(made, dice))
    }

    /// The pause before try number `made + 1`, for those who never give up.
    pub fn step(&self, made: u32, dice: u64) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << made.saturating_sub(1).min(20));
        let whole = doubled.min(self.longest_pause);
        whole / 2 + (whole / 2).mul_f64(dice.min(1000) as f64 / 1000.0)
    }

    pub(crate) fn roll(world: &World) -> u64 {
        world.chance.below(1001)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(1, Kind::Refused, 0), None);
        assert_eq!(policy.pause(1, Kind::Unavailable, 0), Some(Duration::from_millis(100)));
        assert_eq!(policy.pause(2, Kind::Unavailable, 1000), Some(Duration::from_millis(400)));
        assert_eq!(policy.pause(3, Kind::Unavailable, 0), None);
        assert_eq!(policy.step(1000, 1000), Duration::from_secs(10));
    }
}
