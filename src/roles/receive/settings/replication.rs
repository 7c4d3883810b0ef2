//! The ring, copies to peers, what peers miss, and how a receiver leaves.

use std::path::PathBuf;

use hashring::Algorithm;
use settings::{ByteSize, Scalar, Span, settings};

settings! {
    /// Ring and replication.
    pub struct Replication {
        /// File with the ring, in the format of Thanos's hashrings.json; see hashring/README.md. It is watched.
        ["receive.hashrings-file"] hashrings_file: Option<PathBuf> = None;
        /// The ring as JSON text. The file wins where both are given.
        ["receive.hashrings"] hashrings: Option<String> = None;
        /// How rings place series that do not say it themselves: ketama, or hashmod for a cluster that comes
        /// from Thanos's default. All receivers must agree.
        ["receive.hashrings-algorithm"] algorithm: AlgorithmName = AlgorithmName(Algorithm::Ketama);
        /// How often the ring file is looked at where the system does not tell of a change.
        ["receive.hashrings-file-refresh-interval"] refresh: Span = Span::from_mins(5);
        /// This node's endpoint, spelled as in the ring. Without it a node with a ring routes and stores nothing.
        ["receive.local-endpoint"] local_endpoint: Option<String> = None;
        /// Copies of every sample. 3 survives the loss of one receiver without a gap. Without a ring: the copies
        /// that the routers before this node keep. It stores one of them, and tells queriers how many there are.
        ["receive.replication-factor"] replication_factor: u32 = 1;
        /// Copies that must be durable before a write is answered: majority (2 of 3, both of 2), or one, which
        /// is Thanos's rule for a replication factor of 2 and loses samples with the one node that has them.
        ["receive.quorum"] quorum: QuorumName = QuorumName::Majority;
        /// HTTP header by which a router says which copy a write is.
        ["receive.replica-header"] replica_header: String = "THANOS-REPLICA".to_owned();
        /// External label that tells this node's copies from those of its peers. Default: the first of
        /// tributary_replica, receive_replica and replica that is among the labels.
        ["receive.replica-label"] replica_label: Option<String> = None;
        /// Writes in flight to one peer at once.
        ["receive.forward.async-workers"] forward_workers: u32 = 5;
        /// Bytes that may wait for one peer. Beyond it the peer counts as unavailable at once, so that a slow
        /// one never holds the others up.
        ["receive.forward.max-queue-bytes"] forward_queue: ByteSize = ByteSize::from_mib(64);
        /// Writes to receivers of this kind in frames on a stream, in which a series is named once; others, and all
        /// without this, are written to by single calls.
        ["receive.peer.frames"] peer_frames: bool = true;
        /// Series that have a name on one stream; the others go by their labels.
        ["receive.peer.max-names"] peer_names: u32 = 4_194_304;
        /// Memory for the names of all streams that come in; beyond it series come by their labels.
        ["receive.peer.max-names-bytes"] peer_names_bytes: ByteSize = ByteSize::from_mib(512);
        /// Bytes of requests of one stream that are under way at once.
        ["receive.peer.max-inflight-bytes"] peer_inflight: ByteSize = ByteSize::from_mib(16);
        /// How long a write waits for its quorum.
        [hidden "receive-forward-timeout"] forward_timeout: Span = Span::from_secs(5);
        /// Longest pause before a peer that failed is tried again.
        [hidden "receive-forward-max-backoff"] forward_max_backoff: Span = Span::from_secs(5);
        /// How long a copy beyond the quorum may take in the background before it is given up.
        [hidden "receive.forward.straggler-timeout"] straggler_timeout: Span = Span::from_secs(30);
        /// A peer whose copies take longer than this, or of which nothing is heard for as long, is left alone for a moment and
        /// probed; what it misses meanwhile is kept as hints.
        ["receive.forward.slow-after"] slow_after: Span = Span::from_secs(2);
        /// Bytes on disk for what each peer misses while it is away; beyond it the oldest go. 0 keeps nothing. What the log
        /// needs of the disk is not taken for it.
        ["receive.hints.max-bytes"] hints_bytes: ByteSize = ByteSize::from_gib(2);
        /// What a peer misses is given up after this time.
        ["receive.hints.max-age"] hints_age: Span = Span::from_hours(3);
        /// How much of it goes to a peer that is back, per second, in bytes on disk.
        ["receive.hints.rate"] hints_rate: ByteSize = ByteSize::from_mib(16);
        /// Folder for it. Default: hints in the data folder; a node that stores nothing keeps none unless it is told where.
        ["receive.hints.dir"] hints_dir: Option<PathBuf> = None;
    }
}

