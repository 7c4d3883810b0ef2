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
mod breaker;
mod decode;
mod divide;
mod epochs;
mod error;
mod exemplars;
mod figures;
mod grpc;
mod ha;
mod heads;
mod hints;
mod http;
mod lacking;
mod lifecycle;
mod limits;
mod listen;
mod local;
mod memory;
mod metadata;
mod origin;
mod otlp;
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
mod route;
mod settings;
mod shares;
mod ship;
#[cfg(feature = "simulation")]
pub mod simulated;
mod status;
mod store;
mod thanos;
mod watch;
mod write;

pub use error::Error;
pub use limits::check as check_limits;
pub use listen::{Bound, serve};
pub use plane::Plane;
pub use settings::{
    Admission, AlgorithmName, Draining, DurabilityName, HaPairs, Mode, Otlp, QuorumName, Relabel,
    Replication, Settings, Storage, Tenancy,
};
pub use thanos::WithoutEffect;

use std::sync::Arc;
use std::time::Duration;

use ::settings::PathOrContent;
use api::{Heads, Readiness};
use axum::Router;
use bucket::Bucket;
use catalog::Catalog;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Kind, Labels, MetricMetadata, TenantId};
use rpc::facts::{Exemplars, Statistics};
use rpc::{
    ClientOptions, FactServer, StoreBackend, WriteBackend, WriteCall, WriteClient, WriteClientOptions,
};
use runtime::{Pool, Shutdown, TaskGroup, Turns, World};
use secure::{ClientTls, Credentials};
use storage::{Budget, MetadataSource, Verdict};
use tsdb::Tsdb;
use wire::pb::tributary::v1::PairSighting;

