//! From a read configuration to a client of the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Kind;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use runtime::World;

use crate::config::{Azure, Config, Gcs, HttpConfig, Period, S3, Store};
use crate::{Error, Provider};

/// Retries inside the client, of single requests; whole operations are retried above it.
const REQUEST_RETRIES: usize = 2;
/// Bytes held per part in flight, unless the file says otherwise.
const PART_SIZE: u64 = 16 << 20;
/// S3 takes no smaller part but the last.
const MIN_PART_SIZE: u64 = 5 << 20;
const AZURE_ENDPOINT: &str = "blob.core.windows.net";

/// A client and how its bucket is called.
pub(crate) struct Connected {
    pub store: Arc<dyn ObjectStore>,
    pub provider: Provider,
    pub bucket: String,
    pub endpoint: String,
    pub prefix: String,
    pub part_size: usize,
}

/// Builds the client; makes no request.
pub(crate) fn connect(config: &Config, world: &World) -> Result<Connected, Error> {
    // Whoever starts the process may have chosen a provider already; then this one is not needed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut connected = match &config.store {
        Store::Filesystem(fs) => filesystem(Path::new(&fs.directory), world)?,
        Store::S3(s3) => connect_s3(s3, world)?,
        Store::Gcs(gcs) => connect_gcs(gcs, world)?,
        Store::Azure(azure) => connect_azure(azure, world)?,
    };
    connected.prefix.clone_from(&config.prefix);
    Ok(connected)
}

/// A bucket in a folder of this machine, which is created.
pub(crate) fn filesystem(dir: &Path, world: &World) -> Result<Connected, Error> {
    let failed = |error: String| {
        Error::new(
            Kind::Unavailable,
            format!("cannot use folder {} as a bucket: {error}; check that it can be written", dir.display()),
        )
    };
    world.disk.create_dir_all(dir).map_err(|e| failed(e.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| failed(e.to_string()))?;
    Ok(Connected {
        store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)),
        provider: Provider::Filesystem,
        bucket: dir.display().to_string(),
        endpoint: dir.display().to_string(),
        prefix: String::new(),
        part_size: PART_SIZE as usize,
    })
}

fn connect_s3(s3: &S3, world: &World) -> Result<Connected, Error> {
    let plan = plan_s3(s3);
    // Without keys in the file: environment, web identity, container and instance roles.
    let mut builder =
        if s3.access_key.is_empty() { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    builder = builder
        .with_bucket_name(&s3.bucket)
        .with_region(&plan.region)
        .with_virtual_hosted_style_request(plan.virtual_hosted)
        .with_allow_http(s3.insecure)
        .with_retry(retry(s3.max_retries))
        .with_client_options(client(&s3.http_config, world)?.with_allow_http(s3.insecure));
    if let Some(endpoint) = &plan.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if !s3.access_key.is_empty() {
        builder = builder.with_access_key_id(&s3.access_key).with_secret_access_key(s3.secret_key.reveal());
    }
    if !s3.session_token.is_empty() {
        builder = builder.with_token(s3.session_token.reveal());
    }
    match s3.sse_config.r#type.as_str() {
        "SSE-S3" => {
            let key: AmazonS3ConfigKey = "aws_server_side_encryption".parse().map_err(not_built)?;
            builder = builder.with_config(key, "AES256");
        }
        "SSE-KMS" => builder = builder.with_sse_kms_encryption(&s3.sse_config.kms_key_id),
        _ => {}
    }
    Ok(Connected {
        store: Arc::new(builder.build().map_err(not_built)?),
        provider: Provider::S3,
        bucket: s3.bucket.clone(),
        endpoint: plan.endpoint.unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", plan.region)),
        prefix: String::new(),
        part_size: part_size(s3.part_size),
    })
}

/// How an S3 bucket is addressed.
#[derive(Debug, PartialEq, Eq)]
struct S3Plan {
    region: String,
    virtual_hosted: bool,
    /// None: AWS's own for the region.
    endpoint: Option<String>,
}

