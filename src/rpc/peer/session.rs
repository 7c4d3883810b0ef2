//! The sender's end of a stream: sends requests, and gives each its reply, in whatever order they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;
use runtime::{ByteGate, World};
use storage::Verdict;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::frame::{self, GOODBYE, REPLY, RING_EPOCHS, VERSION};
use super::names::{Given, Names};
use super::reply::{Fault, Reply, Told};
use super::request::{Encoder, Head, RowRef};
use super::{Hello, PATH, PeerOptions, Welcome};
use crate::channel::MAX_MESSAGE;
use crate::write::codec::RawCodec;
use crate::write::{StaleEpoch, WriteCall};

/// What became of opening a stream.
pub(crate) enum Opened {
    Stream(Arc<Session>),
    /// The peer speaks, but not in frames, and why.
    Plain(String),
    /// No connection.
    Failed(Status),
}

/// Why a request has no verdicts.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The stream ended; the samples may be stored.
    Ended(String),
    /// No reply in time; the samples may be stored.
    TimedOut,
    /// Nothing was judged; a retry can help.
    Passing(String),
    /// Nothing was judged: the write is to be placed by another ring.
    Stale(StaleEpoch),
    /// The request is nothing for this stream, and why.
    Unfit(String),
}

/// A stream to one peer.
pub(crate) struct Session {
    world: World,
    welcome: Welcome,
    inflight: ByteGate,
    next: AtomicU64,
    is_open: AtomicBool,
    /// None once nothing may be sent any more.
    out: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    waiting: Mutex<Waiting>,
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<Reply>>,
    /// Why the stream has ended.
    ended: Option<String>,
}

struct Writing {
    names: Names,
    encoder: Encoder,
    refs: Vec<RowRef>,
}

/// Stops waiting when it is dropped.
struct Wait<'a>(&'a Session, u64);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().replies.remove(&self.1);
    }
}

impl Session {
    /// Opens a stream on a channel; what it needs goes on by itself on the current runtime.
    pub(crate) async fn open(
        channel: Channel,
        door: &str,
        options: PeerOptions,
        world: &World,
        patience: Duration,
    ) -> Opened {
        let (out, frames) = mpsc::unbounded_channel();
        let hello = Hello { lowest: 1, highest: VERSION, features: RING_EPOCHS, door: door.to_owned() };
        // The other end is in this function's hands.
        let _ = out.send(Bytes::from(hello.encode()));
        let opening = async {
            let mut grpc = tonic::client::Grpc::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            grpc.ready().await.map_err(|error| Status::unavailable(format!("not connected: {error}")))?;
            let request = Request::new(UnboundedReceiverStream::new(frames));
            let response = grpc.streaming(request, PathAndQuery::from_static(PATH), RawCodec).await?;
            let mut inbound = response.into_inner();
            Ok((inbound.message().await?, inbound))
        };
        let (first, inbound): (Option<Bytes>, Streaming<Bytes>) =
            match tokio::time::timeout(patience, opening).await {
                Ok(Ok(opened)) => opened,
                Ok(Err(status)) => return of_status(status),
                // Whoever lets a stream hang may still answer single calls.
                Err(_) => return Opened::Plain("no answer to a stream in time".to_owned()),
            };
        let welcome = match first.as_deref().map(Welcome::decode) {
            Some(Ok(welcome)) if welcome.version > 0 => welcome,
            Some(Ok(_)) => return Opened::Plain("no version in common".to_owned()),
            Some(Err(error)) => return Opened::Plain(error.to_string()),
            None => return Opened::Plain("the stream ended at once".to_owned()),
        };
        let names = Names::new(welcome.names.min(options.names), world.clock.monotonic());
        let inflight = welcome.inflight_bytes.min(options.inflight_bytes);
        let session = Arc::new(Session {
            world: world.clone(),
            inflight: ByteGate::new(inflight.into()),
            welcome,
            next: AtomicU64::new(0),
            is_open: AtomicBool::new(true),
            out: Mutex::new(Some(out)),
            waiting: Mutex::default(),
            writing: Mutex::new(Writing { names, encoder: Encoder::default(), refs: Vec::new() }),
        });
        counter!("tributary_peer_streams_total", "direction" => "out").increment(1);
        tokio::spawn(listen(Arc::clone(&session), inbound));
        Opened::Stream(session)
    }

    /// Whether it takes requests.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// Names in use.
    pub(crate) fn names(&self) -> usize {
        self.writing.lock().names.len()
    }

