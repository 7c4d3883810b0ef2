//! The HTTP API as clients written by others read it: Prometheus's own from npm decodes every answer, and `promtool
//! query analyze` counts the buckets of histograms.
//!
//! The npm package is installed into a temporary folder; without node, npm, or a registry that answers, the test says
//! so and passes. So it does without a promtool that has the command.

mod node;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use acceptance::find_program;

/// Prometheus's client, as its user interface has it.
const PACKAGE: &str = "@prometheus-io/codemirror-promql@0.314.0";

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Whether the package now is in `dir`.
fn install(dir: &Path) -> bool {
    let Some(npm) = find_program("npm") else { return false };
    let mut command = Command::new(npm);
    command.args(["install", "--prefix", "."]);
    command.args([
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--no-package-lock",
        "--fetch-retries=1",
        PACKAGE,
    ]);
    let out = command.current_dir(dir).output().expect("npm runs");
    if !out.status.success() {
        eprintln!("SKIPPED: npm cannot install {PACKAGE}: {}", text(&out));
    }
    out.status.success()
}

#[test]
fn the_client_of_prometheus_decodes_every_answer() {
    let Some(program) = find_program("node") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    if !install(dir.path()) {
        return;
    }
    let script = dir.path().join("client.cjs");
    std::fs::write(&script, include_str!("clients/client.cjs")).expect("the script is written");
    let node = node::node();
    let out = Command::new(program)
        .arg(&script)
        .args([&node.url, &node.now.to_string()])
        .current_dir(dir.path())
        .output()
        .expect("node runs");
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("all decoded"), "{}", text(&out));
    node.running.stop();
}

#[test]
fn promtool_analyzes_histograms() {
    // The one on the path may be too old.
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let Some(promtool) = named.or_else(|| find_program("promtool")) else { return };
    let help = Command::new(&promtool).args(["query", "analyze", "--help"]).output().expect("promtool runs");
    if !help.status.success() {
        eprintln!("SKIPPED: this promtool has no `query analyze`; name a newer one by PROMTOOL");
        return;
    }
    let node = node::node();
    let out = Command::new(&promtool)
        .args(["query", "analyze", "--type=histogram", "--duration=1h"])
        .args([format!("--server={}", node.url), format!("--time={}", node.now)])
        .arg(r#"--match={__name__=~".+"}"#)
        .output()
        .expect("promtool runs");
    assert!(out.status.success(), "{}", text(&out));
    let said = text(&out);
    assert!(said.contains("- demo_api_request_duration_seconds_bucket{instance="), "{said}");
    assert!(said.contains("Classic histogram series (12 in total):"), "{said}");
    node.running.stop();
}
