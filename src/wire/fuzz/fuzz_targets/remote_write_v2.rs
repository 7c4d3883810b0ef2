//! Bodies of version 2.0: reading never panics, is never stricter than a protobuf library, and every series, histogram and
//! exemplar is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use wire::pb::io::prometheus::write::v2::Request;
use wire::remote_write::{DecodedV2, Limits, decode_v2};

fuzz_target!(|body: &[u8]| {
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
});
