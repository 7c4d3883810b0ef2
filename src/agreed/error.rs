//! Why the control plane refuses a command.

use model::Kind;

/// A refusal in words, with the way that works. The state is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

impl Error {
    /// The command itself is wrong; it has to be changed.
    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error { kind: Kind::Invalid, message: message.into() }
    }

    /// Right in itself, but not as things stand.
    pub(crate) fn refused(message: impl Into<String>) -> Error {
        Error { kind: Kind::Refused, message: message.into() }
    }

    /// It will be possible once something that goes on has ended.
    pub(crate) fn later(message: impl Into<String>) -> Error {
        Error { kind: Kind::Unavailable, message: message.into() }
    }
}
