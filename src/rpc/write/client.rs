//! Sends a part of a batch to a peer, ours or Thanos's, and says what became of each sample.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::Kind;
use parking_lot::Mutex;
use runtime::World;
use storage::{Error, Refusal, Verdict};
use tokio::runtime::Handle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wire::pb::thanos::WriteResponse;
use wire::pb::tributary::v1::WriteContext;
use wire::remote_write::PeerEncoder;

use super::backoff::Backoff;
use super::codec::{ClientCodec, PATH};
use super::{StaleEpoch, WriteCall, WriteShape, verdicts};
use crate::channel::{self, ClientOptions, MAX_MESSAGE};
use crate::peer::{Failed, Opened, PeerOptions, Session};
use crate::{error_from_status, metrics};

/// How a peer is written to. The defaults are Thanos's.
#[derive(Clone, Debug)]
pub struct WriteClientOptions {
    pub channel: ClientOptions,
    pub shape: WriteShape,
    /// How long one write may take (`--receive-forward-timeout`).
    pub timeout: Duration,
    /// Longest pause after failures in a row (`--receive-forward-max-backoff`).
    pub max_backoff: Duration,
    /// Our own address, for the peer's logs.
    pub door: String,
    /// Limits of a stream of frames; none: single calls alone.
    pub peer: Option<PeerOptions>,
}

impl Default for WriteClientOptions {
    fn default() -> WriteClientOptions {
        WriteClientOptions {
            channel: ClientOptions::default(),
            shape: WriteShape::default(),
            timeout: Duration::from_secs(5),
            max_backoff: Duration::from_secs(5),
            door: String::new(),
            peer: Some(PeerOptions::default()),
        }
    }
}

/// How a write failed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The peer failed a moment ago; nothing was sent.
    BackingOff,
    /// No connection, or the peer says that it cannot take writes now.
    Unavailable,
    /// No answer in time; the samples may be stored.
    TimedOut,
    /// Nothing was judged: the write is to be placed by another ring ([`StaleEpoch`]).
    Stale,
    /// The peer answered with something else; the samples may be stored.
    Failed,
}

/// A write without verdicts. Whatever the fault, sending the same samples again does no harm.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct WriteError {
    pub kind: Kind,
    pub fault: WriteFault,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// One peer. Cheap to clone; clones share connection and back-off.
#[derive(Clone)]
pub struct WriteClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    address: String,
    channel: Channel,
    world: World,
    pub options: WriteClientOptions,
    backoff: Backoff,
    way: Mutex<Way>,
    /// Held by whoever opens a stream; the others wait for it.
    opening: tokio::sync::Mutex<()>,
}

/// How the peer is written to.
enum Way {
    Framed(Arc<Session>),
    /// By single calls; a stream is tried again then.
    Plain(Instant),
}

/// How long a peer that does not speak in frames is not asked again whether it does.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl WriteClient {
    /// A client of `address` (`host:port`); connects on first use, on the runtime `handle`.
    pub fn new(
        address: &str,
        options: WriteClientOptions,
        world: World,
        handle: &Handle,
    ) -> Result<WriteClient, Error> {
        let channel = channel::lazy(address, &options.channel, handle)?;
        let backoff = Backoff::new(options.max_backoff);
        let address = address.to_owned();
        // The first write asks.
        let way = Mutex::new(Way::Plain(world.clock.monotonic()));
        let opening = tokio::sync::Mutex::default();
        Ok(WriteClient { inner: Arc::new(Inner { address, channel, world, options, backoff, way, opening }) })
    }

    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Series that have a name on the stream to the peer; none without a stream.
    pub fn names(&self) -> Option<usize> {
        match &*self.inner.way.lock() {
            Way::Framed(session) => Some(session.names()),
            Way::Plain(_) => None,
        }
    }

    /// Whether a write would fail at once because the peer failed a moment ago.
    pub fn is_backing_off(&self) -> bool {
        self.inner.backoff.pausing(self.inner.world.clock.monotonic()).is_some()
    }

    /// Sends and answers with one verdict per sample, in the order of `call.rows` and their samples. A peer
    /// that knows no verdicts (Thanos) answers for the batch: all stored, or all refused, or an error.
    pub async fn write(&self, call: WriteCall) -> Result<Vec<Verdict>, WriteError> {
        let inner = &*self.inner;
        if let Some(verdicts) = inner.write_framed(&call).await? {
            return Ok(verdicts);
        }
        let (body, shape) = encode(&call, inner.options.shape, &inner.options.door);
        match inner.exchange(body).await? {
            Ok(response) => inner.verdicts(&response, &shape),
            Err(status) => inner.verdicts_of_status(&status, shape.verdicts()),
        }
    }
}

/// What was sent, series by series.
#[derive(Default)]
pub(super) struct Shape {
    floats: usize,
    others: usize,
    /// Floats and others of runs of series; one entry while there are only floats.
    runs: Vec<(usize, usize)>,
}

