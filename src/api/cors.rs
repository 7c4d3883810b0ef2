//! Which pages of other origins may read answers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, header};
use model::Pattern;

/// The rule for the `Origin` of a request.
#[derive(Clone, Default)]
pub enum Cors {
    /// No headers at all (`--web.disable-cors`).
    Off,
    /// Every origin, written `*`, as Thanos does.
    #[default]
    Any,
    /// Origins that match are echoed, as Prometheus does with `--web.cors.origin`.
    Matching(Arc<Pattern>),
}

impl Cors {
    /// Of a regular expression over whole origins; every origin if it is empty.
    pub fn of_origin(pattern: &str) -> Result<Cors, String> {
        match pattern {
            "" => Ok(Cors::Any),
            pattern => Pattern::new(pattern).map(|p| Cors::Matching(Arc::new(p))).map_err(|e| e.to_string()),
        }
    }

    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Cors::Off => None,
            Cors::Any => Some(HeaderValue::from_static("*")),
            Cors::Matching(pattern) => match origin.to_str() {
                Ok(text) if pattern.matches(text) => Some(origin.clone()),
                _ => None,
            },
        }
    }
}

/// Marks answers.
pub async fn apply(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    if matches!(cors, Cors::Off) {
        return response;
    }
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        let fixed = HeaderValue::from_static;
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            fixed("Accept, Accept-Encoding, Authorization, Content-Type, Origin"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST, OPTIONS"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fixed("Date"));
        if let Some(allowed) = cors.allowed(&origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
    }
    response
}
