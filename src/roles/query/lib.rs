//! The query role: PromQL over everyone who has data.
//!
//! It finds its endpoints (`endpoints`), asks those that may have part of an answer (`fanout`), judges whether
//! the answer is whole (`complete`), and serves the Prometheus HTTP API (crate `api`) and a StoreAPI of its own
//! (`backend`). It keeps no samples and no state on disk.
//!
//! Of a query: `api::v1` reads the request -> `promql` evaluates over a `Fanout` -> `rpc::StoreClient`s ask the
//! endpoints -> their streams are merged, replicas become one -> JSON.

mod backend;
mod certificate;
mod complete;
mod dedup;
mod endpoints;
mod facts;
mod fanout;
mod figures;
mod metadata;
mod outcome;
mod penalty;
mod prune;
mod resolve;
mod roster;
mod rules;
mod scraped;
mod settings;
mod shard;
mod sources;
mod stacked;
mod stores;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::{
    ActiveQueries, ApiSettings, ApiState, Cors, Door, HeadPage, MetricsPage, Problem, QueryPool, Queryable,
    ReadParams, Readiness, Security, Server, ServerSettings,
};
use model::{Kind, Matcher};
use promql::{Enabled, Engine, EngineSettings};
use rpc::{CallBudget, FactServer, Health, QueryServer, ServeOptions, Services, StoreOptions, StoreServer};
use runtime::{Shutdown, World};
use secure::ServerTls;
use storage::Select;
use tokio::net::TcpListener;

pub use complete::{Judgement, Needed, Owner, Seat, Tolerance, judge};
pub use endpoints::{Endpoint, EndpointOptions, Endpoints, State};
pub use facts::Everyone;
pub use fanout::{Fanout, Reading};
pub use model::Error;
pub use resolve::{Dns, Resolve, Resolved};
pub use settings::{Discovery, Queries, Settings};
use stacked::Stacked;
pub use targets::{Target, Wanted};

/// A querier: bound, not yet serving.
pub struct Query {
    settings: Settings,
    world: World,
    http: Server,
    grpc: TcpListener,
    grpc_address: SocketAddr,
    tls: Option<ServerTls>,
    endpoints: Arc<Endpoints>,
    sources: sources::Sources,
    readiness: Readiness,
    door: Door,
    flags: BTreeMap<String, String>,
    plane: Option<control::Handle>,
}

impl Query {
    /// Binds both ports and reads the endpoint files. `metrics` renders the metrics page; `flags` is what
    /// `/api/v1/status/flags` shows.
    pub async fn build(
        settings: Settings,
        world: &World,
        metrics: MetricsPage,
        flags: BTreeMap<String, String>,
    ) -> Result<Query, Error> {
        let sources = sources::Sources::new(&settings.discovery, world)?;
        let tls = rpc::server_tls("grpc", &settings.grpc.tls.files(), world)?;
        let client_tls = match settings.client.secure {
            true => Some(rpc::client_tls("endpoints", &settings.client.files(), world)?),
            false => None,
        };
        let server = ServerSettings {
            grace: settings.common.http_grace_period.as_duration(),
            security: Security::of_file("http", settings.common.http_config.as_deref(), world)?,
            ..ServerSettings::default()
        };
        let look_up = |listen: &::settings::Listen| {
            let failed = |e: std::io::Error| {
                let message = format!("cannot listen on {listen}: {e}");
                Error { kind: Kind::Invalid, message, source: Some(Box::new(e)) }
            };
            listen.socket_address().map_err(failed)
        };
        let http = Server::bind(look_up(&settings.common.http_address)?, server).await?;
        let address = look_up(&settings.grpc.grpc_address)?;
        let failed = |e: std::io::Error| {
            let message = format!("cannot listen on {address} (grpc): {e}");
            Error { kind: Kind::Unavailable, message, source: Some(Box::new(e)) }
        };
        let grpc = TcpListener::bind(&address).await.map_err(failed)?;
        let grpc_address = grpc.local_addr().map_err(failed)?;
        let discovery = &settings.discovery;
        let options = EndpointOptions {
            info_timeout: discovery.info_timeout.as_duration(),
            dns_interval: discovery.dns_interval.as_duration(),
            files_interval: discovery.sd_interval.as_duration(),
            straggler_delay: settings.queries.straggler_delay.as_duration(),
            unhealthy_timeout: discovery.unhealthy_timeout.as_duration(),
            response_timeout: Some(discovery.response_timeout.as_duration()).filter(|limit| !limit.is_zero()),
            tls: client_tls,
        };
        let plane = match settings.control.on() {
            false => None,
            true => Some(subscribe(&settings, world, options.tls.clone())?),
        };
        let endpoints = Endpoints::new(options, Arc::new(Dns::new()), world.clone());
        if let Some(handle) = &plane {
            endpoints.govern(handle.seen());
        }
        let readiness = Readiness::starting("asking the endpoints for the first time");
        let door = Door::new("tributary query", readiness.clone(), metrics)
            .with_paths(&api::v1::PATHS)
            .with_paths(&["/api/v1/stores"])
            .with_paths(&api::TSDB_PATHS);
        Ok(Query {
            settings,
            world: world.clone(),
            http,
            grpc,
            grpc_address,
            tls,
            endpoints,
            sources,
            readiness,
            door,
            flags,
            plane,
        })
    }

