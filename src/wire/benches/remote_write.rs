//! Nanoseconds per sample of opening and reading a remote write body, and of making label sets of it.
//!
//! The body is what a Prometheus sends: 500 series of ten labels, one sample each. Throughput is in samples.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::Sample;
use prost::Message;
use wire::pb::prometheus::WriteRequest;
use wire::remote_write::{DecodedV1, Limits, compress, decode_v1, decompress, encode_v1};

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

criterion_group!(benches, remote_write);
criterion_main!(benches);
