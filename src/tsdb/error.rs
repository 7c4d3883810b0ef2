//! Why the engine as a whole could not do something; refused samples are verdicts, never errors.

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

    pub fn with_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error { kind, message: message.into(), source: Some(source.into()) }
    }

    /// A file operation that failed; a full disk is `Unavailable`, everything else `Internal`.
    pub fn io(doing: &str, path: &std::path::Path, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Error::with_source(kind, format!("{doing} {}: {error}", path.display()), error)
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<Error> for storage::Error {
    fn from(error: Error) -> storage::Error {
        storage::Error { kind: error.kind, message: error.message, source: error.source }
    }
}
