//! Several blocks become one: series by series, samples once, in chunks that end where the engine ends them.
//!
//! Used by compaction and by whoever joins a window's block with its late supplement. Which blocks are to be merged,
//! and what becomes of the old ones, is not decided here.
//!
//! # Cost
//! Streaming: one series of each source in memory. Chunks that overlap no other are copied as they are; only overlapping
//! ones are decoded, merged and encoded again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use chunk::histogram::{At, FloatIter, IntIter, cut_floats, cut_ints};
use chunk::{ChunkData, Encoding, cut, xor};
use model::histogram::ResetHint;
use model::{Kind, Labels, Native, Sample, TimeRange, Timestamp, float_wins, native_wins, pick_conflict};

use crate::{Block, BlockSeries, BlockWriter, Error};

/// Adds every series of `blocks` to `writer`, which is empty. Where sources have different values for one series and
/// time, the rules of `model` decide ([`pick_conflict`], [`native_wins`], [`float_wins`]), as for every reader. Chunks that
/// are made anew end as [`chunk::cut`] says, in windows of `window` ms.
pub fn merge(blocks: &[Block], window: i64, writer: &mut BlockWriter) -> Result<(), Error> {
    let all = |block: &Block| block.series(&[], TimeRange::ALL, 0, false);
    let mut sources: Vec<BlockSeries> = blocks.iter().map(all).collect::<Result<_, _>>()?;
    let mut held: Vec<Vec<ChunkData>> = sources.iter().map(|_| Vec::new()).collect();
    let mut heap: BinaryHeap<Reverse<(Labels, usize)>> = BinaryHeap::new();
    let mut idle: Vec<usize> = (0..sources.len()).collect();
    loop {
        for at in idle.drain(..) {
            if let Some(next) = sources[at].next() {
                let (labels, chunks) = next?;
                held[at] = chunks;
                heap.push(Reverse((labels, at)));
            }
        }
        let Some(Reverse((labels, at))) = heap.pop() else { return Ok(()) };
        let mut chunks = std::mem::take(&mut held[at]);
        idle.push(at);
        while let Some(Reverse((other, _))) = heap.peek()
            && *other == labels
            && let Some(Reverse((_, at))) = heap.pop()
        {
            chunks.append(&mut held[at]);
            idle.push(at);
        }
        let chunks = join(chunks, window).map_err(|e| e.within(format_args!("series {labels}")))?;
        writer.add_series(&labels, &chunks)?;
    }
}

/// Chunks of one series in any order become disjoint and ascending; those that are made anew end as
/// [`chunk::cut`] says, in windows of `window` ms.
pub fn join(mut chunks: Vec<ChunkData>, window: i64) -> Result<Vec<ChunkData>, Error> {
    let key = |c: &ChunkData| (c.range.start, c.range.end);
    chunks.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.bytes.cmp(&b.bytes)));
    chunks.dedup();
    let mut out = Vec::with_capacity(chunks.len());
    let mut tangle: Vec<ChunkData> = Vec::new();
    let mut end = None;
    for chunk in chunks {
        if end.is_none_or(|end| chunk.range.start > end) {
            untangle(std::mem::take(&mut tangle), window, &mut out)?;
            end = None;
        }
        end = end.max(Some(chunk.range.end));
        tangle.push(chunk);
    }
    untangle(tangle, window, &mut out)?;
    Ok(out)
}

/// Chunks that overlap one another, directly or through others.
fn untangle(chunks: Vec<ChunkData>, window: i64, out: &mut Vec<ChunkData>) -> Result<(), Error> {
    if chunks.len() < 2 {
        out.extend(chunks);
        return Ok(());
    }
    out.extend(again(&chunks, window)?);
    Ok(())
}

/// All samples of chunks of one series in any order, in chunks made anew as [`chunk::cut`] says, in windows of
/// `window` ms.
pub fn again(chunks: &[ChunkData], window: i64) -> Result<Vec<ChunkData>, Error> {
    let mut floats: Vec<Sample> = Vec::new();
    let mut natives: Vec<At<Native>> = Vec::new();
    for chunk in chunks {
        decode(chunk, &mut floats, &mut natives)?;
    }
    floats.sort_by_key(|s| s.timestamp);
    floats.dedup_by(|next, kept| {
        let same = next.timestamp == kept.timestamp;
        if same {
            kept.value = pick_conflict(kept.value, next.value);
        }
        same
    });
    if !natives.is_empty() {
        settle(&mut floats, &mut natives);
    }
    let mut out = Vec::new();
    encode(&floats, natives, window, &mut out)?;
    Ok(out)
}

fn corrupt(error: chunk::Error) -> Error {
    Error { source: Some(Box::new(error.clone())), ..Error::corrupt(format!("chunk: {error}")) }
}

