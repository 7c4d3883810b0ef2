//! Histograms of every kind, and a Prometheus 3 to compare them with. `PROMETHEUS_BIN` names the program, else it is the
//! one on the PATH; versions before 3 know no custom buckets and misread float histograms, so they are passed over.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, find_program, post};
use chunk::ChunkData;
use chunk::histogram::{At, FloatIter, IntIter};
use model::histogram::{CUSTOM_BUCKETS, FloatHistogram, Histogram, ResetHint, Span, indices, spans_of};
use model::stale_nan;
use prost::Message;
use wire::pb::prometheus as pb;

pub const STEP: i64 = 15_000;

/// A Prometheus that takes remote write and snapshots, over the data in `dir`.
pub struct Peer {
    pub running: Running,
    pub url: String,
}

/// A program that a variable names, else the one on the PATH.
pub fn program(variable: &str, name: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).or_else(|| find_program(name))
}

pub fn start(dir: &Path, name: &str) -> Option<Peer> {
    let path = program("PROMETHEUS_BIN", "prometheus")?;
    let version = Command::new(&path).arg("--version").output().expect("a Prometheus that runs");
    if !String::from_utf8_lossy(&version.stdout).contains("version 3.") {
        eprintln!("SKIPPED: {} is no Prometheus 3; name one in PROMETHEUS_BIN", path.display());
        return None;
    }
    // Ours are written in order, but the markers at the edges may come late.
    let config = "storage: {tsdb: {out_of_order_time_window: 1h}}\n";
    let flags = [
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--enable-feature=native-histograms",
    ];
    let (program, url) = Program::prometheus(path, dir, name, config, &flags);
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    Some(Peer { running, url })
}

impl Peer {
    /// Posts a message and gives the body of the answer.
    pub fn call(&self, path: &str, message: &impl Message) -> Vec<u8> {
        let body = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).expect("compresses");
        let headers = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
        let answer = post(&format!("{}{path}", self.url), &headers, &body).expect("an answer");
        assert!(answer.status / 100 == 2, "{path}: {} {}", answer.status, answer.text());
        answer.body
    }

    /// Upper bounds and counts of a metric's buckets at a time, as the query API tells them.
    pub fn bounds(&self, metric: &str, at: i64) -> Vec<(f64, f64)> {
        let url = format!("{}/api/v1/query?query={metric}&time={}", self.url, at as f64 / 1e3);
        let json = acceptance::get(&url).expect("an answer").json();
        let buckets = json["data"]["result"][0]["histogram"][1]["buckets"].as_array().cloned();
        let number = |v: &serde_json::Value| v.as_str().and_then(|t| t.parse().ok()).expect("a number");
        buckets.expect("buckets").iter().map(|b| (number(&b[2]), number(&b[3]))).collect()
    }

    /// Everything of one metric.
    pub fn read(&self, metric: &str) -> Vec<pb::TimeSeries> {
        let matcher = pb::LabelMatcher { r#type: 0, name: "__name__".to_owned(), value: metric.to_owned() };
        let query = pb::Query {
            start_timestamp_ms: 0,
            end_timestamp_ms: i64::MAX / 2,
            matchers: vec![matcher],
            hints: None,
        };
        let request = pb::ReadRequest { queries: vec![query], accepted_response_types: Vec::new() };
        let body = self.call("/api/v1/read", &request);
        let body = snap::raw::Decoder::new().decompress_vec(&body).expect("a snappy block");
        let answer = pb::ReadResponse::decode(&body[..]).expect("an answer to a read");
        answer.results.into_iter().flat_map(|r| r.timeseries).collect()
    }
}

/// Upper bounds and counts of the buckets of a custom histogram that are not empty.
pub fn upper_bounds(h: &FloatHistogram) -> Vec<(f64, f64)> {
    let bound = |at: i32| h.custom_values.get(at as usize).copied().unwrap_or(f64::INFINITY);
    let all = indices(&h.positive_spans).zip(&h.positive_counts);
    all.filter(|(_, c)| **c != 0.0).map(|(at, c)| (bound(at), *c)).collect()
}

