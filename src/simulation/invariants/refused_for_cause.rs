//! Nothing is refused for good that a sender with a right clock sends in time (promises 3 and 8).

use super::Violation;

/// `clocks_jumped`: then a door may judge times by a wrong clock.
pub fn check(refused: u64, clocks_jumped: bool) -> Option<Violation> {
    if refused == 0 || clocks_jumped {
        return None;
    }
    let what = format!("{refused} samples were refused for good although nothing was wrong with them");
    Some(Violation { rule: "refused_for_cause", what })
}
