//! An answer that the querier calls complete has all that was acknowledged before it was asked for (promise 9).

use super::{Violation, found, named};
use crate::ledger::Key;
use crate::oracle::Answer;

const RULE: &str = "complete_is_complete";

pub fn check(due: &[(Key, i64)], answer: &Answer, when: &str) -> Option<Violation> {
    let values = answer.values();
    let missing: Vec<String> =
        due.iter().filter(|sample| !values.contains_key(sample)).map(|sample| named(*sample)).collect();
    found(RULE, &missing, |which| {
        format!("{when}: complete, it says, without {} samples: {which}", missing.len())
    })
}
