//! What is no series, asked of a querier over HTTP and gRPC: rules, targets, exemplars, figures, and whose they are.

mod common;

use std::collections::HashMap;

use common::querier::Querier;
use common::{Facts, Node, Running};
use rpc::facts::{Exemplars, Rules, Statistics};
use rpc::{ClientOptions, StoreClient, Subject, Told};
use runtime::World;
use serde_json::{Value, json};
use storage::Context;
use wire::pb::thanos as pb;

fn set(pairs: &[(&str, &str)]) -> Option<pb::ZLabelSet> {
    let label = |(n, v): &(&str, &str)| pb::Label { name: (*n).into(), value: (*v).into() };
    Some(pb::ZLabelSet { labels: pairs.iter().map(label).collect() })
}

fn ruler(replica: &str, state: pb::AlertState) -> Node {
    let mut node = Node::new(rpc::component::RULE, &[("ruler", replica)]);
    let alert = pb::Alert {
        state: state as i32,
        name: "Down<".into(),
        query: "up == 0".into(),
        duration_seconds: 60.0,
        labels: set(&[("severity", "page"), ("ruler", replica), ("tenant_id", "a")]),
        alerts: vec![pb::AlertInstance {
            labels: set(&[("alertname", "Down"), ("ruler", replica), ("tenant_id", "a")]),
            state: state as i32,
            value: "1e+00".into(),
            ..Default::default()
        }],
        health: "ok".into(),
        ..Default::default()
    };
    let recording = pb::RecordingRule {
        name: "job:up:sum".into(),
        query: "sum by (job) (up)".into(),
        labels: set(&[("ruler", replica), ("tenant_id", "b")]),
        health: "ok".into(),
        ..Default::default()
    };
    let rules = [pb::rule::Result::Alert(alert), pb::rule::Result::Recording(recording)];
    let group = |name: &str, rules: Vec<pb::rule::Result>| pb::RuleGroup {
        name: name.into(),
        file: "rules.yml".into(),
        interval: 15.0,
        rules: rules.into_iter().map(|result| pb::Rule { result: Some(result) }).collect(),
        ..Default::default()
    };
    let groups = vec![group("one", rules.to_vec()), group("two", vec![rules[1].clone()])];
    node.facts = Facts { rules: Some(groups), ..Facts::default() };
    node
}

fn sidecar() -> Node {
    let mut node = Node::new(rpc::component::SIDECAR, &[("cluster", "c")]);
    let target = pb::ActiveTarget {
        labels: set(&[("job", "node"), ("tenant_id", "a")]),
        scrape_pool: "node".into(),
        scrape_url: "http://h/metrics".into(),
        health: pb::TargetHealth::Up as i32,
        last_scrape_duration: 0.25,
        ..Default::default()
    };
    node.facts.targets = Some(pb::TargetDiscovery { active_targets: vec![target], ..Default::default() });
    node
}

/// A receiver of a ring of three, each with the same exemplars and the same series in its head.
fn receiver(replica: usize) -> Node {
    let mut node = Node::receiver(replica, 3, 1);
    let exemplars = |tenant: &str| pb::ExemplarData {
        series_labels: set(&[("__name__", "m"), ("replica", &format!("r{replica}")), ("tenant_id", tenant)]),
        exemplars: vec![pb::Exemplar {
            labels: set(&[("trace_id", "x")]),
            value: 6.0,
            ts: 1_600_096_945_479,
        }],
    };
    let head = |series| pb::TsdbStatisticsEntry {
        head_statistics: Some(pb::HeadStatistics { num_series: series, ..Default::default() }),
        ..Default::default()
    };
    node.facts.exemplars = Some(vec![exemplars("a"), exemplars("b")]);
    let tenants = HashMap::from([("a".to_owned(), head(2)), ("b".to_owned(), head(40))]);
    node.facts.statistics = Some(pb::TsdbStatistics { statistics: tenants });
    node
}

async fn all() -> Vec<Running> {
    let mut nodes = Vec::new();
    for node in [
        ruler("1", pb::AlertState::Pending),
        ruler("2", pb::AlertState::Firing),
        sidecar(),
        receiver(0),
        receiver(1),
        receiver(2),
    ] {
        nodes.push(node.serve().await);
    }
    nodes
}

