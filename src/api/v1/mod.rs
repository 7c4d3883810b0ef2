//! The Prometheus HTTP API, version 1: its routes, its settings, and what they need from the role behind them.
//!
//! A request's parameters say what may be read ([`ReadParams`]); the role answers with something that selects
//! ([`Queryable`]); the engine evaluates over it on a [`QueryPool`]. The routes do not know whether series come
//! from this process or from many.

mod admin;
mod analysis;
mod evaluate;
mod exemplars;
mod facts;
mod federate;
mod metadata;
mod openapi;
mod own;
mod query;
mod read;
mod result;
mod rules;
mod series;
mod status;
mod targets;
mod tree;
mod tsdb;

pub use admin::{ADMIN_PATHS, Admin, AdminPage, Warnings, admin_router};
pub use evaluate::{Evaluated, Evaluation, Times};
pub use facts::{Facts, NoFacts, Told};
pub use status::rfc3339;
pub use tsdb::{Counts, HeadFigures, HeadPage, Heads, TSDB_PATHS, tsdb_router};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, get};
use http::{HeaderMap, StatusCode};
use model::{Matcher, Timestamp};
use runtime::World;
use storage::{Budget, Cancel, Context, PartialResponse, Select};
use wire::pb::thanos::ShardInfo;

use crate::params::{Params, parse_duration};
use crate::{Cors, MetricsPage, Problem, QueryPool, Readiness, cors, gzip};

/// What a request says about the data it wants to read.
#[derive(Clone, Debug, Default)]
pub struct ReadParams {
    /// The tenant named by the first tenant header present.
    pub tenant: Option<String>,
    /// Whether replicas are shown as one (`dedup`; true unless refused).
    pub dedup: bool,
    /// `replicaLabels[]`; if given they stand instead of the configured ones.
    pub replica_labels: Option<Vec<String>>,
    /// `storeMatch[]`: only stores for which one of these sets matches.
    pub store_matchers: Vec<Vec<Matcher>>,
    /// `partial_response`, if given.
    pub partial_response: Option<bool>,
    /// Coarsest resolution in milliseconds; 0 means raw samples only.
    pub max_source_resolution: i64,
    /// `shard_info`: only series of this shard.
    pub shard: Option<ShardInfo>,
}

/// Whoever has series to be asked for.
pub trait Queryable: Send + Sync {
    /// What answers a request with these parameters. Cheap: nothing is asked yet.
    fn select_for(&self, params: &ReadParams) -> Result<Arc<dyn Select>, Problem>;

    /// Who knows rules, targets and exemplars; asked once.
    fn facts(&self) -> Arc<dyn Facts> {
        Arc::new(NoFacts)
    }

    /// Whether an answer may be incomplete where the request does not say.
    fn partial_response_default(&self) -> bool {
        false
    }
}

/// Settings of the API.
#[derive(Clone)]
pub struct ApiSettings {
    /// Longest time of one query, waiting included; requests may ask for less.
    pub timeout: Duration,
    /// Bytes that one query may hold.
    pub max_memory: u64,
    /// Bytes that all queries together may hold.
    pub max_memory_total: u64,
    /// Step of range queries that name none (Thanos); none refuses them (Prometheus).
    pub default_step: Option<Duration>,
    /// How far back label and series listings look where the request names no start; zero means everything.
    pub metadata_default_range: Duration,
    /// Headers that may name the tenant, in this order.
    pub tenant_headers: Vec<String>,
    pub cors: Cors,
    /// Where running queries are written down.
    pub active: Option<crate::ActiveQueries>,
    /// Whether requests that name no resolution mean `auto`; else they read raw samples.
    pub auto_downsampling: bool,
    /// Resolution in milliseconds that `auto` means for instant queries.
    pub instant_resolution: i64,
    /// What `/status/flags` shows.
    pub flags: BTreeMap<String, String>,
    /// What `/status/config` shows.
    pub config_yaml: String,
    /// What `/metrics` shows, for `/status/self_metrics`.
    pub metrics: Option<MetricsPage>,
    /// Whether `stats=all` has figures of each step (`promql-per-step-stats`).
    pub per_step_stats: bool,
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            timeout: Duration::from_secs(120),
            max_memory: 1 << 30,
            max_memory_total: u64::MAX,
            default_step: None,
            metadata_default_range: Duration::ZERO,
            tenant_headers: vec!["THANOS-TENANT".to_owned(), "X-Scope-OrgID".to_owned()],
            cors: Cors::default(),
            active: None,
            auto_downsampling: false,
            instant_resolution: 3_600_000,
            flags: BTreeMap::new(),
            config_yaml: String::new(),
            metrics: None,
            per_step_stats: true,
        }
    }
}

