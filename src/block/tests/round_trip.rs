//! What is written is read back: samples, labels, selections, and what the writer refuses.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use block::{BlockId, BlockWriter, MetaSpec};
use common::*;
use model::{Kind, Labels, MatchOp, Matcher, Sample, TimeRange};
use proptest::prelude::*;
use runtime::World;

const LOAD: &str = r#"
    up{job="a", instance="1"} 1 1 stale _ 1x4
    up{job="b", instance="2"} 0 _x30 1
    http_requests_total{job="a", code="200", path="/"} 0+7x300
    http_requests_total{job="a", code="500", path="/"} 0+1x10
    http_requests_total{job="b", code="200", path="/é☃"} 1e300 -0 NaN Inf -Inf
    lonely 1
"#;

fn load() -> Series {
    testkit::parse_load(LOAD, 1_709_000_000_000, 15_000).unwrap()
}

#[test]
fn writes_opens_and_reads_the_same() {
    let series = load();
    for real in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let world = if real { World::real() } else { memory().0 };
        let parent = if real { dir.path() } else { Path::new("/data") };
        let meta = write(&world, parent, &series, 120).unwrap();
        assert_eq!(world.disk.list(parent).unwrap(), [ID]);
        let block = open(&world, parent);
        assert_eq!(*block.meta(), meta);
        assert_eq!(read(&block), series);
        block.verify().unwrap();
        let samples: usize = series.iter().map(|s| s.1.len()).sum();
        let stats = meta.stats;
        assert_eq!((stats.num_series, stats.num_samples, stats.num_chunks), (6, samples as u64, 8));
        let last = series.iter().flat_map(|s| &s.1).map(|s| s.timestamp).max().unwrap();
        assert_eq!((meta.min_time, meta.max_time), (1_709_000_000_000, last + 1));
        let thanos = meta.thanos.unwrap();
        assert_eq!(thanos.segment_files, ["000001"]);
        let files: Vec<_> = thanos.files.iter().map(|f| (&*f.rel_path, f.size_bytes)).collect();
        let size = |path: &str| world.disk.len(&parent.join(ID).join(path)).unwrap();
        let want = [("chunks/000001", size("chunks/000001")), ("index", size("index")), ("meta.json", 0)];
        assert_eq!(files, want);
        assert_eq!(block.size_bytes(), want[0].1 + want[1].1);
    }
}

#[test]
fn selects_by_matchers_time_and_limit() {
    let (world, _) = memory();
    let series = load();
    write(&world, Path::new("/data"), &series, 120);
    let block = open(&world, Path::new("/data"));
    let m = |op, name, value| Matcher::new(op, name, value).unwrap();
    use MatchOp::*;
    let sets: Vec<Vec<Matcher>> = vec![
        vec![],
        vec![m(Equal, "job", "a")],
        vec![m(Equal, "job", "")],
        vec![m(NotEqual, "job", "")],
        vec![m(NotEqual, "job", "a")],
        vec![m(Equal, "job", "a"), m(NotEqual, "code", "500")],
        vec![m(Regex, "__name__", "http_.*"), m(NotRegex, "path", "/")],
        vec![m(Regex, "__name__", "up|lonely|missing")],
        vec![m(Regex, "code", "200|")],
        vec![m(Regex, "code", ".*")],
        vec![m(Regex, "code", ".+")],
        vec![m(NotRegex, "code", ".+")],
        vec![m(NotRegex, "code", "2.*|")],
        vec![m(Regex, "job", "(?i)A")],
        vec![m(Equal, "nothing", "x")],
        vec![m(NotEqual, "nothing", "x")],
        vec![m(Equal, "job", "a"), m(Equal, "job", "b")],
    ];
    for matchers in &sets {
        let got: Vec<_> = try_select(&block, matchers).unwrap().into_iter().map(|e| e.0).collect();
        let want: Vec<_> = series.iter().map(|s| &s.0).filter(|l| Matcher::all_match(matchers, l)).collect();
        assert_eq!(got.iter().collect::<Vec<_>>(), want, "{matchers:?}");
        let names: BTreeSet<_> = want.iter().flat_map(|l| l.iter().map(|(n, _)| n.to_owned())).collect();
        let listed = block.label_names(matchers, TimeRange::ALL, 0).unwrap();
        assert_eq!(listed, Vec::from_iter(names), "{matchers:?}");
        let values: BTreeSet<_> = want.iter().filter_map(|l| l.get("job").map(str::to_owned)).collect();
        let listed = block.label_values("job", matchers, TimeRange::ALL, 0).unwrap();
        assert_eq!(listed, Vec::from_iter(values), "{matchers:?}");
    }
    // Only series with a chunk in the range, and only those chunks.
    let start = 1_709_000_000_000;
    let run = |range, limit, skip_chunks| -> Vec<Entry> {
        block.series(&[], range, limit, skip_chunks).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let late = TimeRange::new(start + 120 * 15_000, start + 130 * 15_000);
    let got = run(late, 0, false);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].0.value("code"), got[0].1.len()), ("200", 1));
    assert!(run(late, 0, true)[0].1.is_empty());
    assert_eq!(run(TimeRange::ALL, 2, true).len(), 2);
    assert!(run(TimeRange::EMPTY, 0, false).is_empty());
    assert_eq!(block.label_values("__name__", &[], TimeRange::ALL, 2).unwrap().len(), 2);
    assert!(block.label_names(&[], TimeRange::new(0, 1), 0).unwrap().is_empty());
}

