//! What the cluster has agreed on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::elections::Elections;
use crate::epoch::{Epoch, EpochNumber};
use crate::leases::Leases;
use crate::node::Node;
use crate::plan::Placed;
use crate::{Error, check};

/// Epochs behind the current one that are kept for `ring history` once nothing needs them.
pub(crate) const HISTORY: usize = 64;

/// The agreed state. A pure function of the commands before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// A ULID; empty before the cluster is formed.
    pub cluster: String,
    /// By number, ascending; the last is the current one.
    pub epochs: Vec<Epoch>,
    /// A change that waits for its new members.
    pub pending: Option<Pending>,
    /// By address.
    pub nodes: BTreeMap<String, Node>,
    pub limits: Limits,
    pub elections: Elections,
    pub leases: Leases,
    /// The highest feature level that all nodes once had in common.
    pub level: u32,
    /// How often it was brought back from what a node remembered; what is of a later generation is newer.
    #[serde(default)]
    pub generation: u32,
}

/// A ring that was proposed and is not yet in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pending {
    /// The number that its joint epoch will have.
    pub epoch: EpochNumber,
    pub ring: Placed,
    /// New members that can take writes.
    pub ready: BTreeSet<String>,
    pub since: i64,
    pub by: String,
}

/// Overrides of tenants, in the shape of the limits file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Counts the changes.
    pub version: u64,
    pub text: String,
    pub by: String,
    pub since: i64,
}

impl State {
    /// The epoch that writes are placed by; none before the cluster is formed.
    pub fn current(&self) -> Option<&Epoch> {
        self.epochs.last()
    }

    pub(crate) fn formed(&self) -> Result<&Epoch, Error> {
        self.current()
            .ok_or_else(|| Error::later("the cluster is not formed yet; it is once its voters meet"))
    }

    /// Refuses what a version of the cluster's level would misunderstand. To be asked before the log has it.
    pub fn admits(&self, command: &Command) -> Result<(), Error> {
        check::feature(self, command)
    }

    /// What each node accepts at least.
    pub(crate) fn min_epochs(&self) -> BTreeMap<&str, EpochNumber> {
        self.nodes.iter().map(|(address, node)| (address.as_str(), node.min_epoch)).collect()
    }

    /// New members of the pending ring that are not ready.
    pub fn warming(&self) -> Vec<&str> {
        let (Some(pending), Some(current)) = (&self.pending, self.current()) else { return Vec::new() };
        let new = pending.ring.members().filter(|a| !current.view.has(a));
        new.filter(|a| !pending.ready.contains(*a)).collect()
    }
}
