//! Upstream's promqltest scripts, where they are at hand.

use std::path::Path;

use promql::testing::run_script;

/// Evals of each file, all of which pass.
const EVALS: &[(&str, usize)] = &[
    ("aggregators", 112),
    ("at_modifier", 56),
    ("collision", 1),
    ("duration_expression", 42),
    ("extended_vectors", 118),
    ("fill-modifier", 32),
    ("functions", 301),
    ("histograms", 129),
    ("info", 37),
    ("limit", 25),
    ("literals", 18),
    ("name_label_dropping", 21),
    ("native_histograms", 365),
    ("operators", 151),
    ("range_queries", 12),
    ("selectors", 22),
    ("staleness", 12),
    ("start_timestamps", 18),
    ("subquery", 24),
    ("trig_functions", 13),
    ("type_and_unit", 41),
];

#[test]
fn upstream_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/promqltest");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: upstream's scripts are not at hand");
        return;
    };
    // A name, or "all": failures are shown one by one.
    let only = std::env::var("PROMQLTEST_ONLY").ok();
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "test"));
    files.sort();
    let mut sums = (0, 0);
    let mut sunken = Vec::new();
    for path in files {
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        if only.as_ref().is_some_and(|only| *only != name && only != "all") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let report = run_script(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!("{name:24} {:4} passed {:4} failed", report.passed, report.failures.len());
        if only.is_some() {
            for f in &report.failures {
                println!("  {}: {}\n      {}", f.line, f.query, f.reason);
            }
        }
        sums = (sums.0 + report.passed, sums.1 + report.failures.len());
        let known = EVALS.iter().find(|(file, _)| *file == name).map_or(0, |(_, evals)| *evals);
        if report.passed < known || !report.failures.is_empty() {
            sunken.push(format!("{name}: {} of {known} evals pass", report.passed));
        }
    }
    println!("all: {} passed, {} failed", sums.0, sums.1);
    assert!(sunken.is_empty(), "{}", sunken.join("\n"));
}
