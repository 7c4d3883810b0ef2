//! What the server says about itself, and the empty answers for what it does not have.
//!
//! Clients probe these before their first query; a 404 makes them guess. Grafana takes a non-empty `features` in
//! `buildinfo` for Mimir, so there is none; the version is that of the Prometheus whose API this is.

use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, header};
use model::Timestamp;
use promql::parse::AggregateOp;
use serde_json::json;
use storage::Notes;

use super::ApiState;
use crate::Problem;
use crate::params::Params;
use crate::reply::{Reply, Written};

/// How often a silent stream shows that it lives, and looks whether the server stops.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// The version of the API that is emulated.
const PROMETHEUS_VERSION: &str = "3.5.0";

fn reply(data: serde_json::Value) -> Response {
    Reply::new(Written(data.to_string().into_bytes()), Notes::default()).into_response()
}

pub(super) async fn empty_list() -> Response {
    reply(json!([]))
}

pub(super) async fn alertmanagers() -> Response {
    reply(json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}

pub(super) async fn buildinfo() -> Response {
    reply(json!({
        "version": PROMETHEUS_VERSION,
        "revision": concat!("tributary-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

pub(super) async fn runtimeinfo(State(api): State<ApiState>) -> Response {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    reply(json!({
        "startTime": rfc3339(api.inner.started_ms),
        "CWD": std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default(),
        "hostname": "",
        "serverTime": rfc3339(api.now_ms()),
        "reloadConfigSuccess": true,
        "lastConfigTime": rfc3339(api.inner.started_ms),
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": threads,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
    }))
}

pub(super) async fn flags(State(api): State<ApiState>) -> Response {
    reply(json!(api.inner.settings.flags))
}

pub(super) async fn config(State(api): State<ApiState>) -> Response {
    reply(json!({"yaml": api.inner.settings.config_yaml}))
}

pub(super) async fn walreplay() -> Response {
    reply(json!({"min": 0, "max": 0, "current": 0}))
}

/// What this server can do, by group, as Prometheus tells it since 3.8.
pub(super) async fn features(State(api): State<ApiState>) -> Response {
    let thanos = api.inner.settings.default_step.is_some();
    let engine = api.inner.engine.settings();
    let functions: serde_json::Map<_, _> = promql::parse::functions::FUNCTIONS
        .iter()
        .map(|f| (f.name.to_owned(), engine.features.allows(f).into()))
        .collect();
    let experimental = [AggregateOp::LimitK, AggregateOp::LimitRatio];
    let operators: serde_json::Map<_, _> = AggregateOp::ALL
        .iter()
        .map(|op| (op.as_str().to_owned(), (engine.features.functions || !experimental.contains(op)).into()))
        .collect();
    reply(json!({
        "api": {
            "admin": false,
            "exclude_alerts": true,
            "label_values_match": true,
            "openapi_3.1": true,
            "query_stats": true,
            "query_warnings": true,
            "rules_pagination": true,
            "search": false,
            "time_range_labels": true,
            "time_range_series": true,
            "thanos_parameters": thanos,
        },
        "promql": {
            "anchored": engine.features.extended_selectors,
            "at_modifier": true,
            "bool": true,
            "by": true,
            "delayed_name_removal": engine.delayed_name_removal,
            "duration_expr": true,
            "fill": engine.features.fills,
            "fill_left": engine.features.fills,
            "fill_right": engine.features.fills,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "per_step_stats": api.inner.settings.per_step_stats,
            "smoothed": engine.features.extended_selectors,
            "subqueries": true,
            "use_start_timestamps": engine.use_start_timestamps,
            "without": true,
        },
        "promql_functions": functions,
        "promql_operators": operators,
    }))
}

/// Off, as in a Prometheus without the flag for it; a client that finds nothing here falls back on listings.
pub(super) async fn search() -> Problem {
    Problem::bad_data("search API is disabled; this version does not serve it")
}

/// Nothing is scraped from here, so that no pool has a name.
pub(super) async fn no_pool(params: Params) -> Problem {
    match params.get("scrapePool") {
        "" => Problem::bad_data("no scrapePool parameter provided"),
        pool => Problem::not_found(format!("scrape pool {pool:?} not found")),
    }
}

/// There are no notifications: the stream stays open and silent until the client leaves or the server stops.
pub(super) async fn live(State(api): State<ApiState>) -> Response {
    let waiting = move |api: ApiState| async move {
        tokio::time::sleep(LIVE_EVERY).await;
        let goes_on = !api.inner.readiness.is_stopping();
        goes_on.then(|| (Ok::<_, std::convert::Infallible>(Bytes::from_static(b": \n\n")), api))
    };
    let pieces = futures::stream::unfold(api, waiting);
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies that gather answers would hold this one for ever.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (head, Body::from_stream(pieces)).into_response()
}

/// `2026-11-21T02:17:04.123Z`; fractions only where there are any.
pub fn rfc3339(ms: Timestamp) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Years are counted from March, so that the leap day is the last of its year.
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction > 0 {
        // Writing into a String cannot fail.
        let _ = write!(out, ".{fraction:03}");
    }
    out.push('Z');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_227_424_123), "2026-11-21T02:17:04.123Z");
        assert_eq!(rfc3339(1_709_164_800_000), "2024-02-29T00:00:00Z");
    }

    proptest! {
        #[test]
        fn reads_back(ms in -62_135_596_800_000i64..253_402_300_799_999) {
            prop_assert_eq!(crate::params::parse_time(&rfc3339(ms)), Ok(ms));
        }
    }
}
