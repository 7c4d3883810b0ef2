//! What may be tuned of HA pairs.

use settings::{ByteSize, Span, settings};

settings! {
    /// HA pairs.
    pub struct HaPairs {
        /// Whether of several Prometheus servers that scrape the same targets one is listened to at a time. They are told
        /// by two labels that every series of a request has with one value each: the pair's, and the replica's, which is
        /// left out of what is stored. While one is listened to, what the others send is acknowledged and held for a
        /// moment; when it falls silent, another takes its place, and what was held fills the gap. accept_ha_samples of
        /// the limits file says it for a tenant.
        ["receive.ha"] enabled: bool = false;
        /// Label that names the pair.
        ["receive.ha-cluster-label"] cluster_label: String = "cluster".to_owned();
        /// Label that tells the servers of a pair apart.
        ["receive.ha-replica-label"] replica_label: String = "__replica__".to_owned();
        /// Longest silence of a server that is listened to; one that sends often is given up earlier, after twice its
        /// longest pause, but not before 10s. Shorter changes over for every hiccup, longer needs more memory.
        ["receive.ha-failover-timeout"] failover: Span = Span::from_secs(30);
        /// Pairs of one tenant; 0 is no limit. Those beyond it are stored as they come, with their replica labels.
        ["receive.ha-max-clusters"] max_clusters: u64 = 100;
        /// Memory for what is held of all pairs, as it came. It takes a good half minute of the servers that are not
        /// listened to; where it does not suffice the oldest is let go, and a change-over may leave a gap, which is told.
        ["receive.ha-max-held-bytes"] held_bytes: ByteSize = ByteSize::from_mib(128);
    }
}

impl HaPairs {
    fn validate(&self) -> Result<(), String> {
        for (flag, name) in
            [("ha-cluster-label", &self.cluster_label), ("ha-replica-label", &self.replica_label)]
        {
            if name.is_empty() {
                return Err(format!("--receive.{flag} must not be empty"));
            }
        }
        if self.cluster_label == self.replica_label {
            return Err("--receive.ha-cluster-label and --receive.ha-replica-label must differ".to_owned());
        }
        match self.failover.ms() {
            1_000.. => Ok(()),
            _ => Err("--receive.ha-failover-timeout must be 1s or more".to_owned()),
        }
    }
}
