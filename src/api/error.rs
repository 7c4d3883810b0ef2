//! Why a listener could not be opened or kept.

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
    pub fn new(kind: Kind, message: impl Into<String>, source: Option<std::io::Error>) -> Error {
        Error { kind, message: message.into(), source }
    }
}
