//! Why the control plane did not do what it was asked.

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
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(error.into()) }
    }
}
