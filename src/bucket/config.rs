//! The objstore YAML: `type`, `config`, `prefix`, with Thanos's keys and no others.
//!
//! The text is the operator's file after `$(VAR)` substitution. A key that Thanos does not have is an error
//! with its line; one that Thanos has and that changes nothing here is taken and named in a warning; one
//! that would change what is right (a signature, an encryption) and is not supported is refused.

use std::fmt;

use model::Kind;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use settings::Secret;

use crate::Error;

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    Ok(Secret::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
}

/// A key without a value (`access_key:`) is one that was left out, as Go reads YAML.
fn blank<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A whole objstore file.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: Store,
    /// Path inside the bucket under which everything lies; without slashes at its ends.
    pub prefix: String,
    /// What the file asks for and this version does not do.
    pub ignored: Vec<String>,
}

/// The `config` section, by `type`.
#[derive(Clone, Debug)]
pub enum Store {
    Filesystem(Filesystem),
    S3(Box<S3>),
    Gcs(Box<Gcs>),
    Azure(Box<Azure>),
}

/// `type: FILESYSTEM`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    #[serde(deserialize_with = "blank")]
    pub directory: String,
}

/// `type: S3`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    #[serde(deserialize_with = "blank")]
    pub bucket: String,
    #[serde(deserialize_with = "blank")]
    pub endpoint: String,
    #[serde(deserialize_with = "blank")]
    pub region: String,
    #[serde(deserialize_with = "blank")]
    pub access_key: String,
    #[serde(deserialize_with = "secret")]
    pub secret_key: Secret,
    #[serde(deserialize_with = "secret")]
    pub session_token: Secret,
    #[serde(deserialize_with = "blank")]
    pub insecure: bool,
    #[serde(deserialize_with = "blank")]
    pub aws_sdk_auth: bool,
    #[serde(deserialize_with = "blank")]
    pub signature_version2: bool,
    #[serde(deserialize_with = "blank")]
    pub list_objects_version: String,
    /// `auto`, `virtual-hosted` or `path`.
    #[serde(deserialize_with = "blank")]
    pub bucket_lookup_type: String,
    pub part_size: Option<u64>,
    pub max_retries: Option<usize>,
    #[serde(deserialize_with = "blank")]
    pub sse_config: SseConfig,
    #[serde(deserialize_with = "blank")]
    pub http_config: HttpConfig,
    disable_dualstack: Option<IgnoredAny>,
    put_user_metadata: Option<IgnoredAny>,
    trace: Option<IgnoredAny>,
    send_content_md5: Option<IgnoredAny>,
    #[serde(deserialize_with = "blank")]
    disable_multipart: bool,
    #[serde(deserialize_with = "blank")]
    sts_endpoint: String,
}

/// Encryption at rest, asked of the server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SseConfig {
    #[serde(deserialize_with = "blank")]
    pub r#type: String,
    #[serde(deserialize_with = "blank")]
    pub kms_key_id: String,
    kms_encryption_context: Option<IgnoredAny>,
    #[serde(deserialize_with = "secret")]
    encryption_key: Secret,
}

/// `type: GCS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gcs {
    #[serde(deserialize_with = "blank")]
    pub bucket: String,
    /// A service account's JSON, inline; empty: the environment's credentials.
    #[serde(deserialize_with = "secret")]
    pub service_account: Secret,
    pub chunk_size_bytes: Option<u64>,
    pub max_retries: Option<usize>,
    #[serde(deserialize_with = "blank")]
    pub http_config: HttpConfig,
    #[serde(deserialize_with = "blank")]
    use_grpc: bool,
    grpc_conn_pool_size: Option<IgnoredAny>,
}

