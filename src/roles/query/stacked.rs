//! The querier's `thanos.Query` service: the same evaluation as over HTTP, for queriers and rulers above.

use api::{ApiState, ErrorType, Evaluated, Evaluation, Problem, ReadParams, Times};
use model::{Kind, Labels};
use promql::{Point, Value};
use rpc::query::{CallTimes, QueryBackend, QueryCall, QueryTold, labels_to_pb};
use storage::Error;
use wire::pb::prometheus_copy::{Sample, TimeSeries};

/// Most steps of a range query, as over HTTP.
const MAX_POINTS: i64 = 11_000;

/// Evaluates with the API's engine, turns and budget.
pub struct Stacked(pub ApiState);

#[tonic::async_trait]
impl QueryBackend for Stacked {
    async fn query(&self, call: QueryCall) -> Result<QueryTold, Error> {
        self.0.require_ready().map_err(error_of)?;
        let times = match call.times {
            CallTimes::Instant(time) => Times::Instant(time),
            CallTimes::Range { start, end, step } => {
                if step <= 0 || end < start {
                    let text = format!("a range from {start} to {end} in steps of {step} ms is none");
                    return Err(Error::new(Kind::Invalid, text));
                }
                if (i128::from(end) - i128::from(start)) / i128::from(step) > i128::from(MAX_POINTS) {
                    let text = format!("exceeded maximum resolution of {MAX_POINTS} points per timeseries");
                    return Err(Error::new(Kind::Invalid, text));
                }
                Times::Range { start, end, step }
            }
        };
        let read = ReadParams {
            tenant: call.tenant,
            dedup: call.dedup,
            replica_labels: (!call.replica_labels.is_empty()).then_some(call.replica_labels),
            store_matchers: call.store_matchers,
            partial_response: Some(call.partial),
            max_source_resolution: call.max_resolution,
            shard: call.shard,
        };
        let timeout = call.timeout_s.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let asked = Evaluation { query: call.query, times, lookback: call.lookback, timeout, read };
        let Evaluated { value, notes, stats, held, .. } = self.0.evaluate(asked).await.map_err(error_of)?;
        let mut warnings = notes.warnings;
        warnings.extend(notes.infos);
        Ok(QueryTold {
            warnings,
            series: series_of(value),
            samples: stats.samples,
            peak_samples: stats.peak_samples as u64,
            held: Some(held),
        })
    }
}

fn error_of(problem: Problem) -> Error {
    let kind = match problem.error_type {
        ErrorType::BadData | ErrorType::NotFound => Kind::Invalid,
        ErrorType::Execution => Kind::Exhausted,
        ErrorType::Canceled | ErrorType::Timeout | ErrorType::Unavailable => Kind::Unavailable,
        ErrorType::Internal => Kind::Internal,
        ErrorType::Disabled => Kind::Refused,
    };
    Error::new(kind, problem.message)
}

/// A value as series; a scalar is one without labels, a string is none.
fn series_of(value: Value) -> Box<dyn Iterator<Item = TimeSeries> + Send> {
    match value {
        Value::Scalar(t, v) => Box::new(std::iter::once(series(&Labels::empty(), &[Point { t, v }]))),
        Value::String(..) => Box::new(std::iter::empty()),
        Value::Vector(samples) => {
            Box::new(samples.into_iter().map(|sample| series(&sample.labels, &[sample.point])))
        }
        Value::Matrix(all) => Box::new(all.into_iter().map(|one| series(&one.labels, &one.points))),
    }
}

fn series(labels: &Labels, points: &[Point]) -> TimeSeries {
    TimeSeries {
        labels: labels_to_pb(labels),
        samples: points.iter().map(|point| Sample { value: point.v, timestamp: point.t }).collect(),
        ..Default::default()
    }
}
