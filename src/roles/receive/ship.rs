//! Cutting, shipping and forgetting: the head's full windows become blocks, blocks go to the bucket, and what
//! is old and shipped leaves the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use block::{BlockId, Meta};
use bucket::{Bucket, DeletionMark, ShipSettings, Shipper};
use model::{Kind, Matcher, TenantId, TimeRange};
use parking_lot::Mutex;
use runtime::{Pool, Shutdown, World};
use tokio::time::Instant;
use tsdb::Tsdb;

use crate::Error;
use crate::peers::Peers;

/// How often the head is asked what is due.
const CUT_EVERY: Duration = Duration::from_secs(60);
/// How often uploads are tried, as in Thanos.
const SHIP_EVERY: Duration = Duration::from_secs(30);

/// The way of blocks out of this node.
pub struct Ship {
    world: World,
    shipper: Option<Shipper>,
    peers: Arc<Peers>,
    /// One thread: cuts and deletions never run beside one another.
    pool: Pool,
    /// Blocks known to be in the bucket, by tenant.
    shipped: Mutex<BTreeMap<TenantId, BTreeSet<BlockId>>>,
    /// One round of uploads at a time.
    shipping: tokio::sync::Mutex<()>,
    /// Whether those who read the bucket for this process have found a block there.
    visible: OnceLock<Visible>,
}

/// Answers for the blocks of the bucket.
pub type Visible = Arc<dyn Fn(BlockId) -> bool + Send + Sync>;

/// What one round of cutting and shipping came to.
#[derive(Debug, Default)]
pub struct Round {
    /// Blocks cut.
    pub cut: Vec<PathBuf>,
    pub uploaded: usize,
    /// Why something is left to do, in words.
    pub left: Vec<String>,
    /// How long the bucket is to be left alone, where it failed.
    pub retry_in: Option<Duration>,
}

impl Ship {
    pub fn new(world: &World, bucket: Option<Bucket>, peers: Arc<Peers>) -> Result<Ship, Error> {
        let pool = Pool::new("cut", 1, 16)
            .map_err(|e| Error::with_source(Kind::Internal, format!("threads cannot be started: {e}"), e))?;
        let shipper = bucket.map(|bucket| Shipper::new(bucket, world, ShipSettings::default()));
        Ok(Ship {
            world: world.clone(),
            shipper,
            peers,
            pool,
            shipped: Mutex::default(),
            shipping: tokio::sync::Mutex::new(()),
            visible: OnceLock::new(),
        })
    }

    /// From now on a shipped block is deleted here only once `visible` answers true. The first call counts.
    pub fn keep_until(&self, visible: Visible) {
        self.visible.get_or_init(|| visible);
    }

    pub fn has_bucket(&self) -> bool {
        self.shipper.is_some()
    }

    /// Cuts what is due, or everything with `force`, and ships it.
    pub async fn cut_and_ship(&self, engine: &Arc<Tsdb>, force: bool) -> Result<Round, Error> {
        let mut round = Round::default();
        let (cutter, now) = (Arc::clone(engine), self.world.clock.now_ms());
        let cut = self.pool.run(move || cutter.cut(now, force)).await.map_err(pool_error)?;
        for block in cut? {
            tracing::info!(tenant = %block.tenant, dir = %block.dir.display(), "block is cut");
            round.cut.push(block.dir);
        }
        self.ship(engine, &mut round).await;
        Ok(round)
    }

    async fn ship(&self, engine: &Arc<Tsdb>, round: &mut Round) {
        let Some(shipper) = &self.shipper else { return };
        if !self.peers.labels_differ() {
            round.left.push("uploads wait until every peer has shown external labels of its own".to_owned());
            return;
        }
        let _one = self.shipping.lock().await;
        for tenant in engine.tenants() {
            let blocks: Vec<(PathBuf, Meta)> =
                engine.local_blocks(&tenant).into_iter().map(|block| (block.dir, block.meta)).collect();
            let Some(folder) = blocks.first().and_then(|(dir, _)| dir.parent()).map(PathBuf::from) else {
                continue;
            };
            let report = shipper.sync(tenant.as_str(), &folder, blocks).await;
            round.uploaded += report.uploaded.len();
            round
                .left
                .extend(report.skipped.iter().map(|(id, error)| format!("{tenant}: block {id}: {error}")));
            round.left.extend(report.error.iter().map(|error| format!("{tenant}: {error}")));
            round.retry_in = round.retry_in.max(report.retry_in);
            self.shipped.lock().insert(tenant, report.shipped);
        }
    }

