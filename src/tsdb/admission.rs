//! Whether a tenant may have one more series, and how many of those it has are active.
//!
//! A series counts from the moment it is made. Counting again ([`Engine::count_active`]) leaves out those that
//! ended (by a stale marker) or that nobody has written to for the activity window, so that a tenant at its
//! limit gets room when its churn stops, long before a cut removes the series themselves. Existing series are
//! never asked.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashMap;
use model::{METRIC_NAME, Timestamp, label_spans};
use storage::{Refusal, TenantLimits};

use crate::Engine;
use crate::head::{BITE, Bounds};
use crate::tenants::Tenant;

/// Seconds of its rate that a tenant may save up and spend at once.
const BURST_SECONDS: f64 = 10.0;

/// What is known of a tenant beyond its counters; under one lock, which only new series take.
#[derive(Default)]
pub(crate) struct Admission {
    pub limits: Arc<TenantLimits>,
    /// Active series by metric; kept only where a limit asks for it.
    by_metric: Option<HashMap<String, u64>>,
    rate: Option<Rate>,
}

/// New series that may still be made, as of a time.
#[derive(Clone, Copy)]
struct Rate {
    left: f64,
    at: Timestamp,
}

impl Rate {
    fn filled(self, per_second: f64, now: Timestamp) -> Rate {
        let passed = now.saturating_sub(self.at).max(0) as f64 / 1e3;
        Rate { left: (self.left + passed * per_second).min(per_second * BURST_SECONDS), at: self.at.max(now) }
    }
}

impl Tenant {
    /// Counts one more series, by its canonical label bytes, if the tenant may have it. `now`: the door's time.
    pub(crate) fn admit(&self, labels: &[u8], now: Timestamp) -> Result<(), Refusal> {
        let mut admission = self.admission.lock();
        let Admission { limits, by_metric, rate } = &mut *admission;
        check_labels(limits, labels)?;
        if limits.series > 0 && self.active.load(Relaxed) >= limits.series {
            return Err(Refusal::SeriesLimit);
        }
        let metric = by_metric.as_ref().map_or("", |_| metric_name(labels));
        if let Some(all) = &by_metric
            && limits.series_per_metric > 0
            && all.get(metric).is_some_and(|count| *count >= limits.series_per_metric)
        {
            return Err(Refusal::MetricSeriesLimit);
        }
        if limits.new_series_per_second > 0 {
            let per_second = limits.new_series_per_second as f64;
            let full = Rate { left: per_second * BURST_SECONDS, at: now };
            let held = rate.map_or(full, |rate| rate.filled(per_second, now));
            *rate = Some(held);
            if held.left < 1.0 {
                return Err(Refusal::NewSeriesRate);
            }
            *rate = Some(Rate { left: held.left - 1.0, ..held });
        }
        // Only now: names of what was refused must not pile up.
        if let Some(all) = by_metric {
            *all.entry_ref(metric).or_insert(0) += 1;
        }
        // Still under the lock, so that no two take the last place.
        self.count_series();
        Ok(())
    }

    /// Puts new limits in force; true where series have to be counted before they can be kept to.
    pub(crate) fn set_limits(&self, limits: TenantLimits) -> bool {
        self.out_of_order_window.store(limits.out_of_order_window.unwrap_or(i64::MAX), Relaxed);
        self.exemplars.lock().set_limit(limits.exemplars.map(|most| most as usize));
        let mut admission = self.admission.lock();
        let wants_metrics = limits.series_per_metric > 0;
        let starts = wants_metrics && admission.by_metric.is_none();
        if starts {
            admission.by_metric = Some(HashMap::new());
        } else if !wants_metrics {
            admission.by_metric = None;
        }
        admission.limits = Arc::new(limits);
        starts
    }

    pub(crate) fn limits(&self) -> Arc<TenantLimits> {
        self.admission.lock().limits.clone()
    }

    /// The times that are taken of this tenant's samples.
    pub(crate) fn bounds(&self, of_engine: Bounds) -> Bounds {
        of_engine.narrowed(self.out_of_order_window.load(Relaxed))
    }

    /// Whether the count of active series decides anything soon.
    fn is_near_a_limit(&self) -> bool {
        let limits = self.limits();
        limits.series_per_metric > 0
            || (limits.series > 0 && self.active.load(Relaxed) >= limits.series.div_ceil(2))
    }
}

