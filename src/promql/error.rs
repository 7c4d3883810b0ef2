//! Why a query did not get an answer.

use model::Kind;

use crate::ParseError;

/// Which door-level error it is; the API derives `errorType` and status from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The text or a parameter is wrong (`bad_data`, 400).
    Parse,
    /// The evaluation ended in an error or at a limit (`execution`, 422).
    Execution,
    /// The asker left (`canceled`).
    Canceled,
    /// The deadline passed (`timeout`, 503).
    Timeout,
    /// Series could not be read (`internal`, 500, or `unavailable`: see the kind).
    Storage,
}

/// An error with what to do next, the facts in lower case, and its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub class: Class,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The evaluation cannot go on with this data or these parameters.
    pub fn execution(message: impl Into<String>) -> Error {
        Error { kind: Kind::Refused, class: Class::Execution, message: message.into(), source: None }
    }

    /// The request does not fit the query.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error { kind: Kind::Invalid, class: Class::Parse, message: message.into(), source: None }
    }

    /// A part of the language that parses but is not evaluated by this version.
    pub fn unsupported(what: impl std::fmt::Display) -> Error {
        Error::execution(format!("{what} is not supported by this version"))
    }

    /// A limit is reached.
    pub fn exhausted(message: impl Into<String>) -> Error {
        Error { kind: Kind::Exhausted, class: Class::Execution, message: message.into(), source: None }
    }

    pub(crate) fn canceled() -> Error {
        Error {
            kind: Kind::Refused,
            class: Class::Canceled,
            message: "query was canceled in query execution".into(),
            source: None,
        }
    }

    pub(crate) fn timed_out() -> Error {
        Error {
            kind: Kind::Unavailable,
            class: Class::Timeout,
            message: "query timed out in expression evaluation".into(),
            source: None,
        }
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Error {
        Error {
            kind: Kind::Invalid,
            class: Class::Parse,
            message: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        let class = match error.kind {
            Kind::Exhausted | Kind::Refused | Kind::Invalid => Class::Execution,
            _ => Class::Storage,
        };
        Error { kind: error.kind, class, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}
