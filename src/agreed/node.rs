//! What the cluster knows of a node: who it is, since when it counts, and what it refuses.

use serde::{Deserialize, Serialize};

use crate::epoch::EpochNumber;

/// What a node says of itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registration {
    /// As the ring names it.
    pub address: String,
    /// Of its data folder: another one is another disk.
    pub incarnation: String,
    /// Empty before a node has joined any cluster; else the one whose data it has.
    pub cluster: String,
    /// Feature levels that it speaks, from and to.
    pub levels: (u32, u32),
    /// Whether it ships blocks; without a bucket nothing can be drained.
    pub ships: bool,
}

/// A node of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    pub incarnation: String,
    pub levels: (u32, u32),
    pub ships: bool,
    /// First epoch of which this disk can have everything that it was sent.
    pub joined: EpochNumber,
    /// The least epoch whose writes it takes, as it has promised durably.
    pub min_epoch: EpochNumber,
    /// Its data of epochs up to this one are in the bucket, for every reader to see.
    pub clear: EpochNumber,
}
