//! One evaluation, whoever asks for it: parsed, written down, given its turn, its deadline and its budget.

use std::time::Duration;

use model::{FloatHistogram, Kind, Labels, Timestamp};
use promql::{Analysis, Class, Details, InstantRequest, Point, QueryResult, RangeRequest, Stats, Value};
use storage::{Cancel, Notes, Reservation};

use super::{ApiState, ReadParams};
use crate::{ErrorType, Problem};

/// The times of a query, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    Instant(Timestamp),
    Range { start: Timestamp, end: Timestamp, step: i64 },
}

/// What is to be evaluated.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub query: String,
    pub times: Times,
    /// Instead of the configured one, in milliseconds.
    pub lookback: Option<i64>,
    /// In nanoseconds; can only shorten.
    pub timeout: Option<i64>,
    pub read: ReadParams,
    pub details: Details,
}

/// What came of it.
pub struct Evaluated {
    pub value: Value,
    pub notes: Notes,
    pub stats: Stats,
    /// Where it was asked for.
    pub analysis: Option<Analysis>,
    /// Time in the queue.
    pub queued: Duration,
    /// The value's bytes in the query's budget.
    pub held: Reservation,
}

impl ApiState {
    /// Evaluates; dropping the future ends the evaluation.
    pub async fn evaluate(&self, asked: Evaluation) -> Result<Evaluated, Problem> {
        let Evaluation { query, times, lookback, timeout, read, details } = asked;
        // A text that does not parse must not wait in the queue, nor ask anybody.
        self.inner.engine.parse(&query).map_err(|why| Problem::parameter("query", why))?;
        let inner = &self.inner;
        let context = self.context(timeout, &read);
        let (cancel, budget) = (context.cancel.clone(), context.budget.clone());
        let select = inner.queryable.select_for(&read)?;
        let party = read.tenant.clone().unwrap_or_default();
        let (engine, log, now) = (inner.engine.clone(), inner.settings.active.clone(), self.now_ms());
        let work = move || {
            let _running = log.and_then(|log| log.enter(&query, now));
            let max_resolution = read.max_source_resolution;
            let once = || match times {
                Times::Instant(time) => {
                    let (query, lookback_override) = (query.clone(), lookback);
                    let request = InstantRequest { query, time, lookback_override, max_resolution, details };
                    engine.instant(&request, select.clone(), &context)
                }
                Times::Range { start, end, step } => {
                    let (query, lookback_override) = (query.clone(), lookback);
                    let request =
                        RangeRequest { query, start, end, step, lookback_override, max_resolution, details };
                    engine.range(&request, select.clone(), &context)
                }
            };
            match once() {
                // Who broke off in the middle of its answer is known to be away now, and those who can stand in for it
                // may have been left aside as too slow: nothing was answered yet.
                Err(error) if error.class == Class::Storage && error.kind == Kind::Unavailable => {
                    tracing::info!(query, %error, "what was to be read broke off; it is asked for once more");
                    once()
                }
                answer => answer,
            }
        };
        let ran = inner.pool.run(&cancel, &party, work).await?;
        let QueryResult { value, notes, stats, analysis } =
            ran.value.map_err(|error| self.problem(error, &cancel))?;
        // A slow client holds the result for longer than the evaluation held what it was made of.
        let held = budget.reserve(bytes_of(&value))?;
        Ok(Evaluated { value, notes, stats, analysis, queued: ran.queued, held })
    }

    fn problem(&self, error: promql::Error, cancel: &Cancel) -> Problem {
        match error.class {
            Class::Parse => Problem::parameter("query", error.message),
            Class::Execution => Problem::of_query(error.kind, error.message, cancel, self.inner.pool.now()),
            Class::Canceled => Problem::new(ErrorType::Canceled, error.message),
            Class::Timeout => Problem::new(ErrorType::Timeout, error.message),
            Class::Storage => {
                if !error.kind.retryable() {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a query could not read its series"
                    );
                }
                Problem::of_query(error.kind, error.message, cancel, self.inner.pool.now())
            }
        }
    }
}

/// About what a result takes in memory.
fn bytes_of(value: &Value) -> u64 {
    let native = |h: &FloatHistogram| {
        size_of::<FloatHistogram>() + 8 * (h.positive_counts.len() + h.negative_counts.len())
    };
    let of = |labels: &Labels, points: usize| labels.as_bytes().len() + points * size_of::<Point>() + 48;
    let bytes = match value {
        Value::Scalar(..) => 0,
        Value::String(_, text) => text.len(),
        Value::Vector(samples) => {
            samples.iter().map(|s| of(&s.labels, 1) + s.histogram.as_deref().map_or(0, native)).sum()
        }
        Value::Matrix(series) => series
            .iter()
            .map(|s| of(&s.labels, s.points.len()) + s.histograms.iter().map(|p| native(&p.h)).sum::<usize>())
            .sum(),
    };
    bytes as u64
}
