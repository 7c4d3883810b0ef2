//! Which times are taken: a pure function of the sample's time, the door's clock and the series.

use model::Timestamp;
use storage::Refusal;

/// Times beyond this cannot be stored, so that sums of times never overflow.
const FARTHEST: i64 = i64::MAX / 4;

/// Series that nobody has written to for this long, beside the out-of-order window, are forgotten once they are empty.
pub(crate) const IDLE: i64 = 60 * 60_000;

/// The accepted window, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub out_of_order_window: i64,
    pub future_tolerance: i64,
    pub max_sample_age: i64,
}

impl Bounds {
    /// With a window that is at most `window` long.
    pub(crate) fn narrowed(self, window: i64) -> Bounds {
        Bounds { out_of_order_window: self.out_of_order_window.min(window), ..self }
    }

    /// Whether a sample that is not there yet is taken. `newest` is the series' newest time, if it has one.
    ///
    /// ```text
    /// too old |  in order for its series only   |   in any order   | too far ahead
    ///     judged_at - age           judged_at - window    judged_at + tolerance
    /// ```
    pub(crate) fn judge(
        &self,
        t: Timestamp,
        judged_at: Timestamp,
        newest: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.ahead(t, judged_at) {
            return Err(refusal);
        }
        let age = judged_at.saturating_sub(t);
        if age <= self.out_of_order_window {
            return Ok(());
        }
        if age > self.max_sample_age || newest.is_some_and(|newest| t <= newest) {
            return Err(Refusal::TooOld);
        }
        Ok(())
    }

    /// Whether a series without samples in the head had none since `start` either. Idle series are forgotten, but not
    /// before their newest sample is older than this.
    pub(crate) fn is_known_since(&self, start: Timestamp, judged_at: Timestamp) -> bool {
        judged_at.saturating_sub(start) <= self.out_of_order_window.max(0).saturating_add(IDLE)
    }

    /// What is refused without a look at what is stored.
    pub(crate) fn ahead(&self, t: Timestamp, judged_at: Timestamp) -> Option<Refusal> {
        if t.saturating_sub(judged_at) > self.future_tolerance {
            return Some(Refusal::TooFarInFuture);
        }
        (t < -FARTHEST).then_some(Refusal::OutOfBounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_the_window() {
        let bounds = Bounds { out_of_order_window: 100, future_tolerance: 10, max_sample_age: 1000 };
        let now = 5000;
        let check =
            |t, newest, expected| assert_eq!(bounds.judge(t, now, newest), expected, "{t} {newest:?}");
        check(now + 10, None, Ok(()));
        check(now + 11, None, Err(Refusal::TooFarInFuture));
        check(now - 100, Some(now), Ok(()));
        check(now - 101, Some(now), Err(Refusal::TooOld));
        check(now - 101, Some(now - 102), Ok(()));
        check(now - 1000, None, Ok(()));
        check(now - 1001, None, Err(Refusal::TooOld));
        check(i64::MIN, None, Err(Refusal::OutOfBounds));
        check(i64::MAX, None, Err(Refusal::TooFarInFuture));
    }
}
