//! What is left of a damaged log is read on both sides of the damage, and what is lost is named exactly.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::time::Duration;

use model::Kind;
use runtime::World;
use wal::{Error, Log, Losses, Mode, NewLog, Settings};

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        segment_bytes: 4096,
        queue_bytes: 1 << 20,
        mode: Mode::Durable,
        known_kinds: &[1],
    }
}

fn open(dir: &Path) -> Result<(Log, Vec<Vec<u8>>), Error> {
    let mut seen = Vec::new();
    let (log, _) = Log::open::<Error>(&World::real(), settings(dir), &mut |entry| {
        seen.push(entry.payload.to_vec());
        Ok(())
    })?;
    Ok((log, seen))
}

fn payload(n: u64) -> Vec<u8> {
    format!("record {n:04} {}", "x".repeat((n * 37 % 300) as usize)).into_bytes()
}

fn fill(dir: &Path, count: u64) {
    let (log, _) = open(dir).unwrap();
    for n in 1..=count {
        let position = log.append(1, &payload(n)).unwrap();
        log.wait(position, Duration::from_secs(20)).unwrap();
    }
    log.close().unwrap();
}

fn salvage(from: &Path, to: &Path) -> Result<Losses, Error> {
    let world = World::real();
    let mut new = NewLog::create(&world, to)?;
    let losses = wal::read_damaged::<Error>(&world, from, &mut |record| match record.from_checkpoint {
        true => new.put_checkpoint(record.kind, record.payload),
        false => new.put(record.kind, record.payload),
    })?;
    new.finish()?;
    Ok(losses)
}

/// Where a record lies: its file and its first byte.
fn place(dir: &Path, n: u64) -> (std::path::PathBuf, usize) {
    let wanted = payload(n);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted) {
            return (path, at - 24);
        }
    }
    panic!("record {n} is nowhere");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn both_sides_of_the_damage_are_saved_and_the_loss_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fill(&old, 60);
    let (path, at) = place(&old, 20);
    let (_, end) = place(&old, 21);
    flip(&path, at + 30);
    assert_eq!(open(&old).err().unwrap().kind, Kind::Corrupt);
    let before = std::fs::read(&path).unwrap();
    let losses = salvage(&old, &new).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(losses.numbers, [(20, 20)]);
    assert_eq!(losses.bytes, [wal::LostBytes { file, from: at as u64, until: end as u64 }]);
    assert_eq!((losses.records, losses.lost_records()), (59, 1));
    assert_eq!(std::fs::read(&path).unwrap(), before, "the damaged log is as it was");
    let (log, seen) = open(&new).unwrap();
    let wanted: Vec<Vec<u8>> = (1..=60).filter(|n| *n != 20).map(payload).collect();
    assert_eq!(seen, wanted);
    // The new log goes on as any.
    let position = log.append(1, b"more").unwrap();
    log.wait(position, Duration::from_secs(20)).unwrap();
    drop(log);
    assert_eq!(open(&new).unwrap().1.len(), 60);
    assert_eq!(
        salvage(&old, &new).unwrap_err().kind,
        Kind::Refused,
        "never into a folder with something in it"
    );
}

#[test]
fn a_missing_segment_and_a_broken_head_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fill(&old, 100);
    std::fs::remove_file(old.join("segment-000000000002")).unwrap();
    flip(&old.join("segment-000000000003"), 20);
    let losses = salvage(&old, &new).unwrap();
    assert_eq!(losses.missing, ["segment-000000000002"]);
    assert_eq!(losses.bytes.len(), 1, "the head of segment 3: {losses:?}");
    assert_eq!(losses.numbers.len(), 1);
    assert_eq!(losses.records + losses.lost_records(), 100);
    assert_eq!(open(&new).unwrap().1.len() as u64, losses.records);
}

#[test]
fn every_flipped_byte_costs_at_most_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    fill(&old, 12);
    let segment = old.join("segment-000000000001");
    let whole = std::fs::read(&segment).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap();
    for at in (64..used).step_by(3) {
        flip(&segment, at);
        let mut records = 0;
        let losses = wal::read_damaged::<Error>(&World::real(), &old, &mut |_| {
            records += 1;
            Ok(())
        })
        .unwrap();
        // Padding may be flipped without loss; a record at the very end leaves no later number to miss it by.
        assert!(records >= 11, "byte {at}: {losses:?}");
        assert!(records == 12 || !losses.bytes.is_empty(), "byte {at}: {losses:?}");
        std::fs::write(&segment, &whole).unwrap();
    }
}
