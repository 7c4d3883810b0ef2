//! Groups of settings that several roles have in common.

use std::path::PathBuf;

use crate::{Listen, PathOrContent, Scalar, Span, settings};

settings! {
    /// Logging.
    pub struct Log {
        /// Least severe level that is logged: debug, info, warn or error. debug is loud under load.
        ["log.level"] level: LogLevel = LogLevel::Info;
        /// Form of a log line: logfmt, or json for collectors that want one object a line.
        ["log.format"] format: LogFormat = LogFormat::Logfmt;
    }
}

settings! {
    /// HTTP server.
    pub struct Common {
        [..] log: Log;
        /// Address of the HTTP listener for metrics, probes and the API. A port of 0 takes any free one, which
        /// the log then names; without a host every interface is served.
        ["http-address"] http_address: Listen = Listen::everywhere(10902);
        /// How long requests in flight may take to end after a stop signal. 0 cuts them off; more than the
        /// orchestrator's own grace period only gets the process killed.
        ["http-grace-period"] http_grace_period: Span = Span::from_mins(2);
        /// File with TLS and passwords of the HTTP listener, in the format of Prometheus's web configuration file. It
        /// and the certificates it names are read again when they change.
        ["http.config"] http_config: Option<PathBuf> = None;
        /// Allows POST /-/reload and /-/cut from anywhere. Without it they are served on a loopback
        /// listener only, because whoever reaches them can make the node work.
        ["web.enable-lifecycle"] enable_lifecycle: bool = false;
    }
}

settings! {
    /// gRPC server.
    pub struct Grpc {
        /// Address of the gRPC listener for the StoreAPI and writes of peers. A port of 0 takes any free one.
        ["grpc-address"] grpc_address: Listen = Listen::everywhere(10901);
        /// How long calls in flight may take to end after a stop signal.
        ["grpc-grace-period"] grpc_grace_period: Span = Span::from_mins(2);
        [..] tls: GrpcServerTls;
    }
}

/// Where certificates are, whatever the flags are called. Files are PEM, and read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Of a server: who signs clients' certificates, which are then required. Of a client: who signs servers'.
    pub ca: Option<PathBuf>,
    pub min_version: String,
    /// Clients only: the name that a server's certificate must have.
    pub server_name: Option<String>,
    /// Clients only.
    pub skip_verify: bool,
}

settings! {
    /// TLS of the gRPC server.
    pub struct GrpcServerTls {
        /// Certificate of the gRPC listener, in PEM. Without it the listener is open to whoever reaches it.
        ["grpc-server-tls-cert"] certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["grpc-server-tls-key"] key: Option<PathBuf> = None;
        /// Who signs clients' certificates, in PEM. With it only clients that show such a certificate are let in.
        ["grpc-server-tls-client-ca"] client_ca: Option<PathBuf> = None;
        /// Oldest version of TLS that is spoken: 1.2 or 1.3.
        ["grpc-server-tls-min-version"] min_version: String = "1.3".to_owned();
    }
}

impl GrpcServerTls {
    fn validate(&self) -> Result<(), String> {
        self.files().server("grpc-server-tls-cert", "grpc-server-tls-key", "grpc-server-tls-client-ca")
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.client_ca.clone(),
            min_version: self.min_version.clone(),
            ..TlsFiles::default()
        }
    }
}

impl TlsFiles {
    /// Whether the files of a server fit together, which are given by these flags.
    pub fn server(&self, certificate: &str, key: &str, ca: &str) -> Result<(), String> {
        self.pair(certificate, key)?;
        match (&self.certificate, &self.ca) {
            (None, Some(_)) => Err(format!("--{ca} needs --{certificate} and --{key}")),
            _ => Ok(()),
        }
    }

    /// Certificate and key are given together or not at all.
    pub fn pair(&self, certificate: &str, key: &str) -> Result<(), String> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err(format!("--{certificate} needs --{key}")),
            (None, Some(_)) => Err(format!("--{key} needs --{certificate}")),
            _ => Ok(()),
        }
    }
}

