//! What a tenant may do, as the values that an engine keeps to.

use std::fmt;
use std::sync::Arc;

use model::TenantId;

/// Limits of one tenant in one engine. 0 is no limit. They refuse what is new and never touch what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Active series.
    pub series: u64,
    /// Active series with the same metric name.
    pub series_per_metric: u64,
    /// Series that did not exist before, per second, averaged over ten.
    pub new_series_per_second: u64,
    /// Labels of a series, its name among them.
    pub label_names: u32,
    /// Bytes of a label's name.
    pub label_name_bytes: u32,
    /// Bytes of a label's value.
    pub label_value_bytes: u32,
    /// How much older than the clock a sample may be and still come in any order, in milliseconds; never more than
    /// the engine's own window, which counts where there is none.
    pub out_of_order_window: Option<i64>,
    /// Exemplars kept; none: as many as the engine keeps by default.
    pub exemplars: Option<u64>,
}

/// Who knows the limits of every tenant. Asked when a tenant is met first, and again whenever the engine is told
/// that limits have changed; never on the path of a sample.
#[derive(Clone)]
pub struct LimitsOf(pub Arc<dyn Fn(&TenantId) -> TenantLimits + Send + Sync>);

impl fmt::Debug for LimitsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitsOf")
    }
}
