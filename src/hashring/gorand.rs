//! The number stream of Go's `math/rand` for a seed: what Thanos chooses the endpoints of a tenant's shard with.
//!
//! An additive lagged Fibonacci generator over 607 words. Seeding mixes a small generator's words into the state that
//! another run of the same recurrence has after 7.8e12 steps; Go has these words in a table, here the steps are jumped
//! over once (the recurrence is linear, so that a step is a multiplication by x modulo its polynomial).

use std::sync::OnceLock;

const LENGTH: usize = 607;
const TAP: usize = 273;
/// Steps before the state that seeds are mixed into.
const WARM_UP: u64 = 7_800_000_000_000;
const MODULUS: i64 = (1 << 31) - 1;

/// A seeded stream.
pub(crate) struct GoRand {
    state: [u64; LENGTH],
    tap: usize,
    feed: usize,
}

impl GoRand {
    pub(crate) fn new(seed: i64) -> GoRand {
        let seed = match seed % MODULUS {
            0 => 89_482_311,
            negative @ ..0 => negative + MODULUS,
            positive => positive,
        };
        let mut state = *warm();
        for (word, mixed) in state.iter_mut().zip(words(seed, 40, 20)) {
            *word ^= mixed;
        }
        GoRand { state, tap: 0, feed: LENGTH - TAP }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let next = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = next;
        next
    }
}

/// Words of three numbers each of the multiplicative generator that seeds.
fn words(seed: i64, first: u32, second: u32) -> impl Iterator<Item = u64> {
    let mut x = seed;
    let mut next = move || {
        x = x * 48_271 % MODULUS;
        x as u64
    };
    for _ in 0..20 {
        next();
    }
    (0..LENGTH).map(move |_| (next() << first) ^ (next() << second) ^ next())
}

/// The state after the warm-up, worked out once.
fn warm() -> &'static [u64; LENGTH] {
    static STATE: OnceLock<[u64; LENGTH]> = OnceLock::new();
    STATE.get_or_init(|| {
        // The n-th output is the sum of those 607 and 273 before it; those up to the 0th are the first state, backwards
        // from where the generator feeds. `before[i]` is output number i - 606.
        let place = |output: i64| (334 - output).rem_euclid(LENGTH as i64) as usize;
        let first: Vec<u64> = words(1, 20, 10).collect();
        let before: Vec<u64> = (0..LENGTH as i64).map(|i| first[place(i - 606)]).collect();
        let mut jump = power(WARM_UP);
        let mut state = [0; LENGTH];
        for i in 0..LENGTH as i64 {
            let sum = jump.iter().zip(&before).fold(0u64, |sum, (c, y)| sum.wrapping_add(c.wrapping_mul(*y)));
            state[place(WARM_UP as i64 - 606 + i)] = sum;
            jump = times_x(jump);
        }
        state
    })
}

/// Polynomials modulo x^607 - x^334 - 1, lowest coefficient first.
type Polynomial = Vec<u64>;

fn times_x(mut p: Polynomial) -> Polynomial {
    p.rotate_right(1);
    // What was x^606 is x^607 now: 1, where it stands already, and x^334.
    p[LENGTH - TAP] = p[LENGTH - TAP].wrapping_add(p[0]);
    p
}

fn square(p: &[u64]) -> Polynomial {
    let mut wide = vec![0u64; 2 * LENGTH];
    for (i, a) in p.iter().enumerate() {
        for (j, b) in p.iter().enumerate() {
            wide[i + j] = wide[i + j].wrapping_add(a.wrapping_mul(*b));
        }
    }
    for at in (LENGTH..2 * LENGTH).rev() {
        let over = wide[at];
        for to in [at - LENGTH, at - TAP] {
            wide[to] = wide[to].wrapping_add(over);
        }
    }
    wide.truncate(LENGTH);
    wide
}

/// x^n.
fn power(n: u64) -> Polynomial {
    let mut p = vec![0; LENGTH];
    p[0] = 1;
    for bit in (0..u64::BITS - n.leading_zeros()).rev() {
        p = square(&p);
        if n >> bit & 1 == 1 {
            p = times_x(p);
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_gos() {
        // What rand.New(rand.NewSource(1)).Int63() gives, known from many a Go program without a seed.
        let mut one = GoRand::new(1);
        let int63: Vec<u64> = (0..5).map(|_| one.next_u64() & (u64::MAX >> 1)).collect();
        assert_eq!(
            int63,
            [
                5_577_006_791_947_779_410,
                8_674_665_223_082_153_551,
                6_129_484_611_666_145_821,
                4_037_200_794_235_010_051,
                3_916_589_616_287_113_937,
            ]
        );
        // Seeds are taken modulo 2^31 - 1, negative ones too, and 0 stands for another.
        let first = |seed| GoRand::new(seed).next_u64();
        assert_eq!(first(1), first(1 + MODULUS));
        assert_eq!(first(MODULUS - 5), first(-5));
        assert_eq!(first(0), first(89_482_311));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn the_warm_state_is_gos() {
        // The ends of the table in Go's source, which keeps the lower 63 bits of them.
        let ends = [warm()[0], warm()[606]].map(|word| word & (u64::MAX >> 1));
        assert_eq!(ends, [5_041_579_894_721_019_882, 4_152_330_101_494_654_406]);
    }

    #[test]
    fn jumps_are_steps() {
        let mut p = vec![0; LENGTH];
        p[0] = 1;
        for _ in 0..2000 {
            p = times_x(p);
        }
        assert_eq!(p, power(2000));
    }
}