/// A few hours of an instrument: counts grow, buckets appear and are left out while empty, the process restarts, the
/// target goes away.
pub fn life(begin: i64, shape: &Histogram, samples: usize, seed: u64) -> Vec<At<Histogram>> {
    let mut state = seed;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let custom = shape.schema == CUSTOM_BUCKETS;
    let mut counts: [std::collections::BTreeMap<i32, i64>; 2] = Default::default();
    let (mut zero, mut sum) = (0, 0.0);
    let mut out = Vec::new();
    for number in 0..samples as i64 {
        if dice(70) == 0 {
            (counts, zero, sum) = (Default::default(), 0, 0.0);
        }
        for _ in 0..dice(12) {
            let side = if custom { 0 } else { dice(2) as usize };
            let index = if custom { dice(5) as i32 } else { dice(9) as i32 - 4 + (number / 100) as i32 };
            *counts[side].entry(index).or_default() += 1 + dice(20) as i64 * dice(1000) as i64;
            sum += dice(1_000_000) as f64 / 1e3;
        }
        zero += if custom { 0 } else { dice(3) };
        if dice(9) == 0 {
            counts[0].entry(dice(4) as i32).or_default();
        }
        let deltas = |side: &std::collections::BTreeMap<i32, i64>| {
            let mut before = 0;
            side.values().map(|c| c - std::mem::replace(&mut before, *c)).collect()
        };
        let mut histogram = Histogram {
            zero_count: zero,
            count: zero + counts.iter().flat_map(|s| s.values()).sum::<i64>() as u64,
            sum,
            positive_spans: spans_of(counts[0].keys().copied()),
            negative_spans: spans_of(counts[1].keys().copied()),
            positive_deltas: deltas(&counts[0]),
            negative_deltas: deltas(&counts[1]),
            ..shape.clone()
        };
        if dice(50) == 0 {
            histogram = Histogram { sum: stale_nan(), ..Histogram::default() };
        }
        assert_eq!(histogram.check(), Ok(()));
        out.push(At { timestamp: begin + number * STEP + dice(7) as i64, histogram });
    }
    out
}

/// Metrics and their samples: every kind with whole counts, and again with float counts.
pub fn lives(begin: i64, samples: usize) -> Vec<(String, Vec<At<Histogram>>)> {
    let plain = Histogram { schema: 3, zero_threshold: 2f64.powi(-128), ..Histogram::default() };
    let custom_values = [-2.5, 1e-9f64.sqrt(), 0.005, 0.1, 40_000.0].into();
    let shapes = [
        ("h_counter", plain.clone()),
        ("h_gauge", Histogram { hint: ResetHint::Gauge, zero_threshold: 0.001, ..plain.clone() }),
        ("h_coarse", Histogram { schema: -4, zero_threshold: 0.0, ..plain }),
        ("h_custom", Histogram { schema: CUSTOM_BUCKETS, custom_values, ..Histogram::default() }),
    ];
    let named = shapes.iter().zip(1..);
    named.map(|((name, shape), seed)| ((*name).to_owned(), life(begin, shape, samples, seed))).collect()
}

pub fn floated(list: &[At<Histogram>]) -> Vec<At<FloatHistogram>> {
    let float = |s: &At<Histogram>| At { timestamp: s.timestamp, histogram: s.histogram.to_float() };
    // Halves, so that nothing whole is left to hide behind.
    let halve = |mut s: At<FloatHistogram>| {
        let h = &mut s.histogram;
        (h.count, h.zero_count) = (h.count / 2.0, h.zero_count / 2.0);
        h.positive_counts.iter_mut().chain(&mut h.negative_counts).for_each(|c| *c /= 2.0);
        s
    };
    list.iter().map(float).map(halve).collect()
}

pub fn whole(chunks: &[ChunkData]) -> Vec<At<Histogram>> {
    let read = chunks.iter().flat_map(|c| IntIter::new(&c.bytes).expect("a histogram chunk"));
    read.map(|s| s.expect("a histogram")).collect()
}

