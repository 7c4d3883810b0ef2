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

/// Series of a `thanos.Query` answer: labels and (time, value).
fn shown(told: &rpc::query::Told) -> Vec<(String, Vec<(i64, f64)>)> {
    let labels = |one: &wire::pb::prometheus_copy::TimeSeries| {
        one.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect::<Vec<_>>().join(",")
    };
    let samples = |one: &wire::pb::prometheus_copy::TimeSeries| {
        one.samples.iter().map(|s| (s.timestamp, s.value)).collect()
    };
    told.series.iter().map(|one| (labels(one), samples(one))).collect()
}

/// Queriers stack by values as well as by series.
#[tokio::test(flavor = "multi_thread")]
async fn asked_for_values_over_grpc() {
    use rpc::query::{CallTimes, QueryCall};
    let [a, b, c] = [0, 1, 2].map(|replica| Node::receiver(replica, 3, 3));
    let (a, b, c) = (a.serve().await, b.serve().await, c.serve().await);
    let querier = Querier::start(&[&a, &b, &c], |_| {}).await;
    let handle = tokio::runtime::Handle::current();
    let client =
        StoreClient::new(&querier.grpc.to_string(), ClientOptions::default(), World::real(), handle).unwrap();
    assert!(client.info().await.unwrap().apis.query);
    let ask = |call: QueryCall| {
        let client = client.clone();
        async move {
            tokio::task::spawn_blocking(move || client.query(&call, &Context::background())).await.unwrap()
        }
    };
    let at = seconds(SAMPLES - 1) * 1000;
    let call = |query: &str, times| QueryCall { query: query.into(), times, ..QueryCall::default() };
    let told = ask(call("sum by (tenant_id) (m)", CallTimes::Instant(at))).await.unwrap();
    let sum = 3.0 * value_of(SAMPLES - 1);
    assert_eq!(shown(&told), [("tenant_id=t".to_owned(), vec![(at, sum)])]);
    assert!(told.stats.samples_total >= 3 && told.warnings.is_empty(), "{told:?}");
    let times = CallTimes::Range { start: at - 60_000, end: at, step: 30_000 };
    let told = ask(call("count(m)", times)).await.unwrap();
    assert_eq!(shown(&told), [(String::new(), vec![(at - 60_000, 3.0), (at - 30_000, 3.0), (at, 3.0)])]);
    let told = ask(call("1 + 1", CallTimes::Instant(4000))).await.unwrap();
    assert_eq!(shown(&told), [(String::new(), vec![(4000, 2.0)])]);
    // Shards are parts of the whole, over gRPC and HTTP.
    let (mut of_all, mut over_http) = (Vec::new(), 0);
    for shard_index in 0..3 {
        let labels = vec!["i".to_owned()];
        let shard = wire::pb::thanos::ShardInfo { shard_index, total_shards: 3, by: true, labels };
        let part = QueryCall { shard: Some(shard), ..call("m", CallTimes::Instant(at)) };
        of_all.extend(shown(&ask(part).await.unwrap()));
        let info = format!(
            "%7B%22shard_index%22:{shard_index},%22total_shards%22:3,%22by%22:true,%22labels%22:[%22i%22]%7D"
        );
        let (status, body) =
            querier.get(&format!("/api/v1/query?query=m&time={}&shard_info={info}", at / 1000)).await;
        assert_eq!(status, 200, "{body}");
        over_http += body.matches("\"metric\"").count();
    }
    assert_eq!((of_all.len(), over_http), (3, 3));
    // What is wrong is named.
    for (bad, why) in [
        (call("m{", CallTimes::Instant(at)), "parse error"),
        (call("m", CallTimes::Range { start: at, end: at - 1000, step: 1000 }), "is none"),
        (call("m", CallTimes::Range { start: 0, end: 11_001_000, step: 1000 }), "maximum resolution"),
    ] {
        let error = ask(bad).await.expect_err("must be refused");
        assert!(error.kind == model::Kind::Invalid && error.message.contains(why), "{error:?}");
    }
    a.stop();
    b.stop();
    let error = ask(call("m", CallTimes::Instant(at))).await.expect_err("cannot be complete");
    assert!(error.kind == model::Kind::Unavailable && error.message.contains("incomplete"), "{error:?}");
    let part = QueryCall { partial: true, ..call("m", CallTimes::Instant(at)) };
    let told = ask(part).await.unwrap();
    assert!(told.warnings.iter().any(|w| w.contains("receiver")), "{:?}", told.warnings);
    querier.stop().await;
}

