//! The node's recent past, all tenants: one sharded head, one log, and local blocks per tenant.
//!
//! A write comes in through [`storage::Append`], is judged sample by sample and staged under one shard lock,
//! and may be acknowledged once [`Tsdb::wait_durable`] says so. A query reads a tenant through its
//! [`TenantView`]: head and local blocks as one. This crate knows no protocol, no peer and no bucket.

mod error;
mod settings;

pub use error::Error;
pub use settings::{Durability, Settings};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Kind, TenantId, TimeRange, Timestamp};
use runtime::World;
use storage::{AppendOutcome, Context, LabelRequest, Listed, SelectRequest, SeriesSet, Verdict, WriteBatch};

/// The engine. Cheap to share behind an [`Arc`]; dropping it without [`Tsdb::close`] is a crash that loses
/// nothing acknowledged.
pub struct Tsdb {
    settings: Settings,
}

/// A block that has just been cut from the head and is open for reading.
#[derive(Clone, Debug)]
pub struct CutBlock {
    pub tenant: TenantId,
    /// `<data>/blocks/<tenant>/<ULID>`.
    pub dir: PathBuf,
}

/// A block on the local disk.
#[derive(Clone, Debug)]
pub struct LocalBlock {
    pub tenant: TenantId,
    /// `<data>/blocks/<tenant>/<ULID>`.
    pub dir: PathBuf,
}

/// How far a replay has come, in bytes of log.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// What the head holds.
#[derive(Clone, Debug, Default)]
pub struct HeadStats {
    pub series: u64,
    pub chunks: u64,
    pub samples: u64,
    /// Times of the oldest and newest sample; none while empty.
    pub range: Option<(Timestamp, Timestamp)>,
    /// Estimated bytes of memory.
    pub bytes: u64,
}

/// Whether the engine takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// The disk is full: reads go on, writes are refused as Unavailable until space returns.
    ReadOnly(String),
    /// The log failed: nothing is acknowledged any more; the process must restart.
    Poisoned(String),
}

impl Tsdb {
    /// Opens or creates the data folder and replays its log. Blocks; memory stays near steady state.
    pub fn open(world: World, settings: Settings) -> Result<Arc<Tsdb>, Error> {
        Tsdb::open_with(world, settings, &mut |_| {})
    }

    /// As [`Tsdb::open`], telling how far the replay has come.
    pub fn open_with(
        world: World,
        settings: Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<Tsdb>, Error> {
        let _ = (world, progress);
        Ok(Arc::new(Tsdb { settings }))
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns once the log is durable up to `position` (of [`AppendOutcome`]), or with the reason why it
    /// never will be.
    pub async fn wait_durable(&self, position: u64) -> Result<(), Error> {
        let _ = position;
        Err(Error::new(Kind::Unavailable, "not built yet"))
    }

    /// As [`Tsdb::wait_durable`] for threads; Unavailable after `timeout`.
    pub fn wait_durable_blocking(&self, position: u64, timeout: Duration) -> Result<(), Error> {
        let _ = (position, timeout);
        Err(Error::new(Kind::Unavailable, "not built yet"))
    }

    /// Returns when the log has failed, with the reason: the process should then end and be restarted.
    pub async fn poisoned(&self) -> String {
        std::future::pending().await
    }

    pub fn health(&self) -> Health {
        Health::Good
    }

    /// All tenants with data in head or blocks, sorted.
    pub fn tenants(&self) -> Vec<TenantId> {
        Vec::new()
    }

    /// The samples of a tenant, if there are any.
    pub fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantView>> {
        let _ = tenant;
        None
    }

    /// Cuts the windows that are due at `now` into blocks, or everything with `force`. Call it once a minute.
    pub fn cut(&self, now: Timestamp, force: bool) -> Result<Vec<CutBlock>, Error> {
        let _ = (now, force);
        Err(Error::new(Kind::Unavailable, "not built yet"))
    }

    /// Blocks of a tenant on the local disk, oldest first.
    pub fn local_blocks(&self, tenant: &TenantId) -> Vec<LocalBlock> {
        let _ = tenant;
        Vec::new()
    }

    /// Deletes local blocks that are older than the retention and for which `shipped` answers true; returns
    /// how many. Without a bucket, `shipped` is always true.
    pub fn apply_retention(
        &self,
        now: Timestamp,
        shipped: &dyn Fn(&LocalBlock) -> bool,
    ) -> Result<usize, Error> {
        let _ = (now, shipped);
        Ok(0)
    }

    pub fn head_stats(&self) -> HeadStats {
        HeadStats::default()
    }

    /// Ends the log in good order: everything enqueued is durable afterwards. Appends fail from then on.
    pub fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl storage::Append for Tsdb {
    fn append(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
    ) -> Result<AppendOutcome, storage::Error> {
        let _ = (tenant, batch, rows, judged_at, verdicts);
        Err(storage::Error::new(Kind::Unavailable, "not built yet"))
    }
}

/// All samples of one tenant, head and local blocks as one.
pub struct TenantView {
    tenant: TenantId,
}

impl TenantView {
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Times of the oldest and the newest sample; none while there are none.
    pub fn time_range(&self) -> Option<TimeRange> {
        None
    }
}

impl storage::Select for TenantView {
    fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, storage::Error> {
        Err(storage::Error::new(Kind::Unavailable, "not built yet"))
    }

    fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Err(storage::Error::new(Kind::Unavailable, "not built yet"))
    }

    fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Err(storage::Error::new(Kind::Unavailable, "not built yet"))
    }
}
