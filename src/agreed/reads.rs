//! Whom a read has to hear from, and when a node is needed no more.

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
    /// Addresses that a read has to ask: members of every epoch whose data is not in the bucket, and of the current one.
    pub fn to_ask(&self) -> std::collections::BTreeSet<&str> {
        self.epochs.iter().filter(|e| !e.retired).flat_map(|e| e.view.members()).collect()
    }

    /// Whether answers of those for which `answered` holds are, with the bucket's, everything that was ever acked. A node
    /// that lost its disk counts only for what was acked since.
    pub fn complete(&self, answered: impl Fn(&str) -> bool) -> Result<(), Missing> {
        for epoch in self.epochs.iter().filter(|e| !e.retired) {
            let has = |a: &str| answered(a) && self.nodes.get(a).is_some_and(|n| n.joined <= epoch.number);
            if let Some(set) = epoch.shortfall(has) {
                return Err(Missing { epoch: epoch.number, set });
            }
        }
        Ok(())
    }

    /// Why a node is still needed; none once it may be stopped and its folder deleted.
    pub fn needed(&self, address: &str) -> Option<Needed> {
        let member = self.current().is_some_and(|e| e.view.has(address))
            || self.pending.as_ref().is_some_and(|p| p.ring.has(address));
        if member {
            return Some(Needed::Member);
        }
        let mut holding = self.epochs.iter().filter(|e| !e.retired && e.view.has(address));
        holding.next().map(|e| Needed::Holds { epoch: e.number })
    }
}
