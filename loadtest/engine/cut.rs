//! A cut under load: latencies before and during it, and memory from the first sample to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Serialize;

use super::{Bench, Kind, now};
use crate::http::Client;
use crate::ingest::{self, Ledger, Plan};
use crate::process::Watch;
use crate::workload::Workload;

/// What a cut did to those who wrote meanwhile.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cut {
    pub series: u64,
    pub samples: u64,
    /// Samples per second that flowed before, during and after.
    pub rate: u64,
    pub cut_s: f64,
    pub requests_during: usize,
    pub p50_before_ms: f64,
    pub p99_before_ms: f64,
    pub p50_during_ms: f64,
    pub p99_during_ms: f64,
    pub max_during_ms: f64,
    pub failed: u64,
    pub retries: u64,
    /// Memory per series: just before the cut, at most during the run, and at the end.
    pub anon_before_bytes_per_series: f64,
    pub anon_peak_bytes_per_series: f64,
    pub anon_end_bytes_per_series: f64,
}

const STEPS: u32 = 480;
/// Scrapes that are in before the pace becomes even.
const FILLED: u32 = 360;
/// Scrapes between the even pace's beginning and the cut: what "before" is measured over.
const BEFORE: u32 = 40;

pub async fn run(bench: &Bench) -> Result<Cut> {
    let series = bench.scaled(100_000);
    let start = super::unix_seconds()? - i64::from(STEPS) * 15;
    let workload = Arc::new(Workload::new(series, STEPS, start * 1000, 15_000, 500, 1));
    let rate = 200_000;
    bench.say(&format!("cut: {series} series x {STEPS} samples, {rate} samples/s while it is cut"));
    let data = bench.fresh("cut")?;
    let system = bench.start(Kind::Ours, &data).await?;
    let watch = Watch::start(system.servers.iter().map(|s| s.pid()).collect());
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let plan = |rate| Plan {
        urls: system.write_urls.clone(),
        connections: bench.options.connections,
        rate,
        retry_for: Duration::from_secs(60),
        quiet: true,
        bodies: None,
        door: Default::default(),
        home: None,
        elsewhere: false,
    };
    ingest::run(workload.clone(), ledger.clone(), &plan(0), 0..FILLED, Arc::default()).await?;
    bench.say("cut: filled; even pace");
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (workload, ledger, plan, stop) = (workload.clone(), ledger.clone(), plan(rate), stop.clone());
        tokio::spawn(async move { ingest::run(workload, ledger, &plan, FILLED..STEPS, stop).await })
    };
    let begin = now();
    let before = Duration::from_secs_f64(f64::from(BEFORE) * series as f64 / rate as f64);
    tokio::time::sleep(before).await;
    let held = system.usage()?.anon;
    let mut client = Client::new(&system.query_url)?.with_timeout(Duration::from_secs(300));
    let cut_from = begin.elapsed();
    let (status, text) = client.send("POST", "/-/cut", &[], Bytes::new()).await?;
    let cut_to = begin.elapsed();
    if status != 200 {
        bail!("/-/cut answered {status}: {}", String::from_utf8_lossy(&text));
    }
    if sender.is_finished() {
        bench.say("cut: outlasted the data; figures during it are of its beginning");
    }
    // Somewhat longer, so that requests that began during the cut end as all others do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Relaxed);
    let outcome = sender.await?.context("load during the cut")?;
    // The allocator gives memory back within seconds.
    tokio::time::sleep(Duration::from_secs(if bench.options.quick { 1 } else { 12 })).await;
    let end = system.usage()?.anon;
    let peak = watch.stop();
    system.stop()?;
    bench.drop_data(&data);

    let between = |from: Duration, to: Duration| {
        let mut out: Vec<u32> = outcome
            .timeline
            .iter()
            .filter(|(at, took)| {
                // In flight at any moment of the span.
                let at = Duration::from_micros(*at);
                at < to && at + Duration::from_micros(u64::from(*took)) >= from
            })
            .map(|(_, took)| *took)
            .collect();
        out.sort_unstable();
        out
    };
    let ms = |sorted: &[u32], p: f64| {
        let at = ((sorted.len() as f64 - 1.0) * p).max(0.0) as usize;
        f64::from(sorted.get(at).copied().unwrap_or(0)) / 1e3
    };
    // The first second is warm-up.
    let calm = between(Duration::from_secs(1).min(cut_from / 4), cut_from);
    let during = between(cut_from, cut_to);
    let per_series = |bytes: u64| bytes as f64 / series as f64;
    let out = Cut {
        series: series as u64,
        samples: series as u64 * u64::from(STEPS),
        rate,
        cut_s: (cut_to - cut_from).as_secs_f64(),
        requests_during: during.len(),
        p50_before_ms: ms(&calm, 0.5),
        p99_before_ms: ms(&calm, 0.99),
        p50_during_ms: ms(&during, 0.5),
        p99_during_ms: ms(&during, 0.99),
        max_during_ms: ms(&during, 1.0),
        failed: outcome.failed,
        retries: outcome.retries,
        anon_before_bytes_per_series: per_series(held),
        anon_peak_bytes_per_series: per_series(peak),
        anon_end_bytes_per_series: per_series(end),
    };
    bench.say(&format!(
        "    cut in {:.2} s; p99 {:.1} ms before, {:.1} ms during ({} requests); {:.0} B per series before, {:.0} at most",
        out.cut_s, out.p99_before_ms, out.p99_during_ms, out.requests_during,
        out.anon_before_bytes_per_series, out.anon_peak_bytes_per_series
    ));
    Ok(out)
}