use crate::admin::OwnAdmin;
use crate::admit::Admission as Admit;
use crate::breaker::Rules;
use crate::epochs::drain::Drain;
use crate::epochs::gate::Promise;
use crate::epochs::member::{Governed, Kept, Member};
use crate::epochs::readers::Readers;
use crate::exemplars::OwnExemplars;
use crate::grpc::PeerDoor;
use crate::ha::Ha;
use crate::heads::OwnHead;
use crate::hints::Hints;
use crate::http::WriteDoor;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::local::Local;
use crate::metadata::MetadataDoor;
use crate::peers::Peers;
use crate::replicate::{Peer, PeerLimits, Remote};
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
            let ways = connect(settings, world, tls);
            Ok(Outside { ways, bucket: bucket(settings, world)?, readers, machine: true })
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
        let ha = Arc::new(pairs(&settings, &world));
        let rules = relabelling(&settings, &world)?;
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
            credentials(&settings, &world)?,
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

    /// `POST` of remote write at its three paths, and the answer for OTLP.
    pub fn write_router(&self) -> Router {
        http::router(Arc::clone(&self.write_door))
    }

    /// `POST /-/cut`, `POST /-/reload`, `GET /-/drained`.
    pub fn lifecycle_router(&self) -> Router {
        lifecycle::router(Arc::clone(&self.lifecycle))
    }

    /// The admin calls, where the settings allow them.
    pub fn admin_router(&self, tenant_headers: Vec<String>) -> Router {
        let tenancy = &self.settings.tenancy;
        let admin = OwnAdmin {
            writer: Arc::clone(&self.writer),
            ship: Arc::clone(&self.ship),
            tenant_label: tenancy.label.clone(),
        };
        api::admin_router(api::AdminPage {
            admin: Arc::new(admin),
            enabled: self.settings.enable_admin_api,
            tenant_headers,
            default_tenant: tenancy.default_id.clone(),
        })
    }

    /// Blocks beyond the retention stay here until `visible` says that they can be read from the bucket in this
    /// process, so that no query meets a gap.
    pub fn keep_until(&self, visible: Arc<dyn Fn(block::BlockId) -> bool + Send + Sync>) {
        self.ship.keep_until(visible);
    }

    /// What this node has, for the StoreAPI and for queries in the same process.
    pub fn store_backend(&self) -> Arc<dyn StoreBackend> {
        self.store_door.clone()
    }

    /// Takes writes of peers.
    pub fn write_backend(&self) -> Arc<dyn WriteBackend> {
        self.peer_door.clone()
    }

    /// Figures about the head, for the status page.
    pub fn heads(&self) -> Arc<dyn Heads> {
        Arc::new(OwnHead(Arc::clone(&self.writer)))
    }

    /// Exemplars of the head for queriers; a router has none.
    pub fn exemplars(&self) -> FactServer<Exemplars> {
        let own = Arc::new(OwnExemplars(self.store_door.clone()));
        FactServer::new(own, Budget::unlimited(), self.world.clone())
    }

    /// Figures of the head for queriers; a router has none.
    pub fn statistics(&self) -> FactServer<Statistics> {
        let head = Arc::new(OwnHead(Arc::clone(&self.writer)));
        FactServer::new(head, Budget::unlimited(), self.world.clone())
    }

    /// What metrics mean, as far as it is kept here.
    pub fn metadata(&self) -> Arc<dyn MetadataSource> {
        self.metadata.clone()
    }

    /// The same over gRPC.
    pub fn metadata_service(&self) -> FactServer<rpc::facts::Metadata> {
        let told = rpc::facts::Meaningful(self.metadata());
        FactServer::new(Arc::new(told), Budget::unlimited(), self.world.clone())
    }

    /// The engine, once its log has been replayed; never for a router.
    pub fn tsdb(&self) -> Option<Arc<Tsdb>> {
        self.writer.local().engine().cloned()
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
                let _ = tell.send(Error::from(error));
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

    /// A router that is told where keeps hints, with a catalog of its own.
    async fn open_router(&self) -> Result<(), Error> {
        let Some(dir) = self.settings.hints(false).dir else {
            return Ok(());
        };
        let (world, hints) = (self.world.clone(), Arc::clone(&self.hints));
        let (machine, threads) = (self.machine, world.threads.clone());
        let opening = threads.blocking(move || {
            let catalog = machine.then(|| Catalog::open(&world, &dir.join("catalog"))).transpose()?;
            hints.open(catalog)
        });
        opening
            .await
            .map_err(|error| Error::with_source(Kind::Internal, format!("opening hints: {error}"), error))?
    }

    async fn open_engine(&self) -> Result<Arc<Tsdb>, Error> {
        let (world, settings) = (self.world.clone(), self.engine_settings());
        let readiness = self.readiness.clone();
        let (dir, hints) = (settings.dir.clone(), Arc::clone(&self.hints));
        let (machine, threads) = (self.machine, world.threads.clone());
        let open = self.plane.as_ref().and_then(|plane| plane.catalog.clone());
        let opening = threads.blocking(move || {
            let mut told = 0;
            // Once the folder is known to be ours, and not only after a long replay: the doors are open already.
            let begin = || {
                let catalog = match open.clone() {
                    Some(catalog) => Some(catalog),
                    None => machine.then(|| Catalog::open(&world, &dir.join("catalog"))).transpose()?,
                };
                if let Err(error) = hints.open(catalog.clone()) {
                    hints.give_up();
                    tracing::error!(%error, dir = %dir.display(), "no hints are kept: what a replica misses it will not have");
                }
                Ok::<_, Error>(catalog)
            };
            let mut catalog = None;
            // With a control plane it was looked at before the node told anybody its name.
            let lost = open.is_none() && !has_log(&world, &dir)?;
            let engine = Tsdb::open_with(world.clone(), settings, &mut |progress| {
                catalog.get_or_insert_with(begin);
                let percent = progress.done.saturating_mul(100) / progress.total.max(1);
                readiness.set_not_ready(format!("replaying the log, {percent} % done"));
                if percent >= told + 10 {
                    told = percent;
                    tracing::info!(percent, "replaying the log");
                }
            })?;
            if lost {
                begin_anew(&world, &dir)?;
            }
            Ok::<_, Error>((engine, catalog.unwrap_or_else(begin)?, incarnation(&world, &dir)?))
        });
        let (engine, catalog, incarnation) = opening.await.map_err(|error| {
            Error::with_source(Kind::Internal, format!("opening the engine: {error}"), error)
        })??;
        self.keep_promise(&incarnation).await?;
        self.writer.local().open(Arc::clone(&engine))?;
        if let Some(catalog) = catalog {
            self.ship.open(catalog.clone());
            self.metadata.open(catalog);
        }
        self.store_door.set_incarnation(incarnation);
        Ok(engine)
    }

    /// What was promised in an earlier life of this log holds from the first write on.
    async fn keep_promise(&self, incarnation: &str) -> Result<(), Error> {
        if self.governed.handle().is_none() {
            return Ok(());
        }
        let (world, dir, incarnation) =
            (self.world.clone(), self.settings.data_dir.clone(), incarnation.to_owned());
        let threads = self.world.threads.clone();
        let reading = threads.blocking(move || Kept::read(&world, &dir, &incarnation)).await;
        let kept =
            reading.map_err(|error| Error::with_source(Kind::Internal, "reading the promise", error))??;
        if kept.min_epoch > 0 {
            let told = Vec::new();
            self.writer.local().gate().raise(Promise::From { epoch: kept.min_epoch, told });
        }
        self.governed.keep(kept);
        Ok(())
    }

    /// This node's part in the agreed ring, where it has a place of its own.
    fn member(&self, engine: &Arc<Tsdb>) -> Option<Member> {
        let handle = self.governed.handle()?.clone();
        let address = self.settings.replication.local_endpoint.clone()?;
        Some(Member {
            handle,
            governed: Arc::clone(&self.governed),
            writer: Arc::clone(&self.writer),
            engine: Arc::clone(engine),
            drain: Arc::clone(&self.drain),
            hints: Arc::clone(&self.hints),
            world: self.world.clone(),
            dir: self.settings.data_dir.clone(),
            address,
            levels: control::levels(u32::try_from(self.settings.max_feature_level).unwrap_or(u32::MAX)),
            tolerance: self.settings.storage.future_tolerance.ms(),
            kept: self.governed.kept(),
            told: 0,
            under_way: Vec::new(),
            newest: 0,
            cut: None,
            brought: 0,
        })
    }

    fn engine_settings(&self) -> tsdb::Settings {
        let storage = &self.settings.storage;
        // Weak: the writer has the engine, and would be kept by it.
        let writer = Arc::downgrade(&self.writer);
        tsdb::Settings {
            dir: self.settings.data_dir.clone(),
            out_of_order_window: storage.out_of_order_window.ms(),
            future_tolerance: storage.future_tolerance.ms(),
            max_sample_age: storage.max_sample_age.ms(),
            block_range: storage.block_duration.ms(),
            retention: if storage.retention.is_zero() { i64::MAX } else { storage.retention.ms() },
            external_labels: self.labels.clone(),
            tenant_label: self.settings.tenancy.label.clone(),
            tenant_labels: Some(tsdb::TenantLabels(Arc::new(move |tenant| {
                writer.upgrade().map(|writer| writer.ring_labels(tenant.as_str())).unwrap_or_default()
            }))),
            durability: match storage.durability {
                DurabilityName::Durable => tsdb::Durability::Durable,
                DurabilityName::Fast => tsdb::Durability::Fast,
            },
            limits: Some(self.limits_of()),
            active_window: storage.active_window.ms(),
            cut_jitter: storage.cut_jitter.ms(),
            segment_bytes: storage.segment_bytes.bytes(),
            max_exemplars: usize::try_from(storage.max_exemplars).unwrap_or(usize::MAX),
            max_series_exemplars: usize::try_from(storage.max_series_exemplars).unwrap_or(usize::MAX),
            created_timestamp_zero_ingestion: storage.start_as_zero,
            ..tsdb::Settings::default()
        }
    }

    /// The limits of a tenant in the engine here: its share of what the ring may have.
    fn limits_of(&self) -> storage::LimitsOf {
        let (limits, writer) = (Arc::clone(&self.limits), Arc::downgrade(&self.writer));
        storage::LimitsOf(Arc::new(move |tenant| {
            let current = writer.upgrade().map(|writer| writer.ring().current());
            let ring = current.and_then(|current| current.rings.resolve(tenant.as_str()));
            let nodes = ring.map_or(1, |ring| ring.len());
            limits.of_engine(tenant, nodes)
        }))
    }

    /// Everything that goes on behind the doors; ends with `stop`, or with the first failure.
    async fn work(&self, engine: Option<Arc<Tsdb>>, stop: Shutdown) -> Result<(), Error> {
        let inner = Shutdown::new();
        let tasks = TaskGroup::new(inner.clone());
        self.follow_agreed(&tasks, &inner);
        let replication = &self.settings.replication;
        let (writer, world) = (Arc::clone(&self.writer), self.world.clone());
        let reload = move || {
            // Success and failure are told by the holder itself.
            if writer.ring().reload().is_ok_and(|changed| changed) {
                apply_limits(&writer, &world);
            }
        };
        let ring = watch::Watched {
            what: "ring file",
            path: replication.hashrings_file.clone(),
            every: replication.refresh.as_duration(),
            reload: Arc::new(reload),
        };
        tasks.spawn("ring", watch::run(ring, inner.clone()));
        let (limits, writer, world) =
            (Arc::clone(&self.limits), Arc::clone(&self.writer), self.world.clone());
        let reload = move || {
            if limits.reload().is_ok_and(|changed| changed) {
                apply_limits(&writer, &world);
            }
        };
        let limits = watch::Watched {
            what: "limits file",
            path: self.limits.path().map(std::path::Path::to_owned),
            every: self.settings.admission.limits_refresh.as_duration(),
            reload: Arc::new(reload),
        };
        tasks.spawn("limits", watch::run(limits, inner.clone()));
        if self.machine {
            let (peers, writer, until) = (Arc::clone(&self.peers), Arc::clone(&self.writer), inner.clone());
            tasks.spawn("peers", async move { peers.run(writer, until).await });
            let (memory, writer, until) =
                (Arc::clone(&self.write_door.memory), Arc::clone(&self.writer), inner.clone());
            tasks.spawn("memory", async move { memory.run(writer, until).await });
        }
        let (hints, writer, until) = (Arc::clone(&self.hints), Arc::clone(&self.writer), inner.clone());
        let world = self.world.clone();
        tasks.spawn("hints", async move { hints::run(hints, writer, world, until).await });
        let (door, until) = (Arc::clone(&self.write_door), inner.clone());
        let peers = ha::RingDoors(Arc::clone(&self.writer));
        tasks.spawn("HA pairs", ha::run(Arc::clone(&self.ha), door, Arc::new(peers), until));
        let (door, until) = (Arc::clone(&self.write_door), inner.clone());
        let of_peers = Arc::clone(&self.peer_door.identities);
        tasks.spawn("gauges", async move { gauges(door, of_peers, until).await });
        if let Some(handle) = self.governed.handle().cloned() {
            let (writer, world, until) = (Arc::clone(&self.writer), self.world.clone(), inner.clone());
            let readiness = self.readiness.clone();
            tasks.spawn("ring epochs", epochs::follow::run(handle, writer, readiness, world, until));
        }
        if let Some(engine) = engine {
            if let Some(member) = self.member(&engine) {
                tasks.spawn("ring member", member.run(inner.clone()));
            }
            let (ship, until) = (Arc::clone(&self.ship), inner.clone());
            let cutter = Arc::clone(&engine);
            tasks.spawn("cut and ship", async move {
                ship.run(cutter, until).await;
                Ok::<(), Error>(())
            });
            let (counter, world, until) = (Arc::clone(&engine), self.world.clone(), inner.clone());
            if let Some(catalog) = self.metadata.catalog().cloned() {
                let until = inner.clone();
                tasks.spawn("catalog", async move { measure(catalog, until).await });
            }
            tasks.spawn("active series", async move { count_active(counter, world, until).await });
            let until = inner.clone();
            tasks.spawn("log", async move {
                tokio::select! {
                    biased;
                    () = until.wait() => Ok(()),
                    why = engine.poisoned() => Err(Error::new(
                        Kind::Internal,
                        format!("the log has failed and nothing can be acknowledged any more: {why}; restart"),
                    )),
                }
            });
        }
        tokio::select! {
            biased;
            () = stop.wait() => inner.trigger(),
            () = inner.wait() => {}
        }
        tasks
            .join(Duration::from_secs(10))
            .await
            .map_err(|error| Error::with_source(Kind::Internal, error.to_string(), error))
    }

    /// What the control plane brings besides the ring: limits, proposals of the ring file, and what is told of both.
    fn follow_agreed(&self, tasks: &TaskGroup, until: &Shutdown) {
        let Some(plane) = &self.plane else { return };
        let (handle, stop) = (plane.handle.clone(), until.clone());
        tasks.spawn("agreed ring", ring_file::follow(handle, stop));
        let (handle, stop) = (plane.handle.clone(), until.clone());
        let (limits, writer, world) =
            (Arc::clone(&self.limits), Arc::clone(&self.writer), self.world.clone());
        tasks.spawn("agreed limits", async move {
            let mut seen = handle.seen();
            loop {
                let state = Arc::clone(&seen.borrow_and_update().state);
                if limits.agree(state.limits.version, &state.limits.text) {
                    apply_limits(&writer, &world);
                }
                tokio::select! {
                    () = stop.wait() => return Ok::<(), Error>(()),
                    changed = seen.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        });
        if let Some(path) = self.settings.replication.hashrings_file.clone() {
            let (handle, stop, world) = (plane.handle.clone(), until.clone(), self.world.clone());
            let every = self.settings.replication.refresh.as_duration();
            let who =
                self.settings.replication.local_endpoint.clone().unwrap_or_else(|| "a router".to_owned());
            let first = plane.ring.clone();
            tasks.spawn("ring file proposals", async move {
                ring_file::run(&path, first, every, handle, world, who, stop).await
            });
        }
    }

    async fn close(&self, engine: Option<Arc<Tsdb>>) -> Result<(), Error> {
        if let Some(plane) = &self.plane {
            // It writes into the catalog.
            plane.handle.stop().await;
        }
        let current = self.writer.ring().current();
        let grace = self.settings.replication.forward_timeout.as_duration();
        self.writer.finish(grace).await;
        futures::future::join_all(current.peers().map(|peer| peer.close(grace))).await;
        let hints = Arc::clone(&self.hints);
        let kept = self.world.threads.blocking(move || hints.close()).await;
        kept.map_err(|error| Error::with_source(Kind::Internal, format!("closing hints: {error}"), error))?;
        let Some(engine) = engine else { return Ok(()) };
        let catalog = self.metadata.catalog().cloned();
        let closing = self.world.threads.blocking(move || {
            if let Some(Err(error)) = catalog.map(|catalog| catalog.close()) {
                // What was confirmed is safe already.
                tracing::warn!(%error, "the newest metadata may be lost");
            }
            engine.close()
        });
        closing
            .await
            .map_err(|error| {
                Error::with_source(Kind::Internal, format!("closing the engine: {error}"), error)
            })?
            .map_err(Error::from)
    }
}

/// Tells the engine, if it is open, that limits have changed.
pub(crate) fn apply_limits(writer: &Writer, world: &World) {
    if let Some(engine) = writer.local().engine() {
        engine.reload_limits(world.clock.now_ms());
    }
}

fn bucket(settings: &Settings, world: &World) -> Result<Option<Bucket>, Error> {
    let Some(document) = settings.objstore.document() else { return Ok(None) };
    if !settings.mode().stores() {
        return Ok(None);
    }
    let text =
        document.text(|path| world.disk.read(path)).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
    let bucket = Bucket::from_yaml(&text, world).map_err(|error| {
        Error::with_source(error.kind, format!("objstore settings in {}: {error}", document.origin()), error)
    })?;
    Ok(Some(bucket))
}

/// HA pairs as this node watches them, with what it remembers of them.
fn pairs(settings: &Settings, world: &World) -> Ha {
    let stores = settings.mode().stores();
    let ha = Ha::new(&settings.ha, world, stores.then(|| settings.data_dir.join("elections.json")));
    ha::open(&ha);
    ha
}

/// Who may write, where a file says so.
fn credentials(settings: &Settings, world: &World) -> Result<Option<Credentials>, Error> {
    let Some(path) = &settings.tenancy.credentials else { return Ok(None) };
    let check = |tenant: &str| TenantId::new(tenant).map(drop).map_err(|error| error.to_string());
    let started = Credentials::start(world, path, check);
    started.map(Some).map_err(|e| Error::with_source(e.kind, format!("--receive.credentials-file: {e}"), e))
}

/// The relabelling rules, if any are given.
fn relabelling(settings: &Settings, world: &World) -> Result<relabel::Rules, Error> {
    let invalid = |error: String| Error::new(Kind::Invalid, error);
    let given = &settings.relabel;
    let document = PathOrContent::settle("receive.relabel-config", &given.text, &given.file)
        .map_err(|error| invalid(error.to_string()))?;
    let Some(document) = document else { return Ok(relabel::Rules::default()) };
    let text = document.text(|path| world.disk.read(path)).map_err(|error| invalid(error.to_string()))?;
    relabel::parse(&text).map_err(|error| invalid(format!("{}: {error}", document.origin())))
}

impl PeerLimits {
    fn of(replication: &Replication) -> PeerLimits {
        PeerLimits {
            workers: replication.forward_workers as usize,
            queue_bytes: replication.forward_queue.bytes(),
            deadline: replication.straggler_timeout.as_duration(),
            rules: Rules {
                slow: replication.slow_after.as_duration(),
                first_pause: Duration::from_millis(200),
                max_pause: replication.forward_max_backoff.as_duration(),
            },
        }
    }
}

/// The way to peers over gRPC.
fn connect(settings: &Settings, world: &World, tls: Option<ClientTls>) -> Connect {
    let replication = &settings.replication;
    let limits = PeerLimits::of(replication);
    let options = WriteClientOptions {
        // A connection that is dead must be known to be before the peer is probed for long.
        channel: ClientOptions {
            tls,
            connect_timeout: replication.slow_after.as_duration(),
            keepalive: replication.slow_after.as_duration(),
            keepalive_timeout: replication.slow_after.as_duration(),
            ..ClientOptions::default()
        },
        timeout: replication.straggler_timeout.as_duration(),
        // Whether a peer is asked is decided above it.
        max_backoff: Duration::ZERO,
        door: replication.local_endpoint.clone().unwrap_or_default(),
        peer: replication.peer_frames.then(|| replication.peer()),
        ..WriteClientOptions::default()
    };
    let world = world.clone();
    Arc::new(move |address: &str| {
        let handle = tokio::runtime::Handle::current();
        let client = WriteClient::new(address, options.clone(), world.clone(), &handle)
            .map_err(|error| Error::with_source(error.kind, format!("peer {address}: {error}"), error))?;
        let chance = Arc::clone(&world.chance);
        Ok(Peer::start(address, Arc::new(Grpc(client)), limits, chance))
    })
}

struct Grpc(WriteClient);

impl Remote for Grpc {
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
        let write = async move {
            let failed =
                |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
            self.0.write(call).await.map_err(failed)
        };
        write.boxed()
    }

    fn names(&self) -> Option<usize> {
        self.0.names()
    }

    fn exchange_pairs(
        &self,
        told: Vec<PairSighting>,
    ) -> BoxFuture<'_, Result<Vec<PairSighting>, storage::Error>> {
        let failed =
            |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
        async move { self.0.exchange_pairs(told).await.map_err(failed) }.boxed()
    }

    fn write_metadata<'a>(
        &'a self,
        tenant: &'a TenantId,
        said: &'a [MetricMetadata],
    ) -> BoxFuture<'a, Result<(), storage::Error>> {
        let failed =
            |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
        async move { self.0.write_metadata(tenant, said).await.map_err(failed) }.boxed()
    }
}

