//! Changes of the ring under load, with real processes and trouble in their middle: two queries a second are held against what
//! was acknowledged, everything is read back bit for bit, and nothing is lost, twice, missing or refused for good.

use std::process::Command;

use acceptance::{beside, binary};

/// A few seconds of a story; `told` are words of what it has to have come to.
fn loadtest(case: &str, told: &[&str]) {
    loadtest_with(case, &[], told);
}

fn loadtest_with(case: &str, more: &[String], told: &[&str]) {
    let out = Command::new(beside("loadtest"))
        .args(["ring", "--quick", "--case", case, "--series", "300", "--samples", "3000", "--interval", "1"])
        .args(["--rate", "1500", "--batch", "50"])
        .arg(format!("--binary={}", binary().display()))
        .args(more)
        .output()
        .expect("loadtest runs");
    let (text, log) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{text}");
    if log.contains("SKIPPED") {
        return eprintln!("{log}");
    }
    assert!(out.status.success(), "{text}\n{log}");
    assert!(text.contains(" acked: 0 lost, 0 twice, 0 wrong, 0 strange"), "{text}");
    assert!(text.contains("    0 of "), "queries with a gap: {text}");
    for told in told {
        assert!(text.contains(told), "no {told:?} in\n{text}");
    }
}

#[test]
fn three_become_five_and_three_again_with_one_killed_in_each_change_t18_t21() {
    loadtest("scale", &["receiver 3 drained", "receiver 4 drained"]);
}

#[test]
fn a_receiver_comes_back_with_an_empty_disk() {
    loadtest("empty-disk", &["as a new disk"]);
}

#[test]
fn a_dead_receiver_is_replaced() {
    loadtest("replace", &["receiver 3 has taken its place"]);
}

#[test]
fn a_receiver_leaves_while_the_bucket_is_down() {
    loadtest("bucket-down", &["blocks to be uploaded", "receiver 3 drained"]);
}

#[test]
fn the_majority_of_voters_is_lost_in_the_middle_of_a_change() {
    loadtest("quorum-lost", &["the change was in its middle", "the change at its end"]);
}

#[test]
fn a_router_sleeps_through_two_changes() {
    loadtest("asleep", &["the router slept"]);
}

#[test]
fn a_router_that_hears_nothing_of_the_voters_is_told_by_receivers_t20() {
    loadtest("apart", &["the router was told of a newer ring", "it places by the agreed epoch"]);
}

/// With TRIBUTARY_OLD_BIN, a build of the version before, two builds; else one, which is held at the level before.
#[test]
fn versions_are_mixed_and_one_goes_back() {
    let older = std::env::var("TRIBUTARY_OLD_BIN").ok().map(|path| format!("--older={path}"));
    let more: Vec<String> = older.into_iter().collect();
    let told = [
        "holds the level back no more",
        "the cluster is at level 2",
        "receiver 1 speaks level 1 alone",
        "one has come and gone",
    ];
    loadtest_with("versions", &more, &told);
}

#[test]
fn one_receiver_is_cut_off_and_has_everything_afterwards() {
    loadtest("cut-one", &["with receiver 2 cut off, both ways", "with the cable of receiver 2 pulled"]);
}

#[test]
fn a_zone_is_cut_off() {
    loadtest("cut-zone", &["with zone a cut off", "nothing waits for anybody"]);
}

#[test]
fn a_router_is_cut_off_from_the_voters_alone() {
    loadtest("cut-router", &["the router was told of a newer ring", "it places by the agreed epoch"]);
}

#[test]
fn a_log_is_lost_and_its_catalog_is_not() {
    loadtest("lost-log", &["it counts as a new disk"]);
}

#[test]
fn all_catalogs_are_lost_and_their_logs_are_not() {
    loadtest("restored", &["back from the backup"]);
}

#[test]
fn two_of_three_are_gone_and_the_ring_is_forced() {
    loadtest("forced", &["the ring was forced, said and logged"]);
}

#[test]
fn a_zone_is_lost_and_what_cannot_be_complete_is_an_error_t22() {
    loadtest("zone-lost", &["the zone is back"]);
}
