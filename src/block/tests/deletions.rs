//! Tombstones that somebody else wrote are obeyed: whole chunks go, parts of float chunks are cut out.

mod common;

use std::path::Path;

use block::index::cursor::{put_uvarint, put_varint};
use common::*;
use model::{Kind, Labels, TimeRange};
use runtime::World;

/// Writing tombstones is not the crate's business, so the test does it.
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
fn a_part_of_what_cannot_be_cut_is_refused() {
    let (world, _) = memory();
    let mut writer = block::BlockWriter::create(&world, Path::new("/data"), id()).unwrap();
    let histogram = chunk::ChunkData {
        range: TimeRange::new(0, 100),
        encoding: chunk::Encoding::Histogram,
        bytes: bytes::Bytes::from_static(b"\0\x02whatever"),
    };
    writer.add_series(&Labels::from_pairs([("a", "1")]).unwrap(), std::slice::from_ref(&histogram)).unwrap();
    let meta = writer.finish(spec()).unwrap().unwrap();
    assert_eq!((meta.stats.num_histogram_samples, meta.stats.num_float_samples), (2, 0));
    let dir = Path::new("/data").join(ID);
    let block = open(&world, Path::new("/data"));
    assert_eq!(try_select(&block, &[]).unwrap()[0].1, [histogram]);
    let number = block.all_series().unwrap()[0];
    delete(&world, &dir, &[(number, 50, 60)]);
    let error = try_select(&open(&world, Path::new("/data")), &[]).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    world.disk.write_atomic(&dir.join("tombstones"), b"damaged").unwrap();
    assert_eq!(block::Block::open(&world, &dir).err().unwrap().kind, Kind::Corrupt);
}
