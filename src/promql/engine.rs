//! The door of the crate: a request in, a result out.
//!
//! Holds the settings, attaches deadline and budget to one evaluation and runs parse, plan and exec in turn.
//! It knows neither where series come from nor who asked.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::Timestamp;
use runtime::World;
use storage::{Context, Select};

use crate::exec::{Grid, Root, Run};
use crate::parse::{self, Limits, Type};
use crate::plan::PlanContext;
use crate::room::with_room;
use crate::{EngineSettings, Error, QueryResult, Stats};

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
}

/// Evaluates queries. Cheap to clone; holds no data.
#[derive(Clone)]
pub struct Engine {
    settings: Arc<EngineSettings>,
    world: World,
}

impl Engine {
    pub fn new(settings: EngineSettings, world: World) -> Engine {
        Engine { settings: Arc::new(settings), world }
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
        let times = Times { start: request.time, end: request.time, step: 0 };
        let lookback = request.lookback_override;
        self.evaluate(&request.query, times, lookback, request.max_resolution, &*select, context)
    }

    /// Evaluates at every step of a range; the value is always a matrix.
    pub fn range(
        &self,
        request: &RangeRequest,
        select: Arc<dyn Select>,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        if request.step <= 0 {
            return Err(Error::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if request.end < request.start {
            return Err(Error::invalid("end timestamp must not be before start time"));
        }
        let times = Times { start: request.start, end: request.end, step: request.step };
        let lookback = request.lookback_override;
        self.evaluate(&request.query, times, lookback, request.max_resolution, &*select, context)
    }

    fn evaluate(
        &self,
        text: &str,
        times: Times,
        lookback: Option<i64>,
        max_resolution: i64,
        select: &dyn Select,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let clock = &self.world.clock;
        let began = clock.monotonic();
        let _running = Running::new();
        let limits = Limits { depth: self.settings.max_depth, bytes: self.settings.max_query_bytes };
        let expr = parse::parse_within(text, limits)?;
        let instant = times.step == 0;
        if !instant && !matches!(expr.type_of(), Type::Scalar | Type::Vector) {
            return Err(Error::invalid(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                expr.type_of().describe()
            )));
        }
        let plan_context = PlanContext {
            start: times.start,
            end: times.end,
            step: times.step,
            default_subquery_step: self.settings.default_subquery_step_ms,
            max_resolution,
        };
        let lookback = lookback.filter(|ms| *ms > 0).unwrap_or(self.settings.lookback_ms);
        let run = Run::new(select, context, &self.settings, &self.world, text, lookback, instant);
        let grid = Grid::new(times.start, times.end, times.step);
        let root = with_room(expr.height(), Error::exhausted, || Root::plan(&expr, &plan_context))?;
        let prepared = clock.monotonic();
        let answer = with_room(expr.height(), Error::exhausted, || root.evaluate(grid, &run))?;
        let evaluated = clock.monotonic();
        let value = answer.into_value(grid, instant);
        let stats = Stats {
            samples: run.samples.load(Relaxed),
            peak_samples: run.peak.load(Relaxed),
            peak_bytes: run.budget.peak(),
            prepare: prepared - began,
            evaluate: evaluated - prepared,
            sort: clock.monotonic() - evaluated,
        };
        record(&stats);
        Ok(QueryResult { value, notes: run.take_notes(), stats })
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

struct Times {
    start: Timestamp,
    end: Timestamp,
    step: i64,
}
