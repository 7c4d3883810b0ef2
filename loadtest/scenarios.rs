//! The scenarios, named as an operator would name them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::ingest::{self, Ledger, Outcome, Plan};
use crate::process::{Server, Usage, folder_size, free_port, usage};
use crate::report::Line;
use crate::servers::{Program, READY, cluster, cluster_receiver, prometheus, standalone, victoria};
use crate::verify;
use crate::workload::{Workload, mix};

/// Size and pace of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    pub series: usize,
    pub samples: u32,
    pub interval_ms: i64,
    pub back: Duration,
    pub batch: usize,
    pub connections: usize,
    pub rate: u64,
    pub seed: u64,
    pub binary: PathBuf,
    /// A build of the version before, for stories in which two run side by side.
    pub older: Option<PathBuf>,
    pub dir: Option<PathBuf>,
    pub verify: bool,
}

impl Shape {
    pub fn workload(&self) -> Result<Arc<Workload>> {
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        // Whole seconds, so that times print and parse exactly.
        let start = (now.as_secs() as i64 - self.back.as_secs() as i64) * 1000;
        Ok(Arc::new(Workload::new(self.series, self.samples, start, self.interval_ms, self.batch, self.seed)))
    }

    pub fn plan(&self, urls: Vec<String>) -> Plan {
        let retry_for = Duration::from_secs(60);
        Plan {
            urls,
            connections: self.connections,
            rate: self.rate,
            retry_for,
            quiet: false,
            bodies: None,
            door: Default::default(),
            home: None,
            elsewhere: false,
        }
    }

    fn program(&self) -> Program {
        Program::new(&self.binary)
    }

    pub fn folder(&self) -> Result<Folder> {
        match &self.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                Ok(Folder { path: dir.clone(), _temporary: None })
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("loadtest-").tempdir()?;
                Ok(Folder { path: temporary.path().to_owned(), _temporary: Some(temporary) })
            }
        }
    }
}

pub struct Folder {
    pub path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// Loads servers that somebody else started.
pub async fn send(
    shape: &Shape,
    urls: Vec<String>,
    verify: Option<&str>,
    drop_labels: &[String],
    pids: &[u32],
) -> Result<Line> {
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let sum = || -> Result<Usage> {
        let mut sum = Usage::default();
        for &pid in pids {
            sum += usage(pid)?;
        }
        Ok(sum)
    };
    let before = sum()?;
    let outcome =
        ingest::run(workload.clone(), ledger.clone(), &shape.plan(urls), 0..shape.samples, Arc::default())
            .await?;
    let mut used = sum()?;
    used.cpu -= before.cpu;
    let line = Line::new("running", shape.series, &outcome, used, 0);
    match verify {
        Some(url) if shape.verify => {
            Ok(line.verified(verify::run(workload, ledger, url, drop_labels, false).await?))
        }
        _ => Ok(line),
    }
}

/// Each server alone on the machine, one after the other, the same data.
pub async fn compare(shape: &Shape, servers: &[String], runs: usize) -> Result<Vec<Line>> {
    let mut out = Vec::new();
    for name in servers {
        let mut lines = Vec::new();
        for run in 0..runs.max(1) {
            eprintln!("{name}, run {} of {}", run + 1, runs.max(1));
            lines.push(steady(shape, name).await.with_context(|| format!("scenario steady on {name}"))?);
        }
        lines.sort_by(|a, b| a.cpu_s_per_million.total_cmp(&b.cpu_s_per_million));
        out.push(lines.swap_remove(lines.len() / 2));
    }
    Ok(out)
}

async fn steady(shape: &Shape, name: &str) -> Result<Line> {
    let folder = shape.folder()?;
    let data = folder.path.join(name);
    let system = match name {
        "standalone" => standalone(&shape.program(), &data, None).await?,
        "cluster" => cluster(&shape.program(), &data).await?,
        "prometheus" => prometheus(&Program::new(name), &data).await?,
        "victoria-metrics" => victoria(&Program::new(name), &data).await?,
        other => {
            bail!("unknown server {other:?}; known are standalone, cluster, prometheus, victoria-metrics")
        }
    };
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let before = system.usage()?;
    let plan = shape.plan(system.write_urls.clone());
    let outcome =
        ingest::run(workload.clone(), ledger.clone(), &plan, 0..shape.samples, Arc::default()).await?;
    let mut used = system.usage()?;
    used.cpu -= before.cpu;
    let mut line = Line::new(name, shape.series, &outcome, used, folder_size(&system.data));
    // Peers round values or answer within a window of their own; reading back judges ours.
    if shape.verify && !matches!(name, "prometheus" | "victoria-metrics") {
        line = line
            .verified(verify::run(workload, ledger, &system.query_url, &system.drop_labels, false).await?);
    }
    system.stop()?;
    Ok(line)
}

/// kill -9 at a random moment of the ingest, start again, go on: `cycles` times in one data folder.
///
/// The moments are of the data, not of the clock: the requests are as many parts as there are kills and one, and each kill waits
/// for a random place in its part to be acknowledged. However long a start takes, no kill comes after the data.
pub async fn crash(shape: &Shape, cycles: usize) -> Result<Line> {
    let folder = shape.folder()?;
    let data = folder.path.join("standalone");
    let ports = (free_port()?, free_port()?);
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let mut system = standalone(&shape.program(), &data, Some(ports)).await?;
    let mut plan = shape.plan(system.write_urls.clone());
    plan.retry_for = Duration::from_secs(120);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (workload, ledger, stop) = (workload.clone(), ledger.clone(), stop.clone());
        let steps = 0..shape.samples;
        tokio::spawn(async move { ingest::run(workload, ledger, &plan, steps, stop).await })
    };
    let mut longest = Duration::ZERO;
    let mut killed = 0;
    let mut used = Usage::default();
    for cycle in 0..cycles {
        let random = mix(shape.seed ^ cycle as u64);
        let due = kill_after(workload.requests(), cycles, cycle, random);
        while ledger.acked() < due && !sender.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Anywhere between two answers.
        tokio::time::sleep(Duration::from_micros((random >> 32) % 8_000)).await;
        let during = !sender.is_finished();
        used.cpu += system.usage()?.cpu;
        for server in system.servers.drain(..) {
            server.kill()?;
        }
        killed += usize::from(during);
        let begin = Instant::now();
        system = standalone(&shape.program(), &data, Some(ports))
            .await
            .with_context(|| format!("start after kill {}", cycle + 1))?;
        longest = longest.max(begin.elapsed());
        eprintln!(
            "cycle {}: killed {}, ready again after {:.2?}",
            cycle + 1,
            if during { "while data flowed" } else { "after the data" },
            begin.elapsed()
        );
    }
    let outcome: Outcome = sender.await??;
    stop.store(true, Relaxed);
    let last = system.usage()?;
    used = Usage { cpu: used.cpu + last.cpu, ..last };
    let mut line = Line::new("standalone, killed", shape.series, &outcome, used, folder_size(&data));
    line.restart_s = Some(longest.as_secs_f64());
    line.notes.push(format!("{killed} of {cycles} kills while data flowed"));
    let found = verify::run(workload, ledger, &system.query_url, &system.drop_labels, false).await?;
    Ok(line.verified(found))
}

