//! The receiver: takes remote writes, places them on the ring, keeps copies, cuts blocks and ships them.
//!
//! A write comes in at `http`, is admitted, decoded and placed, goes to its replicas at once (this node and
//! peers), and is answered when the quorum has settled every sample; `status` alone decides with what. Peers
//! write through `grpc`; queriers read through `store`. The engine below knows neither ring nor peers.
//!
//! [`Receive`] is the role without listeners, so that `standalone` can put it behind its own; [`serve`] is the
//! subcommand, with Thanos's three listeners.

mod admin;
mod admit;
mod apart;
mod breaker;
mod decode;
mod divide;
mod doors;
mod epochs;
mod exemplars;
mod figures;
mod grpc;
mod ha;
mod heads;
mod hints;
mod http;
mod incarnation;
mod lacking;
mod lifecycle;
mod limits;
mod listen;
mod local;
mod memory;
mod metadata;
mod open;
mod origin;
mod otlp;
mod parts;
mod peers;
mod pending;
mod plane;
#[cfg(any(test, feature = "proof"))]
pub mod proof;
mod quorum;
mod rate;
mod replicate;
mod resolve;
mod resolve_v2;
mod ring;
mod ring_file;
mod rounds;
mod route;
mod series;
mod settings;
mod shares;
mod ship;
#[cfg(feature = "simulation")]
pub mod simulated;
mod status;
mod store;
mod tally;
mod thanos;
mod watch;
mod way;
mod work;
mod write;

pub use limits::check as check_limits;
pub use listen::{Bound, serve};
pub use model::Error;
pub use plane::Plane;
pub use settings::{
    Admission, AlgorithmName, Draining, DurabilityName, HaPairs, Mode, Otlp, QuorumName, Relabel,
    Replication, Settings, Storage, Tenancy,
};
pub use thanos::WithoutEffect;

use std::sync::Arc;

use api::Readiness;
use bucket::Bucket;
use model::{Kind, Labels};
use runtime::{Pool, Shutdown, Turns, World};
use secure::ClientTls;

use crate::admit::Admission as Admit;
use crate::epochs::drain::Drain;
use crate::epochs::gate::Promise;
use crate::epochs::member::Governed;
use crate::epochs::readers::Readers;
use crate::grpc::PeerDoor;
use crate::ha::Ha;
use crate::hints::Hints;
use crate::http::WriteDoor;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::local::Local;
use crate::metadata::MetadataDoor;
use crate::peers::Peers;
use crate::ring::{Connect, RingHolder};
use crate::ship::Ship;
use crate::store::StoreDoor;
use crate::write::Writer;

/// Paths of every door of the role, for listeners that help those who missed one.
pub const PATHS: [&str; 8] = [
    "/api/v1/receive",
    "/api/v1/write",
    "/api/v1/push",
    "/api/v1/otlp",
    "/api/v1/otlp/v1/metrics",
    "/-/cut",
    "/-/reload",
    "/-/drained",
];

/// A receiver without listeners.
pub struct Receive {
    settings: Settings,
    world: World,
    readiness: Readiness,
    labels: Labels,
    writer: Arc<Writer>,
    write_door: Arc<WriteDoor>,
    peer_door: Arc<PeerDoor>,
    store_door: Arc<StoreDoor>,
    lifecycle: Arc<Lifecycle>,
    ship: Arc<Ship>,
    metadata: Arc<MetadataDoor>,
    peers: Arc<Peers>,
    limits: Arc<Limits>,
    hints: Arc<Hints>,
    ha: Arc<Ha>,
    governed: Arc<Governed>,
    drain: Arc<Drain>,
    /// See [`Outside`].
    machine: bool,
    plane: Option<Arc<Plane>>,
}

/// What a receiver meets outside of itself.
struct Outside {
    ways: Connect,
    bucket: Option<Bucket>,
    readers: Readers,
    /// Whether a machine is below: a disk for the catalog, memory that is measured, and peers who say over gRPC who they
    /// are. A simulation has none of it.
    machine: bool,
}

