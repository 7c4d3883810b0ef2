//! A spool is cut after each operation of its life: what was synced and not dropped comes back in order; a full disk
//! costs one append, and damage in the middle is refused (`mend.rs` goes on from there).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use proptest::prelude::*;
use testkit::{MemDisk, Replay};
use wal::{Error, Place, Spool};

fn dir() -> PathBuf {
    PathBuf::from("/data/spool")
}

fn payload(n: u64) -> Vec<u8> {
    let mut out = n.to_le_bytes().to_vec();
    out.resize(8 + (n * 53 % 900) as usize, n as u8);
    out
}

fn open(disk: &MemDisk) -> Result<(Spool, Vec<u64>), Error> {
    let (world, _) = testkit::world(Arc::new(disk.clone()), 0, 1);
    let mut numbers = Vec::new();
    let spool = Spool::open::<Error>(&world, &dir(), 4096, &mut |_, _, bytes| {
        let number = u64::from_le_bytes(*bytes.first_chunk().expect("a number"));
        assert_eq!(bytes, payload(number));
        numbers.push(number);
        Ok(())
    })?;
    Ok((spool, numbers))
}

/// What is read from a place on.
fn rest(spool: &Spool, mut place: Place) -> Vec<u64> {
    let mut out = Vec::new();
    while let Some((_, bytes)) = spool.read(&mut place).unwrap() {
        out.push(u64::from_le_bytes(*bytes.first_chunk().unwrap()));
    }
    out
}

#[test]
fn what_is_written_is_read_while_it_is_written_and_after_a_restart() {
    let disk = MemDisk::new();
    let (mut spool, _) = open(&disk).unwrap();
    let mut place = Place::default();
    for n in 1..=40u64 {
        spool.append(1, &[&payload(n)]).unwrap();
        assert_eq!(rest(&spool, place), [n]);
        let mut next = place;
        spool.read(&mut next).unwrap().unwrap();
        place = next;
    }
    spool.sync().unwrap();
    assert!(spool.segments().len() > 3);
    let dropped = spool.drop_oldest().unwrap().unwrap();
    let left: Vec<u64> = (dropped.records + 1..=40).collect();
    assert_eq!(rest(&spool, Place::default()), left);
    drop(spool);
    let (mut spool, found) = open(&disk).unwrap();
    assert_eq!(found, left);
    spool.append(1, &[&payload(41)]).unwrap();
    assert_eq!(rest(&spool, place), [41]);
    while spool.segments().any(|segment| segment.records > 0) {
        spool.drop_oldest().unwrap();
    }
    assert_eq!(rest(&spool, Place::default()), [] as [u64; 0]);
    let last = spool.append(1, &[&payload(42)]).unwrap();
    assert!(last > place, "places are never used again");
}

#[test]
fn every_cut_keeps_what_was_synced() {
    let disk = MemDisk::new();
    disk.record();
    let (mut spool, _) = open(&disk).unwrap();
    // After so many operations: what is durable, what was written, what was dropped.
    let mut acked: Vec<(usize, u64, u64, u64)> = vec![(0, 0, 0, 0)];
    let (mut synced, mut dropped, mut drops) = (0, 0, 0);
    for n in 1..=70u64 {
        spool.append(1, &[&payload(n)]).unwrap();
        if n % 3 == 0 {
            spool.sync().unwrap();
            synced = n;
        }
        if n % 17 == 0 {
            drops = spool.segments().next().unwrap().records;
            acked.push((disk.recorded(), synced, n, dropped + drops));
            spool.drop_oldest().unwrap();
            dropped += drops;
            // A segment is synced before the next one begins, but nobody was told.
        }
        acked.push((disk.recorded(), synced, n, dropped));
    }
    let _ = drops;
    let mut replay = Replay::of(&disk);
    let mut cuts = 0;
    while replay.step().unwrap() {
        let at = acked.partition_point(|(ops, ..)| *ops <= replay.done());
        let (_, synced, ..) = acked[at - 1];
        let (_, _, written, dropped) = acked[at.min(acked.len() - 1)];
        for seed in 0..6 {
            let (mut spool, found) = open(&replay.crash(seed)).unwrap();
            let (first, last) = (found.first().copied().unwrap_or(1), found.last().copied().unwrap_or(0));
            assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a hole: {found:?}");
            assert!(last >= synced && last <= written, "{synced} synced, {last} found, {written} written");
            assert!(first <= dropped + 1 || found.is_empty(), "{first} is first, {dropped} were dropped");
            spool.append(1, &[&payload(last + 1)]).unwrap();
            cuts += 1;
        }
    }
    assert!(cuts > 800, "{cuts}");
}

#[test]
fn a_full_disk_costs_an_append_and_a_failed_sync_ends_it() {
    let disk = MemDisk::new();
    let (mut spool, _) = open(&disk).unwrap();
    spool.append(1, &[&payload(1)]).unwrap();
    disk.set_capacity_limit(Some(disk.used() + 20));
    assert_eq!(spool.append(1, &[&payload(2)]).unwrap_err().kind, Kind::Unavailable);
    disk.set_capacity_limit(None);
    spool.append(1, &[&payload(2)]).unwrap();
    spool.sync().unwrap();
    assert_eq!(rest(&spool, Place::default()), [1, 2]);
    spool.append(1, &[&payload(3)]).unwrap();
    disk.fail_sync_after(0);
    assert!(spool.sync().is_err());
    assert!(spool.append(1, &[&payload(4)]).unwrap_err().message.contains("has failed"));
}

fn segment(disk: &MemDisk, at: usize) -> PathBuf {
    let mut files = disk.files();
    files.retain(|file| file.starts_with(dir()));
    files.sort();
    files[at].clone()
}

#[test]
fn damage_before_what_was_durable_is_refused() {
    let disk = MemDisk::new();
    let (mut spool, _) = open(&disk).unwrap();
    for n in 1..=30 {
        spool.append(1, &[&payload(n)]).unwrap();
    }
    spool.sync().unwrap();
    drop(spool);
    let flip = |path: &Path| disk.damage(path, |bytes| bytes[100] ^= 4).unwrap();
    flip(&segment(&disk, 1));
    let error = open(&disk).err().unwrap();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(error.message.contains("segment-"), "{error}");
    flip(&segment(&disk, 1));
    let (spool, _) = open(&disk).unwrap();
    flip(&segment(&disk, 0));
    // A damage that comes while it is open is met by the reader.
    assert_eq!(spool.read(&mut Place::default()).unwrap_err().kind, Kind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a segment's bytes are, they are read, refused, or healed; nothing that was not written comes back.
    #[test]
    fn any_bytes_are_judged(flips in proptest::collection::vec((0usize..6000, 1u8..), 1..4), cut in 0usize..6000) {
        let disk = MemDisk::new();
        let (mut spool, _) = open(&disk).unwrap();
        for n in 1..=8 {
            spool.append(1, &[&payload(n)]).unwrap();
        }
        spool.sync().unwrap();
        drop(spool);
        disk.damage(&segment(&disk, 0), |bytes| {
            for (at, with) in &flips {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            bytes.truncate(cut);
        }).unwrap();
        if let Ok((spool, found)) = open(&disk) {
            prop_assert_eq!(rest(&spool, Place::default()), found);
        }
    }
}
