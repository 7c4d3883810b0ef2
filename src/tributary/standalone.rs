//! `tributary standalone`: takes writes, keeps them, ships blocks and answers queries in one process.

use std::path::PathBuf;

use settings::{Listen, Log, Objstore, Span, settings};

use crate::boot::Parts;

settings! {
    /// Runs everything in one process: takes remote writes, keeps them, cuts blocks into a bucket, answers PromQL.
    ///
    /// Needs no settings. One HTTP listener, for this machine only unless told otherwise, serves writes,
    /// queries, metrics and lifecycle. Results carry no label that the sender did not send; blocks carry
    /// tenant_id and tributary_replica, so that Thanos can read the bucket.
    pub struct StandaloneSettings {
        /// Folder of everything: log, local blocks and, unless another is given, the bucket. Created if missing.
        ["data-dir"] data_dir: PathBuf = PathBuf::from("./data");
        /// Address of the HTTP listener for writes, queries, metrics and lifecycle. There is no authentication:
        /// 0.0.0.0:10902 lets every machine that reaches it write and read.
        ["http-address"] http_address: Listen = Listen::loopback(10902);
        /// How long requests in flight may take to end after a stop signal.
        ["http-grace-period"] http_grace_period: Span = Span::from_mins(2);
        /// Address of the gRPC listener for the StoreAPI, by which a Thanos or Tributary querier reads this node.
        ["grpc-address"] grpc_address: Listen = Listen::loopback(10901);
        /// How long calls in flight may take to end after a stop signal.
        ["grpc-grace-period"] grpc_grace_period: Span = Span::from_mins(2);
        /// Allows POST /-/reload and /-/cut from anywhere. Without it they are served on a loopback listener only.
        ["web.enable-lifecycle"] enable_lifecycle: bool = false;
        [..] objstore: Objstore;
        [..] log: Log;
    }
}

pub async fn run(settings: StandaloneSettings, parts: Parts) -> anyhow::Result<()> {
    let _ = settings;
    parts.shutdown.wait().await;
    Ok(())
}
