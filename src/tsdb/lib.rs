//! The node's recent past, all tenants: one sharded head, one log, and local blocks per tenant.
//!
//! A write comes in through [`storage::Append`], is judged sample by sample and staged under one shard lock,
//! and may be acknowledged once [`Tsdb::wait_durable`] says so. A query reads a tenant through its
//! [`TenantView`]: head and local blocks as one. This crate knows no protocol, no peer and no bucket.
//!
//! Locks in order: the cut's, then one shard's, then the log's. No lock is held while the disk is waited for,
//! but for the cut's own.

mod admission;
mod append;
mod blocks;
mod cardinality;
mod cut;
mod delete;
mod dir;
mod exemplars;
mod firsts;
mod head;
mod payload;
mod pins;
mod retain;
mod rows;
mod salvage;
mod settings;
mod shape;
mod takeover;
mod tenants;
mod view;

pub use blocks::LocalBlock;
pub use cardinality::Cardinality;
pub use cut::CutBlock;
pub use delete::{Cleaned, Deleted};
pub use dir::recognise;
pub use model::Error;
pub use salvage::{Salvaged, salvage};
pub use settings::{Durability, Settings, TenantLabels};
pub use view::TenantView;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use model::{Kind, Matcher, TenantId, TimeRange, Timestamp};
use parking_lot::Mutex;
use runtime::World;
use storage::{AppendOutcome, Known, Verdict, WriteBatch};
use wal::Log;

use head::{Bounds, Head, HeadSettings};
use tenants::Tenants;

/// Largest payload of a log record that an append makes.
const GROUP_BYTES: u64 = 256 << 10;

/// The engine. Dropping it without [`Tsdb::close`] is a crash that loses nothing acknowledged.
pub struct Tsdb {
    engine: Arc<Engine>,
}

/// What the engine is made of.
pub(crate) struct Engine {
    pub world: World,
    pub settings: Settings,
    pub head: Head,
    pub log: Log,
    pub tenants: Tenants,
    pub cutting: Mutex<()>,
    /// When series were last looked through for idle ones, by the caller's clock.
    pub last_forgot: AtomicI64,
    /// When it was last warned of old samples, by the caller's clock.
    pub last_warned: AtomicI64,
    /// The node is short of memory.
    pub refuse_all: AtomicBool,
    /// Samples of one series per part of a batch.
    pub row_samples: u32,
    claim: Mutex<Option<dir::Claim>>,
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
    pub range: Option<TimeRange>,
    /// Estimated bytes of memory, without postings.
    pub bytes: u64,
}

