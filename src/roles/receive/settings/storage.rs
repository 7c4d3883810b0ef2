//! What may be tuned of the data that a receiver keeps itself.

use settings::{ByteSize, Scalar, Span, settings};

settings! {
    /// Local storage.
    pub struct Storage {
        /// How much older than the clock a sample may be and still be taken in any order. It also is the time
        /// for which a sender may be cut off and catch up. Longer costs later cuts and more memory.
        ["tsdb.out-of-order.time-window"] out_of_order_window: Span = Span::from_hours(2);
        /// How far ahead of the clock a sample may be. Too little refuses senders whose clocks are fast; too
        /// much lets one wrong clock write into a future that nobody looks at.
        ["tsdb.too-far-in-future.time-window"] future_tolerance: Span = Span::from_mins(10);
        /// Beyond the out-of-order window, samples that come in time order for their series (a backfill, a
        /// long backlog) are taken up to this age.
        ["tsdb.max-sample-age"] max_sample_age: Span = Span::from_hours(48);
        /// How long blocks stay on the local disk. With a bucket they leave only once they are shipped; 0 keeps
        /// them for good.
        ["tsdb.retention"] retention: Span = Span::from_days(15);
        /// Most active series of one tenant on this node; 0 is no limit. At the limit only new series are
        /// refused, existing ones go on. head_series_limit of the limits file goes before it.
        ["receive.max-series-per-tenant"] max_series_per_tenant: u64 = 0;
        /// A series that got no sample for this long does not count towards a limit of active series; one that
        /// ended with a stale marker never does. Shorter than a scrape interval counts too few.
        ["receive.active-series-window"] active_window: Span = Span::from_mins(10);
        /// Exemplars kept of one tenant, the newest; 0 keeps none. A limit of the limits file goes before it.
        ["tsdb.max-exemplars"] max_exemplars: u64 = 100_000;
        /// Exemplars kept of one series, the newest.
        [hidden "tsdb.max-exemplars-per-series"] max_series_exemplars: u64 = 500;
        /// Whether a start timestamp that is newer than all samples of its series is kept, as a sample of zero at
        /// that time, as Prometheus does with its feature of this name. Rates then see what was counted before the
        /// first sample. Such a sample is not counted as written.
        ["tsdb.created-timestamp-zero-ingestion"] start_as_zero: bool = true;
        /// Metrics of one tenant of which type, help and unit are kept on this node; 0 is no limit. At the limit those
        /// of which nobody spoke for a day make room, then new ones are passed over. No sample is refused for it.
        ["receive.max-metadata-per-tenant"] max_metadata_per_tenant: u64 = 50_000;
        /// When a write is answered: durable, after fdatasync of its log, or fast, from the page cache, as
        /// Thanos does it. With fast, a crash of the machine loses up to a second of acknowledged samples.
        ["receive.durability"] durability: DurabilityName = DurabilityName::Durable;
        /// Size of one segment of the log. Two of them are preallocated.
        [hidden "tsdb.wal-segment-size"] segment_bytes: ByteSize = ByteSize::from_mib(32);
        /// Cuts of different tenants are spread over this time. Longer is smoother, and keeps samples in memory longer.
        [hidden "tsdb.cut-jitter"] cut_jitter: Span = Span::from_mins(5);
        /// Length of a block.
        [hidden "tsdb.min-block-duration"] block_duration: Span = Span::from_hours(2);
    }
}

/// `--receive.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityName {
    Durable,
    Fast,
}

impl Scalar for DurabilityName {
    const PLACEHOLDER: &'static str = "RULE";

    fn parse(text: &str) -> Result<DurabilityName, String> {
        match text {
            "durable" => Ok(DurabilityName::Durable),
            "fast" => Ok(DurabilityName::Fast),
            _ => Err(format!("{text:?} is not a durability: durable or fast")),
        }
    }

    fn show(&self) -> String {
        match self {
            DurabilityName::Durable => "durable".to_owned(),
            DurabilityName::Fast => "fast".to_owned(),
        }
    }
}
