//! Whom a read has to hear from, and when a node is needed no more.

use std::collections::BTreeSet;

use crate::epoch::View;
use crate::plan::Placed;
use crate::state::State;

/// What is missing for a complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub epoch: u64,
    /// A replica set of which too few answered.
    pub set: Vec<String>,
}

/// Why a node has to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The ring that is, or that is to be, has it.
    Member,
    /// Some of what was acked in an epoch is not in the bucket, for every reader to see.
    Holds { epoch: u64 },
}

impl State {
    /// Addresses that a read has to ask: members of the current epoch, and of every other whose data are not in the bucket,
    /// but for those who have brought theirs in.
    pub fn to_ask(&self) -> std::collections::BTreeSet<&str> {
        let open = self.epochs.iter().filter(|e| !e.retired);
        open.flat_map(|e| e.view.members().into_iter().filter(|a| !e.clear.contains(*a))).collect()
    }

    /// Whether it is the log of a node that joined which answers: behind a name that is known, a disk that is not may be in
    /// the place of one that was lost, and say so to the voters only later.
    pub fn knows_log(&self, address: &str, incarnation: &str) -> bool {
        self.nodes.get(address).is_some_and(|node| node.incarnation == incarnation)
    }

    /// Whether answers of those for which `answered` holds are, with the bucket's, everything that was ever acked. A node
    /// that lost its disk counts only for what was acked since; one whose data of an epoch are in the bucket has answered
    /// for it, wherever it is now.
    pub fn complete(&self, answered: impl Fn(&str) -> bool) -> Result<(), Missing> {
        for epoch in self.epochs.iter().filter(|e| !e.retired) {
            let has = |a: &str| {
                let answers = || answered(a) && self.nodes.get(a).is_some_and(|n| n.joined <= epoch.number);
                epoch.clear.contains(a) || answers()
            };
            if let Some(set) = epoch.shortfall(has) {
                return Err(Missing { epoch: epoch.number, set });
            }
        }
        Ok(())
    }

    /// Epochs of which not every acked sample is known to have a copy once nobody of `gone` answers again, each with the first
    /// such replica set.
    pub fn out_of_reach(&self, gone: &BTreeSet<String>) -> Vec<Missing> {
        let short = |epoch: &crate::Epoch| epoch.shortfall(|a| self.stays(epoch, a, gone));
        let open = self.epochs.iter().filter(|e| !e.retired);
        open.filter_map(|e| short(e).map(|set| Missing { epoch: e.number, set })).collect()
    }

    /// Whether what `address` took in an epoch is there without those of `gone`.
    fn stays(&self, epoch: &crate::Epoch, address: &str, gone: &BTreeSet<String>) -> bool {
        let joined = || self.nodes.get(address).is_some_and(|n| n.joined <= epoch.number);
        epoch.clear.contains(address) || (!gone.contains(address) && joined())
    }

    /// In words, a line each: what may be gone for good if the ring is `next` from now on and what only `lost` nodes have is
    /// given up. Nothing where every acked sample has a copy on a node that stays known, or in the bucket.
    pub fn would_lose(&self, next: &Placed, lost: &BTreeSet<String>) -> Vec<String> {
        let mut lines = Vec::new();
        for epoch in self.epochs.iter().filter(|e| !e.retired) {
            let stays = |a: &str| self.stays(epoch, a, lost);
            if let Some(set) = epoch.shortfall(stays) {
                let gone: Vec<&str> = set.iter().map(String::as_str).filter(|a| !stays(a)).collect();
                lines.push(format!(
                    "epoch {}: samples that were acknowledged and lie on {} alone, among the copies on {}, are given up; \
                     queries will not say that they are missing",
                    epoch.number,
                    gone.join(", "),
                    set.join(", ")
                ));
            }
        }
        if let Some(pending) = &self.pending {
            lines.push(format!("the change that goes on (by {}) is dropped", pending.by));
        }
        if let Some(View::Joint { .. }) = self.current().map(|current| &current.view) {
            lines.push(
                "a change is in its middle: a router that has not heard of it may get writes acknowledged by the ring of \
                 before for as long as members of that take them"
                    .to_owned(),
            );
        }
        if let Some(address) = next.members().find(|a| !self.nodes.contains_key(*a)) {
            lines.push(format!("{address} has never been here: it is refused"));
        }
        if let Some(address) = next.members().find(|a| lost.contains(*a)) {
            lines.push(format!(
                "{address} is given up and is in the new ring: it is refused, being one or the other"
            ));
        }
        lines
    }

    /// Why a node is still needed; none once it may be stopped and its folder deleted.
    pub fn needed(&self, address: &str) -> Option<Needed> {
        let member = self.current().is_some_and(|e| e.view.has(address))
            || self.pending.as_ref().is_some_and(|p| p.ring.has(address));
        if member {
            return Some(Needed::Member);
        }
        let mut holding =
            self.epochs.iter().filter(|e| !e.retired && e.view.has(address) && !e.clear.contains(address));
        holding.next().map(|e| Needed::Holds { epoch: e.number })
    }
}
