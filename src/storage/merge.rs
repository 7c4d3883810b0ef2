//! K-way merge of sorted series sets; series with equal labels become one.
//!
//! Copies of a chunk that are equal byte for byte are kept once. Everything finer (the same sample in two
//! different chunks) is settled where samples are decoded, by [`crate::decode_series`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::Labels;

use crate::{ChunkData, Error, Notes, SeriesEntry, SeriesSet};

/// The union of sorted sets.
pub struct Merge {
    sources: Vec<Box<dyn SeriesSet>>,
    heads: Vec<Option<SeriesEntry>>,
    heap: BinaryHeap<Reverse<(Labels, usize)>>,
    started: bool,
}

impl Merge {
    pub fn new(sources: Vec<Box<dyn SeriesSet>>) -> Merge {
        let heads = sources.iter().map(|_| None).collect();
        Merge { sources, heads, heap: BinaryHeap::new(), started: false }
    }

    fn pull(&mut self, at: usize) -> Result<(), Error> {
        self.heads[at] = self.sources[at].next()?;
        if let Some(entry) = &self.heads[at] {
            self.heap.push(Reverse((entry.labels.clone(), at)));
        }
        Ok(())
    }
}

impl Merge {
    /// The next series, where only one source still has any.
    fn last(&mut self, at: usize) -> Result<Option<SeriesEntry>, Error> {
        let Some(mut entry) = self.heads[at].take() else { return Ok(None) };
        while let Some(mut next) = self.sources[at].next()? {
            if next.labels != entry.labels {
                self.heap.push(Reverse((next.labels.clone(), at)));
                self.heads[at] = Some(next);
                break;
            }
            entry.chunks.append(&mut next.chunks);
        }
        sort_and_drop_copies(&mut entry.chunks);
        Ok(Some(entry))
    }
}

impl SeriesSet for Merge {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if !self.started {
            self.started = true;
            for at in 0..self.sources.len() {
                self.pull(at)?;
            }
        }
        let Some(Reverse((labels, at))) = self.heap.pop() else { return Ok(None) };
        if self.heap.is_empty() {
            return self.last(at);
        }
        let mut chunks = self.heads[at].take().map(|entry| entry.chunks).unwrap_or_default();
        let mut pulled = vec![at];
        while let Some(Reverse((other, _))) = self.heap.peek()
            && *other == labels
        {
            if let Some(Reverse((_, at))) = self.heap.pop() {
                chunks.extend(self.heads[at].take().map(|entry| entry.chunks).unwrap_or_default());
                pulled.push(at);
            }
        }
        for &at in &pulled {
            // A source may show one series in several consecutive entries.
            loop {
                self.pull(at)?;
                match &mut self.heads[at] {
                    Some(entry) if entry.labels == labels => {
                        chunks.append(&mut entry.chunks);
                        self.heap.retain(|Reverse((_, source))| *source != at);
                    }
                    _ => break,
                }
            }
        }
        sort_and_drop_copies(&mut chunks);
        Ok(Some(SeriesEntry { labels, chunks }))
    }

    fn notes(&mut self) -> Notes {
        let mut notes = Notes::default();
        for source in &mut self.sources {
            notes.absorb(source.notes());
        }
        notes
    }
}

fn sort_and_drop_copies(chunks: &mut Vec<ChunkData>) {
    let key = |c: &ChunkData| (c.range.start, c.range.end, c.encoding as u8);
    if chunks.is_sorted_by(|a, b| key(a) < key(b)) {
        return;
    }
    chunks.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.bytes.cmp(&b.bytes)));
    chunks.dedup();
}

/// Reads a set to its end.
pub fn collect(mut set: Box<dyn SeriesSet>) -> Result<(Vec<SeriesEntry>, Notes), Error> {
    let mut out = Vec::new();
    while let Some(entry) = set.next()? {
        out.push(entry);
    }
    Ok((out, set.notes()))
}

/// A set over entries that are sorted already.
pub fn from_entries(entries: Vec<SeriesEntry>) -> Box<dyn SeriesSet> {
    struct Entries(std::vec::IntoIter<SeriesEntry>);
    impl SeriesSet for Entries {
        fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
            Ok(self.0.next())
        }
    }
    Box::new(Entries(entries.into_iter()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chunk::Encoding;
    use model::TimeRange;

    use super::*;

    fn entry(name: &str, starts: &[i64]) -> SeriesEntry {
        let chunk = |&t: &i64| ChunkData {
            range: TimeRange::new(t, t + 9),
            encoding: Encoding::Xor,
            bytes: Bytes::from(vec![t as u8]),
        };
        SeriesEntry {
            labels: Labels::from_pairs([("a", name)]).unwrap(),
            chunks: starts.iter().map(chunk).collect(),
        }
    }

    #[test]
    fn equal_series_meet_and_copies_drop() {
        let left = from_entries(vec![entry("1", &[0, 10]), entry("3", &[0])]);
        let middle = from_entries(vec![entry("1", &[10, 20]), entry("2", &[5])]);
        // One series in two consecutive entries, as a StoreAPI stream may have it.
        let right = from_entries(vec![entry("1", &[0]), entry("1", &[30]), entry("3", &[7])]);
        let (merged, _) = collect(Box::new(Merge::new(vec![left, middle, right]))).unwrap();
        let shown: Vec<_> = merged
            .iter()
            .map(|e| {
                (e.labels.value("a").to_owned(), e.chunks.iter().map(ChunkData::start).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            shown,
            [("1".to_owned(), vec![0, 10, 20, 30]), ("2".to_owned(), vec![5]), ("3".to_owned(), vec![0, 7])]
        );
    }
}
