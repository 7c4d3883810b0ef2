//! Remote write 2.0 over loopback: content negotiation, what is stored, and what the sender is told was written.

mod rig;

use prost::Message;
use rig::{Answer, Node, cluster, now, single};
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

const NONE: [Option<u64>; 3] = [None; 3];

fn said(samples: u64) -> [Option<u64>; 3] {
    [Some(samples), Some(0), Some(0)]
}

fn metadata_and_exemplar(series: &mut pb::TimeSeries) {
    series.metadata = Some(pb::Metadata { r#type: 1, help_ref: 1, unit_ref: 0 });
    let timestamp = series.samples[0].timestamp;
    series.exemplars = vec![pb::Exemplar { labels_refs: vec![1, 2], value: 1.0, timestamp }];
}

#[tokio::test(flavor = "multi_thread")]
async fn unsorted_labels_are_stored_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let t = now();
    let labels = [("job", "api"), ("__name__", "http.requests total"), ("instance", "é\n")];
    let both = || {
        request(&labels, &[(t, 1.0), (t + 1, 2.0)])
            .with(metadata_and_exemplar)
            .add(&[("__name__", "up")], &[(t, 1.0)])
    };
    let told = [Some(3), Some(0), Some(1)];
    let answer = both().send(&node).await;
    assert_eq!((answer.status, answer.body.as_str(), written(&answer)), (204, "", told), "{answer:?}");
    // The same again is written as well: a retry must not look like a loss.
    let answer = both().send(&node).await;
    assert_eq!((answer.status, written(&answer)), (204, told));
    // What the sender says of the start is kept as a zero there, which is not counted.
    let kept = [(t - 5, 0.0), (t, 1.0), (t + 1, 2.0)];
    assert_eq!(node.samples("default-tenant", "http.requests total"), kept);
    // One series, whichever version names it.
    assert_eq!(node.post(&[rig::series("up", &[(t, 1.0), (t + 1, 0.0)])]).await.status, 204);
    assert_eq!(node.samples("default-tenant", "up"), [(t - 5, 0.0), (t, 1.0), (t + 1, 0.0)]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_version_two_is_told_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let answer = node.post(&[rig::series("up", &[(now(), 1.0)])]).await;
    assert_eq!((answer.status, written(&answer)), (204, NONE));
    let answer = Request::default().send(&node).await;
    assert_eq!((answer.status, written(&answer)), (204, said(0)), "an empty request");
    let corrupt = node.post_with("/api/v1/write", &[("Content-Type", V2)], b"0orrupt".to_vec()).await;
    assert_eq!((corrupt.status, written(&corrupt)), (400, said(0)));
    for (name, value) in [("Content-Type", "application/json"), ("Content-Encoding", "gzip")] {
        let answer = node.post_with("/api/v1/write", &[(name, value)], Vec::new()).await;
        assert_eq!((answer.status, written(&answer)), (415, NONE));
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_other_version_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let t = now();
    let two = request(&[("__name__", "up")], &[(t, 1.0)]).body();
    let one = rig::body(&[rig::series("up", &[(t, 1.0)])]);
    for (kind, body) in [("application/x-protobuf", two), (V2, one)] {
        let answer = node.post_with("/api/v1/write", &[("Content-Type", kind)], body).await;
        assert!(answer.status == 204 || answer.status == 400, "{answer:?}");
        assert_ne!(written(&answer)[0], Some(1));
    }
    assert!(node.samples("default-tenant", "up").is_empty());
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_and_the_rest_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let t = now();
    assert_eq!(request(&[("__name__", "conflict")], &[(t, 1.0)]).send(&node).await.status, 204);
    let count = Some(pb::histogram::Count::CountInt(9));
    let histogram = |series: &mut pb::TimeSeries| {
        series.histograms = vec![pb::Histogram { timestamp: t, count, ..Default::default() }]
    };
    let alone = |series: &mut pb::TimeSeries| {
        series.exemplars = vec![pb::Exemplar { labels_refs: vec![], value: 1.0, timestamp: t }]
    };
    let old = |series: &mut pb::TimeSeries| {
        series.exemplars = vec![pb::Exemplar { labels_refs: vec![], value: 1.0, timestamp: 5 }]
    };
    let bad = |labels: &[(&str, &str)], samples: &[(i64, f64)]| request(labels, samples);
    for (case, request, part) in [
        ("no name", bad(&[("job", "a")], &[(t, 1.0)]), "metric name is missing"),
        ("no labels", bad(&[], &[(t, 1.0)]), "no labels"),
        ("empty name", bad(&[("__name__", ""), ("a", "b")], &[(t, 1.0)]), "metric name is missing"),
        (
            "doubled label",
            bad(&[("__name__", "d"), ("a", "1"), ("a", "2")], &[(t, 1.0)]),
            "\"a\" appears twice",
        ),
        (
            "odd references",
            bad(&[("__name__", "o")], &[(t, 1.0)]).with(|s| s.labels_refs.push(1)),
            "do not come in pairs",
        ),
        (
            "reference",
            bad(&[("__name__", "r")], &[(t, 1.0)]).with(|s| s.labels_refs[1] = 99),
            "outside of the symbol table",
        ),
        (
            "metadata",
            bad(&[("__name__", "m")], &[(t, 1.0)])
                .with(|s| s.metadata = Some(pb::Metadata { r#type: 1, help_ref: 99, unit_ref: 0 })),
            "reference of the metadata",
        ),
        ("conflict", bad(&[("__name__", "conflict")], &[(t, 2.0)]), "duplicate_sample_for_timestamp: 1"),
        ("future", bad(&[("__name__", "f")], &[(t + 3_600_000, 1.0)]), "too_far_in_future: 1"),
        ("histogram", bad(&[("__name__", "h")], &[]).with(histogram), "invalid_native_histogram: 1"),
        ("exemplar", bad(&[("__name__", "conflict")], &[]).with(old), "too_old_sample: 1"),
        ("no series", bad(&[("__name__", "nobody")], &[]).with(alone), "invalid_exemplar: 1"),
    ] {
        let good = format!("good {case}");
        let answer = request.add(&[("__name__", &good)], &[(t, f64::INFINITY)]).send(&node).await;
        assert_eq!((answer.status, written(&answer)), (400, said(1)), "{case}: {answer:?}");
        assert!(answer.body.contains(part), "{case}: {}", answer.body);
        assert_eq!(node.samples("default-tenant", &good), [(t - 5, 0.0), (t, f64::INFINITY)], "{case}");
    }
    assert_eq!(node.samples("default-tenant", "conflict"), [(t - 5, 0.0), (t, 1.0)]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_receivers_take_version_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for settings in cluster(dir.path(), 3, 3) {
        nodes.push(Node::start(settings).await);
    }
    let t = now();
    let answer =
        request(&[("job", "a"), ("__name__", "up")], &[(t, 1.0), (t + 1, 2.0)]).send(&nodes[0]).await;
    assert_eq!((answer.status, written(&answer)), (204, said(2)), "{answer:?}");
    let all = [(t - 5, 0.0), (t, 1.0), (t + 1, 2.0)];
    let holders = nodes.iter().filter(|n| n.samples("default-tenant", "up") == all).count();
    assert!(holders >= 2, "{holders} of 3 have it when it is acknowledged");
    // Two of three are gone: nothing is written, and a retry can help.
    let last = nodes.pop().unwrap();
    for node in nodes {
        node.stop().await.unwrap();
    }
    let answer = request(&[("__name__", "up")], &[(t + 2, 3.0)]).send(&last).await;
    assert_eq!((answer.status, written(&answer)), (503, said(0)), "{answer:?}");
    last.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_receivers_take_histograms_and_exemplars() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for settings in cluster(dir.path(), 3, 3) {
        nodes.push(Node::start(settings).await);
    }
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
    for node in nodes {
        node.stop().await.unwrap();
    }
}

/// A program that ends with the test, however that ends.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus 3, where `PROMETHEUS_BIN` names one: it sends version 2, loses nothing and sees no discrepancy.
#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_sends_version_two() {
    let Some(prometheus) = std::env::var_os("PROMETHEUS_BIN") else {
        eprintln!("SKIPPED: PROMETHEUS_BIN names no Prometheus 3");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let port = rig::free_ports(1)[0];
    let config = format!(
        "global: {{scrape_interval: 500ms}}\nscrape_configs:\n\
         - job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n\
         remote_write:\n- url: http://{}/api/v1/write\n  protobuf_message: io.prometheus.write.v2.Request\n",
        node.write
    );
    let file = dir.path().join("prometheus.yml");
    World::real().disk.write_atomic(&file, config.as_bytes()).unwrap();
    let child = std::process::Command::new(prometheus)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn")
        .spawn()
        .unwrap();
    let child = Stopped(child);
    let mut values = Vec::new();
    for _ in 0..300 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        values = node.samples("default-tenant", "prometheus_build_info");
        if values.len() >= 5 {
            break;
        }
    }
    assert!(values.len() >= 5 && values.iter().all(|v| v.1 == 1.0), "{values:?}");
    let metrics = rig::request(([127, 0, 0, 1], port).into(), "GET", "/metrics", &[], Vec::new()).await.body;
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|l| l.starts_with(&format!("{name}{{")));
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    assert!(sum("prometheus_remote_storage_samples_total") > 0.0, "{metrics}");
    for bad in ["samples_failed_total", "samples_retried_total", "samples_dropped_total"] {
        assert_eq!(sum(&format!("prometheus_remote_storage_{bad}")), 0.0, "{bad}");
    }
    drop(child);
    node.stop().await.unwrap();
}
