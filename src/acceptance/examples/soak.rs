//! A day of data in minutes: engine, identities, cuts, uploads and retention on a clock that runs ahead, with churn, and
//! what of them grows.
//!
//! `cargo run --release -p tributary-acceptance --example soak -- --hours 24 --churn 10 --series 20000`
//!
//! Prints a line per hour of data: memory, files, log, blocks, queues and tables. Fails where memory drifts by more than
//! 1 % an hour after the first three, or files or the log grow without end.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{Identities, Met};
use model::{Labels, Sample, TenantId};
use runtime::{ManualClock, World};
use storage::{Append, Verdict, WriteBatch};
use tsdb::Tsdb;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HOUR: i64 = 3_600_000;
const STEP: i64 = 15_000;
const START: i64 = 1_700_006_400_000;
const BATCH: usize = 2_000;
const SEGMENT: u64 = 32 << 20;

struct Target {
    labels: Labels,
    hash: u64,
}

/// Series `slot` in its `generation`-th life.
fn target(tenant: &TenantId, slot: usize, generation: u32) -> Target {
    let labels = Labels::from_pairs([
        ("__name__", format!("http_requests_{}_total", slot % 60).as_str()),
        ("instance", format!("10.0.{}.{}:9100", slot / 60 / 250, slot / 60 % 250).as_str()),
        ("job", "soak"),
        ("pod", format!("pod-{slot}-{generation}").as_str()),
    ])
    .expect("labels in order");
    Target { hash: labels.placement_hash(tenant.as_str()), labels }
}

fn option(name: &str, default: f64) -> f64 {
    let mut args = std::env::args();
    args.find(|arg| arg == name);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Anonymous memory of this process, in bytes.
fn anonymous() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// Files below a folder, and their bytes.
fn files(path: &Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(path) else { return (0, 0) };
    entries.flatten().fold((0, 0), |(n, bytes), entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => {
            let (more, size) = files(&entry.path());
            (n + more, bytes + size)
        }
        Ok(meta) => (n + 1, bytes + meta.len()),
        Err(_) => (n, bytes),
    })
}

/// Growth per hour in percent of the mean, by least squares.
fn drift(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let over = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        values.iter().enumerate().map(|(x, y)| f(x as f64 - mean_x, y - mean_y)).sum()
    };
    over(&|x, y| x * y) / over(&|x, _| x * x).max(f64::MIN_POSITIVE) / mean_y * 100.0
}

struct Hour {
    memory: f64,
    data_files: usize,
    log_bytes: u64,
    head_series: u64,
    identities: usize,
}

fn main() {
    let (hours, churn) = (option("--hours", 24.0) as i64, option("--churn", 10.0));
    let count = option("--series", 20_000.0) as usize;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (data, bucket) = (dir.path().join("data"), dir.path().join("bucket"));
    let clock = Arc::new(ManualClock::new(START));
    let world = World { clock: clock.clone(), ..World::real() };
    let tenant = TenantId::new("soak").expect("a tenant");
    let settings = tsdb::Settings {
        dir: data.clone(),
        segment_bytes: SEGMENT,
        retention: 6 * HOUR,
        external_labels: Labels::from_pairs([("replica", "a")]).expect("a label"),
        ..tsdb::Settings::default()
    };
    let engine = Tsdb::open(world.clone(), settings).expect("a new engine");
    let identities = Identities::new(identity::Settings::default(), &*world.chance);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
    let bucket = bucket::Bucket::filesystem(&bucket, &world).expect("a bucket on disk");
    let mut shipped: Vec<block::BlockId> = Vec::new();

    let mut targets: Vec<Target> = (0..count).map(|slot| target(&tenant, slot, 0)).collect();
    let (mut next_to_go, mut lives, mut debt) = (0, 1u32, 0.0);
    let (mut rows, mut uploads) = (Vec::<Hour>::new(), 0);
    let (mut verdicts, mut batch) = (Vec::new(), WriteBatch::default());
    println!(
        "hour  anon MiB  peak MiB  head series  identities  files  log MiB  local blocks  uploads  samples M/s"
    );
    for hour in 0..hours {
        let began = Instant::now();
        let (mut sum, mut peak, mut seen) = (0.0, 0f64, 0.0);
        for step in 0..HOUR / STEP {
            let now = START + hour * HOUR + step * STEP;
            clock.set(now);
            debt += count as f64 * churn / 100.0 / (HOUR / STEP) as f64;
            while debt >= 1.0 {
                debt -= 1.0;
                targets[next_to_go] = target(&tenant, next_to_go, lives);
                next_to_go = (next_to_go + 1) % count;
                lives += u32::from(next_to_go == 0);
            }
            for (at, some) in targets.chunks(BATCH).enumerate() {
                send(&engine, &identities, &tenant, some, at * BATCH, now, &mut batch, &mut verdicts);
            }
            if now % 60_000 == 0 {
                engine.cut(now, false).expect("a cut");
                for local in engine.local_blocks(&tenant) {
                    if !shipped.contains(&local.id) {
                        runtime
                            .block_on(bucket::upload_block(&bucket, &world, &local.dir, &local.meta))
                            .expect("an upload");
                        shipped.push(local.id);
                        uploads += 1;
                    }
                }
                engine.apply_retention(now, &|local| shipped.contains(&local.id)).expect("retention");
                let memory = anonymous();
                sum += memory;
                peak = peak.max(memory);
                seen += 1.0;
            }
        }
        identities.sweep(clock_now(&world));
        let (data_files, _) = files(&data);
        let (_, log_bytes) = files(&data.join("wal"));
        let stats = engine.head_stats();
        let row = Hour {
            memory: sum / seen,
            data_files,
            log_bytes,
            head_series: stats.series,
            identities: identities.stats().series,
        };
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        println!(
            "{:>4}  {:>8.1}  {:>8.1}  {:>11}  {:>10}  {:>5}  {:>7.1}  {:>12}  {:>7}  {:>11.2}",
            hour + 1,
            mib(row.memory),
            mib(peak),
            row.head_series,
            row.identities,
            row.data_files,
            mib(row.log_bytes as f64),
            engine.local_blocks(&tenant).len(),
            uploads,
            (count as i64 * (HOUR / STEP)) as f64 / 1e6 / began.elapsed().as_secs_f64(),
        );
        rows.push(row);
    }
    judge(&rows);
    engine.close().expect("a log that closes");
}

