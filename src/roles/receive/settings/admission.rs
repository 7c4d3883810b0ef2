//! What a write is let in by, and how its series are rewritten first.

use std::path::PathBuf;

use settings::{ByteSize, Span, settings};

settings! {
    /// Admission.
    pub struct Admission {
        /// Largest body of a write as it is sent. Senders of ordinary settings stay below 1 MiB; a body
        /// above is refused with 413, and Prometheus drops it.
        ["receive.max-body-bytes"] max_body: ByteSize = ByteSize::from_mib(16);
        /// Largest body of a write after decompression, judged by its declared size before any memory is taken.
        ["receive.max-decompressed-bytes"] max_decompressed: ByteSize = ByteSize::from_mib(32);
        /// Bytes that all writes in flight may hold together. Beyond it writes wait a moment and are then
        /// answered 503 with Retry-After. Too little slows senders down; too much risks the memory of the node.
        ["receive.max-inflight-bytes"] max_inflight: ByteSize = ByteSize::from_mib(512);
        /// How long a write waits for its bytes while others hold them.
        [hidden "receive.inflight-wait"] inflight_wait: Span = Span::from_secs(5);
        /// Memory of the node, by which it judges when to refuse writes for a while: from 90 % on those of new
        /// series, from 95 % on all, with 503 and Retry-After. 0 takes the container's limit, or the machine's memory.
        ["receive.memory-limit"] memory_limit: ByteSize = ByteSize::from_bytes(0);
        /// Samples per second that one tenant may write through this node, averaged over ten seconds; 0 is no
        /// limit. Beyond it a write is answered 429 with Retry-After, and nothing of it is taken. Prometheus drops
        /// what gets a 429 unless retry_on_http_429 is set.
        ["receive.tenant-samples-per-second"] samples_per_second: u64 = 0;
        /// File with limits by tenant, as YAML in the format of Thanos with keys of ours; see
        /// config/limits.yaml. It is watched; a file with a fault leaves the limits before it in force.
        ["receive.limits-config-file"] limits_config_file: Option<PathBuf> = None;
        /// The limits as YAML text. Excludes receive.limits-config-file.
        ["receive.limits-config"] limits_config: Option<String> = None;
        /// How often the limits file is looked at where the system does not tell of a change.
        [hidden "receive.limits-config-reload-timer"] limits_refresh: Span = Span::from_secs(1);
        /// Series in one write.
        [hidden "receive.max-series-per-request"] max_series: u64 = 100_000;
        /// Labels of one series.
        [hidden "receive.max-labels-per-series"] max_labels: u64 = 256;
    }
}

settings! {
    /// Relabelling.
    pub struct Relabel {
        /// File with relabelling rules, as Prometheus's relabel_config, for the series of every write, before they are
        /// placed on the ring. Series that a rule drops are acknowledged and not stored.
        ["receive.relabel-config-file"] file: Option<PathBuf> = None;
        /// The rules as YAML text. Excludes receive.relabel-config-file.
        ["receive.relabel-config"] text: Option<String> = None;
    }
}
