//! Random numbers.

/// The one source of randomness.
pub trait Chance: Send + Sync {
    /// 64 uniformly random bits.
    fn next_u64(&self) -> u64;

    /// Uniform in `0..bound`; 0 where `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        // The bias of the high product is below 2^-64 per value: nothing here needs better.
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }
}

/// The operating system's generator, by way of a per-thread one.
pub struct OsChance;

impl Chance for OsChance {
    #[allow(clippy::disallowed_methods)]
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
