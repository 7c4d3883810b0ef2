//! The tenants of this process: a small number for each, how many series it has, and its blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use model::TenantId;
use parking_lot::RwLock;

use crate::blocks::OpenBlock;

/// One tenant. The entry stays for the life of the process; it is small.
pub(crate) struct Tenant {
    pub id: TenantId,
    pub index: u32,
    /// Active series, over all shards.
    pub series: AtomicU64,
    /// End of the newest window that was ever cut; samples before it go into supplementary blocks.
    pub cut_through: AtomicI64,
    /// Blocks open for reading, oldest first. Readers look here after the head, the cut writes here before it
    /// drops from the head: so there is never a gap.
    pub blocks: RwLock<Vec<Arc<OpenBlock>>>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Tenants {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_index: Vec<Arc<Tenant>>,
}

impl Tenants {
    pub(crate) fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.state.read().by_id.get(id).cloned()
    }

    pub(crate) fn by_index(&self, index: u32) -> Option<Arc<Tenant>> {
        self.state.read().by_index.get(index as usize).cloned()
    }

    pub(crate) fn get_or_add(&self, id: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.get(id) {
            return tenant;
        }
        let mut state = self.state.write();
        if let Some(tenant) = state.by_id.get(id) {
            return tenant.clone();
        }
        let tenant = Arc::new(Tenant {
            id: id.clone(),
            index: state.by_index.len() as u32,
            series: AtomicU64::new(0),
            cut_through: AtomicI64::new(i64::MIN),
            blocks: RwLock::default(),
        });
        state.by_index.push(tenant.clone());
        state.by_id.insert(id.clone(), tenant.clone());
        tenant
    }

    /// All tenants, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        let mut all = self.state.read().by_index.clone();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Tenant {
    /// Counts one more series unless that would exceed `limit` (0: none).
    pub(crate) fn admit_series(&self, limit: u64) -> bool {
        let admitted = |n: u64| (limit == 0 || n < limit).then_some(n + 1);
        self.series.fetch_update(Relaxed, Relaxed, admitted).is_ok()
    }

    pub(crate) fn forget_series(&self, n: u64) {
        self.series.fetch_sub(n, Relaxed);
    }

    pub(crate) fn report_series(&self) {
        metrics::gauge!("prometheus_tsdb_head_series", "tenant" => self.id.as_str().to_owned())
            .set(self.series.load(Relaxed) as f64);
    }
}