pub fn float(chunks: &[ChunkData]) -> Vec<At<FloatHistogram>> {
    let read = chunks.iter().flat_map(|c| FloatIter::new(&c.bytes).expect("a float histogram chunk"));
    read.map(|s| s.expect("a float histogram")).collect()
}

pub fn spans(list: &[pb::BucketSpan]) -> Vec<Span> {
    list.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
}

pub fn pb_spans(list: &[Span]) -> Vec<pb::BucketSpan> {
    list.iter().map(|s| pb::BucketSpan { offset: s.offset, length: s.length }).collect()
}

pub fn hint(raw: i32) -> ResetHint {
    u8::try_from(raw).ok().and_then(ResetHint::from_code).expect("a known hint")
}

pub fn from_pb_whole(h: &pb::Histogram) -> At<Histogram> {
    let (
        Some(pb::histogram::Count::CountInt(count)),
        Some(pb::histogram::ZeroCount::ZeroCountInt(zero_count)),
    ) = (h.count, h.zero_count)
    else {
        panic!("whole counts expected: {h:?}")
    };
    let histogram = Histogram {
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count,
        count,
        sum: h.sum,
        hint: hint(h.reset_hint),
        positive_spans: spans(&h.positive_spans),
        negative_spans: spans(&h.negative_spans),
        positive_deltas: h.positive_deltas.clone(),
        negative_deltas: h.negative_deltas.clone(),
        custom_values: h.custom_values.clone().into(),
    };
    At { timestamp: h.timestamp, histogram }
}

pub fn from_pb_float(h: &pb::Histogram) -> At<FloatHistogram> {
    let (
        Some(pb::histogram::Count::CountFloat(count)),
        Some(pb::histogram::ZeroCount::ZeroCountFloat(zero_count)),
    ) = (h.count, h.zero_count)
    else {
        panic!("float counts expected: {h:?}")
    };
    let histogram = FloatHistogram {
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count,
        count,
        sum: h.sum,
        hint: hint(h.reset_hint),
        positive_spans: spans(&h.positive_spans),
        negative_spans: spans(&h.negative_spans),
        positive_counts: h.positive_counts.clone(),
        negative_counts: h.negative_counts.clone(),
        custom_values: h.custom_values.clone().into(),
    };
    At { timestamp: h.timestamp, histogram }
}

pub fn to_pb_whole(s: &At<Histogram>) -> pb::Histogram {
    let h = &s.histogram;
    pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(h.count)),
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountInt(h.zero_count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: pb_spans(&h.negative_spans),
        negative_deltas: h.negative_deltas.clone(),
        positive_spans: pb_spans(&h.positive_spans),
        positive_deltas: h.positive_deltas.clone(),
        reset_hint: h.hint as i32,
        timestamp: s.timestamp,
        custom_values: h.custom_values.to_vec(),
        ..pb::Histogram::default()
    }
}

pub fn to_pb_float(s: &At<FloatHistogram>) -> pb::Histogram {
    let h = &s.histogram;
    pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(h.count)),
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountFloat(h.zero_count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: pb_spans(&h.negative_spans),
        negative_counts: h.negative_counts.clone(),
        positive_spans: pb_spans(&h.positive_spans),
        positive_counts: h.positive_counts.clone(),
        reset_hint: h.hint as i32,
        timestamp: s.timestamp,
        custom_values: h.custom_values.to_vec(),
        ..pb::Histogram::default()
    }
}

/// Equal, buckets that are only room aside: a chunk may have more than the sample had.
pub fn same(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let tight = |h: &FloatHistogram| {
        let mut h = h.clone();
        for (spans, counts) in
            [(&mut h.positive_spans, &mut h.positive_counts), (&mut h.negative_spans, &mut h.negative_counts)]
        {
            let full: Vec<_> =
                indices(spans).zip(counts.iter().copied()).filter(|(_, c)| *c != 0.0).collect();
            *spans = spans_of(full.iter().map(|(at, _)| *at));
            *counts = full.into_iter().map(|(_, c)| c).collect();
        }
        h
    };
    tight(a) == tight(b)
}

/// The start of the last whole two hours but one.
pub fn begin() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
    (now / 7_200_000 - 2) * 7_200_000
}
