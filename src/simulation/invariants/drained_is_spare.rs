//! What a drained node has, every reader of the bucket has: it may be stopped and its folder deleted (promise 6).

use super::{Violation, found, named};
use crate::oracle::Answer;

const RULE: &str = "drained_is_spare";

/// What the node has and what the store shows.
pub fn check(node: &str, here: &Answer, shown: &Answer) -> Option<Violation> {
    let (here, shown) = (here.values(), shown.values());
    let only: Vec<String> =
        here.into_keys().filter(|sample| !shown.contains_key(sample)).map(named).collect();
    found(RULE, &only, |which| {
        format!(
            "{node} says that it is drained, and {} samples cannot be read elsewhere: {which}",
            only.len()
        )
    })
}
