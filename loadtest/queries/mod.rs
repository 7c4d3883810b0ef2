//! `loadtest queries`: the CPU, time and memory of a mix of queries, on the same data in ours, Prometheus and
//! VictoriaMetrics, query by query in turn; and what a query over a million series may do under a small budget.

mod mix;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::engine::{now, unix_seconds};
use crate::http::{Client, percent};
use crate::ingest::{self, Ledger, Plan};
use crate::process::{peak_rss, reset_peak_rss, rss};
use crate::servers::{Program, System, prometheus, standalone, victoria};
use crate::workload::Workload;

pub use report::Report;
use report::{Cost, Large, Row};

pub struct Options {
    pub binary: PathBuf,
    pub prometheus: PathBuf,
    pub victoria: PathBuf,
    pub series: usize,
    pub hours: u32,
    /// Series of the part about large queries; 0 leaves it out.
    pub large: usize,
    /// Seconds for which each query is repeated on each server.
    pub repeat: f64,
    pub dir: Option<PathBuf>,
}

/// The budget of the large query.
const BUDGET: u64 = 256 << 20;

pub async fn run(options: &Options) -> Result<Report> {
    let mut builder = tempfile::Builder::new();
    let folder = match &options.dir {
        Some(dir) => builder.prefix("loadtest-").tempdir_in(dir),
        None => builder.prefix("loadtest-").tempdir(),
    };
    let folder = folder.context("a folder for data")?;
    let mut report = Report { series: options.series, hours: options.hours, ..Report::default() };
    if options.series > 0 {
        report.rows = beside_peers(options, folder.path()).await?;
    }
    if options.large > 0 {
        report.large = Some(large(options, folder.path()).await?);
    }
    Ok(report)
}

async fn beside_peers(options: &Options, folder: &std::path::Path) -> Result<Vec<Row>> {
    let steps = options.hours * 240;
    // Beside whole minutes, at which subqueries step: a sample on the edge of a range counts in Prometheus 2, not in 3.
    let start = unix_seconds()? / 15 * 15 - 11 - i64::from(steps) * 15;
    let workload = Arc::new(Workload::for_queries(options.series, steps, start * 1000, 15_000, 2000));
    let prometheus_program =
        Program::new(&options.prometheus).with("--query.max-samples=1000000000").with("--query.timeout=10m");
    let systems = [
        ("tributary", standalone(&Program::new(&options.binary), &folder.join("tributary"), None).await?),
        ("prometheus", prometheus(&prometheus_program, &folder.join("prometheus")).await?),
        ("victoria-metrics", victoria(&Program::new(&options.victoria), &folder.join("victoria")).await?),
    ];
    for (name, system) in &systems {
        eprintln!("{name}: {} series x {steps} samples", workload.series.len());
        fill(system, &workload).await.with_context(|| format!("load {name}"))?;
    }
    // What was just written is flushed, merged and cut before anything is measured.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut rows = Vec::new();
    for query in mix::queries(&workload) {
        let mut costs = Vec::new();
        let mut answers = Vec::new();
        for (name, system) in &systems {
            let (cost, answer) = measure(system, &query.path, options.repeat)
                .await
                .with_context(|| format!("{name}: {}", query.text))?;
            costs.push(cost);
            answers.push(answer);
        }
        let same = mix::compare(&answers[0], &answers[1]);
        let row = Row::new(query.name, &query.text, same, costs);
        eprintln!("{}", row.brief());
        rows.push(row);
    }
    for (_, system) in systems {
        system.stop()?;
    }
    Ok(rows)
}

async fn fill(system: &System, workload: &Arc<Workload>) -> Result<()> {
    let plan = Plan {
        urls: system.write_urls.clone(),
        connections: 4,
        rate: 0,
        retry_for: Duration::from_secs(120),
        quiet: true,
        bodies: None,
        door: Default::default(),
        home: None,
        elsewhere: false,
    };
    let ledger = Arc::new(Ledger::new(workload.requests()));
    // In stretches of 25 minutes: where one connection runs ahead by an hour, Prometheus refuses what the others send.
    for start in (0..workload.steps).step_by(100) {
        let steps = start..(start + 100).min(workload.steps);
        let outcome = ingest::run(workload.clone(), ledger.clone(), &plan, steps, Arc::default()).await?;
        if outcome.failed > 0 {
            bail!("{} requests failed: {}", outcome.failed, outcome.errors.join("; "));
        }
    }
    Ok(())
}

