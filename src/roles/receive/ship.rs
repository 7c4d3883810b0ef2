//! Cutting, shipping and forgetting: the head's full windows become blocks, blocks go to the bucket, and what
//! is old and shipped leaves the disk.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use block::{BlockId, Meta};
use bucket::{Bucket, DeletionMark, Holdings, ShipSettings, Shipper, Whereabouts};
use catalog::Catalog;
use model::{Kind, Matcher, TenantId, TimeRange};
use parking_lot::Mutex;
use runtime::{Pool, Shutdown, World};
use tokio::time::Instant;
use tsdb::{LocalBlock, Tsdb};

use crate::Error;
use crate::peers::Peers;

/// How often the head is asked what is due.
const CUT_EVERY: Duration = Duration::from_secs(60);
/// How often uploads are tried, as in Thanos.
const SHIP_EVERY: Duration = Duration::from_secs(30);

/// Blocks beyond the retention that are looked for in the bucket in one round.
const FORGET_AT_ONCE: usize = 500;

/// The way of blocks out of this node.
pub struct Ship {
    world: World,
    shipper: Option<Shipper>,
    /// What the bucket has.
    holdings: Option<Holdings>,
    catalog: OnceLock<Catalog>,
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
        let pool = Pool::behind(&world.threads, "cut", 1, 16)
            .map_err(|e| Error::with_source(Kind::Internal, format!("threads cannot be started: {e}"), e))?;
        let holdings = bucket.clone().map(|bucket| Holdings::new(bucket, world));
        let shipper = bucket.map(|bucket| Shipper::new(bucket, world, ShipSettings::default()));
        Ok(Ship {
            world: world.clone(),
            shipper,
            holdings,
            catalog: OnceLock::new(),
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

    /// From now on the ledgers of tenants are in the catalog.
    pub fn open(&self, catalog: Catalog) {
        if let Some(shipper) = &self.shipper {
            shipper.keep_in(catalog.clone());
        }
        self.catalog.get_or_init(|| catalog);
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

    /// Ships what is cut.
    pub async fn upload(&self, engine: &Arc<Tsdb>) -> Round {
        let mut round = Round::default();
        self.ship(engine, &mut round).await;
        round
    }

    /// Local blocks that are known to be in the bucket, and how many are not.
    pub fn by_shipped(&self, engine: &Tsdb) -> (Vec<LocalBlock>, usize) {
        let shipped = self.shipped.lock();
        let known =
            |block: &LocalBlock| shipped.get(&block.tenant).is_some_and(|ids| ids.contains(&block.id));
        let all = engine.tenants().into_iter().flat_map(|tenant| engine.local_blocks(&tenant));
        let (there, here): (Vec<_>, Vec<_>) = all.partition(known);
        (there, here.len())
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

    /// Deletes local blocks beyond the retention; with a bucket only those that were shipped and of which the bucket
    /// says that it has them, or a block they were merged into; and, where somebody in this process reads the bucket,
    /// only if they have found that block.
    async fn forget(&self, engine: &Arc<Tsdb>) -> Result<(), Error> {
        let safe = match self.has_bucket() {
            true => Some(self.settle(self.expired(engine).await?).await),
            false => None,
        };
        if safe.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        let (keeper, now) = (Arc::clone(engine), self.world.clock.now_ms());
        let forgotten = self.pool.run(move || {
            keeper.apply_retention(now, &|block| safe.as_ref().is_none_or(|safe| safe.contains(&block.id)))
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

    /// Blocks known to be in the bucket, of every tenant: before the first round the ledgers say it. A block that was
    /// taken for uploaded would go up later with what is deleted in it.
    async fn shipped_of_all(
        &self,
        shipper: &Shipper,
        engine: &Tsdb,
    ) -> Result<BTreeMap<TenantId, BTreeSet<BlockId>>, Error> {
        let mut shipped = self.shipped.lock().clone();
        for tenant in engine.tenants() {
            let blocks = engine.local_blocks(&tenant);
            let Some(folder) = blocks.first().and_then(|block| block.dir.parent()) else { continue };
            let Entry::Vacant(unknown) = shipped.entry(tenant) else { continue };
            let known = shipper
                .known(unknown.key().as_str(), folder)
                .await
                .map_err(|error| Error::with_source(error.kind, format!("upload ledger: {error}"), error))?;
            unknown.insert(known);
        }
        Ok(shipped)
    }

    async fn clean(&self, engine: &Arc<Tsdb>) -> Result<Vec<String>, Error> {
        let shipped = match &self.shipper {
            Some(shipper) => Some(self.shipped_of_all(shipper, engine).await?),
            None => None,
        };
        let cleaner = Arc::clone(engine);
        let work = self.pool.run(move || {
            cleaner.clean_tombstones(&|block| match &shipped {
                None => false,
                // A tenant that came since is left alone.
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
        let catalog = self.catalog.get().cloned();
        let removed = self.pool.run(move || {
            let removed = remover.remove_tenant(&id)?;
            match catalog {
                Some(catalog) => catalog.forget_tenant(&id).map(|()| removed),
                None => Ok(removed),
            }
        });
        let removed = removed.await.map_err(pool_error)??;
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

    /// Blocks beyond the retention that were shipped, oldest tenants' names first.
    async fn expired(&self, engine: &Arc<Tsdb>) -> Result<Vec<LocalBlock>, Error> {
        let (keeper, now, shipped) =
            (Arc::clone(engine), self.world.clock.now_ms(), self.shipped.lock().clone());
        let listed = self.pool.run(move || {
            let found = Mutex::new(Vec::new());
            let note = |block: &LocalBlock| {
                if shipped.get(&block.tenant).is_some_and(|ids| ids.contains(&block.id)) {
                    found.lock().push(block.clone());
                }
                false
            };
            keeper.apply_retention(now, &note).map(|_| found.into_inner())
        });
        listed.await.map_err(pool_error)?
    }

    /// Which of these may go. What is missing in the bucket is uploaded again at the next round.
    async fn settle(&self, old: Vec<LocalBlock>) -> BTreeSet<BlockId> {
        let visible = |id| self.visible.get().is_none_or(|visible| visible(id));
        let old = old.into_iter().take(FORGET_AT_ONCE).collect();
        let found = match self.find(old).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "blocks beyond the retention stay: the bucket does not say what it has");
                return BTreeSet::new();
            }
        };
        let safe = found.into_iter().filter(|(_, at)| at.is_none_or(visible));
        safe.map(|(id, _)| id).collect()
    }

    /// The id under which the bucket has each of these blocks, which it was given once; none where it was given up there on
    /// purpose. One that it has lost is not among them, and is uploaded again at the next round.
    pub async fn find(&self, blocks: Vec<LocalBlock>) -> Result<BTreeMap<BlockId, Option<BlockId>>, Error> {
        let (Some(shipper), Some(holdings)) = (&self.shipper, &self.holdings) else {
            return Ok(BTreeMap::new());
        };
        // Who uploads meanwhile has the ledger.
        let _one = self.shipping.lock().await;
        let mut there = BTreeMap::new();
        for block in blocks {
            let found = holdings.find(block.id).await.map_err(|error| {
                Error::with_source(error.kind, format!("looking for blocks in the bucket: {error}"), error)
            })?;
            match found {
                Whereabouts::Held => drop(there.insert(block.id, Some(block.id))),
                Whereabouts::Merged(into) => drop(there.insert(block.id, Some(into))),
                Whereabouts::Unknown => {}
                Whereabouts::GivenUp | Whereabouts::Missing => {
                    let given_up = found == Whereabouts::GivenUp;
                    if given_up {
                        there.insert(block.id, None);
                    } else {
                        metrics::counter!("tributary_receive_blocks_missing_total").increment(1);
                        tracing::warn!(
                            tenant = %block.tenant, block = %block.id,
                            "block was uploaded and is in the bucket no more, nor is one that it was merged into: it \
                             stays here and is uploaded again"
                        );
                        if let Some(ids) = self.shipped.lock().get_mut(&block.tenant) {
                            ids.remove(&block.id);
                        }
                    }
                    let ids = vec![block.id];
                    let (missing, given_up) = if given_up { (Vec::new(), ids) } else { (ids, Vec::new()) };
                    let Some(folder) = block.dir.parent() else { continue };
                    let noted = shipper.correct(block.tenant.as_str(), folder, missing, given_up).await;
                    if let Err(error) = noted {
                        tracing::warn!(%error, "upload ledger is not corrected; it is tried again");
                    }
                }
            }
        }
        Ok(there)
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
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep_until(next_cut.min(next_ship)) => {}
            }
            let cuts = Instant::now() >= next_cut;
            if cuts {
                next_cut = Instant::now() + CUT_EVERY;
            }
            let outcome = tokio::select! {
                biased;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Labels, Sample};
    use storage::{Append, Verdict, WriteBatch};

    use super::*;
    use crate::settings::Settings;

    fn append(engine: &Tsdb, at: i64) {
        let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
        let mut batch = WriteBatch::default();
        batch.push(labels.as_bytes(), labels.placement_hash("t"), [Sample { timestamp: at, value: 1.0 }]);
        let mut verdicts = [Verdict::Unavailable];
        let tenant = TenantId::new("t").unwrap();
        engine.append(&tenant, &batch, &[0], World::real().clock.now_ms(), &mut verdicts).unwrap();
        assert_eq!(verdicts, [Verdict::Stored]);
    }

    fn only(engine: &Tsdb) -> Option<LocalBlock> {
        engine.local_blocks(&TenantId::new("t").unwrap()).into_iter().next()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_deleted_before_the_first_round_never_goes_up() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let data = dir.path().join("data");
        let settings = tsdb::Settings { dir: data.clone(), ..tsdb::Settings::default() };
        let engine = Tsdb::open(world.clone(), settings).unwrap();
        let bucket = Bucket::in_memory(&world);
        let peers = Arc::new(Peers::new(&Settings::default(), &world, Labels::empty(), None));
        let ship = Ship::new(&world, Some(bucket.clone()), peers).unwrap();
        ship.open(Catalog::open(&world, &data.join("catalog")).unwrap());
        let now = world.clock.now_ms();
        append(&engine, now - 2);
        append(&engine, now - 1);
        engine.cut(now, true).unwrap();
        let before = only(&engine).unwrap();
        let (tenant, range) = (TenantId::new("t").unwrap(), TimeRange::new(now - 1, now));
        let warnings = ship.delete_series(&engine, tenant, vec![vec![]], range).await.unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let after = only(&engine).unwrap();
        assert!(after.id != before.id && after.meta.stats.num_samples == 1, "{:?}", after.meta.stats);
        assert_eq!(ship.cut_and_ship(&engine, true).await.unwrap().uploaded, 1);
        assert_eq!(bucket.list_blocks().await.unwrap(), [after.id]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ledger_entry_alone_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let data = dir.path().join("data");
        let settings = tsdb::Settings { dir: data.clone(), retention: 0, ..tsdb::Settings::default() };
        let engine = Tsdb::open(world.clone(), settings).unwrap();
        let bucket = Bucket::in_memory(&world);
        let peers = Arc::new(Peers::new(&Settings::default(), &world, Labels::empty(), None));
        let ship = Ship::new(&world, Some(bucket.clone()), peers).unwrap();
        let catalog = Catalog::open(&world, &data.join("catalog")).unwrap();
        ship.open(catalog.clone());
        let then = world.clock.now_ms() - 5 * 3_600_000;

        append(&engine, then);
        assert_eq!(ship.cut_and_ship(&engine, true).await.unwrap().uploaded, 1);
        let block = only(&engine).unwrap();
        assert_eq!(catalog.ledger("t").unwrap().len(), 1);
        // Lost in the bucket: it stays here, and is uploaded again.
        bucket.delete_block(block.id).await.unwrap();
        ship.forget(&engine).await.unwrap();
        assert_eq!(only(&engine).unwrap().id, block.id);
        assert!(catalog.ledger("t").unwrap().is_empty());
        assert_eq!(ship.cut_and_ship(&engine, true).await.unwrap().uploaded, 1);
        ship.forget(&engine).await.unwrap();
        assert!(only(&engine).is_none());

        // Merged into another by a compactor: it may go.
        append(&engine, then + 1);
        assert_eq!(ship.cut_and_ship(&engine, true).await.unwrap().uploaded, 1);
        let block = only(&engine).unwrap();
        let merged = BlockId::from_parts(9, 9);
        let mut meta = bucket.meta(block.id).await.unwrap();
        (meta.ulid, meta.compaction.sources) = (merged, vec![block.id]);
        bucket.put(&format!("{merged}/meta.json"), Bytes::from(meta.to_json().unwrap())).await.unwrap();
        bucket.delete_block(block.id).await.unwrap();
        let found = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&found);
        ship.keep_until(Arc::new(move |id| seen.lock().contains(&id)));
        // The listing of before knows neither of them, for a few seconds.
        let ship = Ship { holdings: Some(Holdings::new(bucket.clone(), &world)), ..ship };
        ship.forget(&engine).await.unwrap();
        // Not before those who read the bucket here have found it.
        assert!(only(&engine).is_some());
        found.lock().insert(merged);
        ship.forget(&engine).await.unwrap();
        assert!(only(&engine).is_none());
    }
}
