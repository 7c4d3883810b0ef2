//! An instrumented program of others: OpenTelemetry's SDK for Python sends every kind of metric, and everything is read back
//! over the API.
//!
//! `OTEL_PYTHON` names an interpreter that has the packages `opentelemetry-sdk` and `opentelemetry-exporter-otlp-proto-http`;
//! else the `python3` of the path may have them. Where none has, the test says so and passes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, Said, When, ask, find_program, get, percent};
use serde_json::{Value, json};

fn interpreter() -> Option<PathBuf> {
    let named = std::env::var_os("OTEL_PYTHON").map(PathBuf::from);
    let python = named.or_else(|| find_program("python3"))?;
    let imports = "import opentelemetry.sdk.metrics, opentelemetry.exporter.otlp.proto.http.metric_exporter";
    let out = Command::new(&python).args(["-c", imports]).output().expect("the interpreter runs");
    if !out.status.success() {
        eprintln!("SKIPPED: {} has no OpenTelemetry; name one that has in OTEL_PYTHON", python.display());
        return None;
    }
    Some(python)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64
}

struct Asked<'a> {
    url: &'a str,
    at: i64,
}

impl Asked<'_> {
    /// Values of an instant query by their labels, as text without what all series have.
    fn values(&self, query: &str) -> BTreeMap<String, f64> {
        match ask(self.url, query, When::At(self.at), &["job", "instance"]) {
            Said::Failed(error) => panic!("{query}: {error}"),
            Said::Series(series) => series
                .into_iter()
                .map(|(labels, points)| {
                    let name = labels.get("__name__").cloned().unwrap_or_default();
                    let rest: Vec<String> = labels
                        .iter()
                        .filter(|(n, _)| *n != "__name__")
                        .map(|(n, v)| format!("{n}={v}"))
                        .collect();
                    (format!("{name} {}", rest.join(",")).trim().to_owned(), points[0].1)
                })
                .collect(),
        }
    }

    fn json(&self, path: &str) -> Value {
        let answer = get(&format!("{}{path}", self.url)).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["data"].clone()
    }
}

#[test]
fn what_an_sdk_sends_is_read_back() {
    let Some(python) = interpreter() else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (program, url) = Program::standalone(dir.path());
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    let script = dir.path().join("otlp.py");
    std::fs::write(&script, include_str!("clients/otlp.py")).expect("the script is written");
    let out = Command::new(python)
        .arg(&script)
        .arg(format!("{url}/api/v1/otlp/v1/metrics"))
        .output()
        .expect("the interpreter runs");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("all sent"), "{said}");
    let asked = Asked { url: &url, at: now_ms() };

    // Every float series there is, and its last value.
    let want = [
        ("http_server_duration_seconds_bucket http_route=/a,le=+Inf", 3.0),
        ("http_server_duration_seconds_bucket http_route=/a,le=0.1", 1.0),
        ("http_server_duration_seconds_bucket http_route=/a,le=1", 2.0),
        ("http_server_duration_seconds_bucket http_route=/a,le=10", 2.0),
        ("http_server_duration_seconds_count http_route=/a", 3.0),
        ("http_server_duration_seconds_sum http_route=/a", 20.55),
        ("http_server_requests_total http_route=/a", 13.0),
        ("http_server_requests_total http_route=/b", 4.0),
        ("queue_depth", 3.0),
        ("room_temperature_celsius", -3.5),
        ("rpc_latency_seconds quantile=0.5", 0.25),
        ("rpc_latency_seconds quantile=0.99", 1.75),
        ("rpc_latency_seconds_count", 7.0),
        ("rpc_latency_seconds_sum", 3.5),
    ];
    let want: BTreeMap<String, f64> = want.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    let others = r#"{__name__!="target_info",__name__!="payload_size_bytes",job="shop/api",instance="i-1"}"#;
    assert_eq!(asked.values(others), want);
    // Each twice; where counting has a start, it began with a zero.
    for (metric, counts) in [
        ("room_temperature_celsius", &[2.0][..]),
        ("http_server_requests_total", &[3.0, 3.0]),
        ("http_server_duration_seconds_count", &[3.0]),
        ("payload_size_bytes", &[3.0]),
        ("rpc_latency_seconds_count", &[1.0]),
    ] {
        let found: Vec<f64> = asked.values(&format!("count_over_time({metric}[5m])")).into_values().collect();
        assert_eq!(found, counts, "{metric}");
    }
    assert_eq!(
        asked.values(r#"sum(increase(http_server_requests_total{http_route="/a"}[5m])) > bool 0"#)[""],
        1.0
    );

    // The exponential histogram, whole.
    let got =
        asked.json(&format!("/api/v1/query?query=payload_size_bytes&time={}", asked.at as f64 / 1000.0));
    let result = &got["result"][0];
    assert_eq!(
        result["metric"],
        json!({"__name__": "payload_size_bytes", "job": "shop/api", "instance": "i-1"})
    );
    let histogram = &result["histogram"][1];
    assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("6"), &json!("1035")), "{got}");
    let buckets = histogram["buckets"].as_array().expect("buckets");
    let counts: Vec<&str> = buckets.iter().filter_map(|b| b[3].as_str()).collect();
    // 0, 1, 2, 4 twice, 1024.
    assert_eq!(counts, ["1", "1", "1", "2", "1"], "{got}");
    let q = asked.values("histogram_quantile(0.99, payload_size_bytes)")[""];
    assert!((900.0..=1024.0).contains(&q), "{q}");

    // What is said of the resource, of metrics, and of traces.
    let info = asked.values("target_info");
    let (labels, value) = info.iter().next().expect("target_info");
    assert!(labels.contains("host_name=h1") && labels.contains("service_version=1.2.3"), "{labels}");
    assert_eq!((info.len(), *value), (1, 1.0));
    let metadata = asked.json("/api/v1/metadata");
    for (metric, kind, help) in [
        ("http_server_requests_total", "counter", "Requests."),
        ("queue_depth", "gauge", "Waiting."),
        ("room_temperature_celsius", "gauge", "Inside."),
        ("http_server_duration_seconds", "histogram", "Durations."),
        ("payload_size_bytes", "histogram", "Sizes."),
        ("rpc_latency_seconds", "summary", "Latencies."),
    ] {
        let said = &metadata[metric][0];
        assert_eq!((&said["type"], &said["help"]), (&json!(kind), &json!(help)), "{metric}: {metadata}");
    }
    let exemplars = |query: &str| {
        let range = format!("start={}&end={}", asked.at / 1000 - 600, asked.at / 1000 + 1);
        asked.json(&format!("/api/v1/query_exemplars?query={}&{range}", percent(query)))
    };
    let found = exemplars(r#"http_server_duration_seconds_bucket{le="1"}"#);
    let labels = &found[0]["exemplars"][0]["labels"];
    assert_eq!(labels["trace_id"], json!("0af7651916cd43dd8448eb211c80319c"), "{found}");
    assert_eq!(labels["span_id"], json!("b7ad6b7169203331"), "{found}");
    assert_eq!(found[0]["exemplars"][0]["value"], json!("0.5"), "{found}");
    running.stop();
}
