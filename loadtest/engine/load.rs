//! One load on one server: what it cost, what it holds afterwards, and how it comes back from a kill.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Serialize;

use super::{Bench, Kind, now};
use crate::http::Client;
use crate::ingest::{self, Ledger, Plan};
use crate::process::{Watch, bytes_over, folder_size, wal_size};
use crate::workload::Workload;

/// What one run showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub section: String,
    pub server: String,
    pub series: u64,
    pub samples: u64,
    pub samples_per_second: f64,
    /// User and system time of the server until the last acknowledgement.
    pub cpu_s_per_million: f64,
    /// RssAnon + RssShmem after the last acknowledgement.
    pub anon_bytes_per_series: f64,
    pub anon_peak_bytes_per_series: f64,
    pub file_bytes_per_series: f64,
    pub wal_bytes_per_sample: f64,
    pub disk_bytes_per_sample: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// From a start after kill -9 to the first 200 of the readiness probe.
    pub ready_s: Option<f64>,
    /// Memory at that moment.
    pub ready_anon_bytes_per_series: Option<f64>,
    /// What the servers of a cluster sent one another.
    pub peer_bytes_per_sample: Option<f64>,
    /// Acknowledged samples that a count over everything did not find after the kill.
    pub lost_by_kill: Option<i64>,
}

impl Figures {
    pub fn brief(&self) -> String {
        let mut out = format!(
            "{:.0}k samples/s, {:.3} CPU-s per million, {:.0} B anon per series, p50 {:.1} ms, p99 {:.1} ms",
            self.samples_per_second / 1e3,
            self.cpu_s_per_million,
            self.anon_bytes_per_series,
            self.p50_ms,
            self.p99_ms
        );
        if let Some(seconds) = self.ready_s {
            out += &format!(", ready {seconds:.2} s after kill -9");
        }
        if let Some(bytes) = self.peer_bytes_per_sample {
            out += &format!(", {bytes:.1} B between peers per sample");
        }
        if let Some(lost) = self.lost_by_kill {
            out += &format!(", {lost} acked samples lost");
        }
        out
    }
}

/// Loads, measures, kills. What a server holds before its first sample is part of its cost, and not taken off.
pub async fn run(
    bench: &Bench,
    kind: Kind,
    section: &str,
    data: &Path,
    workload: &Arc<Workload>,
    bodies: &Arc<Vec<Bytes>>,
) -> Result<Figures> {
    let system = bench.start(kind, data).await?;
    let pids: Vec<u32> = system.servers.iter().map(|s| s.pid()).collect();
    let watch = Watch::start(pids);
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let before = system.usage()?;
    let plan = Plan {
        urls: system.write_urls.clone(),
        connections: bench.options.connections,
        rate: 0,
        retry_for: Duration::from_secs(60),
        quiet: true,
        bodies: Some(bodies.clone()),
        door: Default::default(),
        home: None,
        elsewhere: false,
    };
    let outcome = ingest::run(workload.clone(), ledger, &plan, 0..workload.steps, Arc::default()).await?;
    let used = system.usage()?;
    if outcome.failed > 0 {
        bail!("{} requests failed for good: {}", outcome.failed, outcome.errors.join("; "));
    }
    let (series, samples) = (workload.series.len() as f64, outcome.samples as f64);
    let ms = |p| outcome.percentile(p).as_secs_f64() * 1e3;
    let mut out = Figures {
        section: section.to_owned(),
        server: kind.name().to_owned(),
        series: workload.series.len() as u64,
        samples: outcome.samples,
        samples_per_second: samples / outcome.elapsed.as_secs_f64(),
        cpu_s_per_million: (used.cpu - before.cpu) / samples * 1e6,
        anon_bytes_per_series: used.anon as f64 / series,
        anon_peak_bytes_per_series: watch.stop().max(used.anon) as f64 / series,
        file_bytes_per_series: used.file as f64 / series,
        wal_bytes_per_sample: wal_size(&system.data) as f64 / samples,
        disk_bytes_per_sample: folder_size(&system.data) as f64 / samples,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        ..Figures::default()
    };
    if !system.peer_ports.is_empty() {
        out.peer_bytes_per_sample = bytes_over(&system.peer_ports).map(|bytes| bytes as f64 / samples);
    }
    system.kill()?;
    if section == "1M" && kind != Kind::Floor {
        restart(bench, kind, data, workload, &mut out).await?;
    }
    Ok(out)
}

async fn restart(
    bench: &Bench,
    kind: Kind,
    data: &Path,
    workload: &Workload,
    out: &mut Figures,
) -> Result<()> {
    let begin = now();
    let system = bench.start(kind, data).await.context("start again after kill -9")?;
    out.ready_s = Some(begin.elapsed().as_secs_f64());
    let held = system.usage()?.anon;
    out.ready_anon_bytes_per_series = Some(held as f64 / workload.series.len() as f64);
    let found = count(&system.query_url, workload).await.context("count after kill -9")?;
    out.lost_by_kill = Some(out.samples as i64 - found);
    system.stop()
}

/// Samples of the whole workload, counted by the server, metric by metric: a count drops the names, and series that
/// differ in nothing else may not stand in one result.
async fn count(url: &str, workload: &Workload) -> Result<i64> {
    let mut client = Client::new(url)?.with_timeout(Duration::from_secs(300));
    let range = (workload.end_ms() - workload.start_ms) / 1000 + 2;
    let names: BTreeSet<&str> = workload.series.iter().map(|s| s.name()).collect();
    let mut sum = 0.0;
    for name in names {
        let query = format!("sum(count_over_time({name}[{range}s]))");
        let (status, body) = client.query(&query, workload.end_ms() + 1000).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body).with_context(|| {
            format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]))
        })?;
        if answer["status"] != "success" {
            bail!("{query}: {}", answer["error"]);
        }
        // No series at all is a count of nothing.
        let value = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0");
        sum += value.parse::<f64>()?;
    }
    Ok(sum as i64)
}
