//! The receiver's end of a stream: reads requests, has them stored, and answers each as soon as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metrics::counter;
use model::Kind;
use runtime::ByteGate;
use storage::{Error, Verdict, WriteBatch};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use wire::remote_write::Limits;

use super::bytes::Read;
use super::frame::{self, GOODBYE, REQUEST, RING_EPOCHS, VERSION};
use super::reply::{Fault, Reply, Told};
use super::request::{Decoder, Rows, id_of};
use super::slots::Slots;
use super::{FrameError, Hello, PATH, PeerOptions, SERVICE, Welcome};
use crate::channel::MAX_MESSAGE;
use crate::method::{Method, message_bytes};
use crate::write::codec::RawCodec;
use crate::write::{KnownTaken, KnownWrite, StaleEpoch, WriteBackend};

/// How long a caller may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long callers may take to end their streams once they were asked to.
const GRACE: Duration = Duration::from_secs(10);
/// Requests of one stream at once.
const MAX_JOBS: usize = 256;
/// Replies that wait for the connection.
const REPLIES: usize = 64;

/// The gRPC face of a backend for peers that speak in frames. Cheap to clone.
#[derive(Clone)]
pub struct PeerServer {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn WriteBackend>,
    limits: Limits,
    options: PeerOptions,
    names: ByteGate,
    closing: watch::Receiver<bool>,
}

impl PeerServer {
    /// `limits` bound what one request may hold; once `closing` is true, streams are brought to their end.
    pub fn new(
        backend: Arc<dyn WriteBackend>,
        limits: Limits,
        options: PeerOptions,
        closing: watch::Receiver<bool>,
    ) -> PeerServer {
        let names = ByteGate::new(options.names_bytes);
        PeerServer { inner: Arc::new(Inner { backend, limits, options, names, closing }) }
    }
}

impl Inner {
    fn frame_bytes(&self) -> usize {
        message_bytes(&self.limits)
    }

    fn welcome(&self, hello: &Hello) -> Welcome {
        let version = hello.highest.min(VERSION);
        Welcome {
            version: if version >= hello.lowest { version } else { 0 },
            features: hello.features & RING_EPOCHS,
            names: self.options.names,
            frame_bytes: self.frame_bytes() as u32,
            inflight_bytes: self.options.inflight_bytes,
        }
    }
}

/// A request that was stored or was not.
struct Done {
    id: u64,
    epoch: u32,
    bytes: usize,
    rows: Rows,
    result: Result<KnownTaken, Error>,
}

/// One stream.
struct Stream {
    inner: Arc<Inner>,
    slots: Slots,
    decoder: Decoder,
    replies: mpsc::Sender<Result<Bytes, Status>>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    inflight: usize,
}

/// The caller is gone.
struct Gone;

async fn drive(
    inner: Arc<Inner>,
    mut inbound: Streaming<Bytes>,
    replies: mpsc::Sender<Result<Bytes, Status>>,
) {
    let hello = match timeout(PATIENCE, inbound.message()).await {
        Ok(Ok(Some(first))) => Hello::decode(&first),
        _ => return,
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(error) => {
            let _ = replies.send(Err(Status::invalid_argument(error.to_string()))).await;
            return;
        }
    };
    let welcome = inner.welcome(&hello);
    if replies.send(Ok(welcome.encode().into())).await.is_err() || welcome.version == 0 {
        return;
    }
    counter!("tributary_peer_streams_total", "direction" => "in").increment(1);
    tracing::debug!(door = hello.door, version = welcome.version, "a peer writes in frames");
    let slots = Slots::new(inner.options.names, inner.names.clone());
    let (decoder, jobs) = (Decoder::default(), FuturesUnordered::new());
    let mut stream = Stream { inner, slots, decoder, replies, jobs, inflight: 0 };
    let _ = stream.run(inbound).await;
}

