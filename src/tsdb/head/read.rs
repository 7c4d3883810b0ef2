//! Reading the head: matching series with their chunks, a few hundred at a time, as of the moment they are read.
//!
//! # Cost
//! The shard's lock is held for the resolution of the matchers, then for a few hundred series at a time, whose
//! chunks are copied into one buffer and whose labels are put together, as far as they are needed. What is held at once
//! is one such load, and the labels of all series only where they have to come sorted.

use std::sync::Arc;

use bytes::Bytes;
use chunk::{Encoding, xor};
use hashbrown::{HashMap, HashSet};
use model::{Kind, Labels, Matcher, TimeRange};
use storage::{ChunkData, Context, LabelNeed, Need, Reservation, SelectRequest, SeriesEntry, SeriesSet};

use super::postings::pairs_of;
use super::series::{Copied, Series};
use super::shard::{BITE, Head, ShardState};
use crate::Engine;
use crate::firsts::Firsts;
use crate::pins::Pin;
use crate::tenants::Tenant;

/// Bytes and series of one load, after which the log is waited for. The first one is small, so that what has few
/// series, or is broken off, does not pay for more.
const LOAD_BYTES: usize = 4 << 20;
const LOAD_SERIES: usize = 16 * BITE;

/// Matching series of one shard, read load by load.
pub(crate) struct ShardSet {
    engine: Arc<Engine>,
    shard: usize,
    tenant: Arc<Tenant>,
    pin: Arc<Pin>,
    context: Context,
    range: TimeRange,
    with_chunks: bool,
    all_samples: bool,
    series: Matching,
    at: usize,
    labels: Texts,
    load: std::vec::IntoIter<SeriesEntry>,
    /// Series of the next load.
    next: usize,
    held: Reservation,
    /// Of the load.
    load_held: Reservation,
}

/// Slots and log numbers of the series to read.
enum Matching {
    BySlot(Vec<(u32, u64)>),
    ByLabels(Vec<(Labels, u32, u64)>),
}

impl Matching {
    fn len(&self) -> usize {
        match self {
            Matching::BySlot(all) => all.len(),
            Matching::ByLabels(all) => all.len(),
        }
    }

    fn get(&self, at: usize) -> Option<(Option<&Labels>, u32, u64)> {
        match self {
            Matching::BySlot(all) => all.get(at).map(|(slot, id)| (None, *slot, *id)),
            Matching::ByLabels(all) => all.get(at).map(|(labels, slot, id)| (Some(labels), *slot, *id)),
        }
    }
}

impl ShardSet {
    /// Series of a tenant that match; none where there cannot be any. `pin` was taken before the tenant's blocks were
    /// looked at.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        tenant: &Arc<Tenant>,
        shard: usize,
        pin: &Arc<Pin>,
        request: &SelectRequest,
        need: &Need,
        context: &Context,
    ) -> Result<Option<ShardSet>, storage::Error> {
        let found: Vec<(u32, u64)> = {
            let state = engine.head.shards[shard].state.lock();
            let Some(known) = state.tenant(tenant.index) else { return Ok(None) };
            if !state.overlaps(tenant.index, request.range, engine.head.settings.block_range) {
                return Ok(None);
            }
            let slots =
                known.postings.resolve(&request.matchers, &state.texts, |slot| state.series.list(slot));
            slots.into_iter().filter_map(|slot| state.series.hot(slot).map(|s| (slot, s.id))).collect()
        };
        if found.is_empty() {
            return Ok(None);
        }
        let mut held = context.budget.reserve(size_of_val(&*found) as u64)?;
        let (mut series, mut load) = (Matching::BySlot(Vec::new()), Vec::new());
        if need.sorted {
            let (all, position) = sorted(engine, shard, found, request.range, context, &mut held)?;
            if request.skip_chunks {
                // Labels alone are wanted, and here they are.
                engine.wait_read(position)?;
                load =
                    all.into_iter().map(|(labels, ..)| SeriesEntry { labels, chunks: Vec::new() }).collect();
            } else {
                series = Matching::ByLabels(all);
            }
        } else {
            series = Matching::BySlot(found);
        }
        Ok(Some(ShardSet {
            engine: engine.clone(),
            shard,
            tenant: tenant.clone(),
            pin: pin.clone(),
            context: context.clone(),
            range: request.range,
            with_chunks: !request.skip_chunks,
            all_samples: need.all_samples,
            series,
            at: 0,
            labels: Texts::new(&need.labels),
            load: load.into_iter(),
            next: BITE,
            held,
            load_held: context.budget.reserve(0)?,
        }))
    }

    /// Reads the next series, some of which may turn out to have nothing in the range.
    fn read(&mut self) -> Result<(), storage::Error> {
        self.load = Vec::new().into_iter();
        self.load_held.resize(0)?;
        let mut load = Load::default();
        let end = self.series.len().min(self.at + self.next);
        self.next = (self.next * 2).min(LOAD_SERIES);
        while self.at < end && load.bytes.len() < LOAD_BYTES {
            if self.context.cancel.is_raised() {
                return Err(storage::Error::new(Kind::Refused, "query was canceled"));
            }
            let bite = self.at..end.min(self.at + BITE);
            self.at = bite.end;
            let state = self.engine.head.shards[self.shard].state.lock();
            if self.pin.is_too_late() {
                return Err(storage::Error::new(
                    Kind::Unavailable,
                    "the query was so slow that its samples moved from the head to a block; ask again",
                ));
            }
            let Some(known) = state.tenant(self.tenant.index) else { break };
            self.labels.begin(&known.postings);
            for (labels, slot, id) in bite.filter_map(|at| self.series.get(at)) {
                // The slot may have gone to another series since.
                let Some(series) = state.get(slot).filter(|s| s.hot.id == id) else { continue };
                if load.take(series, self.range, self.with_chunks, self.all_samples) {
                    let labels = match labels {
                        Some(labels) => labels.clone(),
                        None => self.labels.of(&state, &known.postings, slot),
                    };
                    load.labels.push(labels);
                }
            }
            load.position = load.position.max(state.last_position);
        }
        let position = load.position;
        let entries = load.entries();
        self.load_held.resize(entries.iter().map(entry_bytes).sum::<usize>() as u64)?;
        self.engine.wait_read(position)?;
        self.load = entries.into_iter();
        Ok(())
    }
}

