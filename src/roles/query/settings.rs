//! What an operator may tune of a querier: Thanos's flags where they have a meaning here, and ours.

use std::path::PathBuf;

use secure::PeerNames;
use settings::{ByteSize, Common, Control, Grpc, GrpcClientTls, Span, settings};

settings! {
    /// Endpoints.
    pub struct Discovery {
        /// StoreAPI to query, as host:port. Prefixes look names up every 30 s: dns+host:port takes its
        /// addresses, dnssrv+name its SRV records and their addresses, dnssrvnoa+name only the records. May be
        /// given several times.
        ["endpoint"] endpoints: Vec<String> = Vec::new();
        /// StoreAPI that is needed for every answer, as host:port: while it is away queries fail, whatever
        /// partial response says. May be given several times.
        ["endpoint-strict"] strict_endpoints: Vec<String> = Vec::new();
        /// File with endpoints as file discovery writes them, JSON or YAML: a list of objects with "targets".
        /// Read again when it changes; while it cannot be read the last content stands. May be given
        /// several times.
        ["store.sd-files"] sd_files: Vec<PathBuf> = Vec::new();
        /// How often these files are looked at.
        ["store.sd-interval"] sd_interval: Span = Span::from_secs(5);
        /// File with endpoints in Thanos's form: "endpoints" with "address" and "strict". Keys that ask for TLS
        /// or endpoint groups are refused.
        ["endpoint.sd-config-file"] sd_config_file: Option<PathBuf> = None;
        /// How often names are looked up.
        ["store.sd-dns-interval"] dns_interval: Span = Span::from_secs(30);
        /// How often, and at most how long, endpoints are asked what they have.
        ["endpoint.info-timeout"] info_timeout: Span = Span::from_secs(5);
        /// How long an endpoint that does not answer stays on the stores page. Receivers and stores stay needed
        /// until they are removed from the configuration.
        ["store.unhealthy-timeout"] unhealthy_timeout: Span = Span::from_mins(5);
        /// Longest silence of an endpoint within one answer; then it counts as missing. 0 waits as long as
        /// the query may take.
        ["store.response-timeout"] response_timeout: Span = Span::ZERO;
    }
}

settings! {
    /// Queries.
    pub struct Queries {
        /// Longest time of one query, waiting included.
        ["query.timeout"] timeout: Span = Span::from_mins(2);
        /// Queries evaluated at once; further ones wait. More than there are cores only costs memory.
        ["query.max-concurrent"] max_concurrent: u32 = 20;
        /// How far back a selector looks for a sample. Less than twice the scrape interval makes gaps.
        ["query.lookback-delta"] lookback_delta: Span = Span::from_mins(5);
        /// Label that tells the two halves of a highly available pair apart; pairs are shown as one. The
        /// replica labels of our own receivers are known without it. May be given several times.
        ["query.replica-label"] replica_labels: Vec<String> = Vec::new();
        /// Whether answers may lack what sidecars and other queriers have, with a warning. What receivers
        /// and stores have is only left out where the request says partial_response=true.
        ["query.partial-response"] partial_response: bool = true;
        /// Step of subqueries that name none.
        ["query.default-evaluation-interval"] default_evaluation_interval: Span = Span::from_mins(1);
        /// Smallest step of range queries that name none.
        ["query.default-step"] default_step: Span = Span::from_secs(1);
        /// How far back label and series listings look without a start; 0 looks at everything.
        ["query.metadata.default-time-range"] metadata_default_time_range: Span = Span::ZERO;
        /// Label removed from all results, such as tenant_id, so that dashboards made for a single Prometheus
        /// still fit. Series that differ in nothing else become one. May be given several times.
        ["query.drop-label"] drop_labels: Vec<String> = Vec::new();
        /// Bytes that one query may hold; beyond it the query fails and says so.
        ["query.max-memory"] max_memory: ByteSize = ByteSize::from_gib(1);
        /// Bytes that all queries together may hold; 0 is no limit.
        ["query.max-memory-total"] max_memory_total: ByteSize = ByteSize::from_bytes(0);
        /// Folder of queries.active, the log of running queries: after a crash the next start names them.
        ["query.active-query-path"] active_query_path: Option<PathBuf> = None;
        /// Whether queries that name no resolution may read downsampled data, as with max_source_resolution=auto.
        ["query.auto-downsampling"] auto_downsampling: bool = false;
        /// Resolution of instant queries with max_source_resolution=auto.
        ["query.instant.default.max_source_resolution"] instant_resolution: Span = Span::from_hours(1);
        /// How long a silent receiver is waited for while the others have everything that it has; then the answer
        /// goes out without it. 0 waits for as long as the connection lives.
        ["query.straggler-delay"] straggler_delay: Span = Span::from_ms(500);
        /// Header that names the tenant.
        ["query.tenant-header"] tenant_header: String = "THANOS-TENANT".to_owned();
        /// Tenant of requests that name none.
        ["query.default-tenant-id"] default_tenant: String = "default-tenant".to_owned();
        /// Shows each tenant its own series only: every selector also demands the tenant's label.
        ["query.enforce-tenancy"] enforce_tenancy: bool = false;
        /// Field of the client certificate that names the tenant of requests over HTTP, instead of a header:
        /// organization, organizationalUnit or commonName. Needs client certificates in --http.config.
        ["query.tenant-certificate-field"] tenant_certificate_field: String = String::new();
        /// Label that carries the tenant.
        ["query.tenant-label-name"] tenant_label: String = "tenant_id".to_owned();
    }
}