/// Which writes the engine refuses for a while, as Unavailable, because the node is short of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Pressure {
    #[default]
    None = 0,
    /// Samples of series that are not there.
    NewSeries = 1,
    All = 2,
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
        let started = world.clock.monotonic();
        check(&settings)?;
        let shards = if settings.shards == 0 { world.threads.cores() } else { settings.shards };
        let claim = dir::claim(&world, &settings.dir, shards.clamp(1, 256).next_power_of_two())?;
        let tenants = Tenants::new(settings.limits.clone());
        let group_bytes = GROUP_BYTES.min(settings.segment_bytes / 8) as usize;
        let head = Head::new(
            HeadSettings {
                bounds: Bounds {
                    out_of_order_window: settings.out_of_order_window,
                    future_tolerance: settings.future_tolerance,
                    max_sample_age: settings.max_sample_age.max(settings.out_of_order_window),
                },
                block_range: settings.block_range,
                max_labels_bytes: settings.max_labels_bytes.min(group_bytes / 2),
                max_exemplars: settings.max_exemplars,
                max_series_exemplars: settings.max_series_exemplars,
                start_as_zero: settings.created_timestamp_zero_ingestion,
                group_bytes,
            },
            claim.shards,
        );
        let log_settings = wal::Settings {
            dir: dir::log_dir(&settings.dir),
            segment_bytes: settings.segment_bytes,
            queue_bytes: settings.log_queue_bytes,
            mode: match settings.durability {
                Durability::Durable => wal::Mode::Durable,
                Durability::Fast => wal::Mode::Fast,
            },
            known_kinds: payload::KINDS,
        };
        let ((log, report), orphans) = head::replay(&head, &tenants, world.clock.now_ms(), |apply| {
            Log::open::<Error>(&world, log_settings, &mut |entry| {
                progress(Progress { done: entry.progress.0, total: entry.progress.1 });
                apply(entry)
            })
        })?;
        for (tenant, block) in &orphans {
            cut::remove_orphan(&world, &settings.dir, tenant, block)?;
        }
        blocks::open_all(&world, &settings.dir, settings.block_range, &tenants)?;
        for tenant in tenants.all() {
            tenant.report_series();
        }
        let took = world.clock.monotonic().duration_since(started);
        metrics::gauge!("tributary_tsdb_replay_seconds").set(took.as_secs_f64());
        tracing::info!(
            records = report.records,
            bytes = report.bytes,
            segments = report.segments,
            healed = report.healed_bytes,
            ms = took.as_millis() as u64,
            "log replayed"
        );
        let engine = Engine {
            row_samples: Engine::row_samples(group_bytes),
            world,
            settings,
            head,
            log,
            tenants,
            cutting: Mutex::new(()),
            last_forgot: AtomicI64::new(i64::MIN),
            last_warned: AtomicI64::new(i64::MIN),
            refuse_all: AtomicBool::new(false),
            claim: Mutex::new(Some(claim)),
        };
        Ok(Arc::new(Tsdb { engine: Arc::new(engine) }))
    }

    pub fn settings(&self) -> &Settings {
        &self.engine.settings
    }

    /// Returns once the log is durable up to `position` (of [`AppendOutcome`]), or with the reason why it
    /// never will be. The caller sets its own time limit.
    pub async fn wait_durable(&self, position: u64) -> Result<(), Error> {
        self.engine.log.wait_async(position).await
    }

    /// As [`Tsdb::wait_durable`] for threads; Unavailable after `timeout`.
    pub fn wait_durable_blocking(&self, position: u64, timeout: Duration) -> Result<(), Error> {
        self.engine.log.wait(position, timeout)
    }

    /// Whether an append of so many bytes would wait for nothing: neither for the log nor for the disk.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.engine.log.has_room(bytes)
    }

    /// Returns when the log has failed, with the reason: the process should then end and be restarted.
    pub async fn poisoned(&self) -> String {
        self.engine.log.until_poisoned().await.to_string()
    }

    pub fn health(&self) -> Health {
        if let Some(reason) = self.engine.log.poisoned() {
            return Health::Poisoned(reason.to_string());
        }
        match self.engine.log.read_only() {
            Some(reason) => Health::ReadOnly(reason.to_string()),
            None => Health::Good,
        }
    }

    /// All tenants with data in head or blocks, sorted.
    pub fn tenants(&self) -> Vec<TenantId> {
        let all = self.engine.tenants.all();
        all.into_iter().filter(|t| self.engine.has_data(t)).map(|t| t.id.clone()).collect()
    }

    /// The samples of a tenant, if there are any.
    pub fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantView>> {
        let tenant = self.engine.tenants.get(tenant).filter(|t| self.engine.has_data(t))?;
        Some(Arc::new(TenantView { engine: self.engine.clone(), tenant }))
    }

    /// Cuts the windows that are due at `now` into blocks, or everything with `force`. Call it once a minute.
    pub fn cut(&self, now: Timestamp, force: bool) -> Result<Vec<CutBlock>, Error> {
        self.engine.cut(now, force)
    }

    /// Puts the limits in force that [`Settings::limits`] gives from now on.
    pub fn reload_limits(&self, now: Timestamp) {
        self.engine.reload_limits(now);
    }

    /// Counts the active series of tenants that are near a limit, or of all. Call it every few seconds, and for
    /// all every few minutes.
    pub fn count_active(&self, now: Timestamp, all: bool) {
        self.engine.count_active(now, all);
    }

    /// Refuses writes until it is told otherwise.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.engine.refuse_all.store(pressure == Pressure::All, Relaxed);
        self.engine.head.refuse_new.store(pressure != Pressure::None, Relaxed);
    }

    /// Active series of a tenant: those that count towards its limit.
    pub fn active_series(&self, tenant: &TenantId) -> u64 {
        self.engine.tenants.get(tenant).map_or(0, |tenant| tenant.active.load(Relaxed))
    }

    /// Blocks of a tenant on the local disk, oldest first.
    pub fn local_blocks(&self, tenant: &TenantId) -> Vec<LocalBlock> {
        let Some(tenant) = self.engine.tenants.get(tenant) else { return Vec::new() };
        tenant.blocks.read().iter().map(|b| b.local.clone()).collect()
    }

    /// Whether the block is on the local disk, whoever's it is.
    pub fn has_local_block(&self, id: block::BlockId) -> bool {
        self.engine.tenants.all().iter().any(|tenant| tenant.blocks.read().iter().any(|b| b.local.id == id))
    }

    /// Deletes local blocks that are older than the retention and for which `shipped` answers true; returns
    /// how many. Without a bucket, `shipped` is always true.
    pub fn apply_retention(
        &self,
        now: Timestamp,
        shipped: &dyn Fn(&LocalBlock) -> bool,
    ) -> Result<usize, Error> {
        self.engine.apply_retention(now, shipped)
    }

    /// Deletes a tenant's samples in a closed range of the series that pass all matchers of one of `sets`, from
    /// head and local blocks, durable when it returns. Waits for a cut that runs. Samples that come later are
    /// taken as any.
    pub fn delete_series(
        &self,
        tenant: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Deleted, Error> {
        self.engine.delete_series(tenant, sets, range)
    }

    /// Writes those local blocks anew of which something is deleted and for which `shipped` answers false; a
    /// block in the bucket keeps its note, since the bucket would get a second one.
    pub fn clean_tombstones(&self, shipped: &dyn Fn(&LocalBlock) -> bool) -> Result<Cleaned, Error> {
        self.engine.clean_tombstones(shipped)
    }

    /// Removes a tenant with all its samples, head and local blocks; what it sends later makes it anew. Blocks in
    /// a bucket stay.
    pub fn remove_tenant(&self, tenant: &TenantId) -> Result<Deleted, Error> {
        self.engine.remove_tenant(tenant)
    }

    /// Removes tenants that have neither series nor blocks any more; returns their ids.
    pub fn prune_tenants(&self) -> Vec<TenantId> {
        self.engine.prune_tenants()
    }

    /// Visits every series: for a metrics page or a test, not for every request.
    pub fn head_stats(&self) -> HeadStats {
        let (series, sum) = self.engine.head.measure();
        HeadStats {
            series,
            chunks: sum.chunks,
            samples: sum.samples,
            range: (!sum.range.is_empty()).then_some(sum.range),
            bytes: sum.bytes as u64,
        }
    }

    /// Bytes of memory that the head takes, by part; "idle" is what slabs have taken and not given back. Visits
    /// every label pair.
    pub fn head_memory(&self) -> Vec<(&'static str, u64)> {
        self.engine.head.parts()
    }

    /// Ends the log in good order: everything enqueued is durable afterwards, and another process may open the
    /// folder. Appends fail from then on.
    pub fn close(&self) -> Result<(), Error> {
        let _no_cut_runs = self.engine.cutting.lock();
        let closed = self.engine.log.close();
        *self.engine.claim.lock() = None;
        closed
    }
}

