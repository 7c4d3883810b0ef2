//! The life of a cluster as its operator sees it: forming, growing, shrinking, losing a node, and what is refused.

use std::collections::BTreeSet;

use agreed::{Command, Error, Needed, Node, Outcome, Proposal, Registration, RingPlan, State, View};
use model::Kind;

const BY: &str = "an operator";

fn text(members: &[&str]) -> String {
    let quoted: Vec<String> = members.iter().map(|m| format!("\"{m}:1\"")).collect();
    format!("[{{\"endpoints\": [{}]}}]", quoted.join(", "))
}

fn plan(members: &[&str]) -> RingPlan {
    RingPlan { text: text(members), replication: 3, quorum: 2, hashmod: false }
}

fn registration(node: &str) -> Registration {
    Registration {
        address: format!("{node}:1"),
        incarnation: format!("{node}-disk"),
        cluster: String::new(),
        levels: (1, 1),
        ships: true,
    }
}

fn cluster(members: &[&str]) -> State {
    let mut state = State::default();
    let form = Command::Form { cluster: "C1".to_owned(), plan: plan(members), by: BY.to_owned(), time: 1 };
    assert_eq!(state.apply(form.clone()), Ok(Outcome::Done));
    assert_eq!(state.apply(form), Ok(Outcome::Already));
    for node in members {
        register(&mut state, registration(node)).unwrap();
    }
    promise(&mut state, members);
    state
}

fn register(state: &mut State, node: Registration) -> Result<Outcome, Error> {
    state.apply(Command::Register { node, time: 2 })
}

fn number(state: &State) -> u64 {
    state.current().unwrap().number
}

/// Each takes no more writes of epochs before the current one.
fn promise(state: &mut State, members: &[&str]) {
    for node in members {
        let min_epoch = number(state);
        let (address, incarnation) = (format!("{node}:1"), format!("{node}-disk"));
        state.apply(Command::Adopted { address, incarnation, min_epoch, time: 3 }).unwrap();
    }
}

fn clear(state: &mut State, members: &[&str]) {
    for node in members {
        let through = number(state) - 1;
        let (address, incarnation) = (format!("{node}:1"), format!("{node}-disk"));
        state.apply(Command::Clear { address, incarnation, through }).unwrap();
    }
}

fn proposal(before: &[&str], after: &[&str]) -> Proposal {
    Proposal {
        expect: text(before),
        plan: plan(after),
        away: BTreeSet::new(),
        retire: BTreeSet::new(),
        by: BY.to_owned(),
        time: 4,
    }
}

fn names(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|n| format!("{n}:1")).collect()
}

fn complete(state: &State, answered: &[&str]) -> bool {
    let answered = names(answered);
    state.complete(|a| answered.contains(a)).is_ok()
}

const THREE: [&str; 3] = ["a", "b", "c"];
const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Through the whole of a change, up to a stable ring.
fn change(state: &mut State, before: &[&str], after: &[&str]) {
    let outcome = state.apply(Command::Propose(proposal(before, after))).unwrap();
    let epoch = match (outcome, &state.pending) {
        (Outcome::Pending { epoch }, _) => epoch,
        // It was proposed before; whoever sees the same edit proposes it again.
        (Outcome::Already, Some(pending)) => pending.epoch,
        (outcome, _) => panic!("{outcome:?}"),
    };
    for node in after.iter().filter(|n| !before.contains(n)) {
        state.apply(Command::Ready { address: format!("{node}:1"), epoch }).unwrap();
    }
    assert!(matches!(state.current().unwrap().view, View::Joint { .. }));
    promise(state, before);
    assert!(matches!(state.current().unwrap().view, View::Stable(_)));
    let mut all: Vec<&str> = before.iter().chain(after).copied().collect();
    all.sort_unstable();
    all.dedup();
    promise(state, &all);
}