    /// Sends and answers with a verdict for each sample of the call's rows, in order.
    pub(crate) async fn write(&self, call: &WriteCall, limit: Duration) -> Result<Vec<Verdict>, Failed> {
        if call.ring_epoch > 0 && self.welcome.features & RING_EPOCHS == 0 {
            return Err(Failed::Unfit("the peer's frames know no ring epochs".to_owned()));
        }
        let deadline = Instant::now() + limit;
        let told = self.exchange(call, &call.rows, deadline).await?;
        let mut verdicts = Vec::new();
        let count = samples_of(call, &call.rows);
        if told.runs.is_empty() {
            verdicts.resize(count, Verdict::Stored);
            return Ok(verdicts);
        }
        let unknown = expand(&told, count, &mut verdicts)?;
        if unknown {
            let (rows, places) = unknown_rows(call, &told);
            counter!("tributary_peer_unknown_rows_total").increment(rows.len() as u64);
            self.forget(call, &rows);
            // What is not known a second time is not stored: those verdicts are there already.
            let again = self.exchange(call, &rows, deadline).await?;
            let mut later = Vec::new();
            match again.runs.is_empty() {
                true => later.resize(places.len(), Verdict::Stored),
                false => drop(expand(&again, places.len(), &mut later)?),
            }
            for (place, verdict) in places.into_iter().zip(later) {
                verdicts[place] = verdict;
            }
        }
        Ok(verdicts)
    }

    fn forget(&self, call: &WriteCall, rows: &[u32]) {
        let names = &mut self.writing.lock().names;
        let epoch = names.epoch();
        rows.iter().filter_map(|row| call.batch.name_of(*row)).for_each(|name| names.forget(epoch, name));
    }

    async fn exchange(&self, call: &WriteCall, rows: &[u32], deadline: Instant) -> Result<Told, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failed::TimedOut);
        }
        let id = self.next.fetch_add(1, Relaxed);
        let (frame, given) = self.encode(call, rows, id, left);
        if frame.len() > self.welcome.frame_bytes as usize {
            self.writing.lock().names.withdraw(&given);
            return Err(Failed::Unfit(format!(
                "a frame of {} bytes is longer than the peer takes",
                frame.len()
            )));
        }
        let permit = match timeout_at(deadline, self.inflight.acquire(frame.len() as u64)).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(never)) => {
                self.writing.lock().names.withdraw(&given);
                return Err(Failed::Unfit(never.to_string()));
            }
            Err(_) => {
                self.writing.lock().names.withdraw(&given);
                return Err(Failed::TimedOut);
            }
        };
        let (told, reply) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if let Some(why) = &waiting.ended {
                return Err(Failed::Ended(why.clone()));
            }
            waiting.replies.insert(id, told);
        }
        let _wait = Wait(self, id);
        counter!("tributary_peer_frames_total", "direction" => "out").increment(1);
        counter!("tributary_peer_bytes_total", "direction" => "out").increment(frame.len() as u64);
        let sent = self.out.lock().as_ref().is_some_and(|out| out.send(frame.into()).is_ok());
        if !sent {
            return Err(Failed::Passing(
                "the stream is being ended; the next write opens another".to_owned(),
            ));
        }
        let reply = match timeout_at(deadline, reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                let why = self.waiting.lock().ended.clone();
                return Err(Failed::Ended(why.unwrap_or_else(|| "the stream ended".to_owned())));
            }
            Err(_) => return Err(Failed::TimedOut),
        };
        drop(permit);
        let names = &mut self.writing.lock().names;
        match reply.result {
            Ok(told) => {
                names.confirm(&given, &told.forgotten);
                Ok(told)
            }
            // The peer gives up as its sender does, and its word can come first all the same.
            Err(Fault::Error { passing: true, .. }) if Instant::now() >= deadline => {
                names.withdraw(&given);
                Err(Failed::TimedOut)
            }
            Err(fault) => {
                names.withdraw(&given);
                Err(match fault {
                    Fault::Error { passing: true, message } => Failed::Passing(message),
                    Fault::Error { passing: false, message } => Failed::Unfit(message),
                    Fault::Stale(stale) => Failed::Stale(stale),
                })
            }
        }
    }

    fn encode(&self, call: &WriteCall, rows: &[u32], id: u64, left: Duration) -> (Vec<u8>, Given) {
        let mut writing = self.writing.lock();
        let Writing { names, encoder, refs } = &mut *writing;
        if names.turn(self.world.clock.monotonic()) {
            counter!("tributary_peer_dictionary_resets_total", "direction" => "out").increment(1);
        }
        let mut given = Given { epoch: names.epoch(), ..Given::default() };
        refs.clear();
        refs.extend(rows.iter().map(|row| names.refer(call.batch.name_of(*row), &mut given)));
        let known = refs.iter().filter(|name| matches!(name, RowRef::Known(_))).count();
        counter!("tributary_peer_rows_total", "by" => "name").increment(known as u64);
        counter!("tributary_peer_rows_total", "by" => "labels").increment((refs.len() - known) as u64);
        let head = Head {
            id,
            epoch: names.epoch(),
            // Not before the sender: what its peer says afterwards is about time.
            deadline_ms: u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX),
            replica: call.replica,
            judged_at: call.judged_at,
            tenant: call.tenant.clone(),
            ring_epoch: call.ring_epoch,
        };
        let mut frame = Vec::with_capacity(64 + 10 * rows.len());
        encoder.encode(&head, &call.batch, rows, refs, &mut frame);
        (frame, given)
    }

    fn end(&self, why: String) {
        self.is_open.store(false, Relaxed);
        *self.out.lock() = None;
        let mut waiting = self.waiting.lock();
        waiting.ended.get_or_insert(why);
        // Whoever waits hears of it.
        waiting.replies.clear();
    }
}

