//! The subcommand: a receiver behind Thanos's three listeners, opened early and closed in order.

use std::net::SocketAddr;
use std::sync::Arc;

use api::{Cors, Door, HeadPage, MetricsPage, Readiness, Security, Server, ServerSettings, TSDB_PATHS};
use model::Kind;
use rpc::{Health, ServeOptions, Services, StoreOptions, StoreServer, WriteServer};
use runtime::{Shutdown, World};
use secure::ServerTls;
use tokio::net::TcpListener;

use crate::{Error, PATHS, Plane, Receive, Settings};

/// Thanos counts a limit of samples in chunks of as many.
const SAMPLES_PER_CHUNK: u64 = 120;

/// A receiver and the ports it has taken.
pub struct Bound {
    receive: Arc<Receive>,
    http: Server,
    write: Server,
    grpc: TcpListener,
    grpc_address: SocketAddr,
    tls: Option<ServerTls>,
}

impl Bound {
    /// Takes the ports and makes the parts; within a tokio runtime.
    pub async fn bind(settings: Settings, world: World) -> Result<Bound, Error> {
        let grace = settings.common.http_grace_period.as_duration();
        let common = &settings.common;
        let of_file = Security::of_file("http", common.http_config.as_deref(), &world)?;
        let http = bind_http("http", &common.http_address, grace, of_file).await?;
        let of_write = rpc::server_tls("remote-write", &settings.tls.server(), &world)?;
        let of_write = of_write.map_or(Security::None, Security::Tls);
        let write = bind_http("remote-write", &settings.remote_write_address, grace, of_write).await?;
        let tls = rpc::server_tls("grpc", &settings.grpc.tls.files(), &world)?;
        let grpc_at = resolve(&settings.grpc.grpc_address).await?;
        let grpc = TcpListener::bind(grpc_at).await.map_err(|error| {
            Error::with_source(
                Kind::Unavailable,
                format!("cannot listen on {grpc_at} (grpc): {error}"),
                error,
            )
        })?;
        let grpc_address = grpc.local_addr().map_err(|error| {
            Error::with_source(Kind::Internal, format!("grpc listener has no address: {error}"), error)
        })?;
        warn_if_open(&settings);
        let readiness = Readiness::starting("the log is being replayed");
        let plane = Plane::open(&settings, &world).await?;
        let receive = Arc::new(Receive::build(settings, world, readiness)?.with_plane(plane));
        if let Some(plane) = receive.plane() {
            receive.govern(plane.handle.clone());
        }
        Ok(Bound { receive, http, write, grpc, grpc_address, tls })
    }

    pub fn receive(&self) -> &Arc<Receive> {
        &self.receive
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr()
    }

