//! The log: any bytes as a segment, and any payload behind right sums as the engine's record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{Kind, TenantId};
use runtime::{Disk, World};
use storage::{Context, Select, SelectRequest};
use testkit::MemDisk;
use wal::{Error, Log, Mode, Settings};

const DIR: &str = "/data/wal";
const SEGMENT_BYTES: u64 = 16 << 10;
const WAIT: Duration = Duration::from_secs(60);

fn world(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), 1_700_000_000_000, 1).0
}

type Records = Vec<(u8, Vec<u8>)>;

fn open(disk: &MemDisk, known: &'static [u8]) -> Result<(Log, Records, u64), Error> {
    let settings = Settings {
        dir: PathBuf::from(DIR),
        segment_bytes: SEGMENT_BYTES,
        queue_bytes: 1 << 20,
        mode: Mode::Durable,
        known_kinds: known,
    };
    let mut seen = Records::new();
    let (log, report) = Log::open::<Error>(&world(disk), settings, &mut |entry| {
        seen.push((entry.kind, entry.payload.to_vec()));
        Ok(())
    })?;
    Ok((log, seen, report.healed_bytes))
}

/// Records with right sums, one behind the other: each is a kind, a length in two bytes, what it says of others being
/// durable, and its payload. What is left when a length is too large comes back too.
fn framed(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut seq = 1u64;
    while let [kind, low, high, unsynced, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let Some((payload, tail)) = tail.split_at_checked(len) else { break };
        rest = tail;
        let start = out.len();
        out.extend_from_slice(&[b'T', b'W', 1, *kind]);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&u32::from(*unsynced).to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(payload);
        let sum = crc32c::crc32c(&out[start..start + 8]);
        let sum = crc32c::crc32c_append(sum, &out[start + 12..]);
        out[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
        out.resize(start + wal::framed_len(len), 0);
        seq += 1;
    }
    (out, rest)
}

/// A segment: raw where the first byte is even, else records with right sums and then raw bytes. It is refused, or read
/// so that it reads the same the next time, with what was appended.
pub fn segment(bytes: &[u8]) {
    const HEADER: u64 = 64;
    let Some((&how, body)) = bytes.split_first() else { return };
    let disk = fresh_log();
    let file = disk.open(&Path::new(DIR).join("segment-000000000001")).expect("the first segment");
    let (mut content, rest) = if how & 1 == 0 { (Vec::new(), body) } else { framed(body) };
    content.extend_from_slice(rest);
    let at = if how & 2 == 0 { HEADER } else { 0 };
    content.truncate((SEGMENT_BYTES - at) as usize);
    file.write_all_at(&content, at).expect("within the segment");
    let known: &[u8] = &[1, 2];
    let _ = wal::inspect(&world(&disk), Path::new(DIR));
    match open(&disk, known) {
        Err(error) => assert!(matches!(error.kind, Kind::Corrupt | Kind::Refused), "{error}"),
        Ok((log, mut seen, _)) => {
            // A segment without a free byte waits for the next one, as in life.
            let position = log.append(1, b"more").expect("room for one record");
            log.wait(position, WAIT).expect("a record that is durable");
            drop(log);
            seen.push((1, b"more".to_vec()));
            let (_, again, healed) = open(&disk, known).expect("a log that was healed");
            assert_eq!((again, healed), (seen, 0));
        }
    }
}

/// A new log on a disk of its own.
fn fresh_log() -> MemDisk {
    static PREPARED: OnceLock<MemDisk> = OnceLock::new();
    let prepared = PREPARED.get_or_init(|| {
        let disk = MemDisk::new();
        open(&disk, &[1, 2]).expect("a new log").0.close().expect("a log that closes");
        disk
    });
    prepared.crash(0)
}

fn engine() -> tsdb::Settings {
    tsdb::Settings {
        dir: PathBuf::from("/data"),
        shards: 2,
        segment_bytes: SEGMENT_BYTES,
        ..tsdb::Settings::default()
    }
}

/// The engine's payloads, any bytes in records with right sums: each is a kind, a length and the payload. The engine starts,
/// answers, takes writes and starts again, or says that the log is damaged.
pub fn payloads(bytes: &[u8]) {
    static PREPARED: OnceLock<MemDisk> = OnceLock::new();
    let prepared = PREPARED.get_or_init(|| {
        let disk = MemDisk::new();
        tsdb::Tsdb::open(world(&disk), engine()).expect("a new engine").close().expect("it closes");
        disk
    });
    let disk = prepared.crash(0);
    const ANY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let (log, ..) = open(&disk, ANY).expect("a new log");
    let mut rest = bytes;
    while let [kind, len, tail @ ..] = rest {
        let (payload, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        if log.append(kind % 16, payload).is_err() {
            break;
        }
    }
    log.close().expect("a disk in memory");
    for _ in 0..2 {
        let tsdb = match tsdb::Tsdb::open(world(&disk), engine()) {
            Ok(tsdb) => tsdb,
            Err(error) => {
                assert!(matches!(error.kind, Kind::Corrupt | Kind::Refused), "{:?} {error}", error.kind);
                return;
            }
        };
        ask(&tsdb);
        let _ = tsdb.cut(1_700_000_000_000, true);
        ask(&tsdb);
        tsdb.close().expect("a disk in memory");
    }
}

/// Whatever replay let in is readable, or its damage is said.
fn ask(tsdb: &tsdb::Tsdb) {
    let mut tenants = tsdb.tenants();
    tenants.extend(TenantId::new("t"));
    for tenant in tenants {
        let Some(view) = tsdb.tenant(&tenant) else { continue };
        let all = SelectRequest::new(model::TimeRange::ALL, vec![]);
        if let Ok(set) = view.select(&all, &Context::background())
            && let Ok((entries, _)) = storage::collect(set)
        {
            for entry in entries {
                let mut columns = storage::Columns::default();
                let _ = storage::decode_series(&entry.chunks, model::TimeRange::ALL, &mut columns);
            }
        }
    }
    let _ = tsdb.head_stats();
}
