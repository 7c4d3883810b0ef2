//! Remote write 2.0 and a ring: what is stored where, and what the sender is told was written.

mod rig;

use prost::Message;
use rig::{Answer, Node, cluster, now};
use runtime::World;
use wire::pb::io::prometheus::write::v2 as pb;

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A table of texts and the series that refer to it.
#[derive(Default)]
struct Request {
    symbols: Vec<String>,
    series: Vec<pb::TimeSeries>,
}

impl Request {
    fn at(&mut self, text: &str) -> u32 {
        if self.symbols.is_empty() {
            self.symbols.push(String::new());
        }
        let at = self.symbols.iter().position(|s| s == text).unwrap_or_else(|| {
            self.symbols.push(text.to_owned());
            self.symbols.len() - 1
        });
        at as u32
    }

    /// A series, its labels in the order given.
    fn add(mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Request {
        let labels_refs = labels.iter().flat_map(|(n, v)| [self.at(n), self.at(v)]).collect();
        let sample = |&(timestamp, value)| pb::Sample { value, timestamp, start_timestamp: timestamp - 5 };
        let samples = samples.iter().map(sample).collect();
        self.series.push(pb::TimeSeries { labels_refs, samples, ..Default::default() });
        self
    }

    /// Changes the series added last.
    fn with(mut self, change: impl FnOnce(&mut pb::TimeSeries)) -> Request {
        if let Some(series) = self.series.last_mut() {
            change(series);
        }
        self
    }

    fn body(self) -> Vec<u8> {
        let plain = pb::Request { symbols: self.symbols, timeseries: self.series }.encode_to_vec();
        wire::remote_write::compress(&plain).unwrap()
    }

    async fn send(self, node: &Node) -> Answer {
        let headers = [
            ("Content-Encoding", "snappy"),
            ("Content-Type", V2),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        node.post_with("/api/v1/write", &headers, self.body()).await
    }
}

fn request(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Request {
    Request::default().add(labels, samples)
}

/// Samples, histograms and exemplars that the answer says were written; none where it does not say.
fn written(answer: &Answer) -> [Option<u64>; 3] {
    ["samples", "histograms", "exemplars"].map(|kind| {
        let name = format!("x-prometheus-remote-write-{kind}-written: ");
        answer.head.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok())
    })
}

fn said(samples: u64) -> [Option<u64>; 3] {
    [Some(samples), Some(0), Some(0)]
}

#[tokio::test(flavor = "multi_thread")]
async fn three_receivers_take_version_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Node::start_all(cluster(dir.path(), 3, 3)).await;
    let t = now();
    let answer =
        request(&[("job", "a"), ("__name__", "up")], &[(t, 1.0), (t + 1, 2.0)]).send(&nodes[0]).await;
    assert_eq!((answer.status, written(&answer)), (204, said(2)), "{answer:?}");
    let all = [(t - 5, 0.0), (t, 1.0), (t + 1, 2.0)];
    let holders = nodes.iter().filter(|n| n.samples("default-tenant", "up") == all).count();
    assert!(holders >= 2, "{holders} of 3 have it when it is acknowledged");
    // Two of three are gone: nothing is written, and a retry can help.
    let last = nodes.pop().unwrap();
    Node::stop_all(nodes).await;
    let answer = request(&[("__name__", "up")], &[(t + 2, 3.0)]).send(&last).await;
    assert_eq!((answer.status, written(&answer)), (503, said(0)), "{answer:?}");
    last.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_receivers_take_histograms_and_exemplars() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Node::start_all(cluster(dir.path(), 3, 3)).await;
    let t = now();
    let histogram = |at: i64, n: u64| pb::Histogram {
        timestamp: at,
        count: Some(pb::histogram::Count::CountInt(n)),
        positive_spans: vec![pb::BucketSpan { offset: 1, length: 1 }],
        positive_deltas: vec![n as i64],
        ..Default::default()
    };
    let send = |n: u64| {
        request(&[("__name__", "h"), ("trace_id", "x")], &[]).with(|series| {
            series.histograms = vec![histogram(t, n), histogram(t + 1, n + 1)];
            series.exemplars = vec![pb::Exemplar { labels_refs: vec![3, 4], value: 1.0, timestamp: t }];
        })
    };
    for from in &nodes {
        let answer = send(3).send(from).await;
        assert_eq!((answer.status, written(&answer)), (204, [Some(0), Some(2), Some(1)]), "{answer:?}");
    }
    let answer = send(4).send(&nodes[1]).await;
    assert_eq!((answer.status, written(&answer)), (400, [Some(0), Some(0), Some(1)]), "{answer:?}");
    assert!(answer.body.contains("duplicate_sample_for_timestamp: 2"), "{}", answer.body);
    for node in &nodes {
        let engine = node.receive.tsdb().unwrap();
        let view = engine.tenant(&model::TenantId::new("default-tenant").unwrap()).unwrap();
        let everything = storage::Context::background();
        let found = storage::Exemplars::exemplars(&*view, &[vec![]], model::TimeRange::ALL, &everything);
        assert_eq!(found.unwrap()[0].exemplars[0].labels.value("trace_id"), "x");
        assert_eq!(engine.head_stats().samples, 2);
        // And over gRPC, under the labels of its blocks, by which a selector finds or misses it.
        let handle = tokio::runtime::Handle::current();
        let address = node.grpc.to_string();
        let client =
            rpc::StoreClient::new(&address, rpc::ClientOptions::default(), World::real(), handle).unwrap();
        assert!(client.info().await.unwrap().apis.exemplars.is_some());
        for (query, found) in [
            ("rate(h[5m])", 1),
            ("h{tenant_id=\"default-tenant\"} or up", 1),
            ("h{tenant_id=\"another\"}", 0),
            ("h{trace_id!=\"x\"}", 0),
        ] {
            let (client, query) = (client.clone(), query.to_owned());
            let told = tokio::task::spawn_blocking(move || {
                let ask = wire::pb::thanos::ExemplarsRequest {
                    query,
                    start: t - 1,
                    end: t + 1,
                    ..Default::default()
                };
                client.ask::<rpc::facts::Exemplars>(&ask, &storage::Context::background()).unwrap()
            });
            let told = told.await.unwrap();
            assert_eq!(told.items.len(), found);
            for one in told.items {
                let labels = one.series_labels.unwrap().labels;
                assert!(labels.iter().any(|l| l.name == "tenant_id" && l.value == "default-tenant"));
                assert_eq!((one.exemplars[0].ts, one.exemplars[0].value), (t, 1.0));
            }
        }
    }
    Node::stop_all(nodes).await;
}