/// Thanos's rules: AWS is addressed by host name, everybody else by path, unless told; the region comes
/// from the settings, else from AWS's host name, else it is `us-east-1`, which other servers ignore.
fn plan_s3(s3: &S3) -> S3Plan {
    let host = s3.endpoint.split(':').next().unwrap_or_default();
    let aws = host.is_empty() || host.ends_with(".amazonaws.com");
    let named = host.strip_suffix(".amazonaws.com").and_then(|h| {
        h.strip_prefix("s3.dualstack.").or_else(|| h.strip_prefix("s3.")).or_else(|| h.strip_prefix("s3-"))
    });
    let region = match (s3.region.as_str(), named) {
        ("", Some(region)) if !region.contains('.') => region.to_owned(),
        ("", _) => "us-east-1".to_owned(),
        (region, _) => region.to_owned(),
    };
    // A dot in the bucket's name does not fit the certificate of the host name.
    let by_host = aws && (s3.insecure || !s3.bucket.contains('.'));
    let virtual_hosted = match s3.bucket_lookup_type.as_str() {
        "virtual-hosted" => true,
        "path" => false,
        _ => by_host,
    };
    let plain_aws = aws && !s3.insecure && (host.is_empty() || host == "s3.amazonaws.com");
    let scheme = if s3.insecure { "http" } else { "https" };
    let endpoint = match (plain_aws, virtual_hosted) {
        (true, _) => None,
        (false, true) => Some(format!("{scheme}://{}.{}", s3.bucket, s3.endpoint)),
        (false, false) => Some(format!("{scheme}://{}", s3.endpoint)),
    };
    S3Plan { region, virtual_hosted, endpoint }
}

fn connect_gcs(gcs: &Gcs, world: &World) -> Result<Connected, Error> {
    let mut builder = if gcs.service_account.is_empty() {
        GoogleCloudStorageBuilder::from_env()
    } else {
        GoogleCloudStorageBuilder::new().with_service_account_key(gcs.service_account.reveal())
    };
    builder = builder
        .with_bucket_name(&gcs.bucket)
        .with_retry(retry(gcs.max_retries))
        .with_client_options(client(&gcs.http_config, world)?);
    Ok(Connected {
        store: Arc::new(builder.build().map_err(not_built)?),
        provider: Provider::Gcs,
        bucket: gcs.bucket.clone(),
        endpoint: "https://storage.googleapis.com".to_owned(),
        prefix: String::new(),
        part_size: part_size(gcs.chunk_size_bytes),
    })
}

fn connect_azure(azure: &Azure, world: &World) -> Result<Connected, Error> {
    let parts = connection_string(azure.storage_connection_string.reveal());
    let part = |name: &str| parts.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
    let account = part("AccountName").unwrap_or(&azure.storage_account);
    let key = part("AccountKey").unwrap_or(azure.storage_account_key.reveal());
    let suffix = match (part("EndpointSuffix"), azure.endpoint.as_str()) {
        (Some(suffix), _) => format!("blob.{suffix}"),
        (None, "") => AZURE_ENDPOINT.to_owned(),
        (None, endpoint) => endpoint.to_owned(),
    };
    let endpoint = part("BlobEndpoint").map_or_else(|| format!("https://{account}.{suffix}"), str::to_owned);
    let mut options = client(&azure.http_config, world)?;
    if let Some(Period(ms)) = azure.pipeline_config.try_timeout {
        options = options.with_timeout(Duration::from_millis(ms.max(1)));
    }
    let retries = azure.max_retries.or(azure.pipeline_config.max_tries.map(|n| n.saturating_sub(1)));
    let mut retry = retry(retries);
    if let Some(Period(ms)) = azure.pipeline_config.retry_delay {
        retry.backoff.init_backoff = Duration::from_millis(ms.max(1));
    }
    if let Some(Period(ms)) = azure.pipeline_config.max_retry_delay {
        retry.backoff.max_backoff = Duration::from_millis(ms.max(1));
    }
    let plain = endpoint.starts_with("http://");
    let mut builder = if key.is_empty() && azure.client_secret.is_empty() {
        MicrosoftAzureBuilder::from_env()
    } else {
        MicrosoftAzureBuilder::new()
    };
    builder = builder
        .with_account(account)
        .with_container_name(&azure.container)
        .with_endpoint(endpoint.clone())
        .with_allow_http(plain)
        .with_retry(retry)
        .with_client_options(options.with_allow_http(plain));
    if !key.is_empty() {
        builder = builder.with_access_key(key);
    } else if !azure.client_secret.is_empty() {
        builder = builder.with_client_secret_authorization(
            &azure.client_id,
            azure.client_secret.reveal(),
            &azure.az_tenant_id,
        );
    } else if !azure.user_assigned_id.is_empty() {
        builder = builder.with_client_id(&azure.user_assigned_id);
    }
    Ok(Connected {
        store: Arc::new(builder.build().map_err(not_built)?),
        provider: Provider::Azure,
        bucket: azure.container.clone(),
        endpoint,
        prefix: String::new(),
        part_size: PART_SIZE as usize,
    })
}

