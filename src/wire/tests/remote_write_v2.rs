//! Version 2.0 by its rules, one test each, and against a protobuf library.

mod common;

use model::histogram::{CUSTOM_BUCKETS, Native};
use model::{InvalidHistogram, Kind, Labels, Sample, stale_nan};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use wire::WireError;
use wire::pb::io::prometheus::write::v2 as pb;
use wire::pb::prometheus as v1;
use wire::remote_write::{
    DecodedV1, DecodedV2, LabelFault, Limits, SeriesFault, compress, decode_v1, decode_v2, decompress,
};

/// Builds requests as a sender does: a table of texts, the empty one first.
#[derive(Default)]
struct Symbols(Vec<String>);

impl Symbols {
    fn at(&mut self, text: &str) -> u32 {
        if self.0.is_empty() {
            self.0.push(String::new());
        }
        let at = self.0.iter().position(|s| s == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        at as u32
    }

    fn labels(&mut self, pairs: &[(&str, &str)]) -> Vec<u32> {
        pairs.iter().flat_map(|(n, v)| [self.at(n), self.at(v)]).collect()
    }

    fn request(self, timeseries: Vec<pb::TimeSeries>) -> Vec<u8> {
        pb::Request { symbols: self.0, timeseries }.encode_to_vec()
    }
}

fn sample(timestamp: i64, value: f64) -> pb::Sample {
    pb::Sample { timestamp, value, start_timestamp: 0 }
}

fn one(labels_refs: Vec<u32>) -> pb::TimeSeries {
    pb::TimeSeries { labels_refs, samples: vec![sample(7, 1.0)], ..Default::default() }
}

fn decoded(body: &[u8]) -> DecodedV2 {
    let mut out = DecodedV2::default();
    decode_v2(body, &Limits::default(), &mut out).unwrap();
    out
}

fn refused(body: &[u8], limits: &Limits) -> WireError {
    decode_v2(body, limits, &mut DecodedV2::default()).unwrap_err()
}

/// Labels of each series, or why there are none.
fn labels(out: &DecodedV2, body: &[u8]) -> Vec<Result<Labels, LabelFault>> {
    let mut canonical = Vec::new();
    let each = out.columns.series().iter().map(|series| {
        out.columns.canonical(series, body, &mut canonical)?;
        let pairs = out.columns.labels(series, body);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let labels = Labels::from_pairs(pairs.map(|(n, v)| (text(n), text(v)))).unwrap();
        assert_eq!(labels.as_bytes(), canonical);
        Ok(labels)
    });
    each.collect()
}

fn set(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

#[test]
fn labels_in_any_order_are_sorted() {
    let mut s = Symbols::default();
    let pairs = [("job", "api"), ("__name__", "up"), ("instance", "a")];
    let series = one(s.labels(&pairs));
    let body = s.request(vec![series]);
    let out = decoded(&body);
    assert_eq!(labels(&out, &body), [Ok(set(&pairs))]);
    assert_eq!(out.columns.samples(), [Sample { timestamp: 7, value: 1.0 }]);
}

#[test]
fn an_odd_number_of_references_spoils_its_series_only() {
    let mut s = Symbols::default();
    let good = one(s.labels(&[("__name__", "up")]));
    let mut odd = one(s.labels(&[("__name__", "down")]));
    odd.labels_refs.push(1);
    let body = s.request(vec![odd, good]);
    let out = decoded(&body);
    assert_eq!(labels(&out, &body), [Err(LabelFault::OddReferences), Ok(set(&[("__name__", "up")]))]);
    assert_eq!(out.columns.samples_of(&out.columns.series()[1]), [Sample { timestamp: 7, value: 1.0 }]);
}

#[test]
fn a_reference_out_of_range_spoils_its_series_only() {
    let mut s = Symbols::default();
    let good = one(s.labels(&[("__name__", "up")]));
    let body = s.request(vec![one(vec![1, 3]), one(vec![u32::MAX, 1]), good]);
    let out = decoded(&body);
    let got = labels(&out, &body);
    assert_eq!(got[..2], [Err(LabelFault::LabelReference), Err(LabelFault::LabelReference)]);
    assert_eq!(got[2], Ok(set(&[("__name__", "up")])));
}

#[test]
fn duplicate_label_names_spoil_their_series() {
    let mut s = Symbols::default();
    let series = one(s.labels(&[("__name__", "up"), ("a", "1"), ("a", "2")]));
    let body = s.request(vec![series]);
    let out = decoded(&body);
    assert_eq!(labels(&out, &body), [Err(LabelFault::Duplicate("a".to_owned()))]);
}

#[test]
fn an_empty_value_is_an_absent_label() {
    let mut s = Symbols::default();
    let series = one(s.labels(&[("__name__", "up"), ("zone", "")]));
    let body = s.request(vec![series]);
    let out = decoded(&body);
    let mut canonical = Vec::new();
    out.columns.canonical(&out.columns.series()[0], &body, &mut canonical).unwrap();
    assert_eq!(canonical, set(&[("__name__", "up")]).as_bytes());
}

#[test]
fn without_labels_or_with_an_empty_name() {
    let mut s = Symbols::default();
    let unnamed = one(s.labels(&[("", "x")]));
    let body = s.request(vec![one(vec![]), unnamed]);
    let out = decoded(&body);
    assert_eq!(labels(&out, &body), [Err(LabelFault::None), Err(LabelFault::EmptyName)]);
}

#[test]
fn utf8_names_with_dots_spaces_and_emoji_are_taken() {
    let mut s = Symbols::default();
    let pairs = [("__name__", "http.server duration"), ("k8s.pod name", "line\nbreak"), ("é", "🎉")];
    let series = one(s.labels(&pairs));
    let body = s.request(vec![series]);
    assert_eq!(labels(&decoded(&body), &body), [Ok(set(&pairs))]);
}

#[test]
fn a_symbol_that_is_not_utf8_spoils_who_uses_it() {
    let symbol = |text: &[u8]| [&[4 << 3 | 2, text.len() as u8], text].concat();
    let series =
        |refs: &[u8]| [&[5 << 3 | 2, refs.len() as u8 + 2, 1 << 3 | 2, refs.len() as u8], refs].concat();
    let texts = [&b""[..], b"__name__", b"up", b"\xff"].map(symbol).concat();
    let body = [texts, series(&[1, 2]), series(&[1, 3])].concat();
    let out = decoded(&body);
    let faults: Vec<_> = out.columns.series().iter().map(|s| s.fault).collect();
    assert_eq!(faults, [None, Some(SeriesFault::Utf8)]);
}

#[test]
fn created_timestamps_in_the_old_place_are_ignored() {
    let mut s = Symbols::default();
    let mut series = one(s.labels(&[("__name__", "up")])).encode_to_vec();
    series.extend([6 << 3, 0xff, 0x01]);
    let mut body = s.request(vec![]);
    body.extend([5 << 3 | 2, series.len() as u8]);
    body.extend(series);
    let out = decoded(&body);
    assert_eq!(out.columns.samples(), [Sample { timestamp: 7, value: 1.0 }]);
    assert_eq!(out.start_timestamp(0), 0);
}

#[test]
fn start_timestamps_stand_beside_their_samples() {
    let mut s = Symbols::default();
    let labels_refs = s.labels(&[("__name__", "up")]);
    let started = |timestamp, start_timestamp| pb::Sample { timestamp, value: 1.0, start_timestamp };
    let histograms = vec![pb::Histogram { timestamp: 9, start_timestamp: 4, ..Default::default() }];
    let first = pb::TimeSeries {
        labels_refs: labels_refs.clone(),
        samples: vec![sample(1, 0.0), started(2, -5)],
        ..Default::default()
    };
    let second = pb::TimeSeries {
        labels_refs,
        samples: vec![sample(3, 0.0), started(4, 3), sample(5, 0.0)],
        histograms,
        ..Default::default()
    };
    let body = s.request(vec![first, second]);
    let mut out = decoded(&body);
    let starts: Vec<_> = (0..6).map(|at| out.start_timestamp(at)).collect();
    assert_eq!(starts, [0, -5, 0, 3, 0, 0]);
    assert_eq!(out.columns.histograms_of(&out.columns.series()[1])[0].start_timestamp, 4);
    // And they do not outlive their request.
    decode_v2(&[], &Limits::default(), &mut out).unwrap();
    assert_eq!(out.start_timestamp(1), 0);
}

#[test]
fn metadata_of_every_type() {
    let mut s = Symbols::default();
    let series: Vec<_> = (0..9)
        .map(|r#type| pb::TimeSeries {
            metadata: Some(pb::Metadata { r#type, help_ref: s.at("what\nit is"), unit_ref: s.at("seconds") }),
            ..one(s.labels(&[("__name__", "up")]))
        })
        .collect();
    let body = s.request(series);
    let out = decoded(&body);
    let kinds: Vec<_> = out.columns.metadata().iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 5, 6, 7, 0]);
    for entry in out.columns.metadata() {
        let texts = (Some("up"), "what\nit is", "seconds");
        assert_eq!(out.columns.metadata_texts(entry, &body), Some(texts));
    }
}

#[test]
fn a_metadata_reference_out_of_range_spoils_its_series() {
    let mut s = Symbols::default();
    let refs = s.labels(&[("__name__", "up")]);
    let series = |help_ref, unit_ref| pb::TimeSeries {
        metadata: Some(pb::Metadata { r#type: 1, help_ref, unit_ref }),
        ..one(refs.clone())
    };
    let body = s.request(vec![series(3, 0), series(0, 99), series(0, 0)]);
    let out = decoded(&body);
    let got = labels(&out, &body);
    assert_eq!(got[..2], [Err(LabelFault::MetadataReference), Err(LabelFault::MetadataReference)]);
    assert!(got[2].is_ok());
    assert_eq!(out.columns.metadata_count(), 1);
}

#[test]
fn metadata_or_exemplars_without_data_are_seen() {
    let mut s = Symbols::default();
    let metadata = Some(pb::Metadata { r#type: 1, help_ref: 0, unit_ref: 0 });
    let bare = pb::TimeSeries { labels_refs: s.labels(&[("__name__", "up")]), ..Default::default() };
    let exemplars =
        vec![pb::Exemplar { labels_refs: s.labels(&[("trace_id", "x")]), value: 1.0, timestamp: 5 }];
    let body =
        s.request(vec![pb::TimeSeries { metadata, ..bare.clone() }, pb::TimeSeries { exemplars, ..bare }]);
    let out = decoded(&body);
    let counts: Vec<_> =
        out.columns.series().iter().map(|s| (s.samples().len(), s.histograms, s.exemplars)).collect();
    assert_eq!(counts, [(0, 0, 0), (0, 0, 1)]);
}

#[test]
fn exemplars_with_any_labels_and_with_none() {
    let mut s = Symbols::default();
    let list = [&[][..], &[("trace_id", "abc"), ("span_id", "é\"🎉")], &[("other", "")]];
    let values = [0.0, -123.456, f64::INFINITY];
    let exemplars = list.iter().zip(values).map(|(labels, value)| pb::Exemplar {
        labels_refs: s.labels(labels),
        value,
        timestamp: 5,
    });
    let exemplars = exemplars.collect();
    let series = pb::TimeSeries { exemplars, ..one(s.labels(&[("__name__", "up")])) };
    let body = s.request(vec![series]);
    let out = decoded(&body);
    let read = out.columns.exemplars_of(&out.columns.series()[0]);
    assert_eq!(read.len(), 3);
    for ((exemplar, labels), value) in read.iter().zip(list).zip(values) {
        let expected = labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        assert!(out.columns.exemplar_labels(exemplar, &body).eq(expected));
        assert_eq!((exemplar.value, exemplar.timestamp, exemplar.fault), (value, 5, None));
    }
}

#[test]
fn bad_references_of_an_exemplar_spoil_the_exemplar_only() {
    let mut s = Symbols::default();
    let exemplar = |labels_refs| pb::Exemplar { labels_refs, value: 1.0, timestamp: 5 };
    let exemplars =
        vec![exemplar(vec![1]), exemplar(vec![1, 77]), exemplar(vec![1, 2]), exemplar(vec![1; 200])];
    let series = pb::TimeSeries { exemplars, ..one(s.labels(&[("__name__", "up")])) };
    let body = s.request(vec![series]);
    let out = decoded(&body);
    let series = &out.columns.series()[0];
    let faults: Vec<_> = out.columns.exemplars_of(series).iter().map(|e| e.fault).collect();
    let expected = [SeriesFault::OddReferences, SeriesFault::LabelReference].map(Some);
    assert_eq!((&faults[..2], faults[2], faults[3]), (&expected[..], None, Some(SeriesFault::TooManyLabels)));
    assert_eq!(series.fault, None);
}

#[test]
fn samples_and_histograms_of_one_series_are_both_read() {
    let mut s = Symbols::default();
    let histograms = vec![pb::Histogram { timestamp: 9, ..Default::default() }];
    let series = pb::TimeSeries { histograms, ..one(s.labels(&[("__name__", "up")])) };
    let body = s.request(vec![series]);
    let out = decoded(&body);
    let series = &out.columns.series()[0];
    assert_eq!((series.samples().len(), series.histograms), (1, 1));
}

fn read_histogram(h: pb::Histogram) -> Result<Native, InvalidHistogram> {
    let mut s = Symbols::default();
    let labels_refs = s.labels(&[("__name__", "h")]);
    let body = s.request(vec![pb::TimeSeries { labels_refs, histograms: vec![h], ..Default::default() }]);
    let out = decoded(&body);
    out.columns.histograms_of(&out.columns.series()[0])[0].histogram.clone()
}

fn span(offset: i32, length: u32) -> pb::BucketSpan {
    pb::BucketSpan { offset, length }
}

#[test]
fn whole_histograms_of_every_shape() {
    let zero_only = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(3)),
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountInt(3)),
        zero_threshold: 0.001,
        ..Default::default()
    };
    let positive = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(6)),
        sum: 4.5,
        schema: 3,
        positive_spans: vec![span(-2, 1), span(3, 1)],
        positive_deltas: vec![2, 2],
        ..Default::default()
    };
    let negative = pb::Histogram {
        negative_spans: positive.positive_spans.clone(),
        negative_deltas: vec![2, 2],
        positive_spans: vec![],
        positive_deltas: vec![],
        ..positive.clone()
    };
    for h in [pb::Histogram::default(), zero_only, positive, negative] {
        assert!(matches!(read_histogram(h), Ok(Native::Whole(_))));
    }
}

