//! The ring in use: read from file or flag and watched, or learned epoch by epoch from the control plane; exchanged as a
//! whole when another one comes.
//!
//! A ring that is wrong at the start ends the start; one that is wrong later is reported and the one before it
//! stays. Peers that stay in the ring keep their queues and connections. Where the control plane rules, the file is not
//! looked at, and nothing is placed before the first epoch is known; epochs are only ever followed by later ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use agreed::{EpochNumber, View};
use arc_swap::ArcSwap;
use hashring::{Document, EndpointIndex, Rings};
use model::Kind;
use parking_lot::Mutex;
use runtime::World;

use crate::replicate::Peer;
use crate::settings::{Mode, Settings};
use crate::{Error, replicate};

/// Makes the way to a peer.
pub type Connect = Arc<dyn Fn(&str) -> Result<Arc<Peer>, Error> + Send + Sync>;

/// A ring and the ways to its endpoints.
pub struct Current {
    /// Its number; 0 where the ring is a file.
    pub epoch: EpochNumber,
    /// How often what is agreed had been brought back from a copy: numbers of a later generation count alone.
    pub generation: u32,
    /// The ring that is, or that will be.
    pub rings: Rings,
    /// Copies that make an ack in it.
    pub needed: usize,
    /// In the middle of a change: the ring that is being left.
    pub before: Option<Before>,
    /// By endpoint index of `rings`; those that are only in the ring before come after them.
    pub targets: Vec<Target>,
}

/// The ring that is being left.
pub struct Before {
    pub rings: Rings,
    pub needed: usize,
    /// Where its endpoints stand among the targets.
    pub place: Vec<EndpointIndex>,
}

/// Where an endpoint's share of a write goes.
#[derive(Clone)]
pub enum Target {
    Local,
    Peer(Arc<Peer>),
}

impl Current {
    /// Addresses of the members of the ring, or of both rings.
    pub fn members(&self) -> BTreeSet<&str> {
        let before = self.before.iter().flat_map(|before| before.rings.endpoints());
        self.rings.endpoints().iter().chain(before).map(|endpoint| endpoint.address.as_str()).collect()
    }

    /// Address of a target.
    pub fn address_of(&self, at: EndpointIndex) -> &str {
        let new = self.rings.endpoints().get(usize::from(at));
        let old = || {
            let before = self.before.as_ref()?;
            let place = before.place.iter().position(|place| *place == at)?;
            before.rings.endpoints().get(place)
        };
        new.or_else(old).map_or("", |endpoint| endpoint.address.as_str())
    }

    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.targets.iter().filter_map(|target| match target {
            Target::Local => None,
            Target::Peer(peer) => Some(peer),
        })
    }

    /// Where what is for an address goes; none where the ring has it not.
    pub fn target(&self, address: &str) -> Option<&Target> {
        self.targets.get(usize::from(self.rings.index_of(address)?))
    }
}

/// Holds the ring in use.
pub struct RingHolder {
    settings: Settings,
    world: World,
    connect: Connect,
    current: ArcSwap<Current>,
    /// The control plane says which ring it is.
    governed: AtomicBool,
    /// Text in use; a file that has not changed is not read again. One reload at a time.
    text: Mutex<String>,
}

