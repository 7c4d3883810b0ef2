//! The querier: asks every receiver as the fan-out does, judges by its rule, and merges by its merge. Where the ring is agreed
//! on it asks whom that names, as far as it has heard of it, and the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agreed::State;
use control::{Handle, Seen};
use parking_lot::Mutex;
use query::{Judgement, Needed, Owner, Seat, Tolerance, judge};
use runtime::{Threads, World};
use testkit::{MemDisk, SeededChance};

use crate::actors::{Who, address, seat_of};
use crate::breaks::Break;
use crate::invariants;
use crate::network::{self, QUERIER};
use crate::note;
use crate::oracle;
use crate::plan::QUORUM;
use crate::steps::SimClock;
use crate::universe::Shared;

/// Pause between two queries, and between two looks at what receivers say of themselves.
const EVERY: Duration = Duration::from_secs(7);
const LOOK: Duration = Duration::from_secs(5);
/// As the server has it where nobody asks for less.
const STRICT: Tolerance = Tolerance { partial: false, partial_leaves: true, chosen: false };

/// Asks all the time.
pub struct Querier {
    shared: Arc<Shared>,
    agreed: Option<Handle>,
    /// The ring epochs that receivers have spoken of.
    heard: Mutex<BTreeMap<network::Seat, u64>>,
}

impl Querier {
    pub fn new(shared: &Arc<Shared>) -> Arc<Querier> {
        let world = World {
            clock: Arc::new(SimClock::new(shared.began)),
            chance: Arc::new(SeededChance::new(shared.seed ^ 0x7175)),
            disk: Arc::new(MemDisk::new()),
            threads: Threads::Real,
        };
        let subscribe = |control: &Arc<crate::control::Authority>| {
            control.subscribe(&Who::of(QUERIER), &world, Seen::default())
        };
        let agreed = shared.control.as_ref().map(subscribe);
        Arc::new(Querier { shared: Arc::clone(shared), agreed, heard: Mutex::default() })
    }

    pub async fn run(self: Arc<Querier>) {
        let learn = async {
            match &self.agreed {
                Some(handle) => drop(handle.run().await),
                None => std::future::pending().await,
            }
        };
        let look = async {
            loop {
                tokio::time::sleep(LOOK).await;
                self.look().await;
            }
        };
        let ask = async {
            loop {
                tokio::time::sleep(EVERY).await;
                self.ask().await;
            }
        };
        tokio::join!(learn, look, ask);
    }

    /// Asks receivers who they are.
    async fn look(&self) {
        let Some(handle) = &self.agreed else { return };
        let state = handle.now().state;
        let members = state.epochs.iter().flat_map(|epoch| epoch.view.members());
        let seats: std::collections::BTreeSet<network::Seat> = members.filter_map(seat_of).collect();
        let answers = seats.iter().map(|seat| self.shared.network.ask(*seat));
        let answers = futures::future::join_all(answers).await;
        for (seat, answer) in seats.iter().zip(answers) {
            if let Ok(life) = answer {
                self.heard.lock().insert(*seat, life.epoch());
            }
        }
    }

    /// Whom it asks, by seat; none where it knows that it does not know.
    fn whom(&self, state: Option<&State>) -> Option<Vec<network::Seat>> {
        let Some(state) = state else { return Some((0..self.shared.plan.nodes).collect()) };
        let known = state.current()?.number;
        let heard = self.heard.lock().values().copied().max().unwrap_or(0);
        (heard <= known).then(|| state.to_ask().into_iter().filter_map(seat_of).collect())
    }

    /// One query of everything; whether its answer was complete.
    pub async fn ask(&self) -> bool {
        let asked_at = self.shared.trace.elapsed_ms();
        let due = self.shared.ledger.acked_until(asked_at);
        let agreed = self.agreed.as_ref().map(|handle| handle.now().state);
        let Some(seats) = self.whom(agreed.as_deref()) else {
            note!(self.shared.trace, "query: whom to ask is not known");
            self.shared.count_query(false);
            return false;
        };
        let answers = seats.iter().map(|seat| self.shared.network.ask(*seat));
        let answers = futures::future::join_all(answers).await;
        let (mut needed, mut views, mut heard) = (Vec::new(), Vec::new(), 0);
        for (at, (seat, answer)) in seats.iter().zip(answers).enumerate() {
            let mut log = None;
            let read = match answer {
                _ if self.shared.broken == Some(Break::SkipsOwner) && at < 2 => Ok((Vec::new(), 0)),
                Ok(life) => {
                    log = Some(life.incarnation());
                    oracle::views(&life).map(|found| (found, life.epoch()))
                }
                Err(why) => Err(why),
            };
            let missing = match read {
                Ok((found, epoch)) => {
                    views.extend(found);
                    heard = heard.max(epoch);
                    None
                }
                Err(why) => Some(why),
            };
            let seat_of = match agreed {
                Some(_) => Seat::Receiver { write_quorum: 1 },
                None => Seat::Receiver { write_quorum: QUORUM as u32 },
            };
            let owner = agreed.as_ref().map(|_| Owner { name: address(*seat), log });
            needed.push(Needed { address: address(*seat), seat: seat_of, missing, forgot: false, owner });
        }
        let judged = judge(&needed, STRICT, agreed.as_deref());
        // As with the server, where each answer has the epoch with it.
        let known = agreed.as_ref().and_then(|state| state.current()).map_or(u64::MAX, |epoch| epoch.number);
        let complete = judged == Judgement::Complete && heard <= known;
        let answer = match oracle::merged_with(views, &self.shared.gateway.blocks()) {
            Ok(answer) => answer,
            Err(error) => {
                note!(self.shared.trace, "query failed: {error}");
                return false;
            }
        };
        note!(
            self.shared.trace,
            "query: {} samples of {} acknowledged, complete: {complete}",
            answer.count(),
            due.len()
        );
        self.shared.count_query(complete);
        let told = format!("a query at {asked_at} ms");
        self.shared.violated(invariants::once::check(&self.shared.ledger, &answer, &told));
        self.shared.violated(invariants::values_stay::check(&answer, &told));
        if complete {
            self.shared.violated(invariants::complete_is_complete::check(&due, &answer, &told));
        }
        complete
    }
}
