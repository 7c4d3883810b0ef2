//! The HTTP API as other people's tools see it: promtool decodes its answers, and a fuzzer that reads OpenAPI
//! documents finds no server error and no answer that a document does not describe.
//!
//! The fuzzer is schemathesis, found on the path or named by `SCHEMATHESIS`; without it, and without promtool, the
//! tests say so and pass.

mod node;

use std::path::{Path, PathBuf};
use std::process::Command;

use acceptance::{find_program, get};
use node::node;

#[test]
fn promtool_decodes_every_answer() {
    let Some(promtool) = find_program("promtool") else { return };
    let node = node();
    let run = |args: &[&str]| {
        let out = Command::new(&promtool).args(args).output().expect("promtool runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    };
    let (url, end) = (node.url.as_str(), node.now.to_string());
    let start = (node.now - 3000).to_string();
    let (from, to) = (format!("--start={start}"), format!("--end={end}"));
    let at = format!("--time={end}");
    let metrics: serde_json::Value = {
        let answer = get(&format!("{url}/api/v1/label/__name__/values")).expect("an answer");
        answer.json()
    };
    let metric = metrics["data"][0].as_str().expect("a metric").to_owned();
    assert!(run(&["query", "instant", &at, url, &metric]).contains(&metric));
    for query in ["1 + 1", "vector(1)", "count({__name__!=\"\"})", &format!("{metric}[5m]")] {
        assert!(!run(&["query", "instant", &at, url, query]).is_empty(), "{query}");
    }
    let range = run(&["query", "range", &from, &to, "--step=60s", url, &format!("rate({metric}[5m])")]);
    assert!(range.contains('@'), "{range}");
    assert!(run(&["query", "series", &from, &to, &format!("--match={metric}"), url]).contains(&metric));
    assert!(run(&["query", "labels", &from, &to, url, "__name__"]).contains(&metric));
    // An error is shown with its type, not taken for an answer.
    let out = Command::new(&promtool).args(["query", "instant", url, "up{"]).output().expect("promtool runs");
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("parse error"), "{out:?}");
    node.running.stop();
}

fn schemathesis() -> Option<PathBuf> {
    match std::env::var_os("SCHEMATHESIS") {
        Some(path) => Some(PathBuf::from(path)),
        None => find_program("schemathesis"),
    }
}

#[test]
fn a_fuzzer_finds_no_fault() {
    let Some(program) = schemathesis() else { return };
    let node = node();
    let fuzz = |document: &str, base: &str, skip: &str| {
        let mut command = Command::new(&program);
        command.args(["run", document, "--url", base, "--phases", "examples,coverage,fuzzing", "-n", "40"]);
        let checks =
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
        command.args(["--checks", checks, "--continue-on-failure", "--seed", "1", "--no-color"]);
        command.args(["--exclude-path-regex", skip]);
        let out = command.current_dir(node.dir.path()).output().expect("schemathesis runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    };
    // A stream that never ends is none to wait for.
    let skip = "/notifications/live";
    fuzz(&format!("{}/api/v1/openapi.yaml", node.url), &node.url, skip);
    // Prometheus's own document, where it lies beside the repository: the paths that a query tier has.
    let upstream = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/conformance/openapi/openapi_3.1_golden.yaml");
    if upstream.exists() {
        let skip = "/(admin/.*|write|otlp/.*|read|search/.*|status/self_metrics|status/tsdb/blocks|notifications/live)$";
        fuzz(&upstream.display().to_string(), &format!("{}/api/v1", node.url), skip);
    }
    node.running.stop();
}
