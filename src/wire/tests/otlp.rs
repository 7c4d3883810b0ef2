//! OTLP requests become the series that Prometheus 3 makes of them.

use proptest::prelude::*;
use prost::Message;
use wire::otlp::{self, Settings, Translated};
use wire::pb::io::prometheus::write::v2 as rw;

/// A series as it was written: labels as text, samples (time, value bits, start), type and unit.
#[derive(Debug, PartialEq)]
struct Series {
    labels: String,
    samples: Vec<(i64, f64, i64)>,
    kind: i32,
    unit: String,
    histograms: Vec<rw::Histogram>,
    exemplars: Vec<(String, f64, i64)>,
}

fn labels(request: &rw::Request, refs: &[u32]) -> String {
    let text = |at: u32| request.symbols[at as usize].as_str();
    let mut pairs: Vec<String> = refs.chunks(2).map(|p| format!("{}={}", text(p[0]), text(p[1]))).collect();
    pairs.sort();
    pairs.join(",")
}

fn series(translated: &Translated) -> Vec<Series> {
    let request = rw::Request::decode(translated.request.as_slice()).unwrap();
    assert_eq!(request.symbols.first().map(String::as_str), Some(""));
    let of = |series: &rw::TimeSeries| {
        let metadata = series.metadata.unwrap();
        Series {
            labels: labels(&request, &series.labels_refs),
            samples: series.samples.iter().map(|s| (s.timestamp, s.value, s.start_timestamp)).collect(),
            kind: metadata.r#type,
            unit: request.symbols[metadata.unit_ref as usize].clone(),
            histograms: series.histograms.clone(),
            exemplars: series
                .exemplars
                .iter()
                .map(|e| (labels(&request, &e.labels_refs), e.value, e.timestamp))
                .collect(),
        }
    };
    request.timeseries.iter().map(of).collect()
}

fn translate(json: &str, settings: &Settings) -> Translated {
    let request = otlp::decode_json(json.as_bytes()).unwrap();
    // JSON and protobuf say the same.
    assert_eq!(otlp::decode(&request.encode_to_vec()).unwrap(), request);
    otlp::translate(&request, settings).unwrap()
}

fn metrics(resource: &str, metrics: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},
            "scopeMetrics":[{{"scope":{{"name":"lib","version":"1"}},"metrics":[{metrics}]}}]}}]}}"#
    )
}

const SERVICE: &str = r#"{"key":"service.name","value":{"stringValue":"shop"}},
    {"key":"service.namespace","value":{"stringValue":"web"}},
    {"key":"service.instance.id","value":{"stringValue":"i-1"}},
    {"key":"k8s.pod.name","value":{"stringValue":"p"}}"#;

fn one(labels: &str, samples: &[(i64, f64, i64)], kind: i32, unit: &str) -> Series {
    Series {
        labels: labels.to_owned(),
        samples: samples.to_vec(),
        kind,
        unit: unit.to_owned(),
        histograms: Vec::new(),
        exemplars: Vec::new(),
    }
}

#[test]
fn a_counter_with_its_resource() {
    let json = metrics(
        SERVICE,
        r#"{"name":"http.requests","unit":"1","description":"d","sum":{"aggregationTemporality":2,"isMonotonic":true,
            "dataPoints":[{"attributes":[{"key":"http.code","value":{"intValue":"200"}}],
            "startTimeUnixNano":"1000000000","timeUnixNano":"5000000000","asInt":"7"}]}}"#,
    );
    let settings =
        Settings { promote_resource_attributes: vec!["k8s.pod.name".to_owned()], ..Settings::default() };
    let got = translate(&json, &settings);
    assert_eq!(got.aside.points, 0);
    assert_eq!(
        series(&got),
        [
            one(
                "__name__=http_requests_total,http_code=200,instance=i-1,job=web/shop,k8s_pod_name=p",
                &[(5000, 7.0, 1000)],
                1,
                "1"
            ),
            one("__name__=target_info,instance=i-1,job=web/shop,k8s_pod_name=p", &[(5000, 1.0, 0)], 2, ""),
        ]
    );
    let off = Settings { target_info: false, ..Settings::default() };
    assert_eq!(series(&translate(&json, &off)).len(), 1);
}

