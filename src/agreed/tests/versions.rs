//! What nodes of two versions have in common: a log of commands as it is stored, and the state that every version makes of it.
//! Voters of two versions apply the same log, so what a command does may not change: what is to be done otherwise is a
//! new command, or waits for a feature level.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tributary-agreed --test versions` adds to the files; entries that are there stay as they are.

// From outside, files are the real ones.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use agreed::command::Election;
use agreed::{Command, Proposal, Registration, RingPlan, State};

const THREE: [&str; 3] = ["a", "b", "c"];
const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

fn plan(members: &[&str]) -> RingPlan {
    let quoted: Vec<String> = members.iter().map(|m| format!("\"{m}:1\"")).collect();
    RingPlan {
        text: format!("[{{\"endpoints\": [{}]}}]", quoted.join(", ")),
        replication: 3,
        quorum: 2,
        hashmod: false,
    }
}

fn names(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|n| format!("{n}:1")).collect()
}

/// A life in which every command occurs, taken and refused.
fn life() -> Vec<Command> {
    let by = || "an operator".to_owned();
    let address = |node: &str| format!("{node}:1");
    let register = |node: &str, disk: u8, to: u32| Command::Register {
        node: Registration {
            address: address(node),
            incarnation: format!("{node}-{disk}"),
            cluster: String::new(),
            levels: (1, to),
            ships: node != "f",
        },
        time: 2,
    };
    let adopted = |node: &str, min_epoch: u64| Command::Adopted {
        address: address(node),
        incarnation: format!("{node}-0"),
        min_epoch,
        time: 3,
    };
    let clear = |node: &str, through: u64| Command::Clear {
        address: address(node),
        incarnation: format!("{node}-0"),
        through,
    };
    let propose = |from: &[&str], to: &[&str], away: &[&str], retire: &[&str]| {
        Command::Propose(Proposal {
            expect: plan(from).text,
            plan: plan(to),
            away: names(away),
            retire: names(retire),
            by: by(),
            time: 4,
        })
    };
    let elect = |replica: &str, expect: u64| {
        Command::Elect(Election {
            tenant: "t".to_owned(),
            group: "g".to_owned(),
            replica: replica.to_owned(),
            expect,
            splice_from: 7,
            time: 8,
            cap: 3,
        })
    };
    let lease = |holder: &str, token: Option<u64>, time: i64| Command::Lease {
        job: "compact".to_owned(),
        holder: holder.to_owned(),
        token,
        time,
        ttl: 100,
    };
    let limits =
        |expect: u64, text: &str| Command::SetLimits { expect, text: text.to_owned(), by: by(), time: 5 };
    let form = || Command::Form { cluster: "C1".to_owned(), plan: plan(&THREE), by: by(), time: 1 };

    let mut all = vec![register("a", 0, 1), form(), form()];
    all.extend(THREE.map(|node| register(node, 0, 1)));
    all.extend(THREE.map(|node| adopted(node, 1)));
    // Grown, with one that is late, and cleared.
    all.push(propose(&THREE, &FIVE, &[], &[]));
    all.push(register("d", 0, 1));
    all.push(Command::Ready { address: address("d"), epoch: 2 });
    all.push(register("e", 0, 1));
    all.push(Command::Ready { address: address("e"), epoch: 2 });
    all.push(propose(&THREE, &["a", "b", "d"], &[], &[]));
    all.extend(FIVE.map(|node| adopted(node, 2)));
    all.extend(FIVE.map(|node| adopted(node, 3)));
    all.extend(FIVE.map(|node| clear(node, 1)));
    all.extend(FIVE.map(|node| clear(node, 2)));
    // Elections, jobs and limits.
    all.extend([elect("r1", 0), elect("r2", 0), elect("r2", 1)]);
    all.extend([lease("a", None, 10), lease("b", None, 50), lease("b", None, 200), lease("b", Some(2), 250)]);
    all.push(Command::Release { job: "compact".to_owned(), token: 2 });
    all.extend([limits(0, "write: {}"), limits(0, "other"), limits(1, "write: {}")]);
    // A disk is lost, a change refused, begun and taken back.
    all.push(register("c", 1, 1));
    all.push(propose(&FIVE, &["a", "b"], &[], &[]));
    all.push(propose(&FIVE, &["a", "b", "d", "e"], &["c"], &[]));
    all.push(propose(&FIVE, &["a", "b", "d", "e", "f"], &["c"], &["c"]));
    all.push(Command::Abort { by: by(), time: 6 });
    all.push(Command::Abort { by: by(), time: 6 });
    // One retires; three leave and are cleared, and what then begins ends.
    all.push(propose(&FIVE, &["a", "b", "d", "e"], &["c"], &["c"]));
    for epoch in 4..=6 {
        all.extend(["a", "b", "d", "e"].map(|node| adopted(node, epoch)));
    }
    all.push(propose(&["a", "b", "d", "e"], &["a", "b", "d"], &[], &[]));
    for epoch in 7..=8 {
        all.extend(["a", "b", "d", "e"].map(|node| adopted(node, epoch)));
    }
    all.extend(["a", "b", "d", "e"].map(|node| clear(node, 7)));
    // A version more, one of before that will not come back, and one that does.
    all.extend(["a", "b", "d", "e", "c"].map(|node| register(node, u8::from(node == "c"), 2)));
    all.push(register("x", 0, 1));
    all.extend([Command::Forget { address: address("x") }, register("x", 0, 2), register("b", 0, 1)]);
    // By force, and from memory.
    all.push(Command::Force { plan: plan(&["a", "d", "e"]), lost: names(&["b"]), by: by(), time: 9 });
    let state = Box::new(State::default());
    all.push(Command::Restore { state, beyond: 3, by: by(), time: 9 });
    all
}

