//! What an operator may tune of a receiver: Thanos's flags where they have a meaning here, and ours.
//!
//! The groups are public so that `standalone` shows the same flags with the same help.

use std::path::PathBuf;

use hashring::Algorithm;
use model::{Labels, TenantId};
use settings::{
    ByteSize, Common, Control, Grpc, LabelPair, Listen, Objstore, Scalar, Span, TlsFiles, settings,
};

use runtime::World;
use secure::ClientTls;
use wire::otlp::Translation;

use crate::Error;
use crate::thanos::WithoutEffect;

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

settings! {
    /// Tenants.
    pub struct Tenancy {
        /// HTTP header that names the tenant of a write. THANOS-TENANT is read as well where it is absent.
        ["receive.tenant-header"] header: String = "THANOS-TENANT".to_owned();
        /// Field of a sender's certificate that names the tenant, instead of the header: organization,
        /// organizationalUnit or commonName. Needs --remote-write.server-tls-client-ca; a certificate without the field is
        /// refused.
        ["receive.tenant-certificate-field"] certificate_field: String = String::new();
        /// File with credentials of senders, each bound to a tenant: bearer tokens (by file or SHA-256) and passwords
        /// (bcrypt). With it every write needs one, and its tenant is that of the credential; tenant "*" may name any in
        /// the header. The file and those it names are read again when they change.
        ["receive.credentials-file"] credentials: Option<PathBuf> = None;
        /// Label that names the tenant of its series in remote writes, for senders that write for many; it is left out of
        /// what is stored. Series without it, and OTLP, go by the header. Empty is off.
        ["receive.split-tenant-label-name"] split_label: String = String::new();
        /// Tenant of writes that name none.
        ["receive.default-tenant-id"] default_id: String = "default-tenant".to_owned();
        /// External label that carries the tenant in blocks and over the StoreAPI.
        ["receive.tenant-label-name"] label: String = "tenant_id".to_owned();
    }
}

impl Tenancy {
    fn validate(&self) -> Result<(), String> {
        TenantId::new(&self.default_id).map_err(|e| format!("--receive.default-tenant-id: {e}"))?;
        http::HeaderName::try_from(self.header.as_str())
            .map_err(|_| format!("--receive.tenant-header: {:?} is not a header name", self.header))?;
        if !["", "organization", "organizationalUnit", "commonName"]
            .contains(&self.certificate_field.as_str())
        {
            return Err(format!(
                "--receive.tenant-certificate-field {:?}: there are organization, organizationalUnit and commonName",
                self.certificate_field
            ));
        }
        if self.credentials.is_some() && !self.certificate_field.is_empty() {
            return Err(
                "--receive.credentials-file and --receive.tenant-certificate-field both name the tenant; give one"
                    .to_owned(),
            );
        }
        if !self.split_label.is_empty() && (self.credentials.is_some() || !self.certificate_field.is_empty())
        {
            return Err(
                "--receive.split-tenant-label-name would let senders past the tenant that their credential or \
                 certificate names; give one of them"
                    .to_owned(),
            );
        }
        match self.label.is_empty() {
            true => Err("--receive.tenant-label-name must not be empty".to_owned()),
            false => Ok(()),
        }
    }
}

settings! {
    /// TLS of the listener for writes, and towards peers.
    pub struct WriteTls {
        /// Certificate of the listener for writes, in PEM. Without it the listener is open to whoever reaches it.
        ["remote-write.server-tls-cert"] certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["remote-write.server-tls-key"] key: Option<PathBuf> = None;
        /// Who signs senders' certificates, in PEM. With it only senders that show such a certificate are let in.
        ["remote-write.server-tls-client-ca"] client_ca: Option<PathBuf> = None;
        /// Oldest version of TLS that senders may speak: 1.2 or 1.3.
        ["remote-write.server-tls-min-version"] min_version: String = "1.3".to_owned();
        /// Speaks TLS with the other receivers of the ring.
        ["remote-write.client-tls-secure"] to_peers: bool = false;
        /// Trusts any certificate of a peer. Whoever stands in between can then read and change what is written.
        ["remote-write.client-tls-skip-verify"] skip_verify: bool = false;
        /// What this receiver shows to its peers, in PEM.
        ["remote-write.client-tls-cert"] client_certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["remote-write.client-tls-key"] client_key: Option<PathBuf> = None;
        /// Who signs peers' certificates, in PEM; without it, whoever the system trusts.
        ["remote-write.client-tls-ca"] ca: Option<PathBuf> = None;
        /// Name that peers' certificates must have, where it is not the one in the ring.
        ["remote-write.client-server-name"] server_name: Option<String> = None;
        /// Oldest version of TLS that is spoken with peers: 1.2 or 1.3.
        ["remote-write.client-tls-min-version"] client_min_version: String = "1.3".to_owned();
    }
}

