//! `query` and `query_range`: parameters in Prometheus's order, then one evaluation.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use model::{Labels, Timestamp};
use promql::{Class, InstantRequest, Point, QueryResult, RangeRequest, Value};
use storage::{Cancel, Context, Notes};

use super::result::{QueryData, Timings};
use super::{ApiState, ReadParams};
use crate::params::Params;
use crate::reply::{Reply, Written};
use crate::{ErrorType, Problem};

/// Most steps of a range query, so that a graph never asks for more points than it can show.
const MAX_POINTS: i64 = 11_000;
const NANOS_PER_MS: i64 = 1_000_000;

pub(super) async fn instant(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let limit = params.limit()?;
    let time = params.optional_time("time")?.unwrap_or_else(|| api.now_ms());
    let timeout = params.optional_duration("timeout")?;
    let lookback_override = lookback(&params)?;
    let read = api.read_params(&headers, &params, None)?;
    let request = InstantRequest {
        query: params.get("query").to_owned(),
        time,
        lookback_override,
        max_resolution: read.max_source_resolution,
    };
    let engine = api.inner.engine.clone();
    evaluate(&api, &params, timeout, limit, read, move |select, context| {
        engine.instant(&request, select, context)
    })
    .await
}

pub(super) async fn range(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let limit = params.limit()?;
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(Problem::parameter("end", "end timestamp must not be before start time"));
    }
    let step = step_ms(&api, &params, start, end)?;
    let timeout = params.optional_duration("timeout")?;
    let lookback_override = lookback(&params)?;
    let read = api.read_params(&headers, &params, Some(step))?;
    let request = RangeRequest {
        query: params.get("query").to_owned(),
        start,
        end,
        step,
        lookback_override,
        max_resolution: read.max_source_resolution,
    };
    let engine = api.inner.engine.clone();
    evaluate(&api, &params, timeout, limit, read, move |select, context| {
        engine.range(&request, select, context)
    })
    .await
}

/// The step in milliseconds, with the limit on the number of points.
fn step_ms(api: &ApiState, params: &Params, start: Timestamp, end: Timestamp) -> Result<i64, Problem> {
    let width = i128::from(end) - i128::from(start);
    let nanos = match (params.get("step"), api.inner.settings.default_step) {
        ("", Some(default)) => {
            // As Thanos: about 250 points, never closer than the default step.
            let of_width =
                i64::try_from(width / 1000 / 250).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
            of_width.max(i64::try_from(default.as_nanos()).unwrap_or(i64::MAX))
        }
        (text, _) => crate::params::parse_duration(text).map_err(|why| Problem::parameter("step", why))?,
    };
    let step = nanos / NANOS_PER_MS;
    if step <= 0 {
        return Err(Problem::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if width * i128::from(NANOS_PER_MS) / i128::from(nanos) > i128::from(MAX_POINTS) {
        return Err(Problem::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    Ok(step)
}

fn lookback(params: &Params) -> Result<Option<i64>, Problem> {
    match params.get("lookback_delta") {
        "" => Ok(None),
        text => match crate::params::parse_duration(text) {
            Ok(nanos) => Ok(Some(nanos / NANOS_PER_MS).filter(|ms| *ms > 0)),
            Err(why) => Err(Problem::bad_data(format!("error parsing lookback delta duration: {why}"))),
        },
    }
}

async fn evaluate(
    api: &ApiState,
    params: &Params,
    timeout: Option<i64>,
    limit: usize,
    read: ReadParams,
    work: impl FnOnce(std::sync::Arc<dyn storage::Select>, &Context) -> Result<QueryResult, promql::Error>
    + Send
    + 'static,
) -> Result<Response, Problem> {
    let text = params.get("query");
    // A text that does not parse must not wait in the queue, nor ask anybody.
    promql::parse(text).map_err(|why| Problem::parameter("query", why))?;
    let context = api.context(timeout, &read);
    let (cancel, budget) = (context.cancel.clone(), context.budget.clone());
    let select = api.inner.queryable.select_for(&read)?;
    let ran = api.inner.pool.run(&cancel, move || work(select, &context)).await?;
    let QueryResult { mut value, mut notes, stats } =
        ran.value.map_err(|error| problem(api, error, &cancel))?;
    if limit > 0 && truncate(&mut value, limit) {
        notes.warn("results truncated due to limit");
    }
    // A slow client holds the result for longer than the evaluation held what it was made of.
    let held = budget.reserve(bytes_of(&value))?;
    let timings = match params.get("stats") {
        "" => None,
        _ => Some(Timings { stats, queued: ran.queued }),
    };
    Ok(Reply::new(QueryData::new(value, timings, Some(held)), notes).into_response())
}

/// About what a result takes in memory.
fn bytes_of(value: &Value) -> u64 {
    let of = |labels: &Labels, points: usize| labels.as_bytes().len() + points * size_of::<Point>() + 48;
    let bytes = match value {
        Value::Scalar(..) => 0,
        Value::String(_, text) => text.len(),
        Value::Vector(samples) => samples.iter().map(|s| of(&s.labels, 1)).sum(),
        Value::Matrix(series) => series.iter().map(|s| of(&s.labels, s.points.len())).sum(),
    };
    bytes as u64
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

fn problem(api: &ApiState, error: promql::Error, cancel: &Cancel) -> Problem {
    match error.class {
        Class::Parse => Problem::parameter("query", error.message),
        Class::Execution => Problem::of_query(error.kind, error.message, cancel, api.inner.pool.now()),
        Class::Canceled => Problem::new(ErrorType::Canceled, error.message),
        Class::Timeout => Problem::new(ErrorType::Timeout, error.message),
        Class::Storage => {
            if !error.kind.retryable() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a query could not read its series"
                );
            }
            Problem::of_query(error.kind, error.message, cancel, api.inner.pool.now())
        }
    }
}

/// The query as the parser understood it, in one line.
pub(super) async fn format(params: Params) -> Result<Response, Problem> {
    let tree = promql::parse(params.get("query")).map_err(|why| Problem::parameter("query", why))?;
    let mut out = Vec::new();
    crate::json::text(&mut out, &tree.to_string());
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}

/// The query's tree, for those who show it.
pub(super) async fn tree(params: Params) -> Result<Response, Problem> {
    let tree = promql::parse(params.get("query")).map_err(|why| Problem::parameter("query", why))?;
    let mut out = Vec::new();
    super::tree::write(&mut out, &tree);
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}