impl RingHolder {
    /// Reads the ring for the first time. Blocks on the disk.
    pub fn open(settings: &Settings, world: &World, connect: Connect) -> Result<RingHolder, Error> {
        let text = read(settings, world)?.unwrap_or_default();
        let current = build(settings, &text, &connect, None)?;
        report(&current);
        succeeded(world);
        Ok(RingHolder {
            settings: settings.clone(),
            world: world.clone(),
            connect,
            current: ArcSwap::from_pointee(current),
            governed: AtomicBool::new(false),
            text: Mutex::new(text),
        })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// From now on the ring comes from the control plane alone.
    pub fn govern(&self) {
        self.governed.store(true, Relaxed);
    }

    pub fn is_governed(&self) -> bool {
        self.governed.load(Relaxed)
    }

    /// Whether nothing can be placed, because the control plane's ring is not known yet.
    pub fn is_unknown(&self) -> bool {
        self.is_governed() && self.current().epoch == 0
    }

    /// An epoch that was agreed on; true if it is a later one than that in use.
    pub fn learn(&self, generation: u32, number: EpochNumber, view: &View) -> Result<bool, Error> {
        let _one = self.text.lock();
        let old = self.current();
        // What was agreed after the copy that was brought back is void, whatever its number.
        if (generation, number) <= (old.generation, old.epoch) {
            return Ok(false);
        }
        let next = Current { generation, ..of_view(&self.settings, number, view, &self.connect, &old)? };
        report(&next);
        tracing::info!(
            epoch = number,
            in_change = next.before.is_some(),
            members = ?next.members(),
            "writes are placed by another ring epoch"
        );
        self.current.store(Arc::new(next));
        Ok(true)
    }

    /// Reads the ring again; true if it changed. After an error the ring before it is in use. Blocks on the disk.
    pub fn reload(&self) -> Result<bool, Error> {
        if self.is_governed() {
            return Ok(false);
        }
        let mut held = self.text.lock();
        metrics::counter!("thanos_receive_hashrings_file_refreshes_total").increment(1);
        let outcome = self.exchange(&mut held);
        match &outcome {
            Ok(_) => succeeded(&self.world),
            Err(error) => {
                metrics::counter!("thanos_receive_hashrings_file_errors_total").increment(1);
                metrics::gauge!("thanos_receive_config_last_reload_successful").set(0);
                tracing::error!(%error, "ring is not reloaded, the one before it stays in use");
            }
        }
        outcome
    }

    fn exchange(&self, held: &mut String) -> Result<bool, Error> {
        let Some(text) = read(&self.settings, &self.world)? else { return Ok(false) };
        if text == *held {
            return Ok(false);
        }
        let old = self.current();
        let next = build(&self.settings, &text, &self.connect, Some(&old))?;
        *held = text;
        metrics::counter!("thanos_receive_hashrings_file_changes_total").increment(1);
        report(&next);
        tracing::info!(
            endpoints = next.rings.endpoints().len(),
            peers = ?replicate::names(next.peers()),
            hash = format!("{:016x}", next.rings.fingerprint()),
            "ring has changed"
        );
        self.current.store(Arc::new(next));
        Ok(true)
    }
}

/// The ring's text, if this node has a ring.
pub(crate) fn read(settings: &Settings, world: &World) -> Result<Option<String>, Error> {
    let Some(path) = &settings.replication.hashrings_file else {
        return Ok(settings.replication.hashrings.clone());
    };
    let bytes = world.disk.read(path).map_err(|error| {
        let text = format!("ring file {} cannot be read: {error}", path.display());
        Error::with_source(Kind::Invalid, text, error)
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::with_source(Kind::Invalid, format!("ring file {}: {error}", path.display()), error)
    })?;
    Ok(Some(text))
}

fn build(
    settings: &Settings,
    text: &str,
    connect: &Connect,
    old: Option<&Current>,
) -> Result<Current, Error> {
    let replication = &settings.replication;
    let local = replication.local_endpoint.as_deref();
    let origin = match &replication.hashrings_file {
        Some(path) => format!("ring file {}", path.display()),
        None => "--receive.hashrings".to_owned(),
    };
    let wrong =
        |error: hashring::Error| Error::with_source(Kind::Invalid, format!("{origin}: {error}"), error);
    let document = match settings.mode() {
        Mode::IngestorOnly => Document::single(local.unwrap_or("local:0")),
        // The control plane will tell.
        Mode::RouterIngestor | Mode::RouterOnly if !settings.has_ring() => {
            Document::single(local.unwrap_or("local:0"))
        }
        Mode::RouterIngestor | Mode::RouterOnly => Document::parse(text).map_err(wrong)?,
    };
    for warning in &document.warnings {
        tracing::warn!(ring = origin, warning, "check the ring");
    }
    let copies = match settings.mode() {
        // The other copies are the routers' affair.
        Mode::IngestorOnly => 1,
        Mode::RouterIngestor | Mode::RouterOnly if !settings.has_ring() => 1,
        Mode::RouterIngestor | Mode::RouterOnly => replication.replication_factor as usize,
    };
    let rings = Rings::build(&document, copies, replication.algorithm.0).map_err(wrong)?;
    let known = peers_of(old);
    let mut targets = Vec::with_capacity(rings.endpoints().len());
    for endpoint in rings.endpoints() {
        let address = endpoint.address.as_str();
        let is_local = settings.mode() == Mode::IngestorOnly || local == Some(address);
        targets.push(match (is_local, known.get(address)) {
            (true, _) => Target::Local,
            (false, Some(peer)) => Target::Peer(Arc::clone(peer)),
            (false, None) => Target::Peer(connect(address)?),
        });
    }
    if let Some(local) = local
        && rings.index_of(local).is_none()
    {
        tracing::warn!(
            endpoint = local,
            "--receive.local-endpoint is not in the ring: this node stores only what others send to it; spell it \
             as in the ring"
        );
    }
    let needed = replication.quorum.needed(copies);
    Ok(Current { epoch: 0, generation: 0, rings, needed, before: None, targets })
}

fn peers_of(current: Option<&Current>) -> BTreeMap<String, Arc<Peer>> {
    let peers = current.into_iter().flat_map(Current::peers);
    peers.map(|peer| (peer.address().to_owned(), Arc::clone(peer))).collect()
}

/// The ring of an epoch, or both of them, with the ways to everybody in it.
fn of_view(
    settings: &Settings,
    epoch: EpochNumber,
    view: &View,
    connect: &Connect,
    old: &Current,
) -> Result<Current, Error> {
    let known = peers_of(Some(old));
    let rings = view.target().rings().clone();
    let mut addresses: Vec<&str> = rings.endpoints().iter().map(|e| e.address.as_str()).collect();
    let before = match view {
        View::Stable(_) => None,
        View::Joint { old, .. } => {
            let mut place = Vec::new();
            for endpoint in old.rings().endpoints() {
                let address = endpoint.address.as_str();
                let at = addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
                    addresses.push(address);
                    addresses.len() - 1
                });
                place.push(EndpointIndex::try_from(at).map_err(|_| {
                    Error::new(Kind::Invalid, "two rings of more than 65536 endpoints between them")
                })?);
            }
            Some(Before { rings: old.rings().clone(), needed: usize::from(old.plan().quorum), place })
        }
    };
    let local = settings.replication.local_endpoint.as_deref();
    let target = |address: &&str| match known.get(*address) {
        _ if local == Some(*address) => Ok(Target::Local),
        Some(peer) => Ok(Target::Peer(Arc::clone(peer))),
        None => connect(address).map(Target::Peer),
    };
    let targets = addresses.iter().map(target).collect::<Result<Vec<_>, Error>>()?;
    let needed = usize::from(view.target().plan().quorum);
    Ok(Current { epoch, generation: 0, needed, rings, before, targets })
}

