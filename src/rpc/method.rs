//! A gRPC service of one method whose bytes are walked by hand: what tonic's generated code does for the others.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The one method of a service.
pub(crate) trait Method: Clone + Send + Sync + 'static {
    /// Of the service.
    const NAME: &'static str;
    /// Of the method.
    const PATH: &'static str;

    fn answer(
        self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<Body>, Status>> + Send;
}

/// The service around a method.
#[derive(Clone)]
pub(crate) struct Only<M>(pub M);

impl<M: Method> NamedService for Only<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Method> Service<http::Request<Body>> for Only<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.0.clone();
        Box::pin(async move {
            let answer = match request.uri().path() == M::PATH {
                true => method.answer(request).await,
                false => Err(Status::unimplemented("no such method")),
            };
            Ok(answer.unwrap_or_else(|status| status.into_http()))
        })
    }
}

/// Most bytes of one message: what passed a sender's door can be longer here, because zeroes that senders leave out are written.
pub(crate) fn message_bytes(limits: &wire::remote_write::Limits) -> usize {
    limits.max_bytes.saturating_mul(2).saturating_add(1 << 20).min(crate::channel::MAX_MESSAGE)
}