/// Whether there is a log in the folder, before it is opened.
fn has_log(world: &World, dir: &std::path::Path) -> Result<bool, Error> {
    let wal = dir.join("wal");
    let names = if world.disk.exists(&wal) { world.disk.list(&wal) } else { Ok(Vec::new()) };
    let names = names.map_err(|error| {
        Error::with_source(Kind::Unavailable, format!("{}: {error}", wal.display()), error)
    })?;
    Ok(!names.is_empty())
}

/// Where the log is gone and the rest of the folder is not, what was acknowledged with this node's help is gone as well: it
/// must not pass for the one that had it.
fn begin_anew(world: &World, dir: &std::path::Path) -> Result<(), Error> {
    let path = dir.join("incarnation");
    if !world.disk.exists(&path) {
        return Ok(());
    }
    tracing::warn!(dir = %dir.display(), "the log is gone: this node begins anew and counts as a new disk");
    world
        .disk
        .remove_file(&path)
        .map_err(|error| Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error))
}

/// The name of this log's life: kept in the data folder, new where the folder is.
fn incarnation(world: &World, dir: &std::path::Path) -> Result<String, Error> {
    let path = dir.join("incarnation");
    let failed = |error: std::io::Error| {
        Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error)
    };
    if world.disk.exists(&path) {
        let text = String::from_utf8_lossy(&world.disk.read(&path).map_err(failed)?).trim().to_owned();
        if !text.is_empty() {
            return Ok(text);
        }
    }
    let name = format!("{:016x}{:016x}", world.chance.next_u64(), world.chance.next_u64());
    world.disk.write_atomic(&path, name.as_bytes()).map_err(failed)?;
    Ok(name)
}