    /// Deletes local blocks beyond the retention; with a bucket only those that are shipped and, where somebody
    /// in this process reads the bucket, found there.
    async fn forget(&self, engine: &Arc<Tsdb>) -> Result<(), Error> {
        let (keeper, now) = (Arc::clone(engine), self.world.clock.now_ms());
        let shipped = self.shipper.is_some().then(|| self.shipped.lock().clone());
        let visible = self.visible.get().cloned();
        let forgotten = self.pool.run(move || {
            keeper.apply_retention(now, &|block| match &shipped {
                None => true,
                Some(shipped) => {
                    shipped.get(&block.tenant).is_some_and(|ids| ids.contains(&block.id))
                        && visible.as_ref().is_none_or(|visible| visible(block.id))
                }
            })
        });
        let count = forgotten.await.map_err(pool_error)??;
        if count > 0 {
            tracing::info!(blocks = count, "blocks beyond the retention are deleted");
        }
        let pruner = Arc::clone(engine);
        let pruned = self.pool.run(move || pruner.prune_tenants()).await.map_err(pool_error)?;
        let mut shipped = self.shipped.lock();
        for tenant in pruned {
            shipped.remove(&tenant);
        }
        Ok(())
    }

    /// Deletes series here. A block that is not in the bucket yet is written anew at once, so that the bucket never
    /// sees what was deleted; one that is there is only noted, and warned of.
    pub async fn delete_series(
        &self,
        engine: &Arc<Tsdb>,
        tenant: TenantId,
        sets: Vec<Vec<Matcher>>,
        range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        // No upload may begin with what is being deleted.
        let _one = self.shipping.lock().await;
        let deleter = Arc::clone(engine);
        let work = self.pool.run(move || deleter.delete_series(&tenant, &sets, range));
        let deleted = work.await.map_err(pool_error)??;
        if deleted.blocks.is_empty() || self.shipper.is_none() {
            return Ok(Vec::new());
        }
        self.clean(engine).await
    }

    /// Takes what is deleted out of the local blocks that are not in the bucket.
    pub async fn clean_tombstones(&self, engine: &Arc<Tsdb>) -> Result<Vec<String>, Error> {
        let _one = self.shipping.lock().await;
        self.clean(engine).await
    }

    async fn clean(&self, engine: &Arc<Tsdb>) -> Result<Vec<String>, Error> {
        let shipped = self.shipper.is_some().then(|| self.shipped.lock().clone());
        let cleaner = Arc::clone(engine);
        let work = self.pool.run(move || {
            cleaner.clean_tombstones(&|block| match &shipped {
                None => false,
                // Before the first round nobody knows what is there.
                Some(shipped) => shipped.get(&block.tenant).is_none_or(|ids| ids.contains(&block.id)),
            })
        });
        let cleaned = work.await.map_err(pool_error)??;
        if cleaned.left.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = cleaned.left.iter().map(ToString::to_string).collect();
        let text = format!(
            "{} blocks with deleted samples are in the bucket already and are not changed there: once the local \
             copies leave, readers of the bucket show these samples again until the blocks are rewritten there ({})",
            ids.len(),
            ids.join(", ")
        );
        tracing::warn!(blocks = ?ids, "deletion does not reach blocks in the bucket; rewrite them there");
        Ok(vec![text])
    }

