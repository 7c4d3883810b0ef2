//! Blocks merged into one hold every sample once, whatever their order.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use block::{Block, BlockId, BlockWriter, MetaSpec, merge};
use chunk::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints};
use chunk::{ChunkData, Encoding};
use common::*;
use model::histogram::{Histogram, ResetHint, Span, differences};
use model::{Labels, Native, Sample, pick_conflict, stale_nan};
use proptest::prelude::*;
use runtime::World;

const WINDOW: i64 = 7_200_000;

fn write_block(world: &World, series: &Series, per_chunk: usize) -> Option<Block> {
    let id = BlockId::new(world);
    let writer = BlockWriter::create(world, Path::new("/data"), id).unwrap();
    write_with(writer, series, per_chunk)?;
    Some(Block::open(world, &Path::new("/data").join(id.to_string())).unwrap())
}

fn merged(world: &World, blocks: &[Block]) -> Option<Block> {
    let id = BlockId::new(world);
    let mut writer = BlockWriter::create(world, Path::new("/data"), id).unwrap();
    merge::merge(blocks, WINDOW, &mut writer).unwrap();
    writer.finish(MetaSpec { level: 2, ..MetaSpec::default() }).unwrap()?;
    Some(Block::open(world, &Path::new("/data").join(id.to_string())).unwrap())
}

#[test]
fn a_window_and_its_supplement() {
    let (world, _) = memory();
    let load = |text, start| testkit::parse_load(text, start, 10).unwrap();
    let window = write_block(&world, &load("a 1x300\nc 3x3", 0), 120).unwrap();
    let late = write_block(&world, &load("a 5x3\nb 2x3", 15), 120).unwrap();
    let next = write_block(&world, &load("a 1x10", 10_000), 120).unwrap();
    let all = merged(&world, &[next.clone(), late, window.clone()]).unwrap();
    all.verify().unwrap();
    let shape: Vec<_> = try_select(&all, &[])
        .unwrap()
        .iter()
        .map(|(labels, chunks)| {
            (labels.to_string(), chunks.iter().map(|c| c.range.start).collect::<Vec<_>>())
        })
        .collect();
    // The first chunk of a took up the late samples; the others are copies.
    assert_eq!(
        shape,
        [
            ("a".to_owned(), vec![0, 1200, 2400, 10_000]),
            ("b".to_owned(), vec![15]),
            ("c".to_owned(), vec![0])
        ]
    );
    let chunks = |block: &Block, at: usize| try_select(block, &[]).unwrap()[0].1[at].clone();
    assert_eq!(chunks(&all, 1), chunks(&window, 1));
    assert_eq!(chunks(&all, 3), chunks(&next, 0));
}

fn some_block() -> impl Strategy<Value = (BTreeMap<u8, BTreeMap<i64, u8>>, usize)> {
    let samples = prop::collection::btree_map(0i64..60, 0u8..4, 1..30);
    (prop::collection::btree_map(0u8..4, samples, 0..4), 1usize..20)
}

