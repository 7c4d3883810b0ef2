//! The six kinds of error, each telling a caller what to do next.

/// What the reader of an error should do. Every crate's error type carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request or the input is wrong; the caller must change it.
    Invalid,
    /// A limit or a rule refuses it; the same request will be refused again until that changes.
    Refused,
    /// A budget (memory, disk, queue, points) is used up; free something or ask for less.
    Exhausted,
    /// Not possible right now; a retry can help.
    Unavailable,
    /// Stored data fails its checks; restore or salvage it.
    Corrupt,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retryable(self) -> bool {
        matches!(self, Kind::Unavailable)
    }
}