    /// From now on whom a read has to ask is what the receivers have agreed on. Before [`Query::run`].
    pub fn govern(&self, seen: tokio::sync::watch::Receiver<control::Seen>) {
        self.endpoints.govern(seen);
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until `shutdown`: health at once, queries when every endpoint has been asked once.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Query {
            settings,
            world,
            http,
            grpc,
            grpc_address,
            tls,
            endpoints,
            mut sources,
            readiness,
            door,
            flags,
            plane,
        } = self;
        tracing::info!(address = %grpc_address, "listening for grpc");
        let everyone = Everyone {
            endpoints: endpoints.clone(),
            queries: settings.queries.clone(),
            world: world.clone(),
        };
        let active = active_queries(&settings.queries, &world);
        let (state, routes) =
            routes(&settings, &everyone, &readiness, &world, flags, active, door.metrics_page());
        // Probes and metrics stay at the root, whatever the prefix of the API.
        let routes = door.open(prefixed(routes, &settings.prefix()));
        let backend = backend::Backend { everyone: everyone.clone(), readiness: readiness.clone() };
        // Whoever asks over gRPC is held to what a query over HTTP may hold, and counts among all of them.
        let budget =
            CallBudget::each(state.memory(), "--query.max-memory", settings.queries.max_memory.bytes());
        let options = StoreOptions {
            max_concurrent: settings.queries.max_concurrent as usize,
            budget: budget.clone(),
            ..StoreOptions::default()
        };
        let store = StoreServer::new(Arc::new(backend), options, world.clone());
        macro_rules! facts {
            () => {
                FactServer::new(Arc::new(everyone.clone()), budget.clone(), world.clone())
            };
        }
        let probe = readiness.clone();
        let services = Services::new(Health::new(move || probe.is_ready()))
            .store(store)
            .query(QueryServer::new(Arc::new(Stacked(state))))
            .rules(facts!())
            .targets(facts!())
            .exemplars(facts!())
            .metadata(facts!())
            .statistics(facts!());
        let services = match &plane {
            None => services,
            Some(handle) => {
                let (own, ready) = (grpc_address.to_string(), readiness.clone());
                let describe = move |about: &mut control::About| {
                    about.address.clone_from(&own);
                    about.ready = ready.is_ready();
                    about.version = telemetry::build().version.to_owned();
                };
                services.control(rpc::ControlServer::new(handle.clone(), Arc::new(describe)))
            }
        };
        let serve_options = ServeOptions {
            grace: settings.grpc.grpc_grace_period.as_duration(),
            tls,
            ..ServeOptions::default()
        };

        endpoints.configure(sources.wanted());
        let discovery = async {
            endpoints.discover().await;
            endpoints.poll_all().await;
            readiness.set_ready();
            tracing::info!(endpoints = endpoints.list().len(), "ready");
            endpoints.clone().run(move || sources.changed(), shutdown.clone()).await;
        };
        let stopping = async {
            shutdown.wait().await;
            readiness.set_stopping();
        };
        let ended = shutdown.clone();
        let serving_grpc = rpc::serve(grpc, services, serve_options, async move { ended.wait().await });
        let ended = shutdown.clone();
        let serving_http = http.serve(routes, async move { ended.wait().await });
        let watched = async {
            let result = serving_grpc.await;
            // A listener that breaks takes the process down in order, instead of leaving half of it.
            shutdown.trigger();
            result
        };
        let discovery = async {
            tokio::select! {
                () = discovery => {}
                () = shutdown.wait() => {}
            }
        };
        let agreeing = async {
            let agreed = match plane {
                None => return Ok(()),
                Some(handle) => tokio::select! {
                    ended = handle.run() => ended,
                    () = measure(&handle) => Ok(()),
                    () = shutdown.wait() => Ok(()),
                },
            };
            // Voters of another cluster: what they say must not be answered by.
            shutdown.trigger();
            agreed
        };
        let (result, (), (), (), agreed) = tokio::join!(watched, serving_http, discovery, stopping, agreeing);
        agreed?;
        result
    }
}

