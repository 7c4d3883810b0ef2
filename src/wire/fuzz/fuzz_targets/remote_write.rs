//! Door bodies: opening and reading never panics, and is never stricter than a protobuf library.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use wire::pb::prometheus::WriteRequest;
use wire::remote_write::{DecodedV1, Limits, decode_v1, decompress};

fuzz_target!(|body: &[u8]| {
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let _ = decompress(body, &limits, &mut Vec::new());
    let mut out = DecodedV1::default();
    let read = decode_v1(body, &limits, &mut out);
    if let Ok(theirs) = WriteRequest::decode(body) {
        assert!(read.is_ok() || theirs.timeseries.len() > limits.max_series);
        assert!(read.is_err() || out.series().len() == theirs.timeseries.len());
    }
    let mut canonical = Vec::new();
    for series in out.series() {
        let _ = out.canonical(series, body, &mut canonical);
    }
});
