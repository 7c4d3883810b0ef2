//! An error, and the six kinds of errors, each telling a caller what to do next.

use std::fmt::Display;

/// What the reader of an error should do.
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

/// An error with what to do next, the facts in lower case, and its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    pub fn with_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error { kind, message: message.into(), source: Some(source.into()) }
    }

    /// Stored bytes that fail a check.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// A caller that broke a contract.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// Puts before the message where the trouble is.
    pub fn within(mut self, place: impl Display) -> Error {
        self.message = format!("{place}: {}", self.message);
        self
    }
}
