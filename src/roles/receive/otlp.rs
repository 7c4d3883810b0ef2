//! OTLP metrics at the door: head and body of a request, and its way into a batch.
//!
//! A request becomes one of remote write 2.0 (`wire::otlp`) and goes that way from there on, so that every rule of samples,
//! histograms, exemplars and metadata is the same. Its answers are those of Prometheus 3: 200 for success, text for
//! everything else.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{HeaderMap, header};
use model::TenantId;
use storage::Refusal;
use wire::otlp::{self, Settings};
use wire::remote_write::Limits;

use crate::decode::{self, Decoded, Reading, Recognise};
use crate::status::{Denial, Example};

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub json: bool,
    pub gzip: bool,
}

/// What type and encoding say.
pub fn check_head(headers: &HeaderMap) -> Result<Form, Denial> {
    let text = |name| {
        headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or("").trim()
    };
    let (kind, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let gzip = match encoding {
        "" | "identity" => false,
        _ if encoding.eq_ignore_ascii_case("gzip") => true,
        _ => {
            return Err(Denial::Unsupported(format!(
                "content encoding {encoding:?} is not supported for OTLP; send gzip or none"
            )));
        }
    };
    let media = kind.split(';').next().unwrap_or("").trim();
    let json = match media.to_ascii_lowercase().as_str() {
        "application/x-protobuf" => false,
        "application/json" => true,
        _ => {
            return Err(Denial::Unsupported(format!(
                "content type {kind:?} is not supported for OTLP; send application/x-protobuf or application/json"
            )));
        }
    };
    Ok(Form { json, gzip })
}

/// Bytes that a body takes once it is plain, as far as that can be told before: gzip's trailer may lie, and is
/// believed for the budget alone.
pub fn plain_bytes(body: &[u8], form: Form, limits: &Limits) -> u64 {
    let declared = body.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    let plain = if form.gzip { declared.max(body.len()) } else { body.len() };
    plain.min(limits.max_bytes) as u64
}

/// Decodes a body and hands it to `then` as one of remote write 2.0.
pub fn decode<R>(
    tenant: &TenantId,
    body: &[u8],
    form: Form,
    reading: Reading<'_>,
    settings: &Settings,
    recognise: Option<Recognise<'_>>,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let limits = reading.limits;
    let unpacked = if form.gzip { Some(unpack(body, limits.max_bytes)?) } else { None };
    let plain = unpacked.as_deref().unwrap_or(body);
    if plain.len() > limits.max_bytes {
        return Err(too_large(limits.max_bytes));
    }
    let request = if form.json { otlp::decode_json(plain) } else { otlp::decode(plain) };
    let translated = request.and_then(|request| otlp::translate(&request, settings)).map_err(decode::deny)?;
    decode::plain_v2(tenant, &translated.request, reading, recognise, |decoded, plain| {
        let aside = translated.aside;
        if let Some((metric, reason)) = aside.example {
            decoded.aside.put(Refusal::Unsupported, aside.points, || Example {
                series: metric,
                timestamp: None,
                reason: Refusal::Unsupported,
                detail: Some(reason),
            });
        }
        then(decoded, plain)
    })
}

fn too_large(limit: usize) -> Denial {
    Denial::TooLarge(format!(
        "OTLP request has more than {limit} bytes after decompression (--receive.max-decompressed-bytes); send smaller batches"
    ))
}

fn unpack(body: &[u8], limit: usize) -> Result<Vec<u8>, Denial> {
    let mut plain = Vec::new();
    GzDecoder::new(body)
        .take(limit as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| Denial::Invalid(format!("OTLP request is not gzip: {error}")))?;
    match plain.len() > limit {
        true => Err(too_large(limit)),
        false => Ok(plain),
    }
}
