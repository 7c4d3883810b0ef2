//! Whether a bucket still has what a block holds: the block itself, or one that it was merged into.
//!
//! Asked before the last local copy of a block is deleted. A ledger says what was uploaded once; a compactor, a retention or
//! a person may have taken it out of the bucket since.

use std::collections::BTreeMap;

use block::BlockId;
use parking_lot::Mutex;
use runtime::World;

use crate::catalogue::{Catalogue, State};
use crate::{Error, FetchSettings, Fetcher, layout};

/// How long a listing is good for what it knows, and for what it does not: that may have come since.
const KNOWN_FOR_MS: u64 = 600_000;
const UNKNOWN_FOR_MS: u64 = 5_000;

/// Where a block's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the bucket, as it was uploaded.
    Held,
    /// In the bucket, within this block.
    Merged(BlockId),
    /// Marked for deletion and nowhere else: given up on purpose.
    GivenUp,
    /// Nowhere in the bucket, and nobody said why.
    Missing,
    /// The listing has gaps just now.
    Unknown,
}

/// Answers for one bucket.
pub struct Holdings {
    fetcher: Fetcher,
    world: World,
    listed: Mutex<Option<Listed>>,
    /// One listing at a time.
    listing: tokio::sync::Mutex<()>,
}

struct Listed {
    /// Milliseconds.
    at: i64,
    blocks: BTreeMap<BlockId, Whereabouts>,
    /// Whether every block's meta.json could be read.
    complete: bool,
}

impl Holdings {
    pub fn new(bucket: crate::Bucket, world: &World) -> Holdings {
        let settings = FetchSettings { concurrency: 8, ..FetchSettings::default() };
        let fetcher = Fetcher::new(bucket, world, settings);
        Holdings {
            fetcher,
            world: world.clone(),
            listed: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    /// One request for a block that is there; a listing, kept for ten minutes, where some are not.
    pub async fn find(&self, id: BlockId) -> Result<Whereabouts, Error> {
        if self.fetcher.bucket().exists(&layout::of(id, layout::META)).await? {
            return Ok(Whereabouts::Held);
        }
        if let Some(known) = self.listed(id) {
            return Ok(known);
        }
        let _one = self.listing.lock().await;
        if let Some(known) = self.listed(id) {
            return Ok(known);
        }
        let catalogue = self.fetcher.fetch().await?;
        // A folder without meta.json is no block, and stands for nothing.
        let unread = |(state, _): &(State, String)| matches!(state, State::Failed | State::CorruptedMeta);
        let complete = !catalogue.states.values().any(unread);
        let listed = Listed { at: self.world.clock.now_ms(), blocks: whereabouts(&catalogue), complete };
        *self.listed.lock() = Some(listed);
        Ok(self.listed(id).unwrap_or(Whereabouts::Unknown))
    }

    /// What the last listing says, while it is good.
    fn listed(&self, id: BlockId) -> Option<Whereabouts> {
        let listed = self.listed.lock();
        let listed = listed.as_ref()?;
        let age = self.world.clock.now_ms().abs_diff(listed.at);
        if age > KNOWN_FOR_MS || (age > UNKNOWN_FOR_MS && !listed.blocks.contains_key(&id)) {
            return None;
        }
        Some(match listed.blocks.get(&id) {
            // Just asked for, and not there: the listing is older than that.
            Some(Whereabouts::Held) => Whereabouts::Unknown,
            Some(known) => *known,
            None if listed.complete => Whereabouts::Missing,
            None => Whereabouts::Unknown,
        })
    }
}

/// Of every block that a listing knows, as block or as source, where its samples are. The first that stands for it by
/// id counts; a block that is marked stands for nothing but itself.
fn whereabouts(catalogue: &Catalogue) -> BTreeMap<BlockId, Whereabouts> {
    let mut out = BTreeMap::new();
    for (id, meta) in &catalogue.readable {
        if catalogue.marks.contains_key(id) {
            continue;
        }
        out.insert(*id, Whereabouts::Held);
        for source in meta.compaction.sources.iter().filter(|source| *source != id) {
            out.entry(*source).or_insert(Whereabouts::Merged(*id));
        }
    }
    for id in catalogue.marks.keys() {
        out.entry(*id).or_insert(Whereabouts::GivenUp);
    }
    out
}
