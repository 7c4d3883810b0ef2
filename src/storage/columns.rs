//! A series' samples as two columns, decoded from chunks and merged exactly.
//!
//! # Cost
//! One pass per chunk. Chunks that do not overlap are decoded one after the other without comparison; only
//! overlapping ones are sorted together. Buffers are reused: no allocation once they have grown.

use chunk::Encoding;
use model::{Kind, TimeRange, Timestamp, pick_conflict};

use crate::{ChunkData, Error};

/// Times (ascending, unique) and values, side by side.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    pub timestamps: Vec<Timestamp>,
    pub values: Vec<f64>,
}

impl Columns {
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Adds a sample at the end; the caller keeps the order.
    pub fn push(&mut self, timestamp: Timestamp, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
    }
}

/// Appends the samples of `chunks` that lie in `range` to `out`: sorted by time, each time once. Where two
/// chunks have different values for one time, [`pick_conflict`] decides, whatever their order.
///
/// Chunks of histograms are refused; [`crate::decode_mixed`] reads them.
pub fn decode_series(chunks: &[ChunkData], range: TimeRange, out: &mut Columns) -> Result<(), Error> {
    decode_floats(chunks.iter(), range, out)
}

pub(crate) fn decode_floats<'a>(
    chunks: impl Iterator<Item = &'a ChunkData>,
    range: TimeRange,
    out: &mut Columns,
) -> Result<(), Error> {
    let first = out.len();
    let mut tangled = false;
    for chunk in chunks.filter(|c| c.range.overlaps(&range)) {
        if chunk.encoding != Encoding::Xor {
            return Err(Error::new(
                Kind::Refused,
                format!("chunk encoding {:?} cannot be evaluated by this version", chunk.encoding),
            ));
        }
        let iter = chunk::xor::Iter::new(&chunk.bytes).map_err(corrupt)?;
        for sample in iter {
            let sample = sample.map_err(corrupt)?;
            if !range.contains(sample.timestamp) {
                continue;
            }
            tangled |= out.len() > first && out.timestamps[out.len() - 1] >= sample.timestamp;
            out.push(sample.timestamp, sample.value);
        }
    }
    if tangled {
        untangle(out, first);
    }
    Ok(())
}

fn corrupt(error: chunk::Error) -> Error {
    Error::with_source(Kind::Corrupt, format!("chunk does not decode: {error}"), error)
}

fn untangle(out: &mut Columns, first: usize) {
    let mut pairs: Vec<(Timestamp, f64)> =
        out.timestamps[first..].iter().copied().zip(out.values[first..].iter().copied()).collect();
    pairs.sort_by_key(|(t, _)| *t);
    out.timestamps.truncate(first);
    out.values.truncate(first);
    for (t, v) in pairs {
        match out.timestamps.len() {
            n if n > first && out.timestamps[n - 1] == t => {
                out.values[n - 1] = pick_conflict(out.values[n - 1], v)
            }
            _ => out.push(t, v),
        }
    }
}