/// Enough series that wide matchers are checked on labels instead of being read, and values found by postings.
#[test]
fn shortcuts_give_the_same_answers() {
    let (world, _) = memory();
    let text: String = (0..20_000)
        .map(|n| {
            format!(
                "m{}{{id=\"{n}\", k=\"{}\"{}}} {n}\n",
                n % 3,
                n % 5000,
                if n % 2 == 0 { ", even=\"y\"" } else { "" }
            )
        })
        .collect();
    let series = testkit::parse_load(&text, 0, 1).unwrap();
    write(&world, Path::new("/data"), &series, 120);
    let block = open(&world, Path::new("/data"));
    let m = |op, name, value| Matcher::new(op, name, value).unwrap();
    use MatchOp::*;
    let sets: Vec<(Vec<Matcher>, bool)> = vec![
        (vec![m(Equal, "k", "17"), m(Regex, "id", ".+")], true),
        (vec![m(Equal, "k", "17"), m(Regex, "id", ".*7")], false),
        (vec![m(Equal, "k", "17"), m(NotRegex, "id", "1.*")], true),
        (vec![m(Equal, "k", "17"), m(Equal, "even", "")], false),
        (vec![m(Regex, "__name__", "m[12]"), m(NotEqual, "even", "y")], false),
        (vec![m(Regex, "__name__", ".+")], false),
    ];
    for (matchers, checks) in &sets {
        let plan = block::index::Plan::new(matchers, block.header()).unwrap();
        assert_eq!(!plan.check.is_empty(), *checks, "{matchers:?} {plan:?}");
        let want: Vec<_> = series.iter().map(|s| &s.0).filter(|l| Matcher::all_match(matchers, l)).collect();
        let got = try_select(&block, matchers).unwrap();
        assert_eq!(got.iter().map(|e| &e.0).collect::<Vec<_>>(), want, "{matchers:?}");
        for name in ["__name__", "even", "k"] {
            let values: BTreeSet<_> = want.iter().filter_map(|l| l.get(name).map(str::to_owned)).collect();
            assert_eq!(
                block.label_values(name, matchers, TimeRange::ALL, 0).unwrap(),
                Vec::from_iter(values)
            );
        }
    }
}

#[test]
fn segments_roll_and_references_follow() {
    let (world, _) = memory();
    let series = load();
    let writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap().with_segment_size(300);
    let meta = write_with(writer, &series, 20).unwrap();
    let segments = world.disk.list(&Path::new("/data").join(ID).join("chunks")).unwrap();
    assert!(segments.len() > 3, "{segments:?}");
    assert_eq!(meta.thanos.unwrap().segment_files, segments);
    assert_eq!(read(&open(&world, Path::new("/data"))), series);
}

