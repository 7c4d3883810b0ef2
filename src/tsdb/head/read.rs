//! Reading the head: matching series with their chunks, as of one moment per few hundred series.
//!
//! # Cost
//! The shard's lock is held for the resolution of the matchers, then for a few hundred series at a time. Sealed
//! chunks are shared, the open one is copied.

use std::collections::BTreeSet;

use model::{Matcher, TimeRange};
use storage::{Context, Reservation, SeriesEntry};

use super::shard::{BITE, Head, Shard};

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
            let slots = known.postings.resolve(matchers, |slot| state.get(slot).map(|s| &s.labels));
            slots.into_iter().filter_map(|slot| state.get(slot).map(|s| (slot, s.id))).collect()
        };
        for bite in matching.chunks(BITE) {
            if context.cancel.is_raised() {
                return Err(storage::Error::new(model::Kind::Refused, "query was canceled"));
            }
            let first = gathered.entries.len();
            {
                let state = shard.state.lock();
                for &(slot, id) in bite {
                    // The slot may have gone to another series since.
                    let Some(series) = state.get(slot).filter(|s| s.id == id) else { continue };
                    let mut chunks = Vec::new();
                    if with_chunks {
                        series.chunks(range, &mut chunks);
                    }
                    if with_chunks && !chunks.is_empty() || !with_chunks && series.overlaps(range) {
                        gathered.entries.push(SeriesEntry { labels: series.labels.clone(), chunks });
                    }
                }
                gathered.position = gathered.position.max(state.last_position);
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
        out: &mut BTreeSet<String>,
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
                let mut add = |text: &str| {
                    if !out.contains(text) {
                        out.insert(text.to_owned());
                    }
                };
                match name {
                    None => known.postings.label_names().for_each(&mut add),
                    Some(name) => known.postings.label_values(name).for_each(&mut add),
                }
                continue;
            }
            for slot in known.postings.resolve(matchers, |slot| state.get(slot).map(|s| &s.labels)) {
                let Some(series) = state.get(slot) else { continue };
                for (label, value) in series.labels.iter() {
                    let text = match name {
                        None => label,
                        Some(name) if name == label => value,
                        Some(_) => continue,
                    };
                    if !out.contains(text) {
                        out.insert(text.to_owned());
                    }
                }
            }
        }
        position
    }
}

fn entry_bytes(entry: &SeriesEntry) -> usize {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of_val(c)).sum();
    entry.labels.as_bytes().len() + size_of_val(entry) + chunks
}
