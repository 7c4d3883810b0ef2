//! Bodies from the network: compressed, of both versions of remote write, between receivers, and recognised.

use std::cell::RefCell;

use prost::Message;
use wire::pb::io::prometheus::write::v2::Request;
use wire::pb::prometheus::WriteRequest;
use wire::remote_write::{
    DecodedV1, DecodedV2, Limits, PeerWrite, decode_peer, decode_v1, decode_v2, decompress,
};

/// What decompresses is what another decoder makes of it; what is refused, is not for its content.
pub fn snappy(body: &[u8]) {
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let mut scratch = Vec::new();
    let ours = decompress(body, &limits, &mut scratch);
    let declared = snap::raw::decompress_len(body).unwrap_or(usize::MAX);
    if declared <= limits.max_bytes {
        match (ours, snap::raw::Decoder::new().decompress_vec(body)) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
            (Ok(_), Err(error)) => panic!("decompressed what another decoder refuses: {error}"),
            (Err(error), Ok(_)) => assert_eq!(error.kind, model::Kind::Refused, "{error}"),
            (Err(_), Err(_)) => {}
        }
    } else {
        assert!(ours.is_err());
    }
}

/// Version 1.0, decompressed: never a panic, never stricter than a protobuf library.
pub fn remote_write(body: &[u8]) {
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
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
}

/// Version 2.0, decompressed: as 1.0, and every series, histogram and exemplar is there.
pub fn remote_write_v2(body: &[u8]) {
    let mut out = DecodedV2::default();
    let read = decode_v2(body, &Limits::default(), &mut out);
    if let Ok(theirs) = Request::decode(body) {
        assert!(read.is_ok(), "{read:?}");
        assert_eq!(out.columns.series().len(), theirs.timeseries.len());
        for (ours, theirs) in out.columns.series().iter().zip(&theirs.timeseries) {
            assert_eq!(ours.samples().len(), theirs.samples.len());
            assert_eq!(out.columns.histograms_of(ours).len(), theirs.histograms.len());
            assert_eq!(out.columns.exemplars_of(ours).len(), theirs.exemplars.len());
            for (at, sample) in ours.samples().zip(&theirs.samples) {
                assert_eq!(out.start_timestamp(at), sample.start_timestamp);
            }
        }
    }
    let mut canonical = Vec::new();
    for series in out.columns.series() {
        let _ = out.columns.canonical(series, body, &mut canonical);
        for histogram in out.columns.histograms_of(series) {
            if let Ok(histogram) = &histogram.histogram {
                assert_eq!(histogram.check(), Ok(()));
            }
        }
        for exemplar in out.columns.exemplars_of(series) {
            out.columns.exemplar_labels(exemplar, body).for_each(drop);
        }
    }
    for entry in out.columns.metadata() {
        let _ = out.columns.metadata_texts(entry, body);
    }
}

/// Frames between receivers of ours.
pub fn peer_frames(bytes: &[u8]) {
    rpc::peer::proof::any_frame(bytes);
}

/// Calls between receivers, in either shape.
pub fn peer_write(body: &[u8]) {
    let mut out = PeerWrite::default();
    if decode_peer(body, &Limits::default(), &mut out).is_ok() {
        let mut canonical = Vec::new();
        for series in out.groups().flat_map(|(_, series)| series) {
            let _ = out.columns.canonical(series, body, &mut canonical);
        }
    }
}

thread_local! {
    /// Kept over inputs, as in life: what one body taught is used for the next.
    static DOOR: RefCell<(receive::proof::Door, u64)> = RefCell::new((receive::proof::Door::new(), 0));
}

/// A sequence of plain bodies, each read in full and with its series recognised: the same rows, faults and errors.
/// A body is a byte of flags (tenant, labels, handles, sent once more, another one's bytes changed), two of length, and its bytes.
pub fn recognised(bytes: &[u8]) {
    DOOR.with_borrow_mut(|(door, runs)| {
        *runs += 1;
        if runs.is_multiple_of(2000) {
            door.forget();
        }
        let mut rest = bytes;
        let mut before: &[u8] = &[];
        while let [flags, low, high, tail @ ..] = rest {
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
            let (body, tail) = tail.split_at(len);
            rest = tail;
            let tenant = if flags & 1 == 0 { "a" } else { "b" };
            let (labels, handles) = (flags & 2 != 0, flags & 4 != 0);
            door.check(tenant, body, labels, handles);
            if flags & 8 != 0 {
                door.check(tenant, body, !labels, handles);
            }
            if flags & 16 != 0 {
                // Series that were met just now, behind others and in another order.
                door.check(tenant, &[body, before].concat(), labels, handles);
            }
            before = body;
        }
    });
}
