//! The hand-walked decoder against a protobuf library: the same on whatever the library accepts, calm on the rest.

mod common;

use std::ops::Range;

use model::{Kind, Labels, Sample};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use wire::pb::prometheus as pb;
use wire::remote_write::{
    DecodedV1, LabelFault, Limits, SeriesFault, compress, decode_v1, decompress, encode_v1,
};

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-z_]{0,8}", 1 => "[a-zé\n ]{0,6}", 1 => "[a-z]{120,140}"]
}

fn any_labels() -> impl Strategy<Value = Vec<pb::Label>> {
    vec((any_text(), any_text()).prop_map(|(name, value)| pb::Label { name, value }), 0..6)
}

fn any_sample() -> impl Strategy<Value = pb::Sample> {
    (any::<f64>(), any::<i64>()).prop_map(|(value, timestamp)| pb::Sample { value, timestamp })
}

fn any_request() -> impl Strategy<Value = pb::WriteRequest> {
    let exemplar = (any_labels(), any::<f64>(), any::<i64>())
        .prop_map(|(labels, value, timestamp)| pb::Exemplar { labels, value, timestamp });
    let series =
        (any_labels(), vec(any_sample(), 0..5), vec(exemplar, 0..2), vec(common::any_histogram(), 0..2))
            .prop_map(|(labels, samples, exemplars, histograms)| pb::TimeSeries {
                labels,
                samples,
                exemplars,
                histograms,
            });
    let metadata =
        (0i32..9, any_text(), any_text(), any_text()).prop_map(|(r#type, help, unit, metric_family_name)| {
            pb::MetricMetadata { r#type, help, unit, metric_family_name }
        });
    (vec(series, 0..6), vec(metadata, 0..3))
        .prop_map(|(timeseries, metadata)| pb::WriteRequest { timeseries, metadata })
}

/// What the library read must be what we read.
fn assert_same(body: &[u8], theirs: &pb::WriteRequest) {
    let mut ours = DecodedV1::default();
    decode_v1(body, &Limits::default(), &mut ours).unwrap();
    assert_eq!(ours.series().len(), theirs.timeseries.len());
    assert_eq!(ours.metadata_count() as usize, theirs.metadata.len());
    for (entry, theirs) in ours.metadata().iter().zip(&theirs.metadata) {
        let texts = (Some(theirs.metric_family_name.as_str()), theirs.help.as_str(), theirs.unit.as_str());
        assert_eq!(ours.metadata_texts(entry, body), Some(texts));
        assert_eq!(i32::from(entry.kind), if theirs.r#type <= 7 { theirs.r#type } else { 0 });
    }
    for (series, theirs) in ours.series().iter().zip(&theirs.timeseries) {
        assert_eq!(series.fault, None);
        assert_eq!(series.histograms as usize, theirs.histograms.len());
        assert_eq!(series.exemplars as usize, theirs.exemplars.len());
        let labels: Vec<_> = ours.labels(series, body).collect();
        let expected: Vec<_> =
            theirs.labels.iter().map(|l| (l.name.as_bytes(), l.value.as_bytes())).collect();
        assert_eq!(labels, expected);
        let samples: Vec<_> =
            theirs.samples.iter().map(|s| Sample { timestamp: s.timestamp, value: s.value }).collect();
        assert_eq!(ours.samples_of(series), samples);
        for (ours, theirs) in ours.histograms_of(series).iter().zip(&theirs.histograms) {
            common::assert_same_histogram(ours, theirs, 0);
        }
        for (exemplar, theirs) in ours.exemplars_of(series).iter().zip(&theirs.exemplars) {
            assert_eq!(
                (exemplar.timestamp, exemplar.value.to_bits()),
                (theirs.timestamp, theirs.value.to_bits())
            );
            let expected = theirs.labels.iter().map(|l| (l.name.as_bytes(), l.value.as_bytes()));
            assert!(ours.exemplar_labels(exemplar, body).eq(expected));
            assert_eq!(exemplar.fault, None);
        }
        // The canonical form is the one that the model makes of the same pairs, or both refuse.
        let mut canonical = Vec::new();
        let made = Labels::from_pairs(theirs.labels.iter().map(|l| (&l.name, &l.value)));
        match (ours.canonical(series, body, &mut canonical), made) {
            (Ok(()), Ok(labels)) => assert_eq!(canonical, labels.as_bytes()),
            (Err(LabelFault::None), Ok(labels)) => assert!(labels.is_empty()),
            (Err(_), Err(_)) => {}
            (ours, made) => panic!("{ours:?} but {made:?}"),
        }
    }
}

fn field(number: u32, wire: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint((number << 3 | wire) as u64, &mut out);
    if wire == 2 {
        prost::encoding::encode_varint(content.len() as u64, &mut out);
    }
    out.extend_from_slice(content);
    out
}

/// Fields that no version of the message has.
fn any_unknown() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(|bytes| field(100, 2, &bytes)),
        any::<u64>().prop_map(|n| field(101, 1, &n.to_le_bytes())),
        any::<u32>().prop_map(|n| field(5000, 5, &n.to_le_bytes())),
        Just(field(77, 0, &[0xff, 0x01])),
        // A group with a field inside.
        Just([field(50, 3, &[]), field(1, 0, &[9]), field(50, 4, &[])].concat()),
    ]
}

