//! Blocks merged into one hold every sample once, whatever their order.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use block::{Block, BlockId, BlockWriter, MetaSpec, merge};
use common::*;
use model::{Labels, Sample, pick_conflict, stale_nan};
use proptest::prelude::*;
use runtime::World;

fn write_block(world: &World, series: &Series, per_chunk: usize) -> Option<Block> {
    let id = BlockId::new(world);
    let writer = BlockWriter::create(world, Path::new("/data"), id).unwrap();
    write_with(writer, series, per_chunk)?;
    Some(Block::open(world, &Path::new("/data").join(id.to_string())).unwrap())
}

fn merged(world: &World, blocks: &[Block]) -> Option<Block> {
    let id = BlockId::new(world);
    let mut writer = BlockWriter::create(world, Path::new("/data"), id).unwrap();
    merge::merge(blocks, &mut writer).unwrap();
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
            ("a".to_owned(), vec![0, 1160, 1200, 2400, 10_000]),
            ("b".to_owned(), vec![15]),
            ("c".to_owned(), vec![0])
        ]
    );
    let chunks = |block: &Block, at: usize| try_select(block, &[]).unwrap()[0].1[at].clone();
    assert_eq!(chunks(&all, 2), chunks(&window, 1));
    assert_eq!(chunks(&all, 4), chunks(&next, 0));
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