/// How many requests are acknowledged when kill `cycle` of `cycles` is due: a random place in its part of them.
fn kill_after(requests: usize, cycles: usize, cycle: usize, random: u64) -> usize {
    let within = random % (1 << 20);
    let parts = (cycles as u128 + 1) << 20;
    let place = ((cycle as u128) << 20) + u128::from(within);
    (requests as u128 * place / parts) as usize
}

/// One of three receivers is killed while data flows, and comes back.
pub async fn node_loss(shape: &Shape, away: Duration) -> Result<Line> {
    let folder = shape.folder()?;
    let data = folder.path.join("cluster");
    let mut system = cluster(&shape.program(), &data).await?;
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    // The sender keeps to the two that stay, as a load balancer's health check would have it.
    let plan = shape.plan(system.write_urls[..2].to_vec());
    let sender = {
        let (workload, ledger, steps) = (workload.clone(), ledger.clone(), 0..shape.samples);
        tokio::spawn(async move { ingest::run(workload, ledger, &plan, steps, Arc::default()).await })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let restart = cluster_receiver(&data, 2)?;
    system.servers.remove(2).kill()?;
    let during = !sender.is_finished();
    tokio::time::sleep(away).await;
    let away_verified = sender.is_finished();
    let mut again = Server::start("receive-2", &shape.binary, &restart.args, &data.join("receive-2.log"))?;
    let took = again.wait_ready(&restart.http, "/-/ready", READY).await?;
    system.servers.push(again);
    let outcome = sender.await??;
    let mut line =
        Line::new("cluster, one lost", shape.series, &outcome, system.usage()?, folder_size(&data));
    line.restart_s = Some(took.as_secs_f64());
    line.notes.push(format!(
        "killed {}; back {}",
        if during { "while data flowed" } else { "after the data" },
        if away_verified { "after the data" } else { "while data flowed" }
    ));
    let found = verify::run(workload, ledger, &system.query_url, &system.drop_labels, false).await?;
    Ok(line.verified(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kill_falls_before_the_last_requests() {
        for (requests, cycles) in [(6_000, 200), (100, 200), (50, 1)] {
            let due: Vec<usize> =
                (0..cycles).map(|c| kill_after(requests, cycles, c, mix(c as u64))).collect();
            assert!(due.is_sorted(), "{due:?}");
            assert!(due.iter().all(|d| *d <= requests * cycles / (cycles + 1)), "{due:?}");
        }
    }
}