    pub fn write_address(&self) -> SocketAddr {
        self.write.local_addr()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Serves until `shutdown`: then the doors close and finish what is in flight, copies to peers go out, the
    /// log is ended, and the listener for probes and metrics closes last.
    pub async fn run(self, metrics: MetricsPage, shutdown: Shutdown) -> Result<(), Error> {
        let Bound { receive, http, write, grpc, tls, .. } = self;
        let settings = receive.settings().clone();
        let readiness = receive.readiness().clone();
        let door = Door::new("receive", readiness.clone(), metrics).with_paths(&PATHS);
        let write_routes = door.clone().open(receive.write_router());
        let tenancy = &settings.tenancy;
        let heads = HeadPage {
            heads: receive.heads(),
            tenant_headers: vec![tenancy.header.clone(), "THANOS-TENANT".to_owned()],
            default_tenant: tenancy.default_id.clone(),
            listed: true,
            cors: Cors::Any,
            world: receive.world.clone(),
        };
        let admin = receive.admin_router(heads.tenant_headers.clone());
        let http_routes = receive.lifecycle_router().merge(admin).merge(api::tsdb_router(heads));
        let http_routes = door.with_paths(&TSDB_PATHS).with_paths(&api::ADMIN_PATHS).open(http_routes);
        // Peers' doors have judged sizes already, by settings that may differ from ours.
        let limits = wire::remote_write::Limits {
            max_bytes: settings.admission.max_decompressed.as_usize().saturating_mul(2),
            max_ratio: usize::MAX,
            max_series: 1 << 20,
            max_labels: 1 << 12,
        };
        let probe = readiness.clone();
        let store_options = StoreOptions {
            max_series: settings.request_series,
            max_chunks: settings.request_samples.div_ceil(SAMPLES_PER_CHUNK),
            ..StoreOptions::default()
        };
        let services = Services::new(Health::new(move || probe.is_ready()))
            .store(StoreServer::new(receive.store_backend(), store_options, receive.world.clone()))
            .statistics(receive.statistics())
            .metadata(receive.metadata_service())
            .exemplars(receive.exemplars())
            .write_with(
                WriteServer::new(receive.write_backend(), limits),
                receive.settings().replication.peer(),
            );
        let services = match receive.plane() {
            None => services,
            Some(plane) => {
                let ready = readiness.clone();
                services.control(plane.server(move || ready.is_ready()))
            }
        };
        let age = settings.max_connection_age;
        let options = ServeOptions {
            grace: settings.grpc.grpc_grace_period.as_duration(),
            max_connection_age: (!age.is_zero()).then(|| age.as_duration()),
            tls,
            ..ServeOptions::default()
        };
        tracing::info!(listener = "grpc", address = %self.grpc_address, "listening");

        let stop = Shutdown::new();
        let doors = async {
            let grpc = rpc::serve(grpc, services, options, shutdown.waiter());
            let (_, served) = tokio::join!(write.serve(write_routes, shutdown.waiter()), grpc);
            shutdown.trigger();
            stop.trigger();
            served.map_err(|error| Error::with_source(error.kind, error.to_string(), error))
        };
        let behind = async {
            let ended = receive.run(stop.clone()).await;
            shutdown.trigger();
            ended
        };
        let probes = http.serve(http_routes, stop.waiter());
        let stopping = async {
            shutdown.wait().await;
            readiness.set_stopping();
        };
        tokio::select! {
            (served, ended, (), ()) = async { tokio::join!(doors, behind, probes, stopping) } => ended.and(served),
            () = shutdown.wait_now() => {
                tracing::warn!("stopped without finishing what was in flight; the log has everything acknowledged");
                Ok(())
            }
        }
    }
}

/// Runs a receiver until `shutdown`.
pub async fn serve(
    settings: Settings,
    world: World,
    metrics: MetricsPage,
    shutdown: Shutdown,
) -> Result<(), Error> {
    Bound::bind(settings, world).await?.run(metrics, shutdown).await
}

async fn bind_http(
    name: &'static str,
    listen: &settings::Listen,
    grace: std::time::Duration,
    security: Security,
) -> Result<Server, Error> {
    let settings = ServerSettings { name, grace, security, ..ServerSettings::default() };
    Server::bind(resolve(listen).await?, settings).await
}

async fn resolve(listen: &settings::Listen) -> Result<SocketAddr, Error> {
    let text = listen.to_string();
    let listen = listen.clone();
    // A name is looked up by the system, which blocks.
    let found = tokio::task::spawn_blocking(move || listen.socket_address()).await;
    found.map_err(|error| Error::with_source(Kind::Internal, error.to_string(), error))?.map_err(|error| {
        Error::with_source(Kind::Invalid, format!("cannot listen on {text}: {error}"), error)
    })
}

fn warn_if_open(settings: &Settings) {
    let listeners = [
        ("http", &settings.common.http_address, settings.common.http_config.is_none()),
        ("remote-write", &settings.remote_write_address, settings.tls.client_ca.is_none()),
        ("grpc", &settings.grpc.grpc_address, settings.grpc.tls.client_ca.is_none()),
    ];
    let open: Vec<String> = listeners
        .iter()
        .filter(|(_, listen, open)| *open && !listen.is_loopback())
        .map(|(name, listen, _)| format!("{name} {listen}"))
        .collect();
    if !open.is_empty() {
        tracing::warn!(listeners = ?open, "listeners are open to the network without authentication");
    }
}