/// `Name=value;Name=value`; values may contain `=`.
fn connection_string(text: &str) -> Vec<(&str, &str)> {
    text.split(';').filter_map(|part| part.trim().split_once('=')).collect()
}

fn client(http: &HttpConfig, world: &World) -> Result<ClientOptions, Error> {
    let period = |given: Option<Period>, default_secs| match given {
        Some(Period(0)) | None => Duration::from_secs(default_secs),
        Some(Period(ms)) => Duration::from_millis(ms),
    };
    let answer = period(http.response_header_timeout, 120);
    let mut options = ClientOptions::new()
        // Nothing may hang for ever: silence is bounded first, then the whole request, bodies included.
        .with_read_timeout(answer)
        .with_timeout(answer.max(Duration::from_secs(60)) * 3)
        .with_connect_timeout(period(http.tls_handshake_timeout, 10))
        .with_pool_idle_timeout(period(http.idle_conn_timeout, 90))
        .with_pool_max_idle_per_host(http.max_idle_conns_per_host.unwrap_or(100));
    if http.insecure_skip_verify || http.tls_config.insecure_skip_verify {
        options = options.with_allow_invalid_certificates(true);
    }
    let ca_file = &http.tls_config.ca_file;
    if !ca_file.is_empty() {
        let bad = |error: String| {
            Error::new(
                Kind::Invalid,
                format!("object storage configuration: ca_file {ca_file:?} is not usable: {error}"),
            )
        };
        let pem = world.disk.read(Path::new(ca_file)).map_err(|e| bad(e.to_string()))?;
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|e| bad(e.to_string()))? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retry(max_retries: Option<usize>) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        // 0 is Thanos's "not set".
        max_retries: max_retries.filter(|n| *n > 0).unwrap_or(REQUEST_RETRIES),
        retry_timeout: Duration::from_secs(120),
    }
}

fn part_size(given: Option<u64>) -> usize {
    given.filter(|n| *n > 0).unwrap_or(PART_SIZE).clamp(MIN_PART_SIZE, 1 << 30) as usize
}

fn not_built(error: object_store::Error) -> Error {
    Error::with_source(Kind::Invalid, format!("object storage configuration: {error}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn s3(text: &str) -> S3 {
        let text = format!("type: S3\nconfig: {{{text}}}\n");
        let config = config::parse(&text, &|_| None).unwrap();
        let Store::S3(s3) = config.store else { panic!("not S3") };
        *s3
    }

    #[test]
    fn s3_addresses() {
        let plan = |text: &str| {
            let plan = plan_s3(&s3(text));
            (plan.region, plan.virtual_hosted, plan.endpoint.unwrap_or_default())
        };
        let want = |region: &str, hosted, endpoint: &str| (region.to_owned(), hosted, endpoint.to_owned());
        assert_eq!(
            plan("bucket: b, endpoint: 'minio:9000', insecure: true"),
            want("us-east-1", false, "http://minio:9000")
        );
        assert_eq!(plan("bucket: b, region: eu-west-1"), want("eu-west-1", true, ""));
        assert_eq!(
            plan("bucket: b, endpoint: s3.eu-central-1.amazonaws.com"),
            want("eu-central-1", true, "https://b.s3.eu-central-1.amazonaws.com")
        );
        assert_eq!(plan("bucket: b.c, endpoint: s3.amazonaws.com"), want("us-east-1", false, ""));
        assert_eq!(
            plan("bucket: b, endpoint: x.example, bucket_lookup_type: virtual-hosted"),
            want("us-east-1", true, "https://b.x.example")
        );
    }

    #[test]
    fn clouds_are_built_without_a_request() {
        let world = World::real();
        let build = |text: &str| connect(&config::parse(text, &|_| None).unwrap(), &world);
        let azure = build(
            "type: AZURE\nconfig: {container: c, storage_connection_string: \
             'AccountName=acc;AccountKey=a2V5;EndpointSuffix=core.windows.net'}\n",
        )
        .unwrap();
        assert_eq!(azure.endpoint, "https://acc.blob.core.windows.net");
        let bad = build("type: GCS\nconfig: {bucket: b, service_account: 'not json'}\n").err().unwrap();
        assert_eq!(bad.kind, Kind::Invalid);
        assert!(!bad.to_string().contains("not json"), "{bad}");
        assert!(build("type: S3\nconfig: {bucket: b, region: r, access_key: a, secret_key: s}\n").is_ok());
    }
}
