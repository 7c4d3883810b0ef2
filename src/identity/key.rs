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
