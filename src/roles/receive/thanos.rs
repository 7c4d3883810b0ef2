//! Thanos's flags that mean nothing here: read, so that existing manifests start, and named in a warning.
//!
//! Flags that would change what is safe or right (ciphers and curves of TLS, Cap'n Proto) are not among them:
//! they stay unknown, and the start says so.

use settings::{Load, settings};

settings! {
    /// Flags of Thanos without effect.
    pub struct WithoutEffect {
        /// The log is not compressed.
        [hidden "tsdb.wal-compression"] wal_compression: Option<bool> = None;
        /// The data folder is always locked.
        [hidden "tsdb.no-lockfile"] no_lockfile: Option<bool> = None;
        /// Overlapping blocks are always read as one.
        [hidden "tsdb.allow-overlapping-blocks"] allow_overlapping: Option<bool> = None;
        /// Blocks are not merged here.
        [hidden "tsdb.max-block-duration"] max_block_duration: Option<String> = None;
        /// Late samples are kept in runs without a limit of their own.
        [hidden "tsdb.out-of-order.cap-max"] out_of_order_cap: Option<String> = None;
        /// Native histograms are always taken.
        [hidden "tsdb.enable-native-histograms"] native_histograms: Option<bool> = None;
        /// There is no such queue.
        [hidden "tsdb.write-queue-size"] write_queue_size: Option<String> = None;
        /// The log is replayed instead.
        [hidden "tsdb.memory-snapshot-on-shutdown"] memory_snapshot: Option<bool> = None;
        /// protobuf is what is spoken.
        [hidden "receive.replication-protocol"] replication_protocol: Option<String> = None;
        /// Cap'n Proto is not served.
        [hidden "receive.capnproto-address"] capnproto_address: Option<String> = None;
        /// Both compressions are accepted, and none is sent.
        [hidden "receive.grpc-compression"] grpc_compression: Option<String> = None;
        /// Uploads are always in order, one after the other.
        [hidden "shipper.upload-concurrency"] upload_concurrency: Option<String> = None;
        /// A block that cannot be uploaded never holds up the others.
        [hidden "shipper.skip-corrupted-blocks"] skip_corrupted: Option<bool> = None;
        /// Uploads are always in order.
        [hidden "shipper.allow-out-of-order-uploads"] out_of_order_uploads: Option<bool> = None;
        /// There is no garbage collector to tune.
        [hidden "enable-auto-gomemlimit"] auto_gomemlimit: Option<bool> = None;
        [hidden "auto-gomemlimit.ratio"] gomemlimit_ratio: Option<String> = None;
        /// Answers are held in memory by bytes, not by number.
        [hidden "receive.lazy-retrieval-max-buffered-responses"] lazy_retrieval: Option<String> = None;
        /// There are no such caches.
        [hidden "matcher-cache-size"] matcher_cache: Option<String> = None;
        [hidden "tsdb.head.expanded-postings-cache-size"] head_postings_cache: Option<String> = None;
        [hidden "tsdb.block.expanded-postings-cache-size"] block_postings_cache: Option<String> = None;
    }
}

impl WithoutEffect {
    fn validate(&self) -> Result<(), String> {
        match self.replication_protocol.as_deref() {
            None | Some("protobuf") => Ok(()),
            Some(other) => Err(format!(
                "--receive.replication-protocol={other} is not supported; peers are written to over gRPC (protobuf)"
            )),
        }
    }

    /// Those that somebody gave, each with the reason why nothing comes of it.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let is_given = |name: &str| self.texts(name).is_some_and(|texts| !texts.is_empty());
        Self::all()
            .into_iter()
            .filter(|flag| is_given(flag.name))
            .map(|flag| (flag.name, flag.help))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_manifest_starts_and_is_told_what_is_idle() {
        let args =
            ["--tsdb.wal-compression", "--receive.replication-protocol=protobuf", "--no-tsdb.no-lockfile"];
        let flags: WithoutEffect = settings::from_args(&args).unwrap();
        let names: Vec<_> = flags.given().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["tsdb.wal-compression", "tsdb.no-lockfile", "receive.replication-protocol"]);
        assert!(WithoutEffect::default().given().is_empty());
        let capnproto = settings::from_args::<WithoutEffect>(&["--receive.replication-protocol=capnproto"]);
        assert!(capnproto.unwrap_err().to_string().contains("over gRPC"));
    }
}
