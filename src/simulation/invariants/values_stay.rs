//! No sample that is read has another value than the one it was sent with (promise 2).

use super::{Violation, found, named};
use crate::oracle::Answer;

const RULE: &str = "values_stay";

pub fn check(answer: &Answer, when: &str) -> Option<Violation> {
    let wrong = answer.values().into_iter().filter(|((key, at), value)| key.value(*at) != *value);
    let faults: Vec<String> = wrong.map(|(sample, value)| format!("{} is {value}", named(sample))).collect();
    found(RULE, &faults, |which| format!("{when}: {} samples have other values: {which}", faults.len()))
}
