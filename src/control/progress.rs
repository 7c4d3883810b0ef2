//! How far a change of the ring is, and who still holds what is not in the bucket: for people, logs and machines.

use std::collections::BTreeMap;
use std::fmt;

use agreed::{EpochNumber, Needed, State, View};
use serde::Serialize;

/// The state of the ring in figures and names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The current epoch; 0 before the cluster is formed.
    pub epoch: EpochNumber,
    pub phase: Phase,
    pub members: Vec<String>,
    /// Nodes that are not in the ring any more and are still needed, with what is not in the bucket.
    pub draining: BTreeMap<String, Vec<EpochNumber>>,
    /// Epochs that are over and not all in the bucket, with the members that have not said so.
    pub unretired: BTreeMap<EpochNumber, Vec<String>>,
}

/// What goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Phase {
    /// Nothing was ever agreed, or nothing was heard of it.
    #[default]
    Unformed,
    /// One ring; nothing is under way.
    Stable,
    /// New members start; everything goes on as it was.
    Warming { epoch: EpochNumber, ready: Vec<String>, waiting: Vec<String>, by: String, since: i64 },
    /// Acks obey both rings until the old one cannot be acked by anybody who missed the change.
    Joint {
        joins: Vec<String>,
        leaves: Vec<String>,
        refuse_old: Vec<String>,
        waiting: Vec<String>,
        by: String,
        since: i64,
    },
}

impl Progress {
    pub fn of(state: &State) -> Progress {
        let Some(current) = state.current() else { return Progress::default() };
        let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let refuses = |a: &str| state.nodes.get(a).is_some_and(|n| n.min_epoch >= current.number);
        let phase = match (&current.view, &state.pending) {
            (View::Joint { old, new }, _) => {
                let (refuse_old, waiting): (Vec<&str>, Vec<&str>) = old.members().partition(|a| refuses(a));
                Phase::Joint {
                    joins: own(new.members().filter(|a| !old.has(a)).collect()),
                    leaves: own(old.members().filter(|a| !new.has(a)).collect()),
                    refuse_old: own(refuse_old),
                    waiting: own(waiting),
                    by: current.by.clone(),
                    since: current.since,
                }
            }
            (View::Stable(_), Some(pending)) => Phase::Warming {
                epoch: pending.epoch,
                ready: pending.ready.iter().cloned().collect(),
                waiting: own(state.warming()),
                by: pending.by.clone(),
                since: pending.since,
            },
            (View::Stable(_), None) => Phase::Stable,
        };
        let mut draining: BTreeMap<String, Vec<EpochNumber>> = BTreeMap::new();
        let mut unretired = BTreeMap::new();
        for epoch in state.epochs.iter().filter(|e| !e.retired && e.number < current.number) {
            let members = epoch.view.members();
            let left: Vec<&str> = members
                .into_iter()
                .filter(|a| !epoch.clear.contains(*a) && !epoch.lost.contains(*a))
                .collect();
            for address in &left {
                if matches!(state.needed(address), Some(Needed::Holds { .. })) {
                    draining.entry((*address).to_owned()).or_default().push(epoch.number);
                }
            }
            unretired.insert(epoch.number, own(left));
        }
        Progress {
            epoch: current.number,
            phase,
            members: own(current.view.target().members().collect()),
            draining,
            unretired,
        }
    }

    /// Whether a change is under way, or somebody has to stay who is not in the ring.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Stable) || !self.draining.is_empty()
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

impl fmt::Display for Progress {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.phase {
            Phase::Unformed => return f.write_str("nothing is agreed yet: the voters have not met"),
            Phase::Stable => write!(f, "epoch {}: stable, {} members", self.epoch, self.members.len())?,
            Phase::Warming { epoch, waiting, .. } => write!(
                f,
                "epoch {}: the ring of epoch {epoch} waits for {} to be ready",
                self.epoch,
                list(waiting)
            )?,
            Phase::Joint { joins, leaves, waiting, .. } => write!(
                f,
                "epoch {}: changing; {} in, {} out; the old ring is not yet refused by {}",
                self.epoch,
                list(joins),
                list(leaves),
                list(waiting)
            )?,
        }
        for (address, epochs) in &self.draining {
            write!(f, "; {address} drains, {} epochs to go", epochs.len())?;
        }
        Ok(())
    }
}
