//! Once the trouble is over every change of the ring comes to its end, and who left it can go (promise 6).

use super::{Violation, found};

/// What is still to be done.
pub fn check(left: Option<String>) -> Option<Violation> {
    let left: Vec<String> = left.into_iter().collect();
    found("changes_end", &left, |which| format!("long after the trouble: {which}"))
}