#[test]
fn custom_buckets_with_one_span_over_six_bounds() {
    let custom_values = vec![0.1, 0.5, 1.0, 2.5, 5.0, 10.0];
    let h = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(21)),
        sum: 30.0,
        schema: CUSTOM_BUCKETS,
        positive_spans: vec![span(0, 6)],
        positive_deltas: vec![1, 1, 1, 1, 1, 1],
        custom_values,
        ..Default::default()
    };
    let Ok(Native::Whole(read)) = read_histogram(h.clone()) else { panic!("{h:?}") };
    assert_eq!(*read.custom_values, [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]);
    let bent = pb::Histogram { custom_values: vec![0.1, 0.5, 0.5, 2.5, 5.0, 10.0], ..h };
    assert!(matches!(read_histogram(bent), Err(InvalidHistogram::Bounds { .. })));
}

#[test]
fn a_count_that_is_not_the_sum_of_the_buckets_is_refused() {
    let h = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(99)),
        positive_spans: vec![span(0, 2)],
        positive_deltas: vec![11, 1],
        ..Default::default()
    };
    assert_eq!(read_histogram(h), Err(InvalidHistogram::Count { in_buckets: 23, count: 99 }));
}

#[test]
fn a_float_histogram_with_a_count_of_zero_is_a_float_histogram() {
    let h = pb::Histogram { count: Some(pb::histogram::Count::CountFloat(0.0)), ..Default::default() };
    assert!(matches!(read_histogram(h), Ok(Native::Float(_))));
    let negative =
        pb::Histogram { count: Some(pb::histogram::Count::CountFloat(-1.0)), ..Default::default() };
    assert_eq!(read_histogram(negative), Err(InvalidHistogram::NegativeCount(-1.0)));
}

