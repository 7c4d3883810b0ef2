//! The floor: a server that only takes a request, decompresses it, walks its protobuf and hashes every label. What any
//! receiver in this language and on this HTTP stack pays before it has done anything useful.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use xxhash_rust::xxh3::xxh3_64;

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What one request held; returned so that no work can be optimised away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    pub series: u64,
    pub samples: u64,
    pub hash: u64,
}

/// Serves until the process ends.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that leaves ends its connection, nothing else.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = match request.into_body().collect().await {
        Ok(body) => {
            let bytes = body.to_bytes();
            match bytes.is_empty() {
                true => 200,
                false => SCRATCH.with_borrow_mut(|scratch| match work(&bytes, scratch) {
                    Some(walked) if walked.samples > 0 => 204,
                    _ => 400,
                }),
            }
        }
        Err(_) => 400,
    };
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

/// Decompresses, walks and hashes one body; none where it is malformed.
pub fn work(body: &[u8], scratch: &mut Vec<u8>) -> Option<Walked> {
    let len = snap::raw::decompress_len(body).ok().filter(|&len| len <= 64 << 20)?;
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let written = snap::raw::Decoder::new().decompress(body, scratch).ok()?;
    let mut out = Walked::default();
    let mut rest = &scratch[..written];
    while let Some((tag, field)) = next(&mut rest)? {
        if tag != 0x0a {
            continue;
        }
        out.series += 1;
        let mut series = field;
        while let Some((tag, field)) = next(&mut series)? {
            match tag {
                0x0a => out.hash = out.hash.rotate_left(5) ^ xxh3_64(field),
                0x12 => {
                    let mut sample = field;
                    while next(&mut sample)?.is_some() {}
                    out.samples += 1;
                }
                _ => {}
            }
        }
    }
    Some(out)
}

/// The next field: its tag and its bytes. The inner none is the end, the outer one a malformed message.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Option<(u64, &'a [u8])>> {
    if rest.is_empty() {
        return Some(None);
    }
    let tag = varint(rest)?;
    let len = match tag & 7 {
        0 => {
            let before = *rest;
            varint(rest)?;
            return Some(Some((tag, &before[..before.len() - rest.len()])));
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (field, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(Some((tag, field)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{BodyEncoder, Workload};

    #[test]
    fn everything_is_walked_and_damage_is_refused() {
        let workload = Workload::new(100, 2, 1_000, 15_000, 50, 7);
        let body = BodyEncoder::new(&workload).body(&workload, workload.request(1), &mut Vec::new());
        let walked = work(&body, &mut Vec::new()).expect("a sound body");
        assert_eq!((walked.series, walked.samples), (50, 50));
        assert_ne!(walked.hash, 0);
        assert_eq!(work(&body[..body.len() - 3], &mut Vec::new()), None);
    }
}
