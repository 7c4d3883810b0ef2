//! A series' chunks as a block wants them: whole, by time, disjoint, and ending where all replicas end them.

use std::borrow::Cow;

use chunk::Encoding;
use chunk::cut::Cut;
use chunk::histogram::{FloatIter, IntIter};
use model::{Kind, TimeRange, Timestamp};
use storage::ChunkData;

use crate::Error;
use crate::blocks::from_block;

/// Chunks as a block wants them: whole, by time, disjoint. Those that overlap are decoded and made anew; of floats all,
/// also where they only end elsewhere than they would if all samples had come in order, so that replicas that have the
/// same samples write the same bytes, whatever came late, was deleted, or was cut off by a restart.
pub(crate) fn whole(chunks: &[ChunkData], window: i64) -> Result<Cow<'_, [ChunkData]>, Error> {
    // Once a chunk is in a block it may be all that is left of its samples: a bad one is found now or never.
    let mut shape = Shape { window, cut: None, as_cut: true };
    chunks.iter().try_for_each(|chunk| check_chunk(chunk, &mut shape))?;
    let floats = chunks.iter().all(|c| c.encoding == Encoding::Xor);
    let disjoint = chunks.windows(2).all(|pair| pair[0].range.end < pair[1].range.start);
    match (floats, disjoint) {
        (true, true) if shape.as_cut => Ok(chunks.into()),
        (true, _) => Ok(block::merge::again(chunks, window).map_err(from_block)?.into()),
        (false, true) => Ok(chunks.into()),
        (false, false) => Ok(block::merge::join(chunks.to_vec(), window).map_err(from_block)?.into()),
    }
}

/// Compares where the chunks of a series end with where they would.
struct Shape {
    window: i64,
    cut: Option<Cut>,
    as_cut: bool,
}

impl Shape {
    fn see(&mut self, t: Timestamp, first: bool) {
        let goes_on = self.cut.as_mut().is_some_and(|cut| cut.takes(t));
        self.as_cut &= goes_on != first;
        if !goes_on {
            self.cut = Some(Cut::begin(t, self.window));
        }
    }
}

/// Decodes a chunk: as many samples as it says, ascending, from its start to its end.
fn check_chunk(chunk: &ChunkData, shape: &mut Shape) -> Result<(), Error> {
    match chunk.encoding {
        Encoding::Xor => {
            let samples = chunk::xor::Iter::new(&chunk.bytes).map_err(|e| corrupt(chunk, e))?;
            check_times(chunk, shape, samples.map(|s| s.map(|s| s.timestamp)))
        }
        Encoding::Histogram => {
            let samples = IntIter::new(&chunk.bytes).map_err(|e| corrupt(chunk, e))?;
            check_times(chunk, shape, samples.map(|s| s.map(|s| s.timestamp)))
        }
        Encoding::FloatHistogram => {
            let samples = FloatIter::new(&chunk.bytes).map_err(|e| corrupt(chunk, e))?;
            check_times(chunk, shape, samples.map(|s| s.map(|s| s.timestamp)))
        }
        _ => Err(corrupt(chunk, "has an encoding that the head does not make")),
    }
}

fn corrupt(chunk: &ChunkData, what: impl std::fmt::Display) -> Error {
    let text = format!("chunk {}..={} {what}", chunk.range.start, chunk.range.end);
    Error::new(Kind::Corrupt, text)
}

fn check_times(
    chunk: &ChunkData,
    shape: &mut Shape,
    times: impl Iterator<Item = Result<Timestamp, chunk::Error>>,
) -> Result<(), Error> {
    let (mut first, mut last) = (None, None);
    for t in times {
        let t = t.map_err(|e| corrupt(chunk, e))?;
        if last.is_some_and(|last| last >= t) {
            return Err(corrupt(chunk, format_args!("goes back in time at {t}")));
        }
        shape.see(t, first.is_none());
        first.get_or_insert(t);
        last = Some(t);
    }
    match (first, last) {
        (Some(first), Some(last)) if TimeRange::new(first, last) == chunk.range => Ok(()),
        _ => Err(corrupt(chunk, "does not hold the times it says")),
    }
}

#[cfg(test)]
mod tests {
    use model::Sample;

    use super::*;
    use crate::head::encode;

    const WINDOW: i64 = 7_200_000;

    #[test]
    fn however_samples_came_their_chunks_are_the_same() {
        let all: Vec<Sample> =
            (0..480).map(|n| Sample { timestamp: n * 15_000, value: (n * n % 97) as f64 }).collect();
        let parts: Vec<ChunkData> = chunk::cut::split(&all, WINDOW).filter_map(encode).collect();
        assert_eq!(parts.len(), 4);
        assert!(matches!(whole(&parts, WINDOW).unwrap(), Cow::Borrowed(_)), "copied as they are");
        let odd = |n: &Sample| n.timestamp % 30_000 != 0;
        let (late, in_order): (Vec<Sample>, Vec<Sample>) = all.iter().copied().partition(odd);
        let ways: [Vec<ChunkData>; 4] = [
            // Cut off by a restart, counted, joined, and half of them late.
            [&all[..7], &all[7..300], &all[300..]].into_iter().filter_map(encode).collect(),
            all.chunks(100).filter_map(encode).collect(),
            encode(&all).into_iter().collect(),
            in_order.chunks(120).chain(late.chunks(240)).filter_map(encode).collect(),
        ];
        for way in ways {
            assert_eq!(whole(&way, WINDOW).unwrap()[..], parts);
        }
        assert!(whole(&[], WINDOW).unwrap().is_empty());
    }
}
