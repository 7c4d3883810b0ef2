//! Serves `thanos.Store` and `thanos.info.Info` from the views of a [`StoreBackend`].
//!
//! A Series call takes a permit, runs on a blocking thread and fills a bounded channel; the connection
//! drains it. A caller who leaves raises the call's cancel flag, which the thread looks at for every series.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::Stream;
use model::{Kind, TimeRange};
use runtime::World;
use storage::{Budget, Context, Error, LabelRequest, Merge, PartialResponse, SelectRequest, SeriesSet};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use wire::pb::thanos::{self as pb, info};

use super::frames::{self, Frames};
use super::labels::Listing;
use super::shape::{self, Shape, Streamed};
use super::shown;
use super::{StoreBackend, StoreView};
use crate::call::{self, CallBudget, RaiseOnDrop, partial_of};
use crate::{INCARNATION_METADATA, NodeInfo, RING_EPOCH_METADATA, convert, status_from_error};

/// How much a store gives, and to how many at once.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Calls that are worked on at the same time; the others wait.
    pub max_concurrent: usize,
    /// Series per request; 0 means all (`--store.limits.request-series`).
    pub max_series: u64,
    /// Chunks per request; 0 means all. Thanos counts `--store.limits.request-samples` as this times 120.
    pub max_chunks: u64,
    /// Bytes that requests may hold while they sort.
    pub budget: CallBudget,
    /// Frames (of up to a megabyte) that wait for a slow caller before the call does.
    pub frames_ahead: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            max_concurrent: 20,
            max_series: 0,
            max_chunks: 0,
            budget: Budget::unlimited().into(),
            frames_ahead: 4,
        }
    }
}

/// The gRPC face of a backend. Cheap to clone.
#[derive(Clone)]
pub struct StoreServer {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn StoreBackend>,
    options: StoreOptions,
    world: World,
    permits: Arc<Semaphore>,
}

impl StoreServer {
    pub fn new(backend: Arc<dyn StoreBackend>, options: StoreOptions, world: World) -> StoreServer {
        let permits = Arc::new(Semaphore::new(options.max_concurrent.max(1)));
        StoreServer { inner: Arc::new(Inner { backend, options, world, permits }) }
    }

    /// The node as of now, which goes with the answer; an error where the store is not ready.
    fn require_ready(&self) -> Result<Option<NodeInfo>, Status> {
        let advertised = self.inner.backend.advertised();
        if advertised.ready {
            return Ok(advertised.node);
        }
        Err(status_from_error(&Error::new(Kind::Unavailable, "store is not ready")))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permits = self.inner.permits.clone();
        permits.acquire_owned().await.map_err(|_| Status::unavailable("store is shutting down"))
    }

    fn context(&self, metadata: &MetadataMap, partial: PartialResponse) -> Context {
        let inner = &self.inner;
        call::context(metadata, inner.world.clock.monotonic(), &inner.options.budget, partial)
    }

    /// Runs `work` on a blocking thread, raising its cancel flag when the caller leaves.
    async fn list<R: Send + 'static>(
        &self,
        context: Context,
        work: impl FnOnce(&dyn StoreBackend, &Context) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Status> {
        let permit = self.permit().await?;
        let guard = RaiseOnDrop(context.cancel.clone());
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&*inner.backend, &context)
        });
        let result = done.await.map_err(|error| Status::internal(format!("listing labels: {error}")))?;
        drop(guard);
        result.map_err(|error| status_from_error(&error))
    }
}

type Frame = Result<pb::SeriesResponse, Status>;

impl Inner {
    /// Fills `out` with the answer; runs on a blocking thread.
    fn series(
        &self,
        request: pb::SeriesRequest,
        tenant: Option<&str>,
        context: &Context,
        out: &mpsc::Sender<Frame>,
    ) {
        let result = self.write_series(&request, tenant, context, &mut |frame| {
            out.blocking_send(Ok(frame)).map_err(|_| Error::new(Kind::Refused, "the caller left"))
        });
        if let Err(error) = result {
            tracing::debug!(error = %error, "series call ended early");
            // Nobody is told when nobody is left.
            let _ = out.blocking_send(Err(status_from_error(&error)));
        }
    }