#[test]
fn a_stale_marker_needs_nothing_else() {
    let h = pb::Histogram { sum: stale_nan(), schema: 99, positive_deltas: vec![-1], ..Default::default() };
    let Ok(Native::Whole(read)) = read_histogram(h) else { panic!("a stale marker is refused") };
    assert!(read.is_stale() && read.positive_deltas.is_empty() && read.schema == 0);
    // The number that looks like its bits is a number.
    let mut s = Symbols::default();
    let mut series = one(s.labels(&[("__name__", "up")]));
    series.samples = vec![sample(7, 0x7ff0_0000_0000_0002u64 as f64), sample(8, stale_nan())];
    let out = decoded(&s.request(vec![series]));
    let stale: Vec<_> = out.columns.samples().iter().map(|s| model::is_stale(s.value)).collect();
    assert_eq!(stale, [false, true]);
}

#[test]
fn finer_schemas_are_reduced_and_unknown_ones_refused() {
    let h = |schema| pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(4)),
        schema,
        positive_spans: vec![span(1, 2)],
        positive_deltas: vec![2, 0],
        ..Default::default()
    };
    for (sent, stored) in [(-4, -4), (8, 8), (9, 8), (52, 8)] {
        let Ok(Native::Whole(read)) = read_histogram(h(sent)) else { panic!("schema {sent} is refused") };
        assert_eq!((read.schema, read.check()), (stored, Ok(())));
    }
    for schema in [-54, -52, -5, 53, i32::MIN] {
        assert_eq!(read_histogram(h(schema)), Err(InvalidHistogram::Schema(schema)));
    }
}

