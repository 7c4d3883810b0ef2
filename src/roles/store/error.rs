//! Why the store role could not start, sync or answer.

use model::Kind;

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

    pub(crate) fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// Puts before the message where the trouble is.
    pub(crate) fn within(mut self, place: impl std::fmt::Display) -> Error {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl From<bucket::Error> for Error {
    fn from(error: bucket::Error) -> Error {
        Error { kind: error.kind, message: error.message, source: error.source }
    }
}

impl From<block::Error> for Error {
    fn from(error: block::Error) -> Error {
        Error { kind: error.kind, message: error.message, source: error.source }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error { kind: error.kind, message: error.message, source: error.source }
    }
}

impl From<Error> for storage::Error {
    fn from(error: Error) -> storage::Error {
        storage::Error { kind: error.kind, message: error.message, source: error.source }
    }
}
