//! Calls counted as Go's gRPC middleware counts them, so that Thanos's dashboards and alerts hold:
//! `grpc_server_started_total`, `grpc_server_handled_total` and `grpc_client_handled_total`.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use metrics::counter;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// A method that exists. Others are counted as one, so that callers cannot make up series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    service: &'static str,
    method: &'static str,
    kind: &'static str,
}

impl Method {
    /// Whether the answer is a stream, which has ended only when it was read to its end.
    pub(crate) fn streams(self) -> bool {
        self.kind == "server_stream"
    }
}

const fn unary(service: &'static str, method: &'static str) -> Method {
    Method { service, method, kind: "unary" }
}

const fn stream(service: &'static str, method: &'static str) -> Method {
    Method { service, method, kind: "server_stream" }
}

pub(crate) const SERIES: Method = stream("thanos.Store", "Series");
pub(crate) const LABEL_NAMES: Method = unary("thanos.Store", "LabelNames");
pub(crate) const LABEL_VALUES: Method = unary("thanos.Store", "LabelValues");
pub(crate) const INFO: Method = unary("thanos.info.Info", "Info");
pub(crate) const REMOTE_WRITE: Method = unary("thanos.WriteableStore", "RemoteWrite");
pub(crate) const RULES: Method = stream("thanos.Rules", "Rules");
pub(crate) const TARGETS: Method = stream("thanos.Targets", "Targets");
pub(crate) const EXEMPLARS: Method = stream("thanos.Exemplars", "Exemplars");
pub(crate) const METADATA: Method = stream("thanos.Metadata", "MetricMetadata");
pub(crate) const STATISTICS: Method = stream("thanos.Status", "TSDBStatistics");
pub(crate) const QUERY: Method = stream("thanos.Query", "Query");
pub(crate) const QUERY_RANGE: Method = stream("thanos.Query", "QueryRange");
const PEER: Method = Method { service: "tributary.v1.Peer", method: "Write", kind: "bidi_stream" };
const OTHER: Method = unary("unknown", "unknown");

const KNOWN: [Method; 15] = [
    PEER,
    SERIES,
    LABEL_NAMES,
    LABEL_VALUES,
    INFO,
    REMOTE_WRITE,
    RULES,
    TARGETS,
    EXEMPLARS,
    METADATA,
    STATISTICS,
    QUERY,
    QUERY_RANGE,
    unary("grpc.health.v1.Health", "Check"),
    stream("grpc.health.v1.Health", "Watch"),
];

fn method_of(path: &str) -> Method {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    KNOWN.into_iter().find(|m| m.service == service && m.method == method).unwrap_or(OTHER)
}

/// As Go spells them.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

fn handled(side: &'static str, method: Method, code: Code) {
    counter!(
        side, "grpc_service" => method.service, "grpc_method" => method.method, "grpc_type" => method.kind,
        "grpc_code" => name_of(code)
    )
    .increment(1);
}

/// Counts a call of ours that has ended.
pub(crate) fn client_handled(method: Method, code: Code) {
    handled("grpc_client_handled_total", method, code);
}

/// Counts a call when its answer is through, or was dropped because the caller left.
struct Call {
    method: Method,
    code: Code,
}

impl Call {
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        handled("grpc_server_handled_total", self.method, self.code);
    }
}

/// Wraps a server's routes.
#[derive(Clone, Copy, Default)]
pub(crate) struct CountCalls;

impl<S> Layer<S> for CountCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner }
    }
}

#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = method_of(request.uri().path());
        counter!(
            "grpc_server_started_total", "grpc_service" => method.service, "grpc_method" => method.method,
            "grpc_type" => method.kind
        )
        .increment(1);
        let mut call = Call { method, code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            call.note(response.headers());
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        call.note(trailers);
                    }
                    frame
                }))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_that_exist_are_named() {
        assert_eq!(method_of("/thanos.Store/Series"), SERIES);
        for path in ["/thanos.Store/Drop", "/x/y", "", "/", "/thanos.Store"] {
            assert_eq!(method_of(path), OTHER, "{path}");
        }
    }
}