/// An entry of the log as it is stored, and what comes of it.
fn apply(log: &str) -> (String, State) {
    let (mut state, mut out) = (State::default(), String::new());
    for line in log.lines() {
        let command: Command =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{line} is not read any more: {e}"));
        let said = match state.apply(command) {
            Ok(outcome) => serde_json::to_string(&outcome).unwrap(),
            // Words may become better ones.
            Err(error) => format!("refused: {:?}", error.kind),
        };
        out.push_str(&said);
        out.push('\n');
    }
    (out, state)
}

#[test]
fn a_log_of_a_version_before_makes_the_state_that_it_made_then() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/versions");
    let path = |name: &str| dir.join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let lines: Vec<String> = life().iter().map(|c| serde_json::to_string(c).unwrap()).collect();
        let log = lines.join("\n") + "\n";
        let before = std::fs::read_to_string(path("log.jsonl")).unwrap_or_default();
        assert!(log.starts_with(&before), "entries that were stored once are not to change");
        let (said, state) = apply(&log);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(path("log.jsonl"), &log).unwrap();
        std::fs::write(path("outcomes.txt"), said).unwrap();
        std::fs::write(path("state.json"), serde_json::to_string_pretty(&state).unwrap() + "\n").unwrap();
    }
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let (said, state) = apply(&read("log.jsonl"));
    for (at, (now, then)) in said.lines().zip(read("outcomes.txt").lines()).enumerate() {
        assert_eq!(now, then, "entry {at}: {:?}", read("log.jsonl").lines().nth(at));
    }
    assert_eq!(said, read("outcomes.txt"));
    let then: serde_json::Value = serde_json::from_str(&read("state.json")).unwrap();
    assert_eq!(
        serde_json::to_value(&state).unwrap(),
        then,
        "voters of two versions would not agree any more"
    );
    // What a voter of the version before has as a snapshot is read as the same state.
    assert_eq!(serde_json::from_value::<State>(then).unwrap(), state);
}

#[test]
fn every_kind_of_command_is_in_the_log() {
    let words =
        |command: &Command| serde_json::to_value(command).unwrap()["command"].as_str().map(str::to_owned);
    let kinds: BTreeSet<String> = life().iter().filter_map(words).collect();
    let all = [
        "abort",
        "adopted",
        "clear",
        "elect",
        "force",
        "forget",
        "form",
        "lease",
        "propose",
        "ready",
        "register",
        "release",
        "restore",
        "set_limits",
    ];
    assert_eq!(kinds, all.map(str::to_owned).into());
}
