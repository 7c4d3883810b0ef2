//! Who may have data: every configured endpoint with what it last said of itself.
//!
//! A loop reads the files, looks names up and asks each endpoint's Info; queries take the list as it is at that
//! moment. An endpoint that stops answering keeps its last known self: a receiver that is away is a missing
//! receiver, not an unknown. The list knows nothing of queries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use control::Seen;
use model::{Labels, Timestamp};
use parking_lot::{Mutex, RwLock};
use rpc::{ClientOptions, PeerInfo, StoreClient, component};
use runtime::{Shutdown, World};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::complete::Seat;
use crate::resolve::Resolve;
use crate::roster::{self, Roster};
use crate::targets::{Target, Wanted};

/// One endpoint.
pub struct Endpoint {
    pub address: String,
    pub client: StoreClient,
    state: RwLock<State>,
    polling: AtomicBool,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What it said last, however long ago.
    pub info: Option<PeerInfo>,
    /// Why it did not answer the last time it was asked; none if it did.
    pub error: Option<String>,
    pub checked_ms: Option<Timestamp>,
    pub answered_ms: Option<Timestamp>,
    /// When it was found to have begun anew with an empty log: what was acknowledged before is not there.
    pub reborn_ms: Option<Timestamp>,
    pub strict: bool,
    /// False once its name no longer leads to this address.
    pub listed: bool,
    /// What led to this address last.
    pub sources: BTreeSet<Target>,
    /// While it never answered: it is a receiver by the word of others, who name it as a member of their ring;
    /// the smallest W among them.
    pub vouched: Option<u32>,
}

impl State {
    /// What it is to an answer.
    pub fn seat(&self) -> Seat {
        let Some(info) = &self.info else {
            return self.vouched.map_or(Seat::Unknown, |write_quorum| Seat::Receiver { write_quorum });
        };
        match write_quorum(info) {
            Some(write_quorum) => Seat::Receiver { write_quorum },
            _ if self.strict || info.component == component::STORE => Seat::Store,
            _ => Seat::Leaf,
        }
    }

    /// Why it cannot be asked now, if so.
    pub fn missing(&self) -> Option<String> {
        if !self.listed {
            return Some(
                "its name no longer leads to this address; restart the querier once it has been retired"
                    .to_owned(),
            );
        }
        match (&self.error, &self.info) {
            (Some(error), _) => Some(error.clone()),
            (None, None) => Some("it has not been asked yet".to_owned()),
            (None, Some(info)) => {
                let not_ready = info.node.as_ref().is_some_and(|node| !node.ready)
                    || (info.store.is_none() && info.node.is_none());
                not_ready.then(|| "it is not ready yet".to_owned())
            }
        }
    }

    /// Labels that tell this node's copies from its peers'.
    pub fn own_replica_labels(&self) -> &[String] {
        match self.info.as_ref().and_then(|info| info.node.as_ref()) {
            Some(node) => &node.own_replica_labels,
            None => &[],
        }
    }
}

impl Endpoint {
    pub fn state(&self) -> State {
        self.state.read().clone()
    }

    async fn poll(&self, timeout: Duration, world: &World) {
        if self.polling.swap(true, SeqCst) {
            return;
        }
        let answer = tokio::time::timeout(timeout, self.client.info()).await;
        let now = world.clock.now_ms();
        let mut state = self.state.write();
        state.checked_ms = Some(now);
        let error = match answer {
            Ok(Ok(info)) => {
                if state.info.as_ref().is_some_and(|before| lost_its_log(before, &info)) {
                    tracing::error!(
                        endpoint = %self.address,
                        "receiver has begun anew with an empty log: it does not count for what was acknowledged \
                         before; restart the querier once its copies are not needed any more"
                    );
                    state.reborn_ms = Some(now);
                }
                let known = state.info.take();
                state.info = Some(remembering(info, known));
                state.answered_ms = Some(now);
                None
            }
            Ok(Err(error)) => Some(error.message),
            Err(_) => Some(format!("no answer to Info within {timeout:?}")),
        };
        match (&state.error, &error) {
            (None, Some(why)) => tracing::warn!(endpoint = %self.address, why, "endpoint is away"),
            (Some(_), None) => tracing::info!(endpoint = %self.address, "endpoint answers"),
            _ => {}
        }
        state.error = error;
        drop(state);
        self.polling.store(false, SeqCst);
    }
}

