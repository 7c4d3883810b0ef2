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
    /// When each sample's counter began, in milliseconds, 0 where nobody said. Empty where nothing is known of any
    /// sample, as of all that older formats hold.
    pub starts: Vec<Timestamp>,
}

impl Columns {
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
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
        if !self.starts.is_empty() {
            self.starts.push(0);
        }
    }

    /// The same of a sample whose counter began at `start`.
    pub fn push_started(&mut self, timestamp: Timestamp, value: f64, start: Timestamp) {
        self.push(timestamp, value);
        note_start(&mut self.starts, self.timestamps.len(), start);
    }
}

/// Notes the start of the sample that was added last, as number `count`.
pub(crate) fn note_start(starts: &mut Vec<Timestamp>, count: usize, start: Timestamp) {
    if start != 0 {
        starts.resize(count, 0);
        starts[count - 1] = start;
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
        if chunk.encoding == Encoding::Xor2 {
            for sample in chunk::xor2::Iter::new(&chunk.bytes).map_err(corrupt)? {
                let (sample, start) = sample.map_err(corrupt)?;
                if range.contains(sample.timestamp) {
                    tangled |= out.len() > first && out.timestamps[out.len() - 1] >= sample.timestamp;
                    out.push_started(sample.timestamp, sample.value, start);
                }
            }
            continue;
        }
        if chunk.encoding != Encoding::Xor {
            return Err(Error::new(
                Kind::Refused,
                format!("chunk encoding {:?} cannot be evaluated by this version", chunk.encoding),
            ));
        }
        let from = out.len();
        chunk::xor::decode_range(&chunk.bytes, range, &mut out.timestamps, &mut out.values)
            .map_err(corrupt)?;
        if !out.starts.is_empty() {
            out.starts.resize(out.len(), 0);
        }
        // From the sample before on, if there is one of this series.
        let new = &out.timestamps[from.saturating_sub(1).max(first)..];
        tangled |= !new.is_sorted_by(|a, b| a < b);
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
    let start = |at: usize| out.starts.get(at).copied().unwrap_or(0);
    let mut samples: Vec<(Timestamp, f64, Timestamp)> =
        (first..out.len()).map(|at| (out.timestamps[at], out.values[at], start(at))).collect();
    samples.sort_by_key(|(t, ..)| *t);
    out.timestamps.truncate(first);
    out.values.truncate(first);
    out.starts.truncate(first);
    for (t, v, start) in samples {
        match out.timestamps.len() {
            n if n > first && out.timestamps[n - 1] == t => {
                out.values[n - 1] = pick_conflict(out.values[n - 1], v);
                let known = out.starts.get(n - 1).copied().unwrap_or(0);
                note_start(&mut out.starts, n, known.max(start));
            }
            _ => out.push_started(t, v, start),
        }
    }
}