#[test]
fn refuses_what_would_not_be_a_block() {
    let (world, _) = memory();
    let l = |v: &str| Labels::from_pairs([("a", v)]).unwrap();
    let c = |times: &[i64]| {
        chunk_of(&times.iter().map(|&t| Sample { timestamp: t, value: 0.0 }).collect::<Vec<_>>())
    };
    let mut writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    writer.add_series(&l("2"), &[c(&[1, 2]), c(&[3, 4])]).unwrap();
    let refused = |writer: &mut BlockWriter, labels: &Labels, chunks: &[chunk::ChunkData]| {
        assert_eq!(writer.add_series(labels, chunks).unwrap_err().kind, Kind::Invalid);
    };
    refused(&mut writer, &l("1"), &[c(&[1])]);
    refused(&mut writer, &l("2"), &[c(&[1])]);
    refused(&mut writer, &l("3"), &[c(&[1, 5]), c(&[5, 6])]);
    refused(&mut writer, &l("3"), &[c(&[7]), c(&[5])]);
    refused(&mut writer, &Labels::empty(), &[c(&[7])]);
    let mut empty = c(&[7]);
    empty.bytes = vec![0, 0].into();
    refused(&mut writer, &l("3"), &[empty]);
    writer.add_series(&l("3"), &[]).unwrap();
    let outside = MetaSpec { range: Some((0, 4)), ..MetaSpec::default() };
    assert_eq!(writer.finish(outside).unwrap_err().kind, Kind::Invalid);
    assert_eq!(world.disk.list(Path::new("/data")).unwrap(), Vec::<String>::new(), "nothing is left behind");

    let writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    assert_eq!(writer.finish(spec()).unwrap(), None);
    assert_eq!(world.disk.list(Path::new("/data")).unwrap(), Vec::<String>::new());
}

#[test]
fn folders_are_listed_removed_and_tidied() {
    let (world, disk) = memory();
    let parent = Path::new("/data");
    assert_eq!(block::list(&world, parent).unwrap(), []);
    write(&world, parent, &load(), 120);
    let stray = BlockWriter::create(&world, parent, BlockId::new(&world)).unwrap();
    std::mem::forget(stray);
    world.disk.create_dir_all(&parent.join("wal")).unwrap();
    assert_eq!(block::list(&world, parent).unwrap(), [id()]);
    assert_eq!(block::remove_leftovers(&world, parent).unwrap(), 1);
    block::remove(&world, parent, id()).unwrap();
    assert_eq!(world.disk.list(parent).unwrap(), ["wal"]);
    assert!(!disk.files().iter().any(|f| f.starts_with("/data")));
}

#[test]
fn memory_per_series_is_as_documented() {
    let (world, _) = memory();
    let mut writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    let chunk = chunk_of(&[Sample { timestamp: 1_709_000_000_000, value: 1.0 }]);
    let count = 20_000;
    for n in 0..count {
        let mut pairs = vec![("__name__".to_owned(), "metric".to_owned())];
        pairs.extend((0..8).map(|at| (format!("label{at}"), format!("value{}", n % (at + 2)))));
        pairs.insert(1, ("instance".to_owned(), format!("{n:08}")));
        writer.add_series(&Labels::from_pairs(pairs).unwrap(), std::slice::from_ref(&chunk)).unwrap();
    }
    let per_series = writer.memory() / count;
    println!("block writer: {per_series} bytes per series of 10 labels, one of them its own");
    assert!(per_series < 130, "{per_series} bytes per series");
}

fn arbitrary_series() -> impl Strategy<Value = Series> {
    let label = prop::collection::btree_map("[a-c]{1,2}", "[a-cé]{0,3}", 1..4);
    let sample = (1i64..100_000, prop_oneof![any::<f64>(), Just(1.0), Just(model::stale_nan())]);
    prop::collection::vec((label, prop::collection::vec(sample, 1..40)), 0..30).prop_map(|raw| {
        let mut all: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        for (pairs, steps) in raw {
            let mut timestamp = -50_000;
            let samples = steps.into_iter().map(|(step, value)| {
                timestamp += step;
                Sample { timestamp, value }
            });
            let labels = Labels::from_pairs(pairs).unwrap();
            if !labels.is_empty() {
                all.insert(labels, samples.collect());
            }
        }
        all.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_series_round_trip(series in arbitrary_series(), per_chunk in 1usize..50, roll in 40u64..2000) {
        let (world, _) = memory();
        let writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap().with_segment_size(roll);
        let meta = write_with(writer, &series, per_chunk);
        prop_assert_eq!(meta.is_none(), series.is_empty());
        if meta.is_some() {
            let block = open(&world, Path::new("/data"));
            prop_assert_eq!(read(&block), series.clone());
            block.verify().unwrap();
            for name in block.header().names() {
                for value in block.header().values(name).unwrap() {
                    let got = try_select(&block, &[Matcher::equal(name, &value)]).unwrap();
                    let want = series.iter().filter(|(l, _)| l.get(name) == Some(&value)).count();
                    prop_assert_eq!(got.len(), want);
                }
            }
        }
    }
}