#[test]
fn an_empty_request_and_the_same_series_twice() {
    assert!(decoded(&[]).columns.series().is_empty());
    let mut s = Symbols::default();
    let refs = s.labels(&[("__name__", "up")]);
    let body = s.request(vec![one(refs.clone()), one(refs)]);
    assert_eq!(decoded(&body).columns.series().len(), 2);
}

#[test]
fn a_body_of_the_other_version_is_empty_never_garbage() {
    let mut s = Symbols::default();
    let series = one(s.labels(&[("__name__", "up")]));
    let two = s.request(vec![series]);
    let mut read = DecodedV1::default();
    decode_v1(&two, &Limits::default(), &mut read).unwrap();
    assert!(read.series().is_empty() && read.samples().is_empty() && read.metadata_count() == 0);
    let label = v1::Label { name: "__name__".to_owned(), value: "up".to_owned() };
    let series =
        v1::TimeSeries { labels: vec![label], samples: vec![v1::Sample::default()], ..Default::default() };
    let metadata = vec![v1::MetricMetadata::default()];
    let one = v1::WriteRequest { timeseries: vec![series], metadata }.encode_to_vec();
    let read = decoded(&one);
    assert!(read.columns.series().is_empty() && read.symbol_count() == 0);
}

#[test]
fn the_table_may_come_last_and_need_not_begin_with_the_empty_text() {
    let symbols = pb::Request { symbols: vec!["__name__".to_owned(), "up".to_owned()], timeseries: vec![] };
    let series = pb::Request { symbols: vec![], timeseries: vec![one(vec![0, 1])] };
    let body = [series.encode_to_vec(), symbols.encode_to_vec()].concat();
    assert_eq!(labels(&decoded(&body), &body), [Ok(set(&[("__name__", "up")]))]);
}

