//! Why a bucket did not do what was asked, and which setting or permission to look at.

use std::error::Error as StdError;

use model::Kind;
use object_store::client::{HttpError, HttpErrorKind};

/// An error with what to do next, the facts in lower case, and its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    /// The object is not there; the bucket itself answered.
    pub missing: bool,
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), missing: false, source: None }
    }

    pub fn with_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Error {
        Error { kind, message: message.into(), missing: false, source: Some(source.into()) }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        self.kind.retryable()
    }
}

impl From<Error> for storage::Error {
    fn from(error: Error) -> storage::Error {
        storage::Error { kind: error.kind, message: error.message, source: error.source }
    }
}

/// What a bucket speaks, as far as its permissions and settings are named differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    Filesystem,
    S3,
    Gcs,
    Azure,
    /// A store handed in by a test or an embedder.
    Other,
}

impl Provider {
    /// As `type:` of the objstore YAML writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Filesystem => "FILESYSTEM",
            Provider::S3 => "S3",
            Provider::Gcs => "GCS",
            Provider::Azure => "AZURE",
            Provider::Other => "OTHER",
        }
    }
}

/// What is done to a bucket, under the names that Thanos's metrics give to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Iter,
    Get,
    GetRange,
    Exists,
    Upload,
    Delete,
    Attributes,
}

impl Operation {
    pub const ALL: [Operation; 7] = [
        Operation::Iter,
        Operation::Get,
        Operation::GetRange,
        Operation::Exists,
        Operation::Upload,
        Operation::Delete,
        Operation::Attributes,
    ];

    /// Value of the `operation` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Iter => "iter",
            Operation::Get => "get",
            Operation::GetRange => "get_range",
            Operation::Exists => "exists",
            Operation::Upload => "upload",
            Operation::Delete => "delete",
            Operation::Attributes => "attributes",
        }
    }

    /// The permission that the provider asks for.
    fn permission(self, provider: Provider) -> &'static str {
        use Operation::*;
        match (provider, self) {
            (Provider::S3, Iter) => "s3:ListBucket",
            (Provider::S3, Upload) => "s3:PutObject",
            (Provider::S3, Delete) => "s3:DeleteObject",
            // Without s3:ListBucket a missing object is answered with 403 too.
            (Provider::S3, Exists | Attributes) => "s3:GetObject and s3:ListBucket",
            (Provider::S3, _) => "s3:GetObject",
            (Provider::Gcs, Iter) => "storage.objects.list",
            (Provider::Gcs, Upload) => "storage.objects.create and storage.objects.delete",
            (Provider::Gcs, Delete) => "storage.objects.delete",
            (Provider::Gcs, _) => "storage.objects.get",
            (Provider::Azure, Iter) => "blobs list (role Storage Blob Data Reader)",
            (Provider::Azure, Upload | Delete) => "blobs write (role Storage Blob Data Contributor)",
            (Provider::Azure, _) => "blobs read (role Storage Blob Data Reader)",
            (_, Upload | Delete) => "write",
            _ => "read",
        }
    }
}

/// Where a bucket is, as its errors name it.
pub(crate) struct Place<'a> {
    pub provider: Provider,
    pub bucket: &'a str,
    pub endpoint: &'a str,
}

/// Turns a store's error into one that says what to look at. Answer bodies are reduced to their code and
/// message: the rest may repeat parts of the request's signature.
pub(crate) fn explain(
    place: &Place<'_>,
    operation: Operation,
    path: &str,
    error: object_store::Error,
) -> Error {
    let facts = Facts::of(&error);
    let (kind, advice) = judge(place, operation, path, &error, &facts);
    let missing = kind == Kind::Invalid && matches!(error, object_store::Error::NotFound { .. });
    let no_bucket = ["NoSuchBucket", "ContainerNotFound", GCS_NO_BUCKET];
    let missing = missing && !facts.code.as_deref().is_some_and(|code| no_bucket.contains(&code));
    let target = if path.is_empty() { String::new() } else { format!(" {path:?}") };
    let message = format!("{} of{target} in bucket {:?} failed: {advice}", operation.as_str(), place.bucket);
    Error { kind, message, missing, source: Some(Box::new(error)) }
}