/// Requests for rules, targets and exemplars that are worked on at once.
const ASIDE: usize = 8;

/// Everything the routes need. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

struct Inner {
    queryable: Arc<dyn Queryable>,
    facts: Arc<dyn Facts>,
    engine: promql::Engine,
    pool: QueryPool,
    /// For what is no query.
    aside: QueryPool,
    readiness: Readiness,
    world: World,
    settings: ApiSettings,
    memory: Budget,
    started_ms: Timestamp,
}

impl ApiState {
    pub fn new(
        queryable: Arc<dyn Queryable>,
        engine: promql::Engine,
        pool: QueryPool,
        readiness: Readiness,
        world: World,
        settings: ApiSettings,
    ) -> ApiState {
        let memory = Budget::new("--query.max-memory-total", settings.max_memory_total);
        let started_ms = world.clock.now_ms();
        let facts = queryable.facts();
        let aside = QueryPool::aside(ASIDE, world.clone());
        let inner =
            Inner { queryable, facts, engine, pool, aside, readiness, world, settings, memory, started_ms };
        ApiState { inner: Arc::new(inner) }
    }

    /// What all queries together may hold; whatever else reads for a caller draws on it as well.
    pub fn memory(&self) -> Budget {
        self.inner.memory.clone()
    }

    /// Ok once queries are answered.
    pub fn require_ready(&self) -> Result<(), Problem> {
        self.ready()
    }

    fn ready(&self) -> Result<(), Problem> {
        let not_ready = |reason| Problem::unavailable(format!("not ready: {reason}"));
        self.inner.readiness.check().map_err(not_ready)
    }

    fn now_ms(&self) -> Timestamp {
        self.inner.world.clock.now_ms()
    }

    /// The cancellation, deadline and budget of one request; `timeout` in nanoseconds can only shorten.
    fn context(&self, timeout: Option<i64>, read: &ReadParams) -> Context {
        let settings = &self.inner.settings;
        let asked = timeout.map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
        let timeout = asked.map_or(settings.timeout, |asked| asked.min(settings.timeout));
        let partial = read.partial_response.unwrap_or(self.inner.queryable.partial_response_default());
        Context {
            cancel: Cancel::new(Some(self.inner.pool.now() + timeout)),
            budget: self.inner.memory.child("--query.max-memory", settings.max_memory),
            partial: if partial { PartialResponse::Warn } else { PartialResponse::Abort },
        }
    }

    fn resolution(&self, text: &str, step: Option<i64>) -> Result<i64, Problem> {
        let name = "max_source_resolution";
        match text {
            "" if !self.inner.settings.auto_downsampling => Ok(0),
            "" | "auto" => Ok(step.map_or(self.inner.settings.instant_resolution, |step| step / 5)),
            text => match parse_duration(text).map_err(|why| Problem::parameter(name, why))? / 1_000_000 {
                ms if ms < 0 => Err(Problem::parameter(
                    name,
                    "negative 'max_source_resolution' is not accepted. Try a positive integer",
                )),
                ms => Ok(ms),
            },
        }
    }

    /// `step` in milliseconds is what an automatic resolution goes by; none for everything but range queries.
    fn read_params(
        &self,
        headers: &HeaderMap,
        params: &Params,
        step: Option<i64>,
    ) -> Result<ReadParams, Problem> {
        let header = |name: &String| headers.get(name.as_str())?.to_str().ok().map(str::to_owned);
        let replica_labels: Vec<String> = params.all("replicaLabels[]").map(str::to_owned).collect();
        let mut store_matchers = Vec::new();
        for text in params.all("storeMatch[]") {
            let set = promql::parse_selector(text).map_err(|why| Problem::parameter("storeMatch[]", why))?;
            store_matchers.push(set);
        }
        Ok(ReadParams {
            tenant: self.inner.settings.tenant_headers.iter().find_map(header).filter(|t| !t.is_empty()),
            dedup: params.optional_bool("dedup")?.unwrap_or(true),
            replica_labels: (!replica_labels.is_empty()).then_some(replica_labels),
            store_matchers,
            partial_response: params.optional_bool("partial_response")?,
            max_source_resolution: self.resolution(params.get("max_source_resolution"), step)?,
            shard: shard(params.get("shard_info"))?,
        })
    }
}

