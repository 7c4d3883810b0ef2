//! What a role knows beside series: rules, targets, exemplars. Empty where it knows nothing, never absent.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use storage::{Context, Error, Meanings, MetadataRequest, Notes};
use wire::pb::thanos as pb;

use super::{ApiState, ReadParams};
use crate::Problem;
use crate::params::Params;
use crate::reply::{Reply, Written};

/// Items, and what has to be said about them.
pub type Told<T> = (Vec<T>, Notes);

/// Somebody who is asked for what is no series. Calls block. Each method left out answers with nothing.
pub trait Facts: Send + Sync {
    /// Rule groups, of the type and with the names that are asked for. More is filtered out by the caller.
    fn rules(
        &self,
        _request: &pb::RulesRequest,
        _read: &ReadParams,
        _context: &Context,
    ) -> Result<Told<pb::RuleGroup>, Error> {
        Ok(Told::default())
    }

    fn targets(
        &self,
        _request: &pb::TargetsRequest,
        _read: &ReadParams,
        _context: &Context,
    ) -> Result<Told<pb::TargetDiscovery>, Error> {
        Ok(Told::default())
    }

    /// Exemplars by series, sorted.
    fn exemplars(
        &self,
        _request: &pb::ExemplarsRequest,
        _read: &ReadParams,
        _context: &Context,
    ) -> Result<Told<pb::ExemplarData>, Error> {
        Ok(Told::default())
    }

    /// What metrics mean; the tenant is the role's to choose.
    fn metadata(
        &self,
        _request: &MetadataRequest,
        _read: &ReadParams,
        _context: &Context,
    ) -> Result<Meanings, Error> {
        Ok(Meanings::default())
    }
}

/// Knows nothing.
pub struct NoFacts;

impl Facts for NoFacts {}

/// Asks the role on a thread of the pool kept for this, and writes what it said.
pub(super) async fn answer<T: Send + 'static>(
    api: &ApiState,
    headers: &HeaderMap,
    params: &Params,
    ask: impl FnOnce(&dyn Facts, &ReadParams, &Context) -> Result<Told<T>, Error> + Send + 'static,
    write: impl FnOnce(Vec<T>) -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let read = api.read_params(headers, params, None)?;
    let context = api.context(None, &read);
    let (cancel, party) = (context.cancel.clone(), read.tenant.clone().unwrap_or_default());
    let facts: Arc<dyn Facts> = api.inner.facts.clone();
    let work = move || {
        let (items, notes) = ask(&*facts, &read, &context)?;
        Ok::<_, Error>((items, notes))
    };
    let ran = api.inner.aside.run(&cancel, &party, work).await?;
    let failed = |e: Error| Problem::of_query(e.kind, e.message, &cancel, api.inner.pool.now());
    let (items, notes) = ran.value.map_err(failed)?;
    Ok(Reply::new(Written(write(items)?), notes).into_response())
}

/// A value that serde writes, as Prometheus escapes text outside of labels.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    let text = serde_json::to_string(value)
        .map_err(|e| Problem::new(crate::ErrorType::Internal, format!("an answer cannot be written: {e}")))?;
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return Ok(text.into_bytes());
    }
    // None of these means anything to JSON outside of strings.
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    Ok(out.into_bytes())
}

/// Labels as a JSON object.
pub(super) fn map(set: Option<&pb::ZLabelSet>) -> std::collections::BTreeMap<&str, &str> {
    let labels = set.map_or(&[][..], |set| &set.labels);
    labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect()
}

/// A protobuf time (seconds and nanoseconds) as RFC 3339; none is Go's zero time.
pub(super) fn time(at: Option<(i64, i32)>) -> String {
    let Some((seconds, nanos)) = at else { return "0001-01-01T00:00:00Z".to_owned() };
    let whole = super::rfc3339(seconds.clamp(-62_135_596_800, 253_402_300_799) * 1000);
    match nanos {
        1..=999_999_999 => {
            let fraction = format!("{nanos:09}");
            format!("{}.{}Z", whole.trim_end_matches('Z'), fraction.trim_end_matches('0'))
        }
        _ => whole,
    }
}

/// A duration in seconds as JSON writes it: what is no number is 0.
pub(super) fn seconds(seconds: f64) -> serde_json::Number {
    let whole = seconds as i64;
    if whole as f64 == seconds {
        return whole.into();
    }
    serde_json::Number::from_f64(seconds).unwrap_or_else(|| 0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_digits_they_need() {
        assert_eq!(time(None), "0001-01-01T00:00:00Z");
        assert_eq!(time(Some((-62_135_596_800, 0))), "0001-01-01T00:00:00Z");
        assert_eq!(time(Some((1_795_227_424, 120_000_000))), "2026-11-21T02:17:04.12Z");
        assert_eq!(time(Some((1_795_227_424, 1))), "2026-11-21T02:17:04.000000001Z");
        assert_eq!(time(Some((i64::MAX, -5))), "9999-12-31T23:59:59Z");
        assert_eq!(seconds(60.0).to_string(), "60");
        assert_eq!(seconds(0.25).to_string(), "0.25");
        assert_eq!(seconds(f64::NAN).to_string(), "0");
    }
}