impl Shape {
    fn add(&mut self, floats: usize, others: usize) {
        self.floats += floats;
        self.others += others;
        match self.runs.last_mut() {
            Some((run, none @ 0)) => (*run, *none) = (*run + floats, others),
            _ => self.runs.push((floats, others)),
        }
    }

    fn verdicts(&self) -> usize {
        self.floats + self.others
    }

    /// Verdicts of floats alone, with those of the others put in between: a peer that did not read them has not refused
    /// them. Once it is a newer one it takes them, so that sending them again can help.
    fn spread(&self, floats: &[Verdict]) -> Vec<Verdict> {
        let mut floats = floats.iter().copied();
        let mut out = Vec::with_capacity(self.verdicts());
        for &(some, others) in &self.runs {
            out.extend(floats.by_ref().take(some));
            out.extend(std::iter::repeat_n(Verdict::Unavailable, others));
        }
        out
    }
}

/// The rows of a call as a message, and which verdicts it asks for.
pub(super) fn encode(call: &WriteCall, layout: WriteShape, door: &str) -> (Bytes, Shape) {
    let mut encoder = PeerEncoder::default();
    let (batch, with_starts) = (&call.batch, call.batch.has_starts());
    let mut shape = Shape::default();
    let mut of_source = Vec::new();
    for (row, series) in call.rows.iter().filter_map(|row| Some((*row, batch.series().get(*row as usize)?))) {
        let range = series.samples();
        let (histograms, exemplars) = (batch.histograms_of(series), batch.exemplars_of(series));
        shape.add(range.len(), histograms.len() + exemplars.len());
        let mut labels = batch.label_bytes(series);
        // Without any the peer refuses the row, as it should.
        if labels.is_empty() && batch.labels_into(row, &mut of_source) {
            labels = &of_source;
        }
        if !with_starts && histograms.is_empty() && exemplars.is_empty() {
            encoder.push(labels, &batch.samples()[range]);
            continue;
        }
        encoder.begin(labels);
        range.for_each(|at| encoder.sample(batch.samples()[at], batch.start_of(at)));
        for row in &batch.histograms()[histograms] {
            encoder.histogram(row.timestamp, row.start, &row.histogram);
        }
        for row in &batch.exemplars()[exemplars] {
            encoder.exemplar(row.timestamp, row.value, batch.exemplar_labels(row));
        }
        encoder.end();
    }
    let door = door.to_owned();
    let context = WriteContext {
        judged_at_ms: call.judged_at,
        door,
        all_kinds: true,
        metadata: Vec::new(),
        spliced: batch.is_spliced(),
        asks: batch.asks(),
        pairs: Vec::new(),
        ring_epoch: call.ring_epoch,
    };
    let by_tenant = layout == WriteShape::ByTenant;
    let body = encoder.finish(call.tenant.as_str(), call.replica, by_tenant, Some(&context));
    (body.into(), shape)
}

impl Inner {
    /// Writes by the stream; nothing where the peer, or this call, wants a single call.
    async fn write_framed(&self, call: &WriteCall) -> Result<Option<Vec<Verdict>>, WriteError> {
        // Frames have no word for what is spliced, which is rare.
        let Some(options) = self.options.peer.filter(|_| !call.batch.is_spliced()) else { return Ok(None) };
        self.not_pausing()?;
        let began = self.world.clock.monotonic();
        let Some(session) = self.session(options).await? else { return Ok(None) };
        let spent = self.world.clock.monotonic().saturating_duration_since(began);
        let failed = match session.write(call, self.options.timeout.saturating_sub(spent)).await {
            Ok(verdicts) => {
                self.backoff.succeeded();
                return Ok(Some(verdicts));
            }
            Err(failed) => failed,
        };
        let (fault, why) = match failed {
            Failed::Stale(stale) => {
                self.backoff.succeeded();
                return Err(self.stale(stale));
            }
            Failed::Unfit(why) => {
                fell_back("request");
                tracing::debug!(peer = self.address, why, "a write goes by a single call");
                return Ok(None);
            }
            Failed::TimedOut => {
                (WriteFault::TimedOut, format!("no answer within {:?}", self.options.timeout))
            }
            Failed::Ended(why) | Failed::Passing(why) => (WriteFault::Unavailable, why),
        };
        self.backoff.failed(&self.world);
        Err(self.error(Kind::Unavailable, fault, format!("{}: {why}", self.address)))
    }

    /// The stream that is open, or a new one; none where the peer knows no frames.
    async fn session(&self, options: PeerOptions) -> Result<Option<Arc<Session>>, WriteError> {
        if let Some(known) = self.known_way() {
            return Ok(known);
        }
        let _opening = self.opening.lock().await;
        // Somebody else may have opened it, or have failed to.
        if let Some(known) = self.known_way() {
            return Ok(known);
        }
        self.not_pausing()?;
        let (door, patience) = (&self.options.door, self.options.timeout / 2);
        let opened = Session::open(self.channel.clone(), door, options, &self.world, patience).await;
        match opened {
            Opened::Stream(session) => {
                *self.way.lock() = Way::Framed(Arc::clone(&session));
                Ok(Some(session))
            }
            Opened::Plain(why) => {
                fell_back("peer");
                tracing::debug!(peer = self.address, why, "the peer is written to by single calls");
                *self.way.lock() = Way::Plain(self.world.clock.monotonic() + ASK_AGAIN);
                Ok(None)
            }
            Opened::Failed(status) => {
                self.backoff.failed(&self.world);
                let error = error_from_status(&self.address, &status);
                let (kind, fault, message) = (error.kind, WriteFault::Unavailable, error.message);
                Err(WriteError { kind, fault, message, source: error.source })
            }
        }
    }

