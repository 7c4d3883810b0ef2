//! `query_exemplars`: the exemplars of the series that a query selects.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use wire::pb::thanos as pb;

use super::ApiState;
use super::facts;
use crate::params::Params;
use crate::{Problem, json, number};

pub(super) async fn exemplars(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let start = params.optional_time("start")?.unwrap_or(i64::MIN);
    let end = params.optional_time("end")?.unwrap_or(i64::MAX);
    if end < start {
        return Err(Problem::bad_data("end timestamp must not be before start timestamp"));
    }
    let query = params.get("query");
    let expr = api.inner.engine.parse(query).map_err(|why| Problem::parameter("query", why))?;
    if promql::selectors(&expr).is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let request = pb::ExemplarsRequest { query: query.to_owned(), start, end, ..Default::default() };
    let ask = move |facts: &dyn facts::Facts, read: &super::ReadParams, context: &storage::Context| {
        facts.exemplars(&request, read, context)
    };
    facts::answer(&api, &headers, &params, ask, |found| Ok(write(&found))).await
}

fn write(found: &[pb::ExemplarData]) -> Vec<u8> {
    let mut out = vec![b'['];
    for (at, series) in found.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"seriesLabels\":" } else { b"{\"seriesLabels\":" });
        labels(&mut out, series.series_labels.as_ref());
        out.extend_from_slice(b",\"exemplars\":[");
        for (at, one) in series.exemplars.iter().enumerate() {
            out.extend_from_slice(if at > 0 { b",{\"labels\":" } else { b"{\"labels\":" });
            labels(&mut out, one.labels.as_ref());
            out.extend_from_slice(b",\"value\":\"");
            number::value(&mut out, one.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            number::timestamp(&mut out, one.ts);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    out
}

fn labels(out: &mut Vec<u8>, set: Option<&pb::ZLabelSet>) {
    out.push(b'{');
    for (at, label) in set.map_or(&[][..], |set| &set.labels).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::label(out, &label.name);
        out.push(b':');
        json::label(out, &label.value);
    }
    out.push(b'}');
}