fn data(answer: (u16, String)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str::<Value>(&answer.1).unwrap()["data"].clone()
}

async fn ask<S: Subject>(querier: &Querier, request: S::Request, tenant: Option<&str>) -> Told<S::Item>
where
    S::Request: Sync,
{
    let options = ClientOptions { tenant: tenant.map(str::to_owned), ..ClientOptions::default() };
    let handle = tokio::runtime::Handle::current();
    let client = StoreClient::new(&querier.grpc.to_string(), options, World::real(), handle).unwrap();
    let asked = tokio::task::spawn_blocking(move || client.ask::<S>(&request, &Context::background()));
    asked.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybodys_facts() {
    let nodes = all().await;
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |settings| {
        settings.queries.replica_labels = vec!["ruler".to_owned()];
    })
    .await;
    let rules = data(querier.get("/api/v1/rules").await);
    let groups = rules["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{rules}");
    let first = &groups[0]["rules"][0];
    assert_eq!(first["state"], "firing");
    assert_eq!(first["labels"], json!({"severity": "page", "tenant_id": "a"}));
    assert_eq!(first["alerts"][0]["value"], "1e+00");
    assert_eq!((&first["type"], &first["duration"]), (&json!("alerting"), &json!(60)));
    assert_eq!(groups[0]["rules"].as_array().unwrap().len(), 2);
    // Filters, each by itself.
    for (query, wanted) in [
        ("type=record", vec!["job:up:sum", "job:up:sum"]),
        ("type=ALERT", vec!["Down<"]),
        ("rule_name[]=Down%3C", vec!["Down<"]),
        ("rule_group[]=two", vec!["job:up:sum"]),
        ("file[]=other", vec![]),
        ("match[]=%7Bseverity%3D%22page%22%7D", vec!["Down<"]),
    ] {
        let found = data(querier.get(&format!("/api/v1/rules?{query}")).await);
        let names: Vec<Value> = found["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|g| g["rules"].as_array().unwrap().iter().map(|r| r["name"].clone()))
            .collect();
        assert_eq!(json!(names), json!(wanted), "{query}");
    }
    let excluded = data(querier.get("/api/v1/rules?exclude_alerts=true&type=alert").await);
    assert_eq!(excluded["groups"][0]["rules"][0]["alerts"], Value::Null);
    // Page by page.
    let page = data(querier.get("/api/v1/rules?group_limit=1").await);
    assert_eq!(page["groups"][0]["name"], "one");
    let token = page["groupNextToken"].as_str().unwrap();
    let page = data(querier.get(&format!("/api/v1/rules?group_limit=1&group_next_token={token}")).await);
    assert_eq!((&page["groups"][0]["name"], &page["groupNextToken"]), (&json!("two"), &Value::Null));
    let apart = data(querier.get("/api/v1/rules?dedup=false&type=alert").await);
    assert_eq!(apart["groups"][0]["rules"].as_array().unwrap().len(), 2);

    let alerts = data(querier.get("/api/v1/alerts").await);
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(alerts["alerts"][0]["state"], "firing");
    let targets = data(querier.get("/api/v1/targets").await);
    assert_eq!(targets["activeTargets"][0]["health"], "up");
    assert_eq!(targets["activeTargets"][0]["lastScrapeDuration"], 0.25);
    let dropped = data(querier.get("/api/v1/targets?state=dropped").await);
    assert_eq!(dropped["activeTargets"], json!([]));
    assert_eq!(data(querier.get("/api/v1/scrape_pools").await), json!({"scrapePools": ["node"]}));
    // Copies of receivers are one.
    let exemplars = data(querier.get("/api/v1/query_exemplars?query=m&start=1&end=1800000000").await);
    assert_eq!(exemplars.as_array().unwrap().len(), 2, "{exemplars}");
    assert_eq!(
        exemplars[0],
        json!({"seriesLabels": {"__name__": "m", "tenant_id": "a"},
            "exemplars": [{"labels": {"trace_id": "x"}, "value": "6", "timestamp": 1_600_096_945.479}]})
    );
    let figures = data(querier.get("/api/v1/status/tsdb").await);
    assert_eq!(figures["headStats"]["numSeries"], 42);
    let told = ask::<Rules>(&querier, pb::RulesRequest::default(), None).await;
    assert_eq!(told.items.len(), 2);

    // One receiver is lost: nobody notices. A ruler is lost: a warning, or an error for those who refuse it.
    nodes[3].stop();
    let (_, body) = querier.get("/api/v1/query_exemplars?query=m&start=1&end=1800000000").await;
    assert!(!body.contains("warnings"), "{body}");
    nodes[1].stop();
    let (status, body) = querier.get("/api/v1/rules").await;
    assert!(status == 200 && body.contains("\"warnings\":[\"endpoint "), "{body}");
    let (status, body) = querier.get("/api/v1/rules?partial_response=false").await;
    assert!(status == 503 && body.contains("the answer would be incomplete"), "{status} {body}");
    nodes[4].stop();
    let (status, _) = querier.get("/api/v1/query_exemplars?query=m&start=1&end=1800000000").await;
    assert_eq!(status, 503);
    querier.stop().await;
}

/// With tenancy enforced nobody sees anything of another tenant, over either door.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_their_own_only() {
    let nodes = all().await;
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |settings| {
        settings.queries.enforce_tenancy = true;
    })
    .await;
    for (tenant, other, series) in [("a", "b", 2), ("b", "a", 40)] {
        let header = format!("THANOS-TENANT: {tenant}\r\n");
        for path in [
            "/api/v1/rules",
            "/api/v1/alerts",
            "/api/v1/targets",
            "/api/v1/query_exemplars?query=m&start=1&end=1800000000",
            "/api/v1/query_exemplars?query=m%7Btenant_id=~%22.*%22%7D&start=1&end=1800000000",
        ] {
            let (status, body) = querier.get_as(path, &header).await;
            assert_eq!(status, 200, "{path} {body}");
            let foreign = format!("\"tenant_id\":\"{other}\"");
            assert!(!body.contains(&foreign), "{path} {body}");
        }
        let figures = data(querier.get_as("/api/v1/status/tsdb", &header).await);
        assert_eq!(figures["headStats"]["numSeries"], series);
        let told = ask::<Exemplars>(
            &querier,
            pb::ExemplarsRequest { query: "m".into(), end: i64::MAX, ..Default::default() },
            Some(tenant),
        );
        let told = told.await;
        assert_eq!(told.items.len(), 1);
        let told = ask::<Statistics>(&querier, pb::TsdbStatisticsRequest::default(), Some(tenant)).await;
        assert!(told.items.iter().all(|item| item.statistics.keys().eq([tenant])));
    }
    // Nobody is somebody else: who names no tenant is the default one, and a name that is none is refused.
    let (_, body) = querier.get("/api/v1/query_exemplars?query=m&start=1&end=1800000000").await;
    assert_eq!(body, r#"{"status":"success","data":[]}"#);
    for bad in ["..", "a/b", "a b"] {
        let (status, body) = querier.get_as("/api/v1/rules", &format!("THANOS-TENANT: {bad}\r\n")).await;
        assert!(status == 400 && body.contains("bad_data"), "{bad} {body}");
    }
    let stores = data(querier.get_as("/api/v1/stores", "THANOS-TENANT: a\r\n").await);
    assert!(!stores.to_string().contains(r#""tenant_id":"t""#), "{stores}");
    querier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_grpc_holds_no_more_than_a_query_may() {
    let nodes = all().await;
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |settings| {
        settings.queries.max_memory = settings::ByteSize::from_bytes(64);
    })
    .await;
    let handle = tokio::runtime::Handle::current();
    let address = querier.grpc.to_string();
    let client = StoreClient::new(&address, ClientOptions::default(), World::real(), handle).unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        client.ask::<Rules>(&pb::RulesRequest::default(), &Context::background())
    });
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.kind, model::Kind::Exhausted);
    assert!(error.message.contains("--query.max-memory allows"), "{error}");
    querier.stop().await;
}
