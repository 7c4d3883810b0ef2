//! A change of the ring as somebody asks for it: who of those that would leave is away, and then the proposal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, Placed, Proposal, RingPlan, State};
use tokio::task::JoinSet;

use crate::message::{Request, Response};
use crate::{Error, Handle, Transport};

/// How often a node is asked before it counts as away.
const ASKED: usize = 2;
const BETWEEN: Duration = Duration::from_millis(500);

/// A ring in the place of another one.
#[derive(Clone, Debug)]
pub struct Change {
    /// The text of the ring that was seen; another one agreed meanwhile refuses the change.
    pub expect: String,
    pub text: String,
    /// Copies, and copies for an ack; none: as agreed.
    pub copies: Option<(u8, u8)>,
    /// Members that may be left out although they are away.
    pub retire: BTreeSet<String>,
    /// Who asks, in words.
    pub by: String,
    /// Milliseconds.
    pub time: i64,
}

impl Handle {
    /// Proposes a change of the ring. The error says in words what would be lost and the way that works; its kind is as
    /// for [`Handle::propose`].
    pub async fn change(&self, change: Change) -> Result<Outcome, Error> {
        let state = self.now().state;
        let plan = plan(&state, change.text, change.copies)?;
        let next = Placed::try_from(plan.clone()).map_err(|e| Error::new(e.kind, e.message))?;
        let leaving: Vec<String> = match state.current() {
            None => Vec::new(),
            Some(current) => {
                let members = current.view.ground().members();
                members.filter(|a| !next.has(a)).map(str::to_owned).collect()
            }
        };
        let away = match leaving.is_empty() {
            true => BTreeSet::new(),
            false => self.away(leaving).await?,
        };
        let Change { expect, retire, by, time, .. } = change;
        self.propose(Command::Propose(Proposal { expect, plan, away, retire, by, time })).await
    }
}

/// A text with the numbers that are agreed, or with others.
pub fn plan(state: &State, text: String, copies: Option<(u8, u8)>) -> Result<RingPlan, Error> {
    let Some(current) = state.current() else {
        return Err(Error::new(
            model::Kind::Unavailable,
            "the cluster is not formed yet, or nothing was heard of it; it is formed once its voters meet",
        ));
    };
    let agreed = current.view.target().plan();
    let (replication, quorum) = copies.unwrap_or((agreed.replication, agreed.quorum));
    Ok(RingPlan { text, replication, quorum, hashmod: agreed.hashmod })
}

/// Those of `addresses` that do not answer.
pub(crate) async fn away(transport: &Arc<dyn Transport>, addresses: Vec<String>) -> BTreeSet<String> {
    let mut asking = JoinSet::new();
    for address in addresses {
        let transport = Arc::clone(transport);
        asking.spawn(async move {
            for n in 0..ASKED {
                if n > 0 {
                    tokio::time::sleep(BETWEEN).await;
                }
                if let Ok(Response::About(_)) = transport.call(&address, Request::About).await {
                    return None;
                }
            }
            Some(address)
        });
    }
    let mut away = BTreeSet::new();
    while let Some(asked) = asking.join_next().await {
        away.extend(asked.ok().flatten());
    }
    away
}
