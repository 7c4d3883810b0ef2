//! A spool is damaged in each of its regions: it is refused, mended, and has everything then that was not damaged itself; what
//! was lost is named and the file as it was is kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use proptest::prelude::*;
use runtime::{Disk, World};
use testkit::{MemDisk, Replay};
use wal::{Damage, Error, Place, Spool};

const DIR: &str = "/data/spool";
const ASIDE: &str = "/data/spool.damaged-1";
const HEADER: usize = 64;

fn payload(n: u64) -> Vec<u8> {
    let mut out = n.to_le_bytes().to_vec();
    out.resize(8 + (n * 53 % 900) as usize, n as u8);
    out
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("a number"))
}

fn world(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), 0, 1).0
}

fn open(disk: &MemDisk) -> Result<(Spool, Vec<u64>), Error> {
    let mut numbers = Vec::new();
    let spool = Spool::open::<Error>(&world(disk), Path::new(DIR), 4096, &mut |_, _, bytes| {
        assert_eq!(bytes, payload(number(bytes)));
        numbers.push(number(bytes));
        Ok(())
    })?;
    Ok((spool, numbers))
}

fn mend(disk: &MemDisk) -> Vec<Damage> {
    let mut told = Vec::new();
    let count =
        wal::mend(&world(disk), Path::new(DIR), Path::new(ASIDE), &mut |damage| told.push(damage.clone()));
    assert_eq!(count.unwrap(), told.len());
    told
}

/// A disk with records up to `last`, each synced; and where each lies.
fn filled(last: u64) -> (MemDisk, Vec<Place>) {
    let disk = MemDisk::new();
    disk.record();
    let (mut spool, _) = open(&disk).unwrap();
    let mut places = Vec::new();
    for n in 1..=last {
        places.push(spool.append(1, &[&payload(n)]).unwrap());
        spool.sync().unwrap();
    }
    (disk, places)
}

fn path(index: u64) -> PathBuf {
    Path::new(DIR).join(format!("segment-{index:012}"))
}

/// Damaged so, the spool is refused, mended, and then has all records but `lost`, is read as it was found, goes on, and is as
/// it was left when it is opened again.
fn check(
    disk: &MemDisk,
    places: &[Place],
    segment: u64,
    lost: &[u64],
    harm: impl FnOnce(&mut Vec<u8>),
) -> Damage {
    let before = disk.read(&path(segment)).unwrap();
    disk.damage(&path(segment), harm).unwrap();
    let harmed = disk.read(&path(segment)).unwrap();
    assert_ne!(harmed, before);
    assert_eq!(open(disk).err().unwrap().kind, Kind::Corrupt);
    let told = mend(disk);
    let [damage] = &told[..] else { panic!("{told:?}") };
    assert_eq!(damage.segment, format!("segment-{segment:012}"));
    // Nobody knows which number the first one had.
    let known = lost.iter().filter(|n| **n > 1).count();
    assert_eq!(damage.records, known as u64);
    if let Some(aside) = &damage.aside {
        assert_eq!(disk.read(aside).unwrap(), harmed, "kept as it was");
    }
    let last = places.len() as u64;
    let mut left: Vec<u64> = (1..=last).filter(|n| !lost.contains(n)).collect();
    for more in [last + 1, last + 2] {
        let (mut spool, found) = open(disk).unwrap();
        assert_eq!(found, left);
        assert_eq!(spool.healed(), 0);
        spool.append(1, &[&payload(more)]).unwrap();
        left.push(more);
        let (mut place, mut read) = (Place::default(), Vec::new());
        while let Some((_, bytes)) = spool.read(&mut place).unwrap() {
            read.push(number(&bytes));
        }
        assert_eq!(read, left);
        spool.sync().unwrap();
    }
    assert_eq!(mend(disk), []);
    damage.clone()
}

/// Numbers of the records in a segment.
fn of(places: &[Place], segment: u64) -> Vec<u64> {
    (1u64..).zip(places).filter(|(_, place)| place.segment == segment).map(|(n, _)| n).collect()
}

#[test]
fn a_damaged_header_costs_no_record() {
    for which in 0..3 {
        let (disk, places) = filled(30);
        let last = places.last().unwrap().segment;
        let segment = [1, last / 2, last][which];
        let damage = check(&disk, &places, segment, &[], |bytes| bytes[3] ^= 1);
        assert_eq!((damage.at, damage.bytes), (0, 64));
        assert!(damage.aside.is_some());
    }
}

