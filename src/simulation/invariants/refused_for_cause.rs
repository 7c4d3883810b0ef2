//! Nothing is refused for good that a sender with a right clock sends in time (promises 3 and 8). Whoever comes again later than
//! the window with what was stored, but never acknowledged to him, may be told that it is too old: it is there.

use std::collections::BTreeSet;

use super::{Violation, found, named};
use crate::ledger::Key;
use crate::steps::EPOCH;

/// `refused`: samples, and when they were, in milliseconds since the beginning. `there`: what can be read. `window`: how old a
/// sample may be that is not in order, in milliseconds.
pub fn check(refused: &[((Key, i64), i64)], there: &BTreeSet<(Key, i64)>, window: i64) -> Option<Violation> {
    let for_cause =
        |((key, time), at): &((Key, i64), i64)| EPOCH + at - time > window && there.contains(&(*key, *time));
    let others: Vec<String> =
        refused.iter().filter(|refusal| !for_cause(refusal)).map(|(sample, _)| named(*sample)).collect();
    found("refused_for_cause", &others, |which| {
        format!(
            "{} samples were refused for good although nothing was wrong with them: {which}",
            others.len()
        )
    })
}