/// With tenancy enforced every reading path shows a tenant's own series only, whatever the query says.
#[tokio::test(flavor = "multi_thread")]
async fn enforced_tenancy_over_http_and_grpc() {
    use rpc::query::{CallTimes, QueryCall};
    let mut nodes = Vec::new();
    for tenant in ["one", "two"] {
        let mut node = Node::new(rpc::component::RECEIVE, &[("tenant_id", tenant), ("secret", tenant)]);
        node.series = vec![common::one(&common::labels_of(0), |_| true)];
        nodes.push(node.serve().await);
    }
    // A sender may say what it likes: the label of the tenant is not its to choose.
    let mut liar = Node::new(rpc::component::RECEIVE, &[("tenant_id", "two")]);
    let mut labels = common::labels_of(1);
    labels.push(("tenant_id".into(), "one".into()));
    liar.series = vec![common::one(&labels, |_| true)];
    nodes.push(liar.serve().await);
    let querier = Querier::start(&nodes.iter().collect::<Vec<_>>(), |settings| {
        settings.queries.enforce_tenancy = true;
        settings.queries.default_tenant = "nobody".to_owned();
    })
    .await;
    let now = seconds(SAMPLES - 1);
    let range = format!("start={}&end={now}", seconds(0));
    for (tenant, other) in [("one", "two"), ("two", "one")] {
        for path in [
            format!("/api/v1/query?query=m&time={now}"),
            format!("/api/v1/query?query=m%7Btenant_id=%22{other}%22%7D&time={now}"),
            format!("/api/v1/query?query=m%7Btenant_id=~%22.*%22%7D+or+m&time={now}"),
            format!("/api/v1/query?query=absent(m)&time={now}"),
            format!("/api/v1/query_range?query=m&{range}&step=15"),
            format!("/api/v1/series?match[]=m&{range}"),
            format!("/api/v1/series?match[]=m%7Btenant_id=%22{other}%22%7D&{range}"),
            format!("/api/v1/label/tenant_id/values?{range}"),
            format!("/api/v1/label/secret/values?{range}"),
            format!("/api/v1/label/secret/values?match[]=m%7Btenant_id=%22{other}%22%7D&{range}"),
            "/federate?match[]=m".to_owned(),
            "/api/v1/stores".to_owned(),
        ] {
            for header in ["THANOS-TENANT", "X-Scope-OrgID"] {
                let (status, body) = querier.get_as(&path, &format!("{header}: {tenant}\r\n")).await;
                assert_eq!(status, 200, "{path} {body}");
                // The question itself may be in a warning; data never is.
                let data = body.split("\"warnings\"").next().unwrap();
                let foreign = [format!("\"{other}\""), format!("=\"{other}\"")];
                assert!(!foreign.iter().any(|f| data.contains(f)), "{path} {body}");
            }
        }
        let count = format!("/api/v1/query?query=count(m)&time={now}");
        let (_, body) = querier.get_as(&count, &format!("THANOS-TENANT: {tenant}\r\n")).await;
        let wanted = if tenant == "one" { "\"1\"" } else { "\"2\"" };
        assert!(body.contains(wanted), "{tenant} {body}");
        let handle = tokio::runtime::Handle::current();
        let address = querier.grpc.to_string();
        let client = StoreClient::new(&address, ClientOptions::default(), World::real(), handle).unwrap();
        let call = QueryCall {
            query: format!("m{{tenant_id=~\"{other}|{tenant}\"}}"),
            times: CallTimes::Instant(now * 1000),
            tenant: Some(tenant.to_owned()),
            ..QueryCall::default()
        };
        let asked = tokio::task::spawn_blocking(move || client.query(&call, &Context::background()));
        let told = asked.await.unwrap().unwrap();
        assert!(!told.series.is_empty());
        assert!(shown(&told).iter().all(|(labels, _)| labels.contains(&format!("tenant_id={tenant}"))));
    }
    // Who names nobody is nobody, and sees nothing.
    let (_, body) = querier.get(&format!("/api/v1/query?query=m&time={now}")).await;
    assert!(body.contains("\"result\":[]"), "{body}");
    for bad in ["../one", "one,two", ".."] {
        let (status, body) =
            querier.get_as("/api/v1/query?query=m", &format!("THANOS-TENANT: {bad}\r\n")).await;
        assert!(status == 400 && body.contains("bad_data"), "{bad}: {body}");
    }
    // The StoreAPI of a querier that enforces tenancy does the same.
    let handle = tokio::runtime::Handle::current();
    let options = ClientOptions { tenant: Some("one".to_owned()), ..ClientOptions::default() };
    let client = StoreClient::new(&querier.grpc.to_string(), options, World::real(), handle).unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let request = SelectRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
        client.select(&request, &Context::background()).and_then(storage::collect)
    });
    let (entries, _) = asked.await.unwrap().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].labels.get("tenant_id"), Some("one"));
    querier.stop().await;
}
