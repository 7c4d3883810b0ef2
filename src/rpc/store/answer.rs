//! A peer's answer on the caller's side: frames out of the channel into sorted series, each of them once.

use model::{Kind, Labels};
use runtime::World;
use storage::{Context, Error, Notes, Reservation, SeriesEntry, SeriesSet};
use tokio::sync::mpsc;

/// What one frame held.
#[derive(Default)]
pub(super) struct Part {
    pub(super) entries: Vec<SeriesEntry>,
    pub(super) warning: Option<String>,
    pub(super) held: Option<Reservation>,
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        let of = |e: &SeriesEntry| {
            e.labels.as_bytes().len() + e.chunks.iter().map(|c| c.bytes.len()).sum::<usize>()
        };
        self.entries.iter().map(of).sum::<usize>() as u64
    }
}

pub(super) type Item = Result<Part, Error>;

/// A peer's answer as it comes in.
pub(super) struct PeerSet {
    address: String,
    world: World,
    context: Context,
    parts: mpsc::Receiver<Item>,
    part: std::vec::IntoIter<SeriesEntry>,
    held: Option<Reservation>,
    next: Option<SeriesEntry>,
    last: Option<Labels>,
    notes: Notes,
}

impl PeerSet {
    pub(super) fn new(
        address: String,
        world: World,
        context: Context,
        parts: mpsc::Receiver<Item>,
    ) -> PeerSet {
        let part = Vec::new().into_iter();
        let notes = Notes::default();
        PeerSet { address, world, context, parts, part, held: None, next: None, last: None, notes }
    }

    fn pull(&mut self) -> Result<Option<SeriesEntry>, Error> {
        loop {
            if let Some(entry) = self.part.next() {
                return Ok(Some(entry));
            }
            self.held = None;
            self.context.cancel.check(self.world.clock.monotonic())?;
            match self.parts.blocking_recv() {
                None => return Ok(None),
                Some(part) => {
                    let part = part?;
                    self.notes.warnings.extend(part.warning);
                    self.part = part.entries.into_iter();
                    self.held = part.held;
                }
            }
        }
    }
}

impl SeriesSet for PeerSet {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        let first = match self.next.take() {
            Some(entry) => Some(entry),
            None => self.pull()?,
        };
        let Some(mut entry) = first else { return Ok(None) };
        // A merge of unsorted streams would show a series twice.
        if self.last.as_ref().is_some_and(|last| *last > entry.labels) {
            let message = format!("{}: sent series {} out of order", self.address, entry.labels);
            return Err(Error::new(Kind::Corrupt, message));
        }
        // A large series comes in several frames.
        while let Some(mut next) = self.pull()? {
            if next.labels != entry.labels {
                self.next = Some(next);
                break;
            }
            entry.chunks.append(&mut next.chunks);
        }
        entry.chunks.sort_by_key(|c| (c.range.start, c.range.end));
        self.last = Some(entry.labels.clone());
        Ok(Some(entry))
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

/// The answer of a peer that leaves labels in: all of its series are read and sorted anew without them.
pub(super) fn resort(
    mut set: Box<dyn SeriesSet>,
    without: &[String],
    context: &Context,
) -> Result<Box<dyn SeriesSet>, Error> {
    let mut held = context.budget.reserve(0)?;
    let mut entries = Vec::new();
    while let Some(mut entry) = set.next()? {
        entry.labels = entry.labels.filter(|name| !without.iter().any(|w| w == name));
        let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len()).sum();
        held.grow((entry.labels.as_bytes().len() + chunks) as u64)?;
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Box::new(Resorted { entries: entries.into_iter(), next: None, notes: set.notes(), _held: held }))
}

struct Resorted {
    entries: std::vec::IntoIter<SeriesEntry>,
    next: Option<SeriesEntry>,
    notes: Notes,
    _held: Reservation,
}

impl SeriesSet for Resorted {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        let Some(mut entry) = self.next.take().or_else(|| self.entries.next()) else { return Ok(None) };
        for mut next in self.entries.by_ref() {
            if next.labels != entry.labels {
                self.next = Some(next);
                break;
            }
            entry.chunks.append(&mut next.chunks);
        }
        entry.chunks.sort_by_key(|c| (c.range.start, c.range.end));
        Ok(Some(entry))
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

#[cfg(test)]
mod tests {
    use storage::{collect, from_entries};

    use super::*;

    #[test]
    fn labels_that_a_peer_left_in_are_removed_in_order() {
        let entry = |pairs: &[(&str, &str)]| SeriesEntry {
            labels: Labels::from_pairs(pairs.iter().copied()).unwrap(),
            chunks: Vec::new(),
        };
        let set = from_entries(vec![
            entry(&[("a", "1"), ("b", "9")]),
            entry(&[("a", "1"), ("r", "x"), ("s", "2")]),
            entry(&[("a", "1"), ("r", "y"), ("s", "1")]),
            entry(&[("a", "1"), ("r", "z"), ("s", "2")]),
        ]);
        let set = resort(set, &["r".to_owned()], &Context::background()).unwrap();
        let (entries, _) = collect(set).unwrap();
        let shown: Vec<_> = entries.iter().map(|e| e.labels.to_string()).collect();
        assert_eq!(shown, [r#"{a="1", b="9"}"#, r#"{a="1", s="1"}"#, r#"{a="1", s="2"}"#]);
    }
}
