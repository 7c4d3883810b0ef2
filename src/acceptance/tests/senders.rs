//! Real senders: a Prometheus 2 and a Prometheus 3 scrape floats, native histograms, exemplars and metadata and send them on;
//! what is read here is what the sender itself answers. A vmagent sends in its own compression.
//!
//! The Prometheus of the PATH sends remote write 1.0; one that `PROMETHEUS_BIN` names (a Prometheus 3) 1.0 and 2.0; a vmagent
//! that `VMAGENT_BIN` names zstd. Where one is not there, its test says so and passes.

mod exporter;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, find_program, free_port, get, percent, wait_until};
use exporter::Exporter;
use serde_json::Value;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_secs_f64()
}

fn standalone(dir: &Path) -> (Running, String) {
    let (program, url) = Program::standalone(dir);
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    (running, url)
}

fn data(url: &str, path: &str) -> Value {
    let answer = get(&format!("{url}{path}")).expect("an answer");
    assert_eq!(answer.status, 200, "{url}{path}: {}", answer.text());
    answer.json()["data"].clone()
}

/// A list whose order says nothing.
fn sorted(value: &Value) -> Vec<String> {
    let mut all: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
    all.sort();
    all
}

/// What one server has of the scraped program until `at`: all samples, all exemplars. A Prometheus 2 shows the last
/// histogram of a range in the place of all: with `by_instants` they are asked for one by one, for ten seconds.
fn everything(url: &str, at: f64, by_instants: bool) -> (Vec<String>, Vec<String>) {
    let query = |query: &str, at: f64| {
        sorted(&data(url, &format!("/api/v1/query?query={}&time={at:.3}", percent(query)))["result"])
    };
    let mut samples = query(r#"{job="app"}[2m]"#, at);
    if by_instants {
        samples.retain(|line| !line.contains("\"histograms\""));
        samples.extend((0..20).flat_map(|half| query(r#"{job="app"}"#, at - f64::from(half) / 2.0)));
    }
    let range = format!("start={}&end={at}", at - 120.0);
    let exemplars = format!("/api/v1/query_exemplars?query={}&{range}", percent(r#"{job="app"}"#));
    (samples, sorted(&data(url, &exemplars)))
}

/// `remote` are further lines of the remote-write section.
fn reads_back(prometheus: PathBuf, by_instants: bool, features: &str, remote: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ours, url) = standalone(dir.path());
    let exporter = Exporter::start();
    let config = format!(
        "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: app\n  static_configs: [{{targets: \
         ['127.0.0.1:{}']}}]\nremote_write:\n- url: {url}/api/v1/write\n  send_exemplars: true\n  \
         send_native_histograms: true\n  queue_config: {{batch_send_deadline: 200ms}}\n{remote}",
        exporter.port
    );
    let flags = [format!("--enable-feature={features}")];
    let flags = flags.each_ref().map(String::as_str);
    let (sender, theirs) = Program::prometheus(prometheus, dir.path(), "prometheus", &config, &flags);
    let mut running = sender.start();
    running.wait_ready(&format!("{theirs}/-/ready"));
    std::thread::sleep(Duration::from_secs(12));
    let at = now() - 1.0;
    let want = everything(&theirs, at, by_instants);
    let text = want.0.join("\n");
    // Enough of everything that it proves something.
    for (series, part) in [
        ("app_requests_total", "\"values\""),
        ("app_depth", "\"values\""),
        ("app_sizes", "\"histogram"),
        ("app_shares", "\"histogram"),
    ] {
        let line = want.0.iter().find(|line| line.contains(&format!("\"{series}\"")) && line.contains(part));
        assert!(line.is_some(), "{series} has no {part}: {text}");
    }
    assert!(want.1.len() >= 2 && want.1.iter().all(|line| line.contains("trace_id")), "{:?}", want.1);
    let mut got = everything(&url, at, by_instants);
    for _ in 0..100 {
        if got == want {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        got = everything(&url, at, by_instants);
    }
    assert_eq!(got.0, want.0);
    assert_eq!(got.1, want.1);
    for (metric, kind, help) in [
        ("app_requests_total", "counter", "Requests."),
        ("app_depth", "gauge", "Waiting."),
        ("app_sizes", "histogram", "Sizes."),
    ] {
        wait_until(&format!("what is said of {metric}"), || {
            let said = data(&url, "/api/v1/metadata")[metric][0].clone();
            (said["type"] == kind && said["help"] == help).then_some(())
        });
    }
    // Nothing was refused, and nothing sent twice.
    let metrics = get(&format!("{theirs}/metrics")).expect("an answer").text();
    for what in ["samples", "histograms", "exemplars"] {
        let of = |name: &str| {
            let name = format!("prometheus_remote_storage_{what}_{name}total");
            let lines = metrics.lines().filter(|line| line.starts_with(&name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
        };
        assert!(of("") > 0.0, "no {what} were sent: {metrics}");
        assert_eq!((of("failed_"), of("retried_"), of("dropped_")), (0.0, 0.0, 0.0), "{what}: {metrics}");
    }
    running.stop();
    ours.stop();
}

const METADATA: &str = "  metadata_config: {send: true, send_interval: 1s}\n";
const FEATURES: &str = "native-histograms,exemplar-storage";

fn prometheus_3() -> Option<PathBuf> {
    let named = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
    if named.is_none() {
        eprintln!("SKIPPED: PROMETHEUS_BIN names no Prometheus 3");
    }
    named
}

#[test]
fn a_prometheus_of_the_path_sends_version_1() {
    let Some(prometheus) = find_program("prometheus") else { return };
    let version = Command::new(&prometheus).arg("--version").output().expect("a Prometheus that runs");
    let is_2 = String::from_utf8_lossy(&version.stdout).contains("version 2.");
    reads_back(prometheus, is_2, FEATURES, METADATA);
}

#[test]
fn a_prometheus_3_sends_version_1() {
    let Some(prometheus) = prometheus_3() else { return };
    reads_back(prometheus, false, FEATURES, METADATA);
}

#[test]
fn a_prometheus_3_sends_version_2() {
    let Some(prometheus) = prometheus_3() else { return };
    let remote = "  protobuf_message: io.prometheus.write.v2.Request\n";
    reads_back(prometheus, false, &format!("{FEATURES},metadata-wal-records"), remote);
}

#[test]
fn a_vmagent_sends_zstd() {
    let Some(vmagent) = std::env::var_os("VMAGENT_BIN").map(PathBuf::from) else {
        eprintln!("SKIPPED: VMAGENT_BIN names no vmagent");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ours, url) = standalone(dir.path());
    let exporter = Exporter::start();
    let port = free_port();
    let file = dir.path().join("scrape.yml");
    let config = format!(
        "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: app\n  static_configs: [{{targets: \
         ['127.0.0.1:{}']}}]\n",
        exporter.port
    );
    std::fs::write(&file, config).expect("write a configuration");
    let sender = Program {
        name: "vmagent".to_owned(),
        path: vmagent,
        args: vec![
            format!("-promscrape.config={}", file.display()),
            format!("-remoteWrite.url={url}/api/v1/write"),
            // It would choose by the answer to a first request.
            "-remoteWrite.forceVMProto=true".to_owned(),
            "-remoteWrite.flushInterval=200ms".to_owned(),
            format!("-remoteWrite.tmpDataPath={}", dir.path().join("queue").display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
        ],
        log: dir.path().join("vmagent.log"),
    };
    let mut running = sender.start();
    let theirs = format!("http://127.0.0.1:{port}");
    running.wait_ready(&format!("{theirs}/-/ready"));
    // One after the other, without a gap.
    let values = wait_until("ten samples", || {
        let query = percent("app_requests_total[5m]");
        let found = data(&url, &format!("/api/v1/query?query={query}&time={}", now()));
        let values: Vec<f64> = found["result"][0]["values"]
            .as_array()?
            .iter()
            .filter_map(|point| point[1].as_str()?.parse().ok())
            .collect();
        (values.len() >= 10).then_some(values)
    });
    assert!(values.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "{values:?}");
    let metrics = get(&format!("{theirs}/metrics")).expect("an answer").text();
    let of = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    assert_eq!(
        (of("vmagent_remotewrite_retries_count_total"), of("vmagent_remotewrite_packets_dropped_total")),
        (0.0, 0.0)
    );
    assert!(of("vmagent_remotewrite_requests_total{") > 0.0, "{metrics}");
    running.stop();
    ours.stop();
}
