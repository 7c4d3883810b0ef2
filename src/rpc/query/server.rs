//! Serves `thanos.Query` from a [`QueryBackend`]: warnings, then series, then figures.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use model::Kind;
use storage::Error;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use wire::pb::prometheus_copy::TimeSeries;
use wire::pb::thanos as pb;

use super::{CallTimes, QueryBackend, QueryCall, QueryTold, ms};
use crate::{call, convert, status_from_error};

/// The gRPC face of a backend. Cheap to clone.
#[derive(Clone)]
pub struct QueryServer {
    backend: Arc<dyn QueryBackend>,
}

/// The parts that both requests have.
struct Common {
    query: String,
    timeout_seconds: i64,
    max_resolution_seconds: i64,
    replica_labels: Vec<String>,
    store_matchers: Vec<pb::StoreMatchers>,
    dedup: bool,
    partial: bool,
    shard: Option<pb::ShardInfo>,
    lookback_delta_seconds: i64,
    plan: bool,
    batch: i64,
}

impl Common {
    fn call(self, times: CallTimes, metadata: &MetadataMap) -> Result<QueryCall, Error> {
        if self.query.is_empty() && self.plan {
            let text = "a query plan without its query cannot be read by this version";
            return Err(Error::new(Kind::Invalid, text));
        }
        let some = |n: i64| (n > 0).then_some(n);
        let matchers = self.store_matchers.iter().map(|set| convert::matchers_from_pb(&set.label_matchers));
        Ok(QueryCall {
            query: self.query,
            times,
            timeout_s: some(self.timeout_seconds),
            max_resolution: ms(self.max_resolution_seconds.max(0), "a resolution")?,
            replica_labels: self.replica_labels,
            store_matchers: matchers.collect::<Result<_, _>>()?,
            dedup: self.dedup,
            partial: self.partial,
            shard: self.shard.filter(|shard| shard.total_shards >= 1),
            lookback: some(ms(self.lookback_delta_seconds, "a lookback")?),
            tenant: call::tenant_of(metadata),
        })
    }
}

macro_rules! common {
    ($message:ident) => {
        impl From<pb::$message> for Common {
            fn from(body: pb::$message) -> Common {
                Common {
                    query: body.query,
                    timeout_seconds: body.timeout_seconds,
                    max_resolution_seconds: body.max_resolution_seconds,
                    replica_labels: body.replica_labels,
                    store_matchers: body.store_matchers,
                    dedup: body.enable_dedup,
                    partial: body.enable_partial_response,
                    shard: body.shard_info,
                    lookback_delta_seconds: body.lookback_delta_seconds,
                    plan: body.query_plan.is_some(),
                    batch: body.response_batch_size,
                }
            }
        }
    };
}

common!(QueryRequest);
common!(QueryRangeRequest);

/// What differs between the answers to instant and range queries: the type alone.
trait Answer: Sized + Send + 'static {
    fn warning(text: String) -> Self;
    fn series(series: TimeSeries) -> Self;
    fn batch(series: Vec<TimeSeries>) -> Self;
    fn stats(stats: pb::QueryStats) -> Self;
}

macro_rules! answer {
    ($message:ident, $module:ident) => {
        impl Answer for pb::$message {
            fn warning(text: String) -> Self {
                pb::$message { result: Some(pb::$module::Result::Warnings(text)) }
            }

            fn series(series: TimeSeries) -> Self {
                pb::$message { result: Some(pb::$module::Result::Timeseries(series)) }
            }

            fn batch(series: Vec<TimeSeries>) -> Self {
                let batch = pb::TimeSeriesBatch { series };
                pb::$message { result: Some(pb::$module::Result::TimeseriesBatch(batch)) }
            }

            fn stats(stats: pb::QueryStats) -> Self {
                pb::$message { result: Some(pb::$module::Result::Stats(stats)) }
            }
        }
    };
}

answer!(QueryResponse, query_response);
answer!(QueryRangeResponse, query_range_response);

type Frames<T> = BoxStream<'static, Result<T, Status>>;

fn frames<T: Answer>(told: QueryTold, batch: i64) -> Frames<T> {
    let QueryTold { warnings, mut series, samples, peak_samples, held } = told;
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let stats = pb::QueryStats { samples_total: signed(samples), peak_samples: signed(peak_samples) };
    let batch = usize::try_from(batch).unwrap_or(0).min(1024);
    let pieces = std::iter::from_fn(move || {
        let _until_sent = &held;
        if batch <= 1 {
            return series.next().map(T::series);
        }
        let part: Vec<TimeSeries> = series.by_ref().take(batch).collect();
        (!part.is_empty()).then(|| T::batch(part))
    });
    let all = warnings.into_iter().map(T::warning).chain(pieces).chain([T::stats(stats)]);
    stream::iter(all.map(Ok)).boxed()
}

impl QueryServer {
    pub fn new(backend: Arc<dyn QueryBackend>) -> QueryServer {
        QueryServer { backend }
    }

    async fn answer<T: Answer>(
        &self,
        common: Common,
        times: Result<CallTimes, Error>,
        metadata: &MetadataMap,
    ) -> Result<Response<Frames<T>>, Status> {
        let batch = common.batch;
        let call = times.and_then(|times| common.call(times, metadata));
        let call = call.map_err(|error| status_from_error(&error))?;
        let told = self.backend.query(call).await.map_err(|error| status_from_error(&error))?;
        Ok(Response::new(frames(told, batch)))
    }
}

#[tonic::async_trait]
impl pb::query_server::Query for QueryServer {
    type QueryStream = Frames<pb::QueryResponse>;
    type QueryRangeStream = Frames<pb::QueryRangeResponse>;

    async fn query(
        &self,
        request: Request<pb::QueryRequest>,
    ) -> Result<Response<Frames<pb::QueryResponse>>, Status> {
        let (metadata, _, body) = request.into_parts();
        let times = ms(body.time_seconds, "a time").map(CallTimes::Instant);
        self.answer(body.into(), times, &metadata).await
    }

    async fn query_range(
        &self,
        request: Request<pb::QueryRangeRequest>,
    ) -> Result<Response<Frames<pb::QueryRangeResponse>>, Status> {
        let (metadata, _, body) = request.into_parts();
        let times = || {
            Ok(CallTimes::Range {
                start: ms(body.start_time_seconds, "a start")?,
                end: ms(body.end_time_seconds, "an end")?,
                step: ms(body.interval_seconds, "an interval")?,
            })
        };
        let times = times();
        self.answer(body.into(), times, &metadata).await
    }
}
