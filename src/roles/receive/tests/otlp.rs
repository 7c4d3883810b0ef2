//! OTLP over loopback, and relabelling: what is stored, and what an exporter is told.

mod rig;

use std::io::Write;

use rig::{Node, now, single};

const PROTO: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn gauge(name: &str, t: i64, value: f64) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"{name}","gauge":{{"dataPoints":[
            {{"timeUnixNano":"{}","asDouble":{value}}}]}}}}]}}]}}]}}"#,
        t * 1_000_000
    )
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_and_both_forms_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let t = now();
    let json = gauge("a.b", t, 1.5).into_bytes();
    let proto = prost::Message::encode_to_vec(&wire::otlp::decode_json(&json).unwrap());
    for (path, headers, body) in [
        ("/api/v1/otlp/v1/metrics", vec![("Content-Type", PROTO)], proto.clone()),
        ("/api/v1/otlp", vec![("Content-Type", PROTO), ("Content-Encoding", "gzip")], gzip(&proto)),
        ("/api/v1/otlp/v1/metrics", vec![("Content-Type", JSON)], json.clone()),
        (
            "/api/v1/otlp",
            vec![("Content-Type", "application/json; charset=utf-8"), ("Content-Encoding", "gzip")],
            gzip(&json),
        ),
        (
            "/api/v1/otlp",
            vec![("Content-Type", PROTO), ("Content-Encoding", "zstd")],
            zstd::bulk::compress(&proto, 3).unwrap(),
        ),
    ] {
        let answer = node.post_with(path, &headers, body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path} {headers:?}");
    }
    assert_eq!(node.samples("default-tenant", "a_b"), [(t, 1.5)]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.admission.max_decompressed = settings::ByteSize::from_kib(64);
    let node = Node::start(settings).await;
    let t = now();
    let delta = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[
            {{"name":"d","sum":{{"aggregationTemporality":1,"dataPoints":[{{"timeUnixNano":"{0}","asInt":1}}]}}}},
            {{"name":"kept","gauge":{{"dataPoints":[{{"timeUnixNano":"{0}","asInt":1}}]}}}}]}}]}}]}}"#,
        t * 1_000_000
    );
    let bomb = gzip(&vec![b' '; 1 << 20]);
    for (case, headers, body, status, part) in [
        ("delta", vec![("Content-Type", JSON)], delta.into_bytes(), 400, "delta temporality"),
        ("not json", vec![("Content-Type", JSON)], b"{".to_vec(), 400, "not JSON"),
        ("not protobuf", vec![("Content-Type", PROTO)], b"\x0a\xff".to_vec(), 400, "cut short"),
        (
            "not gzip",
            vec![("Content-Type", PROTO), ("Content-Encoding", "gzip")],
            b"xx".to_vec(),
            400,
            "not gzip",
        ),
        (
            "bomb",
            vec![("Content-Type", JSON), ("Content-Encoding", "gzip")],
            bomb,
            413,
            "after decompression",
        ),
        (
            "zstd bomb",
            vec![("Content-Type", JSON), ("Content-Encoding", "zstd")],
            zstd::bulk::compress(&vec![b' '; 1 << 20], 3).unwrap(),
            413,
            "1048576 bytes after decompression",
        ),
        (
            "not zstd",
            vec![("Content-Type", PROTO), ("Content-Encoding", "zstd")],
            b"xx".to_vec(),
            400,
            "not a zstd frame",
        ),
        (
            "snappy",
            vec![("Content-Type", PROTO), ("Content-Encoding", "snappy")],
            vec![],
            415,
            "gzip, zstd or none",
        ),
        ("text", vec![("Content-Type", "text/plain")], vec![], 415, "application/json"),
        ("tenant", vec![("Content-Type", JSON), ("THANOS-TENANT", "..")], b"{}".to_vec(), 400, "is a path"),
    ] {
        let answer = node.post_with("/api/v1/otlp/v1/metrics", &headers, body).await;
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        assert!(answer.body.contains(part), "{case}: {answer:?}");
    }
    assert_eq!(node.samples("default-tenant", "kept"), [(t, 1.0)], "the others are stored");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn series_are_relabelled_before_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.relabel.text = Some(
        "- {source_labels: [__name__], regex: 'debug_.*', action: drop}\n\
         - {source_labels: [__name__], regex: 'old_(.*)', target_label: __name__, replacement: 'new_$1'}"
            .to_owned(),
    );
    let node = Node::start(settings).await;
    let t = now();
    // Twice, so that the second time series are recognised.
    for n in 0..2 {
        let batch = [
            rig::series("debug_x", &[(t + n, 1.0)]),
            rig::series("old_y", &[(t + n, 2.0)]),
            rig::series("z", &[(t + n, 3.0)]),
        ];
        assert_eq!(node.post(&batch).await.status, 204);
    }
    assert!(node.samples("default-tenant", "debug_x").is_empty());
    assert!(node.samples("default-tenant", "old_y").is_empty());
    assert_eq!(node.samples("default-tenant", "new_y"), [(t, 2.0), (t + 1, 2.0)]);
    assert_eq!(node.samples("default-tenant", "z"), [(t, 3.0), (t + 1, 3.0)]);
    node.stop().await.unwrap();
}