impl WriteTls {
    fn validate(&self) -> Result<(), String> {
        let prefix = "remote-write";
        let flag = |name: &str| format!("{prefix}.{name}");
        self.server().server(
            &flag("server-tls-cert"),
            &flag("server-tls-key"),
            &flag("server-tls-client-ca"),
        )?;
        self.client().pair(&flag("client-tls-cert"), &flag("client-tls-key"))
    }

    pub fn server(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.client_ca.clone(),
            min_version: self.min_version.clone(),
            ..TlsFiles::default()
        }
    }

    pub fn client(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.client_certificate.clone(),
            key: self.client_key.clone(),
            ca: self.ca.clone(),
            min_version: self.client_min_version.clone(),
            server_name: self.server_name.clone(),
            skip_verify: self.skip_verify,
        }
    }

    /// TLS towards peers, if it is asked for.
    pub fn towards_peers(&self, world: &World) -> Result<Option<ClientTls>, Error> {
        if !self.to_peers {
            return Ok(None);
        }
        rpc::client_tls("peers", &self.client(), world).map(Some).map_err(Error::from)
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

settings! {
    /// OTLP.
    pub struct Otlp {
        /// Resource attribute that becomes a label of every series, e.g. k8s.pod.name. May be given several times;
        /// the others are found by a join with target_info.
        ["receive.otlp-promote-resource-attributes"] promote: Vec<String> = Vec::new();
        /// Whether every resource attribute becomes a label of every series. Attributes that change make new series.
        ["receive.otlp-promote-all-resource-attributes"] promote_all: bool = false;
        /// Whether the attributes of a resource are stored as the series target_info.
        ["receive.otlp-enable-target-info"] target_info: bool = true;
        /// Whether target_info repeats service.name, service.namespace and service.instance.id, of which job and
        /// instance are made.
        ["receive.otlp-keep-identifying-resource-attributes"] keep_identifying: bool = false;
        /// Whether name, version and attributes of the instrumentation scope become labels otel_scope_....
        ["receive.otlp-promote-scope-metadata"] promote_scope: bool = false;
        /// How names are made, as in Prometheus: UnderscoreEscapingWithSuffixes,
        /// UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation. A change makes new series.
        ["receive.otlp-translation-strategy"] strategy: String = "UnderscoreEscapingWithSuffixes".to_owned();
        /// Whether histograms with explicit bounds become native histograms with custom buckets instead of classic
        /// series.
        ["receive.otlp-convert-histograms-to-nhcb"] nhcb: bool = false;
        /// Whether points of delta temporality are stored as they are. Otherwise they are refused: rate() and the
        /// like expect cumulative counts.
        ["receive.otlp-native-delta-ingestion"] delta: bool = false;
    }
}

impl Otlp {
    fn strategy(&self) -> Result<Translation, String> {
        Translation::from_name(&self.strategy).ok_or_else(|| {
            let known = Translation::ALL.map(|(name, _)| name).join(", ");
            format!("--receive.otlp-translation-strategy: {:?} is none of {known}", self.strategy)
        })
    }

    /// What the door goes by.
    pub fn translation(&self) -> wire::otlp::Settings {
        wire::otlp::Settings {
            translation: self.strategy().unwrap_or_default(),
            promote_resource_attributes: self.promote.clone(),
            promote_all_resource_attributes: self.promote_all,
            target_info: self.target_info,
            keep_identifying_resource_attributes: self.keep_identifying,
            promote_scope_metadata: self.promote_scope,
            convert_histograms_to_nhcb: self.nhcb,
            native_delta_ingestion: self.delta,
            ..wire::otlp::Settings::default()
        }
    }
}

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
    /// Takes remote writes, places them on the ring, keeps copies, cuts blocks and ships them.
    pub struct Settings {
        [..] common: Common;
        [..] grpc: Grpc;
        /// Address of the HTTP listener for remote write.
        ["remote-write.address"] remote_write_address: Listen = Listen::everywhere(19291);
        /// Allows the admin calls: deleting series (POST /api/v1/admin/tsdb/delete_series and clean_tombstones)
        /// and tenants (DELETE /api/v1/admin/tenants/TENANT). Whoever reaches the HTTP listener can then delete.
        ["web.enable-admin-api"] enable_admin_api: bool = false;
        /// Folder of the log and the local blocks.
        ["tsdb.path"] data_dir: PathBuf = PathBuf::from("./data");
        /// External label of this node, as name="value"; may be given several times. Blocks and series over
        /// the StoreAPI carry it. Receivers of one ring need labels that differ.
        ["label"] labels: Vec<LabelPair> = Vec::new();
        [..] storage: Storage;
        [..] tenancy: Tenancy;
        [..] replication: Replication;
        [..] control: Control;
        /// This node's address among the voters. Default: receive.local-endpoint.
        ["control.address"] control_address: Option<String> = None;
        /// Highest feature level that this node speaks; 0 for all that its version knows. A cluster that may have to go back
        /// further than one level is held at the level of the older version by it, on any one receiver.
        ["control.max-feature-level"] max_feature_level: u64 = 0;
        [..] drain: Draining;
        [..] admission: Admission;
        [..] tls: WriteTls;
        [..] otlp: Otlp;
        [..] relabel: Relabel;
        [..] ha: HaPairs;
        [..] objstore: Objstore;
        /// Most series that one StoreAPI request may bring; 0 is no limit.
        ["store.limits.request-series"] request_series: u64 = 0;
        /// Most samples that one StoreAPI request may bring, counted in chunks of 120; 0 is no limit.
        ["store.limits.request-samples"] request_samples: u64 = 0;
        /// After this time peers and queriers are asked to connect anew, so that load spreads; 0 never asks.
        ["grpc-server-max-connection-age"] max_connection_age: Span = Span::from_mins(60);
        [..] without_effect: WithoutEffect;
    }
}

