//! The querier's `thanos.Query` service: the same evaluation as over HTTP, for queriers and rulers above.

use api::{ApiState, ErrorType, Evaluated, Evaluation, Problem, ReadParams, Times};
use model::histogram::Span;
use model::{Kind, Labels};
use promql::{Details, NativePoint, Point, Value};
use rpc::query::{CallTimes, QueryBackend, QueryCall, QueryTold, labels_to_pb};
use storage::Error;
use wire::pb::prometheus_copy::{BucketSpan, Histogram, Sample, TimeSeries, histogram};

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
        let asked = Evaluation {
            query: call.query,
            times,
            lookback: call.lookback,
            timeout,
            read,
            details: Details::default(),
        };
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
        Value::Scalar(t, v) => Box::new(std::iter::once(series(&Labels::empty(), &[Point { t, v }], &[]))),
        Value::String(..) => Box::new(std::iter::empty()),
        Value::Vector(samples) => Box::new(samples.into_iter().map(|sample| match sample.histogram {
            Some(h) => series(&sample.labels, &[], &[NativePoint { t: sample.point.t, h }]),
            None => series(&sample.labels, &[sample.point], &[]),
        })),
        Value::Matrix(all) => {
            Box::new(all.into_iter().map(|one| series(&one.labels, &one.points, &one.histograms)))
        }
    }
}

fn series(labels: &Labels, points: &[Point], histograms: &[NativePoint]) -> TimeSeries {
    TimeSeries {
        labels: labels_to_pb(labels),
        samples: points.iter().map(|point| Sample { value: point.v, timestamp: point.t }).collect(),
        histograms: histograms.iter().map(histogram).collect(),
        ..Default::default()
    }
}

fn histogram(point: &NativePoint) -> Histogram {
    let h = &*point.h;
    let spans = |spans: &[Span]| -> Vec<BucketSpan> {
        spans.iter().map(|s| BucketSpan { offset: s.offset, length: s.length }).collect()
    };
    Histogram {
        count: Some(histogram::Count::CountFloat(h.count)),
        zero_count: Some(histogram::ZeroCount::ZeroCountFloat(h.zero_count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: spans(&h.negative_spans),
        negative_counts: h.negative_counts.clone(),
        positive_spans: spans(&h.positive_spans),
        positive_counts: h.positive_counts.clone(),
        // Evaluated values are gauges or of unknown history to whoever goes on with them; the codes are ours.
        reset_hint: h.hint as i32,
        timestamp: point.t,
        custom_values: h.custom_values.to_vec(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::FloatHistogram;
    use promql::VectorSample;

    use super::*;

    #[test]
    fn histograms_travel_as_float_histograms() {
        let h = FloatHistogram {
            count: 3.0,
            sum: 4.5,
            positive_spans: vec![Span { offset: -1, length: 2 }],
            positive_counts: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        let point = Point { t: 5000, v: f64::NAN };
        let sample = VectorSample { labels: Labels::empty(), point, histogram: Some(Arc::new(h)) };
        let sent: Vec<TimeSeries> = series_of(Value::Vector(vec![sample])).collect();
        assert!(sent[0].samples.is_empty());
        let one = &sent[0].histograms[0];
        assert_eq!((one.timestamp, one.sum), (5000, 4.5));
        assert_eq!(one.count, Some(histogram::Count::CountFloat(3.0)));
        assert_eq!(one.positive_spans, [BucketSpan { offset: -1, length: 2 }]);
        assert_eq!(one.positive_counts, [1.0, 2.0]);
    }
}
