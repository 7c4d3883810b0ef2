//! Label sets of several blocks come once each and in order, as if every block had been asked for its own.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use block::index::cursor::{put_uvarint, put_varint};
use block::{Block, LabelSets};
use common::*;
use model::{Labels, MatchOp, Matcher, TimeRange};
use proptest::prelude::*;
use runtime::World;

/// What the blocks say one by one.
fn one_by_one(blocks: &[Block], matchers: &[Matcher], range: TimeRange) -> Vec<Labels> {
    let series = blocks.iter().flat_map(|block| block.series(matchers, range, 0, true).unwrap());
    series.map(|series| series.unwrap().0).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What they say together: streams that are each sorted, and how many.
fn together(blocks: &[Block], matchers: &[Matcher], range: TimeRange) -> (Vec<Labels>, usize) {
    let streams = LabelSets::of(blocks, matchers, range).unwrap();
    let count = streams.len();
    let mut all = BTreeSet::new();
    for stream in streams {
        let sets: Vec<Labels> = stream.map(|labels| labels.unwrap()).collect();
        assert!(sets.is_sorted_by(|a, b| a < b), "{sets:?}");
        all.extend(sets);
    }
    (all.into_iter().collect(), count)
}

fn block(world: &World, at: usize, series: &Series) -> Block {
    let parent = PathBuf::from(format!("/data/{at}"));
    write(world, &parent, series, 3);
    open(world, &parent)
}

fn series(texts: &[String], start: i64) -> Series {
    testkit::parse_load(&texts.join("\n"), start, 10).unwrap()
}

#[test]
fn series_of_equal_blocks_are_one_stream() {
    let (world, _) = memory();
    let texts: Vec<String> = (0..500).map(|n| format!("m{}{{n=\"{n}\"}} 1x8", n % 3)).collect();
    let mut blocks: Vec<Block> =
        (0..4).map(|at| block(&world, at, &series(&texts, at as i64 * 100))).collect();
    let (sets, streams) = together(&blocks, &[], TimeRange::ALL);
    assert_eq!((sets.len(), streams), (500, 1));
    // One that has the same texts in other series, and one that has others.
    let crossed: Vec<String> = (0..500).map(|n| format!("m{}{{n=\"{n}\"}} 1x8", (n + 1) % 3)).collect();
    blocks.push(block(&world, 4, &series(&crossed, 400)));
    blocks.push(block(&world, 5, &series(&["other 1x8".to_owned()], 500)));
    let (sets, streams) = together(&blocks, &[], TimeRange::ALL);
    assert_eq!((sets.len(), streams), (1001, 2));
    assert_eq!(sets, one_by_one(&blocks, &[], TimeRange::ALL));
}

/// Marks samples of a series as deleted.
fn delete(world: &World, at: usize, series: u32, range: TimeRange) {
    let mut body = Vec::new();
    put_uvarint(&mut body, u64::from(series));
    put_varint(&mut body, range.start);
    put_varint(&mut body, range.end);
    let sum = crc32c::crc32c(&body).to_be_bytes();
    let file = [&b"\x01\x30\xba\x30\x01"[..], &body, &sum].concat();
    let dir = Path::new("/data").join(at.to_string()).join(ID);
    world.disk.write_atomic(&dir.join("tombstones"), &file).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn together_they_say_what_each_says(
        // Of few series, which of them each block has, and when they begin in it.
        present in prop::collection::vec(prop::collection::vec((any::<bool>(), 0i64..20), 24), 1..6),
        deleted in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0i64..800)),
        range in (-100i64..700, 0i64..700),
        matching in 0usize..5,
    ) {
        let (world, _) = memory();
        let mut blocks = Vec::new();
        for (at, series_here) in present.iter().enumerate() {
            let mut all: Series = Vec::new();
            for (n, (_, late)) in series_here.iter().enumerate().filter(|(_, here)| here.0) {
                let text = format!("m{}{{a=\"{}\", b{}=\"x\"}} 1x4", n % 3, n % 8, n % 2);
                all.extend(series(&[text], at as i64 * 100 + late));
            }
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.dedup_by(|a, b| a.0 == b.0);
            if !all.is_empty() {
                let written = block(&world, at, &all);
                let numbers = written.all_series().unwrap();
                match &deleted {
                    Some((which, series, end)) if which.index(present.len()) == at => {
                        delete(&world, at, *series.get(&numbers), TimeRange::new(0, *end));
                        blocks.push(open(&world, &PathBuf::from(format!("/data/{at}"))));
                    }
                    _ => blocks.push(written),
                }
            }
        }
        let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
        let matchers = [
            vec![],
            vec![m(MatchOp::Equal, "__name__", "m1")],
            vec![m(MatchOp::Regex, "a", "[2-5]"), m(MatchOp::NotEqual, "b0", "x")],
            vec![m(MatchOp::Equal, "b1", "")],
            vec![m(MatchOp::NotRegex, "a", "1|7"), m(MatchOp::Regex, "__name__", "m.*")],
        ];
        let (start, length) = range;
        for range in [TimeRange::ALL, TimeRange::new(start, start + length)] {
            let expected = one_by_one(&blocks, &matchers[matching], range);
            prop_assert_eq!(together(&blocks, &matchers[matching], range).0, expected);
        }
    }
}
