//! The answer as samples: one snappy-compressed `ReadResponse`.

use std::time::Instant;

use bytes::Bytes;
use model::{Native, Timestamp};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use storage::{Columns, Context, Reservation, Select, decode_series};
use wire::pb::prometheus::{Sample, TimeSeries};
use wire::remote_write::put_histogram;

use super::points::{Point, is_float, points};
use super::request::ReadQuery;
use super::{Failure, labels};
use crate::Problem;

/// Most samples of one answer.
const MAX_SAMPLES: usize = 50_000_000;

/// Reads everything, and compresses it.
pub(super) fn collect(
    queries: &[ReadQuery],
    select: &dyn Select,
    context: &Context,
    now: &dyn Fn() -> Instant,
) -> Result<(Bytes, Reservation), Failure> {
    collect_within(queries, select, context, now, MAX_SAMPLES)
}

fn collect_within(
    queries: &[ReadQuery],
    select: &dyn Select,
    context: &Context,
    now: &dyn Fn() -> Instant,
    max_samples: usize,
) -> Result<(Bytes, Reservation), Failure> {
    let mut held = context.budget.reserve(0)?;
    let (mut response, mut samples) = (Vec::new(), 0);
    let mut columns = Columns::default();
    for query in queries {
        let mut set = select.select(&query.request, context)?;
        let mut result = Vec::new();
        while let Some(entry) = set.next()? {
            context.cancel.check(now())?;
            columns.clear();
            let mut histograms = Vec::new();
            if entry.chunks.iter().all(is_float) {
                decode_series(&entry.chunks, query.request.range, &mut columns)?;
            } else {
                for (timestamp, point) in points(&entry.chunks, query.request.range)? {
                    match point {
                        Point::Float(value) => columns.push(timestamp, value),
                        Point::Histogram(histogram) => histograms.push((timestamp, histogram)),
                    }
                }
            }
            samples += columns.len() + histograms.len();
            if samples > max_samples {
                return Err(Problem::bad_data(format!("exceeded sample limit ({max_samples})")).into());
            }
            if columns.is_empty() && histograms.is_empty() {
                continue;
            }
            let pairs = columns.timestamps.iter().zip(&columns.values);
            let series = TimeSeries {
                labels: labels(&entry.labels),
                samples: pairs.map(|(&timestamp, &value)| Sample { value, timestamp }).collect(),
                ..TimeSeries::default()
            };
            // Its place in the result, and in the response that the result is copied to.
            let natives = fields(&histograms);
            let bytes = series.encoded_len() + natives.len();
            held.grow(2 * bytes as u64)?;
            encode_key(1, WireType::LengthDelimited, &mut result);
            encode_varint(bytes as u64, &mut result);
            series.encode_raw(&mut result);
            result.extend_from_slice(&natives);
        }
        encode_key(1, WireType::LengthDelimited, &mut response);
        encode_varint(result.len() as u64, &mut response);
        response.append(&mut result);
    }
    let packed = compress(&response)?;
    let held = {
        drop(held);
        context.budget.reserve(packed.len() as u64)?
    };
    Ok((packed.into(), held))
}

/// Histograms as the fields of a `TimeSeries` that hold them.
fn fields(histograms: &[(Timestamp, Native)]) -> Vec<u8> {
    let (mut out, mut one) = (Vec::new(), Vec::new());
    for (timestamp, histogram) in histograms {
        one.clear();
        put_histogram(*timestamp, 0, histogram, &mut one);
        encode_key(4, WireType::LengthDelimited, &mut out);
        encode_varint(one.len() as u64, &mut out);
        out.extend_from_slice(&one);
    }
    out
}

fn compress(plain: &[u8]) -> Result<Vec<u8>, Problem> {
    snap::raw::Encoder::new().compress_vec(plain).map_err(|error| {
        Problem::new(
            crate::ErrorType::Execution,
            format!("the answer cannot be compressed: {error}; ask for less, or for STREAMED_XOR_CHUNKS"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chunk::Encoding;
    use model::{Labels, TimeRange};
    use storage::{
        ChunkData, Error, LabelRequest, Listed, SelectRequest, SeriesEntry, SeriesSet, from_entries,
    };

    use super::*;

    struct Ten;

    impl Select for Ten {
        fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
            let samples = (0..10).map(|t| model::Sample { timestamp: t, value: t as f64 });
            let bytes = chunk::xor::encode(samples).unwrap().into();
            let chunk = ChunkData { range: TimeRange::new(0, 9), encoding: Encoding::Xor, bytes };
            Ok(from_entries(vec![SeriesEntry { labels: Labels::empty(), chunks: vec![chunk] }]))
        }

        fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, Error> {
            Ok(Listed::default())
        }

        fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, Error> {
            Ok(Listed::default())
        }
    }

    #[test]
    fn limits_on_samples_and_on_bytes() {
        let select: Arc<dyn Select> = Arc::new(Ten);
        let query = ReadQuery { request: SelectRequest::new(TimeRange::new(3, 100), Vec::new()) };
        let queries = [query.clone(), query];
        let world = runtime::World::real();
        let now = || world.clock.monotonic();
        let mut context = Context::background();
        assert!(collect_within(&queries, &*select, &context, &now, 14).is_ok());
        match collect_within(&queries, &*select, &context, &now, 13) {
            Err(Failure::Own(problem)) => assert_eq!(problem.message, "exceeded sample limit (13)"),
            _ => panic!("must be refused"),
        }
        context.budget = storage::Budget::new("--query.max-memory", 100);
        match collect_within(&queries, &*select, &context, &now, 14) {
            Err(Failure::Storage(error)) => assert!(error.message.contains("--query.max-memory")),
            _ => panic!("must be refused"),
        }
        assert_eq!(context.budget.used(), 0);
    }
}
