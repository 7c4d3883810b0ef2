//! The machine stops after each operation of a log's life, many times over: what was durable comes back in order, and
//! bytes that flip are refused or cost no more than the end that nothing proves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Kind;
use runtime::{Chance, Disk};
use testkit::{MemDisk, Replay, SeededChance};
use wal::{Error, Log, Mode, Report, Settings};

const WAIT: Duration = Duration::from_secs(60);
/// Stops in one run of the tests.
const CUTS: usize = 32_000;
const RECORD: u8 = 1;
/// In a checkpoint: all records up to this one are in it.
const UPTO: u8 = 2;

fn settings() -> Settings {
    Settings {
        dir: PathBuf::from("/data/wal"),
        segment_bytes: 4096,
        queue_bytes: 1 << 20,
        mode: Mode::Durable,
        known_kinds: &[RECORD, UPTO],
    }
}

/// What a log holds: everything up to `upto` by the checkpoint, then records in order.
struct Found {
    log: Log,
    report: Report,
    upto: u64,
    last: u64,
}

fn open(disk: &MemDisk) -> Result<Found, Error> {
    let (world, _) = testkit::world(Arc::new(disk.clone()), 0, 1);
    let (mut upto, mut last) = (0, None);
    let (log, report) = Log::open::<Error>(&world, settings(), &mut |entry| {
        let number = entry.payload.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
        match entry.kind {
            UPTO => upto = number.expect("a number"),
            _ => {
                assert_eq!(number, Some(entry.seq), "another record's payload");
                assert_eq!(entry.payload, payload(entry.seq), "another payload than was written");
                assert!(entry.seq == last.unwrap_or(entry.seq - 1) + 1, "a gap before {}", entry.seq);
                assert!(last.is_some() || entry.seq <= upto + 1, "records {upto} to {} are gone", entry.seq);
                last = Some(entry.seq);
            }
        }
        Ok(())
    })?;
    Ok(Found { log, report, upto, last: last.unwrap_or(0).max(upto) })
}

fn payload(n: u64) -> Vec<u8> {
    let mut out = n.to_le_bytes().to_vec();
    out.resize(8 + (n * 37 % 400) as usize, n as u8);
    out
}

/// Groups of records of all sizes, over many segments and three checkpoints. Gives, by number of operations, how far
/// the log had said to be durable, and how far it had been written to.
fn live(disk: &MemDisk) -> Vec<(usize, u64)> {
    let log = open(disk).unwrap().log;
    let mut acked = Vec::new();
    for group in 0..60u64 {
        for _ in 0..=group * 7 % 5 {
            let next = log.tail() + 1;
            assert_eq!(log.append(RECORD, &payload(next)).unwrap(), next);
        }
        log.wait(log.tail(), WAIT).unwrap();
        acked.push((disk.recorded(), log.tail()));
        if group % 16 == 15 {
            let upto = log.tail() - 4;
            let keep = log.segment_of(upto + 1);
            log.checkpoint::<Error>(keep, &mut |writer| writer.put(UPTO, &[&upto.to_le_bytes()])).unwrap();
        }
    }
    log.close().unwrap();
    acked
}

#[test]
fn what_was_durable_comes_back_wherever_the_machine_stops() {
    let disk = MemDisk::new();
    disk.record();
    let acked = live(&disk);
    let most = acked.last().unwrap().1;
    let total = Replay::of(&disk).len();
    assert!(total > 200 && most > 150, "{total} operations, {most} records");
    let per_cut = CUTS.div_ceil(total + 1) as u64;
    let (mut replay, mut cuts, mut healed) = (Replay::of(&disk), 0, 0);
    loop {
        let cut = replay.done();
        let durable = acked.iter().rfind(|(at, _)| *at <= cut).map_or(0, |(_, upto)| *upto);
        for n in 0..per_cut {
            // Seed 0 forgets all that it may.
            let seed = if n == 0 { 0 } else { cut as u64 * per_cut + n };
            let context = format!("stopped before operation {cut} ({}), seed {seed}", replay.next());
            let disk = replay.crash(seed);
            let found = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(
                (durable..=most).contains(&found.last),
                "{context}: {durable} durable, {} found",
                found.last
            );
            assert_eq!(found.log.tail(), found.last.max(found.upto), "{context}");
            healed += usize::from(found.report.healed_bytes > 0);
            cuts += 1;
            if n % 16 == 3 {
                // It goes on, is stopped again, and starts again.
                let next = found.log.tail() + 1;
                let position = found.log.append(RECORD, &payload(next)).unwrap();
                found.log.wait(position, WAIT).unwrap();
                drop(found);
                let again =
                    open(&disk.crash(seed / 2)).unwrap_or_else(|error| panic!("{context}, then {error}"));
                assert_eq!(again.last, next, "{context}, then again");
                cuts += 1;
            }
        }
        if !replay.step().unwrap() {
            break;
        }
    }
    println!("{cuts} stops over {total} operations, {healed} torn tails healed");
    assert!(cuts >= CUTS && healed > 500, "{cuts} stops, {healed} healed");
}

