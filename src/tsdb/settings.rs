//! What an operator may tune of the engine; roles fill it from their flags.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, TenantId};
use storage::LimitsOf;

/// When an append may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync (group commit).
    Durable,
    /// From the page cache; synced once a second. A crash of the machine loses what was not synced.
    Fast,
}

/// External labels by tenant.
#[derive(Clone)]
pub struct TenantLabels(pub Arc<dyn Fn(&TenantId) -> Labels + Send + Sync>);

impl fmt::Debug for TenantLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantLabels")
    }
}

/// Settings of the engine. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data folder: log, blocks, lock and version file live below it.
    pub dir: PathBuf,
    /// Shards of the head, rounded up to a power of two; 0 means one per core.
    pub shards: usize,
    /// Samples at most this much older than the door's clock are always accepted, in any order.
    pub out_of_order_window: i64,
    /// Samples more than this ahead of the door's clock are refused.
    pub future_tolerance: i64,
    /// Beyond the out-of-order window, samples in order for their series are accepted up to this age.
    pub max_sample_age: i64,
    /// Length of a block's window; chunks end at its edges.
    pub block_range: i64,
    /// Cuts of different tenants are spread over this time after they are due.
    pub cut_jitter: i64,
    /// Local blocks are deleted once their newest sample is older than this, if shipped.
    pub retention: i64,
    /// Written into the blocks' `thanos.labels`, with the tenant label.
    pub external_labels: Labels,
    /// Name of the external label that holds the tenant.
    pub tenant_label: String,
    /// Further external labels of some tenants' blocks, laid under the others; asked at each cut.
    pub tenant_labels: Option<TenantLabels>,
    pub durability: Durability,
    /// Size of one log segment in bytes.
    pub segment_bytes: u64,
    /// Bytes that may wait for the log's writer; beyond it appends answer Unavailable.
    pub log_queue_bytes: u64,
    /// Limits by tenant; without, there are none.
    pub limits: Option<LimitsOf>,
    /// A series that got no sample for this long is not active.
    pub active_window: i64,
    /// Longest label set of a series, in encoded bytes.
    pub max_labels_bytes: usize,
    /// Exemplars that are kept of one tenant, the newest; 0: none.
    pub max_exemplars: usize,
    /// Exemplars that are kept of one series, the newest.
    pub max_series_exemplars: usize,
    /// Whether a start timestamp that is newer than all of its series becomes a sample of zero there.
    pub created_timestamp_zero_ingestion: bool,
    /// How long a read waits for the log to become durable up to what it has seen.
    pub read_wait: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        const HOUR: i64 = 3_600_000;
        Settings {
            dir: PathBuf::from("data"),
            shards: 0,
            out_of_order_window: 2 * HOUR,
            future_tolerance: 10 * 60_000,
            max_sample_age: 48 * HOUR,
            block_range: 2 * HOUR,
            cut_jitter: 0,
            retention: 15 * 24 * HOUR,
            external_labels: Labels::empty(),
            tenant_label: "tenant_id".to_owned(),
            tenant_labels: None,
            durability: Durability::Durable,
            segment_bytes: 32 << 20,
            log_queue_bytes: 256 << 20,
            limits: None,
            active_window: 10 * 60_000,
            max_labels_bytes: 64 << 10,
            max_exemplars: 100_000,
            max_series_exemplars: 500,
            created_timestamp_zero_ingestion: true,
            read_wait: Duration::from_secs(10),
        }
    }
}