impl SeriesSet for ShardSet {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        loop {
            if let Some(entry) = self.load.next() {
                return Ok(Some(entry));
            }
            if self.at == self.series.len() {
                self.load_held.resize(0)?;
                self.held.resize(0)?;
                return Ok(None);
            }
            self.read()?;
        }
    }
}

/// Series with samples in `range`, sorted by their labels, and the log's position of the newest that they may show.
fn sorted(
    engine: &Engine,
    shard: usize,
    found: Vec<(u32, u64)>,
    range: TimeRange,
    context: &Context,
    held: &mut Reservation,
) -> Result<(Vec<(Labels, u32, u64)>, u64), storage::Error> {
    let mut all = Vec::with_capacity(found.len());
    let (mut text, mut position) = (Vec::new(), 0);
    for bite in found.chunks(BITE) {
        if context.cancel.is_raised() {
            return Err(storage::Error::new(Kind::Refused, "query was canceled"));
        }
        let mut bytes = 0;
        {
            let state = engine.head.shards[shard].state.lock();
            for &(slot, id) in bite {
                let Some(series) = state.get(slot).filter(|s| s.hot.id == id) else { continue };
                if series.overlaps(range) {
                    text.clear();
                    state.write_labels(slot, &mut text);
                    let labels = Labels::from_checked(&text);
                    bytes += text.len() + LABELS_OVERHEAD + size_of::<(Labels, u32, u64)>();
                    all.push((labels, slot, id));
                }
            }
            position = position.max(state.last_position);
        }
        held.grow(bytes as u64)?;
    }
    // Senders mostly send a target's series in order: the sort that finds such runs compares least.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((all, position))
}

/// Counts of an allocation of labels, and what the allocator adds.
const LABELS_OVERHEAD: usize = 32;

/// What was read and is not put together yet.
#[derive(Default)]
struct Load {
    bytes: Vec<u8>,
    chunks: Vec<Copied>,
    /// Per series: labels, and the end of its chunks.
    labels: Vec<Labels>,
    ends: Vec<usize>,
    position: u64,
}

impl Load {
    /// Copies a series' chunks; false where it has nothing in the range.
    #[inline]
    fn take(&mut self, series: Series<'_>, range: TimeRange, with_chunks: bool, all_samples: bool) -> bool {
        let before = self.chunks.len();
        if !with_chunks {
            if !series.overlaps(range) {
                return false;
            }
        } else if !all_samples && let Some(sample) = series.newest_in(range) {
            let start = self.bytes.len();
            xor::put_one(&mut self.bytes, sample);
            let range = TimeRange::new(sample.timestamp, sample.timestamp);
            self.chunks.push(Copied { range, encoding: Encoding::Xor, start, end: self.bytes.len() });
        } else {
            series.chunks(range, &mut self.bytes, &mut self.chunks);
            if self.chunks.len() == before {
                return false;
            }
        }
        self.ends.push(self.chunks.len());
        true
    }

