//! The conformance corpora: our own scripts, all of which pass, and upstream's, where they are at hand.

use std::path::{Path, PathBuf};

use promql::testing::run_script;

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "test"));
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

#[test]
fn our_corpus() {
    let files = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"));
    assert!(!files.is_empty());
    let mut bad = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let report = run_script(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("{:24} {:4} passed {:4} failed", name(&path), report.passed, report.failures.len());
        for f in report.failures {
            bad.push(format!("{}:{}: {}\n    {}", name(&path), f.line, f.query, f.reason));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
