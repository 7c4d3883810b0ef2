//! `query` and `query_range`: parameters in Prometheus's order, then one evaluation.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use model::Timestamp;
use promql::{Details, Value};
use storage::Notes;

use super::ApiState;
use super::evaluate::{Evaluated, Evaluation, Times};
use super::result::{QueryData, Timings};
use crate::Problem;
use crate::params::Params;
use crate::reply::{Reply, Written};

/// Most steps of a range query, so that a graph never asks for more points than it can show.
const MAX_POINTS: i64 = 11_000;
const NANOS_PER_MS: i64 = 1_000_000;

pub(super) async fn instant(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let asked = of_instant(&api, &headers, &params)?;
    answer(&api, &params, asked).await
}

/// What an instant query asks for.
pub(super) fn of_instant(
    api: &ApiState,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Evaluation, Problem> {
    params.limit()?;
    let time = params.optional_time("time")?.unwrap_or_else(|| api.now_ms());
    let timeout = params.optional_duration("timeout")?;
    let lookback = lookback(params)?;
    let read = api.read_params(headers, params, None)?;
    let (query, times) = (params.get("query").to_owned(), Times::Instant(time));
    Ok(Evaluation { query, times, lookback, timeout, read, details: details(api, params) })
}

fn details(api: &ApiState, params: &Params) -> Details {
    let analyze = ["true", "1"].contains(&params.get("analyze"));
    Details { per_step: api.inner.settings.per_step_stats && params.get("stats") == "all", analyze }
}

pub(super) async fn range(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let asked = of_range(&api, &headers, &params)?;
    answer(&api, &params, asked).await
}

/// What a range query asks for.
pub(super) fn of_range(api: &ApiState, headers: &HeaderMap, params: &Params) -> Result<Evaluation, Problem> {
    params.limit()?;
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(Problem::parameter("end", "end timestamp must not be before start time"));
    }
    let step = step_ms(api, params, start, end)?;
    let timeout = params.optional_duration("timeout")?;
    let lookback = lookback(params)?;
    let read = api.read_params(headers, params, Some(step))?;
    let (query, times) = (params.get("query").to_owned(), Times::Range { start, end, step });
    Ok(Evaluation { query, times, lookback, timeout, read, details: details(api, params) })
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

/// Both names of Thanos's engines are ours.
pub(super) fn check_engine(params: &Params) -> Result<(), Problem> {
    match params.get("engine") {
        "" | "prometheus" | "thanos" => Ok(()),
        other => Err(Problem::bad_data(format!("'{other}' bad engine"))),
    }
}

/// Evaluates and writes the answer.
async fn answer(api: &ApiState, params: &Params, asked: Evaluation) -> Result<Response, Problem> {
    let limit = params.limit()?;
    check_engine(params)?;
    let Evaluated { mut value, mut notes, stats, analysis, queued, held } = api.evaluate(asked).await?;
    if limit > 0 && truncate(&mut value, limit) {
        notes.warn("results truncated due to limit");
    }
    let timings = match params.get("stats") {
        "" => None,
        _ => Some(Timings { stats, queued }),
    };
    Ok(Reply::new(QueryData::new(value, timings, Some(held)).analyzed(analysis), notes).into_response())
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// The query as the parser understood it, in one line.
pub(super) async fn format(State(api): State<ApiState>, params: Params) -> Result<Response, Problem> {
    let tree = api.inner.engine.parse(params.get("query")).map_err(|why| Problem::parameter("query", why))?;
    let mut out = Vec::new();
    crate::json::text(&mut out, &tree.to_string());
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}

/// The query's tree, for those who show it.
pub(super) async fn tree(State(api): State<ApiState>, params: Params) -> Result<Response, Problem> {
    let tree = api.inner.engine.parse(params.get("query")).map_err(|why| Problem::parameter("query", why))?;
    let mut out = Vec::new();
    super::tree::write(&mut out, &tree);
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}
