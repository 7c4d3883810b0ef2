//! Finds the blocks of a bucket and says of each whether it is to be read, and if not, why.
//!
//! Runs on a timer in store gateways and once in tools. One block's trouble never hides another block: every
//! folder ends in exactly one [`State`]. Only a listing that fails fails the whole; then the caller keeps what it
//! knew. Metas are immutable and cached, in memory and on disk, so that a sync costs one small listing per block
//! (or one large listing in all) and a start with a warm cache fetches no meta.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use block::{BlockId, Meta};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use runtime::World;

use crate::bucket::parse_meta;
use crate::catalogue::{Catalogue, Found, Known, Rules, State, settle};
use crate::parts::blocking;
use crate::{Bucket, DeletionMark, Error, TimeBound, layout};

/// How a bucket is searched.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Blocks that touch the time between these, as of each search, are loaded.
    pub min_time: TimeBound,
    pub max_time: TimeBound,
    /// Younger blocks are left for later; for stores that do not list at once what was written.
    pub consistency_delay: Duration,
    /// Blocks marked for deletion are read for this long after the mark was set.
    pub ignore_deletion_marks_delay: Duration,
    /// Requests at once.
    pub concurrency: usize,
    /// One listing of everything instead of one per block: fewer requests, but all of them in sequence.
    pub recursive: bool,
    /// Folder for metas, kept across restarts.
    pub cache_dir: Option<PathBuf>,
}

impl Default for FetchSettings {
    fn default() -> Self {
        FetchSettings {
            min_time: TimeBound::None,
            max_time: TimeBound::None,
            consistency_delay: Duration::ZERO,
            ignore_deletion_marks_delay: Duration::from_secs(24 * 3600),
            concurrency: 32,
            recursive: false,
            cache_dir: None,
        }
    }
}

/// Searches one bucket again and again.
pub struct Fetcher {
    bucket: Bucket,
    world: World,
    settings: FetchSettings,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// By id: size and time of the meta.json that was read, and what it said.
    metas: HashMap<BlockId, (Stamp, Arc<Meta>)>,
    /// A block once marked is never taken for unmarked again.
    marks: HashMap<BlockId, DeletionMark>,
    /// States that were logged already.
    told: HashMap<BlockId, State>,
}

/// What tells one version of an object from another.
type Stamp = (u64, i64);

/// A block's folder as listed.
#[derive(Clone, Debug, Default)]
struct Listing {
    meta: Option<Stamp>,
    marked: bool,
}

