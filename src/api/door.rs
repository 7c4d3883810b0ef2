//! What every role's listener has in common: health, readiness, metrics, unknown paths, and the record of requests.
//!
//! A role hands its own routes to [`Door::open`] and serves what comes back. Knows no path of the Prometheus API.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use crate::{ErrorType, Problem, Readiness, gzip, near};

/// Renders the process's metrics in the Prometheus text format.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// The common part of a listener.
#[derive(Clone)]
pub struct Door {
    component: &'static str,
    readiness: Readiness,
    metrics: MetricsPage,
    paths: Vec<&'static str>,
}

impl Door {
    /// `component` is the role's name as it appears in "… is Ready.".
    pub fn new(component: &'static str, readiness: Readiness, metrics: MetricsPage) -> Door {
        let paths = vec!["/metrics", "/-/healthy", "/-/ready"];
        Door { component, readiness, metrics, paths }
    }

    /// What `/metrics` shows, for those who show it in another form.
    pub fn metrics_page(&self) -> MetricsPage {
        self.metrics.clone()
    }

    /// Paths that a near miss is sent to: give every path the role serves.
    pub fn with_paths(mut self, paths: &[&'static str]) -> Door {
        self.paths.extend(paths);
        self
    }

    /// `routes` with `/metrics`, `/-/healthy` and `/-/ready`, answers for what does not exist, and every
    /// request counted, timed and logged at debug.
    pub fn open(self, routes: Router) -> Router {
        let door = Arc::new(self);
        let common = Router::new()
            .route("/metrics", get(metrics_page).layer(axum::middleware::from_fn(gzip::apply)))
            .route("/-/healthy", get(healthy))
            .route("/-/ready", get(ready))
            .with_state(door.clone());
        routes
            .merge(common)
            .fallback(move |request: Request| {
                let door = door.clone();
                async move { not_found(&door.paths, request.method(), request.uri().path()) }
            })
            .method_not_allowed_fallback(method_not_allowed)
            .layer(axum::middleware::from_fn(record))
    }
}

async fn metrics_page(State(door): State<Arc<Door>>) -> Response {
    let text = (door.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn healthy(State(door): State<Arc<Door>>) -> String {
    format!("{} is Healthy.\n", door.component)
}

async fn ready(State(door): State<Arc<Door>>) -> Response {
    match door.readiness.check() {
        Ok(()) => format!("{} is Ready.\n", door.component).into_response(),
        Err(reason) => {
            let stopping = if door.readiness.is_stopping() { "true" } else { "false" };
            let text = format!("{} is not ready: {reason}\n", door.component);
            (StatusCode::SERVICE_UNAVAILABLE, [("X-Prometheus-Stopping", stopping)], text).into_response()
        }
    }
}

/// API clients get JSON, everybody else a line of text; both contain "page not found", by which Grafana
/// recognises an absent ruler.
fn not_found(paths: &[&'static str], method: &Method, path: &str) -> Response {
    // Who posts to a place that says nothing most likely writes.
    let writes = || paths.iter().copied().find(|p| *method == Method::POST && p.ends_with("/receive"));
    let hint = match near::suggest(path, paths).or_else(writes) {
        Some(right) => format!("; did you mean {right}?"),
        None => String::new(),
    };
    let text = format!("404 page not found: {path} is not served here{hint}");
    if path.contains("/api/") {
        return Problem::not_found(text).into_response();
    }
    (StatusCode::NOT_FOUND, text + "\n").into_response()
}

async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response()
}

/// The name of a request's route in metrics: never the raw path, which clients choose.
fn handler(request: &Request) -> Arc<str> {
    match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().into(),
        None => "not_found".into(),
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// One request on its way to the counters; dropped early when its client leaves.
struct Seen {
    handler: Arc<str>,
    method: &'static str,
    started: Instant,
    counted: bool,
}

impl Seen {
    fn count(&mut self, code: u16) {
        self.counted = true;
        let labels = [
            ("code", code.to_string()),
            ("handler", self.handler.to_string()),
            ("method", self.method.to_owned()),
        ];
        metrics::counter!("http_requests_total", &labels).increment(1);
        let took = self.started.elapsed().as_secs_f64();
        metrics::histogram!("http_request_duration_seconds", &labels[..]).record(took);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.counted {
            self.count(ErrorType::Canceled.status().as_u16());
        }
    }
}

async fn record(request: Request, next: Next) -> Response {
    let (handler, method) = (handler(&request), method(request.method()));
    let mut seen = Seen { handler, method, started: Instant::now(), counted: false };
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0);
    let mut response = next.run(request).await;
    let code = response.status().as_u16();
    seen.count(code);
    let ms = seen.started.elapsed().as_secs_f64() * 1e3;
    tracing::debug!(method, path, code, ?peer, ms, "request");
    response
        .headers_mut()
        .entry(header::SERVER)
        .or_insert(HeaderValue::from_static(concat!("tributary/", env!("CARGO_PKG_VERSION"))));
    response
}