/// `type: AZURE`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Azure {
    #[serde(deserialize_with = "blank")]
    pub az_tenant_id: String,
    #[serde(deserialize_with = "blank")]
    pub client_id: String,
    #[serde(deserialize_with = "secret")]
    pub client_secret: Secret,
    #[serde(deserialize_with = "blank")]
    pub storage_account: String,
    #[serde(deserialize_with = "secret")]
    pub storage_account_key: Secret,
    #[serde(deserialize_with = "secret")]
    pub storage_connection_string: Secret,
    #[serde(deserialize_with = "blank")]
    pub container: String,
    #[serde(deserialize_with = "blank")]
    pub endpoint: String,
    #[serde(deserialize_with = "blank")]
    pub user_assigned_id: String,
    pub max_retries: Option<usize>,
    #[serde(deserialize_with = "blank")]
    pub pipeline_config: PipelineConfig,
    #[serde(deserialize_with = "blank")]
    pub http_config: HttpConfig,
    storage_create_container: Option<IgnoredAny>,
    reader_config: Option<IgnoredAny>,
    #[serde(deserialize_with = "blank")]
    msi_resource: String,
}

/// Azure's retry settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    pub max_tries: Option<usize>,
    pub try_timeout: Option<Period>,
    pub retry_delay: Option<Period>,
    pub max_retry_delay: Option<Period>,
}

/// How connections are made; all providers but FILESYSTEM have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    pub idle_conn_timeout: Option<Period>,
    pub response_header_timeout: Option<Period>,
    #[serde(deserialize_with = "blank")]
    pub insecure_skip_verify: bool,
    pub tls_handshake_timeout: Option<Period>,
    pub max_idle_conns_per_host: Option<usize>,
    #[serde(deserialize_with = "blank")]
    pub tls_config: TlsConfig,
    expect_continue_timeout: Option<IgnoredAny>,
    max_idle_conns: Option<IgnoredAny>,
    #[serde(deserialize_with = "blank")]
    max_conns_per_host: usize,
    disable_compression: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    #[serde(deserialize_with = "blank")]
    pub ca_file: String,
    #[serde(deserialize_with = "blank")]
    pub insecure_skip_verify: bool,
    #[serde(deserialize_with = "blank")]
    cert_file: String,
    #[serde(deserialize_with = "blank")]
    key_file: String,
    #[serde(deserialize_with = "blank")]
    server_name: String,
}

/// A Prometheus duration (`90s`, `1m30s`), in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub u64);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = model::parse_duration(&text).map_err(serde::de::Error::custom)?;
        Ok(Period(ms.unsigned_abs()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outline {
    r#type: String,
    #[serde(rename = "config")]
    _config: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "blank")]
    prefix: String,
    hedging_config: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole<C> {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    config: C,
    #[serde(rename = "prefix")]
    _prefix: Option<IgnoredAny>,
    #[serde(rename = "hedging_config")]
    _hedging: Option<IgnoredAny>,
}

/// Reads the file's text. `lookup` answers for the variables in `$(NAME)`.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let text = settings::substitute(text, lookup).map_err(|e| invalid(e.message))?;
    let outline: Outline = read(&text)?;
    let mut ignored = Vec::new();
    if outline.hedging_config.is_some() {
        ignored.push("hedging_config".to_owned());
    }
    let store = match outline.r#type.to_ascii_uppercase().as_str() {
        "FILESYSTEM" => Store::Filesystem(filesystem(read::<Whole<_>>(&text)?.config)?),
        "S3" => Store::S3(Box::new(s3(read::<Whole<_>>(&text)?.config, &mut ignored)?)),
        "GCS" => Store::Gcs(Box::new(gcs(read::<Whole<_>>(&text)?.config, &mut ignored)?)),
        "AZURE" => Store::Azure(Box::new(azure(read::<Whole<_>>(&text)?.config, &mut ignored)?)),
        "" => return Err(invalid("`type` is missing; supported are FILESYSTEM, S3, GCS and AZURE")),
        other => {
            return Err(invalid(format!(
                "type {other:?} is not supported; supported are FILESYSTEM, S3, GCS and AZURE \
                 (many other stores speak S3: set `type: S3` and their `endpoint`)"
            )));
        }
    };
    Ok(Config { store, prefix: outline.prefix.trim_matches('/').to_owned(), ignored })
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    // No excerpt of the text in the message: the line beside a typing error may hold a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| invalid(error.to_string()))
}

