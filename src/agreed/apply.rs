//! One command onto the state: the rules of joining, changing the ring and retiring, each in its function.

use std::collections::BTreeSet;

use crate::command::{Command, Outcome, Proposal};
use crate::epoch::{Epoch, EpochNumber, View};
use crate::node::{Node, Registration};
use crate::plan::{Placed, RingPlan};
use crate::state::{HISTORY, Limits, Pending, State};
use crate::{Error, check};

impl State {
    /// Takes a command, or refuses it and stays as it is.
    pub fn apply(&mut self, command: Command) -> Result<Outcome, Error> {
        check::feature(self, &command)?;
        match command {
            Command::Form { cluster, plan, by, time } => self.form(cluster, plan, by, time),
            Command::Register { node, time } => self.register(node, time),
            Command::Propose(proposal) => self.propose(proposal),
            Command::Ready { address, epoch } => self.ready(address, epoch),
            Command::Adopted { address, incarnation, min_epoch, time } => {
                self.adopted(&address, &incarnation, min_epoch, time)
            }
            Command::Clear { address, incarnation, through } => self.clear(&address, &incarnation, through),
            Command::Abort { by, time } => self.abort(by, time),
            Command::Force { plan, lost, by, time } => self.force(plan, lost, by, time),
            Command::Restore { state, beyond, by, time } => self.restore(*state, beyond, by, time),
            Command::SetLimits { expect, text, by, time } => self.set_limits(expect, text, by, time),
            Command::Elect(asked) => self.elections.elect(asked),
            Command::Lease { job, holder, token, time, ttl } => {
                self.leases.take(job, holder, token, time, ttl)
            }
            Command::Release { job, token } => Ok(self.leases.release(&job, token)),
            Command::Forget { address } => self.forget_node(&address),
        }
    }

    fn form(&mut self, cluster: String, plan: RingPlan, by: String, time: i64) -> Result<Outcome, Error> {
        if !self.cluster.is_empty() {
            // Every voter proposes it on its first start; one of them is first.
            return Ok(Outcome::Already);
        }
        let ring = Placed::try_from(plan)?;
        self.cluster = cluster;
        self.epochs.push(Epoch::new(1, View::Stable(ring), time, by));
        Ok(Outcome::Done)
    }

    fn register(&mut self, asked: Registration, time: i64) -> Result<Outcome, Error> {
        let current = self.formed()?;
        check::identity(&self.cluster, &asked)?;
        check::levels(self.level, &asked)?;
        let Registration { address, incarnation, levels, ships, .. } = asked;
        let (number, view) = (current.number, &current.view);
        let joined = match self.nodes.get(&address) {
            Some(node) if node.incarnation == incarnation => node.joined,
            // Nobody was ever acked with its help, so there is nothing that it could lack and a quorum does not have.
            None => 1,
            // An ack may have counted on the disk that is gone; the new one counts from a new epoch on.
            Some(_) => {
                if view.has(&address) {
                    let view = view.clone();
                    self.begin(view, time, format!("{address} started with an empty disk"));
                }
                number + 1
            }
        };
        if let Some(pending) = &mut self.pending {
            pending.epoch = self.epochs.last().map_or(1, |e| e.number + 1);
            pending.ready.remove(&address);
        }
        let same_disk = |node: &&Node| node.incarnation == incarnation;
        let promised = self.nodes.get(&address).filter(same_disk).map(|node| (node.min_epoch, node.clear));
        let (min_epoch, clear) = promised.unwrap_or_default();
        self.nodes.insert(address, Node { incarnation, levels, ships, joined, min_epoch, clear });
        self.raise_level();
        Ok(Outcome::Registered { joined })
    }

    /// The level that all have in common, once every member has said its own; it only grows, and one node may lag one
    /// level behind.
    fn raise_level(&mut self) {
        let unknown = |a: &&str| !self.nodes.contains_key(*a);
        if self.current().is_none_or(|current| current.view.members().iter().any(unknown)) {
            return;
        }
        let common = self.nodes.values().map(|n| n.levels.1).min().unwrap_or(0);
        self.level = self.level.max(common);
    }

