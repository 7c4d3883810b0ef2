//! Records as earlier builds wrote them, byte for byte, are read by this one.

mod rig;

use std::path::{Path, PathBuf};

use model::Labels;
use rig::{NOON, Rig};

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