fn report(current: &Current) {
    // As Thanos does, the hash is shown as a number that a gauge can hold.
    metrics::gauge!("thanos_receive_config_hash").set((current.rings.fingerprint() >> 16) as f64);
    for ring in current.rings.rings() {
        metrics::gauge!("thanos_receive_hashring_nodes", "name" => ring.name().to_owned())
            .set(ring.len() as f64);
    }
    metrics::gauge!("thanos_receive_replication_factor").set(current.rings.replication_factor() as f64);
    metrics::gauge!("tributary_ring_epoch").set(current.epoch as f64);
    metrics::gauge!("tributary_ring_in_change").set(f64::from(u8::from(current.before.is_some())));
}

pub(crate) fn succeeded(world: &World) {
    metrics::gauge!("thanos_receive_config_last_reload_successful").set(1);
    metrics::gauge!("thanos_receive_config_last_reload_success_timestamp_seconds")
        .set(world.clock.now_ms() as f64 / 1e3);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use rpc::WriteCall;
    use storage::Verdict;

    use super::*;
    use crate::replicate::{PeerLimits, Remote};

    struct Nobody;

    impl Remote for Nobody {
        fn write(&self, _: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
            async { Err(storage::Error::new(Kind::Unavailable, "nobody")) }.boxed()
        }
    }

    fn connect() -> Connect {
        let second = Duration::from_secs(1);
        let rules = crate::breaker::Rules { slow: second, first_pause: second, max_pause: second };
        let limits = PeerLimits { workers: 1, queue_bytes: 1 << 20, deadline: second, rules };
        let chance = World::real().chance;
        Arc::new(move |address: &str| Ok(Peer::start(address, Arc::new(Nobody), limits, Arc::clone(&chance))))
    }

    fn settings(path: &Path, copies: u32) -> Settings {
        let mut settings = Settings::default();
        settings.replication.hashrings_file = Some(path.to_owned());
        settings.replication.local_endpoint = Some("a:1".to_owned());
        settings.replication.replication_factor = copies;
        settings
    }

    #[tokio::test]
    async fn a_good_ring_replaces_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let path = dir.path().join("ring.json");
        let put = |text: &str| world.disk.write_atomic(&path, text.as_bytes()).unwrap();
        put(r#"[{"endpoints": ["a:1", "b:1"]}]"#);
        let holder = RingHolder::open(&settings(&path, 2), &world, connect()).unwrap();
        let before = holder.current();
        assert!(matches!(before.targets[..], [Target::Local, Target::Peer(_)]));
        assert!(!holder.reload().unwrap());
        put("[\n{\"endpoints\": [\"a:1\"\n}]");
        let error = holder.reload().unwrap_err();
        assert!(error.message.contains("ring.json: line 3"), "{error}");
        assert!(Arc::ptr_eq(&before, &holder.current()));
        put(r#"[{"endpoints": ["a:1"]}]"#);
        assert!(holder.reload().unwrap_err().message.contains("cannot hold 2 copies"));
        put(r#"[{"endpoints": ["c:1", "a:1", "b:1"]}]"#);
        assert!(holder.reload().unwrap());
        let after = holder.current();
        let (Target::Peer(kept), Target::Peer(again)) = (&before.targets[1], &after.targets[2]) else {
            panic!("b:1 is a peer in both");
        };
        assert!(Arc::ptr_eq(kept, again), "a peer that stays keeps its queue");
    }

    #[tokio::test]
    async fn a_ring_broken_at_the_start_ends_it_with_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let path = dir.path().join("ring.json");
        let missing = RingHolder::open(&settings(&path, 1), &world, connect()).err().unwrap();
        assert!(missing.message.contains("cannot be read"), "{missing}");
        world.disk.write_atomic(&path, b"[\n{\"endpoints\": []}]").unwrap();
        let broken = RingHolder::open(&settings(&path, 1), &world, connect()).err().unwrap();
        assert!(
            broken.message.contains("line 2") && broken.message.contains("endpoints is empty"),
            "{broken}"
        );
    }

    fn view(old: Option<&str>, new: &str) -> View {
        let placed = |members: &str| {
            let text = format!(r#"[{{"endpoints": [{members}]}}]"#);
            let plan = agreed::RingPlan { text, replication: 2, quorum: 2, hashmod: false };
            agreed::Placed::try_from(plan).unwrap()
        };
        match old {
            None => View::Stable(placed(new)),
            Some(old) => View::Joint { old: placed(old), new: placed(new) },
        }
    }

    #[tokio::test]
    async fn epochs_are_followed_forwards_and_the_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let path = dir.path().join("ring.json");
        let put = |text: &str| world.disk.write_atomic(&path, text.as_bytes()).unwrap();
        put(r#"[{"endpoints": ["a:1", "b:1"]}]"#);
        let holder = RingHolder::open(&settings(&path, 2), &world, connect()).unwrap();
        holder.govern();
        assert!(holder.is_unknown());
        let joint = view(Some(r#""b:1", "c:1", "a:1""#), r#""a:1", "b:1", "d:1""#);
        assert!(holder.learn(0, 4, &joint).unwrap());
        let current = holder.current();
        assert!(!holder.is_unknown());
        assert_eq!(current.members().into_iter().collect::<Vec<_>>(), ["a:1", "b:1", "c:1", "d:1"]);
        assert_eq!(current.before.as_ref().unwrap().place, [1, 3, 0]);
        let addresses = |current: &Current| -> Vec<String> {
            let address = |target: &Target| match target {
                Target::Local => "here".to_owned(),
                Target::Peer(peer) => peer.address().to_owned(),
            };
            current.targets.iter().map(address).collect()
        };
        assert_eq!(addresses(&current), ["here", "b:1", "d:1", "c:1"]);
        put(r#"[{"endpoints": ["a:1"]}]"#);
        assert!(!holder.reload().unwrap());
        // What is told late changes nothing.
        assert!(!holder.learn(0, 3, &view(None, r#""a:1", "c:1""#)).unwrap());
        assert!(holder.learn(0, 5, &view(None, r#""a:1", "b:1", "d:1""#)).unwrap());
        let after = holder.current();
        assert_eq!((after.epoch, after.needed, after.before.is_none()), (5, 2, true));
        let (Target::Peer(kept), Target::Peer(again)) = (&current.targets[2], &after.targets[2]) else {
            panic!("d:1 is a peer in both");
        };
        assert!(Arc::ptr_eq(kept, again));
        // From a copy that was brought back on, its numbers count.
        assert!(holder.learn(1, 4, &view(None, r#""a:1", "c:1""#)).unwrap());
        assert_eq!(holder.current().members().into_iter().collect::<Vec<_>>(), ["a:1", "c:1"]);
        assert!(!holder.learn(0, 9, &joint).unwrap());
        assert!(holder.learn(1, 5, &joint).unwrap());
    }
}