/// A part of the series, as a query frontend asks for it.
fn shard(text: &str) -> Result<Option<ShardInfo>, Problem> {
    #[derive(serde::Deserialize)]
    struct Shard {
        #[serde(default)]
        shard_index: i64,
        #[serde(default)]
        total_shards: i64,
        #[serde(default)]
        by: bool,
        #[serde(default)]
        labels: Option<Vec<String>>,
    }
    if text.is_empty() {
        return Ok(None);
    }
    let shard: Shard = serde_json::from_str(text)
        .map_err(|why| Problem::bad_data(format!("could not unmarshal parameter shard_info: {why}")))?;
    if shard.total_shards < 1 {
        return Ok(None);
    }
    if !(0..shard.total_shards).contains(&shard.shard_index) {
        let text = format!("shard_index {} of {} shards", shard.shard_index, shard.total_shards);
        return Err(Problem::parameter("shard_info", text));
    }
    let Shard { shard_index, total_shards, by, labels } = shard;
    Ok(Some(ShardInfo { shard_index, total_shards, by, labels: labels.unwrap_or_default() }))
}

/// Paths of [`router`] that somebody may want who missed one, for [`crate::Door::with_paths`].
pub const PATHS: [&str; 16] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/__name__/values",
    "/api/v1/read",
    "/federate",
    "/api/v1/metadata",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/status/buildinfo",
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/flags",
];

/// A route that also answers a browser's question whether it may be asked.
fn asked<S: Clone + Send + Sync + 'static>(route: MethodRouter<S>) -> MethodRouter<S> {
    route.options(|| async { StatusCode::NO_CONTENT })
}

/// The routes under `/api/v1`, and `/federate`.
pub fn router(state: ApiState) -> Router {
    let cors = state.inner.settings.cors.clone();
    let mut all = Router::new();
    for (path, route) in routes() {
        all = all.route(path, route);
    }
    all.with_state(state)
        .layer(axum::middleware::from_fn(gzip::apply))
        .layer(axum::middleware::from_fn_with_state(cors, cors::apply))
}

/// One list, against which the document of the API is held.
fn routes() -> Vec<(&'static str, MethodRouter<ApiState>)> {
    vec![
        ("/api/v1/query", asked(get(query::instant).post(query::instant))),
        ("/api/v1/query_range", asked(get(query::range).post(query::range))),
        ("/api/v1/query_explain", asked(get(analysis::explain_instant).post(analysis::explain_instant))),
        ("/api/v1/query_range_explain", asked(get(analysis::explain_range).post(analysis::explain_range))),
        ("/api/v1/query_exemplars", asked(get(exemplars::exemplars).post(exemplars::exemplars))),
        ("/api/v1/format_query", asked(get(query::format).post(query::format))),
        ("/api/v1/parse_query", asked(get(query::tree).post(query::tree))),
        ("/api/v1/series", asked(get(series::series).post(series::series))),
        ("/api/v1/labels", asked(get(series::label_names).post(series::label_names))),
        ("/api/v1/label/{name}/values", asked(get(series::label_values))),
        ("/api/v1/read", axum::routing::post(read::read)),
        ("/federate", get(federate::federate)),
        ("/api/v1/metadata", asked(get(metadata::metadata))),
        ("/api/v1/targets/metadata", asked(get(status::empty_list))),
        ("/api/v1/targets", asked(get(targets::targets))),
        ("/api/v1/scrape_pools", asked(get(targets::scrape_pools))),
        ("/api/v1/alertmanagers", asked(get(status::alertmanagers))),
        ("/api/v1/rules", asked(get(rules::rules))),
        ("/api/v1/alerts", asked(get(rules::alerts))),
        ("/api/v1/notifications", asked(get(status::empty_list))),
        ("/api/v1/notifications/live", asked(get(status::live))),
        ("/api/v1/features", asked(get(status::features))),
        ("/api/v1/scrape_pools/config", asked(get(status::no_pool))),
        ("/api/v1/targets/relabel_steps", asked(get(status::no_pool))),
        ("/api/v1/search/metric_names", asked(get(status::search).post(status::search))),
        ("/api/v1/search/label_names", asked(get(status::search).post(status::search))),
        ("/api/v1/search/label_values", asked(get(status::search).post(status::search))),
        ("/version", get(status::buildinfo)),
        ("/api/v1/status/buildinfo", asked(get(status::buildinfo))),
        ("/api/v1/status/runtimeinfo", asked(get(status::runtimeinfo))),
        ("/api/v1/status/flags", asked(get(status::flags))),
        ("/api/v1/status/config", asked(get(status::config))),
        ("/api/v1/status/walreplay", asked(get(status::walreplay))),
        ("/api/v1/status/self_metrics", asked(get(own::self_metrics))),
        ("/api/v1/openapi.yaml", asked(get(openapi::serve))),
    ]
}
