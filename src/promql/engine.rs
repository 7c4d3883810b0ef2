//! The door of the crate: a request in, a result out.
//!
//! Holds the settings, attaches deadline and budget to one evaluation and runs parse, plan and exec in turn.
//! It knows neither where series come from nor who asked.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::Timestamp;
use runtime::World;
use storage::{Context, Select};

use crate::exec::{Grid, Root, Run, Threads, Trace};
use crate::parse::{self, Limits, ParseError, Type};
use crate::plan::{Explained, PlanContext};
use crate::room::with_room;
use crate::{EngineSettings, Error, Expr, QueryResult, Stats};

/// Figures that are not had for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Samples looked at, step by step.
    pub per_step: bool,
    /// What each operator cost.
    pub analyze: bool,
}

/// A query at one time.
#[derive(Clone, Debug, Default)]
pub struct InstantRequest {
    pub query: String,
    /// Milliseconds since the epoch.
    pub time: Timestamp,
    /// Instead of the engine's lookback, in milliseconds.
    pub lookback_override: Option<i64>,
    /// Coarsest downsampling that may be used, in milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
    pub details: Details,
}

/// A query at every step of a time range; both ends belong to it.
#[derive(Clone, Debug, Default)]
pub struct RangeRequest {
    pub query: String,
    pub start: Timestamp,
    pub end: Timestamp,
    /// Milliseconds, greater than 0.
    pub step: i64,
    /// Instead of the engine's lookback, in milliseconds.
    pub lookback_override: Option<i64>,
    /// Coarsest downsampling that may be used, in milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
    pub details: Details,
}

/// Evaluates queries. Cheap to clone; holds no data.
#[derive(Clone)]
pub struct Engine {
    settings: Arc<EngineSettings>,
    world: World,
    threads: Arc<Threads>,
}

impl Engine {
    pub fn new(settings: EngineSettings, world: World) -> Engine {
        let threads = Arc::new(Threads::new(settings.threads));
        Engine { settings: Arc::new(settings), world, threads }
    }

    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Evaluates at one time. Blocks; to be called on a pool kept for queries.
    pub fn instant(
        &self,
        request: &InstantRequest,
        select: Arc<dyn Select>,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let InstantRequest { ref query, time, lookback_override: lookback, max_resolution, details } =
            *request;
        let how = How { start: time, end: time, step: 0, lookback, max_resolution, details };
        self.evaluate(query, how, &*select, context)
    }

    /// Evaluates at every step of a range; the value is always a matrix.
    pub fn range(
        &self,
        request: &RangeRequest,
        select: Arc<dyn Select>,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let how = How::of_range(request)?;
        self.evaluate(&request.query, how, &*select, context)
    }

    /// The plan of an instant query; nothing is read.
    pub fn explain_instant(&self, request: &InstantRequest) -> Result<Explained, Error> {
        let InstantRequest { ref query, time, lookback_override: lookback, max_resolution, details } =
            *request;
        let how = How { start: time, end: time, step: 0, lookback, max_resolution, details };
        let expr = self.parsed(query, &how)?;
        Ok(self.planned(&expr, &how)?.explain())
    }

    /// The plan of a range query; nothing is read.
    pub fn explain_range(&self, request: &RangeRequest) -> Result<Explained, Error> {
        let how = How::of_range(request)?;
        let expr = self.parsed(&request.query, &how)?;
        Ok(self.planned(&expr, &how)?.explain())
    }

    /// Reads a query within the limits and with the features that are set.
    pub fn parse(&self, text: &str) -> Result<Expr, ParseError> {
        let limits = Limits { depth: self.settings.max_depth, bytes: self.settings.max_query_bytes };
        let expr = parse::parse_within(text, limits)?;
        self.settings.features.check(text, &expr)?;
        Ok(expr)
    }

    fn parsed(&self, text: &str, how: &How) -> Result<Expr, Error> {
        let expr = self.parse(text)?;
        if how.step != 0 && !matches!(expr.type_of(), Type::Scalar | Type::Vector) {
            return Err(Error::invalid(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                expr.type_of().describe()
            )));
        }
        Ok(expr)
    }

    fn planned(&self, expr: &Expr, how: &How) -> Result<Root, Error> {
        let context = PlanContext {
            start: how.start,
            end: how.end,
            step: how.step,
            default_subquery_step: self.settings.default_subquery_step_ms,
            max_resolution: how.max_resolution,
        };
        with_room(expr.height(), Error::exhausted, || Root::plan(expr, &context))
    }

    fn evaluate(
        &self,
        text: &str,
        how: How,
        select: &dyn Select,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let clock = &self.world.clock;
        let began = clock.monotonic();
        let _running = Running::new();
        let _busy = self.threads.begin();
        let expr = self.parsed(text, &how)?;
        let instant = how.step == 0;
        let lookback = how.lookback.filter(|ms| *ms > 0).unwrap_or(self.settings.lookback_ms);
        let (settings, threads) = (&self.settings, &self.threads);
        // What is read for the query counts as well.
        let budget = context.budget.child("--query.max-memory", settings.max_memory_per_query);
        let context = &Context { budget, ..context.clone() };
        let mut run = Run::new(select, context, settings, &self.world, text, lookback, instant, threads);
        let grid = Grid::new(how.start, how.end, how.step);
        let root = self.planned(&expr, &how)?;
        if how.details != Details::default() && grid.len <= self.settings.max_samples {
            run.trace = Trace::new(how.details, grid.len);
        }
        let prepared = clock.monotonic();
        let answer = with_room(expr.height(), Error::exhausted, || root.evaluate(grid, &run))?;
        let evaluated = clock.monotonic();
        let value = answer.into_value(&run, grid, instant)?;
        let stats = Stats {
            samples: run.trace.samples(),
            per_step: run.trace.per_step(grid),
            peak_samples: run.peak.load(Relaxed),
            peak_bytes: context.budget.peak(),
            prepare: prepared - began,
            evaluate: evaluated - prepared,
            sort: clock.monotonic() - evaluated,
        };
        record(&stats);
        let analysis = run.trace.analysis(&format!("[query] {expr}"), stats.evaluate, stats.peak_samples);
        Ok(QueryResult { value, notes: run.take_notes(), stats, analysis })
    }
}

/// Tells what one evaluation cost, under the names of Prometheus's engine.
fn record(stats: &Stats) {
    metrics::counter!("prometheus_engine_query_samples_total").increment(stats.samples);
    for (slice, took) in
        [("prepare_time", stats.prepare), ("inner_eval", stats.evaluate), ("result_sort", stats.sort)]
    {
        metrics::histogram!("prometheus_engine_query_duration_seconds", "slice" => slice)
            .record(took.as_secs_f64());
    }
}

/// Counts a query as running for as long as it lives.
struct Running;

impl Running {
    fn new() -> Running {
        metrics::gauge!("prometheus_engine_queries").increment(1.0);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::gauge!("prometheus_engine_queries").decrement(1.0);
    }
}

/// What a request says beside its text.
struct How {
    start: Timestamp,
    end: Timestamp,
    /// 0 for instant queries.
    step: i64,
    lookback: Option<i64>,
    max_resolution: i64,
    details: Details,
}

impl How {
    fn of_range(request: &RangeRequest) -> Result<How, Error> {
        let RangeRequest { start, end, step, lookback_override: lookback, max_resolution, details, .. } =
            *request;
        if step <= 0 {
            return Err(Error::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end < start {
            return Err(Error::invalid("end timestamp must not be before start time"));
        }
        Ok(How { start, end, step, lookback, max_resolution, details })
    }
}
