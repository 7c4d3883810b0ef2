//! Every metric that the code counts has a HELP text, and every HELP text a metric.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;

/// Sources of the crates, their tests aside.
fn sources(folder: &Path, out: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("list {}: {e}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !["tests", "benches", "fuzz", "target", "acceptance"].contains(&name.as_str()) {
            sources(&path, out);
        } else if name.ends_with(".rs") && name != "help.rs" {
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            out.push(code.to_owned());
        }
    }
}

/// Names in quotes that look like a metric's, in files that record: by a macro, or by a crate's own `count`.
fn counted(code: &str) -> BTreeSet<String> {
    if !["counter!(", "gauge!(", "histogram!(", "count(\""].iter().any(|name| code.contains(name)) {
        return BTreeSet::new();
    }
    let prefixes = ["tributary_", "thanos_", "prometheus_", "process_", "http_request", "grpc_server_"];
    let looks = |text: &&str| {
        prefixes.iter().any(|prefix| text.starts_with(prefix))
            && text.len() > 12
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    code.split('"').skip(1).step_by(2).filter(looks).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_explained() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
    let counted: BTreeSet<String> = files.iter().flat_map(|code| counted(code)).collect();
    let explained: BTreeSet<String> = telemetry::HELP.iter().map(|(name, _)| name.to_string()).collect();
    let missing: Vec<_> = counted.difference(&explained).collect();
    assert!(missing.is_empty(), "add a line to src/telemetry/help.rs for each of {missing:?}");
    let idle: Vec<_> = explained.difference(&counted).collect();
    assert!(
        idle.is_empty(),
        "nothing counts these any more; remove them from src/telemetry/help.rs: {idle:?}"
    );
}
