//! The control plane as far as receivers, routers and queriers meet it: what is agreed, behind a network that loses, delays
//! and repeats.
//!
//! Voters are one seat here, which takes a command or does not; that they agree among themselves is shown elsewhere. Who
//! asks is `control`'s subscriber, as in production.

use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, State};
use async_trait::async_trait;
use control::{Error, Handle, Request, Response, Seen, Subscriber, Transport};
use model::Kind;
use runtime::{Chance, World};
use testkit::SeededChance;

use crate::actors::{Who, ring, seat_of};
use crate::breaks::Break;
use crate::network::{CONTROL, Network, ROUTER};
use crate::note;
use crate::plan::{COPIES, QUORUM};
use crate::steps::EPOCH;

/// How long one who watches is left without an answer, and how often it is looked, in milliseconds.
const WATCHED: u64 = 10_000;
const LOOK_MS: u64 = 20;

/// What is agreed.
pub struct Authority {
    handle: Handle,
    network: Arc<Network>,
    broken: Option<Break>,
    chance: SeededChance,
}

impl Authority {
    /// A cluster of the first `members` seats.
    pub fn new(seed: u64, members: usize, network: &Arc<Network>, broken: Option<Break>) -> Arc<Authority> {
        let handle = Handle::alone(formed(members));
        let chance = SeededChance::new(seed ^ 0x6374);
        Arc::new(Authority { handle, network: Arc::clone(network), broken, chance })
    }

    /// What is agreed, known at once.
    pub fn state(&self) -> Arc<State> {
        self.handle.now().state
    }

    /// A process that asks it, and knows `seen` from before.
    pub fn subscribe(self: &Arc<Authority>, who: &Arc<Who>, world: &World, seen: Seen) -> Handle {
        let transport = Arc::new(Line { authority: Arc::clone(self), who: Arc::clone(who) });
        match Subscriber::remembering(world, None, seen, vec!["voters:1".to_owned()], transport) {
            Ok(subscriber) => subscriber.into(),
            Err(error) => unreachable!("one voter is enough to ask: {error}"),
        }
    }

    async fn serve(&self, request: Request) -> Response {
        match request {
            Request::Away(addresses) => {
                let away = |at: &String| {
                    let life = seat_of(at).and_then(|seat| self.network.life(seat));
                    !life.is_some_and(|life| life.takes_calls())
                };
                Response::Away(addresses.into_iter().filter(away).collect())
            }
            Request::Ask(Command::Adopted { .. })
                if matches!(self.broken, Some(Break::PromisesLost | Break::NewRingAlone)) =>
            {
                Response::Ask(Ok(Outcome::Already))
            }
            Request::Ask(Command::Elect(_)) if self.broken == Some(Break::ElectionsLost) => {
                Response::Ask(Ok(Outcome::Done))
            }
            Request::Ask(command) => {
                let early = self.early(&command);
                let answer = self.handle.serve(Request::Ask(command)).await;
                if let Some(early) = early {
                    self.handle.serve(Request::Ask(early)).await;
                }
                answer
            }
            // Those who wait for one news would be woken in no order that a seed decides.
            Request::Watch { after } => {
                for _ in 0..WATCHED / LOOK_MS {
                    let seen = self.handle.now();
                    if seen.is_news(&after) {
                        return Response::Watch(Some(self.told(seen)));
                    }
                    tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
                }
                Response::Watch(None)
            }
            other => self.handle.serve(other).await,
        }
    }

    /// As it is told: the truth, unless that is what is broken.
    fn told(&self, seen: Seen) -> Seen {
        if self.broken != Some(Break::NewRingAlone) {
            return seen;
        }
        let mut state = (*seen.state).clone();
        for epoch in &mut state.epochs {
            epoch.view = agreed::View::Stable(epoch.view.target().clone());
        }
        Seen { state: Arc::new(state), ..seen }
    }

    /// A word about a node's data before there is anything behind it.
    fn early(&self, command: &Command) -> Option<Command> {
        let Command::Adopted { address, incarnation, min_epoch, .. } = command else { return None };
        if self.broken != Some(Break::ClearEarly) || *min_epoch < 2 {
            return None;
        }
        let (address, incarnation) = (address.clone(), incarnation.clone());
        Some(Command::Clear { address, incarnation, through: min_epoch - 1 })
    }

    async fn call(self: &Arc<Authority>, who: &Who, request: Request) -> Result<Response, Error> {
        let gone = |why: &str| Error::new(Kind::Unavailable, format!("the voters: {why}"));
        let aloud = match &request {
            Request::Ask(command) => Some(command.clone()),
            _ => None,
        };
        if !self.network.hop(who.seat, CONTROL).await {
            return Err(gone("unreachable"));
        }
        if let Some(command) = &aloud {
            note!(self.network.trace, "control {}: {command:?}", who.seat);
            if self.network.repeats() {
                let (authority, command) = (Arc::clone(self), command.clone());
                let later = Duration::from_millis(self.chance.below(20_000));
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    authority.serve(Request::Ask(command)).await;
                });
            }
        }
        let asleep = self.broken == Some(Break::StaleTaken) && who.seat == ROUTER;
        if asleep && matches!(&request, Request::Watch { after } if after.revision > 0) {
            return std::future::pending().await;
        }
        let answer = self.serve(request).await;
        if aloud.is_some() {
            note!(self.network.trace, "control {}: {}", who.seat, brief(&answer, &self.state()));
        }
        if self.network.swallows() || !self.network.hop(CONTROL, who.seat).await {
            return Err(gone("connection reset"));
        }
        Ok(answer)
    }
}

fn brief(answer: &Response, state: &State) -> String {
    let epoch = state.current().map_or(0, |epoch| epoch.number);
    match answer {
        Response::Ask(Ok(outcome)) => format!("{outcome:?}, epoch {epoch}"),
        Response::Ask(Err(refused)) => format!("refused: {}", refused.message),
        _ => String::new(),
    }
}

/// The ring of these seats, as it is proposed.
pub fn plan(seats: &[usize]) -> agreed::RingPlan {
    agreed::RingPlan { text: ring(seats), replication: COPIES as u8, quorum: QUORUM as u8, hashmod: false }
}

fn formed(members: usize) -> State {
    let mut state = State::default();
    let plan = plan(&(0..members).collect::<Vec<_>>());
    let form = Command::Form { cluster: "c".to_owned(), plan, by: "the simulation".to_owned(), time: EPOCH };
    if let Err(error) = state.apply(form) {
        unreachable!("{members} receivers are a ring: {error}");
    }
    state
}

struct Line {
    authority: Arc<Authority>,
    who: Arc<Who>,
}

#[async_trait]
impl Transport for Line {
    async fn call(&self, _: &str, request: Request) -> Result<Response, Error> {
        if !self.who.is_alive() {
            return std::future::pending().await;
        }
        let patience = request.patience();
        let answer = tokio::time::timeout(patience, self.authority.call(&self.who, request)).await;
        if !self.who.is_alive() {
            return std::future::pending().await;
        }
        answer.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the voters did not answer in time")))
    }
}
