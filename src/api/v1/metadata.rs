//! `metadata`: type, help and unit of metrics.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use model::Meaning;
use serde::Serialize;
use storage::MetadataRequest;

use super::ApiState;
use super::facts::{self, json};
use crate::Problem;
use crate::params::Params;

#[derive(Serialize)]
struct One<'a> {
    r#type: &'static str,
    help: &'a str,
    unit: &'a str,
}

fn one(meaning: &Meaning) -> One<'_> {
    One { r#type: meaning.kind.as_str(), help: &meaning.help, unit: &meaning.unit }
}

/// A number of things as Prometheus reads it: none and below zero are all.
fn limit(params: &Params, name: &str) -> Result<Option<usize>, Problem> {
    let text = params.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let number: i64 = text.parse().map_err(|_| Problem::bad_data(format!("{name} must be a number")))?;
    Ok(usize::try_from(number).ok())
}

pub(super) async fn metadata(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    // Of one metric Prometheus shows all for 0, of all metrics none.
    let per_metric = limit(&params, "limit_per_metric")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let request = MetadataRequest {
        tenant: None,
        metric: Some(params.get("metric").to_owned()).filter(|name| !name.is_empty()),
        limit: limit(&params, "limit")?,
    };
    let ask = move |facts: &dyn facts::Facts, read: &super::ReadParams, context: &storage::Context| {
        let found = facts.metadata(&request, read, context)?;
        Ok((vec![found.metrics], found.notes))
    };
    let write = move |found: Vec<std::collections::BTreeMap<String, Vec<Meaning>>>| {
        let all = found.iter().flatten();
        let shown: std::collections::BTreeMap<&str, Vec<One<'_>>> =
            all.map(|(name, all)| (name.as_str(), all.iter().take(per_metric).map(one).collect())).collect();
        json(&shown)
    };
    facts::answer(&api, &headers, &params, ask, write).await
}
