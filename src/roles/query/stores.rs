//! `/api/v1/stores`: every endpoint with what it last said, by component.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Problem;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderMap;
use model::{Labels, Timestamp};
use serde_json::{Value, json};
use storage::Notes;

use crate::complete::Seat;
use crate::endpoints::Endpoint;
use crate::facts::Everyone;

pub fn router(everyone: Everyone, tenant_headers: Vec<String>) -> Router {
    Router::new().route("/api/v1/stores", get(stores)).with_state((everyone, tenant_headers.into()))
}

/// Where tenancy is enforced, of label sets only those that the tenant's series may have.
async fn stores(
    State((everyone, tenant_headers)): State<(Everyone, Arc<[String]>)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let header = |name: &String| headers.get(name.as_str())?.to_str().ok().filter(|t| !t.is_empty());
    let tenant = everyone.enforced(tenant_headers.iter().find_map(header))?;
    let label = &everyone.queries.tenant_label;
    let shows = |set: &Labels| {
        tenant.as_ref().is_none_or(|tenant| set.get(label).is_none_or(|named| named == tenant.as_str()))
    };
    let Everyone { endpoints, world, .. } = &everyone;
    let patience = i64::try_from(endpoints.options().unhealthy_timeout.as_millis()).unwrap_or(i64::MAX);
    let shown_since = world.clock.now_ms().saturating_sub(patience);
    let mut by_component: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for endpoint in endpoints.list().iter() {
        let state = endpoint.state();
        let long_away = state.error.is_some() && state.answered_ms.is_some_and(|ms| ms < shown_since);
        if long_away && state.seat() == Seat::Leaf {
            continue;
        }
        let component = state.info.map_or_else(|| "unknown".to_owned(), |info| info.component);
        by_component.entry(component).or_default().push(describe(endpoint, &shows));
    }
    let data = json!(by_component).to_string().into_bytes();
    Ok(api::reply::Reply::new(api::reply::Written(data), Notes::default()).into_response())
}

fn describe(endpoint: &Endpoint, shows: &dyn Fn(&Labels) -> bool) -> Value {
    let state = endpoint.state();
    let info = state.info.as_ref();
    let range = info.and_then(|info| info.store.as_ref()).map(|store| store.range);
    let sets = info.map_or(&[][..], |info| &info.label_sets);
    let label_sets: Vec<Value> = sets
        .iter()
        .filter(|set| shows(set))
        .map(|set| json!(set.iter().collect::<BTreeMap<_, _>>()))
        .collect();
    json!({
        "name": endpoint.address,
        "lastCheck": time(state.checked_ms),
        "lastError": state.missing(),
        "labelSets": label_sets,
        "minTime": range.map_or(0, |range| range.start),
        "maxTime": range.map_or(0, |range| range.end),
    })
}

fn time(ms: Option<Timestamp>) -> String {
    ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), api::rfc3339)
}
