//! Why a block could not be written, opened or read.

use std::fmt;
use std::path::Path;

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

    /// Stored bytes that fail a check.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// A caller that broke the writer's contract.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// A file operation that failed; a full disk is `Exhausted`, anything else may pass.
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
        let (kind, advice) = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                (Kind::Exhausted, "; free space on this file system")
            }
            std::io::ErrorKind::NotFound => (Kind::Corrupt, "; the block is incomplete"),
            std::io::ErrorKind::PermissionDenied => {
                (Kind::Unavailable, "; give this process access to the data directory")
            }
            _ => (Kind::Unavailable, ""),
        };
        Error {
            kind,
            message: format!("cannot {doing} {}: {error}{advice}", path.display()),
            source: Some(Box::new(error)),
        }
    }

    /// Puts before the message where the trouble is.
    pub fn within(mut self, place: impl fmt::Display) -> Error {
        self.message = format!("{place}: {}", self.message);
        self
    }
}
