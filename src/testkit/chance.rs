//! Random numbers that a seed decides.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use runtime::Chance;

/// SplitMix64: the same seed gives the same numbers, in the order of the calls.
pub struct SeededChance(AtomicU64);

impl SeededChance {
    pub fn new(seed: u64) -> SeededChance {
        SeededChance(AtomicU64::new(seed))
    }
}

impl Chance for SeededChance {
    fn next_u64(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