#[test]
fn a_resource_without_a_name_has_no_target_info() {
    let json = metrics(
        r#"{"key":"host","value":{"stringValue":"h"}}"#,
        r#"{"name":"t","unit":"Cel","gauge":{"dataPoints":[
            {"timeUnixNano":2000000,"asDouble":-0.0},{"timeUnixNano":3000000,"flags":1}]}}"#,
    );
    let got = series(&translate(&json, &Settings::default()));
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].labels, "__name__=t_celsius");
    assert_eq!(got[0].samples[0].1.to_bits(), (-0.0f64).to_bits());
    assert_eq!(got[1].samples[0].1.to_bits(), model::STALE_NAN_BITS);
}

const HISTOGRAM: &str = r#"{"name":"latency","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
    {"startTimeUnixNano":"1000000","timeUnixNano":"2000000","count":"6","sum":3.5,
     "bucketCounts":["1","2","3"],"explicitBounds":[0.1,1],
     "exemplars":[{"timeUnixNano":"1500000","asDouble":0.5,"traceId":"0af7","spanId":"b7ad",
        "filteredAttributes":[{"key":"u.id","value":{"stringValue":"x"}}]}]}]}}"#;

#[test]
fn classic_histograms_are_cumulative() {
    let got = series(&translate(&metrics("", HISTOGRAM), &Settings::default()));
    let at = |v: f64| [(2i64, v, 1i64)];
    let mut want = [
        one("__name__=latency_seconds_sum", &at(3.5), 3, "s"),
        one("__name__=latency_seconds_count", &at(6.0), 3, "s"),
        one("__name__=latency_seconds_bucket,le=0.1", &at(1.0), 3, "s"),
        one("__name__=latency_seconds_bucket,le=1", &at(3.0), 3, "s"),
        one("__name__=latency_seconds_bucket,le=+Inf", &at(6.0), 3, "s"),
    ];
    want[3].exemplars = vec![("span_id=b7ad,trace_id=0af7,u_id=x".to_owned(), 0.5, 1)];
    assert_eq!(got, want);
}

#[test]
fn histograms_with_custom_buckets_if_asked_for() {
    let settings = Settings { convert_histograms_to_nhcb: true, ..Settings::default() };
    let got = series(&translate(&metrics("", HISTOGRAM), &settings));
    assert_eq!((got.len(), got[0].labels.as_str()), (1, "__name__=latency_seconds"));
    let h = &got[0].histograms[0];
    assert_eq!((h.schema, h.sum, h.timestamp, h.start_timestamp), (-53, 3.5, 2, 1));
    assert_eq!((h.custom_values.as_slice(), h.positive_deltas.as_slice()), (&[0.1, 1.0][..], &[1, 1, 1][..]));
    assert_eq!(got[0].exemplars.len(), 1);
}

#[test]
fn exponential_histograms_are_native() {
    let json = metrics(
        "",
        r#"{"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
            {"timeUnixNano":"2000000","count":"9","sum":1,"scale":3,"zeroCount":"2",
             "positive":{"offset":-1,"bucketCounts":["3","4"]},"negative":{"offset":5,"bucketCounts":[]}}]}}"#,
    );
    let got = series(&translate(&json, &Settings::default()));
    let h = &got[0].histograms[0];
    assert_eq!(h.count, Some(rw::histogram::Count::CountInt(9)));
    assert_eq!((h.schema, h.positive_spans[0].offset, h.positive_spans[0].length), (3, 0, 2));
    assert_eq!(h.positive_deltas, [3, 1]);
}

#[test]
fn summaries_have_quantiles() {
    let json = metrics(
        "",
        r#"{"name":"s","summary":{"dataPoints":[{"timeUnixNano":"2000000","count":"3","sum":6,
            "quantileValues":[{"quantile":0.5,"value":2},{"quantile":0.99,"value":3}]}]}}"#,
    );
    let got: Vec<(String, f64)> = series(&translate(&json, &Settings::default()))
        .into_iter()
        .map(|s| (s.labels, s.samples[0].1))
        .collect();
    let want = [
        ("__name__=s_sum", 6.0),
        ("__name__=s_count", 3.0),
        ("__name__=s,quantile=0.5", 2.0),
        ("__name__=s,quantile=0.99", 3.0),
    ];
    assert_eq!(got, want.map(|(labels, value)| (labels.to_owned(), value)));
}