impl Stream {
    async fn run(&mut self, mut inbound: Streaming<Bytes>) -> Result<(), Gone> {
        let mut closing = self.inner.closing.clone();
        let most = self.inner.options.inflight_bytes as usize;
        let (mut open, mut until) = (true, None);
        while open || !self.jobs.is_empty() {
            let may_read = open && self.inflight < most && self.jobs.len() < MAX_JOBS;
            tokio::select! {
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => {
                    self.inflight -= done.bytes;
                    let reply = self.reply(done);
                    self.say(reply.encode()).await?;
                }
                message = inbound.message(), if may_read => match message {
                    Ok(Some(frame)) => self.take(frame).await?,
                    Ok(None) => open = false,
                    Err(_) => return Err(Gone),
                },
                () = closed(&mut closing), if open && until.is_none() => {
                    until = Some(Instant::now() + GRACE);
                    let mut goodbye = Vec::new();
                    frame::begin(GOODBYE, &mut goodbye);
                    frame::end(&mut goodbye);
                    self.say(goodbye).await?;
                }
                () = async { sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    async fn say(&mut self, frame: Vec<u8>) -> Result<(), Gone> {
        counter!("tributary_peer_frames_total", "direction" => "out").increment(1);
        counter!("tributary_peer_bytes_total", "direction" => "out").increment(frame.len() as u64);
        self.replies.send(Ok(frame.into())).await.map_err(|_| Gone)
    }

    /// Begins what a frame asks for.
    async fn take(&mut self, frame: Bytes) -> Result<(), Gone> {
        counter!("tributary_peer_frames_total", "direction" => "in").increment(1);
        counter!("tributary_peer_bytes_total", "direction" => "in").increment(frame.len() as u64);
        let body = match frame::open(&frame) {
            Ok((REQUEST, body)) => body,
            Ok((kind, _)) => return self.refuse(FrameError::Kind(kind)).await,
            Err(error) => return self.refuse(error).await,
        };
        let arrived = Instant::now();
        let incoming = match self.decode(body) {
            Ok(incoming) => incoming,
            // Sender and receiver agree on where frames end: the others on the stream are sound.
            Err(error) => match id_of(body) {
                Some(id) => {
                    let fault = Fault::Error { passing: false, message: error.to_string() };
                    return self.say(Reply { id, result: Err(fault) }.encode()).await;
                }
                None => return self.refuse(error).await,
            },
        };
        let (head, rows, bytes) = (incoming.head, incoming.rows, frame.len());
        let write = KnownWrite {
            tenant: head.tenant,
            batch: incoming.batch,
            rows: rows.known.clone(),
            replica: head.replica,
            judged_at: head.judged_at,
            ring_epoch: head.ring_epoch,
        };
        let backend = Arc::clone(&self.inner.backend);
        let deadline = arrived + Duration::from_millis(head.deadline_ms.into());
        self.inflight += bytes;
        self.jobs.push(Box::pin(async move {
            let result = match timeout_at(deadline, backend.write_known(write)).await {
                Ok(result) => result,
                Err(_) => Err(Error::new(Kind::Unavailable, "the write took longer than its sender waits")),
            };
            Done { id: head.id, epoch: head.epoch, bytes, rows, result }
        }));
        Ok(())
    }

    fn decode(&mut self, body: Read<'_>) -> Result<super::request::Incoming, FrameError> {
        let Stream { inner, slots, decoder, .. } = self;
        // Names of an epoch before this one mean nothing any more.
        let epoch = super::request::epoch_of(body)?;
        if slots.turn(epoch) && epoch > 1 {
            counter!("tributary_peer_dictionary_resets_total", "direction" => "in").increment(1);
        }
        decoder.decode(body, &inner.limits, |epoch, slot| slots.get(epoch, slot))
    }

    /// Ends a stream on which something came that cannot be answered.
    async fn refuse(&mut self, error: FrameError) -> Result<(), Gone> {
        tracing::warn!(%error, "a peer's stream is ended");
        let _ = self.replies.send(Err(Status::invalid_argument(error.to_string()))).await;
        Err(Gone)
    }

    fn reply(&mut self, done: Done) -> Reply {
        let Done { id, epoch, rows, result, .. } = done;
        let taken = match result {
            Ok(taken) => taken,
            Err(error) => {
                let passing = matches!(error.kind, Kind::Unavailable | Kind::Exhausted);
                let fault = match StaleEpoch::of(&error) {
                    Some(stale) => Fault::Stale(stale.clone()),
                    None => Fault::Error { passing, message: error.message },
                };
                return Reply { id, result: Err(fault) };
            }
        };
        let KnownTaken { batch, verdicts, learned, mut unknown } = taken;
        if verdicts.len() != batch.verdicts() {
            let message = "the store did not answer for every sample".to_owned();
            return Reply { id, result: Err(Fault::Error { passing: true, message }) };
        }
        unknown.extend_from_slice(&rows.unknown);
        let mut told = tell(&batch, &verdicts, &mut unknown);
        if !rows.defined.is_empty() {
            let mut handles = vec![None; batch.series().len()];
            for (row, handle) in learned {
                if let Some(place) = handles.get_mut(row as usize) {
                    *place = Some(handle);
                }
            }
            for (at, (row, slot)) in rows.defined.iter().enumerate() {
                let meaning =
                    handles[*row as usize].map(|handle| (batch.series()[*row as usize].hash, handle));
                if !meaning.is_some_and(|meaning| self.slots.set(epoch, *slot, meaning)) {
                    told.forgotten.push(at as u32);
                }
            }
        }
        self.decoder.reuse(batch);
        Reply { id, result: Ok(told) }
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    if closing.wait_for(|closing| *closing).await.is_err() {
        std::future::pending().await
    }
}

/// Verdicts row by row; `unknown` rows have none.
fn tell(batch: &WriteBatch, verdicts: &[Verdict], unknown: &mut [u32]) -> Told {
    let mut told = Told::default();
    if unknown.is_empty() && verdicts.iter().all(|verdict| *verdict == Verdict::Stored) {
        return told;
    }
    unknown.sort_unstable();
    for (row, series) in batch.series().iter().enumerate() {
        let is_unknown = unknown.binary_search(&(row as u32)).is_ok();
        for range in batch.verdicts_of(series) {
            if is_unknown {
                told.push(None, range.len() as u32);
                continue;
            }
            verdicts[range].iter().for_each(|verdict| told.push(Some(*verdict), 1));
        }
    }
    told
}

impl StreamingService<Bytes> for PeerServer {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let (replies, told) = mpsc::channel(REPLIES);
            tokio::spawn(drive(inner, request.into_inner(), replies));
            Ok(Response::new(ReceiverStream::new(told)))
        })
    }
}

impl Method for PeerServer {
    const NAME: &'static str = SERVICE;
    const PATH: &'static str = PATH;

    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let max = self.inner.frame_bytes();
        let mut grpc = Grpc::new(RawCodec).apply_max_message_size_config(Some(max), Some(MAX_MESSAGE));
        Ok(grpc.streaming(self, request).await)
    }
}