/// How the list is kept.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    pub info_timeout: Duration,
    pub dns_interval: Duration,
    pub files_interval: Duration,
    pub response_timeout: Option<Duration>,
    pub unhealthy_timeout: Duration,
    /// How long a silent endpoint is waited for while the others have a complete answer; zero means until it
    /// answers or fails.
    pub straggler_delay: Duration,
    pub tls: Option<secure::ClientTls>,
}

/// All endpoints. Queries read [`Endpoints::list`]; [`Endpoints::run`] keeps it.
pub struct Endpoints {
    list: ArcSwap<Vec<Arc<Endpoint>>>,
    options: EndpointOptions,
    world: World,
    resolver: Arc<dyn Resolve>,
    /// What is configured, and what each target led to last.
    targets: Mutex<BTreeMap<Wanted, BTreeSet<String>>>,
    gauges: Mutex<BTreeSet<(String, String)>>,
    /// What is agreed on, where the receivers' ring is.
    agreed: OnceLock<(watch::Receiver<Seen>, Handle)>,
}

impl Endpoints {
    pub fn new(options: EndpointOptions, resolver: Arc<dyn Resolve>, world: World) -> Arc<Endpoints> {
        Arc::new(Endpoints {
            list: ArcSwap::default(),
            options,
            world,
            resolver,
            targets: Mutex::default(),
            gauges: Mutex::default(),
            agreed: OnceLock::new(),
        })
    }

    /// From now on whom a read has to ask is what the receivers have agreed on; they are endpoints by that alone. Within a
    /// tokio runtime.
    pub fn govern(&self, seen: watch::Receiver<Seen>) {
        self.agreed.get_or_init(|| (seen, Handle::current()));
    }

    fn agreed(&self) -> Option<Arc<agreed::State>> {
        self.agreed.get().map(|(seen, _)| Arc::clone(&seen.borrow().state))
    }

    /// What the endpoints of a list are to the agreed ring. An error where that is not known yet.
    pub fn roster(&self, list: &[Arc<Endpoint>]) -> Result<Roster, storage::Error> {
        let agreed = self.agreed();
        if agreed.as_ref().is_some_and(|agreed| agreed.current().is_none()) {
            let text = "whom to ask is not known yet: the control plane has not been heard since the start";
            return Err(storage::Error::new(model::Kind::Unavailable, text));
        }
        Ok(Roster::new(agreed, list))
    }

    /// Whether the ring is changing, or has changed a moment ago, or has without this querier.
    pub fn in_change(&self, roster: &Roster) -> bool {
        let Some(agreed) = &roster.agreed else { return false };
        let Some(current) = agreed.current() else { return false };
        let recent = self.world.clock.now_ms().saturating_sub(current.since) < RECENT_MS;
        agreed.pending.is_some()
            || matches!(current.view, agreed::View::Joint { .. })
            || roster.is_behind()
            || recent
    }

    /// Waits for a moment, less where something new was agreed on. Not on a thread of the runtime.
    pub fn wait_for_news(&self, limit: Duration) {
        let Some((seen, handle)) = self.agreed.get() else { return };
        let mut seen = seen.clone();
        seen.mark_unchanged();
        // Either way it is looked again.
        let _ = handle.block_on(tokio::time::timeout(limit, seen.changed()));
    }

    /// Every endpoint at this moment, by address.
    pub fn list(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.list.load_full()
    }

    pub fn options(&self) -> &EndpointOptions {
        &self.options
    }

    /// The configuration is now `wanted`; endpoints that it no longer names are forgotten at the next
    /// [`Endpoints::discover`].
    pub fn configure(&self, wanted: BTreeSet<Wanted>) {
        let mut targets = self.targets.lock();
        let mut next: BTreeMap<Wanted, BTreeSet<String>> =
            wanted.into_iter().map(|wanted| (wanted, BTreeSet::new())).collect();
        for (wanted, addresses) in &mut next {
            if let Some(known) = targets.remove(wanted) {
                *addresses = known;
            }
        }
        *targets = next;
    }

