//! A ring epoch: what a write of it has to obey, and which answers a read of it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::plan::Placed;

/// Counts the changes of the ring; every write carries the one that it was placed by.
pub type EpochNumber = u64;

/// Which ring a write obeys, or which two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    Stable(Placed),
    /// In the middle of a change: an ack needs the quorum of the old replica set and of the new one.
    Joint {
        old: Placed,
        new: Placed,
    },
}

/// An epoch and what is known of the data that was acked in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    pub number: EpochNumber,
    pub view: View,
    /// Milliseconds.
    pub since: i64,
    /// Who asked for it, in words.
    pub by: String,
    /// Members of which everything taken in this epoch is in the bucket, for every reader to see.
    pub clear: BTreeSet<String>,
    /// Members that were given up, with what only they had.
    pub lost: BTreeSet<String>,
    /// No receiver has to be asked for it any more.
    pub retired: bool,
}

impl View {
    /// Addresses of all members, each once.
    pub fn members(&self) -> BTreeSet<&str> {
        match self {
            View::Stable(ring) => ring.members().collect(),
            View::Joint { old, new } => old.members().chain(new.members()).collect(),
        }
    }

    pub fn has(&self, address: &str) -> bool {
        match self {
            View::Stable(ring) => ring.has(address),
            View::Joint { old, new } => old.has(address) || new.has(address),
        }
    }

    /// The ring that is, or that will be.
    pub fn target(&self) -> &Placed {
        match self {
            View::Stable(ring) => ring,
            View::Joint { new, .. } => new,
        }
    }

    /// The ring whose acks hold before and during a change.
    pub fn ground(&self) -> &Placed {
        match self {
            View::Stable(ring) => ring,
            View::Joint { old, .. } => old,
        }
    }
}

impl Epoch {
    pub(crate) fn new(number: EpochNumber, view: View, since: i64, by: String) -> Epoch {
        Epoch { number, view, since, by, clear: BTreeSet::new(), lost: BTreeSet::new(), retired: false }
    }

    /// The replica set, if there is one, of which too few have `has` for having, between them, everything acked in
    /// this epoch. In a joint epoch either ring's sets do: every ack obeyed both.
    pub fn shortfall(&self, has: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let of = |ring: &Placed| ring.shortfall(ring.readers(), |a| self.lost.contains(a), &has);
        match &self.view {
            View::Stable(ring) => of(ring),
            View::Joint { old, new } => of(old).and_then(|short| of(new).map(|_| short)),
        }
    }

    /// The replica set, if there is one, on which a router that still believes in this epoch could gather an ack:
    /// fewer than RF - W + 1 of its members refuse to know it. `min_epochs` has what each node accepts at least; who is
    /// clear of it has promised that before, and may be forgotten since.
    pub fn unsealed(&self, min_epochs: &BTreeMap<&str, EpochNumber>) -> Option<Vec<String>> {
        let promised = |a: &str| min_epochs.get(a).is_some_and(|min| *min > self.number);
        let sealed = |a: &str| self.clear.contains(a) || promised(a);
        let of = |ring: &Placed| ring.shortfall(ring.readers(), |a| self.lost.contains(a), sealed);
        match &self.view {
            View::Stable(ring) => of(ring),
            // An ack needs both quorums, so it is enough that one of them cannot be had.
            View::Joint { old, new } => of(old).and_then(|short| of(new).map(|_| short)),
        }
    }
}

/// Whether copies on the nodes for which `has` holds make an ack of a series: enough of each of its replica sets, which
/// are one, or two in the middle of a change, each with its quorum. A member of both counts in both.
pub fn acked<N>(sets: &[(&[N], usize)], has: impl Fn(&N) -> bool) -> bool {
    sets.iter().all(|(set, quorum)| set.iter().filter(|n| has(n)).count() >= *quorum)
}
