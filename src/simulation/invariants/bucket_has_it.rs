//! After a cut and an upload that succeed, the bucket has what the node had, and nothing else (promise 10 and the way of a
//! block).

use super::{Violation, found, named};
use crate::oracle::Answer;

const RULE: &str = "bucket_has_it";

/// What a node has and what its blocks in the bucket have.
pub fn check(node: &str, here: &Answer, there: &Answer) -> Option<Violation> {
    let (here, there) = (here.values(), there.values());
    let missing = here.keys().filter(|sample| !there.contains_key(sample));
    let mut faults: Vec<String> = missing.map(|sample| format!("{} is missing", named(*sample))).collect();
    let odd = there.iter().filter(|(sample, value)| here.get(sample) != Some(value));
    faults.extend(odd.map(|(sample, value)| format!("{} is {value}", named(*sample))));
    found(RULE, &faults, |which| format!("blocks of {node}: {which}"))
}

/// The bucket cannot be read at all.
pub fn unreadable(why: &str) -> Violation {
    Violation { rule: RULE, what: format!("the bucket cannot be read: {why}") }
}
