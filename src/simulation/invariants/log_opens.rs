//! A log that nothing but crashes has happened to always opens (promise 7).

use super::Violation;

pub fn failed(who: &str, why: &str) -> Violation {
    Violation { rule: "log_opens", what: format!("{who} does not start: {why}") }
}
