//! After the trouble every owner has every sample whose door went on or ended in good order (promise 4: a peer that was
//! away has everything afterwards).

use std::collections::BTreeMap;

use super::{Violation, found, named};
use crate::ledger::Key;
use crate::plan::COPIES;

const RULE: &str = "converges";

/// What is acknowledged must be on all owners.
pub fn check(due: &[(Key, i64)], holders: &BTreeMap<(Key, i64), usize>) -> Option<Violation> {
    let held = |sample: &(Key, i64)| holders.get(sample).copied().unwrap_or(0);
    let lacking = due.iter().filter(|sample| held(sample) < COPIES);
    let lacking: Vec<String> =
        lacking.map(|sample| format!("{} on {} nodes", named(*sample), held(sample))).collect();
    found(RULE, &lacking, |which| {
        format!("{} samples are not on all owners in the end: {which}", lacking.len())
    })
}

/// Hints must come to their end.
pub fn check_hints(waiting: &[String]) -> Option<Violation> {
    found(RULE, waiting, |which| format!("hints still wait long after the trouble: {which}"))
}
