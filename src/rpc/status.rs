//! Errors to gRPC statuses and back: the one place where either is decided.

use model::Kind;
use storage::Error;
use tonic::{Code, Status};

/// Metadata key under which the tenant travels, as Thanos names it.
pub const TENANT_METADATA: &str = "thanos-tenant";

/// With an answer from the store: the ring epoch before which the node takes no writes.
pub const RING_EPOCH_METADATA: &str = "tributary-ring-epoch";

/// With an answer from the store: the log that it is of, another one once the node has lost its disk.
pub const INCARNATION_METADATA: &str = "tributary-incarnation";

/// What the caller is told.
pub fn status_from_error(error: &Error) -> Status {
    let code = match error.kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Refused => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    };
    Status::new(code, error.message.clone())
}

/// What a peer's status means to us; `peer` is named in the message.
pub fn error_from_status(peer: &str, status: &Status) -> Error {
    let kind = match status.code() {
        // Not the peer's word: its connection broke, whatever code the library chose for that.
        _ if std::error::Error::source(status).is_some() => Kind::Unavailable,
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::NotFound
        | Code::Unimplemented => Kind::Refused,
        Code::ResourceExhausted => Kind::Exhausted,
        // Thanos aborts a query of which one store failed: another attempt may find it well.
        // tonic calls its own timeouts Cancelled.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Kind::Unavailable,
        Code::DataLoss => Kind::Corrupt,
        // Also a stream that ends without a status, as behind a proxy that gives up.
        Code::Unknown => Kind::Unavailable,
        Code::Internal | Code::Ok => Kind::Internal,
    };
    let code = status.code();
    Error::with_source(kind, format!("{peer}: {} ({code:?})", status.message()), status.clone())
}

/// What a peer that writes is told: pressure on the node passes, so it is not reported as a lasting refusal.
pub(crate) fn write_status_from_error(error: &Error) -> Status {
    match error.kind {
        Kind::Exhausted => Status::unavailable(error.message.clone()),
        _ => status_from_error(error),
    }
}
