//! The ring in use: read from file or flag, watched, and exchanged as a whole when a good one comes.
//!
//! A ring that is wrong at the start ends the start; one that is wrong later is reported and the one before it
//! stays. Peers that stay in the ring keep their queues and connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashring::{Document, Rings};
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
    pub rings: Rings,
    /// By endpoint index.
    pub targets: Vec<Target>,
}

/// Where an endpoint's share of a write goes.
#[derive(Clone)]
pub enum Target {
    Local,
    Peer(Arc<Peer>),
}

impl Current {
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
            text: Mutex::new(text),
        })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Reads the ring again; true if it changed. After an error the ring before it is in use. Blocks on the disk.
    pub fn reload(&self) -> Result<bool, Error> {
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
        Mode::RouterIngestor | Mode::RouterOnly => Document::parse(text).map_err(wrong)?,
    };
    for warning in &document.warnings {
        tracing::warn!(ring = origin, warning, "check the ring");
    }
    let copies = match settings.mode() {
        // The other copies are the routers' affair.
        Mode::IngestorOnly => 1,
        Mode::RouterIngestor | Mode::RouterOnly => replication.replication_factor as usize,
    };
    let rings = Rings::build(&document, copies, replication.algorithm.0).map_err(wrong)?;
    let known: BTreeMap<&str, &Arc<Peer>> =
        old.iter().flat_map(|old| old.peers()).map(|peer| (peer.address(), peer)).collect();
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
    Ok(Current { rings, targets })
}

fn report(current: &Current) {
    // As Thanos does, the hash is shown as a number that a gauge can hold.
    metrics::gauge!("thanos_receive_config_hash").set((current.rings.fingerprint() >> 16) as f64);
    for ring in current.rings.rings() {
        metrics::gauge!("thanos_receive_hashring_nodes", "name" => ring.name().to_owned())
            .set(ring.len() as f64);
    }
    metrics::gauge!("thanos_receive_replication_factor").set(current.rings.replication_factor() as f64);
}

fn succeeded(world: &World) {
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
        Arc::new(move |address: &str| {
            Ok(Peer::start(address, Arc::new(Nobody), limits, Arc::clone(&chance), None))
        })
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
}
