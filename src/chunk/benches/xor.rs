//! Nanoseconds per sample of `Appender::push` and `Iter::next`, over shapes of data that scrapes have.

use std::hint::black_box;

use chunk::xor;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::Sample;

const SAMPLES: usize = 120;

/// A small linear generator: benches need shapes, not quality.
fn noise(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn shapes() -> Vec<(&'static str, Vec<Sample>)> {
    let shape = |jitter: u64, value: &dyn Fn(usize, &mut u64) -> f64| {
        let mut seed = 7;
        let samples = (0..SAMPLES).map(|n| Sample {
            timestamp: 1_709_000_000_000
                + n as i64 * 15_000
                + if jitter > 0 { noise(&mut seed) % jitter } else { 0 } as i64,
            value: value(n, &mut seed),
        });
        samples.collect::<Vec<_>>()
    };
    let mut total = 0.0;
    let counter: Vec<f64> = {
        let mut seed = 3;
        (0..SAMPLES)
            .map(|_| {
                total += (noise(&mut seed) % 50) as f64;
                total
            })
            .collect()
    };
    vec![
        ("constant", shape(0, &|_, _| 1.0)),
        ("counter", shape(0, &|n, _| counter[n])),
        ("counter_jitter", shape(4, &|n, _| counter[n])),
        ("gauge", shape(4, &|_, seed| noise(seed) as f64 / 1e3)),
    ]
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, samples) in shapes() {
        group.bench_with_input(BenchmarkId::from_parameter(name), &samples, |b, samples| {
            let mut out = Vec::with_capacity(4096);
            b.iter(|| {
                let mut appender = xor::Appender::default();
                for &sample in samples {
                    appender.push(&mut out, black_box(sample)).unwrap();
                }
                out.len()
            });
        });
    }
    group.finish();
}

fn iterate(c: &mut Criterion) {
    let mut group = c.benchmark_group("iterate");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, samples) in shapes() {
        let bytes = xor::encode(samples.iter().copied()).unwrap();
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |b, bytes| {
            let (mut times, mut values) = (Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES));
            b.iter(|| {
                times.clear();
                values.clear();
                for sample in xor::Iter::new(black_box(bytes)).unwrap() {
                    let sample = sample.unwrap();
                    times.push(sample.timestamp);
                    values.push(sample.value);
                }
                black_box((times.len(), values.len()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, push, iterate);
criterion_main!(benches);
