//! Asks a querier for the value of a query.

use model::{Kind, Matcher};
use prost::Message;
use storage::{Context, Error, Reservation};
use tonic::{Code, Request, Streaming};
use wire::pb::prometheus_copy::TimeSeries;
use wire::pb::thanos as pb;
use wire::pb::thanos::query_client::QueryClient;

use super::{CallTimes, QueryCall};
use crate::channel::MAX_MESSAGE;
use crate::convert;
use crate::metrics::{self, Method, client_handled};
use crate::store::{Inner, StoreClient};

/// Series per frame that are asked for.
const BATCH: i64 = 64;

/// A querier's answer.
#[derive(Debug, Default)]
pub struct Told {
    pub warnings: Vec<String>,
    pub series: Vec<TimeSeries>,
    pub stats: pb::QueryStats,
    held: Option<Reservation>,
}

impl Told {
    fn take(&mut self, series: Vec<TimeSeries>) -> Result<(), Error> {
        if let Some(held) = &mut self.held {
            // A sample in memory takes more than its bytes on the wire.
            held.grow(series.iter().map(|s| 2 * s.encoded_len() as u64).sum())?;
        }
        self.series.extend(series);
        Ok(())
    }
}

/// What either stream sends.
enum Frame {
    Warning(String),
    Series(Vec<TimeSeries>),
    Stats(pb::QueryStats),
}

/// What a message of either stream holds.
trait Framed {
    fn frame(self) -> Option<Frame>;
}

macro_rules! framed {
    ($message:ident, $module:ident) => {
        impl Framed for pb::$message {
            fn frame(self) -> Option<Frame> {
                Some(match self.result? {
                    pb::$module::Result::Warnings(text) => Frame::Warning(text),
                    pb::$module::Result::Timeseries(one) => Frame::Series(vec![one]),
                    pb::$module::Result::Stats(stats) => Frame::Stats(stats),
                    pb::$module::Result::TimeseriesBatch(batch) => Frame::Series(batch.series),
                })
            }
        }
    };
}

framed!(QueryResponse, query_response);
framed!(QueryRangeResponse, query_range_response);

/// A request for the value of a [`QueryCall`]: its times, and what both requests have.
macro_rules! request {
    ($message:ident, $call:ident, { $($time:ident: $value:expr),* }) => {
        pb::$message {
            query: $call.query,
            $($time: $value,)*
            timeout_seconds: $call.timeout_s.unwrap_or(0),
            max_resolution_seconds: $call.max_resolution / 1000,
            replica_labels: $call.replica_labels,
            store_matchers: $call.store_matchers.iter().map(|set| to_pb(set)).collect(),
            enable_dedup: $call.dedup,
            enable_partial_response: $call.partial,
            shard_info: $call.shard,
            lookback_delta_seconds: $call.lookback.unwrap_or(0) / 1000,
            response_batch_size: BATCH,
            ..Default::default()
        }
    };
}

fn to_pb(set: &[Matcher]) -> pb::StoreMatchers {
    pb::StoreMatchers { label_matchers: convert::matchers_to_pb(set) }
}

async fn read(
    inner: &Inner,
    method: Method,
    mut stream: Streaming<impl Framed>,
    context: &Context,
) -> Result<Told, Error> {
    let mut told = Told { held: Some(context.budget.reserve(0)?), ..Told::default() };
    while let Some(frame) = inner.frame(method, &mut stream).await? {
        match frame.frame() {
            Some(Frame::Warning(text)) => told.warnings.push(format!("{}: {text}", inner.address)),
            Some(Frame::Series(series)) => told.take(series)?,
            Some(Frame::Stats(stats)) => told.stats = stats,
            None => {
                let text = format!("{}: an answer without content", inner.address);
                return Err(Error::new(Kind::Internal, text));
            }
        }
    }
    client_handled(method, Code::Ok);
    Ok(told)
}

impl StoreClient {
    /// The value of a query, evaluated by the peer. Times are cut to whole seconds. Blocks the calling thread;
    /// ends early when `context` does.
    pub fn query(&self, call: &QueryCall, context: &Context) -> Result<Told, Error> {
        let (inner, call, asking) = (self.inner.clone(), call.clone(), context.clone());
        let work = async move {
            let mut client = QueryClient::new(inner.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
            let tenant = call.tenant.as_deref();
            match call.times {
                CallTimes::Instant(time) => {
                    let body = request!(QueryRequest, call, { time_seconds: time / 1000 });
                    let request = named(inner.request(body), tenant)?;
                    let stream = inner.within(metrics::QUERY, client.query(request)).await?;
                    read(&inner, metrics::QUERY, stream, &asking).await
                }
                CallTimes::Range { start, end, step } => {
                    let body = request!(QueryRangeRequest, call, {
                        start_time_seconds: start / 1000,
                        end_time_seconds: end / 1000,
                        interval_seconds: step / 1000
                    });
                    let request = named(inner.request(body), tenant)?;
                    let stream = inner.within(metrics::QUERY_RANGE, client.query_range(request)).await?;
                    read(&inner, metrics::QUERY_RANGE, stream, &asking).await
                }
            }
        };
        self.inner.wait(context, work)
    }
}

/// The request in the name of a tenant.
fn named<T>(mut request: Request<T>, tenant: Option<&str>) -> Result<Request<T>, Error> {
    if let Some(tenant) = tenant {
        let value = tenant.parse().map_err(|error| {
            Error::with_source(Kind::Invalid, format!("tenant {tenant:?} cannot be sent"), error)
        })?;
        request.metadata_mut().insert(crate::TENANT_METADATA, value);
    }
    Ok(request)
}
