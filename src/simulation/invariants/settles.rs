//! Once the trouble is over, every sender gets rid of what it has, and every node is ready (promises 3 and 7).

use super::{Violation, found};

/// Who is not done in time.
pub fn check(unsettled: &[String]) -> Option<Violation> {
    found("settles", unsettled, |which| format!("long after the trouble: {which}"))
}