    /// Looks every name up and brings the list up to date. A name that cannot be looked up keeps its addresses.
    pub async fn discover(&self) {
        let wanted: Vec<Wanted> = self.targets.lock().keys().cloned().collect();
        for one in wanted {
            match self.resolver.resolve(one.target.clone()).await {
                Ok(addresses) => {
                    if let Some(known) = self.targets.lock().get_mut(&one) {
                        *known = addresses;
                    }
                }
                Err(error) => {
                    tracing::warn!(target_name = %one.target, error, "cannot look up endpoints; the last ones stand");
                    metrics::counter!("thanos_store_dns_failures_total").increment(1);
                }
            }
        }
        self.update();
    }

    fn update(&self) {
        let targets = self.targets.lock();
        let mut wanted: BTreeMap<&str, (bool, BTreeSet<Target>)> = BTreeMap::new();
        for (one, addresses) in targets.iter() {
            for address in addresses {
                let (strict, sources) = wanted.entry(address).or_default();
                *strict |= one.strict;
                sources.insert(one.target.clone());
            }
        }
        let owners = self.agreed().map(|agreed| roster::wanted(&agreed)).unwrap_or_default();
        for owner in &owners {
            wanted.entry(owner.as_str()).or_default();
        }
        let before = self.list();
        let mut after: Vec<Arc<Endpoint>> = Vec::with_capacity(wanted.len());
        for (address, (strict, sources)) in &wanted {
            let known = before.iter().find(|e| e.address == *address).cloned();
            let endpoint = match known {
                Some(endpoint) => endpoint,
                None => match self.connect(address) {
                    Ok(endpoint) => Arc::new(endpoint),
                    Err(error) => {
                        tracing::error!(address, %error, "cannot use endpoint");
                        continue;
                    }
                },
            };
            {
                let mut state = endpoint.state.write();
                state.strict = *strict;
                state.listed = true;
                state.sources.clone_from(sources);
            }
            after.push(endpoint);
        }
        // An orchestrator takes a pod that is not ready out of its name's addresses; a receiver's samples are
        // still needed then, for as long as the name is configured. A fixed address leaves by the operator's hand.
        let names: BTreeSet<&Target> =
            targets.keys().map(|one| &one.target).filter(|t| !matches!(t, Target::Fixed(_))).collect();
        let present: Vec<PeerInfo> = after.iter().filter_map(|e| e.state.read().info.clone()).collect();
        for endpoint in before.iter().filter(|e| !wanted.contains_key(e.address.as_str())) {
            let mut state = endpoint.state.write();
            let still_needed = matches!(state.seat(), Seat::Receiver { .. })
                && state.sources.iter().any(|source| names.contains(source))
                && state
                    .info
                    .as_ref()
                    .is_some_and(|info| !present.iter().any(|other| same_node(info, other)));
            if still_needed {
                state.listed = false;
                after.push(endpoint.clone());
            }
        }
        after.sort_by(|a, b| a.address.cmp(&b.address));
        drop(targets);
        self.list.store(Arc::new(after));
    }

    fn connect(&self, address: &str) -> Result<Endpoint, storage::Error> {
        let options = ClientOptions {
            response_timeout: self.options.response_timeout,
            tls: self.options.tls.clone(),
            ..ClientOptions::default()
        };
        let handle = tokio::runtime::Handle::current();
        let client = StoreClient::new(address, options, self.world.clone(), handle)?;
        let state = State { listed: true, ..State::default() };
        Ok(Endpoint {
            address: address.to_owned(),
            client,
            state: RwLock::new(state),
            polling: AtomicBool::new(false),
        })
    }

    /// Asks every endpoint, at once, and waits for all.
    pub async fn poll_all(self: &Arc<Self>) {
        let polls = self.list().iter().map(|endpoint| self.spawn_poll(endpoint)).collect::<Vec<_>>();
        for poll in polls {
            if let Err(error) = poll.await {
                tracing::error!(%error, "asking an endpoint ended abnormally");
            }
        }
        self.vouch();
        self.measure();
    }

