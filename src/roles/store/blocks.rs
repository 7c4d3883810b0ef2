//! The blocks of a bucket as they are served: searched on a timer, grouped by external labels, asked by queries.
//!
//! Embedded in `standalone` and behind the gRPC door of the store role alike. A query works on the set of blocks as of
//! its start; a search replaces the set as a whole. Nothing of a block is read before a query needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use block::BlockId;
use bucket::{Bucket, Catalogue, FetchSettings, Fetcher};
use model::{Labels, Matcher, TimeRange};
use rpc::{Advertised, StoreBackend, StoreView, TsdbInfo, component};
use runtime::{Shutdown, World};
use storage::{Context, LabelRequest, Listed, Merge, Notes, Select, SelectRequest, SeriesEntry, SeriesSet};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::Error;
use crate::group::{Group, Reading};
use crate::header::Headers;
use crate::pages::Pages;
use crate::remote::{RemoteBlock, Shared};
use crate::wait::Waiter;

/// Answers true for blocks that somebody else answers for (in `standalone`: those still on the local disk).
/// Asked at every query.
pub type LeaveOut = Arc<dyn Fn(BlockId) -> bool + Send + Sync>;

/// How blocks are found and read.
#[derive(Clone, Debug)]
pub struct BlocksSettings {
    pub fetch: FetchSettings,
    /// Folder for index headers.
    pub data_dir: PathBuf,
    /// Pause between two searches.
    pub sync_every: Duration,
    /// Bytes in memory.
    pub index_cache: u64,
    pub chunk_cache: u64,
    pub header_memory: u64,
    /// Blocks read at the same time, over all queries.
    pub read_concurrency: usize,
    /// Bytes one call may fetch for one set of external labels; 0 is no limit.
    pub downloaded_limit: u64,
}

impl Default for BlocksSettings {
    fn default() -> Self {
        BlocksSettings {
            fetch: FetchSettings::default(),
            data_dir: PathBuf::from("./data"),
            sync_every: Duration::from_secs(15 * 60),
            index_cache: 250 << 20,
            chunk_cache: 2 << 30,
            header_memory: 1 << 30,
            read_concurrency: 20,
            downloaded_limit: 0,
        }
    }
}

/// The remote blocks. Cheap to clone.
#[derive(Clone)]
pub struct Blocks {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Fetcher,
    shared: Arc<Shared>,
    reading: Arc<Reading>,
    leave_out: LeaveOut,
    sync_every: Duration,
    set: ArcSwap<Set>,
    synced: AtomicBool,
    /// One search at a time.
    syncing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Set {
    blocks: BTreeMap<BlockId, Arc<RemoteBlock>>,
    groups: Vec<Arc<Group>>,
}

impl Blocks {
    /// Makes no request. Must be called within a tokio runtime; its threads do the waiting.
    pub fn new(bucket: Bucket, world: &World, settings: BlocksSettings, leave_out: LeaveOut) -> Blocks {
        let waiter = Waiter { handle: Handle::current(), world: world.clone() };
        let headers = Headers::new(bucket.clone(), world, settings.data_dir.clone(), settings.header_memory);
        let pages = Arc::new(Pages::new(bucket.clone(), settings.index_cache, settings.chunk_cache));
        let fetch =
            FetchSettings { cache_dir: Some(settings.data_dir.join("meta-syncer")), ..settings.fetch };
        let reading = Reading {
            waiter: waiter.clone(),
            permits: Arc::new(Semaphore::new(settings.read_concurrency.max(1))),
            downloaded_limit: settings.downloaded_limit,
        };
        let inner = Inner {
            fetcher: Fetcher::new(bucket, world, fetch),
            shared: Arc::new(Shared { headers, pages, waiter }),
            reading: Arc::new(reading),
            leave_out,
            sync_every: settings.sync_every,
            set: ArcSwap::default(),
            synced: AtomicBool::new(false),
            syncing: tokio::sync::Mutex::default(),
        };
        Blocks { inner: Arc::new(inner) }
    }

