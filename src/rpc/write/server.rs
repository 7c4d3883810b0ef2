//! Serves `thanos.WriteableStore` over a [`WriteBackend`].
//!
//! Requests are walked by hand, in the shape of every Thanos version and with snappy-framed messages, which
//! Thanos's routers send by default. Our own callers get a verdict per sample; Thanos gets the status that
//! makes it do the right thing with its batch.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Kind, TenantId, placement_hash};
use parking_lot::Mutex;
use storage::{Error, Refusal, Verdict};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;
use wire::pb::thanos::WriteResponse;
use wire::remote_write::{Limits, PeerWrite, decode_peer};

use super::codec::{PATH, SERVICE, ServerCodec};
use super::{TenantGroup, WriteBackend, WriteRequest, snappy, verdicts};
use crate::channel::MAX_MESSAGE;
use crate::status::write_status_from_error;

/// Requests of more bytes are decoded beside the threads that drive sockets.
const INLINE_BYTES: usize = 64 << 10;
/// Decoders kept for reuse.
const KEPT: usize = 16;

/// The gRPC face of a backend. Cheap to clone.
#[derive(Clone)]
pub struct WriteServer {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn WriteBackend>,
    limits: Limits,
    scratch: Mutex<Vec<PeerWrite>>,
}

impl WriteServer {
    /// `limits` bound what one request may be and hold, after decompression.
    pub fn new(backend: Arc<dyn WriteBackend>, limits: Limits) -> WriteServer {
        WriteServer { inner: Arc::new(Inner { backend, limits, scratch: Mutex::default() }) }
    }
}

impl Inner {
    async fn remote_write(self: Arc<Self>, body: Bytes) -> Result<WriteResponse, Status> {
        let decoded = if body.len() <= INLINE_BYTES {
            self.decode(&body)
        } else {
            let inner = self.clone();
            let work = tokio::task::spawn_blocking(move || inner.decode(&body));
            work.await.map_err(|error| Status::internal(format!("decoding a write: {error}")))?
        };
        let decoded = decoded.map_err(|error| write_status_from_error(&error))?;
        let answers = if decoded.request.groups.is_empty() {
            Vec::new()
        } else {
            let shape: Vec<usize> = decoded.request.groups.iter().map(|g| g.batch.samples().len()).collect();
            let answers = self.backend.write(decoded.request).await;
            let answers = answers.map_err(|error| write_status_from_error(&error))?;
            if answers.len() != shape.len() || answers.iter().zip(&shape).any(|(a, n)| a.len() != *n) {
                return Err(Status::internal("the store did not answer for every sample"));
            }
            answers
        };
        let all = decoded.layout.iter().flat_map(|piece| piece.of(&answers));
        if decoded.verdicts_wanted {
            return Ok(WriteResponse { tributary: Some(verdicts::encode(all)) });
        }
        verdicts::status_for_thanos(all, decoded.histograms)?;
        Ok(WriteResponse::default())
    }

    fn decode(&self, body: &[u8]) -> Result<Decoded, Error> {
        let mut peer = self.scratch.lock().pop().unwrap_or_default();
        let result = self.decode_into(body, &mut peer);
        let mut kept = self.scratch.lock();
        if kept.len() < KEPT {
            kept.push(peer);
        }
        result
    }

    fn decode_into(&self, body: &[u8], peer: &mut PeerWrite) -> Result<Decoded, Error> {
        decode_peer(body, &self.limits, peer)
            .map_err(|error| Error::new(error.kind, error.message.clone()))?;
        let replica = u32::try_from(peer.replica).map_err(|_| {
            Error::new(Kind::Invalid, format!("replica number {} is out of range", peer.replica))
        })?;
        let mut groups: Vec<TenantGroup> = Vec::new();
        let mut layout = Vec::new();
        let mut canonical = Vec::new();
        for (tenant, series) in peer.groups() {
            let tenant = TenantId::new(tenant)
                .map_err(|error| Error::with_source(Kind::Invalid, error.to_string(), error))?;
            let mut group = TenantGroup { tenant, batch: Default::default() };
            for one in series {
                let samples = peer.columns.samples_of(one);
                match peer.columns.canonical(one, body, &mut canonical) {
                    Ok(()) => {
                        let hash = placement_hash(group.tenant.as_str(), &canonical);
                        let first = group.batch.samples().len();
                        group.batch.push(&canonical, hash, samples.iter().copied());
                        push(&mut layout, Piece::Of(groups.len(), first..first + samples.len()));
                    }
                    Err(_) => push(&mut layout, Piece::Invalid(samples.len())),
                }
            }
            groups.push(group);
        }
        let context = peer.context.as_ref();
        let judged_at = context.map(|c| c.judged_at_ms).filter(|&at| at != 0);
        Ok(Decoded {
            verdicts_wanted: context.is_some(),
            histograms: peer.columns.histogram_count(),
            layout,
            request: WriteRequest { groups, replica, judged_at },
        })
    }
}

struct Decoded {
    request: WriteRequest,
    layout: Vec<Piece>,
    histograms: u64,
    verdicts_wanted: bool,
}

/// Where the verdicts of the next samples of a request come from.
enum Piece {
    /// From the backend's answer for a group.
    Of(usize, Range<usize>),
    /// Nowhere: their series' labels are no labels.
    Invalid(usize),
}

impl Piece {
    fn of<'a>(&self, answers: &'a [Vec<Verdict>]) -> Box<dyn Iterator<Item = Verdict> + 'a> {
        match self {
            Piece::Of(group, range) => Box::new(answers[*group][range.clone()].iter().copied()),
            Piece::Invalid(count) => {
                Box::new(std::iter::repeat_n(Verdict::Refused(Refusal::InvalidLabels), *count))
            }
        }
    }
}

fn push(layout: &mut Vec<Piece>, next: Piece) {
    match (layout.last_mut(), &next) {
        (Some(Piece::Of(group, range)), Piece::Of(other, more)) if group == other => range.end = more.end,
        _ => layout.push(next),
    }
}

impl UnaryService<Bytes> for WriteServer {
    type Response = WriteResponse;
    type Future = BoxFuture<'static, Result<Response<WriteResponse>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move { inner.remote_write(request.into_inner()).await.map(Response::new) })
    }
}

impl NamedService for WriteServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for WriteServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            // What passed a door can be longer here: zeroes that senders leave out are written.
            let max =
                server.inner.limits.max_bytes.saturating_mul(2).saturating_add(1 << 20).min(MAX_MESSAGE);
            let request = match snappy::open(request, max).await {
                Ok(request) => request,
                Err(status) => return Ok(status.into_http()),
            };
            let mut grpc = Grpc::new(ServerCodec).apply_max_message_size_config(Some(max), Some(MAX_MESSAGE));
            Ok(grpc.unary(server, request).await)
        })
    }
}
