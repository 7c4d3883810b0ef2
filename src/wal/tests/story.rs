//! Stories of a log on a real folder: what was durable comes back, in order, or the log says why not.
#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use model::Kind;
use runtime::World;
use wal::{Error, Log, Mode, Report, Settings};

const WAIT: Duration = Duration::from_secs(20);

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.join("wal"),
        segment_bytes: 4096,
        queue_bytes: 1 << 20,
        mode: Mode::Durable,
        known_kinds: &[1, 2],
    }
}

fn open(dir: &Path) -> Result<(Log, Report, Vec<Vec<u8>>), Error> {
    let mut seen = Vec::new();
    let (log, report) = Log::open::<Error>(&World::real(), settings(dir), &mut |entry| {
        seen.push(entry.payload.to_vec());
        Ok(())
    })?;
    Ok((log, report, seen))
}

fn payload(n: u64) -> Vec<u8> {
    format!("record {n} {}", "x".repeat((n * 37 % 300) as usize)).into_bytes()
}

fn fill(log: &Log, from: u64, to: u64) {
    for n in from..to {
        let position = log.append(1, &payload(n)).unwrap();
        assert_eq!(position, n + 1);
        if n % 5 == 0 {
            log.wait(position, WAIT).unwrap();
        }
    }
    log.wait(log.tail(), WAIT).unwrap();
}

fn expect(seen: &[Vec<u8>], count: u64) {
    let wanted: Vec<Vec<u8>> = (0..count).map(payload).collect();
    assert_eq!(seen, wanted);
}

/// End of the last record, and the file that holds it.
fn last_record(dir: &Path) -> (std::path::PathBuf, u64) {
    let segments = wal::inspect(&World::real(), &dir.join("wal")).unwrap();
    let last = segments.iter().rfind(|s| s.records > 0).unwrap();
    let path = dir.join("wal").join(&last.name);
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
    (path, end)
}

fn bend(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn what_was_durable_comes_back_over_many_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (log, report, seen) = open(dir.path()).unwrap();
    assert_eq!((report.records, seen.len()), (0, 0));
    fill(&log, 0, 100);
    drop(log);
    let (log, report, seen) = open(dir.path()).unwrap();
    expect(&seen, 100);
    assert!(report.segments > 3);
    fill(&log, 100, 200);
    log.close().unwrap();
    expect(&open(dir.path()).unwrap().2, 200);
}

#[test]
fn close_writes_what_was_only_enqueued() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    for n in 0..10 {
        log.append(1, &payload(n)).unwrap();
    }
    log.close().unwrap();
    assert_eq!(log.append(1, b"late").unwrap_err().kind, Kind::Unavailable);
    expect(&open(dir.path()).unwrap().2, 10);
}

#[test]
fn a_torn_tail_heals_and_the_log_goes_on_t11() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    fill(&log, 0, 30);
    drop(log);
    let (path, end) = last_record(dir.path());
    bend(&path, end - 1);
    let (log, report, seen) = open(dir.path()).unwrap();
    expect(&seen, 29);
    assert!(report.healed_bytes > 0);
    fill(&log, 29, 60);
    drop(log);
    let (_, report, seen) = open(dir.path()).unwrap();
    expect(&seen, 60);
    assert_eq!(report.healed_bytes, 0);
}

#[test]
fn damage_before_durable_records_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    fill(&log, 0, 100);
    drop(log);
    let first = dir.path().join("wal/segment-000000000001");
    for at in [64, 70, 90, 1000] {
        bend(&first, at);
        let error = open(dir.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("tributary tools wal inspect"), "{error}");
        bend(&first, at);
    }
    // Also within the last segment, where later records prove what had been synced.
    let (path, end) = last_record(dir.path());
    assert!(end > 64 + 600, "the last segment holds {end} bytes");
    bend(&path, 80);
    assert_eq!(open(dir.path()).err().unwrap().kind, Kind::Corrupt);
    bend(&path, 80);
    expect(&open(dir.path()).unwrap().2, 100);
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    fill(&log, 0, 100);
    drop(log);
    for name in ["segment-000000000001", "segment-000000000002"] {
        let (path, aside) = (dir.path().join("wal").join(name), dir.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(open(dir.path()).err().unwrap().kind, Kind::Corrupt, "{name}");
        std::fs::rename(&aside, &path).unwrap();
    }
    expect(&open(dir.path()).unwrap().2, 100);
}

#[test]
fn unknown_kinds_are_skipped_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    log.append(1, b"known").unwrap();
    log.append(200, b"skipped").unwrap();
    log.close().unwrap();
    let (log, _, seen) = open(dir.path()).unwrap();
    assert_eq!(seen, [b"known".to_vec()]);
    log.append(77, b"refused").unwrap();
    log.close().unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("kind 77"), "{error}");
}

#[test]
fn a_checkpoint_lets_old_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    fill(&log, 0, 100);
    let keep = log.segment_of(81);
    let deleted =
        log.checkpoint::<Error>(keep, &mut |writer| writer.put(2, &[b"all that ", b"came before"])).unwrap();
    assert!(deleted >= 3, "{deleted}");
    fill(&log, 100, 120);
    drop(log);
    let (log, _, seen) = open(dir.path()).unwrap();
    assert_eq!(seen[0], b"all that came before");
    assert!(seen[1..].len() >= 120 - 80 && seen[1..].len() < 80);
    assert_eq!(seen.last().unwrap(), &payload(119));
    assert_eq!(log.tail(), 120);
    assert_eq!(log.segment_of(81), keep);
}

#[test]
fn a_full_queue_is_unavailable_and_too_much_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ..) = open(dir.path()).unwrap();
    assert_eq!(log.append(1, &vec![0; 5000]).unwrap_err().kind, Kind::Invalid);
    let held = log.reserve(2000, 1).unwrap();
    drop(held);
    assert!(log.reserve(2000, 1).is_ok());
    drop(log);
    let small = Settings { queue_bytes: 1000, ..settings(dir.path()) };
    let (log, _) = Log::open::<Error>(&World::real(), small, &mut |_| Ok(())).unwrap();
    let held = log.reserve(900, 1).unwrap();
    let error = log.append(1, &[0; 200]).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("log queue is full"), "{error}");
    drop(held);
    log.append(1, &[0; 200]).unwrap();
}

#[test]
fn fast_mode_answers_before_the_sync_and_keeps_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let fast = Settings { mode: Mode::Fast, ..settings(dir.path()) };
    let (log, _) = Log::open::<Error>(&World::real(), fast, &mut |_| Ok(())).unwrap();
    fill(&log, 0, 50);
    let started = std::time::Instant::now();
    log.wait_synced(log.tail(), WAIT).unwrap();
    assert!(started.elapsed() < Duration::from_millis(800), "a wanted sync does not wait for its turn");
    log.close().unwrap();
    expect(&open(dir.path()).unwrap().2, 50);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
    /// Any byte of any segment may be anything: what is read is a prefix, or the log is refused; never a panic,
    /// never a record that was not written.
    #[test]
    fn no_damage_is_read_as_records(damage in proptest::collection::vec((0usize..3, 0u64..4096, 0u8..), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let (log, ..) = open(dir.path()).unwrap();
        fill(&log, 0, 45);
        drop(log);
        for (segment, at, byte) in damage {
            let path = dir.path().join(format!("wal/segment-{:012}", segment + 1));
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[byte], at).unwrap();
        }
        match open(dir.path()) {
            Ok((_, _, seen)) => expect(&seen, seen.len() as u64),
            Err(error) => proptest::prop_assert!(matches!(error.kind, Kind::Corrupt | Kind::Refused)),
        }
    }
}
