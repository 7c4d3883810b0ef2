//! The tenants of this process: a small number for each, how many series it has, and its blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use model::TenantId;
use parking_lot::{Mutex, RwLock};
use storage::LimitsOf;

use crate::admission::Admission;
use crate::blocks::OpenBlock;
use crate::exemplars::Ring;
use crate::pins::Pins;

/// One tenant. Who holds it keeps it from being pruned.
pub(crate) struct Tenant {
    pub id: TenantId,
    pub index: u32,
    /// Series in the head, over all shards.
    pub series: AtomicU64,
    /// Those of them that count towards limits: active when they were last counted, or made since.
    pub active: AtomicU64,
    /// Series ever made in this process.
    pub made: AtomicU64,
    /// In milliseconds; beyond the engine's own it has no effect.
    pub out_of_order_window: AtomicI64,
    pub admission: Mutex<Admission>,
    /// End of the newest window that was ever cut; samples before it go into supplementary blocks.
    pub cut_through: AtomicI64,
    /// Blocks open for reading, oldest first. Readers look here after the head, the cut writes here before it
    /// drops from the head: so there is never a gap.
    pub blocks: RwLock<Vec<Arc<OpenBlock>>>,
    /// Those who read the head bite by bite.
    pub pins: Pins,
    /// Its exemplars. Locked after a shard, for a moment.
    pub exemplars: Mutex<Ring>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Tenants {
    state: RwLock<State>,
    limits: Option<LimitsOf>,
}

#[derive(Default)]
struct State {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    /// None: gone. A number is never given twice, so that who still holds an old one finds nobody.
    by_index: Vec<Option<Arc<Tenant>>>,
}

impl Tenants {
    pub(crate) fn new(limits: Option<LimitsOf>) -> Tenants {
        Tenants { state: RwLock::default(), limits }
    }

    pub(crate) fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.state.read().by_id.get(id).cloned()
    }

    pub(crate) fn by_index(&self, index: u32) -> Option<Arc<Tenant>> {
        self.state.read().by_index.get(index as usize)?.clone()
    }

    pub(crate) fn get_or_add(&self, id: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.get(id) {
            return tenant;
        }
        // Asked before the lock, since whoever knows the limits may take locks of its own.
        let limits = self.limits.as_ref().map(|of| (of.0)(id));
        let mut state = self.state.write();
        if let Some(tenant) = state.by_id.get(id) {
            return tenant.clone();
        }
        let tenant = Arc::new(Tenant {
            id: id.clone(),
            index: state.by_index.len() as u32,
            series: AtomicU64::new(0),
            active: AtomicU64::new(0),
            made: AtomicU64::new(0),
            out_of_order_window: AtomicI64::new(i64::MAX),
            admission: Mutex::default(),
            cut_through: AtomicI64::new(i64::MIN),
            blocks: RwLock::default(),
            pins: Pins::default(),
            exemplars: Mutex::default(),
        });
        if let Some(limits) = limits {
            tenant.set_limits(limits);
        }
        state.by_index.push(Some(tenant.clone()));
        state.by_id.insert(id.clone(), tenant.clone());
        tenant
    }

    /// Asks for the limits of all tenants again; gives those whose series have to be counted for that.
    pub(crate) fn renew_limits(&self) -> Vec<Arc<Tenant>> {
        let Some(of) = &self.limits else { return Vec::new() };
        self.all().into_iter().filter(|tenant| tenant.set_limits((of.0)(&tenant.id))).collect()
    }

    /// Removes a tenant that has nothing and that nobody holds; its number.
    pub(crate) fn remove_bare(&self, id: &TenantId) -> Option<u32> {
        let mut state = self.state.write();
        let tenant = state.by_id.get(id)?;
        // Both tables hold it. A third hand is a write or a read in flight; a new one would have to wait for this
        // lock.
        if Arc::strong_count(tenant) > 2 || !tenant.is_bare() {
            return None;
        }
        let index = tenant.index;
        state.by_id.remove(id);
        if let Some(place) = state.by_index.get_mut(index as usize) {
            *place = None;
        }
        Some(index)
    }

    /// All tenants, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        let mut all: Vec<Arc<Tenant>> = self.state.read().by_index.iter().flatten().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Tenant {
    /// Counts one more series, whatever the limits.
    pub(crate) fn count_series(&self) {
        self.series.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.made.fetch_add(1, Relaxed);
    }

    pub(crate) fn forget_series(&self, n: u64) {
        self.series.fetch_sub(n, Relaxed);
    }

    pub(crate) fn report_series(&self) {
        metrics::gauge!("prometheus_tsdb_head_series", "tenant" => self.id.as_str().to_owned())
            .set(self.series.load(Relaxed) as f64);
    }

    pub(crate) fn report_active(&self) {
        metrics::gauge!("tributary_tsdb_active_series", "tenant" => self.id.as_str().to_owned())
            .set(self.active.load(Relaxed) as f64);
    }
}
