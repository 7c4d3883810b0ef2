//! Why a receiver could not start or go on.

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
}

impl From<tsdb::Error> for Error {
    fn from(error: tsdb::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<control::Error> for Error {
    fn from(error: control::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error { kind: error.kind, message: error.to_string(), source: Some(Box::new(error)) }
    }
}

impl From<api::Error> for Error {
    fn from(error: api::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Error {
        Error { kind: error.kind, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}
