//! One of three receivers fails for some seconds: no answer is a 5xx, it has everything afterwards, and each of the three
//! has every acknowledged sample once, bit for bit.

use std::process::Command;

use acceptance::{beside, binary};

fn loadtest(case: &str) {
    let out = Command::new(beside("loadtest"))
        .args(["peers", "--quick", "--case", case, "--series", "2000", "--samples", "60", "--batch", "200"])
        .arg(format!("--binary={}", binary().display()))
        .output()
        .expect("loadtest runs");
    let (text, log) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{text}");
    if log.contains("SKIPPED") {
        return eprintln!("{log}");
    }
    assert!(out.status.success(), "{text}\n{log}");
    assert!(text.contains("120000 acked: 0 lost, 0 twice, 0 wrong, 0 strange"), "{text}");
    assert!(!text.contains("BROKEN"), "{text}");
}

#[test]
fn a_peer_that_takes_connections_and_never_answers_t3() {
    loadtest("stopped");
}

#[test]
fn a_peer_behind_a_black_hole_t4() {
    loadtest("black-hole");
}

#[test]
fn a_peer_that_restarts_while_it_is_written_to_t5() {
    loadtest("restarts");
}

#[test]
fn a_peer_whose_disk_is_full() {
    loadtest("full-disk");
}

#[test]
fn all_three_restart_one_after_the_other_t8() {
    loadtest("rolling");
}

#[test]
fn all_three_are_killed_at_once_t9() {
    loadtest("all-killed");
}
