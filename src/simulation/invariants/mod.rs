//! What must hold in every run: one rule to a file, each with the promise it stands for.

pub mod acked_is_kept;
pub mod acked_is_readable;
pub mod bucket_has_it;
pub mod changes_end;
pub mod complete_is_complete;
pub mod converges;
pub mod drained_is_spare;
pub mod log_opens;
pub mod once;
pub mod pair_is_seen_once;
pub mod refused_for_cause;
pub mod settles;
pub mod values_stay;

/// Their names.
pub const ALL: [&str; 13] = [
    "acked_is_kept",
    "acked_is_readable",
    "bucket_has_it",
    "changes_end",
    "complete_is_complete",
    "converges",
    "drained_is_spare",
    "log_opens",
    "once",
    "pair_is_seen_once",
    "refused_for_cause",
    "settles",
    "values_stay",
];

/// A rule that did not hold, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// Names at most three of those that are at fault.
pub(crate) fn found(
    rule: &'static str,
    faults: &[String],
    what: impl FnOnce(&str) -> String,
) -> Option<Violation> {
    if faults.is_empty() {
        return None;
    }
    let mut named = faults.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    if faults.len() > 3 {
        named += &format!(" and {} more", faults.len() - 3);
    }
    Some(Violation { rule, what: what(&named) })
}

/// A sample for humans.
pub(crate) fn named((key, at): (crate::ledger::Key, i64)) -> String {
    format!("{}/{} at {} ms", key.instance(), key.name(), at - crate::steps::EPOCH)
}
