//! `targets` and `scrape_pools`: what sidecars' Prometheus servers scrape.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use serde_json::Number;
use wire::pb::thanos as pb;

use super::ApiState;
use super::facts::{self, json, map, seconds, time};
use crate::Problem;
use crate::params::Params;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Active<'a> {
    discovered_labels: BTreeMap<&'a str, &'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    scrape_pool: &'a str,
    scrape_url: &'a str,
    global_url: &'a str,
    last_error: &'a str,
    last_scrape: String,
    last_scrape_duration: Number,
    health: &'static str,
    /// The peers' protocol does not carry these two.
    scrape_interval: &'static str,
    scrape_timeout: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dropped<'a> {
    discovered_labels: BTreeMap<&'a str, &'a str>,
    scrape_pool: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct All<'a> {
    active_targets: Vec<Active<'a>>,
    dropped_targets: Vec<Dropped<'a>>,
    /// Upstream writes null where dropped targets are not asked for, against its own document.
    dropped_target_counts: BTreeMap<&'a str, usize>,
}

fn active(one: &pb::ActiveTarget) -> Active<'_> {
    Active {
        discovered_labels: map(one.discovered_labels.as_ref()),
        labels: map(one.labels.as_ref()),
        scrape_pool: &one.scrape_pool,
        scrape_url: &one.scrape_url,
        global_url: &one.global_url,
        last_error: &one.last_error,
        last_scrape: time(one.last_scrape.as_ref().map(|t| (t.seconds, t.nanos))),
        last_scrape_duration: seconds(one.last_scrape_duration),
        health: match pb::TargetHealth::try_from(one.health) {
            Ok(pb::TargetHealth::Up) => "up",
            Ok(pb::TargetHealth::Down) => "down",
            _ => "unknown",
        },
        scrape_interval: "",
        scrape_timeout: "",
    }
}

pub(super) async fn targets(
    State(api): State<ApiState>,
    headers: HeaderMap,
    RawQuery(url): RawQuery,
    params: Params,
) -> Result<Response, Problem> {
    use pb::targets_request::State::{Active as OnlyActive, Any, Dropped as OnlyDropped};
    let url = Params::parse(b"", url.unwrap_or_default().as_bytes())?;
    // As Prometheus: whatever names no state shows both.
    let state = match url.get("state").to_ascii_lowercase().as_str() {
        "active" => OnlyActive,
        "dropped" => OnlyDropped,
        _ => Any,
    };
    let pool = url.get("scrapePool").to_owned();
    let request = pb::TargetsRequest { state: state as i32, ..Default::default() };
    let write = move |found: Vec<pb::TargetDiscovery>| {
        let of_pool = |one: &&pb::ActiveTarget| pool.is_empty() || one.scrape_pool == pool;
        let actives = found.iter().flat_map(|d| &d.active_targets).filter(of_pool);
        let dropped = found.iter().flat_map(|d| &d.dropped_targets);
        let dropped = dropped
            .map(|one| Dropped { discovered_labels: map(one.discovered_labels.as_ref()), scrape_pool: "" });
        json(&All {
            active_targets: if state == OnlyDropped { Vec::new() } else { actives.map(active).collect() },
            // Peers do not say of which pool a dropped target was.
            dropped_targets: if state == OnlyActive || !pool.is_empty() {
                Vec::new()
            } else {
                dropped.collect()
            },
            dropped_target_counts: BTreeMap::new(),
        })
    };
    facts::answer(&api, &headers, &params, move |facts, read, c| facts.targets(&request, read, c), write)
        .await
}

pub(super) async fn scrape_pools(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let request =
        pb::TargetsRequest { state: pb::targets_request::State::Active as i32, ..Default::default() };
    let write = |found: Vec<pb::TargetDiscovery>| {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Pools<'a> {
            scrape_pools: BTreeSet<&'a str>,
        }
        let actives = found.iter().flat_map(|d| &d.active_targets);
        json(&Pools { scrape_pools: actives.map(|t| t.scrape_pool.as_str()).collect() })
    };
    facts::answer(&api, &headers, &params, move |facts, read, c| facts.targets(&request, read, c), write)
        .await
}
