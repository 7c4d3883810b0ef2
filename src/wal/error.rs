//! Why the log could not be read or written.

use model::Kind;

/// An error with what to do next, the facts in lower case, and its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    #[source]
    pub source: Option<std::io::Error>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    pub(crate) fn io(doing: &str, path: &std::path::Path, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Error { kind, message: format!("{doing} {}: {error}", path.display()), source: Some(error) }
    }
}