    /// Whether the bucket has been searched at least once.
    pub fn is_ready(&self) -> bool {
        self.inner.synced.load(Relaxed)
    }

    /// Ids of the blocks that are served.
    pub fn ids(&self) -> BTreeSet<BlockId> {
        self.inner.set.load().blocks.keys().copied().collect()
    }

    /// Searches the bucket now. On an error the blocks known so far stay.
    pub async fn sync(&self) -> Result<Catalogue, Error> {
        let inner = &self.inner;
        let _one = inner.syncing.lock().await;
        let catalogue = inner.fetcher.fetch().await?;
        let before = inner.set.load_full();
        let mut set = Set::default();
        let mut groups: BTreeMap<Labels, Vec<Arc<RemoteBlock>>> = BTreeMap::new();
        let mut coarse = 0;
        for (id, meta) in &catalogue.loaded {
            // Downsampled blocks hold aggregates; what they cover is answered from raw blocks only.
            if meta.resolution() > 0 {
                coarse += 1;
                continue;
            }
            let labels = match meta.external_labels() {
                Ok(labels) => labels,
                Err(error) => {
                    tracing::warn!(block = %id, %error, "block is left out");
                    continue;
                }
            };
            let known = before.blocks.get(id).filter(|known| known.meta == *meta).cloned();
            let block =
                known.unwrap_or_else(|| Arc::new(RemoteBlock::new(meta.clone(), inner.shared.clone())));
            set.blocks.insert(*id, block.clone());
            groups.entry(labels).or_default().push(block);
        }
        let group = |(labels, blocks)| Arc::new(Group::new(labels, blocks, inner.reading.clone()));
        set.groups = groups.into_iter().map(group).collect();
        let present: BTreeSet<BlockId> = set.blocks.keys().copied().collect();
        let (added, gone) = (
            present.iter().filter(|id| !before.blocks.contains_key(id)).count(),
            before.blocks.keys().filter(|id| !present.contains(id)).count(),
        );
        metrics::gauge!("thanos_bucket_store_blocks_loaded").set(present.len() as f64);
        metrics::counter!("thanos_bucket_store_block_loads_total").increment(added as u64);
        metrics::counter!("thanos_bucket_store_block_drops_total").increment(gone as u64);
        metrics::gauge!("thanos_bucket_store_blocks_last_loaded_timestamp_seconds")
            .set(inner.shared.waiter.world.clock.now_ms() as f64 / 1000.0);
        metrics::gauge!("tributary_store_cache_bytes").set(inner.shared.pages.memory() as f64);
        if added > 0 || gone > 0 {
            let blocks = present.len();
            tracing::info!(blocks, added, gone, downsampled_left_out = coarse, "blocks of the bucket");
        }
        inner.set.store(Arc::new(set));
        inner.synced.store(true, Relaxed);
        let shared = inner.shared.clone();
        // Only the disk waits on it, and a failure is logged there.
        let _ = tokio::task::spawn_blocking(move || shared.headers.keep_only(&present)).await;
        Ok(catalogue)
    }