const GCS_NO_BUCKET: &str = "The specified bucket does not exist";

/// What can be read off an error of the library, whatever it is wrapped in.
struct Facts {
    text: String,
    status: Option<u16>,
    code: Option<String>,
    http: Option<HttpErrorKind>,
    io: Option<std::io::ErrorKind>,
}

impl Facts {
    fn of(error: &object_store::Error) -> Facts {
        let text = error.to_string();
        let (mut http, mut io) = (None, None);
        let mut at: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(one) = at {
            http = http.or(one.downcast_ref::<HttpError>().map(HttpError::kind));
            io = io.or(one.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
            at = one.source();
        }
        let status = text
            .split_once("status code: ")
            .and_then(|(_, rest)| rest.get(..3))
            .and_then(|digits| digits.parse().ok());
        // GCS answers some requests in JSON, without a code that tells a bucket from an object.
        let no_bucket =
            text.contains("The specified bucket does not exist").then(|| GCS_NO_BUCKET.to_owned());
        let code = between(&text, "<Code>", "</Code>").or(no_bucket);
        Facts { text, status, code, http, io }
    }

    /// The server's own words, or the library's where there are none.
    fn words(&self) -> String {
        match (&self.code, between(&self.text, "<Message>", "</Message>")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.clone(),
            (None, _) => {
                let line = self.text.lines().next().unwrap_or_default();
                // Cut at an answer body that is not ours to print.
                let line = line.split(" - Server returned").next().unwrap_or(line);
                let short: String = line.chars().take(300).collect();
                match self.status {
                    Some(status) => format!("{short} (http status {status})"),
                    None => short,
                }
            }
        }
    }
}

fn between(text: &str, start: &str, end: &str) -> Option<String> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0.chars().take(200).collect())
}

fn judge(
    place: &Place<'_>,
    operation: Operation,
    path: &str,
    error: &object_store::Error,
    facts: &Facts,
) -> (Kind, String) {
    use object_store::Error as E;
    let Place { provider, bucket, endpoint } = place;
    let words = facts.words();
    match facts.code.as_deref() {
        Some("NoSuchBucket" | "ContainerNotFound" | GCS_NO_BUCKET) => {
            return (
                Kind::Invalid,
                format!("the bucket does not exist at {endpoint}; create it or correct `bucket`"),
            );
        }
        Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            return (
                Kind::Invalid,
                format!(
                    "the credentials are not accepted ({words}); check `access_key`, `secret_key` and `session_token`"
                ),
            );
        }
        Some("RequestTimeTooSkewed") => {
            return (
                Kind::Unavailable,
                format!("this machine's clock differs too much from the server's ({words})"),
            );
        }
        Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            return (Kind::Invalid, wrong_region(&words));
        }
        _ => {}
    }
    if facts.text.contains("redirect without LOCATION") || facts.status == Some(301) {
        return (Kind::Invalid, wrong_region(&words));
    }
    match error {
        E::NotFound { .. } => (Kind::Invalid, "the object does not exist".to_owned()),
        E::PermissionDenied { .. } => (
            Kind::Refused,
            format!(
                "permission denied ({words}); the credentials need {} on {}",
                operation.permission(*provider),
                resource(*provider, bucket, path)
            ),
        ),
        E::Unauthenticated { .. } => {
            (Kind::Invalid, format!("the credentials are missing or not accepted ({words})"))
        }
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
            (Kind::Refused, format!("the object is already there or has changed ({words})"))
        }
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => (Kind::Invalid, words),
        _ => match (facts.io, facts.http, facts.status) {
            (Some(std::io::ErrorKind::PermissionDenied), _, _) => (
                Kind::Refused,
                format!(
                    "permission denied; the process needs {} permission there",
                    operation.permission(*provider)
                ),
            ),
            (Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded), _, _) => {
                (Kind::Exhausted, "the disk is full; free space or enlarge it".to_owned())
            }
            (_, Some(HttpErrorKind::Connect), _) => (
                Kind::Unavailable,
                format!(
                    "cannot connect to {endpoint}; check `endpoint`, `insecure` and the network ({})",
                    deepest(error)
                ),
            ),
            (_, Some(HttpErrorKind::Timeout), _) => (
                Kind::Unavailable,
                format!("{endpoint} did not answer in time; see `http_config.response_header_timeout`"),
            ),
            (_, _, Some(status))
                if (400..500).contains(&status) && ![408, 409, 425, 429].contains(&status) =>
            {
                (Kind::Invalid, format!("the request is refused by {endpoint} ({words})"))
            }
            (_, _, Some(status)) => (Kind::Unavailable, format!("{endpoint} answered with status {status}")),
            _ => (Kind::Unavailable, format!("{words} ({})", deepest(error))),
        },
    }
}

