//! What the shared log is made of, in openraft's terms.

use agreed::{Command, Outcome};
use model::Kind;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Entries are [`Command`]s, voters have a number of their own and an address.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Vec<u8>,
);

pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type Membership = openraft::StoredMembership<u64, openraft::BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// An entry of the log's own.
    Nothing,
    Taken(Outcome),
    Refused {
        refusal: Refusal,
        message: String,
    },
}

/// What the one who asked should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    Change,
    NotAsThingsStand,
    Wait,
}

impl From<Result<Outcome, agreed::Error>> for Reply {
    fn from(result: Result<Outcome, agreed::Error>) -> Reply {
        match result {
            Ok(outcome) => Reply::Taken(outcome),
            Err(error) => Reply::Refused { refusal: Refusal::of(error.kind), message: error.message },
        }
    }
}

impl Refusal {
    pub(crate) fn of(kind: Kind) -> Refusal {
        match kind {
            Kind::Invalid => Refusal::Change,
            Kind::Unavailable => Refusal::Wait,
            _ => Refusal::NotAsThingsStand,
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Refusal::Change => Kind::Invalid,
            Refusal::NotAsThingsStand => Kind::Refused,
            Refusal::Wait => Kind::Unavailable,
        }
    }
}