fn invalid(message: impl fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("object storage configuration: {message}"))
}

fn required(value: &str, key: &str) -> Result<(), Error> {
    if value.is_empty() { Err(invalid(format!("`config.{key}` is missing"))) } else { Ok(()) }
}

fn filesystem(config: Filesystem) -> Result<Filesystem, Error> {
    required(&config.directory, "directory")?;
    Ok(config)
}

fn s3(config: S3, ignored: &mut Vec<String>) -> Result<S3, Error> {
    required(&config.bucket, "bucket")?;
    if config.endpoint.contains("://") {
        return Err(invalid(
            "`config.endpoint` is host and port without a scheme; `insecure: true` means http",
        ));
    }
    if config.endpoint.is_empty() && config.region.is_empty() && !config.aws_sdk_auth {
        return Err(invalid("`config.endpoint` (or, for AWS, `config.region`) is missing"));
    }
    if config.access_key.is_empty() != config.secret_key.is_empty() {
        return Err(invalid("`config.access_key` and `config.secret_key` belong together; one is missing"));
    }
    if config.aws_sdk_auth && !config.access_key.is_empty() {
        return Err(invalid("`config.aws_sdk_auth` and `config.access_key` exclude one another"));
    }
    if config.signature_version2 {
        return Err(invalid("`config.signature_version2` is not supported; servers of today take version 4"));
    }
    if !matches!(config.list_objects_version.as_str(), "" | "v2") {
        return Err(invalid("`config.list_objects_version` other than v2 is not supported"));
    }
    if !matches!(config.bucket_lookup_type.as_str(), "" | "auto" | "virtual-hosted" | "path") {
        return Err(invalid(format!(
            "`config.bucket_lookup_type` is {:?}; it is one of auto, virtual-hosted and path",
            config.bucket_lookup_type
        )));
    }
    let sse = &config.sse_config;
    match sse.r#type.as_str() {
        "" | "SSE-S3" => {}
        "SSE-KMS" => required(&sse.kms_key_id, "sse_config.kms_key_id")?,
        other => {
            return Err(invalid(format!(
                "`config.sse_config.type` {other:?} is not supported; use SSE-S3 or SSE-KMS"
            )));
        }
    }
    if sse.kms_encryption_context.is_some() {
        return Err(invalid("`config.sse_config.kms_encryption_context` is not supported"));
    }
    check_http(&config.http_config, ignored)?;
    for (given, key) in [
        (config.disable_dualstack.is_some(), "disable_dualstack"),
        (config.put_user_metadata.is_some(), "put_user_metadata"),
        (config.trace.is_some(), "trace"),
        (config.send_content_md5.is_some(), "send_content_md5"),
        (config.disable_multipart, "disable_multipart"),
        (!config.sts_endpoint.is_empty(), "sts_endpoint"),
        (!sse.encryption_key.is_empty(), "sse_config.encryption_key"),
    ] {
        note(ignored, given, key);
    }
    Ok(config)
}

fn gcs(config: Gcs, ignored: &mut Vec<String>) -> Result<Gcs, Error> {
    required(&config.bucket, "bucket")?;
    check_http(&config.http_config, ignored)?;
    note(ignored, config.use_grpc, "use_grpc");
    note(ignored, config.grpc_conn_pool_size.is_some(), "grpc_conn_pool_size");
    Ok(config)
}

fn azure(config: Azure, ignored: &mut Vec<String>) -> Result<Azure, Error> {
    required(&config.container, "container")?;
    if config.storage_connection_string.is_empty() {
        required(&config.storage_account, "storage_account")?;
    } else if !config.storage_account_key.is_empty() {
        return Err(invalid(
            "`config.storage_connection_string` and `config.storage_account_key` exclude one another",
        ));
    }
    check_http(&config.http_config, ignored)?;
    note(ignored, config.storage_create_container.is_some(), "storage_create_container");
    note(ignored, config.reader_config.is_some(), "reader_config");
    note(ignored, !config.msi_resource.is_empty(), "msi_resource");
    Ok(config)
}