#[test]
fn references_may_come_unpacked_and_in_pieces() {
    let symbols = ["", "__name__", "up", "job", "x"].map(str::to_owned).to_vec();
    let mut body = pb::Request { symbols, timeseries: vec![] }.encode_to_vec();
    // 1, then 2 and 3 packed, then 4 with a longer varint than needed.
    let series = [1 << 3, 1, 1 << 3 | 2, 2, 2, 3, 1 << 3, 0x84, 0x80, 0x00];
    body.extend([5 << 3 | 2, series.len() as u8]);
    body.extend(series);
    assert_eq!(labels(&decoded(&body), &body), [Ok(set(&[("__name__", "up"), ("job", "x")]))]);
}

#[test]
fn limits_hold_as_for_version_one() {
    let field = |key: u8, content: &[u8]| [&[key << 3 | 2, content.len() as u8], content].concat();
    let limits = Limits { max_series: 10, max_labels: 2, ..Limits::default() };
    let error = refused(&field(5, &[]).repeat(11), &limits);
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("more than 10 series"), "{error}");
    assert!(refused(&field(4, &[]).repeat((1 << 20) + 1), &limits).message.contains("symbols"));

    let mut s = Symbols::default();
    let series = one(s.labels(&[("a", "1"), ("b", "1"), ("c", "1")]));
    let body = s.request(vec![series]);
    let mut out = DecodedV2::default();
    decode_v2(&body, &limits, &mut out).unwrap();
    let series = &out.columns.series()[0];
    assert_eq!((series.fault, series.label_count()), (Some(SeriesFault::TooManyLabels), 2));

    // Floods of what takes two bytes on the wire and much more in memory.
    let series = |content: &[u8]| {
        let mut out = vec![5 << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        [&out[..], content].concat()
    };
    for (key, count, word) in [(3, 1 << 17, "histograms"), (4, 1 << 18, "exemplars")] {
        let flood = field(key, &[]).repeat(count + 1);
        let error = refused(&series(&flood), &Limits::default());
        assert!(error.kind == Kind::Refused && error.message.contains(word), "{error}");
    }
    let mut histogram = vec![12 << 3 | 2];
    prost::encoding::encode_varint(5 << 20, &mut histogram);
    histogram.resize(histogram.len() + (5 << 20), 0);
    let mut message = vec![3 << 3 | 2];
    prost::encoding::encode_varint(histogram.len() as u64, &mut message);
    message.extend(histogram);
    let error = refused(&series(&message), &Limits::default());
    assert!(error.kind == Kind::Refused && error.message.contains("buckets"), "{error}");
}

