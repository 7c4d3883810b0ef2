//! `POST /api/v1/read`: Prometheus's remote read, as samples in one message or as chunks in a stream of frames.
//!
//! The body is bounded before memory is taken for it ([`request`]); evaluation is one selection per query, on the
//! query pool. Samples are collected, because their compression needs the whole ([`samples`]); chunks leave as
//! they are read, a few frames ahead of the client ([`chunks`]). Failures are plain text, as clients of this
//! protocol expect.

mod chunks;
mod points;
mod request;
mod samples;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{StatusCode, header};
use model::Labels;
use storage::{Cancel, Reservation};
use tokio::sync::mpsc;
use wire::pb::prometheus::Label;

use super::{ApiState, ReadParams};
use crate::params::Params;
use crate::{ErrorType, Problem};
use request::{Answer, ReadQuery};

/// Largest body, as it is sent and decompressed.
const MAX_BYTES: usize = 32 << 20;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames that are ready before the client has taken them.
const FRAMES_AHEAD: usize = 4;
/// Bytes that are sent at a time.
const PIECE: usize = 64 << 10;

/// Bytes to be sent, with their share of the query's budget.
type Held = (Bytes, Reservation);

pub(super) async fn read(State(api): State<ApiState>, request: Request) -> Response {
    match answer(&api, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_text(),
    }
}

async fn answer(api: &ApiState, request: Request) -> Result<Response, Problem> {
    api.ready()?;
    let (head, body) = request.into_parts();
    let params = Params::parse(b"", head.uri.query().unwrap_or("").as_bytes())?;
    let read = api.read_params(&head.headers, &params, None)?;
    let body = match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            return Err(Problem::bad_data(format!(
                "cannot read the body: {error} (a read request may have {MAX_BYTES} bytes)"
            )));
        }
        Err(_) => return Err(Problem::bad_data("the body did not arrive in time")),
    };
    let (queries, answer) = request::parse(&body)?;
    drop(body);
    match answer {
        Answer::Samples => all_samples(api, read, queries).await,
        Answer::Chunks => stream_of_chunks(api, read, queries).await,
    }
}

async fn all_samples(api: &ApiState, read: ReadParams, queries: Vec<ReadQuery>) -> Result<Response, Problem> {
    let context = api.context(None, &read);
    let select = api.inner.queryable.select_for(&read)?;
    let (cancel, pool) = (context.cancel.clone(), &api.inner.pool);
    let party = read.tenant.as_deref().unwrap_or("");
    let clock = pool.clone();
    let work = move || samples::collect(&queries, &*select, &context, &|| clock.now());
    let (bytes, held) =
        pool.run(&cancel, party, work).await?.value.map_err(|e| e.problem(&cancel, pool.now()))?;
    let head = [
        (header::CONTENT_TYPE, "application/x-protobuf".to_owned()),
        (header::CONTENT_ENCODING, "snappy".to_owned()),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
    ];
    // A slow client holds the answer for longer than it took to make it.
    let pieces = stream::iter(Pieces { rest: bytes, _held: held });
    Ok((StatusCode::OK, head, Body::from_stream(pieces)).into_response())
}

struct Pieces {
    rest: Bytes,
    _held: Reservation,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        (!piece.is_empty()).then_some(Ok(piece))
    }
}

async fn stream_of_chunks(
    api: &ApiState,
    read: ReadParams,
    queries: Vec<ReadQuery>,
) -> Result<Response, Problem> {
    let context = api.context(None, &read);
    let select = api.inner.queryable.select_for(&read)?;
    let (cancel, pool) = (context.cancel.clone(), api.inner.pool.clone());
    let (frames, taken) = mpsc::channel::<Result<Held, Problem>>(FRAMES_AHEAD);
    let mut taken = Frames { taken, _guard: RaiseOnDrop(cancel.clone()) };
    let party = read.tenant.clone().unwrap_or_default();
    let runtime = tokio::runtime::Handle::current();
    tokio::spawn(async move {
        let (out, clock, by) = (frames.clone(), pool.clone(), cancel.clone());
        let work = move || {
            // The thread waits for the client no longer than for anything else.
            let send = |frame: Held| -> Result<(), Problem> {
                let left = by.deadline().map_or(Duration::MAX, |d| d.saturating_duration_since(clock.now()));
                match runtime.block_on(tokio::time::timeout(left, out.send(Ok(frame)))) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(Problem::new(ErrorType::Canceled, "query was canceled")),
                    Err(_) => Err(Problem::new(ErrorType::Timeout, "query timed out in sending its answer")),
                }
            };
            chunks::send_all(&queries, &*select, &context, &|| clock.now(), send)
        };
        let ended = match pool.run(&cancel, &party, work).await {
            Ok(ran) => ran.value.map_err(|error| error.problem(&cancel, pool.now())),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = ended {
            // Nobody listens if the client has left.
            let _ = frames.send(Err(problem)).await;
        }
    });
    // What fails before the first frame has a status of its own; later only breaking off is left.
    let first = match taken.taken.recv().await {
        Some(Err(problem)) => return Err(problem),
        Some(Ok((bytes, _))) => Some(Ok(bytes)),
        None => None,
    };
    let rest = stream::unfold(taken, |mut taken| async move {
        let next = taken.taken.recv().await?;
        if let Err(problem) = &next {
            tracing::warn!(error = %problem, "a remote read broke off after its first frames");
        }
        Some((next.map(|(bytes, _)| bytes), taken))
    });
    let body = Body::from_stream(futures::StreamExt::chain(stream::iter(first), rest));
    let head =
        [(header::CONTENT_TYPE, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")];
    Ok((StatusCode::OK, head, body).into_response())
}

/// The client's end; dropped with the body, it ends the query.
struct Frames {
    taken: mpsc::Receiver<Result<Held, Problem>>,
    _guard: RaiseOnDrop,
}

struct RaiseOnDrop(Cancel);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// Why a read could not be answered: the storage's reason, or ours.
enum Failure {
    Storage(storage::Error),
    Own(Problem),
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Failure {
        Failure::Storage(error)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Own(problem)
    }
}

impl Failure {
    fn problem(self, cancel: &Cancel, now: std::time::Instant) -> Problem {
        match self {
            Failure::Storage(e) => Problem::of_query(e.kind, e.message, cancel, now),
            Failure::Own(problem) => problem,
        }
    }
}

fn labels(labels: &Labels) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect()
}
