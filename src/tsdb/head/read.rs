//! Reading the head: matching series with their chunks, as of one moment per few hundred series.
//!
//! # Cost
//! The shard's lock is held for the resolution of the matchers, then for a few hundred series at a time, whose
//! chunks are copied into one buffer and whose labels are put together.

use hashbrown::HashSet;

use bytes::Bytes;
use model::{Labels, Matcher, TimeRange};
use storage::{ChunkData, Context, Reservation, SeriesEntry};

use super::postings::pairs_of;
use super::series::Copied;
use super::shard::{BITE, Head, Shard};
use crate::firsts::Firsts;

/// What was read of one shard.
pub(crate) struct Gathered {
    /// By labels.
    pub entries: Vec<SeriesEntry>,
    /// The log must be durable up to here before this may be shown.
    pub position: u64,
}

impl Head {
    /// Series of a tenant in one shard that pass `matchers` and have samples in `range`.
    pub(crate) fn gather(
        &self,
        shard: &Shard,
        tenant: u32,
        matchers: &[Matcher],
        range: TimeRange,
        with_chunks: bool,
        context: &Context,
        held: &mut Reservation,
    ) -> Result<Gathered, storage::Error> {
        let mut gathered = Gathered { entries: Vec::new(), position: 0 };
        let matching: Vec<(u32, u64)> = {
            let state = shard.state.lock();
            let Some(known) = state.tenant(tenant) else { return Ok(gathered) };
            if !state.overlaps(tenant, range, self.settings.block_range) {
                return Ok(gathered);
            }
            let slots = known.postings.resolve(matchers, &state.texts, |slot| state.series.list(slot));
            slots.into_iter().filter_map(|slot| state.series.hot(slot).map(|s| (slot, s.id))).collect()
        };
        let (mut copied, mut labels) = (Vec::new(), Vec::new());
        for bite in matching.chunks(BITE) {
            if context.cancel.is_raised() {
                return Err(storage::Error::new(model::Kind::Refused, "query was canceled"));
            }
            let first = gathered.entries.len();
            let mut bytes = Vec::new();
            let mut chunks_of = Vec::new();
            copied.clear();
            {
                let state = shard.state.lock();
                for &(slot, id) in bite {
                    // The slot may have gone to another series since.
                    let Some(series) = state.get(slot).filter(|s| s.hot.id == id) else { continue };
                    let before = copied.len();
                    if with_chunks {
                        series.chunks(range, &mut bytes, &mut copied);
                    }
                    if copied.len() > before || !with_chunks && series.overlaps(range) {
                        labels.clear();
                        state.write_labels(slot, &mut labels);
                        let labels = Labels::from_checked(&labels);
                        gathered.entries.push(SeriesEntry { labels, chunks: Vec::new() });
                        chunks_of.push(before..copied.len());
                    }
                }
                gathered.position = gathered.position.max(state.last_position);
            }
            let bytes = Bytes::from(bytes);
            for (entry, of_entry) in gathered.entries[first..].iter_mut().zip(chunks_of) {
                let data = |c: &Copied| ChunkData {
                    range: c.range,
                    encoding: c.encoding,
                    bytes: bytes.slice(c.start..c.end),
                };
                entry.chunks = copied[of_entry].iter().map(data).collect();
            }
            let bytes: usize = gathered.entries[first..].iter().map(entry_bytes).sum();
            held.grow(bytes as u64)?;
        }
        gathered.entries.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(gathered)
    }

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

fn entry_bytes(entry: &SeriesEntry) -> usize {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of_val(c)).sum();
    entry.labels.as_bytes().len() + size_of_val(entry) + chunks
}