    fn write_series(
        &self,
        request: &pb::SeriesRequest,
        tenant: Option<&str>,
        context: &Context,
        emit: &mut impl FnMut(pb::SeriesResponse) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let range = TimeRange::new(request.min_time, request.max_time);
        let matchers = convert::matchers_from_pb(&request.matchers)?;
        shape::require_matchers(&matchers)?;
        if let Some(wanted) = shown::asked(request)?
            && let Some(ids) = self.backend.blocks()
        {
            return emit(shown::named(&ids, &wanted));
        }
        let mut sources = Vec::new();
        for view in self.backend.views_for(tenant, range, &matchers)? {
            let Some(left) = shape::strip_external(&view.labels, &matchers) else { continue };
            shape::require_matchers(&left)?;
            if view.range.overlaps(&range) {
                sources.push(self.source(view, left, request, context)?);
            }
        }
        let mut merged = Merge::new(sources);
        let mut frames = Frames::new(request.response_batch_size);
        let limit = u64::try_from(request.limit).unwrap_or(0);
        let (mut series, mut chunks) = (0u64, 0u64);
        while let Some(entry) = merged.next()? {
            self.check(context)?;
            series += 1;
            chunks += entry.chunks.len() as u64;
            self.check_limits(series, chunks)?;
            frames.push(&entry, emit)?;
            if limit > 0 && series >= limit {
                break;
            }
        }
        frames.flush(emit)?;
        for text in merged.notes().warnings {
            emit(frames::warning(text))?;
        }
        Ok(())
    }

    fn check(&self, context: &Context) -> Result<(), Error> {
        context.cancel.check(self.world.clock.monotonic())
    }

    fn check_limits(&self, series: u64, chunks: u64) -> Result<(), Error> {
        let over = |what: &str, used: u64, limit: u64| {
            let message = format!("exceeded {what} limit: limit {limit}, got {used}; select fewer series");
            (limit > 0 && used > limit).then(|| Error::new(Kind::Exhausted, message))
        };
        match over("series", series, self.options.max_series) {
            Some(error) => Err(error),
            None => over("chunks", chunks, self.options.max_chunks).map_or(Ok(()), Err),
        }
    }

    /// One view's series as they are to be sent.
    fn source(
        &self,
        view: StoreView,
        matchers: Vec<model::Matcher>,
        request: &pb::SeriesRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, Error> {
        let without = &request.without_replica_labels;
        let shape = Shape::new(&view.labels, without, request.shard_info.as_ref());
        let mut select = SelectRequest::new(TimeRange::new(request.min_time, request.max_time), matchers);
        select.skip_chunks = request.skip_chunks;
        select.hints = hints_of(request);
        // The replica labels are removed here, not below.
        let mut loses_labels = false;
        for name in shape.dropped() {
            let any = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 1 };
            if !view.select.label_values(name, &any, context)?.values.is_empty() {
                loses_labels = true;
                break;
            }
        }
        if !loses_labels && request.shard_info.is_none() {
            select.limit = usize::try_from(request.limit).unwrap_or(0);
        }
        let set = view.select.select(&select, context)?;
        if loses_labels {
            return shape::sorted(set, &shape, &context.budget, || self.check(context));
        }
        Ok(Box::new(Streamed::new(set, shape)))
    }
}

fn hints_of(request: &pb::SeriesRequest) -> storage::Hints {
    let hints = request.query_hints.clone().unwrap_or_default();
    let grouping = hints.grouping.unwrap_or_default();
    storage::Hints {
        step: hints.step_millis,
        function: hints.func.unwrap_or_default().name,
        range: hints.range.unwrap_or_default().millis,
        grouping: grouping.labels,
        by: grouping.by,
        max_resolution: request.max_resolution_window,
        without_labels: Vec::new(),
    }
}

/// The answer to one Series call; dropping it ends the work.
pub struct SeriesStream {
    frames: mpsc::Receiver<Frame>,
    _guard: RaiseOnDrop,
}

impl Stream for SeriesStream {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Frame>> {
        self.frames.poll_recv(cx)
    }
}

