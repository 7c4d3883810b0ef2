//! A receiver's part in the control plane: a vote or a subscription, and the catalog for it.
//!
//! It is opened before the log is replayed: voters have to agree while one of them starts.

use std::sync::Arc;

use agreed::RingPlan;
use catalog::Catalog;
use control::{About, Handle, Subscriber, Transport, Voter};
use hashring::Algorithm;
use model::Kind;
use rpc::{ClientOptions, ControlServer, GrpcTransport};
use runtime::World;

use crate::epochs::member::Kept;
use crate::settings::Settings;
use crate::{Error, Mode, incarnation, ring};

/// What is agreed, for a receiver.
pub struct Plane {
    pub handle: Handle,
    /// The node's, where it has a data folder.
    pub catalog: Option<Catalog>,
    /// How other nodes are asked.
    pub transport: Arc<dyn Transport>,
    /// The ring file as it was at the start, where there is one.
    pub ring: Option<String>,
    who: Who,
}

/// What the node says of itself.
#[derive(Clone, Default)]
struct Who {
    address: String,
    /// Of its data folder.
    incarnation: String,
    /// Whose data are in it; empty where it has never joined a cluster.
    cluster: String,
    /// The least epoch whose writes it takes, as it promised before it started.
    promised: u64,
}

impl Plane {
    /// Joins the voters that the settings name, or none. Within a tokio runtime.
    pub async fn open(settings: &Settings, world: &World) -> Result<Option<Plane>, Error> {
        if !settings.control.on() {
            return Ok(None);
        }
        let tls = settings.tls.towards_peers(world)?;
        let slow = settings.replication.slow_after.as_duration();
        let options = ClientOptions {
            tls,
            connect_timeout: slow,
            keepalive: slow,
            keepalive_timeout: slow,
            ..ClientOptions::default()
        };
        let runtime = tokio::runtime::Handle::current();
        let transport: Arc<dyn Transport> = Arc::new(GrpcTransport::new(options, &runtime));
        let (opened, who) = {
            let (settings, world) = (settings.clone(), world.clone());
            let opening = tokio::task::spawn_blocking(move || open_folder(&settings, &world));
            opening.await.map_err(|error| {
                Error::with_source(Kind::Internal, format!("opening the catalog: {error}"), error)
            })??
        };
        let handle = match (settings.votes(), &opened) {
            (true, Some(catalog)) => {
                let settings = control::Settings {
                    address: settings.control_address().unwrap_or_default().to_owned(),
                    voters: settings.control.voters(),
                    plan: plan(settings, world)?,
                    cluster: who.cluster.clone(),
                };
                Voter::start(world, catalog, settings, Arc::clone(&transport)).await?.into()
            }
            (_, catalog) => {
                Subscriber::start(world, catalog.as_ref(), settings.control.voters(), Arc::clone(&transport))?
                    .into()
            }
        };
        let seen = handle_cluster(&handle);
        if !seen.is_empty() && !who.cluster.is_empty() && seen != who.cluster {
            let message = format!(
                "the data folder is of cluster {}, and the catalog in it of cluster {seen}; give the node back what is \
                 its own",
                who.cluster
            );
            return Err(Error::new(Kind::Refused, message));
        }
        let ring = ring::read(settings, world)?;
        Ok(Some(Plane { handle, catalog: opened, transport, ring, who }))
    }

    /// Answers other nodes over gRPC; `ready` says whether writes can be taken.
    pub fn server(&self, ready: impl Fn() -> bool + Send + Sync + 'static) -> ControlServer {
        let who = self.who.clone();
        let describe = move |about: &mut About| {
            about.address.clone_from(&who.address);
            about.incarnation.clone_from(&who.incarnation);
            about.promised = who.promised;
            about.ready = ready();
            about.version = telemetry::build().version.to_owned();
        };
        ControlServer::new(self.handle.clone(), Arc::new(describe))
    }
}

fn handle_cluster(handle: &Handle) -> String {
    handle.now().state.cluster.clone()
}

/// The catalog and who the node is, by its data folder. Blocks on the disk.
fn open_folder(settings: &Settings, world: &World) -> Result<(Option<Catalog>, Who), Error> {
    let address = settings.control_address().unwrap_or_default().to_owned();
    if settings.mode() == Mode::RouterOnly {
        return Ok((None, Who { address, ..Who::default() }));
    }
    let dir = &settings.data_dir;
    tsdb::recognise(world, dir)?;
    let failed = |error: std::io::Error| {
        Error::with_source(Kind::Unavailable, format!("{}: {error}", dir.display()), error)
    };
    world.disk.create_dir_all(dir).map_err(failed)?;
    let catalog = Catalog::open(world, &dir.join("catalog"))?;
    if !incarnation::has_log(world, dir)? {
        incarnation::begin_anew(world, dir)?;
    }
    let incarnation = incarnation::read(world, dir)?;
    let Kept { cluster, min_epoch: promised, .. } = Kept::read(world, dir, &incarnation)?;
    Ok((Some(catalog), Who { address, incarnation, cluster, promised }))
}

/// The ring that a new cluster starts with.
fn plan(settings: &Settings, world: &World) -> Result<RingPlan, Error> {
    let text = ring::read(settings, world)?.unwrap_or_default();
    of_text(settings, text)
}

/// A ring file with the numbers that the settings give it.
pub fn of_text(settings: &Settings, text: String) -> Result<RingPlan, Error> {
    let replication = &settings.replication;
    let number = |n: usize| {
        u8::try_from(n)
            .map_err(|_| Error::new(Kind::Invalid, format!("{n} copies are more than there can be")))
    };
    let copies = replication.replication_factor as usize;
    Ok(RingPlan {
        text,
        replication: number(copies)?,
        quorum: number(replication.quorum.needed(copies))?,
        hashmod: replication.algorithm.0 == Algorithm::Hashmod,
    })
}