fn clock_now(world: &World) -> i64 {
    world.clock.now_ms()
}

/// Appends one sample of each target as a receiver would: recognised first, then stored, then learned.
fn send(
    engine: &Tsdb,
    identities: &Identities,
    tenant: &TenantId,
    targets: &[Target],
    first: usize,
    now: i64,
    batch: &mut WriteBatch,
    verdicts: &mut Vec<Verdict>,
) {
    batch.clear();
    let mut met = Vec::with_capacity(targets.len());
    {
        let session = identities.session(tenant.as_str(), now);
        for (at, target) in targets.iter().enumerate() {
            let bytes = target.labels.as_bytes();
            let value = (now / 1000) as f64 * (1 + (first + at) % 7) as f64;
            batch.push(bytes, target.hash, [Sample { timestamp: now, value }]);
            let key = session.key(bytes);
            let id = session.find(key).map(|known| known.id);
            met.push(Met { id, key, len: bytes.len() as u32, hash: target.hash });
        }
    }
    let all: Vec<u32> = (0..targets.len() as u32).collect();
    verdicts.clear();
    verdicts.resize(batch.verdicts(), Verdict::Unavailable);
    let outcome = engine.append(tenant, batch, &all, now, verdicts).expect("an append");
    assert!(
        verdicts.iter().all(|v| *v == Verdict::Stored),
        "{:?}",
        verdicts.iter().find(|v| **v != Verdict::Stored)
    );
    engine.wait_durable_blocking(outcome.log_position, Duration::from_secs(120)).expect("a durable log");
    identities.learn::<u64>(tenant.as_str(), &mut met, &[], true, now);
}

/// Whether anything grew that should not.
fn judge(rows: &[Hour]) {
    if rows.len() < 8 {
        println!("fewer than eight hours: nothing is judged");
        return;
    }
    // Windows are of two hours, so that two hours beside each other make one figure.
    let settled = &rows[3..];
    let pairs: Vec<f64> =
        settled.chunks_exact(2).map(|pair| (pair[0].memory + pair[1].memory) / 2.0).collect();
    let memory = drift(&pairs) / 2.0;
    let most = |of: &dyn Fn(&Hour) -> f64, rows: &[Hour]| rows.iter().map(of).fold(0.0, f64::max);
    let (early, late) = settled.split_at(settled.len() / 2);
    println!("memory drifts by {memory:+.3} % an hour after the first three");
    assert!(memory < 1.0, "memory drifts by {memory:.3} % an hour");
    let figures: [(&str, &dyn Fn(&Hour) -> f64); 4] = [
        ("files", &|h| h.data_files as f64),
        ("log bytes", &|h| h.log_bytes as f64),
        ("series in the head", &|h| h.head_series as f64),
        ("identities", &|h| h.identities as f64),
    ];
    for (name, of) in figures {
        let (before, after) = (most(of, early), most(of, late));
        println!("{name}: at most {before} in the first half, {after} in the second");
        assert!(after <= before * 1.15 + 4.0, "{name} grow");
    }
}