#[test]
fn buffers_are_reused_and_bodies_travel_compressed() {
    let mut s = Symbols::default();
    let series = (0..500).map(|n| one(s.labels(&[("__name__", "up"), ("n", &n.to_string())])));
    let series = series.collect();
    let body = s.request(series);
    let (packed, mut scratch) = (compress(&body).unwrap(), Vec::new());
    let mut out = decoded(decompress(&packed, &Limits::default(), &mut scratch).unwrap());
    let held = out.capacity_bytes();
    for _ in 0..10 {
        decode_v2(&body, &Limits::default(), &mut out).unwrap();
    }
    assert_eq!((out.capacity_bytes(), out.columns.samples().len()), (held, 500));
}

fn any_refs() -> impl Strategy<Value = Vec<u32>> {
    let near = prop_oneof![20 => 0u32..12, 1 => any::<u32>()];
    prop_oneof![
        3 => vec((0u32..10, 0u32..10), 0..5).prop_map(|pairs| pairs.into_iter().flat_map(|(n, v)| [n, v]).collect()),
        1 => vec(near, 0..8),
    ]
}

fn any_request() -> impl Strategy<Value = pb::Request> {
    let sample = (any::<f64>(), any::<i64>(), prop_oneof![2 => Just(0), 1 => any::<i64>()])
        .prop_map(|(value, timestamp, start_timestamp)| pb::Sample { value, timestamp, start_timestamp });
    let exemplar = (any_refs(), any::<f64>(), any::<i64>())
        .prop_map(|(labels_refs, value, timestamp)| pb::Exemplar { labels_refs, value, timestamp });
    let histogram = (common::any_histogram(), any::<i64>()).prop_map(|(h, start_timestamp)| pb::Histogram {
        start_timestamp,
        ..pb::Histogram::decode(&h.encode_to_vec()[..]).unwrap()
    });
    let metadata = (0i32..9, 0u32..12, 0u32..12).prop_map(|(r#type, help_ref, unit_ref)| pb::Metadata {
        r#type,
        help_ref,
        unit_ref,
    });
    let series = (
        any_refs(),
        vec(sample, 0..4),
        vec(histogram, 0..2),
        vec(exemplar, 0..2),
        prop::option::of(metadata),
    )
        .prop_map(|(labels_refs, samples, histograms, exemplars, metadata)| pb::TimeSeries {
            labels_refs,
            samples,
            histograms,
            exemplars,
            metadata,
        });
    (vec("[a-zé]{0,4}", 0..12), vec(series, 0..6))
        .prop_map(|(symbols, timeseries)| pb::Request { symbols, timeseries })
}

/// Labels by the rules, from what the library read.
fn resolve(refs: &[u32], symbols: &[String]) -> Result<Vec<(String, String)>, SeriesFault> {
    let symbol = |at: u32| symbols.get(at as usize).cloned().ok_or(SeriesFault::LabelReference);
    let pairs: Result<Vec<_>, _> = refs.chunks_exact(2).map(|p| Ok((symbol(p[0])?, symbol(p[1])?))).collect();
    let pairs = pairs?;
    if refs.len() % 2 == 1 { Err(SeriesFault::OddReferences) } else { Ok(pairs) }
}

