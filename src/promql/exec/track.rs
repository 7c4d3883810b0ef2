//! The samples of one series as they are stored: floats in columns, histograms beside them.

use std::sync::Arc;

use model::{TimeRange, Timestamp, is_stale};
use storage::{ChunkData, Columns, HistogramColumns, decode_mixed};

use super::{Cell, Native};
use crate::{Error, native};

/// Histograms and their times, as in [`Columns`].
#[derive(Clone, Debug, Default)]
pub(crate) struct NativeColumns {
    pub(crate) timestamps: Vec<Timestamp>,
    pub(crate) values: Vec<Native>,
    /// Empty, or as long as the others.
    pub(crate) starts: Vec<Timestamp>,
}

/// Samples of a series; buffers are reused from one series to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    pub(crate) floats: Columns,
    pub(crate) natives: NativeColumns,
    decoded: HistogramColumns,
}

/// A sample by its place in a [`Track`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Float(usize),
    Native(usize),
}

impl Track {
    pub(crate) fn clear(&mut self) {
        self.floats.clear();
        self.natives.timestamps.clear();
        self.natives.values.clear();
        self.natives.starts.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.natives.values.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.floats.len() + self.natives.values.len()
    }

    /// Bytes of all samples, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let each = |h: &Native| {
            size_of::<model::FloatHistogram>() + 8 * (h.positive_counts.len() + h.negative_counts.len())
        };
        self.floats.len() * 16 + self.natives.values.iter().map(each).sum::<usize>()
    }

    /// The samples of `chunks` in `range` replace what was there. With `stats` only count and sum of histograms are
    /// wanted: buckets are looked at for resets and left away.
    pub(crate) fn decode(
        &mut self,
        chunks: &[ChunkData],
        range: TimeRange,
        stats: bool,
    ) -> Result<(), Error> {
        self.clear();
        self.decoded.clear();
        decode_mixed(chunks, range, &mut self.floats, &mut self.decoded)?;
        if self.decoded.is_empty() {
            return Ok(());
        }
        if stats {
            native::keep_stats(&mut self.decoded.histograms);
        }
        self.natives.timestamps.append(&mut self.decoded.timestamps);
        self.natives.starts.append(&mut self.decoded.starts);
        self.natives.values.extend(self.decoded.histograms.drain(..).map(Arc::new));
        Ok(())
    }

    /// Appends a value that was computed.
    pub(crate) fn push(&mut self, time: Timestamp, cell: Cell) {
        match cell {
            Cell::Float(v) => self.floats.push(time, v),
            Cell::Native(h) => {
                self.natives.timestamps.push(time);
                self.natives.values.push(h);
            }
        }
    }

    /// Of the sample before index `floats` and the one before index `natives` the later one.
    pub(crate) fn newest(&self, floats: usize, natives: usize) -> Option<(Timestamp, Place)> {
        let float = floats.checked_sub(1).map(|at| (self.floats.timestamps[at], Place::Float(at)));
        let native = natives.checked_sub(1).map(|at| (self.natives.timestamps[at], Place::Native(at)));
        match (float, native) {
            (Some(f), Some(n)) => Some(if f.0 > n.0 { f } else { n }),
            (f, n) => f.or(n),
        }
    }

    pub(crate) fn is_stale(&self, place: Place) -> bool {
        match place {
            Place::Float(at) => is_stale(self.floats.values[at]),
            Place::Native(at) => self.natives.values[at].is_stale(),
        }
    }

    pub(crate) fn cell(&self, place: Place) -> Cell {
        match place {
            Place::Float(at) => Cell::Float(self.floats.values[at]),
            Place::Native(at) => Cell::Native(self.natives.values[at].clone()),
        }
    }

    /// When the counter of a sample began, 0 where that is not known.
    pub(crate) fn start(&self, place: Place) -> Timestamp {
        let (starts, at) = match place {
            Place::Float(at) => (&self.floats.starts, at),
            Place::Native(at) => (&self.natives.starts, at),
        };
        starts.get(at).copied().unwrap_or(0)
    }

    pub(crate) fn drop_starts(&mut self) {
        self.floats.starts.clear();
        self.natives.starts.clear();
    }

    pub(crate) fn drop_stale(&mut self) {
        if self.floats.values.iter().any(|v| is_stale(*v)) {
            let columns = &mut self.floats;
            let mut kept = 0;
            for at in 0..columns.len() {
                if !is_stale(columns.values[at]) {
                    columns.values[kept] = columns.values[at];
                    columns.timestamps[kept] = columns.timestamps[at];
                    if !columns.starts.is_empty() {
                        columns.starts[kept] = columns.starts[at];
                    }
                    kept += 1;
                }
            }
            columns.values.truncate(kept);
            columns.timestamps.truncate(kept);
            columns.starts.truncate(kept);
        }
        let natives = &mut self.natives;
        for at in (0..natives.values.len()).rev() {
            if natives.values[at].is_stale() {
                natives.values.remove(at);
                natives.timestamps.remove(at);
                if !natives.starts.is_empty() {
                    natives.starts.remove(at);
                }
            }
        }
    }
}
