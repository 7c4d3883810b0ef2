//! Local blocks: finding them at start, and reading them by the contract of selects.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use block::{Block, BlockId, LabelSets, Meta};
use model::{Kind, TenantId, TimeRange};
use runtime::World;
use storage::{Cancel, Context, LabelRequest, Reservation, SelectRequest, SeriesEntry, SeriesSet};

use crate::head::window_start;
use crate::tenants::Tenants;
use crate::{Error, dir};
use wal::error;

/// A block on the local disk.
#[derive(Clone)]
pub struct LocalBlock {
    pub tenant: TenantId,
    pub id: BlockId,
    /// `<data>/blocks/<tenant>/<ULID>`.
    pub dir: PathBuf,
    pub meta: Meta,
}

/// A block that is open for reading.
pub(crate) struct OpenBlock {
    pub local: LocalBlock,
    pub block: Block,
}

impl OpenBlock {
    pub(crate) fn open(
        world: &World,
        tenant: &TenantId,
        parent: &Path,
        id: BlockId,
    ) -> Result<OpenBlock, Error> {
        let dir = parent.join(id.to_string());
        let block = Block::open(world, &dir).map_err(from_block)?;
        let local = LocalBlock { tenant: tenant.clone(), id, dir, meta: block.meta().clone() };
        Ok(OpenBlock { local, block })
    }

    pub(crate) fn range(&self) -> TimeRange {
        self.block.time_range()
    }

    pub(crate) fn select(
        &self,
        request: &SelectRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        let series =
            self.block.series(&request.matchers, request.range, request.limit, request.skip_chunks)?;
        let held = context.budget.reserve(series.memory() as u64)?;
        Ok(Box::new(BlockSet { series, held, context: context.clone() }))
    }

    /// Names, or values of a name; the first `limit` of them, 0 for all.
    pub(crate) fn list(
        &self,
        name: Option<&str>,
        request: &LabelRequest,
        limit: usize,
    ) -> Result<Vec<String>, storage::Error> {
        match name {
            None => self.block.label_names(&request.matchers, request.range, limit),
            Some(name) => self.block.label_values(name, &request.matchers, request.range, limit),
        }
    }
}

/// The series of blocks without their chunks: sets that are each sorted, as few as can be.
pub(crate) fn labels_of(
    blocks: &[Arc<OpenBlock>],
    request: &SelectRequest,
    context: &Context,
) -> Result<Vec<Box<dyn SeriesSet>>, storage::Error> {
    let blocks: Vec<Block> = blocks.iter().map(|open| open.block.clone()).collect();
    let mut out: Vec<Box<dyn SeriesSet>> = Vec::new();
    for sets in LabelSets::of(&blocks, &request.matchers, request.range)? {
        let held = context.budget.reserve(sets.memory() as u64)?;
        out.push(Box::new(BlocksLabels { sets, _held: held, cancel: context.cancel.clone() }));
    }
    Ok(out)
}

/// Streams label sets of several blocks.
struct BlocksLabels {
    sets: LabelSets,
    _held: Reservation,
    cancel: Cancel,
}

impl SeriesSet for BlocksLabels {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        if self.cancel.is_raised() {
            return Err(storage::Error::new(Kind::Refused, "query was canceled"));
        }
        let Some(labels) = self.sets.next() else { return Ok(None) };
        Ok(Some(SeriesEntry { labels: labels?, chunks: Vec::new() }))
    }
}

/// Streams a block's series; holds one series at a time.
struct BlockSet {
    series: block::BlockSeries,
    held: Reservation,
    context: Context,
}

impl SeriesSet for BlockSet {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        if self.context.cancel.is_raised() {
            return Err(storage::Error::new(Kind::Refused, "query was canceled"));
        }
        let Some(next) = self.series.next() else { return Ok(None) };
        let (labels, chunks) = next?;
        // Chunks are parts of the mapped files: only their descriptors take memory of ours.
        self.held.grow((labels.as_bytes().len() + size_of_val(&*chunks)) as u64)?;
        Ok(Some(SeriesEntry { labels, chunks }))
    }
}

/// Opens every block below the data folder. What is damaged is reported, counted and left alone; what an
/// interrupted run left behind is removed.
pub(crate) fn open_all(world: &World, data: &Path, block_range: i64, tenants: &Tenants) -> Result<(), Error> {
    let root = dir::blocks_dir(data);
    world.disk.create_dir_all(&root).map_err(|e| error::io("create", &root, e))?;
    world.disk.sync_dir(data).map_err(|e| error::io("sync", data, e))?;
    let names = world.disk.list(&root).map_err(|e| error::io("list", &root, e))?;
    for name in names {
        let Ok(id) = TenantId::new(&name) else {
            tracing::warn!(folder = %root.join(&name).display(), "not a tenant's folder: left alone");
            continue;
        };
        let parent = root.join(&name);
        if !world.disk.is_dir(&parent) {
            continue;
        }
        match block::remove_leftovers(world, &parent) {
            Ok(0) => {}
            Ok(n) => tracing::info!(tenant = %id, folders = n, "unfinished blocks removed"),
            Err(error) => tracing::warn!(tenant = %id, error = %error, "unfinished blocks stay"),
        }
        let found = block::list(world, &parent).map_err(from_block)?;
        if found.is_empty() {
            continue;
        }
        let tenant = tenants.get_or_add(&id);
        let mut blocks = Vec::new();
        for block in found {
            match OpenBlock::open(world, &id, &parent, block) {
                Ok(open) => {
                    let through = window_start(open.range().end, block_range) + block_range;
                    tenant.cut_through.fetch_max(through, Relaxed);
                    blocks.push(Arc::new(open));
                }
                Err(error) => {
                    metrics::counter!("tributary_tsdb_blocks_skipped_total").increment(1);
                    tracing::error!(
                        tenant = %id, block = %block, error = %error,
                        "block cannot be opened: its samples are missing from answers until it is repaired or removed"
                    );
                }
            }
        }
        blocks.sort_by_key(|b| (b.local.meta.min_time, b.local.id));
        *tenant.blocks.write() = blocks;
    }
    Ok(())
}

/// To the engine a full disk is something that passes.
pub(crate) fn from_block(error: block::Error) -> Error {
    let kind = match error.kind {
        Kind::Exhausted => Kind::Unavailable,
        kind => kind,
    };
    Error::with_source(kind, error.message.clone(), error)
}
