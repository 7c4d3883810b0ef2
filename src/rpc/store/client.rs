//! A peer's series: `thanos.Store` and Info of another process as a [`Select`].
//!
//! A select starts a task on the runtime that was given at construction; the task reads frames into a bounded
//! channel, and the caller's thread takes series out of it. Dropping the set ends the call on the peer. The
//! wait for each frame is bounded, and the query's cancel flag and deadline are looked at while waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::Kind;
use parking_lot::Mutex;
use runtime::World;
use storage::{
    Context, Error, LabelRequest, Listed, Notes, PartialResponse, Select, SelectRequest, SeriesEntry,
    SeriesSet,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use wire::pb::thanos as pb;
use wire::pb::thanos::info::{InfoRequest, info_client::InfoClient};
use wire::pb::thanos::series_response::Result as Frame;
use wire::pb::thanos::store_client::StoreClient as PbStoreClient;

use super::answer::{self, Item, Part, PeerSeries, PeerSet, Watch};
use crate::call::strategy;
use crate::channel::{self, ClientOptions, MAX_MESSAGE};
use crate::metrics::{self, Method};
use crate::{
    INCARNATION_METADATA, PeerInfo, RING_EPOCH_METADATA, TENANT_METADATA, convert, error_from_status,
};

/// Series per batch that we ask for, as Thanos's queriers do.
const BATCH_SIZE: i64 = 64;
/// Frames read ahead of the caller.
const FRAMES_AHEAD: usize = 4;
/// How soon a raised flag is seen while a peer is silent.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A peer that answers for series. Cheap to clone.
#[derive(Clone)]
pub struct StoreClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    handle: Handle,
    world: World,
    options: ClientOptions,
    tenant: Option<MetadataValue<Ascii>>,
    /// What Info said last: where not, labels are removed here.
    strips: AtomicBool,
    /// The ring epoch that it spoke of last, 0 where it has none.
    ring_epoch: AtomicU64,
    /// The log that its last answer was of.
    incarnation: Mutex<Option<String>>,
}

impl StoreClient {
    /// A client of `address` (`host:port`); connects on first use. Its tasks run on `handle`, whose threads
    /// must not be the ones that call [`Select`].
    pub fn new(
        address: &str,
        options: ClientOptions,
        world: World,
        handle: Handle,
    ) -> Result<StoreClient, Error> {
        let channel = channel::lazy(address, &options, &handle)?;
        let tenant = match &options.tenant {
            None => None,
            Some(tenant) => Some(tenant.parse().map_err(|error| {
                Error::with_source(Kind::Invalid, format!("tenant {tenant:?} cannot be sent"), error)
            })?),
        };
        let address = address.to_owned();
        let strips = AtomicBool::new(true);
        Ok(StoreClient {
            inner: Arc::new(Inner {
                address,
                channel,
                handle,
                world,
                options,
                tenant,
                strips,
                ring_epoch: AtomicU64::new(0),
                incarnation: Mutex::default(),
            }),
        })
    }

    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// The ring epoch before which the peer takes no writes, as its last answers have it: before the first frame of a Series
    /// call is read it is that of the call.
    pub fn ring_epoch(&self) -> u64 {
        self.inner.ring_epoch.load(Relaxed)
    }

    /// The log that the peer's last answer was of, as [`StoreClient::ring_epoch`]; none where it has not said so.
    pub fn incarnation(&self) -> Option<String> {
        self.inner.incarnation.lock().clone()
    }

