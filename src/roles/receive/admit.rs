//! Lets a body in: its type, encoding and size are judged before it is read, and its bytes are held against the
//! node's budget before memory is taken for them.

use std::io::ErrorKind;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use model::TenantId;
use runtime::{ByteGate, BytePermit, GateError};
use secure::{Bound, Busy, Credentials, PeerNames};
use wire::remote_write::{Limits, Packed, Packing};

use crate::otlp;
use crate::settings::{Admission as Settings, Tenancy};
use crate::shares::{Share, Shares};
use crate::status::Denial;

/// How long a sender may be silent within a body.
const SILENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };
/// How long a whole body may take.
const READ: Duration = Duration::from_secs(300);
/// How much of a body that is too large is read and thrown away, so that its sender comes to read the answer.
const DRAIN: u64 = 64 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// What a body of unknown length is taken for until it is read.
const UNKNOWN_LENGTH: u64 = 1 << 20;

/// The node's budget for writes in flight.
#[derive(Clone)]
pub struct Admission {
    gate: ByteGate,
    /// How long a write waits for its bytes.
    wait: Duration,
    shares: Shares,
    max_body: u64,
    limits: Limits,
}

/// A body within its limits, and the bytes that it and what it becomes may take.
#[derive(Debug)]
pub struct Admitted {
    pub body: Vec<u8>,
    /// Bytes that the body has when decompressed, as it says, or at most.
    pub plain: u64,
    pub permit: BytePermit,
    /// The tenant's part of the budget.
    pub share: Share,
}

