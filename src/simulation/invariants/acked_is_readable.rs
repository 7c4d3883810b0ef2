//! Whoever answers, as soon as that is a complete answer by the agreed ring it has every acknowledged sample: in any epoch, in
//! the middle of a change, and with what the store shows (promises 6 and 9).

use std::collections::{BTreeMap, BTreeSet};

use agreed::State;

use super::{Violation, found, named};
use crate::ledger::Key;

const RULE: &str = "acked_is_readable";

/// `nodes`: what each that can be asked has, by its address. `shown`: what the store shows.
pub fn check(
    state: &State,
    acked: &[(Key, i64)],
    nodes: &BTreeMap<String, BTreeSet<(Key, i64)>>,
    shown: &BTreeSet<(Key, i64)>,
    when: &str,
) -> Option<Violation> {
    let to_ask = state.to_ask();
    let asked: Vec<(&str, &BTreeSet<(Key, i64)>)> = nodes
        .iter()
        .map(|(address, has)| (address.as_str(), has))
        .filter(|(a, _)| to_ask.contains(a))
        .collect();
    // Fewer answers are never more complete, so those who lack a sample, all together, are the worst case.
    let mut lost_by: BTreeMap<u64, bool> = BTreeMap::new();
    let mut lost = Vec::new();
    for sample in acked.iter().filter(|sample| !shown.contains(sample)) {
        let lack = asked.iter().enumerate().filter(|(_, (_, has))| !has.contains(sample));
        let lack: u64 = lack.map(|(at, _)| 1 << at).sum();
        let complete = || {
            let answers = |a: &str| {
                asked.iter().position(|(address, _)| *address == a).is_some_and(|at| lack & (1 << at) != 0)
            };
            state.complete(answers).is_ok()
        };
        if *lost_by.entry(lack).or_insert_with(complete) {
            let without: Vec<&str> = asked
                .iter()
                .enumerate()
                .filter(|(at, _)| lack & (1 << at) != 0)
                .map(|(_, (a, _))| *a)
                .collect();
            lost.push(format!("{} without {}", named(*sample), without.join(" ")));
        }
    }
    found(RULE, &lost, |which| {
        let epoch = state.current().map_or(0, |epoch| epoch.number);
        format!(
            "{when}, epoch {epoch}: {} acknowledged samples are not in every complete answer: {which}",
            lost.len()
        )
    })
}
