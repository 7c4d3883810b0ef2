//! K-way merge of sorted series sets; series with equal labels become one.
//!
//! Copies of a chunk that are equal byte for byte are kept once. Everything finer (the same sample in two
//! different chunks) is settled where samples are decoded, by [`crate::decode_series`].

use std::cmp::Ordering;

use model::Labels;

use crate::{ChunkData, Error, Notes, SeriesEntry, SeriesSet};

/// The union of sorted sets.
///
/// # Cost
/// About two comparisons of labels per entry of a source and doubling of the sources; none for a single one. Nothing
/// is allocated but what chunks of equal series need.
pub struct Merge {
    sources: Vec<Box<dyn SeriesSet>>,
    /// The entry at which each source stands.
    heads: Vec<Option<SeriesEntry>>,
    /// Sources that stand at an entry, as a binary heap: the least labels first.
    heap: Vec<usize>,
    started: bool,
}

impl Merge {
    pub fn new(sources: Vec<Box<dyn SeriesSet>>) -> Merge {
        let heads = sources.iter().map(|_| None).collect();
        Merge { sources, heads, heap: Vec::new(), started: false }
    }

    fn start(&mut self) -> Result<(), Error> {
        for at in 0..self.sources.len() {
            self.heads[at] = self.sources[at].next()?;
            if self.heads[at].is_some() {
                self.heap.push(at);
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sink(at);
        }
        Ok(())
    }

    fn labels(&self, place: usize) -> Option<&Labels> {
        Some(&self.heads[*self.heap.get(place)?].as_ref()?.labels)
    }

    /// Whether the source at one place of the heap comes before the one at another.
    fn before(&self, a: usize, b: usize) -> bool {
        match self.labels(a).cmp(&self.labels(b)) {
            Ordering::Equal => self.heap[a] < self.heap[b],
            order => order == Ordering::Less,
        }
    }

    /// Puts what may be too great for its place where it belongs.
    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = 2 * place + 1;
            if least >= self.heap.len() {
                return;
            }
            if least + 1 < self.heap.len() && self.before(least + 1, least) {
                least += 1;
            }
            if !self.before(least, place) {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }

    /// Takes the first source's entry and goes on there; a source may show one series in several consecutive entries.
    fn take_first(&mut self) -> Result<Option<SeriesEntry>, Error> {
        let Some(&at) = self.heap.first() else { return Ok(None) };
        let Some(mut entry) = self.heads[at].take() else { return Ok(None) };
        loop {
            match self.sources[at].next()? {
                Some(mut next) if next.labels == entry.labels => entry.chunks.append(&mut next.chunks),
                Some(next) => {
                    self.heads[at] = Some(next);
                    break;
                }
                None => {
                    self.heap.swap_remove(0);
                    break;
                }
            }
        }
        self.sink(0);
        Ok(Some(entry))
    }
}

impl SeriesSet for Merge {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if !self.started {
            self.started = true;
            self.start()?;
        }
        let Some(mut entry) = self.take_first()? else { return Ok(None) };
        while self.labels(0) == Some(&entry.labels) {
            let Some(mut other) = self.take_first()? else { break };
            entry.chunks.append(&mut other.chunks);
        }
        sort_and_drop_copies(&mut entry.chunks);
        Ok(Some(entry))
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

    #[test]
    fn any_number_of_sources_becomes_one_in_order() {
        // Source n has the multiples of n + 1; some have none at all.
        for count in 0..20 {
            let set = |n: usize| {
                let names = (1..60).filter(|i| n < 15 && i % (n + 1) == 0);
                from_entries(names.map(|i| entry(&format!("{i:02}"), &[n as i64 * 10])).collect())
            };
            let (merged, _) = collect(Box::new(Merge::new((0..count).map(set).collect()))).unwrap();
            let shown = |e: &SeriesEntry| -> (usize, Vec<i64>) {
                (e.labels.value("a").parse().unwrap(), e.chunks.iter().map(ChunkData::start).collect())
            };
            let expected = (1..60).map(|i| {
                let sources = (0..count.min(15)).filter(|n| i % (n + 1) == 0);
                (i, sources.map(|n| n as i64 * 10).collect::<Vec<_>>())
            });
            let expected: Vec<_> = expected.filter(|(_, starts)| !starts.is_empty()).collect();
            assert_eq!(merged.iter().map(shown).collect::<Vec<_>>(), expected, "{count} sources");
        }
    }
}
