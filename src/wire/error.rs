//! Why bytes from the network are not what they claim to be.

use model::Kind;

/// `Invalid` for bytes that do not decode, `Refused` for bytes that a limit keeps out (HTTP 413).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    pub kind: Kind,
    pub message: String,
}

impl WireError {
    pub(crate) fn invalid(message: impl Into<String>) -> WireError {
        WireError { kind: Kind::Invalid, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> WireError {
        WireError { kind: Kind::Refused, message: message.into() }
    }
}
