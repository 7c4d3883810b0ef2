//! Nothing is read twice, and nothing is read that nobody sent (promise 2).

use std::collections::BTreeSet;

use super::{Violation, found};
use crate::ledger::Ledger;
use crate::oracle::Answer;

const RULE: &str = "once";

pub fn check(ledger: &Ledger, answer: &Answer, when: &str) -> Option<Violation> {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for read in &answer.series {
        if !seen.insert((&read.tenant, &read.labels)) {
            faults.push(format!("{} of {} comes twice", read.labels, read.tenant));
        }
        let Some(key) = read.key() else {
            faults.push(format!("{} of {} was never sent", read.labels, read.tenant));
            continue;
        };
        for pair in read.samples.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            faults.push(format!("{} has {} after {}", read.labels, pair[1].0, pair[0].0));
        }
        let unsent = read.samples.iter().filter(|(at, _)| !ledger.has_sent(key, *at));
        faults.extend(unsent.map(|(at, _)| format!("{} at {at} was never sent", read.labels)));
    }
    found(RULE, &faults, |which| format!("{when}: {which}"))
}
