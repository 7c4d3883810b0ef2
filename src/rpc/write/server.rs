//! Serves `thanos.WriteableStore` over a [`WriteBackend`].
//!
//! Requests are walked by hand, in the shape of every Thanos version and with snappy-framed messages, which
//! Thanos's routers send by default. Our own callers get a verdict per sample; Thanos gets the status that
//! makes it do the right thing with its batch.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Kind, MetricMetadata, TenantId, placement_hash};
use parking_lot::Mutex;
use storage::{Error, HistogramRow, Refusal, SampleKind, Verdict, WriteBatch};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use wire::pb::thanos::WriteResponse;
use wire::pb::tributary::v1::{self, PairSighting, Verdicts};
use wire::remote_write::{DecodedV1, Limits, PeerWrite, Series, decode_peer, peer_envelope};

use super::codec::{PATH, SERVICE, ServerCodec};
use super::{PlainWrite, StaleEpoch, TenantGroup, WriteBackend, WriteRequest, metadata, snappy, verdicts};
use crate::channel::MAX_MESSAGE;
use crate::method::{Method, message_bytes};
use crate::peer::{PeerOptions, PeerServer};
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

    /// The same backend for peers that speak in frames.
    pub(crate) fn framed(&self, options: PeerOptions, closing: watch::Receiver<bool>) -> PeerServer {
        PeerServer::new(Arc::clone(&self.inner.backend), self.inner.limits, options, closing)
    }
}

impl Inner {
    async fn remote_write(self: Arc<Self>, body: Bytes) -> Result<WriteResponse, Status> {
        if let Some(plain) = plain(&body)
            && let Some(answer) = self.backend.write_plain(&plain).await
        {
            let verdicts = answer.map_err(|error| write_status_from_error(&error))?;
            verdicts::status_for_thanos(verdicts)?;
            return Ok(WriteResponse::default());
        }
        let decoded = if body.len() <= INLINE_BYTES {
            self.decode(&body)
        } else {
            let inner = self.clone();
            let work = tokio::task::spawn_blocking(move || inner.decode(&body));
            work.await.map_err(|error| Status::internal(format!("decoding a write: {error}")))?
        };
        let mut decoded = decoded.map_err(|error| write_status_from_error(&error))?;
        for (tenant, said) in std::mem::take(&mut decoded.metadata) {
            let taken = self.backend.write_metadata(tenant, said).await;
            taken.map_err(|error| write_status_from_error(&error))?;
        }
        let told = std::mem::take(&mut decoded.pairs);
        if !told.is_empty() {
            let pairs = self.backend.exchange_pairs(told);
            return Ok(WriteResponse { tributary: Some(Verdicts { pairs, ..Verdicts::default() }) });
        }
        let answers = if decoded.request.groups.is_empty() {
            Vec::new()
        } else {
            let shape: Vec<usize> = decoded.request.groups.iter().map(|g| g.batch.verdicts()).collect();
            let answers = self.backend.write(decoded.request).await;
            if let Some(stale) = answers.as_ref().err().and_then(|error| StaleEpoch::of(error)) {
                // Who names an epoch knows this answer.
                let stale = v1::StaleEpoch { epoch: stale.epoch, ring: stale.ring.clone() };
                let told = v1::Verdicts { stale: Some(stale), ..v1::Verdicts::default() };
                return Ok(WriteResponse { tributary: Some(told) });
            }
            let answers = answers.map_err(|error| write_status_from_error(&error))?;
            if answers.len() != shape.len() || answers.iter().zip(&shape).any(|(a, n)| a.len() != *n) {
                return Err(Status::internal("the store did not answer for every sample"));
            }
            answers
        };
        let wanted = |kind| match decoded.audience {
            Audience::AllKinds => true,
            Audience::Floats => kind == SampleKind::Float,
            // An exemplar that is refused is no reason to send samples again.
            Audience::Thanos => kind != SampleKind::Exemplar,
        };
        let pieces = decoded.layout.iter().filter(|(kind, _)| wanted(*kind));
        let all = pieces.flat_map(|(_, piece)| piece.of(&answers));
        if decoded.audience != Audience::Thanos {
            return Ok(WriteResponse { tributary: Some(verdicts::encode(all)) });
        }
        verdicts::status_for_thanos(all)?;
        Ok(WriteResponse::default())
    }

