//! What voters and their watchers say to each other; carried as JSON by whatever transport there is.

use std::sync::Arc;

use agreed::{Command, State};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::types::{Reply, SnapshotMeta, Types, Vote};

/// A voter as it says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// As all voters are configured to know it.
    pub address: String,
    /// Its own, for as long as it has its catalog.
    pub id: u64,
    /// Whether it has ever been one of a group of voters.
    pub initialized: bool,
    /// Empty before the cluster is formed.
    pub cluster: String,
}

/// What is agreed, and how many entries made it so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub revision: u64,
    pub state: Arc<State>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Hello(Hello),
    /// Who comes back without its catalog takes the place of the voter that had its address.
    Join(Hello),
    /// `to` is the voter meant: another one may have its address by now.
    Vote {
        to: u64,
        rpc: VoteRequest<u64>,
    },
    Append {
        to: u64,
        rpc: AppendEntriesRequest<Types>,
    },
    Snapshot {
        to: u64,
        vote: Vote,
        meta: SnapshotMeta,
        bytes: Vec<u8>,
    },
    Propose(Command),
    /// Answered when there is something newer, or after a while.
    Watch {
        after: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    Hello(Hello),
    /// Done, or why not.
    Join(Result<(), String>),
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Snapshot(Result<SnapshotResponse<u64>, Fatal<u64>>),
    Propose(Proposed),
    Watch(Option<Seen>),
    /// The voter that was meant is not here any more.
    Stranger(u64),
}

/// What came of a proposal.
#[derive(Debug, Serialize, Deserialize)]
pub enum Proposed {
    Reply(Reply),
    /// Somebody else leads, at this address where it is known.
    NotHere(Option<String>),
    /// It may or may not have been taken.
    Failed(String),
}
