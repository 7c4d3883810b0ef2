//! Keys: 128 bits of keyed hash over label bytes, so that nobody outside can choose two that meet.

use runtime::Chance;
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// What a series is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) u64, pub(crate) u64);

/// Random bytes of this process.
pub(crate) struct Secret([u8; 192]);

impl Secret {
    pub(crate) fn new(chance: &dyn Chance) -> Secret {
        let mut bytes = [0; 192];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&chance.next_u64().to_le_bytes());
        }
        Secret(bytes)
    }

    #[inline]
    pub(crate) fn key(&self, bytes: &[u8]) -> Key {
        let hash = xxh3_128_with_secret(bytes, &self.0);
        Key(hash as u64, (hash >> 64) as u64)
    }
}

/// One key of a list of them. The parts are not known outside, so that nobody can choose lists that meet: each step is a
/// bijection of what came before, and each half is a fold of its own.
///
/// # Cost
/// Six instructions a part, where hashing the parts' bytes takes about twenty with putting them in a row.
#[inline]
pub(crate) fn of_list(parts: impl Iterator<Item = Key>) -> Key {
    let (mut low, mut high, mut count) = (LIST, !LIST, 0u64);
    for part in parts {
        low = (low.rotate_left(23) ^ part.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        high = (high.rotate_left(29) ^ part.1).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        count += 1;
    }
    Key(finished(low ^ count), finished(high))
}

/// Tells keys of lists from keys of bytes.
const LIST: u64 = 0x6c69_7374_6f66_7478;

/// Every bit of the answer hangs on every bit (the finaliser of splitmix64).
#[inline]
fn finished(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Key {
    /// The key of the same bytes of another tenant, so that equal labels of many tenants do not crowd one
    /// place of the table. That tenants are told apart does not hang on it: entries carry their tenant.
    #[inline]
    pub(crate) fn mixed(self, with: Key) -> Key {
        Key(self.0 ^ with.0, self.1 ^ with.1)
    }

    /// Half of it, to tell series apart that had one number after the other.
    #[inline]
    pub fn check(self) -> u64 {
        self.1
    }

    /// The part that names a place in the index.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Chance for Fixed {
        fn next_u64(&self) -> u64 {
            0x0123_4567_89ab_cdef
        }
    }

    proptest! {
        /// Of few texts, so that lists are near one another: other order, other number, one more.
        #[test]
        fn lists_that_differ_have_different_keys(
            a in proptest::collection::vec(0u8..4, 0..12), b in proptest::collection::vec(0u8..4, 0..12)
        ) {
            let secret = Secret::new(&Fixed);
            let key = |list: &[u8]| of_list(list.iter().map(|text| secret.key(&[*text])));
            let (one, other) = (key(&a), key(&b));
            prop_assert_eq!(one.0 == other.0, a == b);
            prop_assert_eq!(one.1 == other.1, a == b);
            // And none of them is the key of bytes.
            prop_assert!(one != secret.key(&a));
        }
    }
}