impl Settings {
    /// How hints are kept, by a node that may store nothing itself.
    pub(crate) fn hints(&self, stores: bool) -> crate::hints::Settings {
        let replication = &self.replication;
        let own = || stores.then(|| self.data_dir.join("hints"));
        let dir = replication.hints_dir.clone().or_else(own).filter(|_| replication.hints_bytes.bytes() > 0);
        crate::hints::Settings {
            dir,
            max_bytes: replication.hints_bytes.bytes(),
            max_age: replication.hints_age.ms(),
            rate: replication.hints_rate.bytes(),
            queue_bytes: replication.forward_queue.bytes(),
            // The spare segment of the log, the next one, and a checkpoint or a block beside them.
            reserve: self.storage.segment_bytes.bytes().saturating_mul(4),
            // A node that stores nothing is taken to be set up as those that do.
            window: self.storage.out_of_order_window.ms(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if !self.tenancy.certificate_field.is_empty() && self.tls.client_ca.is_none() {
            return Err("--receive.tenant-certificate-field needs --remote-write.server-tls-client-ca, or nobody shows a \
                        certificate"
                .to_owned());
        }
        if self.control.on() {
            if self.votes() && !self.has_ring() {
                return Err(
                    "a voter needs the ring that the cluster starts with: --receive.hashrings-file or \
                            --receive.hashrings"
                        .to_owned(),
                );
            }
            if self.votes() && !self.mode().stores() {
                return Err("--control.address is one of --control.voters, and this node has no data folder to vote in; \
                            let a receiver with --receive.local-endpoint vote"
                    .to_owned());
            }
        }
        let labels = self.external_labels()?;
        let replicated = self.replication.replication_factor > 1;
        let clustered = self.has_ring() || replicated || self.objstore.document().is_some();
        if labels.is_empty() && clustered && self.mode() != Mode::RouterOnly {
            return Err(
                "no external labels: give at least one --label name=\"value\" that no other receiver has; \
                 blocks and copies are told apart by it"
                    .to_owned(),
            );
        }
        if labels.get(&self.tenancy.label).is_some() {
            return Err(format!(
                "--label {} is taken by --receive.tenant-label-name; choose another name",
                self.tenancy.label
            ));
        }
        if let Some(name) = &self.replication.replica_label
            && labels.get(name).is_none()
        {
            return Err(format!("--receive.replica-label names {name:?}, which is not among the --label"));
        }
        Ok(())
    }

    /// The node's external labels, checked.
    pub fn external_labels(&self) -> Result<Labels, String> {
        let pairs = self.labels.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
        Labels::from_pairs(pairs).map_err(|error| format!("--label: {error}"))
    }

    /// The label that tells this node's copies from its peers'.
    pub fn own_replica_label(&self) -> Option<String> {
        let named = self.replication.replica_label.clone();
        named.or_else(|| {
            let usual = ["tributary_replica", "receive_replica", "replica"];
            let found = usual.into_iter().find(|name| self.labels.iter().any(|pair| pair.name == *name));
            found.map(str::to_owned)
        })
    }

    pub fn has_ring(&self) -> bool {
        self.replication.hashrings_file.is_some() || self.replication.hashrings.is_some()
    }

    /// This node's address in the control plane.
    pub fn control_address(&self) -> Option<&str> {
        self.control_address.as_deref().or(self.replication.local_endpoint.as_deref())
    }

    /// Whether this node is one of the voters.
    pub fn votes(&self) -> bool {
        let voters = self.control.voters();
        self.control_address().is_some_and(|own| voters.iter().any(|voter| voter == own))
    }

    pub fn mode(&self) -> Mode {
        match (self.has_ring() || self.control.on(), &self.replication.local_endpoint) {
            (true, Some(_)) => Mode::RouterIngestor,
            (true, None) => Mode::RouterOnly,
            (false, _) => Mode::IngestorOnly,
        }
    }
}

/// What a receiver does, by what it was given: as Thanos decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A ring and a place in it: routes, and stores what falls to it.
    RouterIngestor,
    /// A ring without a place in it: routes, stores nothing, opens no data folder.
    RouterOnly,
    /// No ring: stores everything it is sent.
    IngestorOnly,
}

impl Mode {
    pub fn stores(self) -> bool {
        self != Mode::RouterOnly
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::RouterIngestor => "RouterIngestor",
            Mode::RouterOnly => "RouterOnly",
            Mode::IngestorOnly => "IngestorOnly",
        }
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

