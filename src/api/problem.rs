//! The one translation from what went wrong to a status, an error type and a body.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use model::Kind;
use std::time::Instant;
use storage::Cancel;

use crate::json;

/// The error types of the Prometheus API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A parameter or the query text is wrong.
    BadData,
    /// The query was understood and cannot be evaluated, or passes a limit.
    Execution,
    /// The client left.
    Canceled,
    Timeout,
    /// A fault of ours or of stored data.
    Internal,
    /// The answer cannot be complete now; a retry can help.
    Unavailable,
    NotFound,
    /// Switched off by the operator; no retry helps.
    Disabled,
}

impl ErrorType {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Canceled => "canceled",
            ErrorType::Timeout => "timeout",
            ErrorType::Internal => "internal",
            ErrorType::Unavailable | ErrorType::Disabled => "unavailable",
            ErrorType::NotFound => "not_found",
        }
    }

    /// The HTTP status. `unavailable` is 503, where Prometheus has no mapping and answers 500: clients retry 503.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // nginx's "client closed request"; no client is there to read it, but logs and metrics are.
            ErrorType::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            ErrorType::Timeout | ErrorType::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // As Prometheus answers what is disabled.
            ErrorType::Internal | ErrorType::Disabled => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorType::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    pub error_type: ErrorType,
    pub message: String,
}

impl Problem {
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Problem {
        Problem { error_type, message: message.into() }
    }

    pub fn bad_data(message: impl Into<String>) -> Problem {
        Problem::new(ErrorType::BadData, message)
    }

    /// `invalid parameter "name": why`, the form that clients know.
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> Problem {
        Problem::bad_data(format!("invalid parameter {name:?}: {why}"))
    }

    pub fn not_found(message: impl Into<String>) -> Problem {
        Problem::new(ErrorType::NotFound, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Problem {
        Problem::new(ErrorType::Unavailable, message)
    }

    /// As a line of text, for protocols whose clients read no JSON.
    pub fn into_text(self) -> Response {
        let head = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.error_type.status(), head, format!("{}\n", self.message)).into_response()
    }

    /// By the kind of an error that came up from below.
    pub fn of_kind(kind: Kind, message: impl Into<String>) -> Problem {
        let error_type = match kind {
            Kind::Invalid => ErrorType::BadData,
            Kind::Refused | Kind::Exhausted => ErrorType::Execution,
            Kind::Unavailable => ErrorType::Unavailable,
            Kind::Corrupt | Kind::Internal => ErrorType::Internal,
        };
        Problem::new(error_type, message)
    }

    /// As [`Problem::of_kind`], except that a caller who left and a deadline that passed have types of their own.
    pub fn of_query(kind: Kind, message: impl Into<String>, cancel: &Cancel, now: Instant) -> Problem {
        let late = cancel.deadline().is_some_and(|deadline| now >= deadline);
        match kind {
            Kind::Refused | Kind::Unavailable if cancel.is_raised() => {
                Problem::new(ErrorType::Canceled, "query was canceled")
            }
            Kind::Unavailable if late => Problem::new(ErrorType::Timeout, message),
            _ => Problem::of_kind(kind, message),
        }
    }
}

impl From<storage::Error> for Problem {
    fn from(error: storage::Error) -> Problem {
        Problem::of_kind(error.kind, error.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(64 + self.message.len());
        body.extend_from_slice(b"{\"status\":\"error\",\"errorType\":\"");
        body.extend_from_slice(self.error_type.as_str().as_bytes());
        body.extend_from_slice(b"\",\"error\":");
        json::text(&mut body, &self.message);
        body.push(b'}');
        // No cache may keep what the next attempt can change.
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        (self.error_type.status(), headers, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::{Clock, SystemClock};

    use super::*;

    #[test]
    fn statuses() {
        for (kind, status) in [
            (Kind::Invalid, 400),
            (Kind::Refused, 422),
            (Kind::Exhausted, 422),
            (Kind::Unavailable, 503),
            (Kind::Corrupt, 500),
            (Kind::Internal, 500),
        ] {
            assert_eq!(Problem::of_kind(kind, "x").into_response().status(), status);
        }
    }

    #[test]
    fn leaving_and_lateness_have_their_own_types() {
        let now = SystemClock.monotonic();
        let later = now + Duration::from_secs(2);
        let cancel = Cancel::new(Some(now + Duration::from_secs(1)));
        let of = |kind, at| Problem::of_query(kind, "x", &cancel, at).error_type;
        assert_eq!(of(Kind::Unavailable, now), ErrorType::Unavailable);
        assert_eq!(of(Kind::Unavailable, later), ErrorType::Timeout);
        assert_eq!(of(Kind::Invalid, later), ErrorType::BadData);
        cancel.raise();
        assert_eq!(of(Kind::Refused, now), ErrorType::Canceled);
        assert_eq!(of(Kind::Exhausted, now), ErrorType::Execution);
    }
}
