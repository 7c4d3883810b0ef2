//! Three engines are sent the same samples; one misses a request, one hears a request late, one starts again in between:
//! how many of the chunks in their blocks are equal byte for byte. `-- --nocapture` prints the shares.

mod rig;

use std::collections::HashMap;

use chunk::xor;
use model::{Sample, TimeRange};
use rig::*;
use storage::{Context, Select, SelectRequest, Verdict, collect};
use tsdb::Settings;

const SERIES: usize = 40;
/// Series that come in one request.
const BATCH: usize = 10;
const STEP: i64 = 15_000;
const REQUESTS: i64 = 2 * HOUR / STEP;

/// What becomes of a request, numbered in its window, of the first batch.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Never reaches the last replica.
    Lost(i64),
    /// Reaches it ten minutes later.
    Late(i64),
    /// All are there.
    Arrives,
}

fn value(series: usize, n: i64) -> f64 {
    match series % 3 {
        0 => series as f64,
        1 => (n * n % 977) as f64,
        _ => (n * (series as i64 + 7919) % 100_003) as f64 / 1000.0,
    }
}

/// The samples of a batch of series at one time, each series with a scrape time of its own.
fn send(rig: &Rig, batch: usize, n: i64) -> Vec<Verdict> {
    let rows: Vec<(String, [(i64, f64); 1])> = (batch * BATCH..(batch + 1) * BATCH)
        .map(|series| {
            let at = NOON + n * STEP + (series as i64 * 7919) % STEP;
            (format!("s{series:02}"), [(at, value(series, n))])
        })
        .collect();
    let rows: Vec<(&str, &[(i64, f64)])> = rows.iter().map(|(name, s)| (name.as_str(), &s[..])).collect();
    rig.try_push("t", &rows).unwrap()
}

/// Two windows at three replicas: each request is sent twice now and then, one replica is killed and starts again.
fn replicas(fate: Fate) -> Vec<Rig> {
    let mut rigs: Vec<Rig> =
        (0..3).map(|_| Rig::with(Settings { segment_bytes: 256 << 10, ..settings() })).collect();
    for n in 0..2 * REQUESTS {
        for (replica, rig) in rigs.iter_mut().enumerate() {
            rig.clock.set(NOON + (n + 1) * STEP);
            for batch in 0..SERIES / BATCH {
                let hit = replica == 2 && batch == 0;
                if hit && [Fate::Lost(n), Fate::Late(n)].contains(&fate) {
                    continue;
                }
                assert!(send(rig, batch, n).iter().all(|v| *v == Verdict::Stored));
                if n % 37 == batch as i64 {
                    assert!(send(rig, batch, n).iter().all(|v| *v == Verdict::Duplicate), "a retry");
                }
                if hit && fate == Fate::Late(n - 40) {
                    assert!(send(rig, batch, n - 40).iter().all(|v| *v == Verdict::Stored));
                }
            }
            if replica == 1 && n == REQUESTS / 3 {
                rig.kill();
            }
        }
    }
    for rig in &rigs {
        rig.clock.set(NOON + 6 * HOUR);
        assert_eq!(rig.tsdb.cut(rig.now(), false).unwrap().len(), 2);
    }
    rigs
}

/// Series, and the bytes of its chunks in the blocks.
type Chunks = Vec<(String, Vec<u8>)>;

fn cut_chunks(rig: &Rig) -> Chunks {
    assert_eq!(rig.tsdb.head_stats().samples, 0, "all is in blocks");
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let set = view.select(&SelectRequest::new(TimeRange::ALL, vec![]), &Context::background()).unwrap();
    let (entries, _) = collect(set).unwrap();
    let chunks = entries.iter().flat_map(|entry| {
        let name = entry.labels.metric_name().to_owned();
        entry.chunks.iter().map(move |c| (name.clone(), c.bytes.to_vec()))
    });
    chunks.collect()
}

/// The same samples in chunks of 120, counted anew from the window's edge whatever came late.
fn counted(chunks: &Chunks) -> Chunks {
    let mut samples: HashMap<(&str, i64), Vec<Sample>> = HashMap::new();
    for (name, chunk) in chunks {
        for sample in xor::Iter::new(chunk).unwrap().map(Result::unwrap) {
            samples.entry((name, sample.timestamp / (2 * HOUR))).or_default().push(sample);
        }
    }
    let encoded = samples.iter().flat_map(|((name, _), samples)| {
        samples.chunks(120).map(|part| ((*name).to_owned(), xor::encode(part.iter().copied()).unwrap()))
    });
    encoded.collect()
}

/// Percent of the chunks that all replicas have, and bytes of one replica.
fn share(replicas: &[Chunks]) -> (f64, usize) {
    let mut copies: HashMap<&(String, Vec<u8>), usize> = HashMap::new();
    let all = || replicas.iter().flatten();
    all().for_each(|chunk| *copies.entry(chunk).or_default() += 1);
    let equal: usize = copies.values().filter(|n| **n == 3).sum();
    (equal as f64 * 100.0 / all().count() as f64, all().map(|c| c.1.len()).sum::<usize>() / 3)
}

fn run(name: &str, fate: Fate) -> (f64, f64) {
    let chunks: Vec<Chunks> = replicas(fate).iter().map(cut_chunks).collect();
    let (equal, bytes) = share(&chunks);
    let (old, old_bytes) = share(&chunks.iter().map(counted).collect::<Vec<_>>());
    println!("{name:30} parts {equal:5.1} %, {bytes} bytes; counted {old:5.1} %, {old_bytes} bytes");
    assert!(bytes * 100 <= old_bytes * 102, "{bytes} of {old_bytes}");
    (equal, old)
}

#[test]
fn the_same_samples_make_the_same_chunks() {
    assert_eq!(run("nothing lost", Fate::Arrives).0, 100.0);
}

#[test]
fn a_lost_request_changes_one_chunk_of_each_of_its_series() {
    for n in [0, 50, 130] {
        let (equal, old) = run(&format!("request {n} lost"), Fate::Lost(n));
        // 10 of 40 series miss a sample: one of each one's eight chunks.
        assert!(equal >= 96.0 && old < 92.0, "{n}: {equal} {old}");
    }
}

#[test]
fn a_late_request_changes_nothing() {
    for n in [0, 1, 119, 120, 121, 300] {
        assert_eq!(run(&format!("request {n} ten minutes late"), Fate::Late(n)).0, 100.0, "{n}");
    }
}