#[test]
fn three_become_five_and_three_again() {
    let mut state = cluster(&THREE);
    for node in ["d", "e"] {
        assert_eq!(register(&mut state, registration(node)), Ok(Outcome::Registered { joined: 1 }));
    }
    assert_eq!(state.apply(Command::Propose(proposal(&THREE, &FIVE))), Ok(Outcome::Pending { epoch: 2 }));
    assert_eq!(state.warming(), ["d:1", "e:1"]);
    assert_eq!(number(&state), 1, "nobody waits for a node that is not ready");
    change(&mut state, &THREE, &FIVE);
    assert_eq!(number(&state), 3);

    // What was acked before lies with the three, and any two of them have it.
    assert!(complete(&state, &FIVE));
    assert!(complete(&state, &["b", "c", "d", "e"]));
    assert!(!complete(&state, &["c", "d", "e"]));
    clear(&mut state, &["a", "b"]);
    assert_eq!(state.to_ask().len(), 5);
    assert!(state.epochs[0].retired && state.epochs[1].retired && !state.epochs[2].retired);

    change(&mut state, &FIVE, &THREE);
    assert_eq!(state.needed("d:1"), Some(Needed::Holds { epoch: 3 }));
    clear(&mut state, &["d"]);
    // Who has everything in the bucket may go, whatever the others have; who has not is asked.
    assert_eq!((state.needed("d:1"), state.needed("e:1")), (None, Some(Needed::Holds { epoch: 3 })));
    assert_eq!(state.to_ask().into_iter().collect::<Vec<_>>(), ["a:1", "b:1", "c:1", "e:1"]);
    assert!(complete(&state, &["a", "b", "c"]) && complete(&state, &["b", "c", "e"]));
    assert!(!complete(&state, &["b", "e"]), "a set of five has one of them");
    clear(&mut state, &["e", "a", "b"]);
    assert_eq!((state.needed("d:1"), state.needed("e:1")), (None, None));
    assert_eq!(state.needed("a:1"), Some(Needed::Member));
    assert_eq!(state.nodes.len(), 3, "who is not needed leaves the registry");
    assert_eq!(state.to_ask().into_iter().collect::<Vec<_>>(), ["a:1", "b:1", "c:1"]);
}

