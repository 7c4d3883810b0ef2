//! What an operator may tune of a single node: the receiver's and the engine's flags, and a few of its own.

use std::path::PathBuf;

use model::TenantId;
use receive::{Admission, HaPairs, Otlp, Relabel, Storage, Tenancy};
use settings::{ByteSize, Common, Grpc, GrpcServerTls, LabelPair, Listen, Log, Objstore, Span, settings};

settings! {
    /// Queries.
    pub struct Queries {
        /// Longest time of one query, waiting included.
        ["query.timeout"] timeout: Span = Span::from_mins(2);
        /// Queries evaluated at once; further ones wait. More than there are cores only costs memory.
        ["query.max-concurrent"] max_concurrent: u32 = 20;
        /// How far back a selector looks for a sample. Less than twice the scrape interval makes gaps.
        ["query.lookback-delta"] lookback_delta: Span = Span::from_mins(5);
        /// Step of subqueries that name none.
        ["query.default-evaluation-interval"] default_evaluation_interval: Span = Span::from_mins(1);
        /// Bytes that one query may hold; beyond it the query fails and says so.
        ["query.max-memory"] max_memory: ByteSize = ByteSize::from_gib(1);
        /// Bytes that all queries together may hold; 0 is no limit.
        ["query.max-memory-total"] max_memory_total: ByteSize = ByteSize::from_gib(2);
    }
}

settings! {
    /// Blocks in the bucket.
    pub struct Remote {
        /// How often the bucket is searched for new and deleted blocks.
        ["sync-block-duration"] sync_block_duration: Span = Span::from_mins(1);
        /// Memory for pieces of indexes. Too little fetches them again for every query.
        ["index-cache-size"] index_cache_size: ByteSize = ByteSize::from_mib(64);
        /// Memory for pieces of chunk files. It fills up with use and is never exceeded.
        ["chunk-pool-size"] chunk_pool_size: ByteSize = ByteSize::from_mib(256);
        /// Memory for index headers (symbols and the places of postings).
        ["store.index-header-memory"] index_header_memory: ByteSize = ByteSize::from_mib(128);
    }
}

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
        [..] grpc_tls: GrpcServerTls;
        /// File with TLS and passwords of the HTTP listener, in the format of Prometheus's web configuration file. It
        /// and the certificates it names are read again when they change.
        ["http.config"] http_config: Option<PathBuf> = None;
        /// Allows POST /-/reload and /-/cut from anywhere. Without it they are served on a loopback listener only.
        ["web.enable-lifecycle"] enable_lifecycle: bool = false;
        /// Allows the admin calls: deleting series (POST /api/v1/admin/tsdb/delete_series and clean_tombstones)
        /// and tenants (DELETE /api/v1/admin/tenants/TENANT).
        ["web.enable-admin-api"] enable_admin_api: bool = false;
        /// External label of this node's blocks, as name="value"; may be given several times. Nodes that share a
        /// bucket need labels that differ. Query results do not carry it.
        ["label"] labels: Vec<LabelPair> = vec![LabelPair::new("tributary_replica", "0")];
        [..] storage: Storage;
        [..] queries: Queries;
        /// Experimental parts of PromQL that queries may use, by Prometheus's names: promql-experimental-functions,
        /// promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal,
        /// promql-per-step-stats, use-start-timestamps. May be given several times, or with commas.
        ["enable-feature"] enable_features: Vec<String> = Vec::new();
        [..] objstore: Objstore;
        [..] remote: Remote;
        [..] tenancy: Tenancy;
        [..] admission: Admission;
        [..] otlp: Otlp;
        [..] relabel: Relabel;
        [..] ha: HaPairs;
        [..] log: Log;
    }
}

impl StandaloneSettings {
    fn validate(&self) -> Result<(), String> {
        settings::Load::check(&self.receive()?)
    }

    /// The default tenant, checked by the receiver's settings.
    pub fn default_tenant(&self) -> Result<TenantId, String> {
        TenantId::new(&self.tenancy.default_id).map_err(|e| format!("--receive.default-tenant-id: {e}"))
    }

    /// The receiver inside: no ring, this node's folder, and the bucket below it unless another is given.
    pub fn receive(&self) -> Result<receive::Settings, String> {
        Ok(receive::Settings {
            common: Common {
                log: self.log.clone(),
                http_address: self.http_address.clone(),
                http_grace_period: self.http_grace_period,
                enable_lifecycle: self.enable_lifecycle,
                http_config: self.http_config.clone(),
            },
            grpc: Grpc {
                grpc_address: self.grpc_address.clone(),
                grpc_grace_period: self.grpc_grace_period,
                tls: self.grpc_tls.clone(),
            },
            enable_admin_api: self.enable_admin_api,
            data_dir: self.data_dir.clone(),
            labels: self.labels.clone(),
            storage: self.storage.clone(),
            tenancy: self.tenancy.clone(),
            admission: self.admission.clone(),
            otlp: self.otlp.clone(),
            relabel: self.relabel.clone(),
            ha: self.ha.clone(),
            objstore: self.bucket()?,
            ..receive::Settings::default()
        })
    }

    /// The bucket's settings: those given, else a folder below the data folder.
    pub fn bucket(&self) -> Result<Objstore, String> {
        if self.objstore.document().is_some() {
            return Ok(self.objstore.clone());
        }
        let folder = self.data_dir.join("bucket");
        let folder = folder.to_str().ok_or("--data-dir must be UTF-8")?;
        let text = format!("type: FILESYSTEM\nconfig:\n  directory: '{}'\n", folder.replace('\'', "''"));
        Ok(Objstore { config: Some(text), config_file: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_needed() {
        let settings: StandaloneSettings = settings::from_args(&[]).unwrap();
        let receive = settings.receive().unwrap();
        assert_eq!(receive.mode(), receive::Mode::IngestorOnly);
        assert!(receive.common.http_address.is_loopback() && receive.grpc.grpc_address.is_loopback());
        let bucket = settings.bucket().unwrap().config.unwrap();
        assert_eq!(bucket, "type: FILESYSTEM\nconfig:\n  directory: './data/bucket'\n");
    }

    #[test]
    fn what_the_receiver_refuses_is_refused_at_once() {
        let refused = |args: &[&str]| settings::from_args::<StandaloneSettings>(args).unwrap_err().message;
        assert!(refused(&["--receive.default-tenant-id=.."]).contains("--receive.default-tenant-id"));
        assert!(refused(&["--label=tenant_id=a"]).contains("tenant-label-name"));
        let both = refused(&["--objstore.config=a", "--objstore.config-file=b"]);
        assert!(both.contains("exclude each other"), "{both}");
    }
}
