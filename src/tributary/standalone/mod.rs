//! `tributary standalone`: takes writes, keeps them, ships blocks and answers queries in one process.
//!
//! The receiver without a ring, the store over the same bucket and the query API share one HTTP listener. On
//! stop the doors close first and finish what is in flight; then the log is ended.

mod read;
mod settings;
mod welcome;

pub use settings::StandaloneSettings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use api::{
    ActiveQueries, ApiSettings, ApiState, Cors, Door, HeadPage, QueryPool, Readiness, Server, ServerSettings,
    TSDB_PATHS,
};
use axum::Router;
use bucket::{Bucket, FetchSettings};
use promql::{Enabled, Engine, EngineSettings};
use receive::Receive;
use rpc::{Health, ServeOptions, Services, StoreOptions, StoreServer};
use runtime::{Shutdown, World};
use store::{Blocks, BlocksSettings};
use tokio::net::TcpListener;

use self::read::{Backend, Reader};
use crate::boot::Parts;

/// All parts of the node, with the ports it has taken.
struct Node {
    settings: StandaloneSettings,
    world: World,
    readiness: Readiness,
    receive: Arc<Receive>,
    blocks: Blocks,
    http: Server,
    grpc: TcpListener,
    grpc_address: SocketAddr,
    tls: Option<secure::ServerTls>,
}

pub async fn run(settings: StandaloneSettings, parts: Parts) -> anyhow::Result<()> {
    let Parts { world, shutdown, metrics, flags } = parts;
    let node = Node::build(settings, world).await?;
    let page: api::MetricsPage = Arc::new(move || metrics.render());
    node.run(page, flags, shutdown).await
}

impl Node {
    async fn build(settings: StandaloneSettings, world: World) -> anyhow::Result<Node> {
        // Before the bucket makes its folder in there.
        tsdb::recognise(&world, &settings.data_dir)?;
        let grace = settings.http_grace_period.as_duration();
        let http = settings.http_address.socket_address().context("--http-address")?;
        let security = api::Security::of_file("http", settings.http_config.as_deref(), &world)?;
        let http =
            Server::bind(http, ServerSettings { grace, security, ..ServerSettings::default() }).await?;
        let tls = rpc::server_tls("grpc", &settings.grpc_tls.files(), &world)?;
        let grpc_address = settings.grpc_address.socket_address().context("--grpc-address")?;
        let grpc = TcpListener::bind(grpc_address)
            .await
            .with_context(|| format!("cannot listen on {grpc_address} (grpc)"))?;
        let grpc_address = grpc.local_addr()?;
        let open_http = settings.http_config.is_none() && !settings.http_address.is_loopback();
        if open_http || (settings.grpc_tls.client_ca.is_none() && !settings.grpc_address.is_loopback()) {
            tracing::warn!(
                http = %settings.http_address,
                grpc = %settings.grpc_address,
                "listeners are open to the network without authentication"
            );
        }

        let readiness = Readiness::starting("the log is being replayed");
        let of_receive = settings.receive().map_err(|e| anyhow!(e))?;
        let bucket = of_receive.objstore.document().context("no bucket")?;
        let text = bucket.text(|path| world.disk.read(path))?;
        let bucket = Bucket::from_yaml(&text, &world).with_context(|| bucket.origin())?;
        let receive = Arc::new(Receive::build(of_receive, world.clone(), readiness.clone())?);
        let local = Arc::clone(&receive);
        let leave_out = Arc::new(move |id| local.tsdb().is_some_and(|engine| engine.has_local_block(id)));
        let blocks = Blocks::new(bucket, &world, blocks_settings(&settings), leave_out);
        let found = blocks.clone();
        receive.keep_until(Arc::new(move |id| found.ids().contains(&id)));
        Ok(Node { settings, world, readiness, receive, blocks, http, grpc, grpc_address, tls })
    }

    async fn run(
        self,
        metrics: api::MetricsPage,
        flags: BTreeMap<String, String>,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let routes = self.routes(metrics, flags)?;
        let services = self.services();
        let Node { settings, readiness, receive, blocks, http, grpc, grpc_address, tls, .. } = self;
        let http_address = http.local_addr();
        let options =
            ServeOptions { grace: settings.grpc_grace_period.as_duration(), tls, ..ServeOptions::default() };

        // Triggered when the doors are closed: what works behind them ends after them.
        let stop = Shutdown::new();
        let doors = async {
            let grpc = rpc::serve(grpc, services, options, shutdown.waiter());
            let (_, served) = tokio::join!(http.serve(routes, shutdown.waiter()), grpc);
            shutdown.trigger();
            stop.trigger();
            served
        };
        let behind = async {
            let ended = receive.run(stop.clone()).await;
            // A receiver that failed takes the doors with it.
            shutdown.trigger();
            ended
        };
        let greeting = async {
            while !readiness.is_ready() && !shutdown.is_triggered() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if readiness.is_ready() {
                welcome::show(http_address, grpc_address, &settings.data_dir);
            }
            shutdown.wait().await;
            readiness.set_stopping();
        };
        let (served, ended, (), ()) = tokio::join!(doors, behind, blocks.run(stop.clone()), greeting);
        ended?;
        Ok(served?)
    }