fn of_status(status: Status) -> Opened {
    // Our own connection, or a peer that cannot take anything now.
    let kind = crate::error_from_status("", &status).kind;
    if kind == model::Kind::Unavailable {
        Opened::Failed(status)
    } else {
        Opened::Plain(status.message().to_owned())
    }
}

/// Gives replies to those who wait for them, until the stream ends.
async fn listen(session: Arc<Session>, mut inbound: Streaming<Bytes>) {
    let why = loop {
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break "the peer has ended the stream".to_owned(),
            Err(status) => break format!("{} ({:?})", status.message(), status.code()),
        };
        counter!("tributary_peer_frames_total", "direction" => "in").increment(1);
        counter!("tributary_peer_bytes_total", "direction" => "in").increment(message.len() as u64);
        match frame::open(&message) {
            Ok((REPLY, body)) => match Reply::decode(body) {
                Ok(reply) => {
                    let waits = session.waiting.lock().replies.remove(&reply.id);
                    // Nobody waits for a reply that comes too late.
                    if let Some(waits) = waits {
                        let _ = waits.send(reply);
                    }
                }
                Err(error) => break error.to_string(),
            },
            Ok((GOODBYE, _)) => {
                session.is_open.store(false, Relaxed);
                // The peer answers what was sent, then ends the stream.
                *session.out.lock() = None;
            }
            Ok((kind, _)) => tracing::debug!(kind, "a frame of a later version is passed over"),
            Err(error) => break error.to_string(),
        }
    };
    session.end(why);
}

fn samples_of(call: &WriteCall, rows: &[u32]) -> usize {
    let series = rows.iter().filter_map(|row| call.batch.series().get(*row as usize));
    series.flat_map(|series| call.batch.verdicts_of(series)).map(|range| range.len()).sum()
}

/// Runs as verdicts, unknown ones as not possible now. True if there are some.
fn expand(told: &Told, count: usize, verdicts: &mut Vec<Verdict>) -> Result<bool, Failed> {
    let total: u64 = told.runs.iter().map(|(_, count)| u64::from(*count)).sum();
    if total != count as u64 {
        return Err(Failed::Unfit(format!("{total} verdicts for {count} samples")));
    }
    let mut unknown = false;
    for (verdict, count) in &told.runs {
        unknown |= verdict.is_none();
        verdicts.extend(std::iter::repeat_n(verdict.unwrap_or(Verdict::Unavailable), *count as usize));
    }
    Ok(unknown)
}

/// Rows whose samples have no verdicts, and where these belong.
fn unknown_rows(call: &WriteCall, told: &Told) -> (Vec<u32>, Vec<usize>) {
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    let mut runs =
        told.runs.iter().flat_map(|(verdict, count)| std::iter::repeat_n(verdict.is_none(), *count as usize));
    let mut at = 0;
    for row in &call.rows {
        let Some(series) = call.batch.series().get(*row as usize) else { continue };
        let samples: usize = call.batch.verdicts_of(series).iter().map(|range| range.len()).sum();
        let mut unknown = false;
        for place in at..at + samples {
            if runs.next() == Some(true) {
                unknown = true;
                places.push(place);
            }
        }
        at += samples;
        if unknown {
            rows.push(*row);
        }
    }
    (rows, places)
}