impl Receive {
    /// Reads ring and bucket settings and makes the parts; opens no data yet. Within a tokio runtime. The
    /// doors may be opened at once: until the log has been replayed they answer 503, or pass on what enough others take.
    pub fn build(settings: Settings, world: World, readiness: Readiness) -> Result<Receive, Error> {
        Receive::build_in(settings, world, readiness, |settings, world, tls| {
            let readers = Readers::new(settings, world, tls.clone())?;
            let ways = way::grpc(settings, world, tls);
            Ok(Outside { ways, bucket: parts::bucket(settings, world)?, readers, machine: true })
        })
    }

    fn build_in(
        settings: Settings,
        world: World,
        readiness: Readiness,
        outside: impl FnOnce(&Settings, &World, Option<ClientTls>) -> Result<Outside, Error>,
    ) -> Result<Receive, Error> {
        ::settings::Load::check(&settings).map_err(|text| Error::new(Kind::Invalid, text))?;
        let labels = settings.external_labels().map_err(|text| Error::new(Kind::Invalid, text))?;
        for (flag, why) in settings.without_effect.given() {
            tracing::warn!(flag, why, "flag has no effect here");
        }
        let threads = world.threads.cores();
        let pool = |name| {
            // One more than there are threads, so that none waits for the next job to be woken.
            let turns = Turns::new(threads + 1);
            Pool::on(&world.threads, name, threads, 1024)
                .map(|pool| (pool, turns))
                .map_err(|e| Error::with_source(Kind::Internal, format!("threads cannot be started: {e}"), e))
        };
        let stores = settings.mode().stores();
        let hints = Hints::new(&world, settings.hints(stores));
        let tls = settings.tls.towards_peers(&world)?;
        let Outside { ways, bucket, readers, machine } = outside(&settings, &world, tls.clone())?;
        let ring = RingHolder::open(&settings, &world, ways)?;
        let limits = Arc::new(Limits::open(&settings, &world)?);
        let local = Arc::new(Local::new(pool("append")?));
        let writer = Arc::new(Writer::new(&settings, ring, local, Arc::clone(&hints)));
        let admission = Admit::new(&settings.admission);
        let ha = Arc::new(parts::pairs(&settings, &world));
        let rules = parts::relabelling(&settings, &world)?;
        let most = settings.storage.max_metadata_per_tenant;
        let metadata = Arc::new(MetadataDoor::new(Arc::clone(&writer), &world, most));
        let write_door = WriteDoor::new(
            &settings,
            &world,
            Arc::clone(&writer),
            Arc::clone(&metadata),
            admission.clone(),
            pool("decode")?,
            &limits,
            rules,
            parts::credentials(&settings, &world)?,
            Arc::clone(&ha),
        );
        let peer_door = PeerDoor {
            writer: Arc::clone(&writer),
            admission,
            world: world.clone(),
            metadata: Arc::clone(&metadata),
            // What is relabelled at the one door is as it is at the other.
            identities: match write_door.rules.is_empty() {
                true => Arc::clone(&write_door.identities),
                false => Arc::new(identity::Identities::new(identity::Settings::default(), &*world.chance)),
            },
            ha: Arc::clone(&ha),
        };
        let store_door = StoreDoor::new(&settings, labels.clone(), Arc::clone(&writer));
        let peers = Arc::new(Peers::new(&settings, &world, labels.clone(), tls));
        let ship = Arc::new(Ship::new(&world, bucket, Arc::clone(&peers))?);
        let drain = Arc::new(Drain::new(Arc::clone(&ship), readers));
        let governed = Arc::new(Governed::default());
        let allowed = settings.common.enable_lifecycle || settings.common.http_address.is_loopback();
        let lifecycle = Lifecycle {
            writer: Arc::clone(&writer),
            ship: Arc::clone(&ship),
            limits: Arc::clone(&limits),
            governed: Arc::clone(&governed),
            address: settings.replication.local_endpoint.clone().unwrap_or_default(),
            grace: settings.drain.grace.as_duration(),
            world: world.clone(),
            allowed,
        };
        tracing::info!(
            mode = settings.mode().as_str(),
            replication_factor = settings.replication.replication_factor,
            quorum = writer.copies().1,
            labels = %labels,
            bucket = ship.has_bucket(),
            "receiver is built"
        );
        Ok(Receive {
            settings,
            world,
            readiness,
            labels,
            writer,
            write_door: Arc::new(write_door),
            peer_door: Arc::new(peer_door),
            store_door: Arc::new(store_door),
            lifecycle: Arc::new(lifecycle),
            ship,
            metadata,
            peers,
            limits,
            hints,
            ha,
            machine,
            governed,
            drain,
            plane: None,
        })
    }