impl Engine {
    fn has_data(&self, tenant: &tenants::Tenant) -> bool {
        !tenant.blocks.read().is_empty() || !self.head.window_range(tenant.index).is_empty()
    }

    /// What was read up to `position` may be shown after this.
    pub(crate) fn wait_read(&self, position: u64) -> Result<(), Error> {
        self.log.wait(position, self.settings.read_wait)
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
        self.engine.append(tenant, batch, rows, judged_at, verdicts, None)
    }

    fn append_known(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        known: Known<'_>,
    ) -> Result<AppendOutcome, storage::Error> {
        self.engine.append(tenant, batch, rows, judged_at, verdicts, Some(known))
    }
}

/// What the settings must satisfy.
fn check(settings: &Settings) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::new(Kind::Invalid, what));
    if settings.block_range <= 0 {
        return wrong(format!("a block range of {} ms is not positive", settings.block_range));
    }
    if settings.out_of_order_window < 0 || settings.future_tolerance < 0 || settings.max_sample_age < 0 {
        return wrong("the accepted window must not be negative".to_owned());
    }
    if settings.segment_bytes < 16 << 10 {
        return wrong(format!(
            "log segments of {} bytes are too small; at least 16KiB",
            settings.segment_bytes
        ));
    }
    Ok(())
}