    fn known_way(&self) -> Option<Option<Arc<Session>>> {
        match &*self.way.lock() {
            Way::Framed(session) if session.is_open() => Some(Some(Arc::clone(session))),
            Way::Plain(until) if *until > self.world.clock.monotonic() => Some(None),
            _ => None,
        }
    }

    fn not_pausing(&self) -> Result<(), WriteError> {
        let Some(left) = self.backoff.pausing(self.world.clock.monotonic()) else { return Ok(()) };
        let message = format!("{}: failed a moment ago, is left alone for {left:?}", self.address);
        Err(self.error(Kind::Unavailable, WriteFault::BackingOff, message))
    }

    /// Sends a request, unless the peer failed a moment ago, and says what the peer said.
    pub async fn exchange(&self, body: Bytes) -> Result<Result<WriteResponse, Status>, WriteError> {
        self.not_pausing()?;
        let answer = tokio::time::timeout(self.options.timeout, self.send(body)).await;
        let Ok(answer) = answer else {
            self.backoff.failed(&self.world);
            metrics::client_handled(metrics::REMOTE_WRITE, Code::DeadlineExceeded);
            let message = format!("{}: no answer within {:?}", self.address, self.options.timeout);
            return Err(self.error(Kind::Unavailable, WriteFault::TimedOut, message));
        };
        metrics::client_handled(metrics::REMOTE_WRITE, answer.as_ref().err().map_or(Code::Ok, Status::code));
        if answer.is_ok() {
            self.backoff.succeeded();
        }
        Ok(answer)
    }

    async fn send(&self, body: Bytes) -> Result<WriteResponse, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::unavailable(format!("not connected: {error}")))?;
        let mut request = Request::new(body);
        request.set_timeout(self.options.timeout);
        let response = grpc.unary(request, PathAndQuery::from_static(PATH), ClientCodec).await?;
        Ok(response.into_inner())
    }

    fn verdicts(&self, response: &WriteResponse, shape: &Shape) -> Result<Vec<Verdict>, WriteError> {
        let Some(wire) = &response.tributary else { return Ok(vec![Verdict::Stored; shape.verdicts()]) };
        if let Some(stale) = &wire.stale {
            return Err(self.stale(StaleEpoch { epoch: stale.epoch, ring: stale.ring.clone() }));
        }
        let told: u64 = wire.counts.iter().map(|n| u64::from(*n)).sum();
        let read = match told == shape.verdicts() as u64 {
            true => verdicts::decode(wire, shape.verdicts()),
            // A peer of an earlier version has read the floats alone.
            false => verdicts::decode(wire, shape.floats).map(|floats| shape.spread(&floats)),
        };
        read.map_err(|what| {
            let message = format!("{}: answered with {what}", self.address);
            self.error(Kind::Internal, WriteFault::Failed, message)
        })
    }

    /// AlreadyExists and InvalidArgument settle a batch for good; all else may change.
    pub fn verdicts_of_status(&self, status: &Status, samples: usize) -> Result<Vec<Verdict>, WriteError> {
        let error = error_from_status(&self.address, status);
        let fault = match status.code() {
            Code::AlreadyExists => {
                self.backoff.succeeded();
                return Ok(vec![Verdict::Refused(Refusal::Conflict); samples]);
            }
            Code::InvalidArgument => {
                self.backoff.succeeded();
                return Ok(vec![Verdict::Refused(Refusal::InvalidLabels); samples]);
            }
            code if error.kind == Kind::Unavailable => {
                self.backoff.failed(&self.world);
                match code {
                    Code::DeadlineExceeded | Code::Cancelled => WriteFault::TimedOut,
                    _ => WriteFault::Unavailable,
                }
            }
            _ => WriteFault::Failed,
        };
        Err(WriteError { kind: error.kind, fault, message: error.message, source: error.source })
    }

    fn stale(&self, stale: StaleEpoch) -> WriteError {
        let message = format!("{}: {stale}", self.address);
        WriteError { kind: Kind::Refused, fault: WriteFault::Stale, message, source: Some(stale.into()) }
    }

    fn error(&self, kind: Kind, fault: WriteFault, message: String) -> WriteError {
        WriteError { kind, fault, message, source: None }
    }
}

fn fell_back(what: &'static str) {
    ::metrics::counter!("tributary_peer_fallbacks_total", "what" => what).increment(1);
}
