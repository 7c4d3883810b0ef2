//! A subscriber: a node that does not vote, learns what is agreed from those that do, and proposes by way of them.
//!
//! It asks one voter to tell it of the next state, and another one where that one is silent, gone or cut off. What it
//! learned last it keeps, in the catalog where it has one, and goes on with it for as long as nobody tells it more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agreed::{Command, Outcome};
use catalog::Catalog;
use model::Kind;
use parking_lot::Mutex;
use runtime::World;
use tokio::sync::watch;

use crate::handle::newer;
use crate::message::{About, PROPOSE_FOR, Request, Response, Seen, WATCH_FOR};
use crate::{Error, Transport};

const SEEN: &str = "seen";
/// Between two rounds in which no voter answered.
const PAUSE: Duration = Duration::from_millis(500);

/// A running subscriber. Cheap to clone.
#[derive(Clone)]
pub struct Subscriber {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    catalog: Option<Catalog>,
    transport: Arc<dyn Transport>,
    voters: Vec<String>,
    told: watch::Sender<Seen>,
    /// Of the voter that is asked first.
    at: AtomicUsize,
    /// When a voter last said that it knows what there is to know.
    heard: Mutex<Option<Instant>>,
}

impl Subscriber {
    /// Starts with what the catalog remembers, if there is one. `voters` are addresses; any one that is there will do.
    pub fn start(
        world: &World,
        catalog: Option<&Catalog>,
        voters: Vec<String>,
        transport: Arc<dyn Transport>,
    ) -> Result<Subscriber, Error> {
        let remembered = match catalog {
            None => None,
            Some(catalog) => catalog.raft_get(SEEN)?,
        };
        let seen = match remembered {
            None => Seen::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::new(
                    Kind::Corrupt,
                    format!("the catalog's copy of what was agreed on cannot be read: {e}"),
                )
            })?,
        };
        Subscriber::remembering(world, catalog, seen, voters, transport)
    }

    /// As [`Subscriber::start`], with what is remembered given.
    pub fn remembering(
        world: &World,
        catalog: Option<&Catalog>,
        seen: Seen,
        voters: Vec<String>,
        transport: Arc<dyn Transport>,
    ) -> Result<Subscriber, Error> {
        if voters.is_empty() {
            return Err(Error::new(Kind::Invalid, "there is no voter to ask: give --control.voters"));
        }
        // Not all subscribers of a cluster at one voter.
        let at = world.chance.next_u64() as usize % voters.len();
        let inner = Inner {
            world: world.clone(),
            catalog: catalog.cloned(),
            transport,
            voters,
            told: watch::Sender::new(seen),
            at: AtomicUsize::new(at),
            heard: Mutex::default(),
        };
        Ok(Subscriber { inner: Arc::new(inner) })
    }

    /// What is agreed, as far as it is known here, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.inner.told.subscribe()
    }

    /// Learns until it is dropped. An error is another cluster's voters: nothing good comes of going on.
    pub async fn run(&self) -> Result<(), Error> {
        let inner = &*self.inner;
        let mut silent = 0;
        loop {
            match inner.learn().await {
                Ok(()) => silent = 0,
                Err(error) if error.kind == Kind::Refused => return Err(error),
                Err(error) => {
                    inner.at.fetch_add(1, Relaxed);
                    silent += 1;
                    let all = silent % inner.voters.len() == 0;
                    if silent == inner.voters.len() {
                        tracing::warn!(
                            %error,
                            "no voter tells what is agreed; this node goes on with what it learned last"
                        );
                    }
                    if all {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Has a command agreed on, by way of any voter that is there.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let inner = &*self.inner;
        let deadline = inner.world.clock.monotonic() + PROPOSE_FOR;
        let first = inner.at.load(Relaxed);
        // What a voter says of the others tells more than that one of them is not there.
        let (mut said, mut silent) = (None, String::new());
        for n in 0.. {
            let address = inner.voter(first + n);
            match inner.transport.call(address, Request::Ask(command.clone())).await {
                Ok(Response::Ask(Ok(outcome))) => return Ok(outcome),
                Ok(Response::Ask(Err(refused))) => match Error::from(refused) {
                    error if error.kind == Kind::Unavailable => said = Some(error.message),
                    error => return Err(error),
                },
                Ok(_) => silent = format!("{address} is not a voter"),
                Err(error) => silent = error.message,
            }
            // Each is asked once, and again while there is time.
            if n + 1 >= inner.voters.len() && inner.world.clock.monotonic() >= deadline {
                let why = said.unwrap_or_else(|| {
                    format!("no voter answers, so that nothing can be agreed on; the data goes on as it is: {silent}")
                });
                return Err(Error::new(Kind::Unavailable, why));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::new(Kind::Unavailable, "no voter was asked"))
    }

    /// Those of `addresses` that do not answer a voter, as one says that is there itself.
    pub async fn away(&self, addresses: Vec<String>) -> Result<BTreeSet<String>, Error> {
        let inner = &*self.inner;
        let first = inner.at.load(Relaxed);
        let mut why = String::new();
        for n in 0..inner.voters.len() {
            let address = inner.voter(first + n);
            match inner.transport.call(address, Request::Away(addresses.clone())).await {
                Ok(Response::Away(away)) => return Ok(away),
                Ok(_) => why = format!("{address} is not a voter"),
                Err(error) => why = error.message,
            }
        }
        Err(Error::new(Kind::Unavailable, why))
    }

    /// Whether a voter said lately that it knows what there is to know.
    pub fn in_touch(&self) -> bool {
        let now = self.inner.world.clock.monotonic();
        self.inner.heard.lock().is_some_and(|at| now.saturating_duration_since(at) < 3 * WATCH_FOR)
    }

    /// What it knows of the control plane.
    pub fn about(&self) -> About {
        let seen = self.inner.told.borrow().clone();
        About {
            cluster: seen.state.cluster.clone(),
            revision: seen.revision,
            epoch: seen.state.current().map_or(0, |e| e.number),
            in_touch: self.in_touch(),
            group: BTreeMap::new(),
            ..About::default()
        }
    }

    /// Answers who asks this node for what is agreed, or to have something agreed on.
    pub async fn serve(&self, request: Request) -> Response {
        match request {
            Request::Ask(command) => Response::Ask(self.propose(command).await.map_err(Into::into)),
            Request::Watch { after } => Response::Watch(newer(self.watch(), &after).await),
            Request::About => Response::About(self.about()),
            Request::Away(addresses) => match self.away(addresses).await {
                Ok(away) => Response::Away(away),
                Err(_) => Response::NoVoter,
            },
            _ => Response::NoVoter,
        }
    }
}

impl Inner {
    fn voter(&self, n: usize) -> &str {
        &self.voters[n % self.voters.len()]
    }

    /// Asks a voter for the next state and takes it.
    async fn learn(&self) -> Result<(), Error> {
        let address = self.voter(self.at.load(Relaxed));
        let after = self.told.borrow().mark();
        let begun = self.world.clock.monotonic();
        let answer = self.transport.call(address, Request::Watch { after }).await?;
        match answer {
            Response::Watch(Some(seen)) => {
                self.take(address, seen).await?;
                *self.heard.lock() = Some(self.world.clock.monotonic());
                Ok(())
            }
            // One that waited for its whole time would have heard of something.
            Response::Watch(None) if begun + WATCH_FOR <= self.world.clock.monotonic() => {
                *self.heard.lock() = Some(self.world.clock.monotonic());
                self.at.fetch_add(1, Relaxed);
                Ok(())
            }
            Response::Watch(None) => {
                Err(Error::new(Kind::Unavailable, format!("{address} is cut off from the other voters")))
            }
            _ => Err(Error::new(Kind::Unavailable, format!("{address} is not a voter"))),
        }
    }

    async fn take(&self, address: &str, seen: Seen) -> Result<(), Error> {
        let ours = self.told.borrow().state.cluster.clone();
        if !ours.is_empty() && seen.state.cluster != ours {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{address} is of cluster {}, and this node is of cluster {ours}; give it the voters of its own \
                     cluster, or an empty folder",
                    seen.state.cluster
                ),
            ));
        }
        if !seen.is_news(&self.told.borrow().mark()) {
            return Ok(());
        }
        if let Some(catalog) = &self.catalog {
            let bytes = crate::log::encode(&seen)
                .map_err(|e| Error::new(Kind::Internal, format!("the state cannot be written down: {e}")))?;
            if let Err(error) = crate::log::blocking(catalog, move |c| c.raft_put(SEEN, &bytes)).await {
                // It is known all the same; a restart asks the voters.
                tracing::warn!(%error, "what is agreed is not noted in the catalog");
            }
        }
        self.told.send_if_modified(|told| {
            let changed = told.state != seen.state;
            *told = seen;
            changed
        });
        Ok(())
    }
}