    /// Removes a tenant from this node; with the name of the tenant's external label, its blocks in the bucket are
    /// marked for deletion.
    pub async fn remove_tenant(
        &self,
        engine: &Arc<Tsdb>,
        tenant: TenantId,
        label: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let _one = self.shipping.lock().await;
        let (remover, id) = (Arc::clone(engine), tenant.clone());
        let removed = self.pool.run(move || remover.remove_tenant(&id)).await.map_err(pool_error)??;
        self.shipped.lock().remove(&tenant);
        tracing::warn!(%tenant, series = removed.series, blocks = removed.blocks.len(), "tenant removed by hand");
        match (&self.shipper, label) {
            (None, _) => Ok(Vec::new()),
            (Some(_), None) => Ok(vec![format!(
                "blocks of tenant {tenant} in the bucket stay; bucket=true marks them for deletion"
            )]),
            (Some(shipper), Some(label)) => {
                let marked = self.mark_blocks(shipper.bucket(), &tenant, label).await.map_err(|error| {
                    Error::with_source(error.kind, format!("blocks in the bucket: {error}"), error)
                })?;
                tracing::warn!(%tenant, blocks = marked, "blocks in the bucket are marked for deletion");
                Ok(vec![format!(
                    "{marked} blocks of tenant {tenant} in the bucket are marked for deletion; a compactor deletes \
                     them after its delay"
                )])
            }
        }
    }

    async fn mark_blocks(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        label: &str,
    ) -> Result<usize, bucket::Error> {
        let mut marked = 0;
        for id in bucket.list_blocks().await? {
            let meta = match bucket.meta(id).await {
                Ok(meta) => meta,
                Err(error) if error.missing => continue,
                Err(error) => return Err(error),
            };
            let of = meta.thanos.as_ref().and_then(|thanos| thanos.labels.get(label));
            if of.map(String::as_str) != Some(tenant.as_str()) || bucket.deletion_mark(id).await?.is_some() {
                continue;
            }
            let mark = DeletionMark::new(id, self.world.clock.now_ms(), "tenant removed");
            let path = bucket::layout::of(id, bucket::layout::DELETION_MARK);
            bucket.put(&path, mark.to_json()?.into()).await?;
            marked += 1;
        }
        Ok(marked)
    }

    /// What is still needed here and nowhere else; nothing if the node may go.
    pub fn left_here(&self, engine: &Arc<Tsdb>) -> Vec<String> {
        let mut left = Vec::new();
        let head = engine.head_stats();
        if head.samples > 0 {
            left.push(format!("the head holds {} samples of {} series", head.samples, head.series));
        }
        let shipped = self.shipped.lock();
        for tenant in engine.tenants() {
            let blocks = engine.local_blocks(&tenant);
            let known = shipped.get(&tenant);
            let only_here = blocks.iter().filter(|b| !known.is_some_and(|ids| ids.contains(&b.id))).count();
            if only_here > 0 {
                left.push(format!("{only_here} blocks of tenant {tenant} are only here"));
            }
        }
        left
    }

    /// Cuts, ships and forgets until the shutdown. The first cut comes after a random part of a minute, so that
    /// the receivers of a cluster do not cut in step.
    pub async fn run(&self, engine: Arc<Tsdb>, shutdown: Shutdown) {
        let jitter = Duration::from_millis(self.world.chance.below(CUT_EVERY.as_millis() as u64));
        let mut next_cut = Instant::now() + jitter;
        let mut pause = SHIP_EVERY;
        loop {
            let next_ship = Instant::now() + pause;
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep_until(next_cut.min(next_ship)) => {}
            }
            let cuts = Instant::now() >= next_cut;
            if cuts {
                next_cut = Instant::now() + CUT_EVERY;
            }
            let outcome = tokio::select! {
                // An upload that is broken off is begun again; a cut goes on, and the engine's end waits for it.
                () = shutdown.wait() => return,
                outcome = self.step(&engine, cuts) => outcome,
            };
            if let Ok(retry_in) = &outcome {
                pause = retry_in.unwrap_or(SHIP_EVERY).max(SHIP_EVERY);
            }
            if let Err(error) = outcome {
                metrics::counter!("tributary_receive_cut_failures_total").increment(1);
                tracing::error!(%error, kind = ?error.kind, "cut did not succeed; it is tried again in a minute");
            }
        }
    }
}

impl Ship {
    /// One turn of [`Ship::run`]; answers how long the bucket is to be left alone.
    async fn step(&self, engine: &Arc<Tsdb>, cuts: bool) -> Result<Option<Duration>, Error> {
        let mut round = Round::default();
        if cuts {
            round = self.cut_and_ship(engine, false).await?;
        } else {
            self.ship(engine, &mut round).await;
        }
        self.forget(engine).await?;
        Ok(round.retry_in)
    }
}

fn pool_error(error: runtime::PoolError) -> Error {
    Error::with_source(Kind::Internal, error.to_string(), error)
}
