//! A log refused as damaged is salvaged: the engine opens the new one with everything but what the damage took.

mod rig;

use std::path::{Path, PathBuf};

use model::Kind;
use rig::{HOUR, MINUTE, NOON, Rig};

/// Puts the salvaged log in the place of the damaged one, as an operator would.
fn exchange(rig: &Rig) -> tsdb::Salvaged {
    let (wal, new) = (Path::new("/data/wal"), Path::new("/salvaged"));
    let done = tsdb::salvage(&rig.world, wal, new).unwrap();
    rig.world.disk.rename(wal, Path::new("/damaged")).unwrap();
    rig.world.disk.rename(new, wal).unwrap();
    done
}

fn segments(rig: &Rig) -> Vec<PathBuf> {
    let wal = Path::new("/data/wal");
    let mut names = rig.world.disk.list(wal).unwrap();
    names.retain(|name| name.starts_with("segment-"));
    names.sort();
    names.iter().map(|name| wal.join(name)).collect()
}

/// Bends a byte of the first place where `needle` stands in the log.
fn bend(rig: &Rig, needle: &[u8]) {
    for path in segments(rig) {
        let mut bytes = rig.world.disk.read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            bytes[at] ^= 1;
            rig.world.disk.write_atomic(&path, &bytes).unwrap();
            return;
        }
    }
    panic!("it is nowhere in the log");
}

/// Lets nobody have the folder open; what was in memory is gone.
fn stop(rig: &mut Rig) {
    let settings = tsdb::Settings { dir: PathBuf::from("/elsewhere"), ..rig.settings.clone() };
    let (elsewhere, _) = testkit::world(std::sync::Arc::new(testkit::MemDisk::new()), NOON, 1);
    rig.tsdb = tsdb::Tsdb::open(elsewhere, settings).unwrap();
}

#[test]
fn lost_samples_are_counted_and_all_others_are_there_t11() {
    let mut rig = Rig::new();
    for i in 0..50i64 {
        rig.push("t", "a", &[(NOON + i, i as f64)]);
        rig.push("t", "b", &[(NOON + i, std::f64::consts::PI + i as f64)]);
    }
    stop(&mut rig);
    bend(&rig, &(std::f64::consts::PI + 10.0).to_bits().to_le_bytes());
    let refused = rig.reopen().unwrap_err();
    assert_eq!(refused.kind, Kind::Corrupt);
    assert!(refused.message.contains("tools wal salvage"), "{refused}");
    let done = exchange(&rig);
    assert_eq!((done.losses.lost_records(), done.orphans, done.samples), (1, 0, 99));
    rig.reopen().unwrap();
    let a: Vec<(i64, f64)> = (0..50).map(|i| (NOON + i, i as f64)).collect();
    let b: Vec<(i64, f64)> =
        (0..50).filter(|i| *i != 10).map(|i| (NOON + i, std::f64::consts::PI + i as f64)).collect();
    rig.expect("t", &[("a", &a), ("b", &b)]);
    // The node goes on as any, over restarts.
    rig.push("t", "c", &[(NOON + 100, 1.0)]);
    rig.kill();
    rig.expect("t", &[("a", &a), ("b", &b), ("c", &[(NOON + 100, 1.0)])]);
}

#[test]
fn samples_whose_labels_are_lost_do_not_keep_the_others_from_coming_back() {
    let mut rig = Rig::new();
    rig.push("t", "a", &[(NOON, 1.0)]);
    rig.push("t", "lost_labels", &[(NOON, 2.0)]);
    for i in 1..20 {
        rig.push("t", "a", &[(NOON + i, 1.0)]);
        rig.push("t", "lost_labels", &[(NOON + i, 2.0)]);
    }
    stop(&mut rig);
    bend(&rig, b"lost_labels");
    assert_eq!(rig.reopen().unwrap_err().kind, Kind::Corrupt);
    let done = exchange(&rig);
    assert!(done.losses.lost_records() >= 1, "{done:?}");
    assert_eq!(done.orphans, 20 - (40 - done.samples), "{done:?}");
    rig.reopen().unwrap();
    let a: Vec<(i64, f64)> = (0..20).map(|i| (NOON + i, 1.0)).collect();
    rig.expect("t", &[("a", &a)]);
}

#[test]
fn a_lost_mark_of_a_cut_costs_no_block_t11() {
    let mut rig = Rig::new();
    let samples: Vec<(i64, f64)> = (0..50).map(|i| (NOON - HOUR + i * MINUTE, i as f64)).collect();
    rig.push("t", "a", &samples);
    rig.clock.advance(4 * HOUR);
    let cut = rig.tsdb.cut(rig.now(), true).unwrap();
    let id = cut[0].id.to_string();
    let late = (rig.now(), 1.0);
    rig.push("t", "a", &[late]);
    stop(&mut rig);
    // The second place where the block is named is the mark of its cut.
    for path in segments(&rig) {
        let mut bytes = rig.world.disk.read(&path).unwrap();
        if let Some(at) = bytes.windows(26).rposition(|w| w == id.as_bytes()) {
            bytes[at] ^= 1;
            rig.world.disk.write_atomic(&path, &bytes).unwrap();
            break;
        }
    }
    assert_eq!(rig.reopen().unwrap_err().kind, Kind::Corrupt);
    let done = exchange(&rig);
    assert_eq!(done.losses.lost_records(), 1);
    assert!(!done.left_out.is_empty(), "freezes without their cut are left out");
    rig.reopen().unwrap();
    assert_eq!(rig.tsdb.local_blocks(&rig::tenant("t")).len(), 1, "the block is there");
    let all: Vec<(i64, f64)> = samples.iter().copied().chain([late]).collect();
    rig.expect("t", &[("a", &all)]);
}