fn routes(
    settings: &Settings,
    everyone: &Everyone,
    readiness: &Readiness,
    world: &World,
    flags: BTreeMap<String, String>,
    active: Option<ActiveQueries>,
    metrics: MetricsPage,
) -> (ApiState, axum::Router) {
    let queries = &settings.queries;
    let enabled = Enabled::of_names(settings.enable_features.iter().map(String::as_str));
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
        world.clone(),
    );
    let mut tenant_headers = vec![queries.tenant_header.clone()];
    tenant_headers.extend(["THANOS-TENANT", "X-Scope-OrgID"].map(str::to_owned));
    let stores_headers = tenant_headers.clone();
    // Looked at when the settings were read.
    let cors = settings.cors().unwrap_or(Cors::Off);
    let heads = HeadPage {
        heads: Arc::new(everyone.clone()),
        tenant_headers: tenant_headers.clone(),
        // Nobody named means all tenants, or the default one where tenancy is enforced.
        default_tenant: String::new(),
        listed: false,
        cors: cors.clone(),
        world: world.clone(),
    };
    let api_settings = ApiSettings {
        timeout: queries.timeout.as_duration(),
        max_memory: queries.max_memory.bytes(),
        max_memory_total: match queries.max_memory_total.bytes() {
            0 => u64::MAX,
            bytes => bytes,
        },
        default_step: Some(queries.default_step.as_duration()),
        metadata_default_range: queries.metadata_default_time_range.as_duration(),
        tenant_headers,
        cors,
        active,
        auto_downsampling: queries.auto_downsampling,
        instant_resolution: queries.instant_resolution.ms(),
        flags,
        config_yaml: String::new(),
        metrics: Some(metrics),
        per_step_stats: enabled.per_step_stats,
    };
    let queryable = Everybody(everyone.clone());
    let pool = QueryPool::new(queries.max_concurrent as usize, world.clone());
    let state =
        ApiState::new(Arc::new(queryable), engine, pool, readiness.clone(), world.clone(), api_settings);
    let stores = stores::router(everyone.clone(), stores_headers.clone());
    let routes = api::router(state.clone()).merge(api::tsdb_router(heads)).merge(stores);
    match queries.tenant_certificate_field.as_str() {
        "" => (state, routes),
        field => (state, certificate::tenants_by(field, stores_headers, routes)),
    }
}

/// Listens to the voters.
fn subscribe(
    settings: &Settings,
    world: &World,
    tls: Option<secure::ClientTls>,
) -> Result<control::Handle, Error> {
    let options = rpc::ClientOptions { tls, ..rpc::ClientOptions::default() };
    let transport = Arc::new(rpc::GrpcTransport::new(options, &tokio::runtime::Handle::current()));
    let subscriber = control::Subscriber::start(world, None, settings.control.voters(), transport);
    subscriber.map(control::Handle::from)
}

async fn measure(handle: &control::Handle) {
    loop {
        control::measure(handle);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
}

/// The log of running queries, where one is wanted; a querier serves without it if it cannot be kept.
fn active_queries(queries: &Queries, world: &World) -> Option<ActiveQueries> {
    let dir = queries.active_query_path.as_ref()?;
    match ActiveQueries::open(&*world.disk, dir, queries.max_concurrent as usize) {
        Ok((log, _)) => Some(log),
        Err(error) => {
            tracing::error!(path = %dir.display(), %error, "cannot keep the log of active queries");
            None
        }
    }
}

fn prefixed(routes: axum::Router, prefix: &str) -> axum::Router {
    match prefix.trim_end_matches('/') {
        "" => routes,
        prefix => axum::Router::new().nest(prefix, routes),
    }
}

/// Every endpoint, as a request's parameters choose.
struct Everybody(Everyone);

impl Queryable for Everybody {
    fn select_for(&self, params: &ReadParams) -> Result<Arc<dyn Select>, Problem> {
        let Everyone { endpoints, queries, world } = &self.0;
        let tenant = self.0.enforced(params.tenant.as_deref())?;
        let also = tenant.iter().map(|t| Matcher::equal(&queries.tenant_label, t.as_str())).collect();
        let pair_labels = match (params.dedup, &params.replica_labels) {
            (false, _) => Vec::new(),
            (true, Some(asked)) => settings::split(asked),
            (true, None) => queries.replica_labels(),
        };
        let reading = Reading {
            pair_labels,
            drop_labels: queries.drop_labels(),
            store_matchers: params.store_matchers.clone(),
            shard: params.shard.clone(),
            also,
            partial: params.partial_response,
            partial_by_context: false,
        };
        Ok(Arc::new(Fanout::new(endpoints.clone(), reading, world.clone())))
    }

    fn facts(&self) -> Arc<dyn api::Facts> {
        Arc::new(self.0.clone())
    }

    fn partial_response_default(&self) -> bool {
        self.0.queries.partial_response
    }
}
