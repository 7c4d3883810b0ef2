//! PromQL answers as a Prometheus fed with the same data does: over the project's own list of queries, and over
//! the public compliance list where that is at hand.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, When, ask, beside, difference, find_program};

#[test]
fn answers_agree_with_a_prometheus() {
    let Some(prometheus) = find_program("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let flags = ["--web.enable-remote-write-receiver"];
    let (program, reference_url) = Program::prometheus(prometheus, dir.path(), "prometheus", "", &flags);
    let mut reference = program.start();
    let (program, our_url) = Program::standalone(dir.path());
    let mut ours = program.start();
    reference.wait_ready(&format!("{reference_url}/-/ready"));
    ours.wait_ready(&format!("{our_url}/-/ready"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_secs() as i64;
    let fed = Command::new(beside("loadtest"))
        .args(["demo", "--minutes", "100", "--end", &now.to_string()])
        .args([format!("{reference_url}/api/v1/write"), format!("{our_url}/api/v1/write")])
        .output()
        .expect("loadtest runs");
    assert!(fed.status.success(), "{}", String::from_utf8_lossy(&fed.stderr));

    // Seven seconds past a minute: no step meets a multiple of a subquery's step. There a Prometheus 2 counts a
    // sample on the left edge of a window, and a Prometheus 3, as we do, does not.
    let end = ((now - 720) / 60 * 60 + 7) * 1000;
    let run = |name: &str, queries: &[String], floor: f64| {
        let mut failed = Vec::new();
        for query in queries {
            for when in [When::Range(end - 600_000, end, 10_000), When::At(end)] {
                let want = ask(&reference_url, query, when, &[]);
                if let Some(difference) = difference(&want, &ask(&our_url, query, when, &[]), 1e-5) {
                    failed.push(format!("{query}: {difference}"));
                    break;
                }
            }
        }
        let share = 1.0 - failed.len() as f64 / queries.len() as f64;
        println!("{name}: {} of {} agree", queries.len() - failed.len(), queries.len());
        assert!(share >= floor, "{name}: only {:.1} % agree\n{}", share * 100.0, failed.join("\n"));
    };

    let own = include_str!("../queries.txt")
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    run("the project's own queries", &own.map(str::to_owned).collect::<Vec<_>>(), 1.0);

    let public = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/conformance/promql-compliance/queries.json");
    match std::fs::read(&public) {
        Ok(text) => {
            let list: serde_json::Value = serde_json::from_slice(&text).expect("queries.json is JSON");
            let queries: Vec<String> = list
                .as_array()
                .expect("a list")
                .iter()
                .filter(|q| q["skip_comparison"] != true)
                .filter_map(|q| q["query"].as_str().map(str::to_owned))
                .collect();
            run("the public compliance queries", &queries, 0.97);
        }
        Err(_) => println!("SKIPPED: the public compliance queries are not beside this checkout"),
    }
    reference.stop();
    ours.stop();
}
