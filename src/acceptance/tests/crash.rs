//! kill -9 in the middle of an ingest: every acknowledged sample is read back once, bit for bit.

use std::process::Command;

use acceptance::{beside, binary};

fn loadtest(scenario: &str, args: &[&str]) {
    let out = Command::new(beside("loadtest"))
        .arg(scenario)
        .args(["--series", "4000", "--samples", "60", "--batch", "500"])
        .arg(format!("--binary={}", binary().display()))
        .args(args)
        .output()
        .expect("loadtest runs");
    let text = String::from_utf8_lossy(&out.stdout);
    println!("{text}");
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("240000 acked: 0 lost, 0 twice, 0 wrong, 0 strange"), "{text}");
}

#[test]
fn a_single_node_killed_three_times_t9() {
    loadtest("crash", &["--cycles", "3"]);
}

#[test]
fn one_of_three_receivers_killed_while_data_flows_t9() {
    loadtest("node-loss", &["--away", "2", "--rate", "40000"]);
}
