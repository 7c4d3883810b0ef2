//! The answer as chunks: frames of `ChunkedReadResponse`, each with its length and its CRC32C.
//!
//! Chunks go out as they are stored, also where they reach beyond the range; those of the newer encodings without their
//! start times, because a client may not know these. Only where chunks of one series overlap (copies of receivers, late
//! samples) they are written anew: clients read them one after the other.

use std::time::Instant;

use bytes::Bytes;
use chunk::histogram::{At, encode_floats, encode_ints};
use chunk::{Encoding, plain};
use model::{FloatHistogram, Histogram, Native, Sample, TimeRange, Timestamp};
use prost::Message;
use prost::encoding::encode_varint;
use storage::{ChunkData, Columns, Context, Select, SeriesEntry, decode_series};
use wire::pb::prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries};

use super::points::{Point, is_float, points};
use super::request::ReadQuery;
use super::{Failure, Held, labels};
use crate::Problem;

/// Bytes of chunks and labels after which a series goes on in the next frame.
const FRAME: usize = 1 << 20;
/// Samples of a chunk that is written anew.
const SAMPLES_PER_CHUNK: usize = 120;

/// Sends the frames of all queries, in their order.
pub(super) fn send_all(
    queries: &[ReadQuery],
    select: &dyn Select,
    context: &Context,
    now: &dyn Fn() -> Instant,
    mut send: impl FnMut(Held) -> Result<(), Problem>,
) -> Result<(), Failure> {
    for (index, query) in queries.iter().enumerate() {
        let mut set = select.select(&query.request, context)?;
        while let Some(entry) = set.next()? {
            context.cancel.check(now())?;
            let _entry_held = context.budget.reserve(bytes_of(&entry))?;
            let chunks = one_after_the_other(entry.chunks)?;
            let labels = labels(&entry.labels);
            let overhead: usize = labels.iter().map(Message::encoded_len).sum();
            let (mut part, mut bytes) = (Vec::new(), overhead);
            let last = chunks.len().saturating_sub(1);
            for (at, chunk) in chunks.into_iter().enumerate() {
                bytes += chunk.bytes.len();
                part.push(Chunk {
                    min_time_ms: chunk.start(),
                    max_time_ms: chunk.end(),
                    r#type: i32::from(chunk.encoding as u8),
                    data: chunk.bytes,
                });
                if bytes < FRAME && at < last {
                    continue;
                }
                let series = ChunkedSeries { labels: labels.clone(), chunks: std::mem::take(&mut part) };
                let message = ChunkedReadResponse { chunked_series: vec![series], query_index: index as i64 };
                bytes = overhead;
                let frame = frame(&message);
                let held = context.budget.reserve(frame.len() as u64)?;
                send((frame, held))?;
            }
        }
    }
    Ok(())
}

fn bytes_of(entry: &SeriesEntry) -> u64 {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of::<ChunkData>()).sum();
    (entry.labels.as_bytes().len() + chunks) as u64
}

/// Length as a varint, CRC32C with the high byte first, message.
fn frame(message: &ChunkedReadResponse) -> Bytes {
    let data = message.encode_to_vec();
    let mut out = Vec::with_capacity(data.len() + 14);
    encode_varint(data.len() as u64, &mut out);
    out.extend_from_slice(&crc32c::crc32c(&data).to_be_bytes());
    out.extend_from_slice(&data);
    out.into()
}

/// Chunks by time without overlaps. Chunks that overlap no other stay as they are, but for their encoding.
fn one_after_the_other(mut chunks: Vec<ChunkData>) -> Result<Vec<ChunkData>, Failure> {
    chunks.sort_by_key(|c| (c.start(), c.end()));
    let (mut out, mut knot, mut end) = (Vec::new(), Vec::<ChunkData>::new(), i64::MIN);
    for chunk in chunks {
        if !knot.is_empty() && chunk.start() > end {
            untie(std::mem::take(&mut knot), &mut out)?;
        }
        end = if knot.is_empty() { chunk.end() } else { end.max(chunk.end()) };
        knot.push(chunk);
    }
    untie(knot, &mut out)?;
    Ok(out)
}

/// Writes chunks that overlap anew.
fn untie(mut knot: Vec<ChunkData>, out: &mut Vec<ChunkData>) -> Result<(), Failure> {
    if knot.len() < 2 {
        if let Some(chunk) = knot.pop() {
            out.extend(plain(chunk).map_err(unreadable)?);
        }
        return Ok(());
    }
    if !knot.iter().all(is_float) {
        return untie_points(points(&knot, TimeRange::ALL)?, out);
    }
    let mut columns = Columns::default();
    decode_series(&knot, TimeRange::ALL, &mut columns)?;
    let samples: Vec<Sample> = (columns.timestamps.iter().zip(&columns.values))
        .map(|(&timestamp, &value)| Sample { timestamp, value })
        .collect();
    write_floats(&samples, out)
}

