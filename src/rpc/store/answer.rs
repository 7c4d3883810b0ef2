//! A peer's answer on the caller's side: frames out of the channel into sorted series, each of them once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use model::{Kind, Labels};
use runtime::World;
use storage::{Context, Error, Notes, Reservation, SeriesEntry, SeriesSet};
use tokio::runtime::Handle;
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
        let of_chunk = |c: &storage::ChunkData| c.bytes.len() + size_of::<storage::ChunkData>();
        let of = |e: &SeriesEntry| {
            size_of::<SeriesEntry>()
                + e.labels.as_bytes().len()
                + e.chunks.iter().map(of_chunk).sum::<usize>()
        };
        self.entries.iter().map(of).sum::<usize>() as u64
    }
}

pub(super) type Item = Result<Part, Error>;

/// How far a peer's answer has come, for those who wait for several.
#[derive(Clone, Default)]
pub struct Watch {
    arrived: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Whether something is there to be read, be it the end.
    pub fn has_something(&self) -> bool {
        self.ended.load(SeqCst) || self.arrived.load(SeqCst) > self.taken.load(SeqCst)
    }

    pub(super) fn arrived(&self) {
        self.arrived.fetch_add(1, SeqCst);
    }

    pub(super) fn ended(&self) {
        self.ended.store(true, SeqCst);
    }
}

/// What came within a time.
pub enum Waited {
    /// The next series, or the end.
    Came(Option<SeriesEntry>),
    NotYet,
}

/// A peer's series.
pub enum PeerSeries {
    Streamed(Box<PeerSet>),
    /// Read to the end already.
    Sorted(Box<dyn SeriesSet>),
}

impl PeerSeries {
    /// How far it has come; none where all is there.
    pub fn watch(&self) -> Option<Watch> {
        match self {
            PeerSeries::Streamed(set) => Some(set.watch.clone()),
            PeerSeries::Sorted(_) => None,
        }
    }

    /// As [`SeriesSet::next`], for at most `limit`; what had come by then is kept for the next call.
    pub fn next_within(&mut self, limit: Duration) -> Result<Waited, Error> {
        match self {
            PeerSeries::Streamed(set) => set.advance(Some(limit)),
            PeerSeries::Sorted(set) => set.next().map(Waited::Came),
        }
    }
}

impl SeriesSet for PeerSeries {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        match self {
            PeerSeries::Streamed(set) => set.next(),
            PeerSeries::Sorted(set) => set.next(),
        }
    }

    fn notes(&mut self) -> Notes {
        match self {
            PeerSeries::Streamed(set) => set.notes(),
            PeerSeries::Sorted(set) => set.notes(),
        }
    }
}

/// A peer's answer as it comes in.
pub struct PeerSet {
    address: String,
    world: World,
    handle: Handle,
    context: Context,
    parts: mpsc::Receiver<Item>,
    watch: Watch,
    part: std::vec::IntoIter<SeriesEntry>,
    held: Option<Reservation>,
    /// The series whose frames are being gathered.
    building: Option<SeriesEntry>,
    last: Option<Labels>,
    notes: Notes,
}

impl PeerSet {
    pub(super) fn new(
        address: String,
        world: World,
        handle: Handle,
        context: Context,
        parts: mpsc::Receiver<Item>,
        watch: Watch,
    ) -> PeerSet {
        PeerSet {
            address,
            world,
            handle,
            context,
            parts,
            watch,
            part: Vec::new().into_iter(),
            held: None,
            building: None,
            last: None,
            notes: Notes::default(),
        }
    }

    fn pull(&mut self, limit: Option<Duration>) -> Result<Waited, Error> {
        loop {
            if let Some(entry) = self.part.next() {
                return Ok(Waited::Came(Some(entry)));
            }
            self.held = None;
            self.context.cancel.check(self.world.clock.monotonic())?;
            let part = match limit {
                None => self.parts.blocking_recv(),
                Some(limit) => {
                    let parts = &mut self.parts;
                    let waited =
                        self.handle.block_on(async { tokio::time::timeout(limit, parts.recv()).await });
                    match waited {
                        Ok(part) => part,
                        Err(_) => return Ok(Waited::NotYet),
                    }
                }
            };
            let Some(part) = part else { return Ok(Waited::Came(None)) };
            self.watch.taken.fetch_add(1, SeqCst);
            let part = part?;
            self.notes.warnings.extend(part.warning);
            self.part = part.entries.into_iter();
            self.held = part.held;
        }
    }

    fn advance(&mut self, limit: Option<Duration>) -> Result<Waited, Error> {
        loop {
            let next = match self.pull(limit)? {
                Waited::NotYet => return Ok(Waited::NotYet),
                Waited::Came(next) => next,
            };
            let whole = match (&mut self.building, next) {
                (None, None) => return Ok(Waited::Came(None)),
                // A large series comes in several frames.
                (Some(building), Some(mut next)) if building.labels == next.labels => {
                    building.chunks.append(&mut next.chunks);
                    continue;
                }
                (building, next) => std::mem::replace(building, next),
            };
            let Some(mut entry) = whole else { continue };
            // A merge of unsorted streams would show a series twice.
            if self.last.as_ref().is_some_and(|last| *last > entry.labels) {
                let message = format!("{}: sent series {} out of order", self.address, entry.labels);
                return Err(Error::new(Kind::Corrupt, message));
            }
            entry.chunks.sort_by_key(|c| (c.range.start, c.range.end));
            self.last = Some(entry.labels.clone());
            return Ok(Waited::Came(Some(entry)));
        }
    }
}

impl SeriesSet for PeerSet {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        match self.advance(None)? {
            Waited::Came(entry) => Ok(entry),
            Waited::NotYet => Ok(None),
        }
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