    fn propose(&mut self, asked: Proposal) -> Result<Outcome, Error> {
        let current = self.formed()?;
        // Everybody who sees the same edit of a file proposes it.
        let goes_on = match (&current.view, &self.pending) {
            (View::Joint { new, .. }, _) => asked.plan == *new.plan(),
            (View::Stable(_), Some(pending)) => asked.plan == *pending.ring.plan(),
            (View::Stable(ring), None) => asked.plan == *ring.plan(),
        };
        if goes_on {
            return Ok(Outcome::Already);
        }
        let View::Stable(ring) = &current.view else {
            return Err(Error::later(format!(
                "epoch {} is in the middle of a change; wait for its end (`tributary ring show`), or take it back \
                 (`tributary ring abort`)",
                current.number
            )));
        };
        if asked.expect != ring.plan().text {
            return Err(Error::refused(
                "another ring was agreed on meanwhile; look at it (`tributary ring show`) and edit that one",
            ));
        }
        if asked.plan == *ring.plan() {
            self.pending = None;
            return Ok(Outcome::Done);
        }
        let next = Placed::try_from(asked.plan.clone())?;
        check::change(ring, &next, &asked, &self.nodes)?;
        let epoch = current.number + 1;
        let pending =
            Pending { epoch, ring: next, ready: BTreeSet::new(), since: asked.time, by: asked.by.clone() };
        self.pending = Some(pending);
        self.join_if_warm(asked.time);
        Ok(Outcome::Pending { epoch })
    }

    fn ready(&mut self, address: String, epoch: EpochNumber) -> Result<Outcome, Error> {
        let known = self.nodes.contains_key(&address);
        match &mut self.pending {
            Some(pending) if pending.epoch == epoch && pending.ring.has(&address) && known => {
                let since = pending.since;
                pending.ready.insert(address);
                self.join_if_warm(since);
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::Already),
        }
    }

    /// The joint epoch begins once every new member can take writes: before that an ack could wait for one that cannot.
    fn join_if_warm(&mut self, time: i64) {
        if !self.warming().is_empty() {
            return;
        }
        let Some(pending) = self.pending.take() else { return };
        let Some(current) = self.current() else { return };
        let old = current.view.ground().clone();
        self.begin(View::Joint { old, new: pending.ring }, time, pending.by);
        self.finish_if_sealed(time);
    }

    fn adopted(
        &mut self,
        address: &str,
        incarnation: &str,
        min_epoch: EpochNumber,
        time: i64,
    ) -> Result<Outcome, Error> {
        let number = self.formed()?.number;
        if min_epoch > number {
            return Err(Error::invalid(format!(
                "{address} promised epoch {min_epoch}; there is none after {number}"
            )));
        }
        let node = self.node(address, incarnation)?;
        if node.min_epoch >= min_epoch {
            return Ok(Outcome::Already);
        }
        node.min_epoch = min_epoch;
        self.finish_if_sealed(time);
        Ok(Outcome::Done)
    }

    /// A change ends once no router that knows only the old ring can gather an ack any more.
    fn finish_if_sealed(&mut self, time: i64) {
        let Some(current) = self.current() else { return };
        let View::Joint { new, .. } = &current.view else { return };
        // Epochs of nodes that joined anew may lie between; all before this one are to be sealed.
        let min_epochs = self.min_epochs();
        let earlier = self.epochs.iter().filter(|e| e.number < current.number && !e.retired);
        if earlier.clone().any(|e| e.unsealed(&min_epochs).is_some()) {
            return;
        }
        let (view, by) = (View::Stable(new.clone()), current.by.clone());
        self.begin(view, time, by);
    }

    fn clear(&mut self, address: &str, incarnation: &str, through: EpochNumber) -> Result<Outcome, Error> {
        let number = self.formed()?.number;
        let node = self.node(address, incarnation)?;
        if node.min_epoch <= through || through >= number {
            return Err(Error::refused(format!(
                "{address} still takes writes of epoch {through}; it has to promise not to before it can be clear of it"
            )));
        }
        let joined = node.joined;
        node.clear = node.clear.max(through);
        for epoch in self.epochs.iter_mut().filter(|e| !e.retired && (joined..=through).contains(&e.number)) {
            epoch.clear.insert(address.to_owned());
            // Everything acked in it has a copy on one of those that are clear.
            epoch.retired = epoch.shortfall(|a| epoch.clear.contains(a)).is_none();
        }
        self.forget();
        Ok(Outcome::Done)
    }

    fn abort(&mut self, by: String, time: i64) -> Result<Outcome, Error> {
        if self.pending.take().is_some() {
            return Ok(Outcome::Done);
        }
        let current = self.formed()?;
        match &current.view {
            // Every ack so far obeyed the old ring.
            View::Joint { old, .. } => {
                let view = View::Stable(old.clone());
                self.begin(view, time, by);
                Ok(Outcome::Done)
            }
            View::Stable(_) => Ok(Outcome::Already),
        }
    }