/// How often the active series of tenants near a limit are counted, and how many times later those of all.
const COUNT_EVERY: Duration = Duration::from_secs(15);
const COUNT_ALL_AFTER: u32 = 20;

async fn count_active(engine: Arc<Tsdb>, world: World, until: Shutdown) -> Result<(), Error> {
    for round in 0u32.. {
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
        let (engine, now) = (Arc::clone(&engine), world.clock.now_ms());
        let all = round.is_multiple_of(COUNT_ALL_AFTER);
        if let Err(error) = world.threads.blocking(move || engine.count_active(now, all)).await {
            tracing::error!(%error, "counting of active series broke off");
        }
    }
    Ok(())
}

/// Shows what the catalog holds in memory.
async fn measure(catalog: Catalog, until: Shutdown) -> Result<(), Error> {
    loop {
        let shown = catalog.clone();
        // It waits for the disk where the catalog is being opened anew.
        let measured = tokio::task::spawn_blocking(move || shown.measure()).await;
        measured.map_err(|error| Error::with_source(Kind::Internal, "measuring the catalog", error))?;
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(15)) => {}
        }
    }
}

/// How often series that did not come for long are looked for.
const IDENTITY_SWEEP: Duration = Duration::from_secs(60);

async fn gauges(
    door: Arc<WriteDoor>,
    of_peers: Arc<identity::Identities>,
    until: Shutdown,
) -> Result<(), Error> {
    let mut swept = door.world.clock.monotonic();
    loop {
        let now = door.world.clock.monotonic();
        if now.saturating_duration_since(swept) >= IDENTITY_SWEEP {
            swept = now;
            let (identities, now) = (Arc::clone(&door.identities), door.world.clock.now_ms());
            let of_peers = Arc::clone(&of_peers);
            let sweep = move || match Arc::ptr_eq(&identities, &of_peers) {
                true => identities.sweep(now),
                false => identities.sweep(now) + of_peers.sweep(now),
            };
            // Where nobody has time for it, there is a next time.
            if let Ok(forgotten) = door.pool.run(sweep).await {
                metrics::counter!("tributary_identity_forgotten_total").increment(forgotten as u64);
            }
        }
        let identities = door.identities.stats();
        metrics::gauge!("tributary_identity_series").set(identities.series as f64);
        metrics::gauge!("tributary_identity_bytes").set(identities.bytes as f64);
        metrics::gauge!("tributary_receive_inflight_bytes").set(door.admission.held_bytes() as f64);
        for peer in door.writer.ring().current().peers() {
            let labels = [("peer", peer.address().to_owned())];
            metrics::gauge!("tributary_receive_peer_queue_bytes", &labels[..])
                .set(peer.queued_bytes() as f64);
            metrics::gauge!("tributary_receive_peer_breaker", &labels[..])
                .set(f64::from(peer.breaker_level()));
            metrics::gauge!("tributary_peer_names", &labels[..]).set(peer.names().unwrap_or(0) as f64);
        }
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}
