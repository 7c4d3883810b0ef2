//! Answers in gzip or deflate for those who accept it, compressed piece by piece while they are sent.
//!
//! Text that we write (JSON, metrics, YAML) shrinks to a tenth; what carries an encoding already, and answers
//! smaller than a packet, stay as they are. Whether an answer was compressed is said in `Vary` in both cases.

use std::io::{self, Write};

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body as _;

/// Below this an answer fits a packet anyhow.
const SMALLEST: u64 = 1024;
/// Media types that we write and that shrink.
const TEXTS: [&str; 3] = ["application/json", "application/yaml", "text/plain"];

/// Compresses the answer if its client takes it.
pub async fn apply(request: Request, next: Next) -> Response {
    let wanted = (*request.method() != Method::HEAD).then(|| accepted(request.headers())).flatten();
    let mut response = next.run(request).await;
    let headers = response.headers();
    if headers.contains_key(header::CONTENT_ENCODING) || !is_text(headers) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let small = response.body().size_hint().exact().is_some_and(|bytes| bytes < SMALLEST);
    let Some(coding) = wanted.filter(|_| !small) else { return response };
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    Response::from_parts(head, Body::from_stream(compressed(body.into_data_stream(), coding)))
}

fn is_text(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    TEXTS.contains(&media.split(';').next().unwrap_or("").trim())
}

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }
}

/// The first of ours in `Accept-Encoding` that has not the quality 0, as Prometheus chooses.
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let texts = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|text| text.split(',')).find_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().unwrap_or("");
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        let is = |coding: &Coding| named.eq_ignore_ascii_case(coding.name()) && !refused;
        [Coding::Gzip, Coding::Deflate].into_iter().find(is)
    })
}

/// Either compressor; the fastest level: it runs on the threads that drive sockets, and finds nearly all there is
/// in JSON.
enum Packer {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Packer {
    fn new(coding: Coding) -> Packer {
        match coding {
            Coding::Gzip => Packer::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Deflate => Packer::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
        }
    }

    /// What is ready after one more piece.
    fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Packer::Gzip(encoder) => {
                encoder.write_all(piece)?;
                std::mem::take(encoder.get_mut())
            }
            Packer::Deflate(encoder) => {
                encoder.write_all(piece)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Packer::Gzip(encoder) => encoder.finish(),
            Packer::Deflate(encoder) => encoder.finish(),
        }
    }
}

/// The pieces of a body in one compressed stream. A piece that fails breaks the stream off, so that what was cut is
/// never taken for whole.
fn compressed<S>(pieces: S, coding: Coding) -> impl Stream<Item = Result<Bytes, io::Error>> + Send
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin,
{
    stream::try_unfold(Some((pieces, Packer::new(coding))), |state| async move {
        let Some((mut pieces, mut packer)) = state else { return Ok(None) };
        loop {
            match pieces.next().await {
                None => {
                    let last = packer.finish()?;
                    return Ok(Some((Bytes::from(last), None)));
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(piece)) => {
                    let ready = packer.push(&piece)?;
                    if !ready.is_empty() {
                        return Ok(Some((Bytes::from(ready), Some((pieces, packer)))));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, ZlibDecoder};
    use proptest::prelude::*;

    use super::*;

    fn headers(accept: &[&str]) -> HeaderMap {
        accept.iter().map(|a| (header::ACCEPT_ENCODING, HeaderValue::from_str(a).unwrap())).collect()
    }

    #[test]
    fn who_accepts_what() {
        for accept in [&["gzip"][..], &["gzip;q=1.0, deflate"], &["br", "x, GZIP ; q=0.5"]] {
            assert_eq!(accepted(&headers(accept)), Some(Coding::Gzip), "{accept:?}");
        }
        for accept in [&["deflate"][..], &["br, deflate, gzip"], &["gzip;q=0, deflate"]] {
            assert_eq!(accepted(&headers(accept)), Some(Coding::Deflate), "{accept:?}");
        }
        for accept in [&[][..], &["gzip;q=0"], &["gzip; q=0.000"], &["gzipped"], &["*"], &["zstd"]] {
            assert_eq!(accepted(&headers(accept)), None, "{accept:?}");
        }
    }

    #[test]
    fn only_text_is_compressed() {
        let of = |media| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
        assert!(is_text(&of("text/plain; version=0.0.4; charset=utf-8")) && is_text(&of("application/json")));
        assert!(!is_text(&of("application/x-protobuf")) && !is_text(&HeaderMap::new()));
    }

    async fn collect(pieces: Vec<Result<Bytes, axum::Error>>, coding: Coding) -> Result<Vec<u8>, io::Error> {
        let out = compressed(stream::iter(pieces), coding);
        let parts: Vec<_> = out.collect().await;
        Ok(parts.into_iter().collect::<Result<Vec<Bytes>, _>>()?.concat())
    }

    proptest! {
        #[test]
        fn pieces_come_out_as_they_went_in(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
        ) {
            let pack = |coding| {
                let body = pieces.iter().map(|p| Ok(Bytes::from(p.clone()))).collect();
                futures::executor::block_on(collect(body, coding)).unwrap()
            };
            let mut unpacked = Vec::new();
            GzDecoder::new(&pack(Coding::Gzip)[..]).read_to_end(&mut unpacked).unwrap();
            prop_assert_eq!(&unpacked, &pieces.concat());
            unpacked.clear();
            ZlibDecoder::new(&pack(Coding::Deflate)[..]).read_to_end(&mut unpacked).unwrap();
            prop_assert_eq!(&unpacked, &pieces.concat());
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_not_ended() {
        let body = vec![Ok(Bytes::from_static(b"half")), Err(axum::Error::new("gone"))];
        assert!(futures::executor::block_on(collect(body, Coding::Gzip)).is_err());
    }
}