fn series_of(block: &BTreeMap<u8, BTreeMap<i64, u8>>) -> Series {
    let value = |v: &u8| if *v == 0 { stale_nan() } else { f64::from(*v) };
    block
        .iter()
        .map(|(name, samples)| {
            let labels = Labels::from_pairs([("name", format!("{name}"))]).unwrap();
            (labels, samples.iter().map(|(t, v)| Sample { timestamp: *t, value: value(v) }).collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sample_once_in_any_order(blocks in prop::collection::vec(some_block(), 1..4)) {
        let (world, _) = memory();
        let mut want: BTreeMap<Labels, BTreeMap<i64, f64>> = BTreeMap::new();
        for (labels, samples) in blocks.iter().flat_map(|(block, _)| series_of(block)) {
            let all = want.entry(labels).or_default();
            for s in samples {
                let value = all.entry(s.timestamp).or_insert(s.value);
                *value = pick_conflict(*value, s.value);
            }
        }
        let want: Series = want
            .into_iter()
            .map(|(l, all)| (l, all.into_iter().map(|(timestamp, value)| Sample { timestamp, value }).collect()))
            .collect();
        let mut open: Vec<Block> =
            blocks.iter().filter_map(|(block, per_chunk)| write_block(&world, &series_of(block), *per_chunk)).collect();
        for _ in 0..2 {
            let got = merged(&world, &open).map(|block| read(&block)).unwrap_or_default();
            prop_assert_eq!(&got, &want);
            open.reverse();
        }
    }
}

/// One sample of any kind.
#[derive(Clone, Debug)]
enum Any {
    Float(f64),
    Native(Native),
}

fn any_sample() -> impl Strategy<Value = Any> {
    let counts = (-2..2i32, prop::collection::vec(0i64..4, 0..4));
    (0..9u8, counts).prop_map(|(kind, (offset, counts))| {
        let count = counts.iter().sum::<i64>() as u64;
        let positive_spans = vec![Span { offset, length: counts.len() as u32 }];
        let mut positive_deltas = counts;
        differences(&mut positive_deltas);
        let hint = if kind == 5 { ResetHint::Gauge } else { ResetHint::Unknown };
        let h =
            Native::Whole(Histogram { count, hint, positive_spans, positive_deltas, ..Default::default() });
        match kind {
            0 => Any::Float(1.0),
            1 => Any::Float(2.0),
            2 => Any::Float(stale_nan()),
            3 => Any::Native(h.stale()),
            4 => Any::Native(Native::Float(h.into_float())),
            _ => Any::Native(h),
        }
    })
}

/// Chunks of sorted samples, each run of a kind by itself.
fn chunks_of(samples: &BTreeMap<i64, Any>) -> Vec<ChunkData> {
    let one = |(&timestamp, sample): (&i64, &Any)| match sample.clone() {
        Any::Float(value) => vec![ChunkData {
            range: model::TimeRange::new(timestamp, timestamp),
            encoding: Encoding::Xor,
            bytes: chunk::xor::encode([Sample { timestamp, value }]).unwrap().into(),
        }],
        Any::Native(Native::Whole(histogram)) => encode_ints([At { timestamp, histogram }], 120).unwrap(),
        Any::Native(Native::Float(histogram)) => encode_floats([At { timestamp, histogram }], 120).unwrap(),
    };
    samples.iter().flat_map(one).collect()
}

fn samples_of(chunks: &[ChunkData]) -> Vec<(i64, Any)> {
    let mut out = Vec::new();
    for c in chunks {
        match c.encoding {
            Encoding::Xor => out.extend(chunk::xor::Iter::new(&c.bytes).unwrap().map(|s| {
                let s = s.unwrap();
                (s.timestamp, Any::Float(s.value))
            })),
            Encoding::Histogram => out.extend(IntIter::new(&c.bytes).unwrap().map(|r| {
                let r = r.unwrap();
                (r.timestamp, Any::Native(Native::Whole(r.histogram)))
            })),
            _ => out.extend(FloatIter::new(&c.bytes).unwrap().map(|r| {
                let r = r.unwrap();
                (r.timestamp, Any::Native(Native::Float(r.histogram)))
            })),
        }
    }
    out
}

fn same(a: &Any, b: &Any) -> bool {
    match (a, b) {
        (Any::Float(a), Any::Float(b)) => a.to_bits() == b.to_bits(),
        (Any::Native(a), Any::Native(b)) => a.is_same(b),
        _ => false,
    }
}

fn wins(new: &Any, kept: &Any) -> bool {
    match (new, kept) {
        (Any::Float(a), Any::Float(b)) => pick_conflict(*a, *b).to_bits() == a.to_bits(),
        (Any::Native(a), Any::Native(b)) => model::native_wins(a, b),
        (Any::Float(a), Any::Native(b)) => model::float_wins(*a, b.is_stale()),
        (Any::Native(a), Any::Float(b)) => !model::float_wins(*b, a.is_stale()),
    }
}

/// Which sample of two or three of one time is kept: the rules for pairs, applied kind by kind.
fn expected(sources: &[BTreeMap<i64, Any>]) -> BTreeMap<i64, Any> {
    let is_float = |s: &Any| matches!(s, Any::Float(_));
    let of_kind = |floats: bool| {
        let mut out: BTreeMap<i64, Any> = BTreeMap::new();
        for (t, sample) in sources.iter().flatten().filter(|(_, s)| is_float(s) == floats) {
            match out.get_mut(t) {
                Some(kept) if wins(sample, kept) => *kept = sample.clone(),
                Some(_) => {}
                None => drop(out.insert(*t, sample.clone())),
            }
        }
        out
    };
    let (mut out, natives) = (of_kind(true), of_kind(false));
    for (t, sample) in natives {
        match out.get(&t) {
            Some(kept) if !wins(&sample, kept) => {}
            _ => drop(out.insert(t, sample)),
        }
    }
    out
}

proptest! {
    #[test]
    fn samples_of_every_kind_are_there_once_and_the_order_of_sources_does_not_matter(
        sources in prop::collection::vec(prop::collection::btree_map(0i64..40, any_sample(), 1..20), 1..4),
        long in any::<bool>(),
    ) {
        let join = |order: &[&BTreeMap<i64, Any>]| {
            let all = order.iter().flat_map(|s| {
                let chunks = chunks_of(s);
                // Chunks of many samples, or of one each.
                if long { merge::join(chunks, WINDOW).unwrap() } else { chunks }
            });
            merge::join(all.collect(), WINDOW).unwrap()
        };
        let forward: Vec<_> = sources.iter().collect();
        let chunks = join(&forward);
        prop_assert!(chunks.windows(2).all(|pair| pair[0].range.end < pair[1].range.start));
        let backward: Vec<_> = sources.iter().rev().collect();
        prop_assert_eq!(&join(&backward), &chunks);
        let (got, want) = (samples_of(&chunks), expected(&sources));
        prop_assert_eq!(got.len(), want.len());
        for ((t, sample), (at, wanted)) in got.iter().zip(&want) {
            prop_assert!(t == at && same(sample, wanted), "{t}: {sample:?} and {at}: {wanted:?}");
        }
        for chunk in &chunks {
            let times: Vec<i64> = samples_of(std::slice::from_ref(chunk)).iter().map(|s| s.0).collect();
            prop_assert_eq!((times.first(), times.last()), (Some(&chunk.range.start), Some(&chunk.range.end)));
        }
    }
}
