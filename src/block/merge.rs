//! Several blocks become one: series by series, samples once, chunks of at most 120 samples.
//!
//! Used by compaction and by whoever joins a window's block with its late supplement. Which blocks are to be merged,
//! and what becomes of the old ones, is not decided here.
//!
//! # Cost
//! Streaming: one series of each source in memory. Chunks that overlap no other are copied as they are; only overlapping
//! float chunks are decoded, merged and encoded again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use chunk::{ChunkData, Encoding, xor};
use model::{Kind, Labels, Sample, TimeRange, pick_conflict};

use crate::{Block, BlockSeries, BlockWriter, Error};

/// Most samples of a chunk that is encoded again.
pub const SAMPLES_PER_CHUNK: usize = 120;

/// Adds every series of `blocks` to `writer`, which is empty. Where sources have different values for one series and
/// time, [`pick_conflict`] decides, as it does for every reader.
pub fn merge(blocks: &[Block], writer: &mut BlockWriter) -> Result<(), Error> {
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
        let chunks = join(chunks).map_err(|e| e.within(format_args!("series {labels}")))?;
        writer.add_series(&labels, &chunks)?;
    }
}

/// Chunks of one series in any order become disjoint and ascending.
pub fn join(mut chunks: Vec<ChunkData>) -> Result<Vec<ChunkData>, Error> {
    let key = |c: &ChunkData| (c.range.start, c.range.end);
    chunks.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.bytes.cmp(&b.bytes)));
    chunks.dedup();
    let mut out = Vec::with_capacity(chunks.len());
    let mut tangle: Vec<ChunkData> = Vec::new();
    let mut end = None;
    for chunk in chunks {
        if end.is_none_or(|end| chunk.range.start > end) {
            untangle(std::mem::take(&mut tangle), &mut out)?;
            end = None;
        }
        end = end.max(Some(chunk.range.end));
        tangle.push(chunk);
    }
    untangle(tangle, &mut out)?;
    Ok(out)
}

/// Chunks that overlap one another, directly or through others.
fn untangle(chunks: Vec<ChunkData>, out: &mut Vec<ChunkData>) -> Result<(), Error> {
    if chunks.len() < 2 {
        out.extend(chunks);
        return Ok(());
    }
    let corrupt = |e: chunk::Error| Error {
        source: Some(Box::new(e.clone())),
        ..Error::corrupt(format!("chunk: {e}"))
    };
    let mut samples: Vec<Sample> = Vec::new();
    for chunk in &chunks {
        if chunk.encoding != Encoding::Xor {
            let message = format!(
                "overlapping chunks of encoding {:?} cannot be merged by this version",
                chunk.encoding
            );
            return Err(Error::new(Kind::Refused, message));
        }
        for sample in xor::Iter::new(&chunk.bytes).map_err(corrupt)? {
            samples.push(sample.map_err(corrupt)?);
        }
    }
    samples.sort_by_key(|s| s.timestamp);
    samples.dedup_by(|next, kept| {
        let same = next.timestamp == kept.timestamp;
        if same {
            kept.value = pick_conflict(kept.value, next.value);
        }
        same
    });
    for part in samples.chunks(SAMPLES_PER_CHUNK) {
        if let (Some(first), Some(last)) = (part.first(), part.last()) {
            out.push(ChunkData {
                range: TimeRange::new(first.timestamp, last.timestamp),
                encoding: Encoding::Xor,
                bytes: Bytes::from(xor::encode(part.iter().copied()).map_err(corrupt)?),
            });
        }
    }
    Ok(())
}