settings! {
    /// TLS towards endpoints.
    pub struct GrpcClientTls {
        /// Speaks TLS with every endpoint.
        ["grpc-client-tls-secure"] secure: bool = false;
        /// Trusts any certificate of an endpoint. Whoever stands in between can then read and change answers.
        ["grpc-client-tls-skip-verify"] skip_verify: bool = false;
        /// What this querier shows to endpoints, in PEM.
        ["grpc-client-tls-cert"] certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["grpc-client-tls-key"] key: Option<PathBuf> = None;
        /// Who signs endpoints' certificates, in PEM; without it, whoever the system trusts.
        ["grpc-client-tls-ca"] ca: Option<PathBuf> = None;
        /// Name that endpoints' certificates must have, where it is not the one that is dialled.
        ["grpc-client-server-name"] server_name: Option<String> = None;
        /// Oldest version of TLS that is spoken: 1.2 or 1.3.
        ["grpc-client-tls-min-version"] min_version: String = "1.3".to_owned();
    }
}

impl GrpcClientTls {
    fn validate(&self) -> Result<(), String> {
        self.files().pair("grpc-client-tls-cert", "grpc-client-tls-key")
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            min_version: self.min_version.clone(),
            server_name: self.server_name.clone(),
            skip_verify: self.skip_verify,
        }
    }
}

settings! {
    /// Control plane.
    pub struct Control {
        /// gRPC addresses of the receivers that vote on what the cluster agrees on: one, three or five, separated by
        /// commas, the same on every node. With it the ring, limits, elections and jobs are agreed on and changes of the
        /// ring lose nothing; the first start of all voters forms the cluster. Without it the ring file alone rules, as
        /// in Thanos.
        ["control.voters"] voters: String = String::new();
    }
}

impl Control {
    /// Whether there is a control plane.
    pub fn on(&self) -> bool {
        !self.voters.trim().is_empty()
    }

    /// Addresses, in the order given.
    pub fn voters(&self) -> Vec<String> {
        let parts = self.voters.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    fn validate(&self) -> Result<(), String> {
        if !self.on() {
            return Ok(());
        }
        let voters = self.voters();
        if ![1, 3, 5].contains(&voters.len()) {
            return Err(format!(
                "--control.voters has {} addresses; it takes one, three or five, the same on every node",
                voters.len()
            ));
        }
        for (n, voter) in voters.iter().enumerate() {
            let port = voter.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(format!("--control.voters: {voter:?} is not an address, host:port"));
            }
            if voters[..n].contains(voter) {
                return Err(format!("--control.voters names {voter} twice"));
            }
        }
        Ok(())
    }
}

settings! {
    /// Object storage.
    pub struct Objstore {
        /// Bucket to use, as YAML text in the format of Thanos; $(VAR) takes a value from the environment.
        /// Excludes objstore.config-file.
        ["objstore.config"] config: Option<String> = None;
        /// File with the bucket to use, as YAML in the format of Thanos; see config/bucket-s3.yaml.
        /// $(VAR) in it takes a value from the environment. Without a bucket nothing is uploaded.
        ["objstore.config-file"] config_file: Option<PathBuf> = None;
    }
}

impl Objstore {
    /// Where the bucket's document is, if there is one.
    pub fn document(&self) -> Option<PathOrContent> {
        PathOrContent::settle("objstore.config", &self.config, &self.config_file).ok().flatten()
    }

    fn validate(&self) -> Result<(), String> {
        PathOrContent::settle("objstore.config", &self.config, &self.config_file)
            .map(|_| ())
            .map_err(|e| e.message)
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl Scalar for LogLevel {
    const PLACEHOLDER: &'static str = "LEVEL";

    fn parse(text: &str) -> Result<LogLevel, String> {
        match text {
            "debug" => Ok(LogLevel::Debug),
            "info" => Ok(LogLevel::Info),
            "warn" => Ok(LogLevel::Warn),
            "error" => Ok(LogLevel::Error),
            _ => Err(format!("{text:?} is not a log level: debug, info, warn or error")),
        }
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Logfmt,
    Json,
}

impl Scalar for LogFormat {
    const PLACEHOLDER: &'static str = "FORMAT";

    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "logfmt" => Ok(LogFormat::Logfmt),
            "json" => Ok(LogFormat::Json),
            "journald" => Err("journald is not supported; use logfmt or json on standard error".to_owned()),
            _ => Err(format!("{text:?} is not a log format: logfmt or json")),
        }
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl LogFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Logfmt => "logfmt",
            LogFormat::Json => "json",
        }
    }
}
