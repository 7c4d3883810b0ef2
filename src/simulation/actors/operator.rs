//! The operator: edits the ring, racks machines, takes away those that say that they are drained, and replaces dead ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use agreed::View;
use control::{Change, Handle, Seen};
use parking_lot::Mutex;
use runtime::{Chance, Threads, World};
use testkit::{MemDisk, SeededChance};

use crate::actors::{Node, Trouble, Who, address, ring, seat_of};
use crate::breaks::Break;
use crate::control::Authority;
use crate::invariants;
use crate::network::OPERATOR;
use crate::note;
use crate::oracle;
use crate::plan::Edit;
use crate::steps::{EPOCH, SimClock};
use crate::universe::Shared;

/// Pause between two looks, and between two attempts.
const LOOK: Duration = Duration::from_secs(2);

/// Who changes the ring.
pub struct Operator {
    shared: Arc<Shared>,
    nodes: Vec<Arc<Node>>,
    handle: Handle,
    trouble: Arc<Trouble>,
    chance: SeededChance,
    done: AtomicBool,
    /// Machines that are waited for until they are drained.
    leaving: Mutex<BTreeSet<usize>>,
    /// The ring that was asked for last.
    wanted: Mutex<Option<String>>,
}

impl Operator {
    /// Begins to work through the plan.
    pub fn start(
        shared: &Arc<Shared>,
        authority: &Arc<Authority>,
        nodes: &[Arc<Node>],
        trouble: &Arc<Trouble>,
    ) -> Arc<Operator> {
        let world = World {
            clock: Arc::new(SimClock::new(shared.began)),
            chance: Arc::new(SeededChance::new(shared.seed ^ 0x6f70)),
            disk: Arc::new(MemDisk::new()),
            threads: Threads::Real,
        };
        let handle = authority.subscribe(&Who::of(OPERATOR), &world, Seen::default());
        let operator = Arc::new(Operator {
            shared: Arc::clone(shared),
            nodes: nodes.to_vec(),
            handle: handle.clone(),
            trouble: Arc::clone(trouble),
            chance: SeededChance::new(shared.seed ^ 0x6f71),
            done: AtomicBool::new(false),
            leaving: Mutex::default(),
            wanted: Mutex::default(),
        });
        tokio::spawn(async move { handle.run().await });
        tokio::spawn(Arc::clone(&operator).work());
        operator
    }

    /// What is still to be done.
    pub fn left(&self) -> Option<String> {
        let leaving = self.leaving.lock().clone();
        if !leaving.is_empty() {
            return Some(format!("{leaving:?} are not drained"));
        }
        (!self.done.load(Relaxed)).then(|| "a change of the ring has not ended".to_owned())
    }

