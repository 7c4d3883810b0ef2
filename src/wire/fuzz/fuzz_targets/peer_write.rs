//! Writes between receivers: reading never panics, in either shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::remote_write::{Limits, PeerWrite, decode_peer};

fuzz_target!(|body: &[u8]| {
    let mut out = PeerWrite::default();
    if decode_peer(body, &Limits::default(), &mut out).is_ok() {
        let mut canonical = Vec::new();
        for series in out.groups().flat_map(|(_, series)| series) {
            let _ = out.columns.canonical(series, body, &mut canonical);
        }
    }
});
