//! A voter: one of the three or five that keep the shared log.
//!
//! Voters are the same addresses on every node. The first start forms the group: once all have met and none has ever been
//! in one, the first by address calls them together. One that lost its catalog has lost its vote with it; it
//! comes back under another number and takes the place of the one that had its address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, Placed, RingPlan};
use catalog::Catalog;
use model::Kind;
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::{BasicNode, ChangeMembers, Config, Raft, Snapshot, SnapshotPolicy};
use parking_lot::RwLock;
use runtime::World;
use tokio::sync::watch;

use crate::Error;
use crate::change;
use crate::handle::newer;
use crate::log::Log;
use crate::machine::Machine;
use crate::message::{About, Hello, Mark, PROPOSE_FOR, Proposed, Refused, Request, Response, Seen};
use crate::transport::{Network, Transport};
use crate::types::{Reply, Types};

/// A leader that is not heard of for this long is replaced. Nobody's data waits for it, so a busy machine is given time.
const ELECTION_MS: (u64, u64) = (3000, 5000);
/// Also how long a voter may take for an answer, its two fdatasyncs included.
const HEARTBEAT_MS: u64 = 1000;
/// Entries after which the log is replaced by the state that it made.
const SNAPSHOT_EVERY: u64 = 512;
/// How often a voter that waits with a watcher makes sure that it would hear of something new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MEET_EVERY: Duration = Duration::from_millis(500);
/// How often a voter whose catalog could not be written tries again.
const COME_BACK_EVERY: Duration = Duration::from_secs(5);
const ID: &str = "id";
/// Written to see whether anything can be.
const PROBE: &str = "probe";

/// What a voter has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This one's, as in `voters`.
    pub address: String,
    /// All voters, this one among them.
    pub voters: Vec<String>,
    /// The ring that a new cluster starts with.
    pub plan: RingPlan,
    /// The cluster whose data this node has; empty where it has none. Voters that have lost what was agreed do not start
    /// another cluster over the data of one.
    pub cluster: String,
}

/// A running voter. Cheap to clone.
#[derive(Clone)]
pub struct Voter {
    /// Another one after each failure of the catalog.
    raft: Arc<RwLock<Raft<Types>>>,
    hello: Arc<Me>,
    transport: Arc<dyn Transport>,
    catalog: Catalog,
    told: watch::Sender<Seen>,
    seen: watch::Receiver<Seen>,
    world: World,
}

struct Me {
    id: u64,
    settings: Settings,
}

/// Takes part with what the catalog remembers.
async fn join(
    id: u64,
    catalog: &Catalog,
    told: &watch::Sender<Seen>,
    transport: &Arc<dyn Transport>,
) -> Result<Raft<Types>, Error> {
    let machine = Machine::open(catalog.clone(), told.clone())?;
    let config = Config {
        cluster_name: "tributary".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: SNAPSHOT_EVERY / 4,
        ..Config::default()
    };
    let network = Network::new(Arc::clone(transport));
    let raft = Raft::new(id, Arc::new(config), network, Log::new(catalog.clone()), machine).await;
    raft.map_err(|e| {
        Error::new(Kind::Unavailable, format!("the shared log in the catalog does not start: {e}"))
    })
}

impl Voter {
    /// Starts with what the catalog remembers. What was agreed on is there at once; taking part needs the others.
    pub async fn start(
        world: &World,
        catalog: &Catalog,
        settings: Settings,
        transport: Arc<dyn Transport>,
    ) -> Result<Voter, Error> {
        check(&settings)?;
        let id = identity(world, catalog)?;
        let (told, seen) = watch::channel(Seen::default());
        let raft = join(id, catalog, &told, &transport).await?;
        Ok(Voter {
            raft: Arc::new(RwLock::new(raft)),
            hello: Arc::new(Me { id, settings }),
            transport,
            catalog: catalog.clone(),
            told,
            seen,
            world: world.clone(),
        })
    }

    /// Meets the others until the cluster is formed and this one is of it. Ends when the voter is stopped; an error is
    /// another cluster's voters or data, with which nothing good comes of going on.
    pub async fn run(&self) -> Result<(), Error> {
        let mut told = false;
        loop {
            match self.failed() {
                None => {}
                Some(Fatal::Stopped) => return Ok(()),
                Some(failed) => {
                    self.come_back(&failed).await;
                    continue;
                }
            }
            match self.meet().await {
                Ok(true) => told = false,
                Ok(false) => {}
                Err(error) if error.kind == Kind::Refused => return Err(error),
                Err(error) if !told => {
                    tracing::warn!(%error, "this voter is not yet one of a group");
                    told = true;
                }
                Err(error) => tracing::debug!(%error, "this voter is not yet one of a group"),
            }
            tokio::time::sleep(MEET_EVERY).await;
        }
    }