fn check_http(http: &HttpConfig, ignored: &mut Vec<String>) -> Result<(), Error> {
    let tls = &http.tls_config;
    if !tls.cert_file.is_empty() || !tls.key_file.is_empty() || !tls.server_name.is_empty() {
        return Err(invalid(
            "`http_config.tls_config` with cert_file, key_file or server_name is not supported for buckets",
        ));
    }
    for (given, key) in [
        (http.expect_continue_timeout.is_some(), "http_config.expect_continue_timeout"),
        (http.max_idle_conns.is_some(), "http_config.max_idle_conns"),
        (http.max_conns_per_host > 0, "http_config.max_conns_per_host"),
        (http.disable_compression.is_some(), "http_config.disable_compression"),
    ] {
        note(ignored, given, key);
    }
    Ok(())
}

fn note(ignored: &mut Vec<String>, given: bool, key: &str) {
    if given {
        ignored.push(format!("config.{key}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Config, Error> {
        parse(text, &|name| (name == "KEY").then(|| "hush".to_owned()))
    }

    #[test]
    fn a_full_s3_file_reads() {
        let text = "type: S3\nconfig:\n  bucket: b\n  endpoint: minio:9000\n  insecure: true\n  access_key: a\n  \
                    secret_key: $(KEY)\n  part_size: 16777216\n  trace:\n    enable: true\n  http_config:\n    \
                    response_header_timeout: 1m30s\n    insecure_skip_verify: true\nprefix: /a/b/\n";
        let config = ask(text).unwrap();
        assert_eq!(config.prefix, "a/b");
        assert_eq!(config.ignored, ["config.trace"]);
        let Store::S3(s3) = &config.store else { panic!("not S3") };
        assert_eq!(s3.secret_key.reveal(), "hush");
        assert_eq!(s3.http_config.response_header_timeout, Some(Period(90_000)));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn what_is_wrong_is_named_without_secrets() {
        for (text, want) in [
            ("type: SWIFT\nconfig: {}\n", "FILESYSTEM, S3, GCS and AZURE"),
            ("type: S3\nconfig: {}\n", "`config.bucket` is missing"),
            ("type: S3\nconfig:\n  bucket: b\n  bukket: c\n", "line 4"),
            ("type: S3\nconfig: {bucket: b, endpoint: e, access_key: a}\n", "belong together"),
            ("type: S3\nconfig: {bucket: b, endpoint: e, signature_version2: true}\n", "signature_version2"),
            ("type: S3\nconfig: {bucket: b, endpoint: 'http://e'}\n", "without a scheme"),
            ("type: FILESYSTEM\nconfig: {directory: $(NOPE)}\n", "NOPE"),
            ("type: FILESYSTEM\nconfig: {directory: ''}\n", "directory"),
            ("type: FILESYSTEM\nconfig: {directory: x}\nprefiks: y\n", "prefiks"),
            ("type: AZURE\nconfig: {container: c}\n", "storage_account"),
            ("type: S3\nconfig:\n  bucket: b\n  secret_key: topsecret\n  part_size: [1]\n", "line 5"),
        ] {
            let message = ask(text).unwrap_err().message;
            assert!(message.contains(want), "{text}: {message}");
            assert!(!message.contains("topsecret"), "{message}");
        }
        assert!(ask("type: GCS\nconfig: {bucket: b}\n").is_ok());
        let blanks = "type: S3\nconfig:\n  bucket: b\n  endpoint: e\n  access_key:\n  secret_key:\n  insecure:\n  \
                      http_config:\n  part_size:\nprefix:\n";
        assert!(ask(blanks).is_ok(), "{:?}", ask(blanks));
    }
}