proptest! {
    #[test]
    fn equals_the_library(request in any_request()) {
        // The library leaves out a value of -0, as every proto3 writer does.
        let body = request.encode_to_vec();
        assert_same(&body, &pb::WriteRequest::decode(&body[..]).unwrap());
    }

    #[test]
    fn odd_forms_equal_the_library(
        parts in vec((0..6u32, any_unknown(), any_labels(), vec(any_sample(), 0..3)), 0..6),
    ) {
        // Series whose labels, samples and unknown fields are interleaved, with numbers longer than needed.
        let mut body = Vec::new();
        for (form, unknown, labels, samples) in parts {
            let mut series = Vec::new();
            let mut labels = labels.iter().map(|l| field(1, 2, &[unknown.clone(), l.encode_to_vec()].concat()));
            for sample in &samples {
                series.extend(labels.next().unwrap_or_default());
                let mut message = sample.encode_to_vec();
                if form % 2 == 0 {
                    // Said twice: the last one counts.
                    message.extend(field(2, 0, &[0x85, 0x80, 0x80, 0x00]));
                    message.extend(&unknown);
                }
                series.extend(field(2, 2, &message));
                if form > 2 {
                    series.extend(&unknown);
                }
            }
            labels.for_each(|l| series.extend(l));
            body.extend(&unknown);
            body.extend(field(1, 2, &series));
        }
        let theirs = pb::WriteRequest::decode(&body[..]).unwrap();
        assert_same(&body, &theirs);
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..300)) {
        let mut ours = DecodedV1::default();
        let read = decode_v1(&body, &Limits::default(), &mut ours);
        // We may be more lenient than the library (texts, messages that we only count), never stricter.
        if pb::WriteRequest::decode(&body[..]).is_ok() {
            prop_assert!(read.is_ok(), "{:?}", read);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        request in any_request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut body = request.encode_to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
            if cut {
                body.truncate(at);
            }
        }
        let mut ours = DecodedV1::default();
        let read = decode_v1(&body, &Limits::default(), &mut ours);
        if let Ok(theirs) = pb::WriteRequest::decode(&body[..]) {
            prop_assert!(read.is_ok());
            assert_same(&body, &theirs);
        }
        let mut canonical = Vec::new();
        for series in ours.series().to_vec() {
            let _ = ours.canonical(&series, &body, &mut canonical);
        }
    }

    #[test]
    fn what_we_encode_the_library_reads(series in vec((vec(("[a-z]{1,3}", any_text()), 0..4), vec((any::<i64>(), any::<f64>()), 0..4)), 0..5)) {
        let mut body = Vec::new();
        let rows = series.iter().map(|(labels, samples)| (
            labels.iter().map(|(n, v)| (n.as_str(), v.as_str())),
            samples.iter().map(|&(timestamp, value)| Sample { timestamp, value }),
        ));
        encode_v1(rows, &mut body);
        let theirs = pb::WriteRequest::decode(&body[..]).unwrap();
        prop_assert_eq!(theirs.timeseries.len(), series.len());
        assert_same(&body, &theirs);
        let mut scratch = Vec::new();
        let packed = compress(&body).unwrap();
        prop_assert_eq!(decompress(&packed, &Limits::default(), &mut scratch).unwrap(), &body[..]);
    }
}

fn decoded(body: &[u8], limits: &Limits) -> Result<DecodedV1, wire::WireError> {
    let mut out = DecodedV1::default();
    decode_v1(body, limits, &mut out).map(|()| out)
}