#[test]
fn a_change_that_could_lose_data_is_refused_with_the_way_that_works() {
    let mut state = cluster(&FIVE);
    let refused = |state: &mut State, proposal: Proposal| {
        let before = state.clone();
        let error = state.apply(Command::Propose(proposal)).unwrap_err();
        assert_eq!(*state, before);
        error.message
    };
    let asked = proposal(&FIVE, &["a", "b"]);
    assert!(refused(&mut state, asked).contains("2 endpoints cannot hold 3 copies"));

    let asked = Proposal { away: names(&["e"]), ..proposal(&FIVE, &["a", "b", "c", "d"]) };
    assert!(refused(&mut state, asked.clone()).contains("tributary ring retire e:1"));
    let two = names(&["d", "e"]);
    let both = Proposal { away: two.clone(), retire: two, ..proposal(&FIVE, &THREE) };
    assert!(refused(&mut state, both).contains("tributary ring force"));
    assert!(
        refused(&mut state, proposal(&THREE, &["a", "b", "c", "d"])).contains("another ring was agreed on")
    );
    // Of a late proposal of what stands already nothing is left to do.
    assert_eq!(state.apply(Command::Propose(proposal(&THREE, &FIVE))), Ok(Outcome::Already));

    let mut keeps = registration("d");
    keeps.ships = false;
    register(&mut state, keeps).unwrap();
    let without = proposal(&FIVE, &["a", "b", "c", "e"]);
    assert!(refused(&mut state, without).contains("ships no blocks"));

    // One that will not come back: the others have every acked sample.
    let asked = Proposal { retire: names(&["e"]), ..asked };
    assert_eq!(state.apply(Command::Propose(asked)), Ok(Outcome::Pending { epoch: 2 }));
    assert!(matches!(state.current().unwrap().view, View::Joint { .. }));
    let error = state.apply(Command::Propose(proposal(&FIVE, &FIVE))).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[test]
fn a_change_can_be_taken_back() {
    let mut state = cluster(&THREE);
    state.apply(Command::Propose(proposal(&THREE, &FIVE))).unwrap();
    let abort = Command::Abort { by: BY.to_owned(), time: 5 };
    assert_eq!(state.apply(abort.clone()), Ok(Outcome::Done));
    assert_eq!((number(&state), state.pending.is_none()), (1, true));

    for node in ["d", "e"] {
        register(&mut state, registration(node)).unwrap();
    }
    state.apply(Command::Propose(proposal(&THREE, &FIVE))).unwrap();
    for node in ["d:1", "e:1"] {
        state.apply(Command::Ready { address: node.to_owned(), epoch: 2 }).unwrap();
    }
    assert_eq!(state.apply(abort.clone()), Ok(Outcome::Done));
    assert_eq!(state.apply(abort), Ok(Outcome::Already));
    let current = state.current().unwrap();
    assert_eq!(current.number, 3);
    assert_eq!(current.view.members(), BTreeSet::from(["a:1", "b:1", "c:1"]));
    // The joint epoch's acks obeyed both rings, so the old one's nodes answer for it.
    assert!(complete(&state, &["a", "b"]));
}

#[test]
fn a_node_with_an_empty_disk_counts_from_then_on() {
    let mut state = cluster(&THREE);
    assert_eq!(register(&mut state, registration("c")), Ok(Outcome::Registered { joined: 1 }));
    assert_eq!(number(&state), 1, "a restart is no change");
    let mut empty = registration("c");
    empty.incarnation = "another".to_owned();
    assert_eq!(register(&mut state, empty), Ok(Outcome::Registered { joined: 2 }));
    assert_eq!(number(&state), 2);
    assert!(complete(&state, &["a", "b"]));
    assert!(!complete(&state, &["a", "c"]), "an ack of the first epoch may have been by b and the old c");
    let late = Command::Clear { address: "c:1".to_owned(), incarnation: "c-disk".to_owned(), through: 1 };
    assert!(state.apply(late).unwrap_err().message.contains("another disk"));
    promise(&mut state, &["a", "b"]);
    clear(&mut state, &["a", "b"]);
    assert!(complete(&state, &["a", "c"]));
}

#[test]
fn by_force_what_is_left_is_enough() {
    let mut state = cluster(&THREE);
    register(&mut state, registration("d")).unwrap();
    register(&mut state, registration("e")).unwrap();
    let lost = names(&["b", "c"]);
    let force = |members: &[&str]| Command::Force {
        plan: plan(members),
        lost: lost.clone(),
        by: BY.to_owned(),
        time: 9,
    };
    assert!(state.apply(force(&["a", "b", "d"])).unwrap_err().message.contains("one or the other"));
    assert!(state.apply(force(&["a", "d", "x"])).unwrap_err().message.contains("never been here"));
    assert_eq!(state.apply(force(&["a", "d", "e"])), Ok(Outcome::Done));
    assert!(complete(&state, &["a", "d"]));
    assert!(!complete(&state, &["d", "e"]), "a is the only one left of what was");
    promise(&mut state, &["a", "d", "e"]);
    clear(&mut state, &["a"]);
    assert!(complete(&state, &["d", "e"]));
}

/// Two that are retired one after the other have had what both had, as two at once.
#[test]
fn who_was_retired_before_is_gone_as_well_until_the_copies_are_in_the_bucket() {
    let three = ["a", "b", "c"];
    let mut state = cluster(&three);
    register(&mut state, registration("d")).unwrap();
    register(&mut state, registration("e")).unwrap();
    let mut retire = proposal(&three, &["a", "b", "d"]);
    (retire.away, retire.retire) = (names(&["c"]), names(&["c"]));
    assert!(state.out_of_reach(&names(&["c"])).is_empty());
    let Ok(Outcome::Pending { epoch }) = state.apply(Command::Propose(retire)) else { panic!("refused") };
    state.apply(Command::Ready { address: "d:1".to_owned(), epoch }).unwrap();
    promise(&mut state, &["a", "b", "d"]);
    promise(&mut state, &["a", "b", "d"]);
    assert!(matches!(state.current().unwrap().view, View::Stable(_)));
    let short = state.out_of_reach(&names(&["b", "c"]));
    assert_eq!((short[0].epoch, short[0].set.len()), (1, 3), "{short:?}");
    assert!(state.out_of_reach(&names(&["b"])).is_empty());
    clear(&mut state, &["a", "b"]);
    assert!(state.out_of_reach(&names(&["b", "c"])).is_empty());
}

#[test]
fn strangers_are_told_apart() {
    let mut state = cluster(&THREE);
    let mut other = registration("d");
    other.cluster = "C2".to_owned();
    assert!(register(&mut state, other).unwrap_err().message.contains("belongs to cluster C2"));
    let mut ours = registration("d");
    ours.cluster = "C1".to_owned();
    assert!(register(&mut state, ours).is_ok());
    // One level back is possible, two are not; one that no longer speaks ours is not let in either.
    for node in ["a", "b", "c", "d"] {
        let mut newer = registration(node);
        newer.levels = (2, 3);
        newer.levels.0 = 1;
        register(&mut state, newer).unwrap();
    }
    assert_eq!(state.level, 3);
    for (levels, part) in [((1, 1), "one level back"), ((4, 5), "one version at a time")] {
        let mut node = registration("d");
        node.levels = levels;
        assert!(register(&mut state, node).unwrap_err().message.contains(part));
    }
    let mut back = registration("d");
    back.levels = (1, 2);
    assert!(register(&mut state, back).is_ok());
}

#[test]
fn what_an_older_version_would_misunderstand_waits_until_there_is_none() {
    let mut state = cluster(&THREE);
    let speaks = |state: &mut State, node: &str, to: u32| {
        let mut node = registration(node);
        node.levels = (1, to);
        register(state, node)
    };
    let forget = |node: &str| Command::Forget { address: format!("{node}:1") };
    for (node, to) in [("a", 3), ("b", 3), ("c", 2), ("x", 3)] {
        speaks(&mut state, node, to).unwrap();
    }
    let refused = state.apply(forget("x")).unwrap_err();
    assert!(refused.message.contains("feature level 3") && refused.message.contains("c:1"), "{refused}");
    assert_eq!(refused, state.admits(&forget("x")).unwrap_err());
    speaks(&mut state, "c", 3).unwrap();
    assert_eq!((state.level, state.apply(forget("x"))), (3, Ok(Outcome::Done)));
    assert_eq!(state.apply(forget("x")), Ok(Outcome::Already));
    assert!(state.apply(forget("a")).unwrap_err().message.contains("is a member"));
    // One goes back by a level: it is let in, and understands what goes on.
    speaks(&mut state, "c", 2).unwrap();
    speaks(&mut state, "y", 2).unwrap();
    assert_eq!((state.level, state.apply(forget("y"))), (3, Ok(Outcome::Done)));
    // Nobody can be forgotten who may hold something.
    for node in ["c", "d"] {
        speaks(&mut state, node, 3).unwrap();
    }
    state.apply(Command::Propose(proposal(&THREE, &["a", "b", "d"]))).unwrap();
    state.apply(Command::Ready { address: "d:1".to_owned(), epoch: 2 }).unwrap();
    promise(&mut state, &["a", "b", "c", "d"]);
    assert!(state.apply(forget("c")).unwrap_err().message.contains("may hold"));
}

#[test]
fn an_old_node_that_will_not_come_back_holds_nobody_back() {
    let mut state = cluster(&THREE);
    let speaks = |state: &mut State, node: &str, to: u32| {
        let mut node = registration(node);
        node.levels = (1, to);
        register(state, node)
    };
    for (node, to) in [("old", 1), ("a", 2), ("b", 2), ("c", 2)] {
        speaks(&mut state, node, to).unwrap();
    }
    assert_eq!(state.level, 1);
    // Nobody speaks for a member.
    assert!(state.stand_in("a:1", (1, 3)).unwrap_err().message.contains("is a member"));
    assert_eq!(state.stand_in("unknown:1", (1, 2)), Ok(None));
    let before = state.nodes["old:1"].clone();
    let node = state.stand_in("old:1", (1, 2)).unwrap().unwrap();
    let stood_in = Command::Register { node, time: 9 };
    assert_eq!(stood_in.level(), 1, "every version understands it");
    state.apply(stood_in).unwrap();
    let after = state.nodes["old:1"].clone();
    assert_eq!(after, Node { levels: (1, 2), ..before }, "nothing else is said for it");
    assert_eq!((state.level, state.stand_in("old:1", (1, 2))), (2, Ok(None)));
    // It does come back: it is a level behind, as others may be.
    speaks(&mut state, "old", 1).unwrap();
    assert_eq!(state.level, 2);
}

#[test]
fn the_level_waits_for_the_members_that_have_not_said_theirs() {
    let form = Command::Form { cluster: "C1".to_owned(), plan: plan(&THREE), by: BY.to_owned(), time: 0 };
    let mut state = State::default();
    state.apply(form).unwrap();
    for (at, node) in THREE.iter().enumerate() {
        let mut node = registration(node);
        node.levels = (1, 2);
        register(&mut state, node).unwrap();
        assert_eq!(state.level, if at == 2 { 2 } else { 0 });
    }
}

#[test]
fn one_of_a_pair_and_one_worker_of_a_job() {
    let mut state = cluster(&THREE);
    let elect = |replica: &str, group: &str, expect: u64| {
        Command::Elect(agreed::command::Election {
            tenant: "t".to_owned(),
            group: group.to_owned(),
            replica: replica.to_owned(),
            expect,
            splice_from: 10,
            time: 20,
            cap: 1,
        })
    };
    assert_eq!(state.apply(elect("x", "prod", 0)), Ok(Outcome::Done));
    assert!(state.apply(elect("y", "prod", 0)).unwrap_err().message.contains("term 1"));
    assert_eq!(state.apply(elect("y", "prod", 1)), Ok(Outcome::Done));
    assert_eq!(state.elections.get("t", "prod").map(|e| (e.replica.as_str(), e.term)), Some(("y", 2)));
    assert!(state.apply(elect("x", "more", 0)).unwrap_err().message.contains("its limit"));

    let lease = |holder: &str, token, time| Command::Lease {
        job: "compact".to_owned(),
        holder: holder.to_owned(),
        token,
        time,
        ttl: 100,
    };
    assert_eq!(state.apply(lease("n1", None, 0)), Ok(Outcome::Leased { token: 1 }));
    assert_eq!(state.apply(lease("n2", None, 99)).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(state.apply(lease("n1", Some(1), 99)), Ok(Outcome::Leased { token: 1 }));
    assert_eq!(state.apply(lease("n2", None, 199)), Ok(Outcome::Leased { token: 2 }));
    assert!(state.apply(lease("n1", Some(1), 400)).unwrap_err().message.contains("void"));
    assert_eq!(state.apply(Command::Release { job: "compact".to_owned(), token: 1 }), Ok(Outcome::Already));
    assert_eq!(state.apply(Command::Release { job: "compact".to_owned(), token: 2 }), Ok(Outcome::Done));

    let limits =
        |expect, text: &str| Command::SetLimits { expect, text: text.to_owned(), by: BY.to_owned(), time: 5 };
    assert_eq!(state.apply(limits(0, "write: {}")), Ok(Outcome::Done));
    assert!(state.apply(limits(0, "other: {}")).unwrap_err().message.contains("version 1, not 0"));
}

/// Whoever is drained is forgotten; what it promised before still holds, and a change that comes next ends.
#[test]
fn those_who_have_left_and_are_forgotten_do_not_hold_the_next_change_up() {
    let mut state = cluster(&THREE);
    for node in ["d", "e", "f"] {
        register(&mut state, registration(node)).unwrap();
    }
    change(&mut state, &THREE, &FIVE);
    clear(&mut state, &FIVE);
    let (stay, more) = (["a", "d", "e"], ["a", "d", "e", "f"]);
    change(&mut state, &FIVE, &stay);
    clear(&mut state, &["b", "c"]);
    assert!(!state.nodes.contains_key("b:1") && !state.nodes.contains_key("c:1"));
    let open: Vec<u64> =
        state.epochs.iter().filter(|epoch| !epoch.retired).map(|epoch| epoch.number).collect();
    assert_eq!(open, [3, 4, 5], "what the five took is not all in the bucket");
    change(&mut state, &stay, &more);
}