    /// What the peer says of itself.
    pub async fn info(&self) -> Result<PeerInfo, Error> {
        let inner = &self.inner;
        let mut client = InfoClient::new(inner.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let answer = inner.within(metrics::INFO, client.info(inner.request(InfoRequest {}))).await?;
        let info = PeerInfo::from_pb(answer)?;
        // A cluster that was restored begins at an earlier one again.
        inner.ring_epoch.store(info.node.as_ref().map_or(0, |node| node.ring_epoch), Relaxed);
        // While it starts it does not know.
        if let Some(node) = info.node.as_ref().filter(|node| !node.incarnation.is_empty()) {
            inner.heard_of(&node.incarnation);
        }
        if let Some(store) = &info.store {
            inner.strips.store(store.strips_replica_labels, Relaxed);
        }
        Ok(info)
    }
}

impl Inner {
    pub(crate) fn client(&self) -> PbStoreClient<Channel> {
        PbStoreClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT_METADATA, tenant.clone());
        }
        request
    }

    fn heard_of(&self, log: &str) {
        let mut known = self.incarnation.lock();
        if known.as_deref() != Some(log) {
            *known = Some(log.to_owned());
        }
    }

    fn failed(&self, status: &Status) -> Error {
        error_from_status(&self.address, status)
    }

    fn too_slow(&self, limit: Duration) -> Error {
        let message = format!("{}: no answer within {limit:?}; is it overloaded?", self.address);
        Error::new(Kind::Unavailable, message)
    }

    pub(crate) async fn within<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        let answer = match self.options.response_timeout {
            None => Ok(call.await),
            Some(limit) => tokio::time::timeout(limit, call).await.map_err(|_| limit),
        };
        let code = match &answer {
            Ok(Ok(_)) => Code::Ok,
            Ok(Err(status)) => status.code(),
            Err(_) => Code::DeadlineExceeded,
        };
        // A stream that begins well is counted when it ends.
        if !method.streams() || code != Code::Ok {
            metrics::client_handled(method, code);
        }
        let answer = answer.map_err(|limit| self.too_slow(limit))?;
        let answer = answer.map_err(|status| self.failed(&status))?;
        let epoch =
            answer.metadata().get(RING_EPOCH_METADATA).and_then(|value| value.to_str().ok()?.parse().ok());
        self.ring_epoch.fetch_max(epoch.unwrap_or(0), Relaxed);
        let log = answer.metadata().get(INCARNATION_METADATA).and_then(|value| value.to_str().ok());
        if let Some(log) = log {
            self.heard_of(log);
        }
        Ok(answer.into_inner())
    }

    /// Waits for `work` while the query is still wanted.
    async fn while_wanted<T>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK_EVERY) => context.cancel.check(self.world.clock.monotonic())?,
            }
        }
    }

    /// Runs `work` on the runtime and waits for it on this thread.
    pub(crate) fn wait<T: Send + 'static>(
        self: &Arc<Self>,
        context: &Context,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let (inner, context) = (self.clone(), context.clone());
        self.handle.spawn(async move {
            // The waiting thread may be gone only if it panicked.
            let _ = sender.send(inner.while_wanted(&context, work).await);
        });
        match receiver.blocking_recv() {
            Ok(result) => result,
            Err(_) => Err(Error::new(Kind::Unavailable, format!("{}: shutting down", self.address))),
        }
    }

    async fn read(
        self: Arc<Self>,
        request: pb::SeriesRequest,
        context: Context,
        out: mpsc::Sender<Item>,
        watch: Watch,
    ) {
        if let Err(error) = self.read_frames(request, &context, &out, &watch).await {
            // Nobody listens where the set was dropped.
            let _ = out.send(Err(error)).await;
        }
        watch.ended();
    }

    async fn read_frames(
        &self,
        request: pb::SeriesRequest,
        context: &Context,
        out: &mpsc::Sender<Item>,
        watch: &Watch,
    ) -> Result<(), Error> {
        let mut client = self.client();
        let call = self.within(metrics::SERIES, client.series(self.request(request)));
        let mut stream: Streaming<pb::SeriesResponse> = tokio::select! {
            () = out.closed() => return Ok(()),
            stream = self.while_wanted(context, call) => stream?,
        };
        loop {
            let frame = tokio::select! {
                () = out.closed() => return Ok(()),
                frame = self.while_wanted(context, self.frame(metrics::SERIES, &mut stream)) => frame?,
            };
            let Some(frame) = frame else {
                metrics::client_handled(metrics::SERIES, Code::Ok);
                return Ok(());
            };
            let mut part = Part::default();
            match frame.result {
                Some(Frame::Series(series)) => part.entries.push(self.entry(series)?),
                Some(Frame::Batch(batch)) => {
                    part.entries.reserve(batch.series.len());
                    for series in batch.series {
                        part.entries.push(self.entry(series)?);
                    }
                }
                Some(Frame::Warning(text)) => part.warning = Some(format!("{}: {text}", self.address)),
                Some(Frame::Hints(_)) | None => continue,
            }
            part.held = Some(context.budget.reserve(part.bytes())?);
            if out.send(Ok(part)).await.is_err() {
                return Ok(());
            }
            watch.arrived();
        }
    }

    /// The next frame of a stream; none at its end.
    pub(crate) async fn frame<T>(
        &self,
        method: Method,
        stream: &mut Streaming<T>,
    ) -> Result<Option<T>, Error> {
        let next = match self.options.response_timeout {
            None => Ok(stream.message().await),
            Some(limit) => tokio::time::timeout(limit, stream.message()).await.map_err(|_| limit),
        };
        match next {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(status)) => {
                metrics::client_handled(method, status.code());
                Err(self.failed(&status))
            }
            Err(limit) => {
                metrics::client_handled(method, Code::DeadlineExceeded);
                Err(self.too_slow(limit))
            }
        }
    }

    fn entry(&self, series: pb::Series) -> Result<SeriesEntry, Error> {
        let named = |error: Error| Error { message: format!("{}: {error}", self.address), ..error };
        let labels = convert::labels_from_pb(&series.labels).map_err(named)?;
        let chunks = series.chunks.into_iter().map(convert::chunk_from_pb).collect::<Result<_, _>>();
        Ok(SeriesEntry { labels, chunks: chunks.map_err(named)? })
    }
}

