//! What can be asked of the control plane: the entries of its log.
//!
//! Whoever proposes supplies facts that the log cannot know (the time, who is away); applying is a pure function of
//! the state and the command, equal on every voter. Commands are stored as JSON: a field that is added has a default,
//! a command that is added comes with a new feature level.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::epoch::EpochNumber;
use crate::node::Registration;
use crate::plan::RingPlan;
use crate::state::State;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// The first of all: names the cluster and gives it its ring.
    Form {
        cluster: String,
        plan: RingPlan,
        by: String,
        time: i64,
    },
    /// A node has started.
    Register {
        node: Registration,
        time: i64,
    },
    Propose(Proposal),
    /// A node that the proposed ring adds can take writes.
    Ready {
        address: String,
        epoch: EpochNumber,
    },
    /// A receiver has promised, durably, to refuse writes of epochs before `min_epoch`.
    Adopted {
        address: String,
        incarnation: String,
        min_epoch: EpochNumber,
        time: i64,
    },
    /// What a receiver took in epochs up to `through` is in the bucket, for every reader to see.
    Clear {
        address: String,
        incarnation: String,
        through: EpochNumber,
    },
    /// Back to the ring before the change that goes on.
    Abort {
        by: String,
        time: i64,
    },
    /// Without waiting for anybody: the ring is `plan` from now on, and what only `lost` nodes had is given up.
    Force {
        plan: RingPlan,
        lost: BTreeSet<String>,
        by: String,
        time: i64,
    },
    /// To voters that know of no cluster: what somebody remembered of it. `beyond` is the greatest epoch that any node has
    /// heard of.
    Restore {
        state: Box<State>,
        beyond: EpochNumber,
        by: String,
        time: i64,
    },
    /// Takes the place of `expect`, the version that was seen.
    SetLimits {
        expect: u64,
        text: String,
        by: String,
        time: i64,
    },
    Elect(Election),
    /// Takes, keeps or takes over a job.
    Lease {
        job: String,
        holder: String,
        token: Option<u64>,
        time: i64,
        ttl: i64,
    },
    Release {
        job: String,
        token: u64,
    },
    /// A node that nothing is needed of any more, and that will not come back, is not counted among those that are. Versions of
    /// level 2 understand it, so it may be in the log from level 3 on; until then [`State::stand_in`] does what is urgent.
    Forget {
        address: String,
    },
}

impl Command {
    /// The feature level from which on it may be in the log: one more than that of the first version which understands it, so
    /// that a version of the level before, which may come back, can read the log.
    pub fn level(&self) -> u32 {
        match self {
            Command::Forget { .. } => 3,
            _ => 1,
        }
    }
}

/// A ring in the place of the one that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The text that it replaces; another one agreed meanwhile refuses the proposal.
    pub expect: String,
    pub plan: RingPlan,
    /// Members of the agreed ring that do not answer just now.
    pub away: BTreeSet<String>,
    /// Members that may be left out although they are away: what they had lives on in the other copies.
    pub retire: BTreeSet<String>,
    pub by: String,
    pub time: i64,
}

/// From now on `replica` is listened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    pub tenant: String,
    pub group: String,
    pub replica: String,
    /// The term that was seen; 0 for none.
    pub expect: u64,
    /// Newest sample of the one before, in milliseconds: what the new one held from there on is taken in.
    pub splice_from: i64,
    pub time: i64,
    /// Pairs that a tenant may have.
    pub cap: u32,
}

/// What came of a command that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// There was nothing to do.
    Already,
    /// The node counts from this epoch on.
    Registered {
        joined: EpochNumber,
    },
    /// The change has this number.
    Pending {
        epoch: EpochNumber,
    },
    /// The job is the caller's, under this token.
    Leased {
        token: u64,
    },
}