settings! {
    /// Answers PromQL over everyone who has data: asks StoreAPI endpoints, merges their series, evaluates, and
    /// serves the Prometheus HTTP API. It is a StoreAPI itself, so that queriers stack.
    pub struct Settings {
        [..] common: Common;
        [..] grpc: Grpc;
        [..] client: GrpcClientTls;
        [..] control: Control;
        [..] discovery: Discovery;
        [..] queries: Queries;
        /// Experimental parts of PromQL that queries may use, by Prometheus's names: promql-experimental-functions,
        /// promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal,
        /// promql-per-step-stats, use-start-timestamps. May be given several times, or with commas.
        ["enable-feature"] enable_features: Vec<String> = Vec::new();
        /// Path before all paths of the HTTP listener, for proxies that pass it on: /prometheus.
        ["web.route-prefix"] route_prefix: String = String::new();
        /// Path under which users see the listener; the route prefix where none is given.
        ["web.external-prefix"] external_prefix: String = String::new();
        /// Answers without CORS headers.
        ["web.disable-cors"] disable_cors: bool = false;
        /// Origins whose pages may read answers, as a regular expression over the whole of it; without it every
        /// origin may.
        ["web.cors.origin"] cors_origin: String = String::new();
    }
}

impl Settings {
    /// The path before all others: the route prefix, or else the path of the external one.
    pub fn prefix(&self) -> String {
        let external = match self.external_prefix.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => &self.external_prefix,
        };
        let prefix = if self.route_prefix.is_empty() { external } else { &self.route_prefix };
        prefix.trim_end_matches('/').to_owned()
    }

    /// Which pages of other origins may read answers.
    pub fn cors(&self) -> Result<api::Cors, String> {
        if self.disable_cors {
            return Ok(api::Cors::Off);
        }
        api::Cors::of_origin(&self.cors_origin).map_err(|why| format!("--web.cors.origin: {why}"))
    }

    fn validate(&self) -> Result<(), String> {
        for address in &self.discovery.strict_endpoints {
            if address.contains('+') {
                return Err(format!(
                    "--endpoint-strict {address:?}: takes a fixed host:port, no name to look up"
                ));
            }
        }
        for address in self.discovery.endpoints.iter().chain(&self.discovery.strict_endpoints) {
            crate::targets::Target::parse(address).map_err(|why| format!("--endpoint {address:?}: {why}"))?;
        }
        let field = self.queries.tenant_certificate_field.as_str();
        if !field.is_empty() {
            if !PeerNames::FIELDS.contains(&field) {
                return Err(format!(
                    "--query.tenant-certificate-field {field:?}: there are organization, organizationalUnit and \
                     commonName"
                ));
            }
            if self.common.http_config.is_none() {
                return Err(
                    "--query.tenant-certificate-field needs --http.config with a client_ca_file, or nobody \
                            shows a certificate"
                        .to_owned(),
                );
            }
        }
        self.cors()?;
        match self.prefix().as_str() {
            "" => Ok(()),
            prefix if prefix.starts_with('/') => Ok(()),
            prefix => Err(format!("--web.route-prefix {prefix:?} must start with a slash")),
        }
    }
}

/// Thanos takes lists of labels with commas as well.
pub(crate) fn split(labels: &[String]) -> Vec<String> {
    let all = labels.iter().flat_map(|l| l.split(',')).map(str::trim).filter(|l| !l.is_empty());
    all.map(str::to_owned).collect()
}

impl Queries {
    /// Labels of highly available pairs, one by one.
    pub fn replica_labels(&self) -> Vec<String> {
        split(&self.replica_labels)
    }

    /// Labels that no result shows, one by one.
    pub fn drop_labels(&self) -> Vec<String> {
        split(&self.drop_labels)
    }
}
