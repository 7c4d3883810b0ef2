//! The bytes of one file: as a running process sees them, and what a crash may make of them.

use std::collections::BTreeMap;

use runtime::Chance;

use crate::SeededChance;

/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Length at the last sync.
    pub(super) synced_len: usize,
    /// Sectors as they were at the last sync, of those changed since (within the synced length).
    pub(super) before: BTreeMap<usize, Vec<u8>>,
    /// Sectors beyond the synced length that were written since, in order of place.
    pub(super) fresh: BTreeMap<usize, ()>,
    /// Sectors whose sync failed, as the disk has them; until they are written anew.
    pub(super) lost: BTreeMap<usize, Vec<u8>>,
}

impl Content {
    /// To be called before bytes at `start..end` change.
    pub(super) fn remember(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let at = sector * SECTOR;
            if let Some(old) = self.lost.remove(&sector) {
                // Dirty again: this time it may reach the disk.
                self.before.entry(sector).or_insert(old);
            }
            if at < self.synced_len {
                let bytes = &self.bytes;
                let stop = (at + SECTOR).min(self.synced_len).min(bytes.len());
                self.before.entry(sector).or_insert_with(|| bytes.get(at..stop).unwrap_or_default().to_vec());
            }
            if at + SECTOR > self.synced_len {
                self.fresh.insert(sector, ());
            }
        }
    }

    pub(super) fn resize(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.remember(len, self.bytes.len());
        }
        self.bytes.resize(len, 0);
    }

    /// What is not durable now never will be: the cache holds it as clean, the disk does not have it.
    pub(super) fn forsake(&mut self) {
        let lost = std::mem::take(&mut self.before);
        self.lost.extend(lost.into_iter().filter(|(at, _)| !self.lost.contains_key(at)).collect::<Vec<_>>());
        let fresh = std::mem::take(&mut self.fresh);
        self.lost.extend(fresh.into_keys().map(|at| (at, vec![0; SECTOR])));
    }

    pub(super) fn synced(&mut self) {
        self.synced_len = self.bytes.len();
        self.before.clear();
        self.fresh.clear();
    }

    pub(super) fn after_crash(
        &self,
        keep: &dyn Fn(u64) -> bool,
        chance: &SeededChance,
        seed: u64,
    ) -> Vec<u8> {
        let (old, new) = (self.synced_len, self.bytes.len());
        // A length between the two, at a sector's edge or at either end.
        let len = match seed {
            0 => old,
            _ if old == new => old,
            _ => match chance.below(4) {
                0 => old,
                1 => new,
                _ => {
                    let (low, high) = (old.min(new), old.max(new));
                    let sectors = ((high - low) / SECTOR) as u64;
                    (low.next_multiple_of(SECTOR) + chance.below(sectors + 1) as usize * SECTOR).min(high)
                }
            },
        };
        let mut out = self.bytes.clone();
        out.resize(old.max(new).max(len), 0);
        for sector in self.fresh.keys() {
            let (start, end) = ((sector * SECTOR).max(old), ((sector + 1) * SECTOR).min(out.len()));
            if start < end && !keep(3) {
                out[start..end].fill(0);
            }
        }
        for (sector, before) in &self.before {
            // What lies behind the new end was cut off, not overwritten: where the cut is lost, it is all there.
            if !keep(2) || sector * SECTOR + before.len() > new {
                out[sector * SECTOR..][..before.len()].copy_from_slice(before);
            } else if seed != 0 && chance.below(8) == 0 {
                // Only its first part was written.
                let torn = (chance.below((SECTOR / 8) as u64) as usize * 8).min(before.len());
                out[sector * SECTOR + torn..][..before.len() - torn].copy_from_slice(&before[torn..]);
            }
        }
        for (sector, lost) in &self.lost {
            let (start, end) = (sector * SECTOR, (sector * SECTOR + lost.len()).min(out.len()));
            if start < end {
                out[start..end].copy_from_slice(&lost[..end - start]);
            }
        }
        out.truncate(len);
        out
    }
}