    fn decode(&self, body: &[u8]) -> Result<Decoded, Error> {
        let mut peer = self.scratch.lock().pop().unwrap_or_default();
        let result = decode(body, &self.limits, &mut peer);
        let mut kept = self.scratch.lock();
        if kept.len() < KEPT {
            kept.push(peer);
        }
        result
    }
}

/// A request of Thanos as it came; none where it is one of ours, or is wrong, which decoding says in words.
fn plain(body: &Bytes) -> Option<PlainWrite> {
    let envelope = peer_envelope(body).ok().filter(|envelope| !envelope.is_ours)?;
    let replica = u32::try_from(envelope.replica).ok()?;
    let group = |(tenant, range): (String, Range<usize>)| Some((TenantId::new(&tenant).ok()?, range));
    let groups = envelope.groups.into_iter().map(group).collect::<Option<_>>()?;
    Some(PlainWrite { body: body.clone(), groups, replica })
}

fn decode(body: &[u8], limits: &Limits, peer: &mut PeerWrite) -> Result<Decoded, Error> {
    decode_peer(body, limits, peer).map_err(|error| Error::new(error.kind, error.message.clone()))?;
    let replica = u32::try_from(peer.replica)
        .map_err(|_| Error::new(Kind::Invalid, format!("replica number {} is out of range", peer.replica)))?;
    let mut groups: Vec<TenantGroup> = Vec::new();
    let mut layout = Vec::new();
    let mut canonical = Vec::new();
    for (tenant, series) in peer.groups() {
        let tenant = TenantId::new(tenant)
            .map_err(|error| Error::with_source(Kind::Invalid, error.to_string(), error))?;
        let mut group = TenantGroup { tenant, batch: Default::default() };
        group.batch.splice(peer.context.as_ref().is_some_and(|context| context.spliced));
        group.batch.ask(peer.context.as_ref().is_some_and(|context| context.asks));
        let first = layout.len();
        for one in series {
            match peer.columns.canonical(one, body, &mut canonical) {
                Ok(()) => {
                    let hash = placement_hash(group.tenant.as_str(), &canonical);
                    take(&peer.columns, one, body, groups.len(), &mut group.batch, &mut layout);
                    group.batch.close(&canonical, hash, None);
                }
                Err(_) => {
                    let invalid = |n| Piece::Refused(n, Refusal::InvalidLabels);
                    push(&mut layout, SampleKind::Float, invalid(one.samples().len()));
                    push(&mut layout, SampleKind::Histogram, invalid(one.histograms as usize));
                    push(&mut layout, SampleKind::Exemplar, invalid(one.exemplars as usize));
                }
            }
        }
        // Only now it is known where the verdicts of each kind begin.
        for (kind, piece) in &mut layout[first..] {
            piece.move_by(match kind {
                SampleKind::Float => 0,
                SampleKind::Histogram => group.batch.first_histogram(),
                SampleKind::Exemplar => group.batch.first_exemplar(),
            });
        }
        groups.push(group);
    }
    let metadata = metadata::read(peer.context.as_mut())?;
    let pairs = peer.context.as_mut().map(|context| std::mem::take(&mut context.pairs)).unwrap_or_default();
    let context = peer.context.as_ref();
    let judged_at = context.map(|c| c.judged_at_ms).filter(|&at| at != 0);
    let ring_epoch = context.map_or(0, |c| c.ring_epoch);
    let audience = match context {
        Some(context) if context.all_kinds => Audience::AllKinds,
        Some(_) => Audience::Floats,
        None => Audience::Thanos,
    };
    let request = WriteRequest { groups, replica, judged_at, ring_epoch };
    Ok(Decoded { audience, layout, metadata, pairs, request })
}

