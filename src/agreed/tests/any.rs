//! Any commands in any order: what is refused changes nothing, numbers only grow, and the state survives storing.

use std::collections::BTreeSet;

use agreed::{Command, Proposal, Registration, RingPlan, State};
use proptest::prelude::*;

fn plan(members: &[u8]) -> RingPlan {
    let quoted: Vec<String> = members.iter().map(|m| format!("\"n{m}:1\"")).collect();
    RingPlan {
        text: format!("[{{\"endpoints\": [{}]}}]", quoted.join(", ")),
        replication: 3,
        quorum: 2,
        hashmod: true,
    }
}

fn ring() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::subsequence((0..5u8).collect::<Vec<_>>(), 2..=5)
}

/// A command that needs the state to be made: numbers near those that are, rings that follow the agreed one.
#[derive(Clone, Debug)]
enum Asked {
    Register { node: u8, disk: u8, ships: bool },
    Propose { ring: Vec<u8>, away: Vec<u8>, retire: Vec<u8> },
    Ready { node: u8 },
    Adopted { node: u8, disk: u8, back: u64 },
    Clear { node: u8, disk: u8, back: u64 },
    Abort,
    Force { ring: Vec<u8>, lost: Vec<u8> },
    Forget { node: u8 },
}

fn asked() -> impl Strategy<Value = Asked> {
    let (node, disk) = (0..5u8, 0..2u8);
    prop_oneof![
        3 => (node.clone(), disk.clone(), prop::bool::weighted(0.9)).prop_map(|(node, disk, ships)| Asked::Register { node, disk, ships }),
        3 => (ring(), ring(), ring()).prop_map(|(ring, away, retire)| Asked::Propose { ring, away, retire }),
        3 => (ring(), Just(vec![]), Just(vec![])).prop_map(|(ring, away, retire)| Asked::Propose { ring, away, retire }),
        4 => node.clone().prop_map(|node| Asked::Ready { node }),
        8 => (node.clone(), disk.clone(), 0..2u64).prop_map(|(node, disk, back)| Asked::Adopted { node, disk, back }),
        6 => (node.clone(), disk, 1..3u64).prop_map(|(node, disk, back)| Asked::Clear { node, disk, back }),
        1 => node.clone().prop_map(|node| Asked::Forget { node }),
        1 => Just(Asked::Abort),
        1 => (ring(), ring()).prop_map(|(ring, lost)| Asked::Force { ring, lost }),
    ]
}

fn names(nodes: &[u8]) -> BTreeSet<String> {
    nodes.iter().map(|n| format!("n{n}:1")).collect()
}

fn command(state: &State, asked: Asked) -> Command {
    let current = state.current().unwrap();
    let (by, time) = (String::new(), current.number as i64);
    let (address, incarnation) = (|node: u8| format!("n{node}:1"), |disk: u8| disk.to_string());
    match asked {
        Asked::Register { node, disk, ships } => {
            let (address, incarnation) = (address(node), incarnation(disk));
            let node = Registration { address, incarnation, cluster: String::new(), levels: (1, 3), ships };
            Command::Register { node, time }
        }
        Asked::Propose { ring, away, retire } => {
            let expect = current.view.target().plan().text.clone();
            let (plan, away, retire) = (plan(&ring), names(&away), names(&retire));
            Command::Propose(Proposal { expect, plan, away, retire, by, time })
        }
        Asked::Ready { node } => Command::Ready { address: address(node), epoch: current.number + 1 },
        Asked::Adopted { node, disk, back } => {
            let min_epoch = current.number.saturating_sub(back);
            Command::Adopted { address: address(node), incarnation: incarnation(disk), min_epoch, time }
        }
        Asked::Clear { node, disk, back } => {
            let through = current.number.saturating_sub(back);
            Command::Clear { address: address(node), incarnation: incarnation(disk), through }
        }
        Asked::Forget { node } => Command::Forget { address: address(node) },
        Asked::Abort => Command::Abort { by, time },
        Asked::Force { ring, lost } => Command::Force { plan: plan(&ring), lost: names(&lost), by, time },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_commands_leave_a_state_that_holds(first in ring(), all in proptest::collection::vec(asked(), 0..80)) {
        prop_assume!(first.len() >= 3);
        let mut state = State::default();
        let form = Command::Form { cluster: "C".to_owned(), plan: plan(&first), by: String::new(), time: 0 };
        state.apply(form).unwrap();
        for asked in all {
            let before = state.clone();
            let command = command(&state, asked);
            let text = serde_json::to_string(&command).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Command>(&text).unwrap(), &command);
            match state.apply(command) {
                Err(_) => prop_assert_eq!(&state, &before),
                Ok(_) => {
                    let numbers: Vec<u64> = state.epochs.iter().map(|e| e.number).collect();
                    prop_assert!(numbers.is_sorted_by(|a, b| a < b));
                    prop_assert!(numbers.last() >= before.epochs.last().map(|e| e.number).as_ref());
                    prop_assert!(!state.current().unwrap().retired, "the current epoch is always needed");
                    if let Some(pending) = &state.pending {
                        prop_assert_eq!(pending.epoch, state.current().unwrap().number + 1);
                    }
                }
            }
            // Everybody's answer is as complete as can be, unless a disk was lost; nobody's is not, unless all is given up.
            let stored = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<State>(&stored).unwrap(), &state);
        }
    }
}
