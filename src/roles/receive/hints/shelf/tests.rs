//! A shelf is filled, read, stopped at any operation and damaged: what was synced and can be read comes, in order, once.

use std::sync::Arc;

use model::TenantId;
use rpc::WriteCall;
use testkit::{MemDisk, Replay};

use super::*;
use crate::pending::tests::batch;

const DIR: &str = "/data/hints/a";

fn bounds(max_bytes: u64) -> Bounds {
    Bounds { max_bytes, max_age: 1000, segment_bytes: 4096 }
}

fn world(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), 0, 1).0
}

fn open(disk: &MemDisk, noted: Option<HintCursor>) -> Result<Shelf, Error> {
    Shelf::open(&world(disk), Path::new(DIR), "a:1", bounds(1 << 20), noted)
}

/// A hint of `n` samples.
fn hint(n: usize, kept_at: i64) -> Vec<u8> {
    let (tenant, rows) = (TenantId::new("t").unwrap(), vec![0]);
    let call = WriteCall { tenant, batch: batch(1, n), rows, replica: 1, judged_at: 5, ring_epoch: 0 };
    frame::encode(&call, kept_at).unwrap().0
}

fn drain(shelf: &mut Shelf, now: i64) -> Vec<u32> {
    let mut out = Vec::new();
    for most in [1, 3, 8].into_iter().cycle() {
        let some = shelf.next(now, most).unwrap();
        if some.is_empty() {
            break;
        }
        for next in some {
            out.push(next.frame.samples);
            shelf.passed(&next.mark()).unwrap();
        }
    }
    out
}

fn first(shelf: &mut Shelf, now: i64) -> Next {
    shelf.next(now, 1).unwrap().remove(0)
}

#[test]
fn hints_come_in_order_once_and_go_on_after_a_restart() {
    let disk = MemDisk::new();
    let mut shelf = open(&disk, None).unwrap();
    for n in 1..=300 {
        shelf.keep(&hint(n, 10)).unwrap();
    }
    shelf.sync().unwrap();
    assert_eq!(shelf.waiting(), (300, 300 * 301 / 2));
    for n in 1..=200 {
        let next = first(&mut shelf, 20);
        assert_eq!(next.frame.samples, n);
        shelf.passed(&next.mark()).unwrap();
    }
    let noted = shelf.cursor();
    drop(shelf);
    let mut again = open(&disk, Some(noted)).unwrap();
    assert_eq!(again.waiting().0, 100);
    assert_eq!(drain(&mut again, 20), (201..=300).collect::<Vec<_>>());
    again.keep(&hint(7, 10)).unwrap();
    assert_eq!(drain(&mut again, 20), [7]);
    drop(again);
    // A note of another life says nothing: what is still there comes again.
    let other = HintCursor { life: [9; 16], ..noted };
    assert!(open(&disk, Some(other)).unwrap().waiting().0 >= 1);
}

#[test]
fn beyond_its_bounds_the_oldest_go() {
    let disk = MemDisk::new();
    let world = world(&disk);
    let mut shelf = Shelf::open(&world, Path::new(DIR), "a:1", bounds(20_000), None).unwrap();
    for n in 1..=400 {
        shelf.keep(&hint(n, n as i64)).unwrap();
        assert!(shelf.bytes() <= 20_000 + 4096, "{}", shelf.bytes());
    }
    let left = drain(&mut shelf, 400);
    assert!(left.len() < 300 && left.last() == Some(&400), "{left:?}");
    assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    shelf.keep(&hint(1, 500)).unwrap();
    shelf.keep(&hint(2, 1600)).unwrap();
    assert_eq!(drain(&mut shelf, 1700), [2], "the first is too old");
    assert_eq!(shelf.waiting(), (0, 0));
    shelf.remove(None).unwrap();
    assert!(!world.disk.exists(Path::new(DIR)));
}

/// Stopped at any operation, with or without a note: what was synced and not passed comes, whole, in order.
#[test]
fn every_crash_keeps_what_was_synced() {
    let disk = MemDisk::new();
    disk.record();
    let mut shelf = open(&disk, None).unwrap();
    // (operations, synced, kept, passed, note)
    let mut marks = vec![(0, 0u32, 0u32, 0u32, None)];
    let mut passed = 0;
    for n in 1..=90u32 {
        shelf.keep(&hint(n as usize, 10)).unwrap();
        let synced = if n % 4 == 0 {
            shelf.sync().unwrap();
            n
        } else {
            marks.last().unwrap().1
        };
        if n % 8 == 0 {
            for _ in 0..5 {
                let next = first(&mut shelf, 20);
                passed = next.frame.samples;
                marks.push((disk.recorded(), synced, n, passed, Some(shelf.cursor())));
                shelf.passed(&next.mark()).unwrap();
            }
        }
        marks.push((disk.recorded(), synced, n, passed, Some(shelf.cursor())));
    }
    let mut replay = Replay::of(&disk);
    while replay.step().unwrap() {
        let at = marks.partition_point(|(ops, ..)| *ops <= replay.done());
        let (_, synced, _, _, note) = marks[at - 1];
        let (_, _, kept, passed, _) = marks[at.min(marks.len() - 1)];
        for seed in 0..4 {
            for noted in [None, note] {
                let mut again = open(&replay.crash(seed), noted).unwrap();
                let found = drain(&mut again, 20);
                assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{found:?}");
                let last = found.last().copied().unwrap_or(passed);
                assert!(last >= synced && last <= kept, "{last} of {synced} to {kept}");
                assert!(found.first().is_none_or(|first| *first <= passed + 1), "{found:?} after {passed}");
            }
        }
    }
}

