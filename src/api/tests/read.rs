//! Remote read as its clients see it: both forms of answer, and every way to be refused.

mod common;

use std::sync::Arc;

use api::ApiSettings;
use axum::Router;
use axum::body::Body;
use chunk::Encoding;
use chunk::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints};
use common::{Memory, NOW, app_over, call, get, memory};
use http::Request;
use model::histogram::{Histogram, Span};
use model::{Labels, Sample, TimeRange};
use prost::Message;
use storage::{ChunkData, SeriesEntry};
use wire::pb::prometheus::histogram::Count;
use wire::pb::prometheus::{
    ChunkedReadResponse, LabelMatcher, Query, ReadRequest, ReadResponse, label_matcher, read_request,
};

fn question(name: &str, from: i64, until: i64) -> Query {
    let matcher =
        LabelMatcher { r#type: label_matcher::Type::Eq as i32, name: "__name__".into(), value: name.into() };
    Query { start_timestamp_ms: from, end_timestamp_ms: until, matchers: vec![matcher], hints: None }
}

fn ask(queries: Vec<Query>, accepted: &[read_request::ResponseType]) -> Request<Body> {
    let accepted_response_types = accepted.iter().map(|a| *a as i32).collect();
    let message = ReadRequest { queries, accepted_response_types }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    Request::post("/api/v1/read")
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("accept-encoding", "gzip")
        .body(Body::from(body))
        .unwrap()
}

const STREAMED: [read_request::ResponseType; 2] =
    [read_request::ResponseType::StreamedXorChunks, read_request::ResponseType::Samples];

async fn bytes_of(response: http::Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

async fn frames(app: &Router, request: Request<Body>) -> Vec<ChunkedReadResponse> {
    let response = call(app, request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    assert!(response.headers().get("content-encoding").is_none());
    let all = bytes_of(response).await;
    let (mut rest, mut out) = (&all[..], Vec::new());
    while !rest.is_empty() {
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let (sum, after) = rest.split_at(4);
        let (data, after) = after.split_at(length);
        assert_eq!(sum, crc32c::crc32c(data).to_be_bytes());
        out.push(ChunkedReadResponse::decode(data).unwrap());
        rest = after;
    }
    out
}

#[tokio::test]
async fn samples() {
    let (app, _) = app_over(Arc::new(memory()), ApiSettings::default());
    let queries =
        vec![question("up", NOW - 15_000, NOW), question("absent", 0, NOW), question("up", NOW, NOW - 1)];
    let response = call(&app, ask(queries, &[])).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    assert_eq!(response.headers()["content-encoding"], "snappy");
    let plain = snap::raw::Decoder::new().decompress_vec(&bytes_of(response).await).unwrap();
    let answer = ReadResponse::decode(&plain[..]).unwrap();
    let counts: Vec<usize> = answer.results.iter().map(|r| r.timeseries.len()).collect();
    assert_eq!(counts, [2, 0, 0]);
    let b = &answer.results[0].timeseries[1];
    let labels: Vec<_> = b.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
    assert_eq!(labels, ["__name__=up", "job=b"]);
    // Both ends belong to the range, and nothing beyond it is sent.
    let samples: Vec<_> = b.samples.iter().map(|s| (s.timestamp, s.value)).collect();
    assert_eq!(samples, [(NOW - 15_000, 0.0), (NOW, 0.0)]);
}

#[tokio::test]
async fn chunks() {
    let mut source = memory();
    // Copies that overlap, as from two receivers.
    let copy = |skip: i64| {
        let samples: Vec<Sample> = (0..200)
            .filter(|i| i % 3 != skip)
            .map(|i| Sample { timestamp: NOW - (200 - i) * 1000, value: i as f64 })
            .collect();
        let range = TimeRange::new(samples[0].timestamp, samples[samples.len() - 1].timestamp);
        ChunkData { range, encoding: Encoding::Xor, bytes: chunk::xor::encode(samples).unwrap().into() }
    };
    let labels = Labels::from_pairs([("__name__", "copied")]).unwrap();
    source.series.insert(0, SeriesEntry { labels, chunks: vec![copy(0), copy(1)] });
    let (app, _) = app_over(Arc::new(source), ApiSettings::default());
    let queries = vec![question("up", NOW, NOW), question("copied", 0, NOW)];
    let answer = frames(&app, ask(queries, &STREAMED)).await;
    let indices: Vec<i64> = answer.iter().map(|f| f.query_index).collect();
    assert_eq!(indices, [0, 0, 1]);
    let up = &answer[0].chunked_series[0];
    assert_eq!((up.labels[1].value.as_str(), up.chunks.len(), up.chunks[0].r#type), ("a", 1, 1));
    // The whole chunk, though only its last sample was asked for.
    assert_eq!((up.chunks[0].min_time_ms, up.chunks[0].max_time_ms), (NOW - 600_000, NOW));
    let copied = &answer[2].chunked_series[0].chunks;
    assert_eq!(copied.len(), 2);
    let values: Vec<f64> = copied
        .iter()
        .flat_map(|c| chunk::xor::Iter::new(&c.data).unwrap().map(|s| s.unwrap().value).collect::<Vec<_>>())
        .collect();
    assert_eq!(values, (0..200).map(f64::from).collect::<Vec<_>>());
}

/// Histograms of both kinds, late ones among them, and a stale marker.
fn natives() -> Memory {
    let whole = |timestamp: i64, count: i64| At {
        timestamp,
        histogram: Histogram {
            count: count as u64,
            sum: count as f64 / 2.0,
            positive_spans: vec![Span { offset: 2, length: 1 }],
            positive_deltas: vec![count],
            ..Histogram::default()
        },
    };
    let half = |timestamp, count| {
        let At { timestamp, histogram } = whole(timestamp, count);
        At { timestamp, histogram: histogram.to_float() }
    };
    let ints = encode_ints((0..100).map(|i| whole(NOW - 200_000 + 1000 * i, i)), 60).unwrap();
    let late = encode_ints([whole(NOW - 150_500, 49), whole(NOW - 149_500, 50)], 60).unwrap();
    let halves = encode_floats((0..10).map(|i| half(NOW - 10_000 + 1000 * i, i)), 60).unwrap();
    let labels = Labels::from_pairs([("__name__", "latency")]).unwrap();
    let chunks = [ints, late, halves].concat();
    Memory { series: vec![SeriesEntry { labels, chunks }], ..Memory::default() }
}

#[tokio::test]
async fn native_histograms_as_samples_and_as_chunks() {
    let (app, _) = app_over(Arc::new(natives()), ApiSettings::default());
    let queries = vec![question("latency", NOW - 155_000, NOW - 9_000)];
    let plain = call(&app, ask(queries.clone(), &[])).await;
    assert_eq!(plain.status(), 200);
    let plain = snap::raw::Decoder::new().decompress_vec(&bytes_of(plain).await).unwrap();
    let answer = ReadResponse::decode(&plain[..]).unwrap();
    let series = &answer.results[0].timeseries[0];
    assert!(series.samples.is_empty());
    // 55 of the 100, both late ones, and two with float counts.
    assert_eq!(series.histograms.len(), 59);
    assert!(series.histograms.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
    let first = &series.histograms[0];
    assert_eq!((first.timestamp, first.count), (NOW - 155_000, Some(Count::CountInt(45))));
    assert_eq!((first.positive_deltas.as_slice(), first.sum), (&[45][..], 22.5));
    let last = &series.histograms[58];
    assert_eq!((last.count, last.positive_counts.as_slice()), (Some(Count::CountFloat(1.0)), &[1.0][..]));

    let answer = frames(&app, ask(queries, &STREAMED)).await;
    let chunks = &answer[0].chunked_series[0].chunks;
    let kinds: Vec<i32> = chunks.iter().map(|c| c.r#type).collect();
    assert_eq!(kinds, [2, 2, 3]);
    let whole: Vec<_> =
        chunks[..2].iter().flat_map(|c| IntIter::new(&c.data).unwrap().map(Result::unwrap)).collect();
    assert_eq!(whole.len(), 62 + 40);
    assert!(whole.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
    assert_eq!(FloatIter::new(&chunks[2].data).unwrap().count(), 10);
}

#[tokio::test]
async fn a_long_series_is_split_into_frames() {
    let noise = |i: i64| (i as f64).sin() * 1e9;
    let chunks = (0..400).map(|c| {
        let samples: Vec<Sample> =
            (0..1000).map(|i| Sample { timestamp: c * 1000 + i, value: noise(c * 1000 + i) }).collect();
        let range = TimeRange::new(c * 1000, c * 1000 + 999);
        ChunkData { range, encoding: Encoding::Xor, bytes: chunk::xor::encode(samples).unwrap().into() }
    });
    let labels = Labels::from_pairs([("__name__", "long")]).unwrap();
    let source = Memory { series: vec![SeriesEntry { labels, chunks: chunks.collect() }], ..memory() };
    let (app, _) = app_over(Arc::new(source), ApiSettings::default());
    let answer = frames(&app, ask(vec![question("long", 0, NOW)], &STREAMED)).await;
    assert!(answer.len() > 2, "{}", answer.len());
    let mut next = 0;
    for frame in &answer {
        assert_eq!(frame.chunked_series.len(), 1);
        assert!(frame.encoded_len() < (1 << 20) + (16 << 10), "{}", frame.encoded_len());
        for chunk in &frame.chunked_series[0].chunks {
            assert_eq!(chunk.min_time_ms, next);
            next += 1000;
        }
    }
    assert_eq!(next, 400_000);
}

#[tokio::test]
async fn refusals_are_plain_text() {
    let (app, readiness) = app_over(Arc::new(memory()), ApiSettings::default());
    let raw = |body: Vec<u8>| Request::post("/api/v1/read").body(Body::from(body)).unwrap();
    let refused = async |app: &Router, request: Request<Body>| {
        let response = call(app, request).await;
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        let status = response.status().as_u16();
        (status, String::from_utf8(bytes_of(response).await).unwrap())
    };
    assert_eq!(
        refused(&app, raw(b"\xff\xff\xff\xff\xff".to_vec())).await,
        (400, "snappy: corrupt input\n".into())
    );
    let (status, text) = refused(&app, raw(vec![0; (32 << 20) + 1])).await;
    assert_eq!(status, 400);
    assert!(text.contains("33554432 bytes"), "{text}");
    assert_eq!(get(&app, "/api/v1/read").await.0, 405);
    readiness.set_not_ready("replaying the log");
    let (status, text) = refused(&app, ask(vec![question("up", 0, NOW)], &STREAMED)).await;
    assert_eq!((status, text.as_str()), (503, "not ready: replaying the log\n"));
    // Over the budget, before the first byte of either form.
    let settings = ApiSettings { max_memory: 10, ..ApiSettings::default() };
    let (app, _) = app_over(Arc::new(memory()), settings);
    for accepted in [&STREAMED[..], &[]] {
        let (status, text) = refused(&app, ask(vec![question("up", 0, NOW)], accepted)).await;
        assert_eq!(status, 422, "{text}");
        assert!(text.contains("--query.max-memory"), "{text}");
    }
}