/// What a tenant's new series must keep to.
fn check_labels(limits: &TenantLimits, labels: &[u8]) -> Result<(), Refusal> {
    let TenantLimits { label_names, label_name_bytes, label_value_bytes, .. } = *limits;
    if label_names == 0 && label_name_bytes == 0 && label_value_bytes == 0 {
        return Ok(());
    }
    let over = |limit: u32, found: usize| limit > 0 && found > limit as usize;
    let mut count = 0;
    for (_, name, value) in label_spans(labels) {
        count += 1;
        if over(label_name_bytes, name.len()) || over(label_value_bytes, value.len()) {
            return Err(Refusal::LabelLimit);
        }
    }
    if over(label_names, count) { Err(Refusal::LabelLimit) } else { Ok(()) }
}

fn metric_name(labels: &[u8]) -> &str {
    let name = label_spans(labels).find(|(_, name, _)| *name == METRIC_NAME.as_bytes());
    name.and_then(|(_, _, value)| std::str::from_utf8(value).ok()).unwrap_or_default()
}

impl Engine {
    /// Asks for the limits of all tenants again.
    pub(crate) fn reload_limits(&self, now: Timestamp) {
        for tenant in self.tenants.renew_limits() {
            self.count_tenant(&tenant, now);
        }
    }

    /// Counts the active series of tenants that are near a limit, or of all.
    pub(crate) fn count_active(&self, now: Timestamp, all: bool) {
        for tenant in self.tenants.all() {
            if all || tenant.is_near_a_limit() {
                self.count_tenant(&tenant, now);
            }
        }
    }

    /// Visits a tenant's series, a few under each hold of a lock.
    fn count_tenant(&self, tenant: &Tenant, now: Timestamp) {
        let since = now.saturating_sub(self.settings.active_window);
        // Those made from here on are active, whether the walk meets them or not.
        let made_before = tenant.made.load(Relaxed);
        let mut by_metric = tenant.admission.lock().by_metric.is_some().then(HashMap::<String, u64>::new);
        let (mut active, mut labels) = (0, Vec::new());
        for shard in &self.head.shards {
            let slots = shard.state.lock().tenant(tenant.index).map(|known| known.postings.all.to_vec());
            for bite in slots.unwrap_or_default().chunks(BITE) {
                let state = shard.state.lock();
                for &slot in bite {
                    // Between two bites a slot may have gone to somebody else.
                    let found = state.get(slot).filter(|one| one.hot.tenant == tenant.index);
                    if !found.is_some_and(|one| one.is_active(since)) {
                        continue;
                    }
                    active += 1;
                    if let Some(all) = &mut by_metric {
                        labels.clear();
                        state.write_labels(slot, &mut labels);
                        *all.entry_ref(metric_name(&labels)).or_insert(0) += 1;
                    }
                }
            }
        }
        let mut admission = tenant.admission.lock();
        if let Some(counted) = by_metric
            && admission.by_metric.is_some()
        {
            admission.by_metric = Some(counted);
        }
        let made = tenant.made.load(Relaxed).saturating_sub(made_before);
        tenant.active.store(active + made, Relaxed);
        drop(admission);
        tenant.report_active();
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    #[test]
    fn labels_are_judged_by_count_and_lengths() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "1234567890")]).unwrap();
        let check = |label_names, label_name_bytes, label_value_bytes| {
            let limits =
                TenantLimits { label_names, label_name_bytes, label_value_bytes, ..Default::default() };
            check_labels(&limits, labels.as_bytes()).is_ok()
        };
        assert!(check(0, 0, 0) && check(2, 8, 10));
        assert!(!check(1, 0, 0) && !check(0, 7, 0) && !check(0, 0, 9));
    }

    #[test]
    fn refused_metrics_leave_no_names_behind() {
        let tenant = crate::tenants::Tenants::default().get_or_add(&model::TenantId::new("t").unwrap());
        let limits = TenantLimits { series_per_metric: 9, new_series_per_second: 1, ..Default::default() };
        tenant.set_limits(limits);
        for n in 0..100 {
            let labels = Labels::from_pairs([("__name__", n.to_string().as_str())]).unwrap();
            assert_eq!(tenant.admit(labels.as_bytes(), 5).is_ok(), n < 10);
        }
        assert_eq!(tenant.admission.lock().by_metric.as_ref().map(HashMap::len), Some(10));
    }

    #[test]
    fn the_rate_of_new_series_fills_up_with_time() {
        let full = Rate { left: 0.0, at: 1000 };
        assert_eq!(full.filled(10.0, 1500).left, 5.0);
        assert_eq!(full.filled(10.0, 100_000).left, 100.0);
        assert_eq!((full.filled(10.0, 0).left, full.filled(10.0, 0).at), (0.0, 1000));
    }
}
