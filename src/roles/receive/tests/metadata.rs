//! What is said of metrics: by requests of their own and beside samples, kept by the owners, told over gRPC.

mod rig;

use std::time::Duration;

use model::{MetricKind, TenantId};
use prost::Message;
use receive::Receive;
use rig::{Node, cluster, now, single};
use rpc::facts::Metadata;
use rpc::{ClientOptions, StoreClient};
use runtime::World;
use storage::{Context, MetadataRequest};
use wire::pb::{io::prometheus::write::v2, prometheus as v1, thanos};

fn said(metric: &str, kind: i32, help: &str) -> v1::MetricMetadata {
    v1::MetricMetadata {
        r#type: kind,
        metric_family_name: metric.into(),
        help: help.into(),
        unit: "s".into(),
    }
}

fn request(metadata: Vec<v1::MetricMetadata>) -> Vec<u8> {
    let plain = v1::WriteRequest { metadata, ..Default::default() }.encode_to_vec();
    wire::remote_write::compress(&plain).unwrap()
}

fn known(receive: &Receive, tenant: &str, metric: Option<&str>) -> Vec<(String, String, String)> {
    let request = MetadataRequest {
        tenant: Some(TenantId::new(tenant).unwrap()),
        metric: metric.map(str::to_owned),
        limit: None,
    };
    let found = receive.metadata().metadata(&request, &Context::background()).unwrap();
    let one = |(name, all): (String, Vec<model::Meaning>)| {
        all.into_iter().map(move |m| (name.clone(), m.kind.as_str().to_owned(), m.help))
    };
    found.metrics.into_iter().flat_map(one).collect()
}

fn line(metric: &str, kind: MetricKind, help: &str) -> (String, String, String) {
    (metric.to_owned(), kind.as_str().to_owned(), help.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_only_request_is_taken_and_kept_t16() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let body = request(vec![said("up", 2, "Whether."), said("http_requests_total", 1, "Requests.")]);
    assert_eq!(node.post_with("/api/v1/receive", &[], body.clone()).await.status, 204);
    let want = [
        line("http_requests_total", MetricKind::Counter, "Requests."),
        line("up", MetricKind::Gauge, "Whether."),
    ];
    assert_eq!(known(&node.receive, "default-tenant", None), want);
    // Another tenant's is another's, and the last word stands.
    let other = request(vec![said("up", 2, "Elsewhere.")]);
    assert_eq!(node.post_with("/api/v1/write", &[("THANOS-TENANT", "b")], other).await.status, 204);
    let newer = request(vec![said("up", 2, "Whether it is."), said("", 1, "nobody's")]);
    assert_eq!(node.post_with("/api/v1/push", &[], newer).await.status, 204);
    assert_eq!(
        known(&node.receive, "default-tenant", Some("up")),
        [line("up", MetricKind::Gauge, "Whether it is.")]
    );
    assert_eq!(known(&node.receive, "b", None), [line("up", MetricKind::Gauge, "Elsewhere.")]);
    assert!(known(&node.receive, "c", None).is_empty());
    node.stop().await.unwrap();
    // It outlives the process.
    let node = Node::start(single(dir.path())).await;
    assert_eq!(known(&node.receive, "default-tenant", None).len(), 2);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_version_2_describe_their_family() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let symbols =
        ["", "__name__", "lat_bucket", "lat_sum", "Latency.", "seconds", "le", "1"].map(str::to_owned);
    let series = |name: u32| v2::TimeSeries {
        labels_refs: vec![1, name, 6, 7],
        samples: vec![v2::Sample { value: 1.0, timestamp: now(), start_timestamp: 0 }],
        metadata: Some(v2::Metadata { r#type: 3, help_ref: 4, unit_ref: 5 }),
        ..Default::default()
    };
    let plain =
        v2::Request { symbols: symbols.to_vec(), timeseries: vec![series(2), series(3)] }.encode_to_vec();
    let body = wire::remote_write::compress(&plain).unwrap();
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ];
    let answer = node.post_with("/api/v1/receive", &headers, body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    // It goes beside the write.
    let want = [line("lat", MetricKind::Histogram, "Latency.")];
    for _ in 0..200 {
        if known(&node.receive, "default-tenant", None) == want {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(known(&node.receive, "default-tenant", None), want);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_owner_of_a_ring_has_it_and_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 2);
    let nodes = Node::start_all(&settings).await;
    let metrics: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    let owners = |nodes: &[Node], metric: &str| {
        nodes.iter().filter(|node| !known(&node.receive, "default-tenant", Some(metric)).is_empty()).count()
    };
    // Peers are told once they are known to be ours; what they missed is said again.
    let mut whole = false;
    for _ in 0..200 {
        let body = request(metrics.iter().map(|metric| said(metric, 1, "x")).collect());
        assert_eq!(nodes[0].post_with("/api/v1/receive", &[], body).await.status, 204);
        whole = metrics.iter().all(|metric| owners(&nodes, metric) == 2);
        if whole {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(whole, "some metric has not two owners");
    // Over gRPC, as a querier asks.
    let address = settings[1].grpc.grpc_address.to_string();
    let handle = tokio::runtime::Handle::current();
    let client = StoreClient::new(&address, ClientOptions::default(), World::real(), handle).unwrap();
    assert!(client.info().await.unwrap().apis.metadata);
    let ask = |tenant: &str, limit| {
        let (client, tenant) = (client.clone(), tenant.to_owned());
        tokio::task::spawn_blocking(move || {
            let request = thanos::MetricMetadataRequest { limit, tenant, ..Default::default() };
            let told = client.ask::<Metadata>(&request, &Context::background()).unwrap();
            told.items.into_iter().flat_map(|item| item.metadata).collect::<Vec<_>>()
        })
    };
    let here = known(&nodes[1].receive, "default-tenant", None).len();
    assert!(here > 10 && here < 40);
    let all = ask("", -1).await.unwrap();
    assert_eq!(all.len(), here);
    assert_eq!((all[0].1.metas[0].r#type.as_str(), all[0].1.metas[0].unit.as_str()), ("counter", "s"));
    assert_eq!(ask("default-tenant", 3).await.unwrap().len(), 3);
    assert!(ask("other", -1).await.unwrap().is_empty());
    Node::stop_all(nodes).await;
}