impl Admission {
    pub fn new(settings: &Settings) -> Admission {
        let limits = Limits {
            max_bytes: settings.max_decompressed.as_usize(),
            max_series: usize::try_from(settings.max_series).unwrap_or(usize::MAX),
            max_labels: usize::try_from(settings.max_labels).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Admission {
            gate: ByteGate::new(settings.max_inflight.bytes()),
            wait: settings.inflight_wait.as_duration(),
            shares: Shares::default(),
            max_body: settings.max_body.bytes(),
            limits,
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn held_bytes(&self) -> u64 {
        self.gate.held()
    }

    /// Reads a body. `pay` is told its bytes before they are read, or after it where their number is not known.
    pub async fn read(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
        mut body: Body,
        version: Version,
        packing: Packing,
        pay: impl Fn(u64) -> Result<(), Denial>,
    ) -> Result<Admitted, Denial> {
        let declared = declared(headers)?;
        if let Some(declared) = declared
            && declared > self.max_body
        {
            // Who waits to be told to go on is told by the answer alone.
            if declared <= DRAIN && !headers.contains_key(header::EXPECT) {
                drain(&mut body).await;
            }
            return Err(self.too_large(declared));
        }
        let mut share = match self.let_in(tenant, declared, &pay) {
            Ok(share) => share,
            Err(denial) => {
                if !headers.contains_key(header::EXPECT) {
                    drain(&mut body).await;
                }
                return Err(denial);
            }
        };
        // Who waits to be told to go on is asked for nothing yet.
        let first = match headers.contains_key(header::EXPECT) {
            true => Bytes::new(),
            false => next(&mut body).await?.unwrap_or_default(),
        };
        let beside = 2 * self.becomes(&first, version, packing);
        let wanted = declared.unwrap_or(UNKNOWN_LENGTH.min(self.max_body)).saturating_add(beside);
        let mut permit = match self.hold(wanted).await {
            Ok(permit) => permit,
            Err(denial) => {
                if !headers.contains_key(header::EXPECT) {
                    drain(&mut body).await;
                }
                return Err(denial);
            }
        };
        let read =
            tokio::time::timeout(READ, self.fill(&mut body, first, declared, &mut permit, beside)).await;
        let body = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(denial)) => {
                drop(permit);
                if matches!(denial, Denial::TooLarge(_)) {
                    drain(&mut body).await;
                }
                return Err(denial);
            }
            Err(_) => return Err(Denial::Busy(format!("the body took more than {READ:?}; send it again"))),
        };
        if declared.is_none() {
            share.grow(body.len() as u64);
            pay(body.len() as u64)?;
        }
        let plain = match version {
            Version::Otlp(form) => otlp::plain_bytes(&body, form, &self.limits),
            Version::V1 | Version::V2 => Packed { packing, bytes: &body }.plain_bytes(),
        };
        // What says that it is larger is refused before memory is taken; what does not say gets the limit at most.
        let most = self.limits.max_bytes as u64;
        if plain <= most || packing == Packing::Zstd {
            let plain = plain.min(most);
            // Once as it is decompressed, once as a batch.
            share.grow(2 * plain);
            if 2 * plain > beside {
                permit.absorb(self.hold(2 * plain - beside).await?);
            }
        }
        Ok(Admitted { body, plain, permit, share })
    }

    /// What a body becomes, by its beginning; 0 where that does not say. Held together with the body's own bytes: bodies that
    /// were read and wait for that keep each other from it, until all of them are turned away.
    fn becomes(&self, first: &[u8], version: Version, packing: Packing) -> u64 {
        match (version, packing) {
            (Version::V1 | Version::V2, Packing::Snappy) => {
                let plain = Packed { packing, bytes: first }.plain_bytes();
                if plain > self.limits.max_bytes as u64 { 0 } else { plain }
            }
            _ => 0,
        }
    }

    /// Whether a request that says that it has so many bytes may be read.
    fn let_in(
        &self,
        tenant: &TenantId,
        declared: Option<u64>,
        pay: &impl Fn(u64) -> Result<(), Denial>,
    ) -> Result<Share, Denial> {
        if let Some(declared) = declared {
            pay(declared)?;
        }
        let (held, limit) = (self.gate.held(), self.gate.limit());
        self.shares.enter(tenant, declared.unwrap_or(0), held, limit).ok_or_else(|| {
            metrics::counter!("tributary_receive_admission_refused_total").increment(1);
            Denial::Busy(format!(
                "tenant {tenant} has more writes in flight than its part of --receive.max-inflight-bytes, of which \
                 {held} of {limit} are used up"
            ))
        })
    }

    /// Holds bytes of the budget for something that has been read elsewhere.
    pub async fn hold(&self, bytes: u64) -> Result<BytePermit, Denial> {
        let bytes = bytes.min(self.gate.limit()).min(u64::from(u32::MAX));
        let refused = |error: GateError| {
            metrics::counter!("tributary_receive_admission_refused_total").increment(1);
            Denial::Busy(format!("writes in flight have used up --receive.max-inflight-bytes: {error}"))
        };
        match tokio::time::timeout(self.wait, self.gate.acquire(bytes)).await {
            Ok(permit) => permit.map_err(refused),
            Err(_) => {
                let full =
                    GateError::Full { wanted: bytes, held: self.gate.held(), limit: self.gate.limit() };
                Err(refused(full))
            }
        }
    }

    /// Reads a body that begins with `data`. Of the permit, `beside` are not for it.
    async fn fill(
        &self,
        body: &mut Body,
        mut data: Bytes,
        declared: Option<u64>,
        permit: &mut BytePermit,
        beside: u64,
    ) -> Result<Vec<u8>, Denial> {
        let mut bytes = Vec::with_capacity(declared.unwrap_or(0) as usize);
        loop {
            let size = (bytes.len() + data.len()) as u64;
            if size > self.max_body {
                return Err(self.too_large(size));
            }
            let own = permit.bytes().saturating_sub(beside);
            if size > own {
                permit.absorb(self.hold((size - own).max(UNKNOWN_LENGTH)).await?);
            }
            bytes.extend_from_slice(&data);
            data = match next(body).await? {
                Some(data) => data,
                None => return Ok(bytes),
            };
        }
    }

    fn too_large(&self, bytes: u64) -> Denial {
        Denial::TooLarge(format!(
            "write request too large: {bytes} bytes, {} are allowed (--receive.max-body-bytes); send fewer samples \
             per request",
            self.max_body
        ))
    }
}

/// What comes next of a body; none at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Denial> {
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Err(_) => {
                return Err(Denial::Busy(format!(
                    "the body stopped for {SILENCE:?} before its end; send it again"
                )));
            }
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(|error| unreadable(&error))?,
        };
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// A body that broke off may come whole the next time; one that is not framed as HTTP asks will not.
fn unreadable(error: &axum::Error) -> Denial {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        let kind = at.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData)) {
            return Denial::Invalid(format!("the body could not be read: {at}"));
        }
        cause = at.source();
    }
    Denial::Busy(format!("the body broke off: {error}; send it again"))
}

/// How many bytes a request says that its body has.
fn declared(headers: &HeaderMap) -> Result<Option<u64>, Denial> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    number.map(Some).ok_or_else(|| Denial::Invalid("content-length is not a number".to_owned()))
}

/// Reads on and keeps nothing. A connection that is closed on a sender that still writes shows it a broken pipe,
/// never the answer.
async fn drain(body: &mut Body) {
    let rest = async {
        let mut left = DRAIN;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            left = match left.checked_sub(bytes) {
                Some(left) => left,
                None => return,
            };
        }
    };
    // Either way the answer is sent; only who reads it differs.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}

/// The message that a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Version {
    /// `prometheus.WriteRequest`: remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request`: remote write 2.0.
    V2,
    /// `ExportMetricsServiceRequest` of OpenTelemetry.
    Otlp(otlp::Form),
}