#[test]
fn a_damaged_record_costs_itself() {
    let (_, places) = filled(30);
    let last = places.last().unwrap().segment;
    for segment in [1, last / 2, last] {
        let within = of(&places, segment);
        for n in [within[0], within[within.len() / 2], within[within.len() - 1]] {
            if n == 30 {
                continue;
            }
            let place = places[n as usize - 1];
            // In its payload, in its mark, in its length, in its number.
            for byte in [30, 0, 6, 17] {
                let (disk, places) = filled(30);
                let at = place.offset as usize;
                let damage = check(&disk, &places, segment, &[n], |bytes| bytes[at + byte] ^= 0x41);
                let size = wal::framed_len(payload(n).len()) as u64;
                assert_eq!((damage.at, damage.bytes), (place.offset, size), "record {n}, byte {byte}");
            }
        }
    }
}

#[test]
fn an_end_that_is_gone_is_named_and_what_follows_is_kept() {
    let (disk, places) = filled(30);
    let within = of(&places, 2);
    let n = within[within.len() - 2];
    let cut = places[n as usize - 1].offset as usize;
    let lost = [n, n + 1];
    // At the edge of a record nothing is left to keep.
    let damage = check(&disk, &places, 2, &lost, |bytes| bytes.truncate(cut));
    assert_eq!((damage.at, damage.bytes, damage.aside), (cut as u64, 0, None));
    let (disk, places) = filled(30);
    let damage = check(&disk, &places, 2, &lost, |bytes| bytes.truncate(cut + 27));
    assert_eq!((damage.at, damage.bytes), (cut as u64, 27));
    // Zeroes where records were are no end.
    let (disk, places) = filled(30);
    check(&disk, &places, 2, &lost, |bytes| bytes[cut..].fill(0));
}

#[test]
fn the_torn_end_of_the_last_segment_heals_by_itself() {
    let (disk, places) = filled(30);
    let last = *places.last().unwrap();
    disk.damage(&path(last.segment), |bytes| bytes[last.offset as usize + 30] ^= 1).unwrap();
    let (spool, found) = open(&disk).unwrap();
    assert_eq!(found, (1..=29).collect::<Vec<_>>());
    assert_eq!(spool.healed(), wal::framed_len(payload(30).len()) as u64);
}

#[test]
fn a_segment_that_was_torn_when_it_was_made_heals_by_itself() {
    for len in [0, 7, HEADER] {
        let (disk, places) = filled(30);
        let torn = places.last().unwrap().segment + 1;
        let file = disk.create(&path(torn)).unwrap();
        file.write_all_at(&vec![0x55; len], 0).unwrap();
        let (mut spool, found) = open(&disk).unwrap();
        assert_eq!((found.len(), spool.healed()), (30, len as u64));
        spool.append(1, &[&payload(31)]).unwrap();
        spool.sync().unwrap();
        let (spool, found) = open(&disk).unwrap();
        assert_eq!((found.len(), spool.healed()), (31, 0));
    }
    // One that has records, or others behind it, was not torn.
    let (disk, places) = filled(30);
    check(&disk, &places, 2, &of(&places, 2), |bytes| bytes.truncate(20));
    let (disk, places) = filled(30);
    let last = places.last().unwrap().segment;
    disk.damage(&path(last), |bytes| bytes.fill(0)).unwrap();
    assert!(open(&disk).is_err());
    let told = mend(&disk);
    let size = disk.len(told[0].aside.as_deref().unwrap()).unwrap();
    assert_eq!((told.len(), told[0].at, told[0].bytes), (1, 0, size), "{told:?}");
    assert_eq!(open(&disk).unwrap().1.len() as u64, of(&places, last)[0] - 1);
}

#[test]
fn a_segment_that_is_gone_is_named() {
    let (disk, places) = filled(30);
    disk.remove_file(&path(2)).unwrap();
    assert_eq!(open(&disk).err().unwrap().kind, Kind::Corrupt);
    let lost = of(&places, 2);
    let told = mend(&disk);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].records, told[0].bytes), (lost.len() as u64, 0));
    let (_, found) = open(&disk).unwrap();
    assert_eq!(found, (1..=30).filter(|n| !lost.contains(n)).collect::<Vec<_>>());
}