    /// Why this voter takes no part any more, if that is so.
    fn failed(&self) -> Option<Fatal<u64>> {
        let metrics = self.raft().metrics();
        let said = metrics.borrow().running_state.clone().err();
        // One that broke off says nothing any more.
        said.or_else(|| metrics.has_changed().is_err().then_some(Fatal::Panicked))
    }

    /// After the catalog could not be written: takes part again once it can. What was promised to other voters before is
    /// what is in the catalog, as after a restart.
    async fn come_back(&self, failed: &Fatal<u64>) {
        tracing::error!(
            error = %failed,
            "this voter cannot keep what is agreed, and takes no part; it is tried again until its disk takes it"
        );
        loop {
            tokio::time::sleep(COME_BACK_EVERY).await;
            // What the one before had begun has ended then.
            if let Err(error) = self.raft().shutdown().await {
                tracing::debug!(%error, "the shared log that failed did not stop in order");
            }
            // A vote and an entry have to find room before anything is promised again.
            let there = crate::log::blocking(&self.catalog, |c| c.raft_put(PROBE, &[])).await;
            let joined = match there {
                Ok(()) => join(self.hello.id, &self.catalog, &self.told, &self.transport).await,
                Err(error) => Err(Error::new(Kind::Unavailable, error.to_string())),
            };
            match joined {
                Ok(raft) => {
                    *self.raft.write() = raft;
                    tracing::info!("this voter takes part again");
                    return;
                }
                Err(error) => tracing::debug!(%error, "this voter still takes no part"),
            }
        }
    }

    fn raft(&self) -> Raft<Types> {
        self.raft.read().clone()
    }