    fn routes(&self, metrics: api::MetricsPage, flags: BTreeMap<String, String>) -> anyhow::Result<Router> {
        let queries = &self.settings.queries;
        let enabled = Enabled::of_names(self.settings.enable_features.iter().map(String::as_str));
        for name in &enabled.unknown {
            tracing::warn!(name, "--enable-feature names nothing that is known here");
        }
        let engine = Engine::new(
            enabled.settle(EngineSettings {
                lookback_ms: queries.lookback_delta.ms(),
                timeout: queries.timeout.as_duration(),
                max_memory_per_query: queries.max_memory.bytes(),
                default_subquery_step_ms: queries.default_evaluation_interval.ms(),
                ..EngineSettings::default()
            }),
            self.world.clone(),
        );
        let reader = Reader {
            receive: Arc::clone(&self.receive),
            blocks: self.blocks.clone(),
            default_tenant: self.settings.default_tenant().map_err(|e| anyhow!(e))?,
            tenant_label: self.settings.tenancy.label.clone(),
        };
        let mut tenant_headers = vec![self.settings.tenancy.header.clone()];
        tenant_headers.extend(ApiSettings::default().tenant_headers);
        tenant_headers.dedup();
        let heads = HeadPage {
            heads: self.receive.heads(),
            tenant_headers: tenant_headers.clone(),
            default_tenant: self.settings.tenancy.default_id.clone(),
            listed: false,
            cors: Cors::default(),
            world: self.world.clone(),
        };
        let admin = self.receive.admin_router(tenant_headers.clone());
        let state = ApiState::new(
            Arc::new(reader),
            engine,
            QueryPool::new(queries.max_concurrent as usize, self.world.clone()),
            self.readiness.clone(),
            self.world.clone(),
            ApiSettings {
                timeout: queries.timeout.as_duration(),
                max_memory: queries.max_memory.bytes(),
                max_memory_total: match queries.max_memory_total.bytes() {
                    0 => u64::MAX,
                    bytes => bytes,
                },
                tenant_headers,
                active: self.active_queries(),
                flags,
                metrics: Some(metrics.clone()),
                per_step_stats: enabled.per_step_stats,
                ..ApiSettings::default()
            },
        );
        let routes = self
            .receive
            .write_router()
            .merge(self.receive.lifecycle_router())
            .merge(admin)
            .merge(api::router(state))
            .merge(api::tsdb_router(heads))
            .merge(welcome::router(self.http.local_addr()));
        let door = Door::new("Tributary", self.readiness.clone(), metrics);
        let door = door
            .with_paths(&receive::PATHS)
            .with_paths(&api::v1::PATHS)
            .with_paths(&TSDB_PATHS)
            .with_paths(&api::ADMIN_PATHS);
        Ok(door.open(routes))
    }

    /// The log of running queries; the node serves without it if it cannot be kept.
    fn active_queries(&self) -> Option<ActiveQueries> {
        let slots = self.settings.queries.max_concurrent as usize;
        match ActiveQueries::open(&*self.world.disk, &self.settings.data_dir, slots) {
            Ok((log, _)) => Some(log),
            Err(error) => {
                tracing::error!(%error, "cannot keep the log of active queries");
                None
            }
        }
    }

    fn services(&self) -> Services {
        let backend = Backend { receive: self.receive.store_backend(), blocks: self.blocks.clone() };
        let store = StoreServer::new(Arc::new(backend), StoreOptions::default(), self.world.clone());
        let probe = self.readiness.clone();
        tracing::info!(listener = "grpc", address = %self.grpc_address, "listening");
        Services::new(Health::new(move || probe.is_ready()))
            .store(store)
            .metadata(self.receive.metadata_service())
            .statistics(self.receive.statistics())
            .exemplars(self.receive.exemplars())
    }
}

fn blocks_settings(settings: &StandaloneSettings) -> BlocksSettings {
    let remote = &settings.remote;
    BlocksSettings {
        fetch: FetchSettings::default(),
        data_dir: settings.data_dir.join("store"),
        sync_every: remote.sync_block_duration.as_duration(),
        index_cache: remote.index_cache_size.bytes(),
        chunk_cache: remote.chunk_pool_size.bytes(),
        header_memory: remote.index_header_memory.bytes(),
        ..BlocksSettings::default()
    }
}
