//! Deleting local blocks that are old enough and safe elsewhere.

use model::Timestamp;

use crate::blocks::{LocalBlock, from_block};
use crate::{Engine, Error, dir};

impl Engine {
    pub(crate) fn apply_retention(
        &self,
        now: Timestamp,
        shipped: &dyn Fn(&LocalBlock) -> bool,
    ) -> Result<usize, Error> {
        let oldest = now.saturating_sub(self.settings.retention);
        let mut deleted = 0;
        for tenant in self.tenants.all() {
            let blocks = tenant.blocks.read().clone();
            for open in blocks.iter().filter(|b| b.local.meta.max_time <= oldest && shipped(&b.local)) {
                // Out of the list first: readers that hold it keep its files open.
                tenant.blocks.write().retain(|b| b.local.id != open.local.id);
                let parent = dir::blocks_dir(&self.settings.dir).join(tenant.id.as_str());
                block::remove(&self.world, &parent, open.local.id).map_err(from_block)?;
                metrics::counter!("prometheus_tsdb_time_retentions_total").increment(1);
                tracing::info!(tenant = %tenant.id, block = %open.local.id, "local block deleted: past retention");
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}