impl Replication {
    /// Limits of the streams between receivers.
    pub fn peer(&self) -> rpc::PeerOptions {
        rpc::PeerOptions {
            names: self.peer_names,
            names_bytes: self.peer_names_bytes.bytes(),
            inflight_bytes: u32::try_from(self.peer_inflight.bytes()).unwrap_or(u32::MAX),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if !(1..=15).contains(&self.replication_factor) {
            return Err(format!(
                "--receive.replication-factor is {}; it must be from 1 to 15",
                self.replication_factor
            ));
        }
        http::HeaderName::try_from(self.replica_header.as_str()).map_err(|_| {
            format!("--receive.replica-header: {:?} is not a header name", self.replica_header)
        })?;
        if self.slow_after.is_zero() {
            return Err("--receive.forward.slow-after must be more than 0".to_owned());
        }
        if (1..1 << 20).contains(&self.hints_bytes.bytes()) {
            return Err("--receive.hints.max-bytes must be 1MiB or more, or 0 for no hints".to_owned());
        }
        match self.forward_workers {
            0 => Err("--receive.forward.async-workers must be 1 or more".to_owned()),
            _ => Ok(()),
        }
    }
}

settings! {
    /// Leaving the ring.
    pub struct Draining {
        /// gRPC address of a store gateway that must show every block of a receiver that leaves the ring before the receiver
        /// says that it is drained. Name all of them. May be given several times.
        ["receive.drain-store"] stores: Vec<String> = Vec::new();
        /// Without --receive.drain-store: how long after its upload a block counts as found by every reader of the bucket.
        ["receive.drain-delay"] delay: Span = Span::from_mins(20);
        /// How long queriers are given to hear that a receiver is not needed any more, and to look again at what the stores
        /// have, before the receiver says that it is drained. Longer than their --endpoint.info-timeout.
        ["receive.drain-grace"] grace: Span = Span::from_secs(15);
    }
}

/// `--receive.quorum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumName {
    Majority,
    One,
}

impl QuorumName {
    /// How many of `replication_factor` copies must be durable.
    pub fn needed(self, replication_factor: usize) -> usize {
        match self {
            QuorumName::Majority => replication_factor / 2 + 1,
            QuorumName::One => 1,
        }
    }
}

impl Scalar for QuorumName {
    const PLACEHOLDER: &'static str = "RULE";

    fn parse(text: &str) -> Result<QuorumName, String> {
        match text {
            "majority" => Ok(QuorumName::Majority),
            "one" => Ok(QuorumName::One),
            _ => Err(format!("{text:?} is not a quorum: majority or one")),
        }
    }

    fn show(&self) -> String {
        match self {
            QuorumName::Majority => "majority".to_owned(),
            QuorumName::One => "one".to_owned(),
        }
    }
}

/// `--receive.hashrings-algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmName(pub Algorithm);

impl Scalar for AlgorithmName {
    const PLACEHOLDER: &'static str = "NAME";

    fn parse(text: &str) -> Result<AlgorithmName, String> {
        let found = Algorithm::from_name(text).map(AlgorithmName);
        found.ok_or_else(|| format!("{text:?} is not an algorithm: ketama or hashmod"))
    }

    fn show(&self) -> String {
        self.0.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorum_of_two_is_two_unless_named() {
        let needed = |rf| QuorumName::Majority.needed(rf);
        assert_eq!([1, 2, 3, 4, 5].map(needed), [1, 2, 2, 3, 3]);
        assert_eq!(QuorumName::One.needed(2), 1);
    }
}
