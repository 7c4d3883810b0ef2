//! The whole role: a querier that is started, asked over HTTP and over gRPC, and stopped.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::querier::Querier;
use common::{Node, SAMPLES, START, STEP, value_of};
use model::{Matcher, TimeRange};
use query::{Query, Settings};
use rpc::{ClientOptions, StoreClient};
use runtime::World;
use settings::Listen;
use storage::{Columns, Context, Select, SelectRequest, decode_series};

fn seconds(at: i64) -> i64 {
    (START + at * STEP) / 1000
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_over_http() {
    let nodes = [0, 1, 2].map(|replica| Node::receiver(replica, 3, 3));
    let [a, b, c] = nodes;
    let (a, b, c) = (a.serve().await, b.serve().await, c.serve().await);
    let querier = Querier::start(&[&a, &b, &c], |settings| {
        settings.queries.drop_labels = vec!["tenant_id".to_owned()];
    })
    .await;
    // One of three is lost: complete, exact, and nothing is said.
    b.stop();
    let path = format!(
        "/api/v1/query_range?query=m%7Bi%3D%220001%22%7D&start={}&end={}&step=15",
        seconds(0),
        seconds(SAMPLES - 1)
    );
    let (status, body) = querier.get(&path).await;
    assert_eq!(status, 200, "{body}");
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(parsed.get("warnings").is_none(), "{body}");
    let series = parsed["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 1);
    assert_eq!(series[0]["metric"], serde_json::json!({"__name__": "m", "i": "0001"}));
    let values = series[0]["values"].as_array().unwrap();
    assert_eq!(values.len(), SAMPLES as usize);
    for (at, point) in values.iter().enumerate() {
        assert_eq!(point[0].as_i64(), Some(seconds(at as i64)));
        let value: f64 = point[1].as_str().unwrap().parse().unwrap();
        assert_eq!(value.to_bits(), value_of(at as i64).to_bits());
    }
    let (_, body) = querier.get("/api/v1/series?match[]=m").await;
    assert_eq!(
        body,
        r#"{"status":"success","data":[{"__name__":"m","i":"0000"},{"__name__":"m","i":"0001"},{"__name__":"m","i":"0002"}]}"#
    );
    // A step is not demanded here.
    let (status, _) =
        querier.get(&format!("/api/v1/query_range?query=m&start={}&end={}", seconds(0), seconds(3))).await;
    assert_eq!(status, 200);
    // Two are lost: an error that says so, or a part for those who ask for it.
    c.stop();
    let now = seconds(SAMPLES - 1);
    let (status, body) = querier.get(&format!("/api/v1/query?query=m&time={now}")).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains(r#""errorType":"unavailable","error":"the answer would be incomplete"#), "{body}");
    let (status, body) =
        querier.get(&format!("/api/v1/query?query=m&time={now}&partial_response=true")).await;
    assert_eq!(status, 200);
    assert!(body.contains(&format!("\"warnings\":[\"receiver {}", b.address.min(c.address))), "{body}");
    let (_, body) = querier.get("/api/v1/stores").await;
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(parsed["data"]["receive"].as_array().unwrap().len(), 3, "{body}");
    let (_, body) = querier.get("/api/v1/status/flags").await;
    assert_eq!(body, r#"{"status":"success","data":{"query.timeout":"2m"}}"#);
    querier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queriers_stack() {
    let nodes = [0, 1, 2].map(|replica| Node::receiver(replica, 3, 50));
    let [a, b, c] = nodes;
    let (a, b, c) = (a.serve().await, b.serve().await, c.serve().await);
    let lower = Querier::start(&[&a, &b, &c], |_| {}).await;
    let address = lower.grpc.to_string();
    let upper = Querier::start(&[], |settings| settings.discovery.endpoints = vec![address.clone()]).await;
    let (status, body) =
        upper.get(&format!("/api/v1/query?query=count(m)&time={}", seconds(SAMPLES - 1))).await;
    assert_eq!((status, body.contains(r#""50"]"#)), (200, true), "{body}");
    let handle = tokio::runtime::Handle::current();
    let client = StoreClient::new(&address, ClientOptions::default(), World::real(), handle).unwrap();
    let info = client.info().await.unwrap();
    assert_eq!(info.component, "query");
    assert_eq!(info.label_sets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["{tenant_id=\"t\"}"]);
    let entries = tokio::task::spawn_blocking(move || {
        let request = SelectRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
        client.select(&request, &Context::background()).and_then(storage::collect)
    });
    let (entries, _) = entries.await.unwrap().unwrap();
    assert_eq!(entries.len(), 50);
    for entry in &entries {
        let mut columns = Columns::default();
        decode_series(&entry.chunks, TimeRange::ALL, &mut columns).unwrap();
        assert_eq!(columns.len(), SAMPLES as usize);
    }
    upper.stop().await;
    lower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_their_own() {
    let mut nodes = Vec::new();
    for tenant in ["t1", "t2"] {
        let mut node = Node::new(rpc::component::STORE, &[("tenant_id", tenant)]);
        node.series = vec![common::one(&common::labels_of(0), |_| true)];
        nodes.push(node.serve().await);
    }
    let querier = Querier::start(&[&nodes[0], &nodes[1]], |settings| {
        settings.queries.enforce_tenancy = true;
        settings.queries.default_tenant = "t2".to_owned();
        settings.route_prefix = "/prometheus".to_owned();
    })
    .await;
    let path = format!("/prometheus/api/v1/query?query=m&time={}", seconds(SAMPLES - 1));
    let (status, body) = querier.get(&path).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""tenant_id":"t2""#) && !body.contains(r#""tenant_id":"t1""#), "{body}");
    let (_, body) = querier.get("/prometheus/api/v1/label/tenant_id/values").await;
    assert_eq!(body, r#"{"status":"success","data":["t2"]}"#);
    querier.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_at_the_start() {
    let mut settings = Settings::default();
    settings.common.http_address = Listen::loopback(0);
    settings.grpc.grpc_address = Listen::loopback(0);
    settings.discovery.endpoints = vec!["receive-0".to_owned()];
    let built = Query::build(settings, &World::real(), Arc::new(String::new), BTreeMap::new()).await;
    assert_eq!(built.err().unwrap().to_string(), "--endpoint \"receive-0\": has no port; give host:port");
}