/// A log that was closed, its segments and checkpoint, its last record, and where the last group begins.
fn closed() -> (MemDisk, Vec<PathBuf>, u64, u64) {
    let disk = MemDisk::new();
    let acked = live(&disk);
    let files = disk.files().into_iter().filter(|f| f.starts_with("/data/wal")).collect();
    (disk, files, acked[acked.len() - 1].1, acked[acked.len() - 2].1)
}

/// Opens a damaged log: refused with a message that names the file and the way out, or read up to the last group at
/// least, which nothing later proves to have been durable.
fn judge(disk: &MemDisk, file: &Path, what: &str, last: u64, proven: u64) -> bool {
    match open(disk) {
        Ok(found) => {
            assert!(found.last >= proven, "{what}: {} of {last} are left, and nobody says so", found.last);
            assert!(found.last == last || found.report.healed_bytes > 0, "{what}: lost without a word");
            false
        }
        Err(error) => {
            assert!(matches!(error.kind, Kind::Corrupt | Kind::Refused), "{what}: {error}");
            let name = file.file_name().unwrap().to_string_lossy();
            assert!(error.message.contains("/data/wal") || error.message.contains(&*name), "{what}: {error}");
            if error.kind == Kind::Corrupt {
                assert!(error.message.contains("tributary tools wal"), "{what}: {error}");
            }
            true
        }
    }
}

#[test]
fn every_flipped_byte_is_refused_or_costs_only_what_nothing_proves() {
    let (disk, files, last, proven) = closed();
    let chance = SeededChance::new(11);
    let (mut refused, mut read, mut flips) = (0, 0, 0);
    for file in &files {
        let len = disk.len(file).unwrap();
        // Every byte of a file that is in use from its front to its end.
        for at in 0..len {
            let bit = chance.below(8) as u8;
            let spoiled = disk.crash(0);
            spoiled.damage(file, |bytes| bytes[at as usize] ^= 1 << bit).unwrap();
            let what = format!("bit {bit} of byte {at} of {}", file.display());
            match judge(&spoiled, file, &what, last, proven) {
                true => refused += 1,
                false => read += 1,
            }
            flips += 1;
        }
    }
    println!("{flips} bytes flipped: {refused} refused, {read} read on");
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} read on");
}

#[test]
fn files_that_are_cut_short_zeroed_or_gone_are_refused_unless_they_are_the_end() {
    let (disk, files, last, proven) = closed();
    let mut refused = 0;
    for file in &files {
        let len = disk.len(file).unwrap() as usize;
        for at in (0..len).step_by(61) {
            for how in ["cut short", "zeroed"] {
                let spoiled = disk.crash(0);
                spoiled
                    .damage(file, |bytes| match how {
                        "zeroed" => bytes[at..].fill(0),
                        _ => bytes.truncate(at),
                    })
                    .unwrap();
                let what = format!("{} {how} from {at}", file.display());
                refused += usize::from(judge_cut(&spoiled, file, &what, last, proven));
            }
        }
        let gone = disk.crash(0);
        gone.remove_file(file).unwrap();
        refused += usize::from(judge_cut(&gone, file, &format!("{} gone", file.display()), last, proven));
    }
    assert!(refused > 100, "{refused} refused");
}

/// As [`judge`]; the end of the log, zeroed whole from a record's edge, is as if it had never been written. That an
/// acknowledged group is missing there only a copy elsewhere can tell; that more is missing, the log can.
fn judge_cut(disk: &MemDisk, file: &Path, what: &str, last: u64, proven: u64) -> bool {
    let is_last_used = file.ends_with("segment-000000000000") || is_last_used(disk, file);
    match open(disk) {
        Ok(found) if is_last_used => {
            assert!(found.last <= last, "{what}");
            false
        }
        Ok(found) => {
            assert!(found.last >= proven, "{what}: {} of {last} are left, and nobody says so", found.last);
            false
        }
        Err(_) => judge(disk, file, what, last, proven),
    }
}

/// Whether no later segment holds a record.
fn is_last_used(disk: &MemDisk, file: &Path) -> bool {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let (world, _) = testkit::world(Arc::new(disk.clone()), 0, 1);
    let segments = wal::inspect(&world, Path::new("/data/wal")).unwrap();
    segments.iter().filter(|s| s.name > name).all(|s| s.records == 0)
}

/// A sync fails, the process starts again and reads what the system still shows; then the machine stops. What the new
/// process has read is durable, and so is what it has acknowledged behind that.
#[test]
fn what_a_failed_sync_has_left_to_be_read_is_made_durable() {
    for seed in 1..200 {
        let disk = MemDisk::new();
        let Found { log, .. } = open(&disk).unwrap();
        for n in 1..=3 {
            log.append(RECORD, &payload(n)).unwrap();
            log.wait(n, WAIT).unwrap();
        }
        disk.fail_sync_after(0);
        log.append(RECORD, &payload(4)).unwrap();
        assert!(log.wait(4, WAIT).is_err(), "the sync has failed");
        drop(log);

        let Found { log, last, .. } = open(&disk).unwrap();
        for n in last + 1..last + 3 {
            log.append(RECORD, &payload(n)).unwrap();
            log.wait(n, WAIT).unwrap();
        }
        let acked = log.tail();
        let found = open(&disk.crash(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(found.last, acked, "seed {seed}");
    }
}