#[test]
fn bad_text_spoils_its_series_only() {
    let good = field(1, 2, &[field(1, 2, b"a"), field(2, 2, b"1")].concat());
    let bad = field(1, 2, &[field(1, 2, b"a"), field(2, 2, b"\xff\xfe")].concat());
    let sample = field(2, 2, &pb::Sample { value: 1.0, timestamp: 5 }.encode_to_vec());
    let body = [field(1, 2, &[bad, sample.clone()].concat()), field(1, 2, &[good, sample].concat())].concat();
    let out = decoded(&body, &Limits::default()).unwrap();
    let faults: Vec<_> = out.series().iter().map(|s| s.fault).collect();
    assert_eq!(faults, [Some(SeriesFault::Utf8), None]);
    assert_eq!(out.samples().len(), 2);
    let mut canonical = Vec::new();
    assert_eq!(out.canonical(&out.series()[0], &body, &mut canonical), Err(LabelFault::Utf8));
    assert_eq!(out.canonical(&out.series()[1], &body, &mut canonical), Ok(()));
    assert_eq!(canonical, b"\x01a\x011");
}

#[test]
fn limits_hold() {
    // Two bytes a series: sixteen million would fit into 32 MiB.
    let flood = field(1, 2, &[]).repeat(11);
    let limits = Limits { max_series: 10, max_labels: 2, ..Limits::default() };
    let error = decoded(&flood, &limits).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("more than 10 series"), "{error}");

    let label = field(1, 2, &[field(1, 2, b"a"), field(2, 2, b"1")].concat());
    let body = field(1, 2, &label.repeat(3));
    let out = decoded(&body, &limits).unwrap();
    assert_eq!((out.series()[0].fault, out.series()[0].label_count()), (Some(SeriesFault::TooManyLabels), 2));
    let mut canonical = Vec::new();
    assert_eq!(out.canonical(&out.series()[0], &body, &mut canonical), Err(LabelFault::TooMany(2)));
}

#[test]
fn errors_say_what_and_where() {
    for (body, what) in [
        (&b"\x0a"[..], "cut short in a number at byte 1"),
        (b"\x0a\x05\x0a", "cut short in a field at byte 1"),
        (b"\x08\x01", "a time series as Varint instead of Bytes"),
        (b"\x0f", "unknown wire type 7 at byte 0"),
        (b"\x00", "impossible key 0 at byte 0"),
        (b"\x0a\x04\x12\x02\x09\x00", "cut short in a fixed number"),
        (b"\x14", "ends a group never begun"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "more than 64 bits"),
    ] {
        let error = decoded(body, &Limits::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.contains(what), "{error}");
    }
    // Nested deeper than any sender nests.
    assert!(decoded(&field(9, 3, &[]).repeat(500), &Limits::default()).is_err());
}

#[test]
fn raw_labels_are_one_piece_or_nothing() {
    let label = field(1, 2, &[field(1, 2, b"a"), field(2, 2, b"1")].concat());
    let other = field(1, 2, &[field(1, 2, b"b"), field(2, 2, b"1")].concat());
    let sample = field(2, 2, &pb::Sample { value: 1.0, timestamp: 5 }.encode_to_vec());
    let raw = |parts: &[&[u8]]| -> (Range<usize>, Vec<u8>) {
        let body = field(1, 2, &parts.concat());
        let range = decoded(&body, &Limits::default()).unwrap().series()[0].raw_labels();
        (range.clone(), body[range].to_vec())
    };
    assert_eq!(raw(&[&label, &other, &sample]).1, [&label[..], &other].concat());
    assert_eq!(raw(&[&sample, &label, &other]).1, [&label[..], &other].concat());
    assert!(raw(&[&label, &sample, &other]).0.is_empty());
    assert!(raw(&[&sample]).0.is_empty());
}

#[test]
fn buffers_are_reused() {
    let mut body = Vec::new();
    let row = |n: i64| ([("__name__", "up"), ("job", "x")], [Sample { timestamp: n, value: 1.0 }]);
    encode_v1((0..500).map(row), &mut body);
    let mut out = DecodedV1::default();
    decode_v1(&body, &Limits::default(), &mut out).unwrap();
    let held = out.capacity_bytes();
    for _ in 0..10 {
        decode_v1(&body, &Limits::default(), &mut out).unwrap();
    }
    assert_eq!((out.capacity_bytes(), out.samples().len()), (held, 500));
}
