//! The querier: asks every receiver as the fan-out does, judges by its rule, and merges by its merge.

use std::sync::Arc;
use std::time::Duration;

use query::{Judgement, Needed, Seat, Tolerance, judge};

use crate::breaks::Break;
use crate::invariants;
use crate::note;
use crate::oracle;
use crate::plan::QUORUM;
use crate::universe::Shared;

/// Pause between two queries.
const EVERY: Duration = Duration::from_secs(7);
/// As the server has it where nobody asks for less.
const STRICT: Tolerance = Tolerance { partial: false, partial_leaves: true, chosen: false };

/// Asks all the time.
pub struct Querier {
    shared: Arc<Shared>,
}

impl Querier {
    pub fn new(shared: &Arc<Shared>) -> Querier {
        Querier { shared: Arc::clone(shared) }
    }

    pub async fn run(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.ask().await;
        }
    }

    /// One query of everything; whether its answer was complete.
    pub async fn ask(&self) -> bool {
        let asked_at = self.shared.trace.elapsed_ms();
        let due = self.shared.ledger.acked_until(asked_at);
        let nodes = self.shared.plan.nodes;
        let answers = (0..nodes).map(|seat| self.shared.network.ask(seat));
        let answers = futures::future::join_all(answers).await;
        let (mut needed, mut views) = (Vec::new(), Vec::new());
        for (seat, answer) in answers.into_iter().enumerate() {
            let read = match answer {
                _ if self.shared.broken == Some(Break::SkipsOwner) && seat < 2 => Ok(Vec::new()),
                Ok(life) => oracle::views(&life),
                Err(why) => Err(why),
            };
            let missing = match read {
                Ok(found) => {
                    views.extend(found);
                    None
                }
                Err(why) => Some(why),
            };
            let seat_of = Seat::Receiver { write_quorum: QUORUM as u32 };
            needed.push(Needed {
                address: format!("r{seat}:1"),
                seat: seat_of,
                missing,
                forgot: false,
                owner: None,
            });
        }
        let judged = judge(&needed, STRICT, None);
        let complete = judged == Judgement::Complete;
        let answer = match oracle::merged(views) {
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
