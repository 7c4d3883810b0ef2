//! The control plane as any node of a cluster has it: what is agreed, and a way to have something agreed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use agreed::{Command, Outcome, State};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::message::{About, Mark, Request, Response, Seen, WATCH_FOR};
use crate::{Error, Subscriber, Voter};

/// What voters and subscribers have in common, and, for tests and simulations, who agrees with nobody but itself. Cheap to
/// clone.
#[derive(Clone)]
pub struct Handle {
    plane: Plane,
}

#[derive(Clone)]
enum Plane {
    Voter(Voter),
    Subscriber(Subscriber),
    Alone(Arc<Alone>),
}

/// A state in this process, on which everything that is right is agreed at once.
struct Alone {
    state: Mutex<State>,
    told: watch::Sender<Seen>,
}

impl From<Voter> for Handle {
    fn from(voter: Voter) -> Handle {
        Handle { plane: Plane::Voter(voter) }
    }
}

impl From<Subscriber> for Handle {
    fn from(subscriber: Subscriber) -> Handle {
        Handle { plane: Plane::Subscriber(subscriber) }
    }
}

impl Handle {
    /// Agrees in this process, without a log and without others, from `state` on.
    pub fn alone(state: State) -> Handle {
        let told = watch::Sender::new(Seen { revision: 1, state: Arc::new(state.clone()) });
        Handle { plane: Plane::Alone(Arc::new(Alone { state: Mutex::new(state), told })) }
    }

    /// What is agreed, as far as it is known here, and every change of it. Revisions only grow. Before anything was heard,
    /// the state is empty: its cluster has no name.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        match &self.plane {
            Plane::Voter(voter) => voter.watch(),
            Plane::Subscriber(subscriber) => subscriber.watch(),
            Plane::Alone(alone) => alone.told.subscribe(),
        }
    }

    /// What is agreed, as far as it is known here just now.
    pub fn now(&self) -> Seen {
        self.seen().borrow().clone()
    }

    /// Has a command agreed on, by whoever leads. The error's kind says what to do: `Invalid`, change the command;
    /// `Refused`, look again how things stand; `Unavailable`, ask again later, which is no harm even where the command was
    /// taken and only its answer was lost. What came of it is seen here soon after, not at once.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        match &self.plane {
            Plane::Voter(voter) => voter.propose(command).await,
            Plane::Subscriber(subscriber) => subscriber.propose(command).await,
            Plane::Alone(alone) => alone.propose(command),
        }
    }

    /// Those of `addresses` that do not answer just now, as a voter finds it.
    pub async fn away(&self, addresses: Vec<String>) -> Result<BTreeSet<String>, Error> {
        match &self.plane {
            Plane::Voter(voter) => Ok(voter.away(addresses).await),
            Plane::Subscriber(subscriber) => subscriber.away(addresses).await,
            Plane::Alone(_) => Ok(BTreeSet::new()),
        }
    }

    /// What this node knows of the control plane: in touch, who leads, who votes.
    pub fn about(&self) -> About {
        match &self.plane {
            Plane::Voter(voter) => voter.about(),
            Plane::Subscriber(subscriber) => subscriber.about(),
            Plane::Alone(alone) => {
                let seen = alone.told.borrow().clone();
                let epoch = seen.state.current().map_or(0, |e| e.number);
                let (cluster, revision) = (seen.state.cluster.clone(), seen.revision);
                About { cluster, revision, epoch, in_touch: true, ..About::default() }
            }
        }
    }

    /// Answers another node.
    pub async fn serve(&self, request: Request) -> Response {
        match &self.plane {
            Plane::Voter(voter) => voter.serve(request).await,
            Plane::Subscriber(subscriber) => subscriber.serve(request).await,
            Plane::Alone(alone) => match request {
                Request::Ask(command) => Response::Ask(alone.propose(command).map_err(Into::into)),
                Request::Watch { after } => Response::Watch(newer(alone.told.subscribe(), &after).await),
                Request::About => Response::About(self.about()),
                _ => Response::NoVoter,
            },
        }
    }

    /// Takes part until [`Handle::stop`]. An error is a reason to end the process.
    pub async fn run(&self) -> Result<(), Error> {
        match &self.plane {
            Plane::Voter(voter) => voter.run().await,
            Plane::Subscriber(subscriber) => subscriber.run().await,
            Plane::Alone(_) => std::future::pending().await,
        }
    }

    /// Ends taking part; what is agreed stays known.
    pub async fn stop(&self) {
        if let Plane::Voter(voter) = &self.plane {
            voter.stop().await;
        }
    }
}

/// The state once it is newer; none after a while.
pub(crate) async fn newer(mut seen: watch::Receiver<Seen>, after: &Mark) -> Option<Seen> {
    let newer = seen.wait_for(|seen| seen.is_news(after));
    match tokio::time::timeout(WATCH_FOR, newer).await {
        Ok(Ok(seen)) => Some(seen.clone()),
        _ => None,
    }
}

impl Alone {
    fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let mut state = self.state.lock();
        let outcome = state.apply(command).map_err(|e| Error::new(e.kind, e.message))?;
        // Under the lock, so that states are told in their order.
        let agreed = Arc::new(state.clone());
        self.told.send_modify(|seen| *seen = Seen { revision: seen.revision + 1, state: agreed });
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use agreed::RingPlan;
    use model::Kind;

    use super::*;

    #[tokio::test]
    async fn one_alone_keeps_to_the_rules_and_tells_who_watches() {
        let handle = Handle::alone(State::default());
        let mut seen = handle.seen();
        let text = r#"[{"endpoints": ["x:1"]}]"#.to_owned();
        let plan = RingPlan { text, replication: 1, quorum: 1, hashmod: false };
        let form = Command::Form { cluster: "c".to_owned(), plan, by: String::new(), time: 0 };
        assert_eq!(handle.propose(form).await.unwrap(), Outcome::Done);
        let told = seen.wait_for(|seen| seen.state.cluster == "c").await.unwrap().clone();
        assert_eq!(told, handle.now());
        let limits = Command::SetLimits { expect: 7, text: String::new(), by: String::new(), time: 0 };
        assert_eq!(handle.propose(limits).await.unwrap_err().kind, Kind::Refused);
        assert_eq!(handle.now().revision, told.revision);
    }
}