    fn force(
        &mut self,
        plan: RingPlan,
        lost: BTreeSet<String>,
        by: String,
        time: i64,
    ) -> Result<Outcome, Error> {
        self.formed()?;
        let ring = Placed::try_from(plan)?;
        if let Some(address) = ring.members().find(|a| lost.contains(*a)) {
            return Err(Error::invalid(format!(
                "{address} is given up and is in the new ring; it is one or the other"
            )));
        }
        if let Some(address) = ring.members().find(|a| !self.nodes.contains_key(*a)) {
            return Err(Error::refused(format!("{address} has never been here; start it first")));
        }
        self.pending = None;
        for epoch in self.epochs.iter_mut().filter(|e| !e.retired) {
            let members: BTreeSet<String> = epoch.view.members().into_iter().map(str::to_owned).collect();
            epoch.lost.extend(lost.intersection(&members).cloned());
            epoch.retired = epoch.shortfall(|a| epoch.clear.contains(a)).is_none();
        }
        self.begin(View::Stable(ring), time, by);
        Ok(Outcome::Done)
    }

    /// A cluster of which the voters know nothing goes on from what somebody remembered: with a new epoch, beyond every
    /// one that any receiver has heard of, so that none has to be believed in twice.
    fn restore(
        &mut self,
        state: State,
        beyond: EpochNumber,
        by: String,
        time: i64,
    ) -> Result<Outcome, Error> {
        if self.cluster == state.cluster && self.generation > state.generation {
            return Ok(Outcome::Already);
        }
        if !self.cluster.is_empty() {
            return Err(Error::refused(format!(
                "the voters know of cluster {}; only where they know of none can another state be brought back",
                self.cluster
            )));
        }
        let Some(current) = state.current() else {
            return Err(Error::invalid("what is brought back is of no cluster: it has no ring"));
        };
        // The change that went on is where it was: in its middle.
        let (view, number) = (current.view.clone(), current.number.max(beyond) + 1);
        *self = State { generation: state.generation + 1, pending: None, ..state };
        self.epochs.push(Epoch::new(number, view, time, by));
        self.finish_if_sealed(time);
        Ok(Outcome::Done)
    }

    fn forget_node(&mut self, address: &str) -> Result<Outcome, Error> {
        self.forgettable(address)?;
        let known = self.nodes.remove(address).is_some();
        self.raise_level();
        Ok(if known { Outcome::Done } else { Outcome::Already })
    }

    fn set_limits(&mut self, expect: u64, text: String, by: String, time: i64) -> Result<Outcome, Error> {
        if self.limits.version != expect {
            return Err(Error::refused(format!(
                "the limits were changed by {:?} meanwhile (version {}, not {expect}); look again",
                self.limits.by, self.limits.version
            )));
        }
        if self.limits.text == text {
            return Ok(Outcome::Already);
        }
        self.limits = Limits { version: expect + 1, text, by, since: time };
        Ok(Outcome::Done)
    }

    fn node(&mut self, address: &str, incarnation: &str) -> Result<&mut Node, Error> {
        match self.nodes.get_mut(address) {
            Some(node) if node.incarnation == incarnation => Ok(node),
            Some(_) => Err(Error::refused(format!(
                "{address} runs on another disk now; this is word of the one before"
            ))),
            None => Err(Error::refused(format!("{address} has not registered"))),
        }
    }

    fn begin(&mut self, view: View, time: i64, by: String) {
        let number = self.current().map_or(1, |e| e.number + 1);
        self.epochs.push(Epoch::new(number, view, time, by));
        self.forget();
    }

    /// Keeps a bounded history, and in the registry only who may still be needed.
    fn forget(&mut self) {
        let retired = self.epochs.iter().filter(|e| e.retired).count();
        let mut spare = retired.saturating_sub(HISTORY);
        let mut left: BTreeSet<String> = BTreeSet::new();
        self.epochs.retain(|epoch| {
            let gone = spare > 0 && epoch.retired;
            spare -= usize::from(gone);
            if epoch.retired {
                left.extend(epoch.view.members().into_iter().map(str::to_owned));
            }
            !gone
        });
        for address in left {
            if self.needed(&address).is_none() {
                self.nodes.remove(&address);
            }
        }
    }
}
