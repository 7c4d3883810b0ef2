//! Deletions are obeyed, whoever wrote them: whole chunks go, parts of chunks are cut out.

mod common;

use std::path::Path;

use block::index::cursor::{put_uvarint, put_varint};
use chunk::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints};
use common::*;
use model::histogram::{Histogram, Span};
use model::{Kind, Labels, TimeRange};
use runtime::World;

/// As another program writes them.
fn delete(world: &World, dir: &Path, entries: &[(u32, i64, i64)]) {
    let mut body = Vec::new();
    for &(series, first, last) in entries {
        put_uvarint(&mut body, u64::from(series));
        put_varint(&mut body, first);
        put_varint(&mut body, last);
    }
    let sum = crc32c::crc32c(&body).to_be_bytes();
    let file = [&b"\x01\x30\xba\x30\x01"[..], &body, &sum].concat();
    world.disk.write_atomic(&dir.join("tombstones"), &file).unwrap();
}

#[test]
fn deleted_samples_are_not_seen() {
    let (world, _) = memory();
    let series = testkit::parse_load("a 1x8\nb 1x8\nc 1x8", 0, 10).unwrap();
    write(&world, Path::new("/data"), &series, 3);
    let numbers = open(&world, Path::new("/data")).all_series().unwrap();
    let dir = Path::new("/data").join(ID);
    // Of a: the second chunk (30..=50) and half of the third; all of b.
    delete(&world, &dir, &[(numbers[0], 30, 65), (numbers[1], i64::MIN, i64::MAX)]);
    let block = open(&world, Path::new("/data"));
    let got = read(&block);
    let times = |at: usize| got[at].1.iter().map(|s| s.timestamp).collect::<Vec<_>>();
    assert_eq!(got.iter().map(|s| s.0.metric_name()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(times(0), [0, 10, 20, 70, 80]);
    assert_eq!(got[1], series[2]);
    let chunks = &try_select(&block, &[]).unwrap()[0].1;
    assert_eq!(
        chunks.iter().map(|c| c.range).collect::<Vec<_>>(),
        [TimeRange::new(0, 20), TimeRange::new(70, 80)]
    );
    assert_eq!(
        block.series(&[], TimeRange::new(30, 65), 0, true).unwrap().count(),
        2,
        "a's cut chunk reaches in"
    );
}

#[test]
fn deleted_histograms_are_not_seen() {
    let (world, _) = memory();
    let sample = |n: i64| At {
        timestamp: n * 10,
        histogram: Histogram {
            count: n as u64,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_deltas: vec![n],
            ..Histogram::default()
        },
    };
    let float = |s: At<Histogram>| At { timestamp: s.timestamp, histogram: s.histogram.to_float() };
    let mut writer = block::BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    let labels = |name| Labels::from_pairs([("a", name)]).unwrap();
    writer.add_series(&labels("1"), &encode_ints((0..9).map(sample), 120).unwrap()).unwrap();
    writer.add_series(&labels("2"), &encode_floats((0..9).map(sample).map(float), 120).unwrap()).unwrap();
    writer.finish(spec()).unwrap().unwrap();
    let block = open(&world, Path::new("/data"));
    block.verify().unwrap();
    let numbers = block.all_series().unwrap();
    let dir = Path::new("/data").join(ID);
    delete(&world, &dir, &[(numbers[0], 20, 45), (numbers[1], 0, 65)]);
    let got = try_select(&open(&world, Path::new("/data")), &[]).unwrap();
    let (ints, floats) = (&got[0].1[0], &got[1].1[0]);
    assert_eq!((ints.range, floats.range), (TimeRange::new(0, 80), TimeRange::new(70, 80)));
    let read: Vec<_> = IntIter::new(&ints.bytes).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [0, 1, 5, 6, 7, 8].map(sample));
    let read: Vec<_> = FloatIter::new(&floats.bytes).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [7, 8].map(sample).map(float));
}

#[test]
fn histograms_that_do_not_decode_are_found() {
    let (world, _) = memory();
    let mut writer = block::BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    let histogram = chunk::ChunkData {
        range: TimeRange::new(0, 100),
        encoding: chunk::Encoding::Histogram,
        bytes: bytes::Bytes::from_static(b"\0\x02"),
    };
    writer.add_series(&Labels::from_pairs([("a", "1")]).unwrap(), &[histogram]).unwrap();
    writer.finish(spec()).unwrap().unwrap();
    assert_eq!(open(&world, Path::new("/data")).verify().unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_part_of_what_cannot_be_cut_is_refused() {
    let (world, _) = memory();
    let mut writer = block::BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    let aggregate = chunk::ChunkData {
        range: TimeRange::new(0, 100),
        encoding: chunk::Encoding::Aggregate,
        bytes: bytes::Bytes::from_static(b"\x08\x01\0\x02whatev"),
    };
    writer.add_series(&Labels::from_pairs([("a", "1")]).unwrap(), std::slice::from_ref(&aggregate)).unwrap();
    let meta = writer.finish(spec()).unwrap().unwrap();
    assert_eq!((meta.stats.num_samples, meta.stats.num_float_samples), (2, 0));
    let dir = Path::new("/data").join(ID);
    let block = open(&world, Path::new("/data"));
    assert_eq!(try_select(&block, &[]).unwrap()[0].1, [aggregate]);
    let number = block.all_series().unwrap()[0];
    delete(&world, &dir, &[(number, 50, 60)]);
    let error = try_select(&open(&world, Path::new("/data")), &[]).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    world.disk.write_atomic(&dir.join("tombstones"), b"damaged").unwrap();
    assert_eq!(block::Block::open(&world, &dir).err().unwrap().kind, Kind::Corrupt);
}

#[test]
fn a_deletion_is_noted_at_once_and_taken_out_by_a_rewrite() {
    let (world, _) = memory();
    let series = testkit::parse_load("a 1x8\nb 1x8\nc 1x8", 0, 10).unwrap();
    let parent = Path::new("/data");
    write(&world, parent, &series, 3);
    let block = open(&world, parent);
    let only = |name: &str| vec![model::Matcher::equal("__name__", name)];
    assert!(block.delete(&world, &only("nobody"), TimeRange::ALL).unwrap().is_none());
    assert!(block.delete(&world, &only("a"), TimeRange::new(1000, 2000)).unwrap().is_none());
    let block = block.delete(&world, &only("b"), TimeRange::ALL).unwrap().unwrap();
    let block = block.delete(&world, &only("a"), TimeRange::new(15, 35)).unwrap().unwrap();
    assert!(block.has_deletions());
    let wanted = read(&block);
    assert_eq!(wanted.iter().map(|s| s.0.metric_name()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(wanted[0].1.iter().map(|s| s.timestamp).collect::<Vec<_>>(), [0, 10, 40, 50, 60, 70, 80]);
    let id = block.rewrite(&world, parent).unwrap().unwrap();
    let anew = block::Block::open(&world, &parent.join(id.to_string())).unwrap();
    anew.verify().unwrap();
    assert_eq!(read(&anew), wanted);
    assert!(!anew.has_deletions());
    assert_eq!((anew.meta().min_time, anew.meta().max_time), (block.meta().min_time, block.meta().max_time));
    assert_eq!(
        anew.meta().thanos.as_ref().map(|t| &t.labels),
        block.meta().thanos.as_ref().map(|t| &t.labels)
    );
    let nothing = anew.delete(&world, &[], TimeRange::ALL).unwrap().unwrap();
    assert!(nothing.rewrite(&world, parent).unwrap().is_none());
}
