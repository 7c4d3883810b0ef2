//! The query role: PromQL over everyone who has data.
//!
//! It finds its endpoints (`endpoints`), asks those that may have part of an answer (`fanout`), judges whether
//! the answer is whole (`complete`), and serves the Prometheus HTTP API (crate `api`) and a StoreAPI of its own
//! (`backend`). It keeps no samples and no state on disk.
//!
//! Of a query: `api::v1` reads the request -> `promql` evaluates over a `Fanout` -> `rpc::StoreClient`s ask the
//! endpoints -> their streams are merged, replicas become one -> JSON.

mod backend;
mod complete;
mod dedup;
mod endpoints;
mod error;
mod fanout;
mod penalty;
mod prune;
mod resolve;
mod settings;
mod sources;
mod stores;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::{
    ApiSettings, ApiState, Cors, Door, MetricsPage, Problem, QueryPool, Queryable, ReadParams, Readiness,
    Server, ServerSettings,
};
use model::{Kind, Matcher, TenantId};
use promql::{Engine, EngineSettings};
use rpc::{Health, ServeOptions, Services, StoreOptions, StoreServer};
use runtime::{Shutdown, World};
use storage::Select;
use tokio::net::TcpListener;

pub use complete::{Judgement, Needed, Seat, Tolerance, judge};
pub use endpoints::{Endpoint, EndpointOptions, Endpoints, State};
pub use error::Error;
pub use fanout::{Fanout, Reading};
pub use resolve::{Dns, Resolve, Resolved};
pub use settings::{Discovery, Queries, Settings};
pub use targets::{Target, Wanted};

/// A querier: bound, not yet serving.
pub struct Query {
    settings: Settings,
    world: World,
    http: Server,
    grpc: TcpListener,
    grpc_address: SocketAddr,
    endpoints: Arc<Endpoints>,
    sources: sources::Sources,
    readiness: Readiness,
    door: Door,
    flags: BTreeMap<String, String>,
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
        let server = ServerSettings {
            grace: settings.common.http_grace_period.as_duration(),
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
            unhealthy_timeout: discovery.unhealthy_timeout.as_duration(),
            response_timeout: Some(discovery.response_timeout.as_duration()).filter(|limit| !limit.is_zero()),
        };
        let endpoints = Endpoints::new(options, Arc::new(Dns::new()), world.clone());
        let readiness = Readiness::starting("asking the endpoints for the first time");
        let door = Door::new("tributary query", readiness.clone(), metrics)
            .with_paths(&api::v1::PATHS)
            .with_paths(&["/api/v1/stores"]);
        Ok(Query {
            settings,
            world: world.clone(),
            http,
            grpc,
            grpc_address,
            endpoints,
            sources,
            readiness,
            door,
            flags,
        })
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
            endpoints,
            mut sources,
            readiness,
            door,
            flags,
        } = self;
        tracing::info!(address = %grpc_address, "listening for grpc");
        let routes = routes(&settings, &endpoints, &readiness, &world, flags);
        // Probes and metrics stay at the root, whatever the prefix of the API.
        let routes = door.open(prefixed(routes, &settings.route_prefix));
        let backend = backend::Backend {
            endpoints: endpoints.clone(),
            readiness: readiness.clone(),
            drop_labels: settings.queries.drop_labels.clone(),
            world: world.clone(),
        };
        let options = StoreOptions {
            max_concurrent: settings.queries.max_concurrent as usize,
            ..StoreOptions::default()
        };
        let store = StoreServer::new(Arc::new(backend), options, world.clone());
        let probe = readiness.clone();
        let services = Services::new(Health::new(move || probe.is_ready())).store(store);
        let serve_options =
            ServeOptions { grace: settings.grpc.grpc_grace_period.as_duration(), ..ServeOptions::default() };

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
        let (result, (), (), ()) = tokio::join!(watched, serving_http, discovery, stopping);
        result.map_err(Error::from)
    }
}

fn routes(
    settings: &Settings,
    endpoints: &Arc<Endpoints>,
    readiness: &Readiness,
    world: &World,
    flags: BTreeMap<String, String>,
) -> axum::Router {
    let queries = &settings.queries;
    let engine = Engine::new(
        EngineSettings {
            lookback_ms: queries.lookback_delta.ms(),
            timeout: queries.timeout.as_duration(),
            max_memory_per_query: queries.max_memory.bytes(),
            default_subquery_step_ms: queries.default_evaluation_interval.ms(),
            ..EngineSettings::default()
        },
        world.clone(),
    );
    let mut tenant_headers = vec![queries.tenant_header.clone()];
    tenant_headers.extend(["THANOS-TENANT", "X-Scope-OrgID"].map(str::to_owned));
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
        cors: if settings.disable_cors { Cors::Off } else { Cors::Any },
        flags,
        config_yaml: String::new(),
    };
    let queryable =
        Everybody { endpoints: endpoints.clone(), queries: queries.clone(), world: world.clone() };
    let pool = QueryPool::new(queries.max_concurrent as usize, world.clone());
    let state =
        ApiState::new(Arc::new(queryable), engine, pool, readiness.clone(), world.clone(), api_settings);
    api::router(state).merge(stores::router(endpoints.clone(), world.clone()))
}

fn prefixed(routes: axum::Router, prefix: &str) -> axum::Router {
    match prefix.trim_end_matches('/') {
        "" => routes,
        prefix => axum::Router::new().nest(prefix, routes),
    }
}

/// Every endpoint, as a request's parameters choose.
struct Everybody {
    endpoints: Arc<Endpoints>,
    queries: Queries,
    world: World,
}

impl Queryable for Everybody {
    fn select_for(&self, params: &ReadParams) -> Result<Arc<dyn Select>, Problem> {
        let mut also = Vec::new();
        if self.queries.enforce_tenancy {
            let tenant = params.tenant.as_deref().unwrap_or(&self.queries.default_tenant);
            let tenant = TenantId::new(tenant).map_err(|e| Problem::bad_data(e.to_string()))?;
            also.push(Matcher::equal(&self.queries.tenant_label, tenant.as_str()));
        }
        // Thanos takes lists with commas as well.
        let split = |labels: &[String]| -> Vec<String> {
            let all = labels.iter().flat_map(|l| l.split(',')).map(str::trim).filter(|l| !l.is_empty());
            all.map(str::to_owned).collect()
        };
        let pair_labels = match (params.dedup, &params.replica_labels) {
            (false, _) => Vec::new(),
            (true, Some(asked)) => split(asked),
            (true, None) => split(&self.queries.replica_labels),
        };
        let reading = Reading {
            pair_labels,
            drop_labels: split(&self.queries.drop_labels),
            store_matchers: params.store_matchers.clone(),
            also,
            partial: params.partial_response,
            partial_by_context: false,
        };
        Ok(Arc::new(Fanout::new(self.endpoints.clone(), reading, self.world.clone())))
    }

    fn partial_response_default(&self) -> bool {
        self.queries.partial_response
    }
}
