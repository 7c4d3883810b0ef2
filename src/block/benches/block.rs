//! Cost of `BlockWriter` per series, and of `Block::series` for a few and for all.

use std::hint::black_box;

use block::{Block, BlockId, BlockWriter, MetaSpec};
use bytes::Bytes;
use chunk::{ChunkData, Encoding};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::{Labels, MatchOp, Matcher, Sample, TimeRange};
use runtime::World;

const SERIES: usize = 50_000;

fn series() -> Vec<(Labels, Vec<ChunkData>)> {
    let samples: Vec<_> =
        (0..120).map(|n| Sample { timestamp: 1_709_000_000_000 + n * 15_000, value: n as f64 }).collect();
    let chunk = ChunkData {
        range: TimeRange::new(samples[0].timestamp, samples[119].timestamp),
        encoding: Encoding::Xor,
        bytes: Bytes::from(chunk::xor::encode(samples).unwrap()),
    };
    let mut out: Vec<_> = (0..SERIES)
        .map(|n| {
            let pairs = [
                ("__name__", format!("node_metric_number_{}_total", n % 500)),
                ("instance", format!("host-{}:9100", n / 500)),
                ("job", "node".to_owned()),
                ("cluster", "eu-1".to_owned()),
                ("mode", format!("mode{}", n % 8)),
                ("cpu", format!("{}", n % 64)),
                ("device", format!("sda{}", n % 16)),
            ];
            (Labels::from_pairs(pairs).unwrap(), vec![chunk.clone()])
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn write(world: &World, parent: &std::path::Path, series: &[(Labels, Vec<ChunkData>)]) -> BlockId {
    let mut writer = BlockWriter::create(world, parent, BlockId::new(world)).unwrap();
    for (labels, chunks) in series {
        writer.add_series(labels, chunks).unwrap();
    }
    let memory = writer.memory();
    let meta = writer.finish(MetaSpec::default()).unwrap().unwrap();
    black_box(memory);
    meta.ulid
}

fn block(c: &mut Criterion) {
    let (world, dir, series) = (World::real(), tempfile::tempdir().unwrap(), series());
    let mut group = c.benchmark_group("block");
    group.sample_size(10).throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("write", |b| {
        b.iter(|| {
            let id = write(&world, dir.path(), &series);
            block::remove(&world, dir.path(), id).unwrap();
        })
    });
    let id = write(&world, dir.path(), &series);
    let path = dir.path().join(id.to_string());
    group.bench_function("open", |b| b.iter(|| Block::open(&world, &path).unwrap()));
    let block = Block::open(&world, &path).unwrap();
    let m = |op, name, value| Matcher::new(op, name, value).unwrap();
    let sets = [
        ("series_one_metric", vec![m(MatchOp::Equal, "__name__", "node_metric_number_7_total")]),
        (
            "series_regex",
            vec![
                m(MatchOp::Regex, "__name__", "node_metric_number_7.*"),
                m(MatchOp::NotEqual, "mode", "mode1"),
            ],
        ),
        ("series_all", vec![]),
    ];
    for (name, matchers) in sets {
        let count = block.series(&matchers, TimeRange::ALL, 0, false).unwrap().count();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |b| {
            b.iter(|| block.series(&matchers, TimeRange::ALL, 0, false).unwrap().map(Result::unwrap).count())
        });
    }
    group.finish();
}

criterion_group!(benches, block);
criterion_main!(benches);