#[tonic::async_trait]
impl pb::store_server::Store for StoreServer {
    type SeriesStream = SeriesStream;

    async fn series(&self, request: Request<pb::SeriesRequest>) -> Result<Response<SeriesStream>, Status> {
        let node = self.require_ready()?;
        let body = request.get_ref();
        #[allow(deprecated)] // Older askers still say it this way.
        let partial = partial_of(body.partial_response_disabled, body.partial_response_strategy);
        let context = self.context(request.metadata(), partial);
        let guard = RaiseOnDrop(context.cancel.clone());
        let permit = self.permit().await?;
        let (sender, frames) = mpsc::channel(self.inner.options.frames_ahead.max(1));
        let tenant = call::tenant_of(request.metadata());
        let (inner, body) = (self.inner.clone(), request.into_inner());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            inner.series(body, tenant.as_deref(), &context, &sender);
        });
        Ok(as_of(node, SeriesStream { frames, _guard: guard }))
    }

    async fn label_names(
        &self,
        request: Request<pb::LabelNamesRequest>,
    ) -> Result<Response<pb::LabelNamesResponse>, Status> {
        let node = self.require_ready()?;
        let body = request.get_ref();
        let partial = partial_of(body.partial_response_disabled, body.partial_response_strategy);
        let context = self.context(request.metadata(), partial);
        let tenant = call::tenant_of(request.metadata());
        let body = request.into_inner();
        let listed = self.list(context, move |backend, context| {
            listing(body.start, body.end, &body.matchers, body.without_replica_labels, body.limit, tenant)?
                .names(backend, context)
        });
        let listed = listed.await?;
        let (names, warnings) = (listed.values, listed.notes.warnings);
        Ok(as_of(node, pb::LabelNamesResponse { names, warnings, hints: None }))
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelValuesRequest>,
    ) -> Result<Response<pb::LabelValuesResponse>, Status> {
        let node = self.require_ready()?;
        let body = request.get_ref();
        if body.label.is_empty() {
            return Err(Status::invalid_argument("label name parameter cannot be empty"));
        }
        let partial = partial_of(body.partial_response_disabled, body.partial_response_strategy);
        let context = self.context(request.metadata(), partial);
        let tenant = call::tenant_of(request.metadata());
        let body = request.into_inner();
        let listed = self.list(context, move |backend, context| {
            listing(body.start, body.end, &body.matchers, body.without_replica_labels, body.limit, tenant)?
                .values(&body.label, backend, context)
        });
        let listed = listed.await?;
        let (values, warnings) = (listed.values, listed.notes.warnings);
        Ok(as_of(node, pb::LabelValuesResponse { values, warnings, hints: None }))
    }
}

/// An answer of a node of this ring epoch and log: who asked by an older epoch asked too few, who counts on another log has
/// heard nothing of it.
fn as_of<T>(node: Option<NodeInfo>, answer: T) -> Response<T> {
    let mut answer = Response::new(answer);
    let Some(node) = node else { return answer };
    if node.ring_epoch > 0 {
        answer.metadata_mut().insert(RING_EPOCH_METADATA, node.ring_epoch.into());
    }
    if let Some(log) = node.incarnation.parse().ok().filter(|_| !node.incarnation.is_empty()) {
        answer.metadata_mut().insert(INCARNATION_METADATA, log);
    }
    answer
}

fn listing(
    start: i64,
    end: i64,
    matchers: &[pb::LabelMatcher],
    without: Vec<String>,
    limit: i64,
    tenant: Option<String>,
) -> Result<Listing, Error> {
    Ok(Listing {
        range: TimeRange::new(start, end),
        matchers: convert::matchers_from_pb(matchers)?,
        without,
        limit: usize::try_from(limit).unwrap_or(0),
        tenant,
    })
}

#[tonic::async_trait]
impl info::info_server::Info for StoreServer {
    async fn info(&self, _: Request<info::InfoRequest>) -> Result<Response<info::InfoResponse>, Status> {
        Ok(Response::new(self.inner.backend.advertised().to_pb()))
    }
}