/// What a message asks to be written.
pub(super) fn read(body: &[u8], limits: &Limits, peer: &mut PeerWrite) -> Result<WriteRequest, Error> {
    decode(body, limits, peer).map(|decoded| decoded.request)
}

/// Appends what a series has to a batch, and where the verdicts will come from to `layout`.
fn take(
    columns: &DecodedV1,
    series: &Series,
    body: &[u8],
    group: usize,
    batch: &mut WriteBatch,
    layout: &mut Vec<(SampleKind, Piece)>,
) {
    let first = batch.samples().len();
    for (at, sample) in series.samples().zip(columns.samples_of(series)) {
        batch.open().push(*sample);
        batch.push_start(columns.start_timestamp(at));
    }
    push(layout, SampleKind::Float, Piece::Of(group, first..batch.samples().len()));
    for row in columns.histograms_of(series) {
        let at = batch.histograms().len();
        let piece = match &row.histogram {
            Ok(histogram) => {
                let (timestamp, start) = (row.timestamp, row.start_timestamp);
                batch.push_histogram(HistogramRow { timestamp, start, histogram: histogram.clone() });
                Piece::Of(group, at..at + 1)
            }
            Err(_) => Piece::Refused(1, Refusal::InvalidHistogram),
        };
        push(layout, SampleKind::Histogram, piece);
    }
    let mut labels = Vec::new();
    for exemplar in columns.exemplars_of(series) {
        let at = batch.exemplars().len();
        let piece = match columns.exemplar_canonical(exemplar, body, &mut labels) {
            Ok(()) => {
                batch.push_exemplar(exemplar.timestamp, exemplar.value, &labels);
                Piece::Of(group, at..at + 1)
            }
            Err(_) => Piece::Refused(1, Refusal::InvalidExemplar),
        };
        push(layout, SampleKind::Exemplar, piece);
    }
}

struct Decoded {
    request: WriteRequest,
    layout: Vec<(SampleKind, Piece)>,
    audience: Audience,
    /// By tenant.
    metadata: Vec<(TenantId, Vec<MetricMetadata>)>,
    pairs: Vec<PairSighting>,
}

/// Who asks, and which verdicts they count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// One of ours.
    AllKinds,
    /// One of ours that knows floats alone.
    Floats,
    /// Wants a status.
    Thanos,
}

/// Where the verdicts of the next samples of a request come from.
enum Piece {
    /// From the backend's answer for a group.
    Of(usize, Range<usize>),
    /// Nowhere: so many are no samples, or their series' labels are no labels.
    Refused(usize, Refusal),
}

impl Piece {
    fn of<'a>(&self, answers: &'a [Vec<Verdict>]) -> Box<dyn Iterator<Item = Verdict> + 'a> {
        match self {
            Piece::Of(group, range) => Box::new(answers[*group][range.clone()].iter().copied()),
            Piece::Refused(count, why) => Box::new(std::iter::repeat_n(Verdict::Refused(*why), *count)),
        }
    }

    fn move_by(&mut self, by: usize) {
        if let Piece::Of(_, range) = self {
            *range = range.start + by..range.end + by;
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Piece::Of(_, range) => range.is_empty(),
            Piece::Refused(count, _) => *count == 0,
        }
    }
}

fn push(layout: &mut Vec<(SampleKind, Piece)>, kind: SampleKind, next: Piece) {
    match (layout.last_mut(), &next) {
        _ if next.is_empty() => {}
        (Some((last, Piece::Of(group, range))), Piece::Of(other, more))
            if *last == kind && group == other && range.end == more.start =>
        {
            range.end = more.end
        }
        _ => layout.push((kind, next)),
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

impl Method for WriteServer {
    const NAME: &'static str = SERVICE;
    const PATH: &'static str = PATH;

    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let max = message_bytes(&self.inner.limits);
        let request = snappy::open(request, max).await?;
        let mut grpc = Grpc::new(ServerCodec).apply_max_message_size_config(Some(max), Some(MAX_MESSAGE));
        Ok(grpc.unary(self, request).await)
    }
}
