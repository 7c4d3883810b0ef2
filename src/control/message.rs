//! What voters and their watchers say to each other; carried as JSON by whatever transport there is.
//!
//! Nodes of two versions speak with each other: fields that are added have a default, and who is asked something that it
//! does not know says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, State};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::{Refusal, Reply, SnapshotMeta, Types, Vote};

/// How long a proposal looks for a leader.
pub(crate) const PROPOSE_FOR: Duration = Duration::from_secs(5);
/// How long a watcher is left without an answer where nothing changes.
pub(crate) const WATCH_FOR: Duration = Duration::from_secs(10);

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
    /// Those whom it was told of, itself among them; empty where it does not say.
    #[serde(default)]
    pub voters: BTreeSet<String>,
}

/// What is agreed, and how many entries made it so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub revision: u64,
    pub state: Arc<State>,
}

/// How far somebody knows what is agreed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    pub cluster: String,
    pub generation: u32,
    pub revision: u64,
}

impl Seen {
    pub fn mark(&self) -> Mark {
        let State { cluster, generation, .. } = &*self.state;
        Mark { cluster: cluster.clone(), generation: *generation, revision: self.revision }
    }

    /// Whether it is news for somebody who knows as much as `mark`. Another cluster's always is.
    pub fn is_news(&self, mark: &Mark) -> bool {
        let State { cluster, generation, .. } = &*self.state;
        (*generation, self.revision) > (mark.generation, mark.revision)
            || !mark.cluster.is_empty() && !cluster.is_empty() && *cluster != mark.cluster
    }
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
        /// JSON.
        state: String,
    },
    /// To the log of the one that is asked, if it leads.
    Propose(Command),
    /// To whoever leads, by way of the one that is asked.
    Ask(Command),
    /// Answered when there is something newer, or after a while.
    Watch {
        after: Mark,
    },
    /// Who is there; every node answers it.
    About,
    /// Which of these do not answer a voter.
    Away(Vec<String>),
}

impl Request {
    /// How long its answer may take: short beside an election, but for what waits by design.
    pub fn patience(&self) -> Duration {
        match self {
            Request::Hello(_) | Request::Vote { .. } | Request::Append { .. } | Request::About => {
                Duration::from_secs(2)
            }
            Request::Away(_) => Duration::from_secs(8),
            Request::Join(_) | Request::Snapshot { .. } => Duration::from_secs(30),
            Request::Propose(_) => PROPOSE_FOR + Duration::from_secs(2),
            Request::Ask(_) => 2 * PROPOSE_FOR + Duration::from_secs(2),
            Request::Watch { .. } => WATCH_FOR + Duration::from_secs(5),
        }
    }

    /// For metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Hello(_) => "hello",
            Request::Join(_) => "join",
            Request::Vote { .. } => "vote",
            Request::Append { .. } => "append",
            Request::Snapshot { .. } => "snapshot",
            Request::Propose(_) => "propose",
            Request::Ask(_) => "ask",
            Request::Watch { .. } => "watch",
            Request::About => "about",
            Request::Away(_) => "away",
        }
    }
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
    Ask(Result<Outcome, Refused>),
    Watch(Option<Seen>),
    About(About),
    Away(std::collections::BTreeSet<String>),
    /// The one that was asked does not vote.
    NoVoter,
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

/// A refusal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub refusal: Refusal,
    pub message: String,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { refusal: Refusal::of(error.kind), message: error.message }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::new(refused.refusal.kind(), refused.message)
    }
}

/// A node as it says who it is and what it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// As the ring names it, or whatever it is known by.
    pub address: String,
    /// Of its data folder; empty where it has none.
    pub incarnation: String,
    /// Empty before it has heard of any.
    pub cluster: String,
    /// Its log is replayed: it takes writes and answers for what it has.
    pub ready: bool,
    /// Of the program.
    pub version: String,
    pub revision: u64,
    /// The epoch that it knows; 0 for none.
    pub epoch: u64,
    /// The least epoch whose writes it takes, as it promised in an earlier life: one that it has heard of, if it forgot it.
    pub promised: u64,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it was in touch with a majority of the voters just now, itself or by one of them.
    pub in_touch: bool,
    /// Where the one is that leads, as far as it knows.
    pub leader: Option<String>,
    /// Who votes, by address, with its number; known to voters.
    pub group: std::collections::BTreeMap<String, u64>,
}
