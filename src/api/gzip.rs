//! Answers in gzip for those who accept it, compressed piece by piece while they are sent.
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
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body as _;

/// Below this an answer fits a packet anyhow.
const SMALLEST: u64 = 1024;
/// Media types that we write and that shrink.
const TEXTS: [&str; 3] = ["application/json", "application/yaml", "text/plain"];

/// Compresses the answer if its client takes it.
pub async fn apply(request: Request, next: Next) -> Response {
    let wanted = *request.method() != Method::HEAD && accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers();
    if headers.contains_key(header::CONTENT_ENCODING) || !is_text(headers) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let small = response.body().size_hint().exact().is_some_and(|bytes| bytes < SMALLEST);
    if !wanted || small {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(head, Body::from_stream(compressed(body.into_data_stream())))
}

fn is_text(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    TEXTS.contains(&media.split(';').next().unwrap_or("").trim())
}

/// Whether gzip is named in `Accept-Encoding`, and not with the quality 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        named && !refused
    })
}

/// The pieces of a body in one gzip stream. A piece that fails breaks the stream off, so that what was cut is
/// never taken for whole.
fn compressed<S>(pieces: S) -> impl Stream<Item = Result<Bytes, io::Error>> + Send
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin,
{
    // The fastest level: it runs on the threads that drive sockets, and finds nearly all there is in JSON.
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    stream::try_unfold(Some((pieces, encoder)), |state| async move {
        let Some((mut pieces, mut encoder)) = state else { return Ok(None) };
        loop {
            match pieces.next().await {
                None => {
                    let last = encoder.finish()?;
                    return Ok(Some((Bytes::from(last), None)));
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(piece)) => {
                    encoder.write_all(&piece)?;
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Ok(Some((Bytes::from(ready), Some((pieces, encoder)))));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn headers(accept: &[&str]) -> HeaderMap {
        accept.iter().map(|a| (header::ACCEPT_ENCODING, HeaderValue::from_str(a).unwrap())).collect()
    }

    #[test]
    fn who_accepts_gzip() {
        for accept in [&["gzip"][..], &["deflate, gzip;q=1.0"], &["br", "x, GZIP ; q=0.5"]] {
            assert!(accepts_gzip(&headers(accept)), "{accept:?}");
        }
        for accept in [&[][..], &["deflate"], &["gzip;q=0"], &["gzip; q=0.000"], &["gzipped"], &["*"]] {
            assert!(!accepts_gzip(&headers(accept)), "{accept:?}");
        }
    }

    #[test]
    fn only_text_is_compressed() {
        let of = |media| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
        assert!(is_text(&of("text/plain; version=0.0.4; charset=utf-8")) && is_text(&of("application/json")));
        assert!(!is_text(&of("application/x-protobuf")) && !is_text(&HeaderMap::new()));
    }

    async fn collect(pieces: Vec<Result<Bytes, axum::Error>>) -> Result<Vec<u8>, io::Error> {
        let out = compressed(stream::iter(pieces));
        let parts: Vec<_> = out.collect().await;
        Ok(parts.into_iter().collect::<Result<Vec<Bytes>, _>>()?.concat())
    }

    proptest! {
        #[test]
        fn pieces_come_out_as_they_went_in(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
        ) {
            let body = pieces.iter().map(|p| Ok(Bytes::from(p.clone()))).collect();
            let packed = futures::executor::block_on(collect(body)).unwrap();
            let mut unpacked = Vec::new();
            GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            prop_assert_eq!(unpacked, pieces.concat());
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_not_ended() {
        let body = vec![Ok(Bytes::from_static(b"half")), Err(axum::Error::new("gone"))];
        assert!(futures::executor::block_on(collect(body)).is_err());
    }
}
