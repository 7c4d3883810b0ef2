//! A log that nothing but crashes has happened to always opens (promise 7).

use super::Violation;

pub const RULE: &str = "log_opens";

pub fn failed(who: &str, why: &str) -> Violation {
    Violation { rule: RULE, what: format!("{who} does not start: {why}") }
}