#[test]
fn what_cannot_be_stored_is_set_aside_alone() {
    let point = r#"{"timeUnixNano":"2000000","asInt":"1"}"#;
    for (metric, points, reason) in [
        (
            format!(r#"{{"name":"d","sum":{{"aggregationTemporality":1,"dataPoints":[{point},{point}]}}}}"#),
            2,
            "delta",
        ),
        (format!(r#"{{"name":"d","sum":{{"dataPoints":[{point}]}}}}"#), 1, "temporality is missing"),
        (format!(r#"{{"name":"..","gauge":{{"dataPoints":[{point}]}}}}"#), 1, "name"),
        (r#"{"name":"n","gauge":{"dataPoints":[{"timeUnixNano":"1"}]}}"#.to_owned(), 1, "no value"),
        (
            r#"{"name":"x","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":-7}]}}"#
                .to_owned(),
            1,
            "scale -7",
        ),
    ] {
        let good = format!(r#"{{"name":"good","gauge":{{"dataPoints":[{point}]}}}}"#);
        let got = translate(&metrics("", &format!("{metric},{good}")), &Settings::default());
        assert_eq!(got.aside.points, points, "{metric}");
        let (_, why) = got.aside.example.clone().unwrap();
        assert!(why.contains(reason), "{why}");
        let all = series(&got);
        assert_eq!((all.len(), all[0].labels.as_str()), (1, "__name__=good"));
    }
    let delta = format!(
        r#"{{"name":"d","sum":{{"isMonotonic":true,"aggregationTemporality":1,"dataPoints":[{point}]}}}}"#
    );
    let settings = Settings { native_delta_ingestion: true, ..Settings::default() };
    let got = series(&translate(&metrics("", &delta), &settings));
    assert_eq!((got[0].labels.as_str(), got[0].kind), ("__name__=d_total", 0));
}

#[test]
fn malformed_json_says_where() {
    for (json, part) in [
        ("[]", "must be an object"),
        ("{", "not JSON"),
        (r#"{"resourceMetrics":{}}"#, "resourceMetrics of a request must be a list"),
        (&metrics("", r#"{"name":7}"#), "name of a metric must be a string"),
        (&metrics("", r#"{"gauge":{"dataPoints":[{"timeUnixNano":"-1"}]}}"#), "timeUnixNano"),
        (&metrics(r#"{"key":"a","value":{"bytesValue":"*"}}"#, ""), "base64"),
    ] {
        let error = otlp::decode_json(json.as_bytes()).unwrap_err();
        assert!(error.message.contains(part), "{json}: {error}");
    }
}

#[test]
fn bombs_are_refused_before_they_unpack() {
    // Resources of nothing, two bytes each.
    let flood = [0x0a, 0x00].repeat(2 << 20);
    assert_eq!(otlp::decode(&flood).unwrap_err().kind, model::Kind::Refused);
    let flood = format!("{{\"resourceMetrics\":[{}{{}}]}}", "{},".repeat(2 << 20));
    assert_eq!(otlp::decode_json(flood.as_bytes()).unwrap_err().kind, model::Kind::Refused);
    // A value within values.
    let mut nested = Vec::new();
    for _ in 0..2000 {
        for field in [0x0a, 0x2a] {
            let mut outer = vec![field];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.extend(nested);
            nested = outer;
        }
    }
    for field in [0x12, 0x0a, 0x0a, 0x0a] {
        let mut outer = vec![field];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(nested);
        nested = outer;
    }
    assert!(otlp::decode(&nested).unwrap_err().message.contains("nest deeper"));
    let many = metrics(
        "",
        &format!(r#"{{"name":"m","gauge":{{"dataPoints":[{}]}}}}"#, [r#"{"asInt":1}"#; 11].join(",")),
    );
    let request = otlp::decode_json(many.as_bytes()).unwrap();
    let settings = Settings { max_series: 10, ..Settings::default() };
    assert!(otlp::translate(&request, &settings).unwrap_err().message.contains("more than 10 series"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
        for body in [bytes.clone(), {
            let json = metrics(SERVICE, HISTOGRAM);
            let good = otlp::decode_json(json.as_bytes()).unwrap().encode_to_vec();
            let at = cut.index(good.len());
            [&good[..at], &bytes, &good[at..]].concat()
        }] {
            if let Ok(request) = otlp::decode(&body) {
                let _ = otlp::translate(&request, &Settings::default());
            }
            let _ = otlp::decode_json(&body);
        }
    }
}
