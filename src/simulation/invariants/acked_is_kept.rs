//! Nothing acknowledged is lost: it is on at least W of its owners, whatever crashed (promise 1).

use std::collections::BTreeMap;

use super::{Violation, found, named};
use crate::ledger::Key;
use crate::plan::QUORUM;

const RULE: &str = "acked_is_kept";

/// `holders`: on how many of its owners a sample was found.
pub fn check(acked: &[(Key, i64)], holders: &BTreeMap<(Key, i64), usize>, when: &str) -> Option<Violation> {
    let held = |sample: &(Key, i64)| holders.get(sample).copied().unwrap_or(0);
    let lost = acked.iter().filter(|sample| held(sample) < QUORUM);
    let lost: Vec<String> =
        lost.map(|sample| format!("{} on {} nodes", named(*sample), held(sample))).collect();
    found(RULE, &lost, |which| format!("{when}: {} acknowledged samples are missing: {which}", lost.len()))
}
