//! Ships the blocks of one folder: oldest first, each once, one bad block never in the way of the next.
//!
//! Called by receivers (one folder per tenant) after every cut and on a timer. The caller owns the timer and
//! the list of blocks; this decides which of them go up and keeps the folder's ledger.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use block::{Block, BlockId, Meta};
use catalog::Catalog;
use model::Kind;
use runtime::World;

use crate::{Bucket, Error, Ledger, RetryPolicy, Uploaded, upload_block};

/// What to ship.
#[derive(Clone, Copy, Debug)]
pub struct ShipSettings {
    /// Also blocks that were merged on this machine (level above 1).
    pub upload_compacted: bool,
    /// Opens each block before it goes up, so that damage found here does not travel.
    pub verify: bool,
    /// Pauses between failing rounds.
    pub retry: RetryPolicy,
}

impl Default for ShipSettings {
    fn default() -> Self {
        let retry = RetryPolicy {
            attempts: u32::MAX,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
        };
        ShipSettings { upload_compacted: false, verify: true, retry }
    }
}

/// Brings blocks into a bucket. One for all tenants of a node.
pub struct Shipper {
    bucket: Bucket,
    world: World,
    settings: ShipSettings,
    /// Where the ledger is; in the folders themselves without it.
    catalog: OnceLock<Catalog>,
    /// Rounds in a row that the bucket has failed.
    failures: AtomicU32,
}

/// What one round did.
#[derive(Debug, Default)]
pub struct ShipReport {
    /// Blocks in the bucket after this round that were not known to be there before it.
    pub uploaded: Vec<BlockId>,
    /// All blocks of the folder that are in the bucket: these may be deleted here.
    pub shipped: BTreeSet<BlockId>,
    /// Blocks that cannot go up as they are; the others went on.
    pub skipped: Vec<(BlockId, Error)>,
    /// Why the round ended early: the bucket or the ledger, not a block. What remains waits for the next round.
    pub error: Option<Error>,
    /// How long to wait before the next round, where this one ended early.
    pub retry_in: Option<Duration>,
}

impl Shipper {
    pub fn new(bucket: Bucket, world: &World, settings: ShipSettings) -> Shipper {
        Shipper {
            bucket,
            world: world.clone(),
            settings,
            catalog: OnceLock::new(),
            failures: AtomicU32::new(0),
        }
    }

