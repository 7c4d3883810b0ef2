//! A crash at any write or sync leaves the whole block or none.

mod common;

use std::path::Path;
use std::sync::Arc;

use block::{Block, BlockId, BlockWriter};
use common::*;
use model::Kind;
use runtime::World;
use testkit::{MemDisk, Replay};

const LOAD: &str = r#"
    a{x="1"} 1x50
    a{x="2"} 0+1x50
    b{x="1"} 7 stale 8
"#;

fn world_on(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), 1_709_000_000_000, 1).0
}

fn prepared() -> MemDisk {
    let disk = MemDisk::new();
    let world = world_on(&disk);
    world.disk.create_dir_all(Path::new("/data")).unwrap();
    world.disk.sync_dir(Path::new("/data")).unwrap();
    disk
}

fn try_write(world: &World, series: &Series) -> Result<Option<block::Meta>, block::Error> {
    let mut writer = BlockWriter::create(world, Path::new("/data"), id())?.with_segment_size(60);
    for (labels, samples) in series {
        writer.add_series(labels, &samples.chunks(20).map(chunk_of).collect::<Vec<_>>())?;
    }
    writer.finish(spec())
}

#[test]
fn the_whole_block_or_none() {
    let series = testkit::parse_load(LOAD, 0, 15_000).unwrap();
    let disk = prepared();
    let before = disk.ops();
    try_write(&world_on(&disk), &series).unwrap();
    let steps = disk.ops() - before;
    assert!(steps > 15, "{steps}");
    let (mut whole, mut none) = (0, 0);
    for step in 0..=steps {
        let disk = prepared();
        disk.fail_after(step);
        let outcome = try_write(&world_on(&disk), &series);
        assert_eq!(outcome.is_ok(), step == steps, "step {step}");
        for seed in 0..20 {
            let after = disk.crash(seed);
            let world = world_on(&after);
            match block::list(&world, Path::new("/data")).unwrap()[..] {
                [] => {
                    none += 1;
                    assert!(outcome.is_err(), "the caller was told that the block is there");
                }
                [found] => {
                    whole += 1;
                    assert_eq!(found, id());
                    let block = Block::open(&world, &Path::new("/data").join(ID));
                    let block = block.unwrap_or_else(|e| panic!("step {step}, seed {seed}: {e}"));
                    block.verify().unwrap();
                    assert_eq!(read(&block), series);
                }
                ref many => panic!("{many:?}"),
            }
            block::remove_leftovers(&world, Path::new("/data")).unwrap();
            assert!(world.disk.list(Path::new("/data")).unwrap().iter().all(|n| n == ID));
        }
    }
    assert!(whole > 20 && none > 20, "{whole} {none}");
}

#[test]
fn a_removal_never_leaves_half_a_block() {
    let series = testkit::parse_load(LOAD, 0, 15_000).unwrap();
    for step in 0..6 {
        let disk = prepared();
        let world = world_on(&disk);
        try_write(&world, &series).unwrap();
        disk.fail_after(step);
        let _ = block::remove(&world, Path::new("/data"), id());
        for seed in 0..20 {
            let world = world_on(&disk.crash(seed));
            for found in block::list(&world, Path::new("/data")).unwrap() {
                let block = Block::open(&world, &Path::new("/data").join(found.to_string())).unwrap();
                assert_eq!(read(&block), series);
            }
        }
    }
}

/// Two blocks are written and the first is removed, once; the machine stops after each operation, many times over.
#[test]
fn blocks_are_whole_or_not_there_wherever_the_machine_stops() {
    const CUTS: usize = 8_000;
    let series = testkit::parse_load(LOAD, 0, 15_000).unwrap();
    let disk = MemDisk::new();
    disk.record();
    let world = world_on(&disk);
    world.disk.create_dir_all(Path::new("/data")).unwrap();
    world.disk.sync_dir(Path::new("/data")).unwrap();
    let other = BlockId::parse("01HQ3ZK8G0000000000000000B").unwrap();
    let mut written = Vec::new();
    for id in [id(), other] {
        let mut writer = BlockWriter::create(&world, Path::new("/data"), id).unwrap().with_segment_size(60);
        for (labels, samples) in &series {
            writer.add_series(labels, &samples.chunks(20).map(chunk_of).collect::<Vec<_>>()).unwrap();
        }
        writer.finish(spec()).unwrap();
        written.push((id, disk.recorded()));
    }
    let removing = disk.recorded();
    block::remove(&world, Path::new("/data"), id()).unwrap();
    let removed = disk.recorded();
    let mut replay = Replay::of(&disk);
    let per_cut = CUTS.div_ceil(replay.len() + 1) as u64;
    let mut cuts = 0;
    loop {
        let cut = replay.done();
        for n in 0..per_cut {
            let seed = if n == 0 { 0 } else { cut as u64 * per_cut + n };
            let context = format!("stopped before operation {cut} ({}), seed {seed}", replay.next());
            let world = world_on(&replay.crash(seed));
            cuts += 1;
            if !world.disk.exists(Path::new("/data")) {
                assert!(cut < 2, "{context}");
                continue;
            }
            block::remove_leftovers(&world, Path::new("/data")).unwrap();
            let found = block::list(&world, Path::new("/data")).unwrap();
            for found in &found {
                let block = Block::open(&world, &Path::new("/data").join(found.to_string()));
                let block = block.unwrap_or_else(|error| panic!("{context}: {error}"));
                block.verify().unwrap_or_else(|error| panic!("{context}: {error}"));
                if n % 8 == 0 {
                    assert_eq!(read(&block), series, "{context}");
                }
            }
            for (block, at) in &written {
                let going = *block == id() && cut > removing;
                assert!(found.contains(block) || cut < *at || going, "{context}: {block} is lost");
            }
            assert!(cut < removed || found == [other], "{context}: {found:?}");
            let names = world.disk.list(Path::new("/data")).unwrap();
            assert_eq!(names.len(), found.len(), "{context}: {names:?}");
        }
        if !replay.step().unwrap() {
            break;
        }
    }
    println!("{cuts} stops over {} operations", replay.len());
    assert!(cuts >= CUTS, "{cuts}");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let series = testkit::parse_load(LOAD, 0, 15_000).unwrap();
    let disk = prepared().with_capacity_limit(700);
    let world = world_on(&disk);
    let error = try_write(&world, &series).unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted, "{error}");
    assert!(error.message.contains("free space"), "{error}");
    assert_eq!(disk.used(), 0);
    disk.set_capacity_limit(None);
    try_write(&world, &series).unwrap();
}

#[test]
fn two_writers_do_not_meet() {
    let (world, _) = memory();
    let parent = Path::new("/data");
    let series = testkit::parse_load(LOAD, 0, 15_000).unwrap();
    write(&world, parent, &series, 20);
    // The same identity again cannot replace the block that is there.
    let mut again = BlockWriter::create(&world, parent, id()).unwrap();
    again.add_series(&series[0].0, &[chunk_of(&series[0].1)]).unwrap();
    assert!(again.finish(spec()).is_err());
    assert_eq!(read(&open(&world, parent)), series);
    assert_ne!(BlockId::new(&world), BlockId::new(&world));
}