fn decode(chunk: &ChunkData, floats: &mut Vec<Sample>, natives: &mut Vec<At<Native>>) -> Result<(), Error> {
    match chunk.encoding {
        Encoding::Xor => {
            for sample in xor::Iter::new(&chunk.bytes).map_err(corrupt)? {
                floats.push(sample.map_err(corrupt)?);
            }
        }
        // Merged with others, samples go without their start times: readers before Prometheus 3.x know no such chunks.
        Encoding::Xor2 => {
            for sample in chunk::xor2::Iter::new(&chunk.bytes).map_err(corrupt)? {
                floats.push(sample.map_err(corrupt)?.0);
            }
        }
        Encoding::Histogram | Encoding::HistogramStart => {
            let started = chunk.encoding == Encoding::HistogramStart;
            let rows = if started { IntIter::started(&chunk.bytes) } else { IntIter::new(&chunk.bytes) };
            for row in rows.map_err(corrupt)? {
                let At { timestamp, histogram } = row.map_err(corrupt)?;
                natives.push(At { timestamp, histogram: Native::Whole(histogram) });
            }
        }
        Encoding::FloatHistogram | Encoding::FloatHistogramStart => {
            let started = chunk.encoding == Encoding::FloatHistogramStart;
            let rows = if started { FloatIter::started(&chunk.bytes) } else { FloatIter::new(&chunk.bytes) };
            for row in rows.map_err(corrupt)? {
                let At { timestamp, histogram } = row.map_err(corrupt)?;
                natives.push(At { timestamp, histogram: Native::Float(histogram) });
            }
        }
        Encoding::Aggregate => {
            let message = "overlapping downsampled chunks cannot be merged by this version";
            return Err(Error::new(Kind::Refused, message));
        }
    }
    Ok(())
}

/// Each time once, as every reader sees it ([`native_wins`], [`float_wins`]). `floats` are that already.
fn settle(floats: &mut Vec<Sample>, natives: &mut Vec<At<Native>>) {
    natives.sort_by_key(|row| row.timestamp);
    natives.dedup_by(|next, kept| {
        let same = next.timestamp == kept.timestamp;
        if same && native_wins(&next.histogram, &kept.histogram) {
            std::mem::swap(next, kept);
        }
        same
    });
    let mut at = 0;
    floats.retain(|float| {
        while natives.get(at).is_some_and(|row| row.timestamp < float.timestamp) {
            at += 1;
        }
        match natives.get(at) {
            Some(row) if row.timestamp == float.timestamp => {
                let wins = float_wins(float.value, row.histogram.is_stale());
                if wins {
                    natives.remove(at);
                }
                wins
            }
            _ => true,
        }
    });
    for row in natives {
        // What is said of resets holds for the sample that came before in its chunk, which now may be another.
        if row.histogram.hint() != ResetHint::Gauge {
            row.histogram.set_hint(ResetHint::Unknown);
        }
    }
}

/// Chunks of what is sorted and of no common time; each of one kind.
fn encode(
    floats: &[Sample],
    natives: Vec<At<Native>>,
    window: i64,
    out: &mut Vec<ChunkData>,
) -> Result<(), Error> {
    let mut left = floats;
    let mut put_floats = |before: Timestamp, out: &mut Vec<ChunkData>| -> Result<(), Error> {
        let end = left.partition_point(|s| s.timestamp < before);
        let (run, rest) = left.split_at(end);
        left = rest;
        for part in cut::split(run, window) {
            if let (Some(first), Some(last)) = (part.first(), part.last()) {
                out.push(ChunkData {
                    range: TimeRange::new(first.timestamp, last.timestamp),
                    encoding: Encoding::Xor,
                    bytes: Bytes::from(xor::encode(part.iter().copied()).map_err(corrupt)?),
                });
            }
        }
        Ok(())
    };
    let (mut wholes, mut halves) = (Vec::new(), Vec::new());
    let mut rows = natives.into_iter().peekable();
    while let Some(At { timestamp, histogram }) = rows.next() {
        put_floats(timestamp, out)?;
        let next_float = floats.partition_point(|s| s.timestamp < timestamp);
        let next_float = floats.get(next_float).map(|s| s.timestamp);
        let goes_on = rows.peek().is_some_and(|next| {
            std::mem::discriminant(&next.histogram) == std::mem::discriminant(&histogram)
                && next_float.is_none_or(|t| next.timestamp < t)
        });
        match histogram {
            Native::Whole(histogram) => wholes.push(At { timestamp, histogram }),
            Native::Float(histogram) => halves.push(At { timestamp, histogram }),
        }
        if !goes_on {
            out.extend(cut_ints(wholes.drain(..), window).map_err(corrupt)?);
            out.extend(cut_floats(halves.drain(..), window).map_err(corrupt)?);
        }
    }
    put_floats(Timestamp::MAX, out)
}
