//! The name of a block: a ULID, 26 characters that sort by the time of creation.

use std::fmt;
use std::str::FromStr;

use runtime::World;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::Error;

/// A block's identity and the name of its folder. Made by the node that writes the block: two nodes that cut the
/// same data make two blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Ulid);

impl BlockId {
    /// A new identity from the world's clock and 80 random bits.
    pub fn new(world: &World) -> BlockId {
        let random = u128::from(world.chance.next_u64()) << 64 | u128::from(world.chance.next_u64());
        BlockId::from_parts(world.clock.now_ms(), random)
    }

    /// Milliseconds since the epoch (a clock before 1970 counts as 1970) and the low 80 bits of `random`.
    pub fn from_parts(created_ms: i64, random: u128) -> BlockId {
        let time = created_ms.clamp(0, (1 << 48) - 1) as u64;
        BlockId(Ulid::from_parts(time, random & ((1 << 80) - 1)))
    }

    /// Reads the canonical spelling only: 26 upper-case characters.
    pub fn parse(text: &str) -> Option<BlockId> {
        let id = Ulid::from_string(text).ok()?;
        (id.to_string() == text).then_some(BlockId(id))
    }

    /// When the identity was made, in milliseconds since the epoch.
    pub fn created_ms(&self) -> i64 {
        self.0.timestamp_ms() as i64
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.array_to_str(&mut [0; 26]))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        BlockId::parse(text)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not a block id (an upper-case ULID)")))
    }
}

impl Serialize for BlockId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.array_to_str(&mut [0; 26]))
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BlockId::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a block id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_canonical_and_sorts_by_time() {
        let a = BlockId::from_parts(1_700_000_000_000, 7);
        let b = BlockId::from_parts(1_700_000_000_001, 0);
        assert_eq!(a.to_string().len(), 26);
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(BlockId::parse(&a.to_string()), Some(a));
        assert_eq!(a.created_ms(), 1_700_000_000_000);
        assert_eq!(BlockId::parse(&a.to_string().to_lowercase()), None);
        for bad in ["", "..", "01ARZ3NDEKTSV4RRFFQ69G5FA", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "wal"] {
            assert_eq!(BlockId::parse(bad), None, "{bad}");
        }
    }
}