impl Fetcher {
    pub fn new(bucket: Bucket, world: &World, settings: FetchSettings) -> Fetcher {
        Fetcher { bucket, world: world.clone(), settings, memory: Mutex::default() }
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Searches once. Fails only where the bucket cannot be listed.
    pub async fn fetch(&self) -> Result<Catalogue, Error> {
        let started = self.world.clock.monotonic();
        metrics::counter!("thanos_blocks_meta_syncs_total").increment(1);
        let outcome = self.fetch_once().await;
        let took = self.world.clock.monotonic().saturating_duration_since(started);
        metrics::histogram!("thanos_blocks_meta_sync_duration_seconds").record(took.as_secs_f64());
        match &outcome {
            Ok(catalogue) => self.tell(catalogue),
            Err(_) => metrics::counter!("thanos_blocks_meta_sync_failures_total").increment(1),
        }
        outcome
    }

    async fn fetch_once(&self) -> Result<Catalogue, Error> {
        let listings = self.list().await?;
        // Owned items: a future over borrowed ones cannot be shown to move between threads.
        let folders: Vec<(BlockId, Listing)> = listings.iter().map(|(id, l)| (*id, l.clone())).collect();
        let found: Vec<Found> = futures::stream::iter(folders)
            .map(|(id, listing)| self.look(id, listing))
            .buffered(self.settings.concurrency.max(1))
            .collect()
            .await;
        {
            let mut memory = self.memory.lock();
            memory.metas.retain(|id, _| listings.contains_key(id));
            memory.marks.retain(|id, _| listings.contains_key(id));
            memory.told.retain(|id, _| listings.contains_key(id));
        }
        self.forget_on_disk(listings.keys().copied().collect()).await;
        let now_ms = self.world.clock.now_ms();
        let rules = Rules {
            now_ms,
            range: TimeBound::range(self.settings.min_time, self.settings.max_time, now_ms),
            consistency_delay: self.settings.consistency_delay,
            ignore_deletion_marks_delay: self.settings.ignore_deletion_marks_delay,
        };
        Ok(settle(found, &rules))
    }

    async fn list(&self) -> Result<BTreeMap<BlockId, Listing>, Error> {
        let mut out: BTreeMap<BlockId, Listing> = BTreeMap::new();
        if self.settings.recursive {
            for object in self.bucket.list_all("").await? {
                let Some((folder, file)) = object.path.split_once('/') else { continue };
                let Some(id) = BlockId::parse(folder) else { continue };
                out.entry(id).or_default().note(file, (object.size, object.modified_ms));
            }
            return Ok(out);
        }
        let ids = self.bucket.list_blocks().await?;
        let levels: Vec<(BlockId, Listing)> = futures::stream::iter(ids)
            .map(|id| async move {
                let folder = id.to_string();
                let mut listing = Listing::default();
                for object in self.bucket.list_level(&folder).await?.objects {
                    if let Some(file) = object.path.strip_prefix(&folder).and_then(|p| p.strip_prefix('/')) {
                        listing.note(file, (object.size, object.modified_ms));
                    }
                }
                Ok::<_, Error>((id, listing))
            })
            .buffer_unordered(self.settings.concurrency.max(1))
            .try_collect()
            .await?;
        out.extend(levels);
        Ok(out)
    }

    async fn look(&self, id: BlockId, listing: Listing) -> Found {
        let known = match listing.meta {
            None => Known::NoMeta,
            Some(stamp) => match self.meta(id, stamp).await {
                Ok(meta) => Known::Meta(meta),
                // Deleted between the listing and now.
                Err(error) if error.missing => Known::NoMeta,
                Err(error) if error.kind == model::Kind::Corrupt => Known::Corrupted(error),
                Err(error) => Known::Failed(error),
            },
        };
        let mark = if listing.marked { self.mark(id).await } else { None };
        Found { id, known, mark }
    }

    async fn meta(&self, id: BlockId, stamp: Stamp) -> Result<Arc<Meta>, Error> {
        if let Some((_, meta)) = self.memory.lock().metas.get(&id).filter(|(known, _)| *known == stamp) {
            return Ok(meta.clone());
        }
        let cached = self.read_cache(id, stamp.0).await;
        let (bytes, fresh) = match cached {
            Some(bytes) => (bytes, false),
            None => (self.bucket.get(&layout::of(id, layout::META)).await?, true),
        };
        let meta = Arc::new(parse_meta(id, &bytes)?);
        if fresh {
            self.write_cache(id, bytes).await;
        }
        self.memory.lock().metas.insert(id, (stamp, meta.clone()));
        Ok(meta)
    }

    /// A mark that cannot be read is passed over, as Thanos does: the block is read for a while longer.
    async fn mark(&self, id: BlockId) -> Option<DeletionMark> {
        if let Some(mark) = self.memory.lock().marks.get(&id) {
            return Some(mark.clone());
        }
        match self.bucket.deletion_mark(id).await {
            Ok(Some(mark)) => {
                self.memory.lock().marks.insert(id, mark.clone());
                Some(mark)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(block = %id, %error, "deletion mark is passed over");
                None
            }
        }
    }

    // === the cache on disk: losing it costs requests and nothing else ===

    fn cache_path(&self, id: BlockId) -> Option<PathBuf> {
        self.settings.cache_dir.as_ref().map(|dir| dir.join(id.to_string()).join(layout::META))
    }

    async fn read_cache(&self, id: BlockId, size: u64) -> Option<Bytes> {
        let path = self.cache_path(id)?;
        let disk = self.world.disk.clone();
        let bytes =
            blocking(&self.world, move || if disk.exists(&path) { disk.read(&path) } else { Ok(Vec::new()) })
                .await;
        let bytes = Bytes::from(bytes.ok()?);
        // A file of another length, or cut short by a crash, is fetched again.
        (bytes.len() as u64 == size && parse_meta(id, &bytes).is_ok()).then_some(bytes)
    }

    async fn write_cache(&self, id: BlockId, bytes: Bytes) {
        let Some(path) = self.cache_path(id) else { return };
        let disk = self.world.disk.clone();
        let written = blocking(&self.world, move || {
            if let Some(folder) = path.parent() {
                disk.create_dir_all(folder)?;
            }
            disk.write_atomic(&path, &bytes)
        });
        if let Err(error) = written.await {
            tracing::warn!(block = %id, %error, "meta.json is not cached on disk");
        }
    }

    async fn forget_on_disk(&self, listed: BTreeSet<BlockId>) {
        let Some(dir) = self.settings.cache_dir.clone() else { return };
        let disk = self.world.disk.clone();
        let swept = blocking(&self.world, move || {
            if !disk.is_dir(&dir) {
                return Ok(());
            }
            for name in disk.list(&dir)? {
                if BlockId::parse(&name).is_some_and(|id| !listed.contains(&id)) {
                    disk.remove_dir_all(&dir.join(name))?;
                }
            }
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "cached metas of deleted blocks stay on disk");
        }
    }

    /// Counts all states; logs those that a block was not in before.
    fn tell(&self, catalogue: &Catalogue) {
        for state in State::ALL {
            let count = catalogue.states.values().filter(|(s, _)| *s == state).count();
            metrics::gauge!("thanos_blocks_meta_synced", "state" => state.as_str()).set(count as f64);
        }
        let mut memory = self.memory.lock();
        for (id, (state, why)) in &catalogue.states {
            if memory.told.insert(*id, *state) == Some(*state) {
                continue;
            }
            match state {
                State::Loaded => {}
                State::CorruptedMeta | State::Failed => {
                    tracing::warn!(block = %id, state = state.as_str(), why, "block is left out");
                }
                _ => tracing::debug!(block = %id, state = state.as_str(), why, "block is left out"),
            }
        }
    }
}

impl Listing {
    fn note(&mut self, file: &str, stamp: Stamp) {
        match file {
            layout::META => self.meta = Some(stamp),
            layout::DELETION_MARK => self.marked = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ShipSettings, Shipper, upload_block};

    /// Compiles only if every verb can be spawned.
    #[test]
    fn verbs_move_between_threads() {
        fn moves<T: Send>(_: T) {}
        let world = World::real();
        let bucket = Bucket::in_memory(&world);
        let fetcher = Fetcher::new(bucket.clone(), &world, FetchSettings::default());
        let shipper = Shipper::new(bucket.clone(), &world, ShipSettings::default());
        moves(fetcher.fetch());
        moves(bucket.get_ranges("x", &[], 1));
        moves(bucket.list_blocks());
        moves(bucket.delete_block(BlockId::from_parts(1, 1)));
        moves(bucket.put_file("x", std::path::Path::new("x")));
        moves(shipper.sync("x", std::path::Path::new("x"), Vec::new()));
        let text = format!(
            "{{\"ulid\":\"{}\",\"minTime\":0,\"maxTime\":1,\"version\":1}}",
            BlockId::from_parts(1, 1)
        );
        let meta = Meta::parse(text.as_bytes()).unwrap();
        moves(upload_block(&bucket, &world, std::path::Path::new("x"), &meta));
    }
}
