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
