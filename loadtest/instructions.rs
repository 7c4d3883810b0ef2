//! Instructions per sample: the server under callgrind, which counts what it executes in user space. Unlike times, the
//! figure is nearly the same on every machine and on every day.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::doors::Door;
use crate::ingest::{self, Ledger, Plan};
use crate::servers::{Program, System, cluster, floor_under, receiver, standalone};
use crate::workload::Workload;

/// Counts of one phase of a load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Count {
    pub server: String,
    /// `creation` is the first scrape of every series, `known` are the following ones.
    pub phase: String,
    pub series: u64,
    pub samples: u64,
    pub instructions_per_sample: f64,
    /// The functions that cost most by themselves: instructions per sample, and name.
    pub top: Vec<(f64, String)>,
}

/// Whether callgrind is installed.
pub fn available() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Creates `series` series, then sends `scrapes` further scrapes of them. `server` is standalone, receive, cluster or floor;
/// the peers' door is open at receive and cluster.
pub async fn run(
    binary: &Path,
    data: &Path,
    series: usize,
    scrapes: u32,
    server: &str,
    door: Door,
) -> Result<Vec<Count>> {
    let mut program = Program::new(binary);
    program.under = vec![
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        // Counts begin when asked to: starting up is no part of a sample's cost.
        "--instr-atstart=no".to_owned(),
        format!("--callgrind-out-file={}/callgrind.%p", data.display()),
    ];
    let system = match server {
        "standalone" => standalone(&program, data, None).await?,
        "cluster" => cluster(&program, data).await?,
        "receive" => receiver(&program, data).await?,
        "floor" => floor_under(program.under, data).await?,
        other => {
            bail!(
                "instructions of {other:?} are not counted; of standalone, receive, cluster and floor they are"
            )
        }
    };
    let start = crate::engine::unix_seconds()? - i64::from(scrapes + 4) * 15;
    let workload = Arc::new(Workload::new(series, scrapes + 3, start * 1000, 15_000, 2000, 1));
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let plan = Plan {
        urls: match door.is_grpc() {
            true => system.peer_ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
            false => system.write_urls.clone(),
        },
        connections: 4,
        rate: 0,
        retry_for: Duration::from_secs(120),
        quiet: true,
        bodies: None,
        door,
        home: None,
        elsewhere: false,
    };
    let load = async |steps: std::ops::Range<u32>| -> Result<u64> {
        let outcome = ingest::run(workload.clone(), ledger.clone(), &plan, steps, Arc::default()).await?;
        if outcome.failed > 0 {
            bail!("{} requests failed: {}", outcome.failed, outcome.errors.join("; "));
        }
        Ok(outcome.samples)
    };
    let mut out = Vec::new();
    control(&system, &["-i", "on"])?;
    for (phase, steps) in [("creation", 0..1), ("", 1..3), ("known", 3..scrapes + 3)] {
        let samples = load(steps).await?;
        let at = out.len();
        control(&system, &["-d"])?;
        if !phase.is_empty() {
            let mut count = total(data, &system, samples)
                .with_context(|| format!("counts of phase {phase}, the {at}th"))?;
            (count.server, count.series) = (format!("{server}, {}", door.name()), series as u64);
            count.phase = phase.to_owned();
            out.push(count);
        }
        clear(data)?;
    }
    system.kill()?;
    Ok(out)
}

fn control(system: &System, flags: &[&str]) -> Result<()> {
    for server in &system.servers {
        let out = Command::new("callgrind_control").args(flags).arg(server.pid().to_string()).output()?;
        if !out.status.success() {
            bail!("callgrind_control {flags:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    Ok(())
}

/// The dumps written since the last time.
fn dumps(data: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        // The file of the process's end is there from the beginning, and empty.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("callgrind.") && entry.metadata()?.len() > 0 {
            out.push(entry.path());
        }
    }
    Ok(out)
}

fn clear(data: &Path) -> Result<()> {
    for path in dumps(data)? {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Sums the dumps of all servers.
fn total(data: &Path, system: &System, samples: u64) -> Result<Count> {
    let mut instructions = 0;
    let mut top = std::collections::HashMap::<String, f64>::new();
    let files = dumps(data)?;
    if files.len() < system.servers.len() {
        bail!("{} dumps of {} servers", files.len(), system.servers.len());
    }
    for path in files {
        let text = std::fs::read_to_string(&path)?;
        let line =
            text.lines().find_map(|l| l.strip_prefix("totals: ").or_else(|| l.strip_prefix("summary: ")));
        instructions += line.context("a dump without totals")?.trim().parse::<u64>()?;
        let listing =
            Command::new("callgrind_annotate").args(["--auto=no", "--threshold=80"]).arg(&path).output()?;
        for (cost, name) in own_costs(&String::from_utf8_lossy(&listing.stdout)) {
            *top.entry(name).or_default() += cost as f64 / samples as f64;
        }
    }
    let mut top: Vec<(f64, String)> = top.into_iter().map(|(name, cost)| (cost, name)).collect();
    top.sort_by(|a, b| b.0.total_cmp(&a.0));
    top.truncate(25);
    let instructions_per_sample = instructions as f64 / samples as f64;
    Ok(Count { samples, instructions_per_sample, top, ..Count::default() })
}

/// Cost and function of lines such as `1,234,567 (12.3%)  file.rs:function [program]`.
fn own_costs(listing: &str) -> Vec<(u64, String)> {
    listing
        .lines()
        .filter_map(|line| {
            let (cost, rest) = line.trim_start().split_once(" (")?;
            let cost = cost.replace(',', "").trim().parse().ok()?;
            let name = rest.split_once(")")?.1.trim();
            let name = name.rsplit_once(" [").map_or(name, |(name, _)| name);
            // Without the source file: what was inlined into a function belongs to it.
            let (_, function) = name.split_once(':')?;
            Some((cost, function.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = "Ir\n2,000 (100.0%)  PROGRAM TOTALS\n\n 1,234 (61.7%)  /a/b/walk.rs:wire::walk::next [/x/tributary]\n";
        assert_eq!(own_costs(text), [(1234, "wire::walk::next".to_owned())]);
    }
}