fn assert_same(body: &[u8], theirs: &pb::Request) {
    let ours = decoded(body);
    let columns = &ours.columns;
    assert_eq!(
        (columns.series().len(), ours.symbol_count()),
        (theirs.timeseries.len(), theirs.symbols.len())
    );
    let mut metadata = columns.metadata().iter();
    let owned = |(n, v): (&[u8], &[u8])| {
        (String::from_utf8(n.to_vec()).unwrap(), String::from_utf8(v.to_vec()).unwrap())
    };
    for (series, theirs_series) in columns.series().iter().zip(&theirs.timeseries) {
        let expected = resolve(&theirs_series.labels_refs, &theirs.symbols);
        let texts = theirs_series.metadata.as_ref().map(|m| {
            let symbol = |at: u32| theirs.symbols.get(at as usize);
            symbol(m.help_ref).zip(symbol(m.unit_ref)).ok_or((m.help_ref, m.unit_ref))
        });
        match (&expected, &texts) {
            (Err(fault), _) => assert_eq!(series.fault, Some(*fault)),
            (Ok(_), Some(Err(refs))) if *refs != (0, 0) => {
                assert_eq!(series.fault, Some(SeriesFault::MetadataReference));
            }
            (Ok(pairs), _) => {
                assert_eq!(series.fault, None);
                assert!(columns.labels(series, body).map(owned).eq(pairs.iter().cloned()));
            }
        }
        if let Some(Ok((help, unit))) = texts {
            let read = columns.metadata_texts(metadata.next().unwrap(), body).unwrap();
            assert_eq!((read.1, read.2), (help.as_str(), unit.as_str()));
        }
        assert_eq!(series.samples().len(), theirs_series.samples.len());
        for (at, sample) in series.samples().zip(&theirs_series.samples) {
            assert_eq!(columns.samples()[at], Sample { timestamp: sample.timestamp, value: sample.value });
            assert_eq!(ours.start_timestamp(at), sample.start_timestamp);
        }
        assert_eq!(series.histograms as usize, theirs_series.histograms.len());
        for (h, theirs) in columns.histograms_of(series).iter().zip(&theirs_series.histograms) {
            // The messages of both versions are one, but for the start timestamp.
            let as_v1 = v1::Histogram::decode(&theirs.encode_to_vec()[..]).unwrap();
            common::assert_same_histogram(h, &as_v1, theirs.start_timestamp);
        }
        assert_eq!(series.exemplars as usize, theirs_series.exemplars.len());
        for (exemplar, theirs_exemplar) in columns.exemplars_of(series).iter().zip(&theirs_series.exemplars) {
            match resolve(&theirs_exemplar.labels_refs, &theirs.symbols) {
                Ok(pairs) => assert!(columns.exemplar_labels(exemplar, body).map(owned).eq(pairs)),
                Err(fault) => assert_eq!(exemplar.fault, Some(fault)),
            }
            assert_eq!(exemplar.value.to_bits(), theirs_exemplar.value.to_bits());
            assert_eq!(exemplar.timestamp, theirs_exemplar.timestamp);
        }
    }
    assert_eq!(metadata.next(), None);
}

proptest! {
    #[test]
    fn equals_the_library(request in any_request()) {
        let body = request.encode_to_vec();
        assert_same(&body, &pb::Request::decode(&body[..]).unwrap());
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..300)) {
        let read = decode_v2(&body, &Limits::default(), &mut DecodedV2::default());
        if let Ok(theirs) = pb::Request::decode(&body[..]) {
            prop_assert!(read.is_ok(), "{:?}", read);
            assert_same(&body, &theirs);
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
        let mut ours = DecodedV2::default();
        let read = decode_v2(&body, &Limits::default(), &mut ours);
        if let Ok(theirs) = pb::Request::decode(&body[..]) {
            prop_assert!(read.is_ok());
            assert_same(&body, &theirs);
        }
        let mut canonical = Vec::new();
        for series in ours.columns.series() {
            let _ = ours.columns.canonical(series, &body, &mut canonical);
        }
    }
}