    async fn work(self: Arc<Operator>) {
        let Some(plan) = self.shared.plan.ring.clone() else { return };
        for edit in plan.edits {
            let pause = plan.pause.as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(pause / 4 + self.chance.below(pause * 2))).await;
            if self.shared.is_over() {
                return;
            }
            self.make(edit).await;
        }
        self.settled().await;
        self.done.store(true, Relaxed);
    }

    fn pick(&self, from: &[usize]) -> usize {
        from[self.chance.below(from.len() as u64) as usize]
    }

    /// Waits for the end of the change before; who is in the ring then.
    async fn settled(&self) -> Vec<usize> {
        loop {
            let state = self.handle.now().state;
            if let Some(current) = state.current()
                && let View::Stable(ring) = &current.view
                && state.pending.is_none()
                && self.wanted.lock().as_ref().is_none_or(|text| *text == ring.plan().text)
            {
                return ring.members().filter_map(seat_of).collect();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make(self: &Arc<Operator>, edit: Edit) {
        let mut members = self.settled().await;
        if self.chance.below(2) == 0 {
            // In the middle of it, with a little luck.
            let (trouble, later) =
                (Arc::clone(&self.trouble), Duration::from_millis(self.chance.below(5_000)));
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                trouble.one();
            });
        }
        note!(self.shared.trace, "operator: {edit:?}, members {members:?}");
        match edit {
            Edit::Grow(more) => {
                members.extend(self.rack(more).await);
                self.change(&members, &[]).await;
            }
            Edit::Shrink(less) => {
                let mut gone = Vec::new();
                for _ in 0..less {
                    let one = self.pick(&members);
                    members.retain(|seat| *seat != one);
                    gone.push(one);
                }
                self.change(&members, &[]).await;
                gone.into_iter().for_each(|seat| self.remove(seat));
            }
            Edit::Swap => {
                let gone = self.pick(&members);
                members.retain(|seat| *seat != gone);
                members.extend(self.rack(1).await);
                self.change(&members, &[]).await;
                self.remove(gone);
            }
            Edit::EmptyDisk => {
                let one = self.pick(&members);
                self.nodes[one].lose_disk().await;
                tokio::time::sleep(Duration::from_millis(self.chance.below(15_000))).await;
                self.nodes[one].start().await;
            }
            Edit::Retire => {
                let one = self.pick(&members);
                self.nodes[one].lose_disk().await;
                self.nodes[one].take_away();
                members.retain(|seat| *seat != one);
                members.extend(self.rack(1).await);
                self.change(&members, &[one]).await;
            }
        }
        note!(self.shared.trace, "operator: {edit:?} is under way");
    }

    /// Puts new machines up; before or after the ring is told of them.
    async fn rack(&self, more: usize) -> Vec<usize> {
        let mut free: Vec<usize> = self.nodes.iter().filter(|n| n.is_free()).map(|n| n.seat).collect();
        free.truncate(more);
        for seat in &free {
            let node = Arc::clone(&self.nodes[*seat]);
            node.put_up();
            let later = Duration::from_millis(self.chance.below(8_000));
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                node.start().await;
            });
        }
        free
    }

    /// Has the ring changed, however often that has to be asked for.
    async fn change(&self, members: &[usize], retire: &[usize]) {
        let text = ring(members);
        *self.wanted.lock() = Some(text.clone());
        loop {
            let state = self.handle.now().state;
            let target = state.current().map(|current| current.view.target().plan().text.clone());
            if target.as_ref() == Some(&text) {
                return;
            }
            let change = Change {
                expect: target.unwrap_or_default(),
                text: text.clone(),
                copies: None,
                retire: retire.iter().map(|seat| address(*seat)).collect(),
                by: "an operator".to_owned(),
                time: EPOCH + self.shared.trace.elapsed_ms(),
            };
            match self.handle.change(change).await {
                Ok(outcome) => {
                    note!(self.shared.trace, "operator: {members:?} proposed: {outcome:?}");
                    return;
                }
                Err(error) => note!(self.shared.trace, "operator: {members:?} refused: {}", error.message),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops a machine as soon as it says that it is drained, and deletes its folder.
    fn remove(self: &Arc<Operator>, seat: usize) {
        self.leaving.lock().insert(seat);
        let operator = Arc::clone(self);
        tokio::spawn(async move {
            let node = Arc::clone(&operator.nodes[seat]);
            loop {
                tokio::time::sleep(LOOK).await;
                if operator.shared.is_over() {
                    return;
                }
                let Some(life) = node.life().filter(|life| life.is_ready()) else { continue };
                if life.is_drained().await || operator.shared.broken == Some(Break::DrainedUnasked) {
                    note!(operator.shared.trace, "operator: r{seat} is drained");
                    operator.judge_drained(&node);
                    break;
                }
            }
            node.stop().await;
            node.delete();
            operator.leaving.lock().remove(&seat);
        });
    }

    fn judge_drained(&self, node: &Node) {
        let Some(life) = node.life() else { return };
        let here = oracle::views(&life).and_then(oracle::merged);
        let there = oracle::merged_with(Vec::new(), &self.shared.gateway.blocks());
        if let (Ok(here), Ok(there)) = (here, there) {
            let who = format!("r{}", node.seat);
            self.shared.violated(invariants::drained_is_spare::check(&who, &here, &there));
        }
    }
}