impl StoreClient {
    /// As [`Select::select`]; the answer can be waited for with a limit.
    pub fn open(&self, request: &SelectRequest, context: &Context) -> Result<PeerSeries, Error> {
        let without = &request.hints.without_labels;
        let strips = without.is_empty() || self.inner.strips.load(Relaxed);
        let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
        let (inner, watch) = (self.inner.clone(), Watch::default());
        let reader =
            inner.clone().read(series_request(request, context), context.clone(), sender, watch.clone());
        inner.handle.spawn(reader);
        let (address, world) = (inner.address.clone(), inner.world.clone());
        let set = PeerSet::new(address, world, inner.handle.clone(), context.clone(), receiver, watch);
        if strips {
            return Ok(PeerSeries::Streamed(Box::new(set)));
        }
        answer::resort(Box::new(set), without, context).map(PeerSeries::Sorted)
    }
}

impl Select for StoreClient {
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        Ok(Box::new(self.open(request, context)?))
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        let body = pb::LabelNamesRequest {
            partial_response_strategy: strategy(context),
            start: request.range.start,
            end: request.range.end,
            matchers: convert::matchers_to_pb(&request.matchers),
            limit: i64::try_from(request.limit).unwrap_or(0),
            ..Default::default()
        };
        let inner = self.inner.clone();
        let work = async move {
            inner.within(metrics::LABEL_NAMES, inner.client().label_names(inner.request(body))).await
        };
        let answer = self.inner.wait(context, work)?;
        Ok(listed(&self.inner.address, answer.names, answer.warnings))
    }

    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        let body = pb::LabelValuesRequest {
            label: name.to_owned(),
            partial_response_strategy: strategy(context),
            start: request.range.start,
            end: request.range.end,
            matchers: convert::matchers_to_pb(&request.matchers),
            limit: i64::try_from(request.limit).unwrap_or(0),
            ..Default::default()
        };
        let inner = self.inner.clone();
        let work = async move {
            inner.within(metrics::LABEL_VALUES, inner.client().label_values(inner.request(body))).await
        };
        let answer = self.inner.wait(context, work)?;
        Ok(listed(&self.inner.address, answer.values, answer.warnings))
    }
}

fn listed(address: &str, mut values: Vec<String>, warnings: Vec<String>) -> Listed {
    // Some stores answer in the order of their own merge.
    values.sort_unstable();
    values.dedup();
    let warnings = warnings.into_iter().map(|text| format!("{address}: {text}")).collect();
    Listed { values, notes: Notes { warnings, infos: Vec::new() } }
}

fn series_request(request: &SelectRequest, context: &Context) -> pb::SeriesRequest {
    let hints = &request.hints;
    let query_hints = pb::QueryHints {
        step_millis: hints.step,
        func: Some(pb::Func { name: hints.function.clone() }),
        grouping: Some(pb::Grouping { by: hints.by, labels: hints.grouping.clone() }),
        range: Some(pb::Range { millis: hints.range }),
        ..Default::default()
    };
    #[allow(deprecated)] // Older stores read the strategy from this flag alone.
    let partial_response_disabled = context.partial == PartialResponse::Abort;
    #[allow(deprecated)]
    pb::SeriesRequest {
        min_time: request.range.start,
        max_time: request.range.end,
        matchers: convert::matchers_to_pb(&request.matchers),
        max_resolution_window: hints.max_resolution,
        aggregates: vec![pb::Aggr::Raw as i32],
        partial_response_disabled,
        partial_response_strategy: strategy(context),
        skip_chunks: request.skip_chunks,
        query_hints: Some(query_hints),
        without_replica_labels: hints.without_labels.clone(),
        limit: i64::try_from(request.limit).unwrap_or(0),
        response_batch_size: BATCH_SIZE,
        ..Default::default()
    }
}
