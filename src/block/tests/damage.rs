//! Damaged files are seen, or do not matter: never a panic, never silently other samples.

mod common;

use std::path::{Path, PathBuf};

use block::{Block, BlockWriter};
use common::*;
use model::{Kind, Matcher};
use runtime::World;
use testkit::MemDisk;

const LOAD: &str = r#"
    a{x="1"} 1 2 3 4 5 6
    a{x="2", y="é"} 0.1 stale NaN -0
    b{x="1"} 7x20
"#;

fn load() -> Series {
    testkit::parse_load(LOAD, 1_709_000_000_000, 15_000).unwrap()
}

fn written() -> (World, MemDisk, Vec<PathBuf>) {
    let (world, disk) = memory();
    let writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap().with_segment_size(60);
    write_with(writer, &load(), 3).unwrap();
    let files = disk.files();
    (world, disk, files)
}

/// Everything that can be asked of a block; an error as soon as one question has none.
fn ask(world: &World) -> Result<(Series, Series), block::Error> {
    let block = Block::open(world, &Path::new("/data").join(ID))?;
    let decode = |entries: Vec<Entry>| -> Result<Series, block::Error> {
        let decode = |(labels, chunks): Entry| match try_samples(&chunks) {
            Ok(samples) => Ok((labels, samples)),
            Err(e) => Err(block::Error::corrupt(e.to_string())),
        };
        entries.into_iter().map(decode).collect()
    };
    let all = decode(try_select(&block, &[])?)?;
    let some = decode(try_select(&block, &[Matcher::equal("x", "1")])?)?;
    block.label_values("x", &[], model::TimeRange::ALL, 0)?;
    Ok((all, some))
}

fn truth() -> (Series, Series) {
    let all = load();
    let some = all.iter().filter(|(l, _)| l.value("x") == "1").cloned().collect();
    (all, some)
}

#[test]
fn every_flipped_bit_is_seen_or_harmless() {
    let (world, disk, files) = written();
    assert_eq!(ask(&world).unwrap(), truth());
    assert!(files.len() > 4);
    let (mut seen, mut harmless) = (0, 0);
    for file in &files {
        let size = disk.read_len(file);
        for bit in 0..size * 8 {
            let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
            disk.damage(file, flip).unwrap();
            match ask(&world) {
                Ok(answer) => {
                    harmless += 1;
                    assert_eq!(answer, truth(), "bit {bit} of {}", file.display());
                }
                Err(e) => {
                    seen += 1;
                    assert!(matches!(e.kind, Kind::Corrupt | Kind::Refused), "{e}");
                    assert!(e.message.contains("/data/"), "{e} names no file");
                }
            }
            disk.damage(file, flip).unwrap();
        }
    }
    assert_eq!(ask(&world).unwrap(), truth());
    println!("{seen} flipped bits were seen, {harmless} did not matter");
    assert!(seen > harmless);
}

#[test]
fn every_truncation_is_seen() {
    let (world, disk, files) = written();
    for file in &files {
        let mut whole = Vec::new();
        disk.damage(file, |bytes| whole = bytes.clone()).unwrap();
        for end in 0..whole.len() {
            disk.damage(file, |bytes| bytes.truncate(end)).unwrap();
            let error = ask(&world).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{} cut to {end}: {error}", file.display());
            disk.damage(file, |bytes| *bytes = whole.clone()).unwrap();
        }
    }
}

/// Without the sizes in `meta.json`, as in a block that Prometheus wrote.
#[test]
fn truncation_is_seen_without_sizes_too() {
    let (world, disk, files) = written();
    let meta = files.iter().find(|f| f.ends_with("meta.json")).unwrap();
    let mut plain = block::Meta::parse(&world.disk.read(meta).unwrap()).unwrap();
    plain.thanos = None;
    disk.damage(meta, |bytes| *bytes = plain.to_json().unwrap()).unwrap();
    assert_eq!(ask(&world).unwrap(), truth());
    for file in files.iter().filter(|f| *f != meta) {
        let mut whole = Vec::new();
        disk.damage(file, |bytes| whole = bytes.clone()).unwrap();
        for end in 0..whole.len() {
            disk.damage(file, |bytes| bytes.truncate(end)).unwrap();
            assert!(ask(&world).is_err(), "{} cut to {end}", file.display());
            disk.damage(file, |bytes| *bytes = whole.clone()).unwrap();
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    for at in 0..written().2.len() {
        let (world, disk, files) = written();
        runtime::Disk::remove_file(&disk, &files[at]).unwrap();
        let error = ask(&world).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("/data/01HQ"), "{error}");
    }
}

trait ReadLen {
    fn read_len(&self, path: &Path) -> usize;
}

impl ReadLen for MemDisk {
    fn read_len(&self, path: &Path) -> usize {
        runtime::Disk::len(self, path).unwrap() as usize
    }
}