    /// What is agreed, as far as it is known here, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Address of the one that leads.
    pub fn leader(&self) -> Option<String> {
        if self.failed().is_some() {
            return None;
        }
        let metrics = self.raft().metrics().borrow().clone();
        let id = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&id).map(|n| n.addr.clone())
    }

    /// Who votes, by address, as far as it is known here.
    pub fn group(&self) -> BTreeMap<String, u64> {
        let metrics = self.raft().metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let nodes = membership.nodes().filter(|(id, _)| voters.contains(id));
        nodes.map(|(id, node)| (node.addr.clone(), *id)).collect()
    }

    pub fn id(&self) -> u64 {
        self.hello.id
    }

    /// Has a command agreed on, by way of whoever leads. A command whose answer was lost may have been taken; all are
    /// such that asking again is no harm.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let deadline = self.world.clock.monotonic() + PROPOSE_FOR;
        loop {
            let why = match self.offer(command.clone()).await {
                Proposed::Reply(reply) => return outcome(reply),
                Proposed::NotHere(None) => "no voter leads".to_owned(),
                Proposed::NotHere(Some(leader)) => {
                    match self.transport.call(&leader, Request::Propose(command.clone())).await {
                        Ok(Response::Propose(Proposed::Reply(reply))) => return outcome(reply),
                        Ok(Response::Propose(Proposed::Failed(why))) => why,
                        Ok(_) => format!("{leader} does not lead any more"),
                        Err(error) => format!("{leader} leads and does not answer: {error}"),
                    }
                }
                Proposed::Failed(why) => why,
            };
            if self.world.clock.monotonic() >= deadline {
                let message =
                    format!("the voters cannot agree just now: {why}; the data goes on as it is, try again");
                return Err(Error::new(Kind::Unavailable, message));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Answers another voter, or a watcher.
    pub async fn serve(&self, request: Request) -> Response {
        match request {
            Request::Hello(_) => Response::Hello(self.hello().await),
            Request::Join(hello) => Response::Join(self.take_in(hello).await),
            Request::Vote { to, .. } | Request::Append { to, .. } | Request::Snapshot { to, .. }
                if to != self.hello.id =>
            {
                Response::Stranger(self.hello.id)
            }
            Request::Vote { rpc, .. } => Response::Vote(self.raft().vote(rpc).await),
            Request::Append { rpc, .. } => Response::Append(self.raft().append_entries(rpc).await),
            Request::Snapshot { vote, meta, state, .. } => {
                let snapshot = Snapshot { meta, snapshot: Box::new(state.into_bytes()) };
                Response::Snapshot(self.raft().install_full_snapshot(vote, snapshot).await)
            }
            Request::Propose(command) => Response::Propose(self.offer(command).await),
            Request::Ask(command) => Response::Ask(self.propose(command).await.map_err(Refused::from)),
            Request::Watch { after } => Response::Watch(self.newer(&after).await),
            Request::About => Response::About(self.about()),
            Request::Away(addresses) => Response::Away(self.away(addresses).await),
        }
    }

    /// Those of `addresses` that do not answer this voter.
    pub async fn away(&self, addresses: Vec<String>) -> BTreeSet<String> {
        change::away(&self.transport, addresses).await
    }

    /// Stops taking part. What was agreed on stays in the catalog.
    pub async fn stop(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "the shared log did not stop in order");
        }
    }

    /// What may cost data is said in the log of whoever leads, before it is agreed on.
    fn warn_of(&self, command: &Command) {
        let leads = self.leader().as_ref() == Some(&self.hello.settings.address);
        let Command::Force { plan, lost, by, .. } = command else { return };
        let Ok(next) = Placed::try_from(plan.clone()) else { return };
        if leads {
            let words = self.seen.borrow().state.would_lose(&next, lost);
            tracing::warn!(by, ?lost, may_lose = words.join("; "), "the ring is forced");
        }
    }

    /// To this voter's own log, if it leads.
    async fn offer(&self, command: Command) -> Proposed {
        // An entry that another voter could not read must never be in the log.
        if let Err(error) = self.seen.borrow().state.admits(&command) {
            return Proposed::Reply(Err(error).into());
        }
        self.warn_of(&command);
        // A leader that has lost the others waits for them without an end.
        let Ok(written) = tokio::time::timeout(PROPOSE_FOR, self.raft().client_write(command)).await else {
            return Proposed::Failed("the other voters do not answer the one that leads".to_owned());
        };
        match written {
            Ok(response) => Proposed::Reply(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Proposed::NotHere(forward.leader_node.map(|n| n.addr))
            }
            Err(error) => Proposed::Failed(error.to_string()),
        }
    }

    /// The state once it is newer; none after a while, and soon where this voter would not hear of it.
    async fn newer(&self, after: &Mark) -> Option<Seen> {
        let deaf = async {
            tokio::time::sleep(LOOK_EVERY).await;
            while self.in_touch() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            newer = newer(self.seen.clone(), after) => newer,
            () = deaf => None,
        }
    }

    /// Whether a majority of the voters was heard of just now: by the leader itself, or by its word.
    pub fn in_touch(&self) -> bool {
        let metrics = self.raft().metrics().borrow().clone();
        match metrics.current_leader {
            _ if self.failed().is_some() => false,
            None => false,
            Some(leader) if leader != self.hello.id => true,
            Some(_) => metrics.millis_since_quorum_ack.is_some_and(|ms| ms < ELECTION_MS.1),
        }
    }

    /// What the voter knows of itself.
    pub fn about(&self) -> About {
        let seen = self.seen.borrow().clone();
        About {
            address: self.hello.settings.address.clone(),
            cluster: seen.state.cluster.clone(),
            revision: seen.revision,
            epoch: seen.state.current().map_or(0, |e| e.number),
            voter: true,
            in_touch: self.in_touch(),
            leader: self.leader(),
            group: self.group(),
            ..About::default()
        }
    }

    async fn hello(&self) -> Hello {
        Hello {
            address: self.hello.settings.address.clone(),
            id: self.hello.id,
            initialized: self.raft().is_initialized().await.unwrap_or(false),
            cluster: self.seen.borrow().state.cluster.clone(),
            voters: self.hello.settings.voters.iter().cloned().collect(),
        }
    }

    /// One step towards a cluster that is formed. Answers whether this voter is one of a group.
    async fn meet(&self) -> Result<bool, Error> {
        let me = self.hello().await;
        let ours = &self.hello.settings.cluster;
        if !ours.is_empty() && !me.cluster.is_empty() && *ours != me.cluster {
            return Err(strange(&me.cluster, "the voters", ours));
        }
        if me.initialized {
            self.form().await?;
            self.shed().await?;
            return Ok(true);
        }
        if let Ok(Response::Hello(there)) = self.transport.call(&me.address, Request::Hello(me.clone())).await
            && there.id != me.id
        {
            return Err(taken(&me.address));
        }
        let mut met = BTreeMap::from([(me.address.clone(), me.clone())]);
        let others = self.hello.settings.voters.iter().filter(|v| **v != me.address);
        for address in others {
            let Response::Hello(hello) = self.transport.call(address, Request::Hello(me.clone())).await?
            else {
                return Err(unlike(address));
            };
            if !ours.is_empty() && !hello.cluster.is_empty() && *ours != hello.cluster {
                return Err(strange(&hello.cluster, address, ours));
            }
            if hello.initialized {
                return self.ask_in(address, me).await.map(|()| false);
            }
            // Two groups that have a voter in common would each overwrite what the other agreed on.
            if !hello.voters.is_empty() && hello.voters != me.voters {
                return Err(unequal(address, &hello.voters, &me.voters));
            }
            met.insert(address.clone(), hello);
        }
        // With the same addresses on all, one of them is first.
        if met.keys().next() == Some(&me.address) {
            let members: BTreeMap<u64, BasicNode> =
                met.into_values().map(|hello| (hello.id, BasicNode::new(hello.address))).collect();
            tracing::info!(
                voters = members.len(),
                "all voters have met for the first time; the group is formed"
            );
            self.raft().initialize(members).await.map_err(|e| {
                Error::new(Kind::Unavailable, format!("the group of voters is not formed: {e}"))
            })?;
        }
        Ok(false)
    }

    /// The leader of a new group gives the cluster its name and its ring.
    async fn form(&self) -> Result<(), Error> {
        let leads = self.raft().metrics().borrow().current_leader == Some(self.hello.id);
        if !leads || !self.seen.borrow().state.cluster.is_empty() {
            return Ok(());
        }
        let ours = &self.hello.settings.cluster;
        if !ours.is_empty() {
            let message = format!(
                "the data folder here is of cluster {ours}, of which the voters know nothing any more; bring back a voter \
                 that does, or what was agreed, from a backup or any node that remembers it (`tributary ring restore`)"
            );
            return Err(Error::new(Kind::Unavailable, message));
        }
        let cluster = format!("{:016x}{:016x}", self.world.chance.next_u64(), self.world.chance.next_u64());
        let plan = self.hello.settings.plan.clone();
        let by = format!("the first start of {}", self.hello.settings.address);
        let time = self.world.clock.now_ms();
        let form = Command::Form { cluster: cluster.clone(), plan, by, time };
        if self.propose(form).await? == Outcome::Done {
            tracing::info!(cluster, "the cluster is formed");
        }
        Ok(())
    }

    /// Who is not to vote any more and says that it does not is no longer counted on.
    async fn shed(&self) -> Result<(), Error> {
        let metrics = self.raft().metrics().borrow().clone();
        if metrics.current_leader != Some(self.hello.id) {
            return Ok(());
        }
        let membership = metrics.membership_config.membership();
        let mut voters: BTreeSet<u64> = membership.voter_ids().collect();
        let settings = &self.hello.settings;
        let others = membership.nodes().filter(|(_, node)| !settings.voters.contains(&node.addr));
        let mut gone = Vec::new();
        for (id, node) in others.filter(|(id, _)| voters.contains(*id)) {
            let asked = self.transport.call(&node.addr, Request::Hello(self.hello().await)).await;
            if matches!(asked, Ok(Response::NoVoter)) {
                gone.push((*id, node.addr.clone()));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        voters.retain(|id| gone.iter().all(|(left, _)| left != id));
        tracing::info!(gone = ?gone, left = voters.len(), "nodes that are no voters any more leave the group");
        let change = self.raft().change_membership(ChangeMembers::ReplaceAllVoters(voters), false).await;
        change
            .map(drop)
            .map_err(|e| Error::new(Kind::Unavailable, format!("the group of voters stays as it is: {e}")))
    }

    /// Asks to be let in, at a voter that may have to ask the leader.
    async fn ask_in(&self, address: &str, me: Hello) -> Result<(), Error> {
        match self.transport.call(address, Request::Join(me)).await? {
            Response::Join(Ok(())) => Ok(()),
            Response::Join(Err(why)) => Err(Error::new(Kind::Unavailable, format!("{address}: {why}"))),
            _ => Err(unlike(address)),
        }
    }

    /// Puts a voter that came back without its catalog in the place of the one that had its address.
    async fn take_in(&self, hello: Hello) -> Result<(), String> {
        if !self.hello.settings.voters.contains(&hello.address) {
            return Err(format!(
                "{} is not one of the voters; put it into --control.voters of all",
                hello.address
            ));
        }
        let metrics = self.raft().metrics().borrow().clone();
        if metrics.current_leader != Some(self.hello.id) {
            return match self.leader() {
                None => Err("no voter leads; two of three, or three of five, have to be there".to_owned()),
                Some(leader) if leader == self.hello.settings.address => Ok(()),
                Some(leader) => match self.transport.call(&leader, Request::Join(hello)).await {
                    Ok(Response::Join(result)) => result,
                    Ok(_) => Err(format!("{leader} does not lead any more")),
                    Err(error) => Err(format!("{leader} leads and does not answer: {error}")),
                },
            };
        }
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        if voters.contains(&hello.id) {
            return Ok(());
        }
        // Whoever has the address is the voter, not whoever claims to.
        match self.transport.call(&hello.address, Request::Hello(self.hello().await)).await {
            Ok(Response::Hello(there)) if there.id == hello.id => {}
            Ok(_) => return Err(taken(&hello.address).message),
            Err(error) => {
                return Err(format!("nobody answers at {}, as which it would vote: {error}", hello.address));
            }
        }
        let node = BasicNode::new(hello.address.clone());
        let there = |id: &u64| membership.get_node(id).is_some_and(|n| n.addr == hello.address);
        let next: BTreeSet<u64> = voters.iter().copied().filter(|id| !there(id)).chain([hello.id]).collect();
        match voters.iter().any(there) {
            true => tracing::warn!(
                address = hello.address,
                id = hello.id,
                "a voter came back without its catalog; it takes its old place"
            ),
            false => tracing::info!(address = hello.address, id = hello.id, "a voter joins the group"),
        }
        let failed = |e: RaftError<u64, ClientWriteError<u64, BasicNode>>| e.to_string();
        let add = ChangeMembers::AddNodes(BTreeMap::from([(hello.id, node)]));
        self.raft().change_membership(add, true).await.map_err(failed)?;
        let replace = ChangeMembers::ReplaceAllVoters(next);
        self.raft().change_membership(replace, false).await.map_err(failed)?;
        Ok(())
    }
}

fn unlike(address: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{address} answered something else than was asked; is it a voter?"))
}

fn unequal(address: &str, theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Error {
    let words = |of: &BTreeSet<String>| of.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let message = format!(
        "{address} was started with --control.voters={}, and this node with {}; nothing is formed until all have the same",
        words(theirs),
        words(ours)
    );
    Error::new(Kind::Unavailable, message)
}

fn taken(address: &str) -> Error {
    let message = format!(
        "another node answers at {address}, which is this one's --receive.local-endpoint (or --control.address); give each \
         node an address of its own"
    );
    Error::new(Kind::Refused, message)
}

fn strange(theirs: &str, who: &str, ours: &str) -> Error {
    let message = format!(
        "the data folder here is of cluster {ours}, and {who} is of cluster {theirs}; give this node an empty folder, or \
         the voters of its own cluster"
    );
    Error::new(Kind::Refused, message)
}

fn outcome(reply: Reply) -> Result<Outcome, Error> {
    match reply {
        Reply::Taken(outcome) => Ok(outcome),
        Reply::Refused { refusal, message } => Err(Error::new(refusal.kind(), message)),
        Reply::Nothing => Err(Error::new(Kind::Internal, "the shared log answered for an entry of its own")),
    }
}

fn check(settings: &Settings) -> Result<(), Error> {
    let voters: BTreeSet<&str> = settings.voters.iter().map(String::as_str).collect();
    let refused = |message: String| Err(Error::new(Kind::Invalid, message));
    if voters.len() != settings.voters.len() {
        return refused("--control.voters names an address twice".to_owned());
    }
    if ![1, 3, 5].contains(&voters.len()) {
        return refused(format!(
            "--control.voters has {} addresses; it takes one, three or five",
            voters.len()
        ));
    }
    if !voters.contains(settings.address.as_str()) {
        return refused(format!("{} is not one of --control.voters and cannot vote", settings.address));
    }
    agreed::Placed::try_from(settings.plan.clone())
        .map(|_| ())
        .map_err(|e| Error::new(e.kind, format!("the ring to start with: {e}")))
}

/// This voter's number: drawn once, gone with the catalog.
fn identity(world: &World, catalog: &Catalog) -> Result<u64, Error> {
    if let Some(bytes) = catalog.raft_get(ID)? {
        let id = bytes.as_slice().try_into().map(u64::from_be_bytes);
        return id
            .map_err(|_| Error::new(Kind::Corrupt, "the catalog's number of this voter cannot be read"));
    }
    let id = world.chance.next_u64().max(1);
    catalog.raft_put(ID, &id.to_be_bytes())?;
    Ok(id)
}
