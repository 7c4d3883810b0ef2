//! A bounded cache of pages in memory.
//!
//! First in, first out, with a second chance for what was asked for again: one scan over cold data does not
//! push out what is used, and a hit writes one flag.
//!
//! # Cost
//! A lookup takes one of sixteen locks and clones a reference-counted page.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

use bytes::Bytes;
use parking_lot::Mutex;

const SHARDS: usize = 16;
/// Bytes that an entry takes beside its page.
const OVERHEAD: usize = 128;

/// Pages by key, never more bytes than its limit.
pub(crate) struct Cache<K> {
    shards: Vec<Mutex<Shard<K>>>,
    /// Bytes per shard.
    limit: usize,
    hasher: RandomState,
}

struct Shard<K> {
    pages: HashMap<K, (Bytes, bool)>,
    /// Oldest first.
    order: VecDeque<K>,
    bytes: usize,
}

impl<K: Hash + Eq + Clone> Cache<K> {
    /// A limit of 0 keeps nothing.
    pub(crate) fn new(limit: u64) -> Cache<K> {
        let shard = || Mutex::new(Shard { pages: HashMap::new(), order: VecDeque::new(), bytes: 0 });
        Cache {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX) / SHARDS,
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<Bytes> {
        let mut shard = self.shard(key).lock();
        let (page, used) = shard.pages.get_mut(key)?;
        *used = true;
        Some(page.clone())
    }

    /// Keeps `page`, which must own its bytes alone: a slice of something larger would hold on to all of it.
    pub(crate) fn put(&self, key: K, page: Bytes) {
        let size = page.len() + OVERHEAD;
        if size > self.limit {
            return;
        }
        let mut shard = self.shard(&key).lock();
        let shard = &mut *shard;
        if shard.pages.contains_key(&key) {
            return;
        }
        while shard.bytes + size > self.limit {
            let Some(oldest) = shard.order.pop_front() else { break };
            match shard.pages.get_mut(&oldest) {
                Some((_, used)) if *used => {
                    *used = false;
                    shard.order.push_back(oldest);
                }
                _ => {
                    if let Some((gone, _)) = shard.pages.remove(&oldest) {
                        shard.bytes -= gone.len() + OVERHEAD;
                    }
                }
            }
        }
        shard.order.push_back(key.clone());
        shard.pages.insert(key, (page, false));
        shard.bytes += size;
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_what_is_used_stays() {
        let cache: Cache<u32> = Cache::new(SHARDS as u64 * 10 * (100 + OVERHEAD as u64));
        let page = || Bytes::from(vec![0; 100]);
        (0..16).for_each(|n| cache.put(n, page()));
        let kept: Vec<u32> = (0..16).filter(|n| cache.get(n).is_some()).collect();
        // A scan far larger than the cache, with the old pages asked for now and then.
        for n in 100..2000 {
            cache.put(n, page());
            if n % 20 == 0 {
                kept.iter().for_each(|n| drop(cache.get(n)));
            }
        }
        assert!(cache.bytes() <= SHARDS * 10 * (100 + OVERHEAD));
        let left = kept.iter().filter(|n| cache.get(n).is_some()).count();
        assert!(left * 10 >= kept.len() * 9, "{left} of {}", kept.len());
        let none: Cache<u32> = Cache::new(0);
        none.put(1, page());
        assert!(none.get(&1).is_none());
    }
}
