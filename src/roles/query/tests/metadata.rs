//! What metrics mean, asked of a querier: everybody's word once, the limit by name, and whose it is.

mod common;

use common::querier::Querier;
use common::{Node, Running};
use rpc::facts::Metadata;
use rpc::{ClientOptions, StoreClient};
use runtime::World;
use serde_json::{Value, json};
use storage::Context;
use wire::pb::thanos as pb;

fn said(node: &mut Node, all: &[(&str, &str, &str)]) {
    let mut metadata = pb::MetricMetadata::default();
    for (metric, kind, help) in all {
        let meta = pb::Meta { r#type: (*kind).into(), help: (*help).into(), unit: String::new() };
        metadata.metadata.entry((*metric).to_owned()).or_default().metas.push(meta);
    }
    node.facts.metadata = Some(metadata);
}

async fn nodes() -> Vec<Running> {
    let mut nodes = Vec::new();
    for replica in 0..3 {
        let mut node = Node::receiver(replica, 3, 1);
        // The third owner missed one.
        match replica {
            2 => said(&mut node, &[("b", "gauge", "B.")]),
            _ => said(&mut node, &[("a", "counter", "A."), ("b", "gauge", "B.")]),
        }
        nodes.push(node.serve().await);
    }
    let mut sidecar = Node::new(rpc::component::SIDECAR, &[("tenant_id", "x")]);
    said(&mut sidecar, &[("b", "gauge", "Another."), ("c", "summary", "C.")]);
    nodes.push(sidecar.serve().await);
    nodes
}

fn data(answer: (u16, String)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str::<Value>(&answer.1).unwrap()["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybodys_word_once() {
    let nodes = nodes().await;
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |_| ()).await;
    let one = |kind: &str, help: &str| json!({"type": kind, "help": help, "unit": ""});
    let all = data(querier.get("/api/v1/metadata").await);
    assert_eq!(all["a"], json!([one("counter", "A.")]));
    assert_eq!(all["b"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(all["c"], json!([one("summary", "C.")]));
    let names = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(data(querier.get("/api/v1/metadata?limit=2").await)), ["a", "b"]);
    assert_eq!(names(data(querier.get("/api/v1/metadata?limit=-1").await)), ["a", "b", "c"]);
    let one_each = data(querier.get("/api/v1/metadata?limit_per_metric=1").await);
    assert_eq!(one_each["b"].as_array().unwrap().len(), 1);
    assert_eq!(querier.get("/api/v1/metadata?limit=x").await.0, 400);
    // A querier above asks over gRPC.
    let handle = tokio::runtime::Handle::current();
    let address = querier.grpc.to_string();
    let client = StoreClient::new(&address, ClientOptions::default(), World::real(), handle).unwrap();
    assert!(client.info().await.unwrap().apis.metadata);
    let request = pb::MetricMetadataRequest { limit: -1, ..Default::default() };
    let asked = tokio::task::spawn_blocking(move || client.ask::<Metadata>(&request, &Context::background()));
    assert_eq!(asked.await.unwrap().unwrap().items[0].metadata.len(), 3);
    querier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tenancy_is_enforced_only_who_tells_tenants_apart_is_listened_to() {
    let nodes = nodes().await;
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |settings| {
        settings.queries.enforce_tenancy = true;
    })
    .await;
    let of = |tenant: &'static str| querier.get_as("/api/v1/metadata", tenant);
    // Our receivers read the tenant in the request; the sidecar has no other than its label's.
    let own = data(of("THANOS-TENANT: x\r\n").await);
    assert_eq!(own.as_object().unwrap().len(), 3, "{own}");
    let other = data(of("THANOS-TENANT: y\r\n").await);
    assert!(other.get("c").is_none(), "{other}");
    querier.stop().await;
}