/// Runs of one kind, in chunks of their own.
fn untie_points(points: Vec<(Timestamp, Point)>, out: &mut Vec<ChunkData>) -> Result<(), Failure> {
    #[derive(Default)]
    struct Run {
        floats: Vec<Sample>,
        whole: Vec<At<Histogram>>,
        halves: Vec<At<FloatHistogram>>,
    }
    impl Run {
        fn write(&mut self, out: &mut Vec<ChunkData>) -> Result<(), Failure> {
            write_floats(&std::mem::take(&mut self.floats), out)?;
            let (whole, halves) = (std::mem::take(&mut self.whole), std::mem::take(&mut self.halves));
            out.extend(encode_ints(whole, SAMPLES_PER_CHUNK as u16).map_err(unwritable)?);
            out.extend(encode_floats(halves, SAMPLES_PER_CHUNK as u16).map_err(unwritable)?);
            Ok(())
        }
    }
    let (mut run, mut last) = (Run::default(), None);
    for (timestamp, point) in points {
        let kind = match &point {
            Point::Float(_) => Encoding::Xor,
            Point::Histogram(Native::Whole(_)) => Encoding::Histogram,
            Point::Histogram(Native::Float(_)) => Encoding::FloatHistogram,
        };
        if last.replace(kind).is_some_and(|last| last != kind) {
            run.write(out)?;
        }
        match point {
            Point::Float(value) => run.floats.push(Sample { timestamp, value }),
            Point::Histogram(Native::Whole(histogram)) => run.whole.push(At { timestamp, histogram }),
            Point::Histogram(Native::Float(histogram)) => run.halves.push(At { timestamp, histogram }),
        }
    }
    run.write(out)
}

fn write_floats(samples: &[Sample], out: &mut Vec<ChunkData>) -> Result<(), Failure> {
    for part in samples.chunks(SAMPLES_PER_CHUNK) {
        let range = TimeRange::new(part[0].timestamp, part[part.len() - 1].timestamp);
        let bytes = chunk::xor::encode(part.iter().copied()).map_err(unwritable)?;
        out.push(ChunkData { range, encoding: Encoding::Xor, bytes: bytes.into() });
    }
    Ok(())
}

fn unwritable(error: chunk::Error) -> Failure {
    let text = format!("a chunk cannot be written: {error}");
    Failure::Own(Problem::new(crate::ErrorType::Internal, text))
}

fn unreadable(error: chunk::Error) -> Failure {
    let text = format!("chunk does not decode: {error}");
    Failure::Storage(storage::Error::with_source(model::Kind::Corrupt, text, error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(times: &[i64]) -> ChunkData {
        let samples = times.iter().map(|&timestamp| Sample { timestamp, value: timestamp as f64 });
        ChunkData {
            range: TimeRange::new(times[0], times[times.len() - 1]),
            encoding: Encoding::Xor,
            bytes: chunk::xor::encode(samples).unwrap().into(),
        }
    }

    fn settled(chunks: Vec<ChunkData>) -> Vec<ChunkData> {
        one_after_the_other(chunks).ok().unwrap()
    }

    #[test]
    fn only_what_overlaps_is_written_anew() {
        let apart = vec![chunk(&[1, 2]), chunk(&[3, 4]), chunk(&[9])];
        assert_eq!(settled(apart.clone()), apart);
        let tied = vec![chunk(&[1, 2]), chunk(&[5, 9]), chunk(&[7, 8]), chunk(&[9, 12]), chunk(&[20, 21])];
        assert_eq!(settled(tied), [chunk(&[1, 2]), chunk(&[5, 7, 8, 9, 12]), chunk(&[20, 21])]);
    }

    #[test]
    fn frames_carry_length_and_checksum() {
        let message = ChunkedReadResponse { chunked_series: vec![], query_index: 3 };
        // CRC32C of 10 03.
        let crc = crc32c::crc32c(&[0x10, 3]).to_be_bytes();
        let expected = [&[2][..], &crc, &[0x10, 3]].concat();
        assert_eq!(&frame(&message)[..], &expected[..]);
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_or_doubled(
            sets in proptest::collection::vec(proptest::collection::btree_set(0i64..2000, 1..300), 1..6),
        ) {
            let chunks = sets.iter().map(|set| chunk(&set.iter().copied().collect::<Vec<_>>())).collect();
            let out = settled(chunks);
            let mut times = Vec::new();
            for chunk in &out {
                let read: Vec<i64> =
                    chunk::xor::Iter::new(&chunk.bytes).unwrap().map(|s| s.unwrap().timestamp).collect();
                prop_assert_eq!(chunk.range, TimeRange::new(read[0], read[read.len() - 1]));
                times.extend(read);
            }
            let expected: std::collections::BTreeSet<i64> = sets.into_iter().flatten().collect();
            prop_assert_eq!(times, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