    fn spawn_poll(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> tokio::task::JoinHandle<()> {
        let (this, endpoint) = (self.clone(), endpoint.clone());
        tokio::spawn(async move { endpoint.poll(this.options.info_timeout, &this.world).await })
    }

    /// Keeps the list until `shutdown`: endpoints that answer are asked at every info interval, the others every
    /// second, so that one that comes back is soon used again.
    pub async fn run(
        self: Arc<Self>,
        mut reload: impl FnMut() -> Option<BTreeSet<Wanted>>,
        shutdown: Shutdown,
    ) {
        let second = Duration::from_secs(1);
        let mut ticks = tokio::time::interval(second);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let every = |interval: Duration| interval.as_secs().max(1);
        let mut agreed = self.agreed.get().map(|(seen, _)| seen.clone());
        let (info, dns) = (every(self.options.info_timeout), every(self.options.dns_interval));
        let files = every(self.options.files_interval);
        let mut tick = 0u64;
        loop {
            tokio::select! {
                _ = ticks.tick() => tick += 1,
                () = news(&mut agreed) => {
                    self.update();
                    for endpoint in self.list().iter().filter(|one| one.state.read().checked_ms.is_none()) {
                        self.spawn_poll(endpoint);
                    }
                    continue;
                }
                () = shutdown.wait() => return,
            }
            let changed = if tick.is_multiple_of(files) { reload() } else { None };
            let is_new = changed.is_some();
            if let Some(wanted) = changed {
                self.configure(wanted);
            }
            if is_new || tick.is_multiple_of(dns) {
                self.discover().await;
            }
            for endpoint in self.list().iter() {
                let away = endpoint.state.read().missing().is_some();
                if away || tick.is_multiple_of(info) {
                    self.spawn_poll(endpoint);
                }
            }
            self.vouch();
            self.measure();
        }
    }

    /// Receivers name the members of their ring: an endpoint that never answered, but is named by one, is a
    /// receiver that is away, not an unknown.
    fn vouch(&self) {
        let list = self.list();
        let mut members: BTreeMap<String, u32> = BTreeMap::new();
        for endpoint in list.iter() {
            let state = endpoint.state.read();
            let Some((info, quorum)) = state.info.as_ref().and_then(|info| Some((info, write_quorum(info)?)))
            else {
                continue;
            };
            for address in info.node.iter().flat_map(|node| &node.ring_members) {
                let least = members.entry(address.clone()).or_insert(quorum);
                *least = quorum.min(*least);
            }
        }
        for endpoint in list.iter() {
            let vouched = members.get(&endpoint.address).copied();
            if endpoint.state.read().vouched != vouched {
                endpoint.state.write().vouched = vouched;
            }
        }
    }

    /// `thanos_store_nodes_grpc_connections` by external labels and type.
    fn measure(&self) {
        let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for endpoint in self.list().iter() {
            let state = endpoint.state.read();
            if let (Some(info), None) = (&state.info, state.missing()) {
                let mut labels: String =
                    info.label_sets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                // As Thanos: label values of metrics have an end.
                while labels.len() > 1000 {
                    labels.pop();
                }
                *counts.entry((labels, info.component.clone())).or_default() += 1;
            }
        }
        let mut known = self.gauges.lock();
        known.extend(counts.keys().cloned());
        for key in known.iter() {
            let count = counts.get(key).copied().unwrap_or(0);
            metrics::gauge!(
                "thanos_store_nodes_grpc_connections",
                "external_labels" => key.0.clone(), "store_type" => key.1.clone()
            )
            .set(f64::from(count));
        }
    }
}

/// Something new was agreed on; never where nothing is.
async fn news(agreed: &mut Option<watch::Receiver<Seen>>) {
    let Some(seen) = agreed else { return std::future::pending().await };
    if seen.changed().await.is_err() {
        *agreed = None;
    }
}

/// How long after a change of the ring what is missing may still be on its way, in milliseconds.
const RECENT_MS: i64 = 30_000;

/// W of one of our receivers that keeps copies; none of anybody else.
fn write_quorum(info: &PeerInfo) -> Option<u32> {
    let node = info.node.as_ref().filter(|node| node.replication_factor > 0)?;
    let majority = node.replication_factor / 2 + 1;
    (info.component == component::RECEIVE).then_some(if node.write_quorum > 0 {
        node.write_quorum
    } else {
        majority
    })
}

/// A node that starts does not know its log's name yet: the last one stays in mind.
fn remembering(mut info: PeerInfo, known: Option<PeerInfo>) -> PeerInfo {
    if let (Some(node), Some(before)) = (&mut info.node, known.and_then(|known| known.node))
        && node.incarnation.is_empty()
    {
        node.incarnation = before.incarnation;
    }
    info
}

/// Whether a receiver has another log than before.
fn lost_its_log(before: &PeerInfo, now: &PeerInfo) -> bool {
    let (Some(x), Some(y)) = (&before.node, &now.node) else { return false };
    !x.incarnation.is_empty() && !y.incarnation.is_empty() && x.incarnation != y.incarnation
}

/// Whether two answers come from one node that has moved: the same log, or the same name among its peers.
fn same_node(a: &PeerInfo, b: &PeerInfo) -> bool {
    let (Some(x), Some(y)) = (&a.node, &b.node) else { return false };
    if !x.incarnation.is_empty() && x.incarnation == y.incarnation {
        return true;
    }
    let name = |info: &PeerInfo, labels: &[String]| -> BTreeSet<Labels> {
        let own = |set: &Labels| set.filter(|n| labels.iter().any(|l| l == n));
        info.label_sets.iter().map(own).filter(|set| !set.is_empty()).collect()
    };
    let names = name(a, &x.own_replica_labels);
    !names.is_empty() && names == name(b, &y.own_replica_labels)
}

#[cfg(test)]
mod tests {
    use rpc::NodeInfo;

