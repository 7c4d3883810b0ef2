//! Deleting: series by matchers and times, and whole tenants.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use block::BlockId;
use model::{Matcher, TenantId, TimeRange};

use crate::blocks::{LocalBlock, OpenBlock, from_block};
use crate::tenants::Tenant;
use crate::{Engine, Error, dir};

/// How long a deletion may take to become durable.
const DURABLE_WAIT: Duration = Duration::from_secs(60);

/// What a deletion did.
#[derive(Clone, Debug, Default)]
pub struct Deleted {
    /// Series of the head that had samples in the range.
    pub series: u64,
    /// Local blocks that note the deletion, or that are gone with it.
    pub blocks: Vec<BlockId>,
}

/// What writing blocks anew did.
#[derive(Clone, Debug, Default)]
pub struct Cleaned {
    pub rewritten: Vec<BlockId>,
    /// In the bucket, and left as they are.
    pub left: Vec<BlockId>,
}

impl Engine {
    pub(crate) fn delete_series(
        &self,
        id: &TenantId,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Deleted, Error> {
        // What is frozen for a block must not change under its writer.
        let _no_cut_runs = self.cutting.lock();
        let mut deleted = Deleted::default();
        let Some(tenant) = self.tenants.get(id) else { return Ok(deleted) };
        let (mut failed, mut failure) = (0, None);
        for matchers in sets {
            let done = self.head.delete(&self.log, &tenant, matchers, range)?;
            deleted.series += done.series;
            failed += done.failed;
            failure = failure.or(done.failure);
        }
        // Up to the tail, whatever was found just now: what an attempt before this one deleted, and could not wait for,
        // must be durable too before anybody is told that it is gone.
        self.log.wait_synced(self.log.tail(), DURABLE_WAIT)?;
        let blocks: Vec<Arc<OpenBlock>> =
            tenant.blocks.read().iter().filter(|b| b.range().overlaps(&range)).cloned().collect();
        for open in blocks {
            let mut changed = None;
            for matchers in sets {
                let block = changed.as_ref().unwrap_or(&open.block);
                changed = block.delete(&self.world, matchers, range).map_err(from_block)?.or(changed);
            }
            if let Some(block) = changed {
                let local = LocalBlock { meta: block.meta().clone(), ..open.local.clone() };
                replace(&tenant, open.local.id, Some(Arc::new(OpenBlock { local, block })));
                deleted.blocks.push(open.local.id);
            }
        }
        metrics::counter!("tributary_tsdb_series_deleted_total").increment(deleted.series);
        if let Some(error) = failure {
            let message = format!(
                "{} series and {} blocks deleted from, but {failed} series of the head are damaged and keep what they \
                 have until they are cut: {error}",
                deleted.series,
                deleted.blocks.len()
            );
            return Err(Error::with_source(error.kind, message, error));
        }
        tracing::info!(
            tenant = %id, series = deleted.series, blocks = deleted.blocks.len(), from = range.start,
            to = range.end, "series deleted"
        );
        Ok(deleted)
    }

    pub(crate) fn clean_tombstones(&self, shipped: &dyn Fn(&LocalBlock) -> bool) -> Result<Cleaned, Error> {
        let _one_at_a_time = self.cutting.lock();
        let mut cleaned = Cleaned::default();
        for tenant in self.tenants.all() {
            let noted: Vec<Arc<OpenBlock>> =
                tenant.blocks.read().iter().filter(|b| b.block.has_deletions()).cloned().collect();
            for open in noted {
                if shipped(&open.local) {
                    cleaned.left.push(open.local.id);
                    continue;
                }
                self.rewrite(&tenant, &open)?;
                cleaned.rewritten.push(open.local.id);
            }
        }
        Ok(cleaned)
    }

    fn rewrite(&self, tenant: &Tenant, open: &OpenBlock) -> Result<(), Error> {
        let parent = dir::blocks_dir(&self.settings.dir).join(tenant.id.as_str());
        let anew = match open.block.rewrite(&self.world, &parent).map_err(from_block)? {
            None => None,
            Some(id) => Some(Arc::new(OpenBlock::open(&self.world, &tenant.id, &parent, id)?)),
        };
        // After a crash before the removal both are there: what is deleted stays noted in the old one, and what
        // both hold is read once.
        let name = anew.as_ref().map(|b| b.local.id.to_string()).unwrap_or_default();
        replace(tenant, open.local.id, anew);
        block::remove(&self.world, &parent, open.local.id).map_err(from_block)?;
        tracing::info!(
            tenant = %tenant.id, block = %open.local.id, anew = name, "block written anew without what was deleted"
        );
        Ok(())
    }

    pub(crate) fn remove_tenant(&self, id: &TenantId) -> Result<Deleted, Error> {
        let mut deleted = self.delete_series(id, &[Vec::new()], TimeRange::ALL)?;
        let _no_cut_runs = self.cutting.lock();
        let Some(tenant) = self.tenants.get(id) else { return Ok(deleted) };
        let removed = self.head.remove_tenant(&tenant);
        tenant.report_series();
        let parent = dir::blocks_dir(&self.settings.dir).join(tenant.id.as_str());
        let blocks = std::mem::take(&mut *tenant.blocks.write());
        deleted.blocks.clear();
        for open in blocks {
            block::remove(&self.world, &parent, open.local.id).map_err(from_block)?;
            deleted.blocks.push(open.local.id);
        }
        drop(tenant);
        self.prune(id);
        tracing::warn!(
            tenant = %id, series = removed, blocks = deleted.blocks.len(),
            "tenant removed from this node; blocks in the bucket stay"
        );
        Ok(deleted)
    }

    pub(crate) fn prune_tenants(&self) -> Vec<TenantId> {
        let _no_cut_runs = self.cutting.lock();
        let bare = |tenant: &Arc<Tenant>| tenant.is_bare();
        let ids: Vec<TenantId> =
            self.tenants.all().into_iter().filter(bare).map(|tenant| tenant.id.clone()).collect();
        ids.into_iter().filter(|id| self.prune(id)).collect()
    }

    /// Removes a tenant that has nothing and that nobody is using; a write that begins meanwhile either keeps it or
    /// makes it anew. The caller holds off cuts.
    fn prune(&self, id: &TenantId) -> bool {
        let Some(index) = self.tenants.remove_bare(id) else { return false };
        for shard in &self.head.shards {
            shard.state.lock().drop_empty_tenant(index);
        }
        let folder = dir::blocks_dir(&self.settings.dir).join(id.as_str());
        let disk = &*self.world.disk;
        // Only where there is nothing left in it, whoever's.
        if disk.exists(&folder) {
            let empty = disk
                .list(&folder)
                .is_ok_and(|names| names.iter().all(|name| !disk.is_dir(&folder.join(name))));
            if empty && let Err(error) = disk.remove_dir_all(&folder) {
                tracing::warn!(tenant = %id, error = %error, "folder of a tenant that is gone stays");
            }
        }
        // Whoever sums over tenants must not see what it once had.
        for gauge in
            ["prometheus_tsdb_head_series", "tributary_tsdb_active_series", "prometheus_tsdb_blocks_loaded"]
        {
            metrics::gauge!(gauge, "tenant" => id.as_str().to_owned()).set(0.0);
        }
        metrics::counter!("tributary_tsdb_tenants_pruned_total").increment(1);
        tracing::info!(tenant = %id, "tenant without series and blocks forgotten");
        true
    }
}

/// Puts another block in the place of one.
fn replace(tenant: &Tenant, old: BlockId, new: Option<Arc<OpenBlock>>) {
    let mut blocks = tenant.blocks.write();
    blocks.retain(|b| b.local.id != old);
    blocks.extend(new);
    blocks.sort_by_key(|b| (b.local.meta.min_time, b.local.id));
}

impl Tenant {
    /// Whether it has neither series nor blocks.
    pub(crate) fn is_bare(&self) -> bool {
        self.series.load(Relaxed) == 0 && self.blocks.read().is_empty()
    }
}
