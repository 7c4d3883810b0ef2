//! Nanoseconds per sample of opening and reading a remote write body, and of making label sets of it.
//!
//! The body is what a Prometheus sends: 500 series of ten labels, one sample each. Throughput is in samples.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::Sample;
use prost::Message;
use wire::pb::io::prometheus::write::v2;
use wire::pb::prometheus::WriteRequest;
use wire::remote_write::{
    DecodedV1, DecodedV2, Limits, compress, decode_v1, decode_v2, decompress, encode_v1,
};

const SERIES: usize = 500;

fn body() -> Vec<u8> {
    let labels: Vec<Vec<(String, String)>> = (0..SERIES)
        .map(|n| {
            let label = |name: &str, value: String| (name.to_owned(), value);
            vec![
                label("__name__", "container_network_receive_bytes_total".to_owned()),
                label("cluster", "eu-west-1".to_owned()),
                label("container", "app".to_owned()),
                label("endpoint", "https-metrics".to_owned()),
                label("instance", format!("10.0.{}.{}:10250", n / 100, n % 100)),
                label("interface", format!("eth{}", n % 4)),
                label("job", "kubelet".to_owned()),
                label("namespace", format!("team-{}", n % 17)),
                label("node", format!("ip-10-0-{}-{}", n / 100, n % 100)),
                label("pod", format!("app-{:x}-{:x}", n * 7919, n * 104_729)),
            ]
        })
        .collect();
    let mut out = Vec::new();
    let rows = labels.iter().enumerate().map(|(n, labels)| {
        let sample = Sample { timestamp: 1_700_000_000_000 + n as i64, value: n as f64 * 1.5 };
        (labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), [sample])
    });
    encode_v1(rows, &mut out);
    out
}

fn remote_write(c: &mut Criterion) {
    let body = body();
    let packed = compress(&body).unwrap_or_default();
    let limits = Limits::default();
    let mut group = c.benchmark_group("remote_write_v1");
    group.throughput(Throughput::Elements(SERIES as u64));
    let (mut scratch, mut out, mut canonical) = (Vec::new(), DecodedV1::default(), Vec::new());
    group.bench_function("decompress", |b| {
        b.iter(|| decompress(&packed, &limits, &mut scratch).map(<[u8]>::len));
    });
    group.bench_function("decode", |b| {
        b.iter(|| decode_v1(black_box(&body), &limits, &mut out).is_ok());
    });
    group.bench_function("decode_and_canonical", |b| {
        b.iter(|| {
            let _ = decode_v1(black_box(&body), &limits, &mut out);
            for series in out.series() {
                let _ = black_box(out.canonical(series, &body, &mut canonical));
            }
        });
    });
    group
        .bench_function("decode_by_prost", |b| b.iter(|| WriteRequest::decode(black_box(&body[..])).is_ok()));
    group.finish();
}

/// The same request in version 2.0: a table of symbols and references.
fn remote_write_v2(c: &mut Criterion) {
    let (body, limits) = (body_v2(), Limits::default());
    let mut group = c.benchmark_group("remote_write_v2");
    group.throughput(Throughput::Elements(SERIES as u64));
    let (mut out, mut canonical) = (DecodedV2::default(), Vec::new());
    group.bench_function("decode", |b| {
        b.iter(|| decode_v2(black_box(&body), &limits, &mut out).is_ok());
    });
    group.bench_function("decode_and_canonical", |b| {
        b.iter(|| {
            let _ = decode_v2(black_box(&body), &limits, &mut out);
            for series in out.columns.series() {
                let _ = black_box(out.columns.canonical(series, &body, &mut canonical));
            }
        });
    });
    group.bench_function("decode_by_prost", |b| b.iter(|| v2::Request::decode(black_box(&body[..])).is_ok()));
    group.finish();
}

fn body_v2() -> Vec<u8> {
    let one = WriteRequest::decode(&body()[..]).unwrap_or_default();
    let mut request = v2::Request { symbols: vec![String::new()], ..Default::default() };
    let mut known = std::collections::HashMap::from([(String::new(), 0)]);
    for series in one.timeseries {
        let texts = series.labels.into_iter().flat_map(|label| [label.name, label.value]);
        let mut at = |text: String| {
            *known.entry(text).or_insert_with_key(|text| {
                request.symbols.push(text.clone());
                request.symbols.len() as u32 - 1
            })
        };
        let labels_refs = texts.map(&mut at).collect();
        let sample = |s: wire::pb::prometheus::Sample| v2::Sample {
            value: s.value,
            timestamp: s.timestamp,
            start_timestamp: 0,
        };
        let samples = series.samples.into_iter().map(sample).collect();
        request.timeseries.push(v2::TimeSeries { labels_refs, samples, ..Default::default() });
    }
    request.encode_to_vec()
}

criterion_group!(benches, remote_write, remote_write_v2);
criterion_main!(benches);
