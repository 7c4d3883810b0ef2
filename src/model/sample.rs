//! One value at one time, the stale marker, and the rule for two values at one time.

use crate::Timestamp;

/// Bits of the NaN by which Prometheus marks a series as ended. Must survive every encoding bit for bit.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A float value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub timestamp: Timestamp,
    /// Any bit pattern; NaN payloads are kept.
    pub value: f64,
}

impl PartialEq for Sample {
    /// Equal when time and value *bits* are equal, so that NaN and -0 compare as stored.
    fn eq(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp && self.value.to_bits() == other.value.to_bits()
    }
}

/// The stale marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the stale marker (an ordinary NaN is not).
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// Which of two values for one series and time every reader and the compactor return: one that is not a
/// stale marker before one that is, then the greater bit pattern. Commutative and associative, so that the
/// order in which copies arrive cannot matter.
pub fn pick_conflict(a: f64, b: f64) -> f64 {
    match (is_stale(a), is_stale(b)) {
        (true, false) => b,
        (false, true) => a,
        _ if a.to_bits() >= b.to_bits() => a,
        _ => b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_is_commutative() {
        let values = [0.0, -0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, stale_nan()];
        for a in values {
            for b in values {
                assert_eq!(pick_conflict(a, b).to_bits(), pick_conflict(b, a).to_bits());
            }
        }
        assert_eq!(pick_conflict(stale_nan(), 1.0), 1.0);
    }
}
