//! Highly available pairs shown as one series each.
//!
//! Removing a label from sorted series can break their order, so the answer is read whole (within the query's
//! budget), sorted again, and each group of replicas becomes one series by [`crate::penalty`]. A series without
//! a second replica passes as it came.

use chunk::{ChunkData, Encoding};
use model::{Kind, Labels, Sample, TimeRange};
use storage::{Columns, Context, Error, Notes, Reservation, SeriesEntry, SeriesSet, decode_series};

use crate::penalty;

/// Samples in a chunk that is written here.
const CHUNK_SAMPLES: usize = 120;

/// An answer without the labels of its pairs.
pub struct Pairs {
    entries: std::iter::Peekable<std::vec::IntoIter<SeriesEntry>>,
    counter: bool,
    range: TimeRange,
    limit: usize,
    given: usize,
    notes: Notes,
    _held: Reservation,
}

impl Pairs {
    /// Reads `set` to its end. `limit` counts series as they are shown; 0 means all.
    pub fn read(
        mut set: Box<dyn SeriesSet>,
        labels: Vec<String>,
        counter: bool,
        range: TimeRange,
        limit: usize,
        context: &Context,
    ) -> Result<Pairs, Error> {
        let mut held = context.budget.reserve(0)?;
        let mut entries = Vec::new();
        while let Some(mut entry) = set.next()? {
            entry.labels = entry.labels.filter(|name| !labels.iter().any(|l| l == name));
            let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of::<ChunkData>()).sum();
            held.grow((entry.labels.as_bytes().len() + chunks) as u64)?;
            entries.push(entry);
        }
        // Stable: among replicas the order stays that of the removed labels, the same on every run.
        entries.sort_by(|a, b| a.labels.cmp(&b.labels));
        let (entries, notes) = (entries.into_iter().peekable(), set.notes());
        Ok(Pairs { entries, counter, range, limit, given: 0, notes, _held: held })
    }

    fn one_of(&self, labels: Labels, replicas: &[SeriesEntry]) -> Result<SeriesEntry, Error> {
        if replicas.iter().all(|r| r.chunks.is_empty()) {
            return Ok(SeriesEntry { labels, chunks: Vec::new() });
        }
        let mut columns = Vec::with_capacity(replicas.len());
        for replica in replicas {
            let mut decoded = Columns::default();
            decode_series(&replica.chunks, self.range, &mut decoded)?;
            columns.push(decoded);
        }
        let folded = penalty::fold(&columns, self.counter);
        Ok(SeriesEntry { labels, chunks: encode(&folded)? })
    }
}

impl SeriesSet for Pairs {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if self.limit > 0 && self.given == self.limit {
            return Ok(None);
        }
        let Some(first) = self.entries.next() else { return Ok(None) };
        self.given += 1;
        let mut group = vec![first];
        while let Some(next) = self.entries.next_if(|next| next.labels == group[0].labels) {
            group.push(next);
        }
        match group.len() {
            1 => Ok(group.pop()),
            _ => self.one_of(group[0].labels.clone(), &group).map(Some),
        }
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

fn encode(columns: &Columns) -> Result<Vec<ChunkData>, Error> {
    let mut chunks = Vec::with_capacity(columns.len().div_ceil(CHUNK_SAMPLES));
    let pieces = columns.timestamps.chunks(CHUNK_SAMPLES).zip(columns.values.chunks(CHUNK_SAMPLES));
    for (times, values) in pieces {
        let (Some(start), Some(end)) = (times.first(), times.last()) else { continue };
        let samples = times.iter().zip(values).map(|(t, v)| Sample { timestamp: *t, value: *v });
        let bytes = chunk::xor::encode(samples)
            .map_err(|e| Error::with_source(Kind::Internal, format!("cannot write a chunk: {e}"), e))?;
        let range = TimeRange::new(*start, *end);
        chunks.push(ChunkData { range, encoding: Encoding::Xor, bytes: bytes.into() });
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], start: i64) -> SeriesEntry {
        let mut columns = Columns::default();
        (0..200).for_each(|i| columns.push(start + i * 10_000, i as f64));
        SeriesEntry {
            labels: Labels::from_pairs(labels.iter().copied()).unwrap(),
            chunks: encode(&columns).unwrap(),
        }
    }

    #[test]
    fn replicas_become_one_and_order_is_restored() {
        // Sorted by all labels, but not without `ha`.
        let set = vec![
            series(&[("ha", "a"), ("job", "x")], 0),
            series(&[("ha", "a"), ("job", "y")], 0),
            series(&[("ha", "b"), ("job", "x")], 3_000),
            series(&[("job", "m")], 0),
        ];
        let read = |limit| {
            let set = storage::from_entries(set.clone());
            let context = Context::background();
            let pairs = Pairs::read(set, vec!["ha".into()], false, TimeRange::ALL, limit, &context).unwrap();
            storage::collect(Box::new(pairs)).unwrap().0
        };
        let all = read(0);
        let jobs: Vec<_> = all.iter().map(|e| e.labels.to_string()).collect();
        assert_eq!(jobs, ["{job=\"m\"}", "{job=\"x\"}", "{job=\"y\"}"]);
        let mut decoded = Columns::default();
        decode_series(&all[1].chunks, TimeRange::ALL, &mut decoded).unwrap();
        // One of the two was followed throughout; nothing is interleaved.
        assert_eq!(decoded.len(), 200);
        assert!(decoded.timestamps.iter().all(|t| t % 10_000 == 0));
        assert_eq!(read(2).len(), 2);
    }
}