fn wrong_region(words: &str) -> String {
    format!("the bucket lies in another region ({words}); correct `region` or `endpoint`")
}

fn resource(provider: Provider, bucket: &str, path: &str) -> String {
    match (provider, path) {
        (Provider::S3, "") => format!("arn:aws:s3:::{bucket}"),
        (Provider::S3, path) => format!("arn:aws:s3:::{bucket}/{path}"),
        (_, "") => format!("{bucket:?}"),
        (_, path) => format!("{:?}", format!("{bucket}/{path}")),
    }
}

/// The innermost cause: "connection refused", "dns error", and the like.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(operation: Operation, error: object_store::Error) -> Error {
        let place = Place { provider: Provider::S3, bucket: "metrics", endpoint: "http://minio:9000" };
        explain(&place, operation, "01ABC/index", error)
    }

    #[test]
    fn errors_name_the_permission_or_setting() {
        let body = |code: &str| {
            format!(
                "Server returned non-2xx status code: 403 Forbidden: <Error><Code>{code}</Code>\
                 <Message>no</Message><StringToSign>SECRET</StringToSign></Error>"
            )
        };
        let denied = |code: &str| object_store::Error::PermissionDenied {
            path: "01ABC/index".to_owned(),
            source: body(code).into(),
        };
        let error = s3(Operation::Upload, denied("AccessDenied"));
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.message.contains("s3:PutObject on arn:aws:s3:::metrics/01ABC/index"), "{error}");
        assert!(!error.message.contains("SECRET"), "{error}");
        let error = s3(Operation::Get, denied("SignatureDoesNotMatch"));
        assert!(error.message.contains("`secret_key`"), "{error}");
        let error = s3(
            Operation::Iter,
            object_store::Error::NotFound {
                path: String::new(),
                source: "<Code>NoSuchBucket</Code>".to_owned().into(),
            },
        );
        assert!(!error.missing && error.message.contains("does not exist at http://minio:9000"), "{error}");
        let error = s3(
            Operation::Get,
            object_store::Error::NotFound { path: String::new(), source: "gone".to_owned().into() },
        );
        assert!(error.missing);
        let generic =
            |text: &str| object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        let error =
            s3(Operation::Get, generic("Server returned non-2xx status code: 503 Service Unavailable: "));
        assert_eq!(error.kind, Kind::Unavailable);
        let error = s3(Operation::Get, generic("Server returned non-2xx status code: 400 Bad Request: "));
        assert_eq!(error.kind, Kind::Invalid);
        let error = s3(Operation::Get, generic("Received redirect without LOCATION, this normally"));
        assert!(error.message.contains("`region`"), "{error}");
    }
}