    /// From now on ledgers are kept in the catalog, under the tenant's name. The first call counts.
    pub fn keep_in(&self, catalog: Catalog) {
        self.catalog.get_or_init(|| catalog);
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Uploads whatever of `blocks` (folder and meta.json of each) is not yet in the bucket. `folder` holds the
    /// ledger; `tenant` names it in metrics and may be empty.
    pub async fn sync(&self, tenant: &str, folder: &Path, blocks: Vec<(PathBuf, Meta)>) -> ShipReport {
        let count = |name: &'static str| metrics::counter!(name, "tenant" => tenant.to_owned());
        count("thanos_shipper_dir_syncs_total").increment(1);
        let mut report = ShipReport::default();
        if let Err(error) = self.round(tenant, folder, blocks, &mut report).await {
            count("thanos_shipper_dir_sync_failures_total").increment(1);
            let made = self.failures.fetch_add(1, Relaxed).saturating_add(1);
            let pause = self.settings.retry.step(made, RetryPolicy::roll(&self.world));
            tracing::warn!(tenant, %error, kind = ?error.kind, retry_in = ?pause, "blocks wait for their upload");
            report.error = Some(error);
            report.retry_in = Some(pause);
        } else {
            self.failures.store(0, Relaxed);
        }
        report
    }

    async fn round(
        &self,
        tenant: &str,
        folder: &Path,
        mut blocks: Vec<(PathBuf, Meta)>,
        report: &mut ShipReport,
    ) -> Result<(), Error> {
        let mut ledger = self.open(tenant, folder).await?;
        report.shipped.clone_from(ledger.uploaded());
        blocks.sort_by_key(|(_, meta)| (meta.min_time, meta.ulid));
        let present: BTreeSet<BlockId> = blocks.iter().map(|(_, meta)| meta.ulid).collect();
        for (dir, meta) in &blocks {
            if ledger.contains(meta.ulid) || !wanted(meta, &self.settings) {
                continue;
            }
            match self.ship_one(dir, meta).await {
                Ok(done) => {
                    ledger = self.record(ledger, meta.ulid, done.bytes).await?;
                    report.uploaded.push(meta.ulid);
                    report.shipped.insert(meta.ulid);
                    metrics::counter!("thanos_shipper_uploads_total", "tenant" => tenant.to_owned())
                        .increment(1);
                    tracing::info!(tenant, block = %meta.ulid, bytes = done.bytes, already = done.already, "block is in the bucket");
                }
                Err(error) => {
                    metrics::counter!("thanos_shipper_upload_failures_total", "tenant" => tenant.to_owned())
                        .increment(1);
                    if !is_the_blocks_own(&error) {
                        return Err(error);
                    }
                    tracing::error!(tenant, block = %meta.ulid, %error, "block is not uploaded");
                    report.skipped.push((meta.ulid, error));
                }
            }
        }
        self.keep_only(ledger, present).await?;
        report.shipped.retain(|id| blocks.iter().any(|(_, meta)| meta.ulid == *id));
        Ok(())
    }

    async fn ship_one(&self, dir: &Path, meta: &Meta) -> Result<Uploaded, Error> {
        if self.settings.verify {
            let (world, dir) = (self.world.clone(), dir.to_owned());
            let opened = move || {
                let broken = |e: block::Error| {
                    let message = format!("block in {} cannot be uploaded: {}", dir.display(), e.message);
                    Error::with_source(Kind::Corrupt, message, e)
                };
                Block::open(&world, &dir).map(drop).map_err(broken)
            };
            off_thread(&self.world, opened).await?;
        }
        upload_block(&self.bucket, &self.world, dir, meta).await
    }

    /// Takes blocks out of the ledger that are not in the bucket any more, so that they are uploaded again, and notes
    /// those that were given up there.
    pub async fn correct(
        &self,
        tenant: &str,
        folder: &Path,
        missing: Vec<BlockId>,
        given_up: Vec<BlockId>,
    ) -> Result<(), Error> {
        let mut ledger = self.open(tenant, folder).await?;
        off_thread(&self.world, move || {
            ledger.forget(&missing)?;
            if given_up.is_empty() { Ok(()) } else { ledger.retire(&given_up) }
        })
        .await
    }

    /// Blocks of a folder that the ledger knows to be in the bucket; asks nobody else.
    pub async fn known(&self, tenant: &str, folder: &Path) -> Result<BTreeSet<BlockId>, Error> {
        Ok(self.open(tenant, folder).await?.uploaded().clone())
    }

    async fn open(&self, tenant: &str, folder: &Path) -> Result<Ledger, Error> {
        let (world, folder, identity) = (self.world.clone(), folder.to_owned(), self.bucket.identity());
        let (catalog, tenant) = (self.catalog.get().cloned(), tenant.to_owned());
        off_thread(&self.world, move || match catalog {
            Some(catalog) => Ledger::in_catalog(&catalog, &world, &tenant, &folder, &identity),
            None => Ok(Ledger::open(&world, &folder)?.of_bucket(&identity)),
        })
        .await
    }

    async fn record(&self, mut ledger: Ledger, id: BlockId, bytes: u64) -> Result<Ledger, Error> {
        off_thread(&self.world, move || ledger.record(id, bytes).map(|()| ledger)).await
    }

    async fn keep_only(&self, mut ledger: Ledger, present: BTreeSet<BlockId>) -> Result<(), Error> {
        off_thread(&self.world, move || ledger.keep_only(&present)).await
    }
}

/// Whether a block is one to upload at all.
fn wanted(meta: &Meta, settings: &ShipSettings) -> bool {
    meta.stats.num_samples > 0 && (settings.upload_compacted || meta.compaction.level <= 1)
}

/// A block's own fault ends the upload of that block; anything else would meet the next one too. A refusal for
/// wrong settings is of kind `Invalid` as well, but comes from the store and carries its error.
fn is_the_blocks_own(error: &Error) -> bool {
    match error.kind {
        Kind::Corrupt => true,
        Kind::Invalid => error.source.is_none(),
        _ => false,
    }
}

async fn off_thread<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match world.threads.blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::with_source(Kind::Internal, "file work was broken off", error)),
    }
}
