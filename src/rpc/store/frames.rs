//! Series into frames: large series cut at a megabyte of chunks, small ones packed into batches.

use storage::{Error, SeriesEntry};
use wire::pb::thanos::{self as pb, series_response::Result as Frame};

use crate::convert;

/// Bytes of chunks after which a frame is sent.
const FRAME_BYTES: usize = 1 << 20;

/// Packs series; frames come out as they fill.
pub(crate) struct Frames {
    /// Series per batch; up to 1 means a frame for each.
    batch_size: usize,
    batch: Vec<pb::Series>,
    bytes: usize,
}

impl Frames {
    pub(crate) fn new(batch_size: i64) -> Frames {
        Frames { batch_size: batch_size.clamp(1, 4096) as usize, batch: Vec::new(), bytes: 0 }
    }

    /// Adds a series; `emit` gets every frame that this fills. Labels alone are sent where there are no chunks.
    pub(crate) fn push(
        &mut self,
        entry: &SeriesEntry,
        emit: &mut impl FnMut(pb::SeriesResponse) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let labels = convert::labels_to_pb(&entry.labels);
        let labels_bytes = entry.labels.as_bytes().len();
        let mut series = pb::Series { labels, chunks: Vec::with_capacity(entry.chunks.len()) };
        self.bytes += labels_bytes;
        for (at, chunk) in entry.chunks.iter().enumerate() {
            series.chunks.push(convert::chunk_to_pb(chunk)?);
            self.bytes += chunk.bytes.len();
            if self.bytes >= FRAME_BYTES && at + 1 < entry.chunks.len() {
                let labels = series.labels.clone();
                self.batch.push(std::mem::replace(&mut series, pb::Series { labels, chunks: Vec::new() }));
                self.flush(emit)?;
                self.bytes = labels_bytes;
            }
        }
        self.batch.push(series);
        if self.batch.len() >= self.batch_size || self.bytes >= FRAME_BYTES {
            self.flush(emit)?;
        }
        Ok(())
    }

    /// Sends what is left.
    pub(crate) fn flush(
        &mut self,
        emit: &mut impl FnMut(pb::SeriesResponse) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.bytes = 0;
        if self.batch_size > 1 && !self.batch.is_empty() {
            let series = std::mem::take(&mut self.batch);
            return emit(frame(Frame::Batch(pb::SeriesBatch { series })));
        }
        for series in self.batch.drain(..) {
            emit(frame(Frame::Series(series)))?;
        }
        Ok(())
    }
}

pub(crate) fn warning(text: String) -> pb::SeriesResponse {
    frame(Frame::Warning(text))
}

fn frame(result: Frame) -> pb::SeriesResponse {
    pb::SeriesResponse { result: Some(result) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chunk::Encoding;
    use model::{Labels, TimeRange};
    use storage::ChunkData;

    use super::*;

    fn entry(name: &str, chunks: usize, bytes: usize) -> SeriesEntry {
        let chunk = |n| ChunkData {
            range: TimeRange::new(n as i64, n as i64),
            encoding: Encoding::Xor,
            bytes: Bytes::from(vec![n as u8; bytes]),
        };
        SeriesEntry {
            labels: Labels::from_pairs([("a", name)]).unwrap(),
            chunks: (0..chunks).map(chunk).collect(),
        }
    }

    fn run(batch: i64, entries: &[SeriesEntry]) -> Vec<Vec<(String, usize)>> {
        let mut out = Vec::new();
        let mut emit = |response: pb::SeriesResponse| {
            let series = match response.result {
                Some(Frame::Series(series)) => vec![series],
                Some(Frame::Batch(batch)) => batch.series,
                other => panic!("{other:?}"),
            };
            out.push(series.into_iter().map(|s| (s.labels[0].value.clone(), s.chunks.len())).collect());
            Ok(())
        };
        let mut frames = Frames::new(batch);
        for entry in entries {
            frames.push(entry, &mut emit).unwrap();
        }
        frames.flush(&mut emit).unwrap();
        out
    }

    #[test]
    fn batches_and_single_frames() {
        let five: Vec<_> = (0..5).map(|n| entry(&n.to_string(), 1, 10)).collect();
        assert_eq!(run(0, &five).len(), 5);
        let sizes: Vec<_> = run(2, &five).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(run(64, &[entry("x", 0, 0)]), [[("x".to_owned(), 0)]]);
    }

    #[test]
    fn a_large_series_spans_frames() {
        let out = run(64, &[entry("big", 7, 400 << 10), entry("small", 1, 10)]);
        let big: usize = out.iter().flatten().filter(|(name, _)| name == "big").map(|(_, n)| n).sum();
        assert_eq!(big, 7);
        assert_eq!(out.len(), 3);
        assert_eq!(out[2], [("big".to_owned(), 1), ("small".to_owned(), 1)]);
    }
}