/// Which version of remote write encoding and type say this is, and how it is compressed; neither names any other.
pub fn check_head(headers: &HeaderMap) -> Result<(Version, Packing), Denial> {
    let text = |name: HeaderName| match headers.get(&name) {
        None => Ok(""),
        Some(value) => {
            value.to_str().map_err(|_| Denial::Unsupported(format!("header {name} is not readable text")))
        }
    };
    let encoding = text(header::CONTENT_ENCODING)?.trim();
    let packing = match encoding {
        "" => Packing::Snappy,
        _ if encoding.eq_ignore_ascii_case("snappy") => Packing::Snappy,
        _ if encoding.eq_ignore_ascii_case("zstd") => Packing::Zstd,
        _ => {
            return Err(Denial::Unsupported(format!(
                "content encoding {encoding:?} is not supported; remote write is sent as snappy or zstd"
            )));
        }
    };
    Ok((check_type(text(header::CONTENT_TYPE)?)?, packing))
}

/// The type alone decides, as in Prometheus; the version header repeats it and is not asked.
fn check_type(content_type: &str) -> Result<Version, Denial> {
    if content_type.trim().is_empty() {
        return Ok(Version::V1);
    }
    let unsupported = || {
        Denial::Unsupported(format!(
            "content type {content_type:?} is not supported; remote write is application/x-protobuf"
        ))
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(unsupported());
    }
    let mut version = Version::V1;
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(unsupported)?;
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        version = match value.trim().trim_matches('"') {
            "prometheus.WriteRequest" => Version::V1,
            "io.prometheus.write.v2.Request" => Version::V2,
            other => {
                return Err(Denial::Unsupported(format!(
                    "protobuf message {other:?} is not known; send prometheus.WriteRequest or \
                     io.prometheus.write.v2.Request"
                )));
            }
        };
    }
    Ok(version)
}

/// Whose write it is: by the sender's certificate where a field of it is named; else by the configured header, else
/// by Thanos's, else the default.
pub fn tenant_of(head: &Parts, tenancy: &Tenancy) -> Result<TenantId, Denial> {
    let headers = &head.headers;
    if !tenancy.certificate_field.is_empty() {
        let field = tenancy.certificate_field.as_str();
        let text = head.extensions.get::<PeerNames>().and_then(|names| names.field(field));
        let text = text.ok_or_else(|| {
            Denial::Invalid(format!("your certificate has no {field}, which names the tenant"))
        })?;
        return TenantId::new(text)
            .map_err(|error| Denial::Invalid(format!("your certificate's {field}: {error}")));
    }
    let named = [tenancy.header.as_str(), "THANOS-TENANT"].into_iter().find_map(|name| {
        let value = headers.get(name)?;
        Some((name, value))
    });
    let Some((name, value)) = named else {
        return TenantId::new(&tenancy.default_id).map_err(|e| Denial::Invalid(e.to_string()));
    };
    let text = value
        .to_str()
        .map_err(|_| Denial::Invalid(format!("header {name}: tenant id is not readable text")))?;
    if text.is_empty() {
        return TenantId::new(&tenancy.default_id).map_err(|e| Denial::Invalid(e.to_string()));
    }
    TenantId::new(text).map_err(|error| Denial::Invalid(format!("header {name}: {error}")))
}

/// Whose write it is where senders have credentials: of the tenant that they are bound to.
pub async fn tenant_by(
    credentials: &Credentials,
    head: &Parts,
    tenancy: &Tenancy,
) -> Result<TenantId, Denial> {
    let bound = credentials
        .bound(&head.headers)
        .await
        .map_err(|Busy| Denial::Busy("too many passwords wait to be checked; send it again".to_owned()))?;
    let tenant = match bound {
        None => {
            let text = "a bearer token or a password of --receive.credentials-file is needed";
            return Err(Denial::Unauthorized(text.to_owned()));
        }
        Some(Bound::Any) => return tenant_of(head, tenancy),
        // Checked when the file was read.
        Some(Bound::Tenant(tenant)) => TenantId::new(&tenant).map_err(|e| Denial::Invalid(e.to_string()))?,
    };
    let named =
        [tenancy.header.as_str(), "THANOS-TENANT"].into_iter().find_map(|name| head.headers.get(name));
    match named {
        Some(named) if !named.is_empty() && named.as_bytes() != tenant.as_str().as_bytes() => {
            Err(Denial::Forbidden(format!(
                "your credential is for tenant {tenant}, and the request names another; leave the header out"
            )))
        }
        _ => Ok(tenant),
    }
}

/// Which copy a router says this write is; 0 if it says nothing.
pub fn replica_of(headers: &HeaderMap, header: &str) -> Result<u32, Denial> {
    match headers.get(header) {
        None => Ok(0),
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| {
                Denial::Invalid(format!("header {header}: {value:?} is not the number of a copy"))
            })
        }
    }
}

#[cfg(test)]
mod tests;
