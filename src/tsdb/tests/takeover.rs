//! A Thanos Receive's data folder: its blocks are served and shipped from here on, whenever the start is broken off; logs
//! with samples refuse the start, and say the way out.

mod rig;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use rig::{HOUR, MINUTE, NOON, Rig, settings};
use runtime::{Disk, World};
use testkit::{MemDisk, Replay};
use tsdb::{Error, Tsdb};

fn world(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), NOON, 1).0
}

fn copy(disk: &MemDisk, from: &MemDisk, path: &Path, to: &Path) {
    let content = from.read(path).unwrap();
    disk.create_dir_all(to.parent().unwrap()).unwrap();
    let file = disk.create(to).unwrap();
    file.write_all_at(&content, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(to.parent().unwrap()).unwrap();
}

/// A disk with the folder as Thanos leaves it, and what is in its blocks.
fn thanos() -> (MemDisk, rig::Samples) {
    let rig = Rig::new();
    for step in 0..60 {
        let t = NOON - 6 * HOUR + step * MINUTE;
        rig.push("team", "m", &[(t, step as f64)]);
    }
    rig.tsdb.cut(NOON, true).unwrap();
    let want = rig.read("team");
    let disk = MemDisk::new();
    let blocks = Path::new("/data/blocks/team");
    for file in rig.disk.files() {
        if let Ok(rest) = file.strip_prefix(blocks) {
            copy(&disk, &rig.disk, &file, &Path::new("/data/team").join(rest));
        }
    }
    let uploads = disk.create(Path::new("/data/team/thanos.shipper.json")).unwrap();
    uploads.write_all_at(b"{\"version\":1}", 0).unwrap();
    disk.create_dir_all(Path::new("/data/team/wal")).unwrap();
    disk.create_dir_all(Path::new("/data/lost+found")).unwrap();
    disk.sync_dir(Path::new("/data/team")).unwrap();
    (disk, want)
}

fn open(disk: &MemDisk) -> Result<Arc<Tsdb>, Error> {
    Tsdb::open(world(disk), settings())
}

fn read(tsdb: &Tsdb) -> rig::Samples {
    rig::read(tsdb, "team", model::TimeRange::ALL, Vec::new())
}

#[test]
fn blocks_of_a_thanos_receive_are_taken_over() {
    let (disk, want) = thanos();
    assert!(!want.is_empty());
    tsdb::recognise(&world(&disk), Path::new("/data")).unwrap();
    let tsdb = open(&disk).unwrap();
    assert_eq!(read(&tsdb), want);
    drop(tsdb);
    assert!(disk.exists(Path::new("/data/taken-over/team/thanos.shipper.json")));
    assert!(!disk.exists(Path::new("/data/team")));
    assert_eq!(read(&open(&disk).unwrap()), want);
}

#[test]
fn logs_with_samples_refuse_the_start_untouched() {
    for log in ["wal/00000003", "wbl/00000000", "chunks_head/000001", "wal/checkpoint.00000002/00000000"] {
        let (disk, _) = thanos();
        let path = PathBuf::from("/data/team").join(log);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.create(&path).unwrap();
        let before = disk.files();
        let error = open(&disk).err().unwrap();
        assert_eq!(error.kind, Kind::Refused, "{error}");
        assert!(error.message.contains("SIGTERM") && error.message.contains("/data/team"), "{error}");
        assert_eq!(disk.files(), before);
    }
    // A folder that is nobody's is not taken for a tenant's.
    let (disk, _) = thanos();
    disk.create_dir_all(Path::new("/data/photos/2024")).unwrap();
    assert_eq!(open(&disk).err().unwrap().kind, Kind::Refused);
    assert!(disk.exists(Path::new("/data/team")));
}

#[test]
fn a_takeover_that_is_broken_off_is_taken_up_again() {
    let (before, want) = thanos();
    // The same again on a disk that records from its beginning.
    let disk = MemDisk::new();
    disk.record();
    for file in before.files() {
        copy(&disk, &before, &file, &file);
    }
    let from = disk.recorded();
    drop(open(&disk).unwrap());
    let mut replay = Replay::of(&disk);
    let mut cuts = 0;
    while replay.step().unwrap() {
        if replay.done() < from {
            continue;
        }
        for seed in 0..3 {
            let tsdb =
                open(&replay.crash(seed)).unwrap_or_else(|error| panic!("at {}: {error}", replay.next()));
            assert_eq!(read(&tsdb), want, "at {}", replay.next());
            cuts += 1;
        }
    }
    assert!(cuts > 30, "{cuts}");
}
