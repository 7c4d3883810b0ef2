//! Appends 100 000 series x 120 samples in batches of 2000, then kills, replays and reads: prints nanoseconds per
//! sample and bytes per series. `cargo bench -p tributary-tsdb --bench append -- [series] [samples]`.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use model::{Labels, Matcher, Sample, TenantId, TimeRange};
use runtime::World;
use storage::{Append, Columns, Context, Select, SelectRequest, Verdict, WriteBatch, decode_series};
use tsdb::{Settings, Tsdb};

const BATCH: usize = 2000;
const STEP: i64 = 15_000;

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_network_transmit_packets_total_{}", i % 500)),
        ("instance", format!("host-{:05}.example.internal:9100", i / 500)),
        ("job", "node-exporter".to_owned()),
        ("cluster", "production-eu-west".to_owned()),
        ("namespace", format!("team-{}", i % 37)),
        ("device", format!("eth{}", i % 4)),
        ("pod", format!("exporter-7f9c-{:06x}", i / 50)),
        ("region", "eu-west-1".to_owned()),
        ("zone", format!("eu-west-1{}", ["a", "b", "c"][i % 3])),
        ("env", "production".to_owned()),
    ])
    .unwrap_or_default()
}

/// Constant, counter and noise, as in a scrape.
fn value(series: usize, at: usize) -> f64 {
    match series % 10 {
        0..=3 => series as f64,
        4..=7 => (at * (series % 977 + 1)) as f64,
        _ => ((series * 7919 + at * 104_729) % 100_003) as f64 / 1000.0,
    }
}

fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let series = numbers.next().unwrap_or(100_000);
    let samples = numbers.next().unwrap_or(120);
    let dir = tempfile::tempdir()?;
    let settings = Settings { dir: dir.path().to_owned(), ..Settings::default() };
    let tenant = TenantId::new("default-tenant")?;
    let all: Vec<(Labels, u64)> = (0..series)
        .map(|i| {
            let labels = labels(i);
            let hash = labels.placement_hash(tenant.as_str());
            (labels, hash)
        })
        .collect();
    let tsdb = Tsdb::open(World::real(), settings.clone())?;
    let before = rss();
    let now = World::real().clock.now_ms() / 7_200_000 * 7_200_000;
    let (mut batch, mut verdicts) = (WriteBatch::default(), Vec::new());
    let mut position = 0;
    let mut rounds = Vec::new();
    for at in 0..samples {
        let (mut spent, cpu_before) = (Duration::ZERO, cpu());
        for (part_index, part) in all.chunks(BATCH).enumerate() {
            batch.clear();
            for (i, (labels, hash)) in part.iter().enumerate() {
                let sample =
                    Sample { timestamp: now + at as i64 * STEP, value: value(part_index * BATCH + i, at) };
                batch.push(labels.as_bytes(), *hash, [sample]);
            }
            let rows: Vec<u32> = (0..part.len() as u32).collect();
            verdicts.clear();
            verdicts.resize(part.len(), Verdict::Unavailable);
            let start = Instant::now();
            position =
                tsdb.append(&tenant, &batch, &rows, now + at as i64 * STEP, &mut verdicts)?.log_position;
            spent += start.elapsed();
            assert!(verdicts.iter().all(|v| *v == Verdict::Stored));
        }
        rounds.push((spent, cpu() - cpu_before));
    }
    tsdb.wait_durable_blocking(position, Duration::from_secs(120))?;
    let ns = |d: Duration| d.as_nanos() as f64 / series as f64;
    println!("{series} series, {samples} samples each, {BATCH} a batch, one thread");
    println!("append, series created      {:8.0} ns/sample", ns(rounds[0].0));
    let mut steady: Vec<f64> = rounds[1..].iter().map(|r| ns(r.0)).collect();
    steady.sort_by(f64::total_cmp);
    if let (Some(best), Some(middle)) = (steady.first(), steady.get(steady.len() / 2)) {
        println!("append, steady              {middle:8.0} ns/sample (median of rounds; best {best:.0})");
    }
    let cpu_all: Duration = rounds[1..].iter().map(|r| r.1).sum();
    println!("cpu with the log's writer   {:8.0} ns/sample", ns(cpu_all) / (samples.max(2) - 1) as f64);
    let stats = tsdb.head_stats();
    println!("memory, chunks and labels   {:8.0} B/series", stats.bytes as f64 / series as f64);
    let parts = tsdb.head_memory();
    for (part, bytes) in &parts {
        println!("memory, {part:<20}{:8.1} B/series", *bytes as f64 / series as f64);
    }
    let all: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    println!("memory, all parts           {:8.0} B/series", all as f64 / series as f64);
    println!(
        "memory, resident            {:8.0} B/series",
        rss().saturating_sub(before) as f64 / series as f64
    );

    let view = tsdb.tenant(&tenant).ok_or("no tenant")?;
    let read = |matchers: Vec<Matcher>| -> Result<(usize, usize, Duration), Box<dyn std::error::Error>> {
        let start = Instant::now();
        let mut set = view.select(&SelectRequest::new(TimeRange::ALL, matchers), &Context::background())?;
        let (mut found, mut count, mut columns) = (0, 0, Columns::default());
        while let Some(entry) = set.next()? {
            columns.clear();
            decode_series(&entry.chunks, TimeRange::ALL, &mut columns)?;
            found += 1;
            count += columns.len();
        }
        Ok((found, count, start.elapsed()))
    };
    for matchers in [
        vec![Matcher::equal("__name__", "node_network_transmit_packets_total_7")],
        vec![Matcher::equal("job", "node-exporter")],
    ] {
        let shown = format!("{matchers:?}");
        let (found, count, took) = read(matchers)?;
        println!("select {shown:60} {found:7} series {count:9} samples {:7.1} ms", took.as_secs_f64() * 1e3);
    }
    drop(view);
    drop(tsdb);
    let start = Instant::now();
    let tsdb = Tsdb::open(World::real(), settings)?;
    let took = start.elapsed();
    println!(
        "replay                      {:8.0} ns/sample, {:.2} s in all",
        took.as_nanos() as f64 / (series * samples) as f64,
        took.as_secs_f64()
    );
    assert_eq!(tsdb.head_stats().samples, (series * samples) as u64);
    let start = Instant::now();
    let cut = tsdb.cut(now + 24 * 3_600_000, true)?;
    let bytes: u64 =
        cut.iter().flat_map(|b| b.meta.thanos.iter().flat_map(|t| &t.files)).map(|f| f.size_bytes).sum();
    println!(
        "cut                         {:8.0} ns/sample, {:.2} B/sample on disk",
        start.elapsed().as_nanos() as f64 / (series * samples) as f64,
        bytes as f64 / (series * samples) as f64
    );
    Ok(())
}
