//! OTLP metrics at the door: head and body of a request, and its way into a batch.
//!
//! A request becomes one of remote write 2.0 (`wire::otlp`) and goes that way from there on, so that every rule of samples,
//! histograms, exemplars and metadata is the same. Its answers are those of Prometheus 3: 200 for success, text for
//! everything else.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{HeaderMap, header};
use model::TenantId;
use serde::{Deserialize, Serialize};
use storage::Refusal;
use wire::otlp::{self, Settings};
use wire::remote_write::{Limits, Packed, Packing};

use crate::decode::{self, Decoded, Reading, Recognise};
use crate::status::{Denial, Example};

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    pub json: bool,
    pub coding: Coding,
}

/// How a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coding {
    None,
    Gzip,
    Zstd,
}

/// What type and encoding say.
pub fn check_head(headers: &HeaderMap) -> Result<Form, Denial> {
    let text = |name| {
        headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or("").trim()
    };
    let (kind, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let coding = match encoding {
        "" | "identity" => Coding::None,
        _ if encoding.eq_ignore_ascii_case("gzip") => Coding::Gzip,
        _ if encoding.eq_ignore_ascii_case("zstd") => Coding::Zstd,
        _ => {
            return Err(Denial::Unsupported(format!(
                "content encoding {encoding:?} is not supported for OTLP; send gzip, zstd or none"
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
    Ok(Form { json, coding })
}

/// Bytes that a body takes once it is plain, at most: what has more than it says is not unpacked further.
pub fn plain_bytes(body: &[u8], form: Form, limits: &Limits) -> u64 {
    let plain = match form.coding {
        Coding::None => body.len() as u64,
        Coding::Gzip => declared(body),
        Coding::Zstd => Packed { packing: Packing::Zstd, bytes: body }.plain_bytes(),
    };
    plain.max(body.len() as u64).min(limits.max_bytes as u64)
}

/// What gzip's trailer says.
fn declared(body: &[u8]) -> u64 {
    body.last_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
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
    let (mut request, aside) = translate(body, form, reading.limits, settings)?;
    let len = request.len();
    decode::plain_v2(tenant, &mut request, len, reading, recognise, |decoded, plain| {
        put_aside(aside, decoded);
        then(decoded, plain)
    })
}

/// A body as one of remote write 2.0, and what has no form there.
pub fn translate(
    body: &[u8],
    form: Form,
    limits: &Limits,
    settings: &Settings,
) -> Result<(Vec<u8>, otlp::Aside), Denial> {
    let mut unpacked = Vec::new();
    let plain = match form.coding {
        Coding::None => body,
        Coding::Gzip => {
            unpack(body, limits.max_bytes, &mut unpacked)?;
            &unpacked
        }
        Coding::Zstd => {
            let packed = Packed { packing: Packing::Zstd, bytes: body };
            packed.open(limits, &mut unpacked).map_err(decode::deny)?
        }
    };
    if plain.len() > limits.max_bytes {
        return Err(too_large(limits.max_bytes));
    }
    let request = if form.json { otlp::decode_json(plain) } else { otlp::decode(plain) };
    let translated = request.and_then(|request| otlp::translate(&request, settings)).map_err(decode::deny)?;
    Ok((translated.request, translated.aside))
}

/// Counts what has no form among what is refused.
pub fn put_aside(aside: otlp::Aside, decoded: &mut Decoded) {
    if let Some((metric, reason)) = aside.example {
        decoded.aside.put(Refusal::Unsupported, aside.points, || Example {
            series: metric,
            timestamp: None,
            reason: Refusal::Unsupported,
            detail: Some(reason),
        });
    }
}

fn too_large(limit: usize) -> Denial {
    Denial::TooLarge(format!(
        "OTLP request has more than {limit} bytes after decompression (--receive.max-decompressed-bytes); send smaller batches"
    ))
}

/// Unpacks what the trailer says, for which bytes are held, and not one byte more.
fn unpack(body: &[u8], limit: usize, plain: &mut Vec<u8>) -> Result<(), Denial> {
    let declared = declared(body);
    if declared > limit as u64 {
        return Err(too_large(limit));
    }
    GzDecoder::new(body)
        .take(declared + 1)
        .read_to_end(plain)
        .map_err(|error| Denial::Invalid(format!("OTLP request is not gzip: {error}")))?;
    match plain.len() as u64 > declared {
        true => Err(Denial::Invalid(format!(
            "OTLP request is not gzip: its last bytes say that it holds {declared} bytes, and it holds more; send one \
             member of gzip"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_trailer_that_lies_is_not_unpacked() {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b' '; 100_000]).unwrap();
        let good = encoder.finish().unwrap();
        let form = Form { json: true, coding: Coding::Gzip };
        let limits = Limits::default();
        let mut plain = Vec::new();
        unpack(&good, 1 << 20, &mut plain).unwrap();
        assert_eq!((plain.len(), plain_bytes(&good, form, &limits)), (100_000, 100_000));
        for (says, held, part) in
            [(10u32, good.len() as u64, "says that it holds 10 bytes"), (u32::MAX, 32 << 20, "more than")]
        {
            let mut lie = good.clone();
            let at = lie.len() - 4;
            lie[at..].copy_from_slice(&says.to_le_bytes());
            assert_eq!(plain_bytes(&lie, form, &limits), held);
            let mut plain = Vec::new();
            let denial = unpack(&lie, limits.max_bytes, &mut plain).unwrap_err();
            let (Denial::Invalid(text) | Denial::TooLarge(text)) = &denial else { panic!("{denial:?}") };
            assert!(text.contains(part) || text.contains("say that it holds 10"), "{text}");
            assert!(plain.capacity() < 10_000, "{}", plain.capacity());
        }
    }
}
