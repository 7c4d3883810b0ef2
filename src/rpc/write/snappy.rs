//! gRPC messages compressed with `grpc-encoding: snappy`, which is snappy's framed format, as Thanos's routers
//! send them by default. A compressed call is opened here and handed on as an uncompressed one.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use tonic::Status;
use tonic::body::Body;

const ENCODING: &str = "grpc-encoding";
/// One flag byte and the message's length.
const PREFIX: usize = 5;

/// Gives back the call with its one message uncompressed, of at most `max` bytes; other calls pass untouched.
pub(crate) async fn open(request: http::Request<Body>, max: usize) -> Result<http::Request<Body>, Status> {
    let snappy =
        request.headers().get(ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"snappy"));
    if !snappy {
        return Ok(request);
    }
    let (mut head, body) = request.into_parts();
    let whole = Limited::new(body, max + PREFIX).collect().await;
    let whole =
        whole.map_err(|error| Status::resource_exhausted(format!("request body: {error}")))?.to_bytes();
    let opened = if whole.len() > (64 << 10) {
        let work = tokio::task::spawn_blocking(move || reframe(whole, max));
        work.await.map_err(|error| Status::internal(format!("opening a write: {error}")))?
    } else {
        reframe(whole, max)
    };
    head.headers.remove(ENCODING);
    Ok(http::Request::from_parts(head, Body::new(Full::new(opened?))))
}

fn reframe(framed: Bytes, max: usize) -> Result<Bytes, Status> {
    let short = || Status::invalid_argument("grpc message is cut short");
    let (prefix, message) = framed.split_first_chunk::<PREFIX>().ok_or_else(short)?;
    let declared = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if declared != message.len() {
        return Err(short());
    }
    if prefix[0] == 0 {
        return Ok(framed);
    }
    // The framed format declares no whole size; reading stops at one byte too many.
    let mut opened = Vec::new();
    snap::read::FrameDecoder::new(message)
        .take(max as u64 + 1)
        .read_to_end(&mut opened)
        .map_err(|error| Status::invalid_argument(format!("message is not framed snappy: {error}")))?;
    if opened.len() > max {
        return Err(Status::resource_exhausted(format!("write request too large: more than {max} bytes")));
    }
    let mut out = BytesMut::with_capacity(PREFIX + opened.len());
    out.put_u8(0);
    out.put_u32(opened.len() as u32);
    out.extend_from_slice(&opened);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Bytes {
        let mut out = vec![flag];
        out.extend_from_slice(&(message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
        out.into()
    }

    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.into_inner().unwrap()
    }

    #[test]
    fn opens_and_bounds() {
        let plain = vec![7u8; 100_000];
        assert_eq!(reframe(framed(1, &pack(&plain)), 1 << 20).unwrap(), framed(0, &plain));
        assert_eq!(reframe(framed(0, b"abc"), 10).unwrap(), framed(0, b"abc"));
        let error = reframe(framed(1, &pack(&plain)), 1000).unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(reframe(framed(1, b"junk"), 1000).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = reframe(body.into(), 1000);
        }
    }
}
