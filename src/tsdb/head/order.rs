//! Series of one tenant in the order of their labels, without holding their labels in memory.
//!
//! The pairs of a shard are ranked once by name and value; a series then sorts as the ranks of its pairs do. What
//! that takes is let go before the next shard's turn; afterwards labels are put together one series at a time.
//!
//! The shard's lock is held for a hundred series or a thousand pairs at a time. Series that are sorted must
//! not go meanwhile (those of a freeze do not); others may come and go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::Labels;
use parking_lot::MutexGuard;

use super::postings::pairs_of;
use super::shard::{BITE, Head, Shard};

/// Pairs copied under one hold of the lock.
const PAIRS: usize = 1024;

/// Sorts the slots of series of a tenant by their labels.
pub(crate) fn sort_by_labels(shard: &Shard, tenant: u32, slots: &mut [u32]) {
    let ranks = rank_pairs(shard, tenant);
    // The ranks of each series' pairs, one behind the other.
    let mut keys: Vec<u32> = Vec::new();
    let mut places: Vec<(u32, u32, u32)> = Vec::with_capacity(slots.len());
    for bite in slots.chunks(BITE) {
        let state = shard.state.lock();
        for &slot in bite {
            let start = keys.len() as u32;
            let pairs = pairs_of(state.series.list(slot).unwrap_or_default());
            keys.extend(pairs.map(|pair| ranks.get(pair as usize).copied().unwrap_or(u32::MAX)));
            places.push((slot, start, keys.len() as u32));
        }
        MutexGuard::unlock_fair(state);
    }
    let key = |&(_, start, end): &(u32, u32, u32)| &keys[start as usize..end as usize];
    places.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    slots.iter_mut().zip(places).for_each(|(slot, (sorted, ..))| *slot = sorted);
}

/// The rank of each pair of a tenant, by its number.
fn rank_pairs(shard: &Shard, tenant: u32) -> Vec<u32> {
    struct Copied {
        name: u32,
        pair: u32,
        start: u32,
        end: u32,
    }
    let (mut values, mut pairs, mut names) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let state = shard.state.lock();
        let Some(known) = state.tenant(tenant) else { break };
        let before = pairs.len();
        for (pair, name, value) in known.postings.some_pairs(before, &state.texts).take(PAIRS) {
            let start = values.len() as u32;
            values.extend_from_slice(value.as_bytes());
            pairs.push(Copied { name, pair, start, end: values.len() as u32 });
        }
        if pairs.len() - before < PAIRS {
            names = known.postings.names();
            break;
        }
    }
    names.sort();
    let mut rank_of_name = vec![0; names.iter().map(|(_, name)| *name as usize + 1).max().unwrap_or(0)];
    names.iter().zip(0..).for_each(|((_, name), rank)| rank_of_name[*name as usize] = rank);
    let name = |pair: &Copied| rank_of_name.get(pair.name as usize).copied().unwrap_or(u32::MAX);
    let value = |pair: &Copied| &values[pair.start as usize..pair.end as usize];
    pairs.sort_unstable_by(|a, b| name(a).cmp(&name(b)).then_with(|| value(a).cmp(value(b))));
    let mut ranks = vec![0; pairs.len()];
    for (pair, rank) in pairs.iter().zip(0..) {
        ranks[pair.pair as usize] = rank;
    }
    ranks
}

impl Head {
    /// Series of several shards, each sorted by [`sort_by_labels`], as one sorted sequence: labels, index of the
    /// shard's list, slot.
    pub(crate) fn merge_by_labels<'a>(
        &'a self,
        lists: Vec<(usize, &'a [u32])>,
    ) -> impl Iterator<Item = (Labels, usize, u32)> + 'a {
        let mut rest: Vec<std::slice::Iter<'a, u32>> = lists.iter().map(|(_, slots)| slots.iter()).collect();
        let (count, mut bytes) = (lists.len(), Vec::new());
        let mut next = move |list: usize| {
            let slot = *rest[list].next()?;
            bytes.clear();
            self.shards[lists[list].0].state.lock().write_labels(slot, &mut bytes);
            Some(Reverse((Labels::from_checked(&bytes), list, slot)))
        };
        let mut heap: BinaryHeap<_> = (0..count).filter_map(&mut next).collect();
        std::iter::from_fn(move || {
            let Reverse((labels, list, slot)) = heap.pop()?;
            heap.extend(next(list));
            Some((labels, list, slot))
        })
    }
}