    use super::*;

    fn receiver(replica: &str, incarnation: &str) -> PeerInfo {
        let labels = Labels::from_pairs([("replica", replica), ("cluster", "c")]).unwrap();
        let node = NodeInfo {
            replication_factor: 3,
            write_quorum: 2,
            own_replica_labels: vec!["replica".into()],
            incarnation: incarnation.into(),
            ready: true,
            ..NodeInfo::default()
        };
        PeerInfo {
            component: "receive".into(),
            label_sets: vec![labels],
            store: None,
            node: Some(node),
            apis: Default::default(),
        }
    }

    #[test]
    fn a_node_is_known_by_its_log_or_its_name() {
        assert!(same_node(&receiver("a", "1"), &receiver("b", "1")));
        assert!(same_node(&receiver("a", "1"), &receiver("a", "2")));
        assert!(!same_node(&receiver("a", "1"), &receiver("b", "2")));
        assert!(!same_node(&receiver("a", ""), &receiver("b", "")));
    }

    #[test]
    fn another_log_is_noticed_through_a_restart() {
        let (before, after) = (receiver("a", "1"), receiver("a", "2"));
        assert!(lost_its_log(&before, &after));
        assert!(!lost_its_log(&before, &before));
        let starting = remembering(receiver("a", ""), Some(before.clone()));
        assert!(!lost_its_log(&before, &receiver("a", "")));
        assert!(lost_its_log(&starting, &after));
    }

    #[test]
    fn seats() {
        let mut state = State { listed: true, ..State::default() };
        assert_eq!(state.seat(), Seat::Unknown);
        assert!(state.missing().unwrap().contains("not been asked"));
        // Named by a receiver as a member of its ring, it is a receiver before it ever answers.
        state.vouched = Some(2);
        assert_eq!(state.seat(), Seat::Receiver { write_quorum: 2 });
        assert!(state.missing().is_some());
        state.vouched = None;
        state.info = Some(receiver("a", "1"));
        assert_eq!(state.seat(), Seat::Receiver { write_quorum: 2 });
        assert_eq!(state.missing(), None);
        if let Some(node) = state.info.as_mut().and_then(|i| i.node.as_mut()) {
            node.ready = false;
        }
        assert_eq!(state.missing().as_deref(), Some("it is not ready yet"));
        // A receiver of another make says nothing of copies: it is as a leaf.
        state.info = Some(PeerInfo { node: None, ..receiver("a", "1") });
        assert_eq!(state.seat(), Seat::Leaf);
        state.strict = true;
        assert_eq!(state.seat(), Seat::Store);
    }
}
