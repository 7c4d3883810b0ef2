//! Folders and records as earlier builds wrote them, byte for byte, are read by this one; what a later build wrote is refused and
//! left as it is.

mod rig;

use std::path::{Path, PathBuf};

use model::{Kind, Labels};
use rig::{HOUR, NOON, Rig, settings};
use runtime::Disk;
use testkit::MemDisk;
use tsdb::Tsdb;

const SERIES: u8 = 1;
const FLOATS: u8 = 2;

fn zigzag(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Adds records to the log of an engine that is closed.
fn write(rig: &Rig, records: &[(u8, Vec<u8>)]) {
    let settings = wal::Settings {
        dir: PathBuf::from("/data/wal"),
        segment_bytes: rig.settings.segment_bytes,
        queue_bytes: 1 << 20,
        mode: wal::Mode::Durable,
        known_kinds: &[1, 2, 3, 4, 5, 6, 7, 8, 16],
    };
    let (log, _) = wal::Log::open::<wal::Error>(&rig.world, settings, &mut |_| Ok(())).unwrap();
    for (kind, payload) in records {
        log.append(*kind, payload).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn floats_in_columns_of_eight_bytes_a_value() {
    let mut rig = Rig::new();
    rig.tsdb.close().unwrap();
    let mut series = vec![0, 0, 1, b't'];
    for (id, name) in [(1, "a"), (2, "b")] {
        let labels = Labels::from_pairs([("__name__", name), ("job", "test")]).unwrap();
        series.push(id);
        zigzag(&mut series, i64::MIN);
        series.push(labels.as_bytes().len() as u8);
        series.extend_from_slice(labels.as_bytes());
    }
    // Three samples: ids 1, 2, 1; times NOON, NOON, NOON + 1.
    let mut floats = vec![0, 0, 3, 2, 2, 1];
    [NOON, 0, 1].into_iter().for_each(|delta| zigzag(&mut floats, delta));
    [1.0f64, -0.1, 2.5].into_iter().for_each(|v| floats.extend_from_slice(&v.to_bits().to_le_bytes()));
    write(&rig, &[(SERIES, series), (FLOATS, floats)]);
    rig.reopen().unwrap();
    rig.expect("t", &[("a", &[(NOON, 1.0), (NOON + 1, 2.5)]), ("b", &[(NOON, -0.1)])]);
    // This build goes on in the same log.
    rig.push("t", "a", &[(NOON + 2, 3.25)]);
    rig.kill();
    rig.expect("t", &[("a", &[(NOON, 1.0), (NOON + 1, 2.5), (NOON + 2, 3.25)]), ("b", &[(NOON, -0.1)])]);
    let salvaged = tsdb::salvage(&rig.world, Path::new("/data/wal"), Path::new("/salvaged")).unwrap();
    assert_eq!((salvaged.samples, salvaged.kept["floats"], salvaged.orphans), (4, 2, 0));
}

const SEGMENT: &str = "/data/wal/segment-000000000001";
const LAYOUT: &str = "/data/tributary-tsdb.json";

/// Two tenants, a sample out of order, a duplicate, and a series that came in a second request.
fn first_version() -> Rig {
    let rig = Rig::new();
    rig.push("t", "a", &[(NOON, 1.5), (NOON + 15_000, -2.0), (NOON + 30_000, f64::INFINITY)]);
    rig.push("u", "a", &[(NOON, 7.0)]);
    rig.push("t", "a", &[(NOON - HOUR, 0.25), (NOON, 1.5)]);
    rig.push("t", "b", &[(NOON + 1, 3.0)]);
    rig
}

fn expect_first_version(rig: &Rig) {
    let a = [(NOON - HOUR, 0.25), (NOON, 1.5), (NOON + 15_000, -2.0), (NOON + 30_000, f64::INFINITY)];
    rig.expect("t", &[("a", &a), ("b", &[(NOON + 1, 3.0)])]);
    rig.expect("u", &[("a", &[(NOON, 7.0)])]);
}

/// The folder of layout 1 with a log of version 1 lies in `testdata`; with UPDATE_GOLDEN it is made by this build, which
/// is right only as long as no version has changed.
#[test]
#[allow(clippy::disallowed_methods)]
fn a_folder_of_the_first_version_is_read_and_goes_on() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/version-1");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let rig = first_version();
        rig.tsdb.close().unwrap();
        std::fs::create_dir_all(&stored).unwrap();
        std::fs::write(stored.join("tributary-tsdb.json"), rig.disk.read(Path::new(LAYOUT)).unwrap())
            .unwrap();
        let mut segment = rig.disk.read(Path::new(SEGMENT)).unwrap();
        // What follows is zeroes up to the segment's size.
        segment.truncate(segment.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1));
        std::fs::write(stored.join("segment-000000000001"), segment).unwrap();
    }
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/data/wal")).unwrap();
    disk.write_atomic(Path::new(LAYOUT), &std::fs::read(stored.join("tributary-tsdb.json")).unwrap())
        .unwrap();
    let mut segment = std::fs::read(stored.join("segment-000000000001")).unwrap();
    segment.resize(settings().segment_bytes as usize, 0);
    disk.write_atomic(Path::new(SEGMENT), &segment).unwrap();
    let mut rig = Rig::on(disk, settings());
    expect_first_version(&rig);
    rig.push("t", "b", &[(NOON + 2, 4.0)]);
    rig.kill();
    assert_eq!(rig.read("t")["b"].len(), 2);
}

/// Puts a version into a place of the first segment whose sum is `sum`, over what `covered` gives of the bytes.
fn raise(rig: &Rig, at: usize, sum: usize, covered: impl Fn(&[u8]) -> Vec<u8>) {
    rig.disk
        .damage(Path::new(SEGMENT), |bytes| {
            bytes[at] += 1;
            let crc = crc32c::crc32c(&covered(bytes));
            bytes[sum..sum + 4].copy_from_slice(&crc.to_le_bytes());
        })
        .unwrap();
}

#[test]
fn what_a_later_version_wrote_is_refused_untouched() {
    type Change = fn(&Rig);
    let cases: [(&str, Change); 3] = [
        ("a segment", |rig| raise(rig, 8, 60, |bytes| bytes[..60].to_vec())),
        ("a record", |rig| {
            raise(rig, 64 + 2, 64 + 8, |bytes| {
                let len = u32::from_le_bytes(bytes[68..72].try_into().unwrap()) as usize;
                [&bytes[64..72], &bytes[76..88 + len]].concat()
            })
        }),
        ("the layout", |rig| {
            rig.disk.write_atomic(Path::new(LAYOUT), br#"{"version":2,"shards":2}"#).unwrap()
        }),
    ];
    for (what, change) in cases {
        let rig = first_version();
        rig.tsdb.close().unwrap();
        change(&rig);
        let contents = |rig: &Rig| -> Vec<(PathBuf, Vec<u8>)> {
            rig.disk.files().into_iter().map(|path| (path.clone(), rig.disk.read(&path).unwrap())).collect()
        };
        let before = contents(&rig);
        let error = Tsdb::open(rig.world.clone(), settings()).err().unwrap();
        assert_eq!(error.kind, Kind::Refused, "{what}: {error}");
        assert!(error.message.contains("start the newer version again"), "{what}: {error}");
        assert!(contents(&rig) == before, "{what}: files were changed");
    }
}