#[test]
fn a_newer_format_is_not_damage() {
    let (disk, _) = filled(30);
    disk.damage(&path(2), |bytes| {
        bytes[8] = 9;
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    })
    .unwrap();
    let before = disk.read(&path(2)).unwrap();
    let refused = wal::mend(&world(&disk), Path::new(DIR), Path::new(ASIDE), &mut |_| panic!("damage"));
    assert_eq!(refused.unwrap_err().kind, Kind::Refused);
    assert_eq!(disk.read(&path(2)).unwrap(), before);
}

/// A payload that looks like a record, with a number far ahead, behind a record whose header is damaged.
#[test]
fn what_stands_in_a_payload_is_not_taken_for_a_record() {
    let disk = MemDisk::new();
    let (mut spool, _) = open(&disk).unwrap();
    let at = (1..=3).map(|n| spool.append(1, &[&payload(n)]).unwrap()).last().unwrap();
    let mut forged = Vec::new();
    for seq in 40u64..60 {
        let from = forged.len();
        forged.extend_from_slice(b"TW\x01\x01\x08\0\0\0\0\0\0\0\0\0\0\0");
        forged.extend_from_slice(&seq.to_le_bytes());
        forged.extend_from_slice(&seq.to_le_bytes());
        let sum = crc32c::crc32c(&forged[from..from + 8]);
        let sum = crc32c::crc32c_append(sum, &forged[from + 12..]);
        forged[from + 8..from + 12].copy_from_slice(&sum.to_le_bytes());
    }
    let bad = spool.append(1, &[&forged]).unwrap();
    spool.sync().unwrap();
    spool.append(1, &[&payload(5)]).unwrap();
    spool.sync().unwrap();
    drop(spool);
    assert_eq!(at.segment, bad.segment);
    disk.damage(&path(bad.segment), |bytes| bytes[bad.offset as usize] ^= 1).unwrap();
    assert_eq!(mend(&disk).len(), 1);
    assert_eq!(open(&disk).unwrap().1, [1, 2, 3, 5]);
}

/// Stopped at any operation of the mending, it is mended the next time and nothing more is lost.
#[test]
fn every_cut_of_the_mending_loses_nothing_more() {
    let (disk, places) = filled(30);
    let damaged = [4u64, 15, 16];
    for n in damaged {
        let place = places[n as usize - 1];
        let file = disk.open(&path(place.segment)).unwrap();
        file.write_all_at(b"bad", place.offset + 26).unwrap();
        file.sync_data().unwrap();
    }
    let before = disk.recorded();
    mend(&disk);
    let left: Vec<u64> = (1..=30).filter(|n| !damaged.contains(n)).collect();
    let mut replay = Replay::of(&disk);
    let mut steps = 0;
    while replay.step().unwrap() {
        if replay.done() < before {
            continue;
        }
        for seed in 0..4 {
            let disk = replay.crash(seed);
            mend(&disk);
            let (_, found) = open(&disk).unwrap();
            assert_eq!(found, left);
            assert!(disk.exists(Path::new(ASIDE)));
            steps += 1;
        }
    }
    assert!(steps > 40, "{steps}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes are changed wherever: mended, the spool has every record that was not hit, and none that was not written.
    #[test]
    fn what_was_not_hit_is_there(hits in proptest::collection::vec((0usize..30, 0usize..1000, 1u8..), 1..8), heads in 0usize..8) {
        let (disk, places) = filled(30);
        let mut hit = BTreeSet::new();
        for (record, byte, with) in hits {
            let n = record as u64 + 1;
            let place = places[record];
            let size = 24 + payload(n).len();
            disk.damage(&path(place.segment), |bytes| bytes[place.offset as usize + byte % size] ^= with).unwrap();
            hit.insert(n);
        }
        for segment in (1..=3).filter(|at| heads >> (at - 1) & 1 == 1) {
            disk.damage(&path(segment), |bytes| bytes[60] ^= 1).unwrap();
        }
        if open(&disk).is_err() {
            prop_assert!(!mend(&disk).is_empty());
        }
        let (_, found) = open(&disk).unwrap();
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", found);
        for n in 1..=30 {
            prop_assert!(found.contains(&n) || hit.contains(&n), "record {} was not hit: {:?}", n, found);
        }
        prop_assert_eq!(mend(&disk), []);
    }
}