    fn given(args: &[&str]) -> Result<Settings, String> {
        settings::from_args::<Settings>(args).map_err(|e| e.to_string())
    }

    #[test]
    fn modes_follow_ring_and_place() {
        let ring = "--receive.hashrings=[]";
        let label = "--label=replica=\"a\"";
        assert_eq!(given(&[]).unwrap().mode(), Mode::IngestorOnly);
        assert_eq!(given(&[ring]).unwrap().mode(), Mode::RouterOnly);
        let both = given(&[ring, label, "--receive.local-endpoint=a:1"]).unwrap();
        assert_eq!(both.mode(), Mode::RouterIngestor);
        assert_eq!(both.own_replica_label().as_deref(), Some("replica"));
        let behind_routers = given(&[label, "--receive.replication-factor=3"]).unwrap();
        assert_eq!(behind_routers.mode(), Mode::IngestorOnly);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_way_out() {
        let ring = "--receive.hashrings=[]";
        for (args, part) in [
            (&[ring, "--receive.local-endpoint=a:1"][..], "--label"),
            (&["--objstore.config=type: FILESYSTEM"], "--label"),
            (&["--receive.replication-factor=3"], "--label"),
            (&["--receive.replication-factor=0"], "from 1 to 15"),
            (&["--receive.default-tenant-id=../x"], "default-tenant-id"),
            (&["--label=tenant_id=\"x\""], "tenant-label-name"),
            (&["--receive.replica-label=zone"], "not among the --label"),
            (&["--receive.quorum=all"], "majority or one"),
            (&["--receive.durability=slow"], "durable or fast"),
        ] {
            let error = given(args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }

    #[test]
    fn quorum_of_two_is_two_unless_named() {
        let needed = |rf| QuorumName::Majority.needed(rf);
        assert_eq!([1, 2, 3, 4, 5].map(needed), [1, 2, 2, 3, 3]);
        assert_eq!(QuorumName::One.needed(2), 1);
    }
}