    fn entries(self) -> Vec<SeriesEntry> {
        let bytes = Bytes::from(self.bytes);
        let mut chunks = self.chunks.into_iter();
        let mut start = 0;
        let mut of = |end: usize| {
            let data = |c: Copied| ChunkData {
                range: c.range,
                encoding: c.encoding,
                bytes: bytes.slice(c.start..c.end),
            };
            let of_series = chunks.by_ref().take(end - start).map(data).collect();
            start = end;
            of_series
        };
        self.labels
            .into_iter()
            .zip(self.ends)
            .map(|(labels, end)| SeriesEntry { labels, chunks: of(end) })
            .collect()
    }
}

/// Puts together the labels that are needed; where few are, each combination once.
struct Texts {
    names: Option<(Vec<String>, bool)>,
    /// The names' numbers, as long as the lock is held.
    numbers: Vec<u32>,
    known: HashMap<Box<[u32]>, Labels>,
    /// [`super::postings::Postings::removals`] when they were put together.
    removals: u64,
    pairs: Vec<u32>,
    text: Vec<u8>,
}

/// Combinations that are kept.
const MOST_KNOWN: usize = 4096;

impl Texts {
    fn new(need: &LabelNeed) -> Texts {
        let names = match need {
            LabelNeed::All => None,
            LabelNeed::Only(names) => Some((names.clone(), true)),
            LabelNeed::Except(names) => Some((names.clone(), false)),
        };
        Texts {
            names,
            numbers: Vec::new(),
            known: HashMap::new(),
            removals: 0,
            pairs: Vec::new(),
            text: Vec::new(),
        }
    }

    /// The lock has been taken.
    fn begin(&mut self, postings: &super::postings::Postings) {
        let Some((names, _)) = &self.names else { return };
        self.numbers = postings.numbers(names.iter());
        if self.removals != postings.removals || self.known.len() > MOST_KNOWN {
            self.known.clear();
            self.removals = postings.removals;
        }
    }

    fn of(&mut self, state: &ShardState, postings: &super::postings::Postings, slot: u32) -> Labels {
        self.text.clear();
        let Some((_, among)) = self.names else {
            state.write_labels(slot, &mut self.text);
            return Labels::from_checked(&self.text);
        };
        self.pairs.clear();
        if !(among && self.numbers.is_empty()) {
            let list = state.series.list(slot).unwrap_or_default();
            postings.pairs_among(list, &self.numbers, among, &mut self.pairs);
        }
        if let Some(labels) = self.known.get(&*self.pairs) {
            return labels.clone();
        }
        postings.write_pairs(&self.pairs, &state.texts, &mut self.text);
        let labels = Labels::from_checked(&self.text);
        self.known.insert(self.pairs.as_slice().into(), labels.clone());
        labels
    }
}

impl Head {
    /// Adds the names of labels (or, with `name`, the values of that label) to `out`; returns the position as
    /// [`Gathered`] does.
    pub(crate) fn list(
        &self,
        tenant: u32,
        name: Option<&str>,
        matchers: &[Matcher],
        range: TimeRange,
        out: &mut Firsts,
    ) -> u64 {
        let mut position = 0;
        for shard in &self.shards {
            let state = shard.state.lock();
            let Some(known) = state.tenant(tenant) else { continue };
            if !state.overlaps(tenant, range, self.settings.block_range) {
                continue;
            }
            position = position.max(state.last_position);
            if matchers.is_empty() {
                let mut add = |text: &str| out.offer(text);
                match name {
                    None => known.postings.label_names().for_each(&mut add),
                    Some(name) => known.postings.label_values(name, &state.texts).for_each(&mut add),
                }
                continue;
            }
            let slots = known.postings.resolve(matchers, &state.texts, |slot| state.series.list(slot));
            let mut pairs = HashSet::new();
            for pair in slots.into_iter().filter_map(|slot| state.series.list(slot)).flat_map(pairs_of) {
                if !pairs.insert(pair) {
                    continue;
                }
                let (label, value) = known.postings.name_and_value(pair, &state.texts);
                let text = match name {
                    None => label,
                    Some(name) if name == label => value,
                    Some(_) => continue,
                };
                out.offer(text);
            }
        }
        position
    }
}

/// Bytes of an entry. Labels that are shared count with each of them: that is too much, never too little.
fn entry_bytes(entry: &SeriesEntry) -> usize {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of_val(c)).sum();
    entry.labels.as_bytes().len() + LABELS_OVERHEAD + size_of_val(entry) + chunks
}