    /// Searches the bucket at once and then on the timer, until the shutdown. Failing searches are tried again
    /// sooner, within a minute.
    pub async fn run(&self, shutdown: Shutdown) {
        loop {
            let pause = match self.sync().await {
                Ok(_) => self.inner.sync_every,
                Err(error) => {
                    tracing::warn!(%error, kind = ?error.kind, "bucket cannot be searched; blocks stay as they were");
                    self.inner.sync_every.min(Duration::from_secs(15))
                }
            };
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether any block may have samples in `range`, as far as is known now.
    pub fn reach(&self, range: TimeRange) -> bool {
        !self.groups(range, &[]).is_empty()
    }

    /// One view for each set of external labels that has blocks in `range` and may pass `matchers`.
    pub fn views(&self, range: TimeRange, matchers: &[Matcher]) -> Vec<StoreView> {
        self.groups(range, matchers)
            .into_iter()
            .map(|group| StoreView { labels: group.labels.clone(), range: group.range, select: group })
            .collect()
    }

    /// All blocks whose external labels pass `external`, as one, without those labels: what one tenant of a
    /// single node sees. Works on the blocks known at each call.
    pub fn select(&self, external: Vec<Matcher>) -> Arc<dyn Select> {
        Arc::new(Whole { blocks: self.clone(), external })
    }

    /// What Info says.
    pub fn advertised(&self) -> Advertised {
        let set = self.inner.set.load();
        let range = set.groups.iter().fold(TimeRange::EMPTY, |all, group| all.cover(&group.range));
        Advertised {
            component: component::STORE,
            label_sets: set.groups.iter().map(|group| group.labels.clone()).collect(),
            range,
            tsdb_infos: set
                .groups
                .iter()
                .map(|group| TsdbInfo { labels: group.labels.clone(), range: group.range })
                .collect(),
            node: None,
            apis: Default::default(),
            ready: self.is_ready(),
        }
    }

    fn groups(&self, range: TimeRange, matchers: &[Matcher]) -> Vec<Arc<Group>> {
        let set = self.inner.set.load();
        let mut out = Vec::new();
        for group in &set.groups {
            let contradicts =
                matchers.iter().any(|m| group.labels.get(&m.name).is_some_and(|value| !m.matches(value)));
            if contradicts || !group.range.overlaps(&range) {
                continue;
            }
            if !group.blocks.iter().any(|block| (self.inner.leave_out)(block.id)) {
                out.push(group.clone());
                continue;
            }
            let rest: Vec<_> =
                group.blocks.iter().filter(|block| !(self.inner.leave_out)(block.id)).cloned().collect();
            if !rest.is_empty() {
                out.push(Arc::new(Group::new(group.labels.clone(), rest, self.inner.reading.clone())));
            }
        }
        out
    }
}

impl StoreBackend for Blocks {
    fn advertised(&self) -> Advertised {
        Blocks::advertised(self)
    }

    fn views(&self, range: TimeRange, matchers: &[Matcher]) -> Result<Vec<StoreView>, storage::Error> {
        Ok(Blocks::views(self, range, matchers))
    }

    fn blocks(&self) -> Option<Vec<String>> {
        Some(self.ids().iter().map(ToString::to_string).collect())
    }
}

struct Whole {
    blocks: Blocks,
    external: Vec<Matcher>,
}

impl Whole {
    fn groups(&self, range: TimeRange) -> Vec<Arc<Group>> {
        let mut groups = self.blocks.groups(range, &self.external);
        groups.retain(|group| Matcher::all_match(&self.external, &group.labels));
        groups
    }

    fn list(
        &self,
        request: &LabelRequest,
        of: impl Fn(&Group) -> Result<Listed, storage::Error>,
    ) -> Result<Listed, storage::Error> {
        let mut values = BTreeSet::new();
        let mut notes = Notes::default();
        for group in self.groups(request.range) {
            let listed = of(&group)?;
            values.extend(listed.values);
            notes.absorb(listed.notes);
        }
        let mut values: Vec<String> = values.into_iter().collect();
        if request.limit > 0 {
            values.truncate(request.limit);
        }
        Ok(Listed { values, notes })
    }
}

impl Select for Whole {
    fn select(
        &self,
        request: &SelectRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        let groups = self.groups(request.range);
        let sets =
            groups.iter().map(|group| group.select(request, context)).collect::<Result<Vec<_>, _>>()?;
        let left = if request.limit == 0 { usize::MAX } else { request.limit };
        Ok(Box::new(Limited { set: Merge::new(sets), left }))
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, storage::Error> {
        self.list(request, |group| group.label_names(request, context))
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest,
        context: &Context,
    ) -> Result<Listed, storage::Error> {
        self.list(request, |group| group.label_values(name, request, context))
    }
}

pub(crate) struct Limited {
    pub set: Merge,
    pub left: usize,
}

impl SeriesSet for Limited {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.set.next()
    }

    fn notes(&mut self) -> Notes {
        self.set.notes()
    }
}