    /// With a part in the control plane, which is opened before.
    pub fn with_plane(mut self, plane: Option<Plane>) -> Receive {
        if let Some(plane) = &plane {
            self.elect_by(plane.handle.clone());
        }
        self.plane = plane.map(Arc::new);
        self
    }

    /// The node's part in the control plane, if there is one.
    pub fn plane(&self) -> Option<&Arc<Plane>> {
        self.plane.as_ref()
    }

    /// From now on elections of HA pairs are agreed on with the other nodes; before [`Receive::run`].
    pub fn elect_by(&self, control: control::Handle) {
        self.ha.agree_by(control);
    }

    /// From now on the ring is what the nodes agree on, epoch by epoch, and a ring file is not followed. Before
    /// [`Receive::run`].
    pub fn govern(&self, handle: control::Handle) {
        self.writer.ring().govern();
        self.writer.local().gate().raise(Promise::Unplaced);
        self.governed.set(handle);
    }

    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replays the log, becomes ready, and does all the work behind the doors until `stop`. Trigger `stop` when
    /// the doors are closed: copies to peers are then finished, and the log is ended in good order. The head is
    /// not flushed. An error is a reason to end the process.
    pub async fn run(&self, stop: Shutdown) -> Result<(), Error> {
        let (agreeing, mut strange) = self.agree();
        let ended = tokio::select! {
            ended = self.run_parts(stop) => ended,
            Ok(error) = &mut strange => Err(error),
        };
        agreeing.abort();
        ended
    }

    /// Takes part in the control plane, if there is one, from before the log is replayed on. What comes is an error
    /// that ends the process.
    fn agree(&self) -> (tokio::task::JoinHandle<()>, tokio::sync::oneshot::Receiver<Error>) {
        let (tell, strange) = tokio::sync::oneshot::channel();
        let plane = self.plane.clone();
        let agreeing = tokio::spawn(async move {
            if let Some(plane) = plane
                && let Err(error) = plane.handle.run().await
            {
                // Nobody listens any more where the process ends anyhow.
                let _ = tell.send(error);
            }
            std::future::pending().await
        });
        (agreeing, strange)
    }

    async fn run_parts(&self, stop: Shutdown) -> Result<(), Error> {
        let engine = match self.settings.mode().stores() {
            false => {
                self.open_router().await?;
                None
            }
            true => {
                let opened = tokio::select! {
                    biased;
                    opened = self.open_engine() => opened.map(Some),
                    // A replay cannot be interrupted, and needs not be: it writes nothing that matters.
                    () = stop.wait() => Ok(None),
                };
                match opened {
                    Ok(Some(engine)) => Some(engine),
                    // What came meanwhile is kept.
                    ended => return self.close(None).await.and(ended.map(drop)),
                }
            }
        };
        if let Some(handle) = self.governed.handle() {
            epochs::follow::take(&handle.now().state, &self.writer, &self.world);
        }
        match engine.is_none() && self.writer.ring().is_unknown() {
            false => self.readiness.set_ready(),
            // Whoever waits for a router to be ready is to have no write refused. A receiver answers reads meanwhile, and
            // takes what others send.
            true => self.readiness.set_not_ready("the control plane has not been heard since the start"),
        }
        let ended = self.work(engine.clone(), stop).await;
        let closed = self.close(engine).await;
        ended.and(closed)
    }
}
