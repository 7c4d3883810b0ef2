//! What a node or a change must be to be let in, in words that say the way that works.

use std::collections::BTreeMap;

use crate::Error;
use crate::command::{Command, Proposal};
use crate::node::{Node, Registration};
use crate::plan::Placed;
use crate::reads::Needed;
use crate::state::State;

/// A folder with another cluster's data must not mix with ours.
pub(crate) fn identity(cluster: &str, node: &Registration) -> Result<(), Error> {
    if node.cluster.is_empty() || node.cluster == cluster {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the data folder of {} belongs to cluster {}, and this is cluster {cluster}; give it an empty folder, or the \
         voters of its own cluster",
        node.address, node.cluster
    )))
}

/// Versions may be mixed as long as neighbours understand each other.
pub(crate) fn levels(agreed: u32, node: &Registration) -> Result<(), Error> {
    let (lowest, highest) = node.levels;
    if highest + 1 < agreed {
        return Err(Error::refused(format!(
            "{} speaks feature levels {lowest} to {highest} and the cluster is at {agreed}; one level back is possible, \
             more is not: start a newer version",
            node.address
        )));
    }
    if lowest > agreed && agreed > 0 {
        return Err(Error::refused(format!(
            "{} needs feature level {lowest} and the cluster is at {agreed}; upgrade the others one version at a time",
            node.address
        )));
    }
    Ok(())
}

impl State {
    /// Whether a node may be left out of the count for good.
    pub(crate) fn forgettable(&self, address: &str) -> Result<(), Error> {
        self.formed()?;
        match self.needed(address) {
            Some(Needed::Member) => Err(Error::refused(format!(
                "{address} is a member of the ring; take it out first (`tributary ring drain`, or `retire`)"
            ))),
            Some(Needed::Holds { epoch }) => Err(Error::refused(format!(
                "{address} may hold what was acknowledged in epoch {epoch} and is not in the bucket yet"
            ))),
            None => Ok(()),
        }
    }

    /// For a node that will not come back, and whose version is too old for the level that the others could have: what it would
    /// say if it spoke `levels`. Every version understands it, where [`Command::Forget`] would be refused for the very node that
    /// is to be forgotten. None where there is nothing in the way; refused where the node is still needed.
    pub fn stand_in(&self, address: &str, levels: (u32, u32)) -> Result<Option<Registration>, Error> {
        self.forgettable(address)?;
        let behind = self.nodes.get(address).filter(|node| node.levels.1 < levels.1);
        Ok(behind.map(|node| Registration {
            address: address.to_owned(),
            incarnation: node.incarnation.clone(),
            cluster: self.cluster.clone(),
            levels: (node.levels.0, levels.1),
            ships: node.ships,
        }))
    }
}

/// What an older version would misunderstand waits until there is none.
pub(crate) fn feature(state: &State, command: &Command) -> Result<(), Error> {
    let level = command.level();
    // Before the first node has registered, everybody speaks the first level.
    if level <= state.level.max(1) {
        return Ok(());
    }
    let behind: Vec<&str> =
        state.nodes.iter().filter(|(_, n)| n.levels.1 < level).map(|(address, _)| address.as_str()).collect();
    let who =
        if behind.is_empty() { "a member that has not registered".to_owned() } else { behind.join(", ") };
    Err(Error::refused(format!(
        "this needs feature level {level}, and the cluster is at {}, for {who} speaks no more; it goes once all run a version \
         that does (--control.max-feature-level holds one back)",
        state.level
    )))
}

/// A change must leave every acked sample where somebody will read it.
pub(crate) fn change(
    ring: &Placed,
    next: &Placed,
    asked: &Proposal,
    nodes: &BTreeMap<String, Node>,
) -> Result<(), Error> {
    let removed: Vec<&str> = ring.members().filter(|a| !next.has(a)).collect();
    if let Some(away) = removed.iter().find(|a| asked.away.contains(**a) && !asked.retire.contains(**a)) {
        return Err(Error::refused(format!(
            "{away} is away, and what only it has in its log would be lost from view; start it and remove it then, or, \
             if it will not come back, `tributary ring retire {away}`"
        )));
    }
    // Of a set, no more than it can spare may be away for good: the others have every acked sample.
    let gone = |a: &str| asked.away.contains(a) && asked.retire.contains(a);
    if let Some(set) = ring.shortfall(ring.readers(), |_| false, |a| !gone(a)) {
        return Err(Error::refused(format!(
            "of the copies on {} too many would be retired at once; bring one back, or see what `tributary ring force` \
             may lose",
            set.join(", ")
        )));
    }
    let stay = |a: &&str| nodes.get(*a).is_some_and(|n| n.ships);
    if let Some(address) = removed.iter().find(|a| !asked.away.contains(**a) && !stay(a)) {
        return Err(Error::refused(format!(
            "{address} ships no blocks, so what it has can never be had elsewhere; give it a bucket \
             (--objstore.config) before it is removed"
        )));
    }
    Ok(())
}