/// Hints of 1 to 300 samples, all synced, and where each lies.
fn filled(disk: &MemDisk) -> (Shelf, Vec<Place>) {
    let mut shelf = open(disk, None).unwrap();
    for n in 1..=300 {
        shelf.keep(&hint(n, 10)).unwrap();
        shelf.sync().unwrap();
    }
    let places: Vec<Place> = shelf.next(20, 300).unwrap().iter().map(|next| next.place).collect();
    assert!(places.len() == 300 && places[299].segment > 4);
    (shelf, places)
}

fn harm(disk: &MemDisk, segment: u64, at: u64) {
    let path = Path::new(DIR).join(format!("segment-{segment:012}"));
    disk.damage(&path, |bytes| bytes[at as usize] ^= 0x10).unwrap();
}

fn kept_aside(disk: &MemDisk) -> Vec<String> {
    let files = disk.files().into_iter().map(|path| path.display().to_string());
    files.filter(|path| path.contains(mend::DAMAGED)).collect()
}

#[test]
fn damage_costs_what_it_hit_and_all_else_is_delivered_once() {
    let last = filled(&MemDisk::new()).1[299].segment;
    // (the segment whose header is hit, the hint that is hit)
    let cases: [(Option<u64>, Option<usize>); 7] = [
        (Some(1), None),
        (Some(last / 2), None),
        (Some(last), None),
        (None, Some(1)),
        (None, Some(150)),
        (None, Some(298)),
        (Some(2), Some(280)),
    ];
    for (header, hit) in cases {
        for passed in [0, 100] {
            let disk = MemDisk::new();
            let (mut shelf, places) = filled(&disk);
            for _ in 0..passed {
                let next = first(&mut shelf, 20);
                shelf.passed(&next.mark()).unwrap();
            }
            let kept = shelf.spool.segments().next().unwrap().index;
            let noted = (passed > 0).then(|| shelf.cursor());
            drop(shelf);
            let header = header.filter(|segment| *segment >= kept);
            if let Some(segment) = header {
                harm(&disk, segment, 9);
            }
            let hit = hit.filter(|n| *n > passed);
            if let Some(n) = hit {
                harm(&disk, places[n - 1].segment, places[n - 1].offset + 40);
            }
            let mut again = open(&disk, noted).unwrap();
            let wanted: Vec<u32> = (passed as u32 + 1..=300).filter(|n| hit != Some(*n as usize)).collect();
            assert_eq!(again.waiting().0, wanted.len() as u64, "{header:?} {hit:?} {passed}");
            assert_eq!(drain(&mut again, 20), wanted, "{header:?} {hit:?} {passed}");
            let harmed = usize::from(header.is_some()) + usize::from(hit.is_some());
            assert_eq!(kept_aside(&disk).len(), harmed, "{:?}", kept_aside(&disk));
        }
    }
}

#[test]
fn damage_that_comes_while_it_is_read_is_taken_out_of_the_way() {
    let disk = MemDisk::new();
    let (mut shelf, places) = filled(&disk);
    for n in [50, 299] {
        harm(&disk, places[n - 1].segment, places[n - 1].offset + 30);
    }
    shelf.keep(&hint(7, 10)).unwrap();
    let mut found = drain(&mut shelf, 20);
    shelf.keep(&hint(8, 10)).unwrap();
    found.extend(drain(&mut shelf, 20));
    let wanted: Vec<u32> = (1..=300).chain([7, 8]).filter(|n| ![50, 299].contains(n)).collect();
    assert_eq!(found, wanted);
    assert_eq!(kept_aside(&disk).len(), 2);
    assert_eq!(shelf.waiting(), (0, 0));
}

#[test]
fn a_hint_that_is_not_understood_is_kept_and_the_others_are_delivered() {
    let disk = MemDisk::new();
    let mut shelf = open(&disk, None).unwrap();
    shelf.keep(&hint(1, 10)).unwrap();
    shelf.spool.append(HINT, &[&[9; 40]]).unwrap();
    let mut torn = hint(2, 10);
    torn.truncate(15);
    shelf.keep(&torn).unwrap();
    shelf.keep(&hint(3, 10)).unwrap();
    shelf.sync().unwrap();
    drop(shelf);
    let mut shelf = open(&disk, None).unwrap();
    assert_eq!(shelf.waiting().0, 4);
    assert_eq!(drain(&mut shelf, 20), [1, 3]);
    assert_eq!(shelf.waiting().0, 0);
    let kept = kept_aside(&disk);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let first = kept.iter().find(|path| path.ends_with("-3")).unwrap();
    assert_eq!(world(&disk).disk.read(Path::new(first)).unwrap(), [9; 40]);
}

#[test]
fn hints_of_another_are_not_delivered() {
    let disk = MemDisk::new();
    drop(filled(&disk));
    let other = Shelf::open(&world(&disk), Path::new(DIR), "b:1", bounds(1 << 20), None);
    assert_eq!(other.err().unwrap().kind, Kind::Corrupt);
    assert_eq!(kept_aside(&disk), [""; 0]);
}