/// Asks until warm, then again and again; CPU is that of the server's process over all repetitions.
async fn measure(system: &System, path: &str, repeat: f64) -> Result<(Cost, Bytes)> {
    let mut client = Client::new(&system.query_url)?.with_timeout(Duration::from_secs(300));
    let pid = system.servers[0].pid();
    for _ in 0..2 {
        ask(&mut client, path).await?;
    }
    reset_peak_rss(pid)?;
    let held = rss(pid)?;
    let before = system.usage()?.cpu;
    let begin = now();
    let (mut walls, mut answer) = (Vec::new(), Bytes::new());
    while walls.len() < 3 || (begin.elapsed().as_secs_f64() < repeat && walls.len() < 1000) {
        let sent = now();
        answer = ask(&mut client, path).await?;
        walls.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = (system.usage()?.cpu - before) * 1e3 / walls.len() as f64;
    walls.sort_by(f64::total_cmp);
    let cost = Cost {
        cpu_ms,
        wall_ms: walls[walls.len() / 2],
        peak_bytes: peak_rss(pid)?.saturating_sub(held),
        answer_bytes: answer.len() as u64,
        repetitions: walls.len(),
    };
    Ok((cost, answer))
}

async fn ask(client: &mut Client, path: &str) -> Result<Bytes> {
    let (status, body) = client.get(path).await?;
    if status != 200 {
        bail!("answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
    }
    Ok(body)
}

/// A million series, two hours a scrape a minute: label calls warm, and a query over everything under a small budget.
async fn large(options: &Options, folder: &std::path::Path) -> Result<Large> {
    let steps = 120;
    let start = unix_seconds()? - i64::from(steps) * 60;
    let workload = Arc::new(Workload::for_queries(options.large, steps, start * 1000, 60_000, 2000));
    let program = Program::new(&options.binary).with(format!("--query.max-memory={}", "256MiB"));
    let system = standalone(&program, &folder.join("large"), None).await?;
    eprintln!("large: {} series x {steps} samples", workload.series.len());
    fill(&system, &workload).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut out = Large { series: workload.series.len(), budget: BUDGET, ..Large::default() };
    for query in mix::queries(&workload) {
        if matches!(query.name, "label values" | "series call") {
            let (cost, _) = measure(&system, &query.path, options.repeat).await?;
            eprintln!("large: {}: {:.1} ms wall, {:.1} ms CPU", query.name, cost.wall_ms, cost.cpu_ms);
            out.calls.push((query.name.to_owned(), cost));
        }
    }
    let pid = system.servers[0].pid();
    let (first, end) = (workload.start_ms / 1000, workload.end_ms() / 1000);
    let all = "{__name__!=\"\"}";
    let sum = format!("sum by (job) ({all})");
    let range = format!("/api/v1/query_range?query={}&start={first}&end={end}&step=60", percent(&sum));
    let matrix = format!("{all}[2h]");
    let instant = format!("/api/v1/query?query={}&time={end}", percent(&matrix));
    for (query, path) in [(sum, range), (matrix, instant)] {
        // The queries before left memory behind that the allocator gives back by and by.
        tokio::time::sleep(Duration::from_secs(12)).await;
        reset_peak_rss(pid)?;
        let held = rss(pid)?;
        let mut client = Client::new(&system.query_url)?.with_timeout(Duration::from_secs(300));
        let begin = now();
        let (status, body) = client.get(&path).await?;
        let wall_ms = begin.elapsed().as_secs_f64() * 1e3;
        let grown = peak_rss(pid)?.saturating_sub(held);
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        eprintln!("large: {query}: {status} after {wall_ms:.0} ms, RSS grew by {} MiB", grown >> 20);
        out.queries.push(report::LargeQuery { query, status, wall_ms, grown, text });
    }
    system.stop()?;
    Ok(out)
}
