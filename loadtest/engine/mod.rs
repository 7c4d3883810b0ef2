//! `loadtest engine`: everything that the engine's cost, size and safety are judged by, in one run beside its peers.
//!
//! Every kind of measurement goes round the servers before it is repeated, so that a machine that slows down or speeds
//! up meets all of them alike. Bodies are encoded before a server starts: the generator then only writes to sockets.

mod block;
mod cut;
mod load;
mod report;
mod targets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::doors::Door;
use crate::instructions;
use crate::servers::{Program, System, cluster, floor, prometheus, standalone, victoria};
use crate::workload::Workload;

pub use report::{Report, counts, results_folder, table};

/// What the command line says.
pub struct Options {
    pub binary: PathBuf,
    pub prometheus: PathBuf,
    pub victoria: PathBuf,
    /// A second, newer VictoriaMetrics.
    pub victoria_next: Option<PathBuf>,
    /// A tenth of every size, one run each: a trial of the machinery, not a measurement.
    pub quick: bool,
    pub runs: usize,
    pub connections: usize,
    pub batch: usize,
    /// Sections to run; all where empty.
    pub only: Vec<String>,
    pub dir: Option<PathBuf>,
}

pub const SECTIONS: [&str; 6] = ["100k", "1M", "500k", "cut", "block", "instructions"];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    /// Three receivers of ours with RF 3, and a querier.
    Cluster,
    Victoria,
    VictoriaNext,
    Prometheus,
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "tributary",
            Kind::Cluster => "tributary, 3 x RF 3",
            Kind::Victoria => "victoria-metrics",
            Kind::VictoriaNext => "victoria-metrics (newer)",
            Kind::Prometheus => "prometheus",
            Kind::Floor => "floor",
        }
    }
}

/// Everything that the sections share.
pub struct Bench {
    pub options: Options,
    folder: tempfile::TempDir,
    begin: Instant,
}

impl Bench {
    pub fn new(options: Options) -> Result<Bench> {
        let unknown: Vec<_> = options.only.iter().filter(|s| !SECTIONS.contains(&s.as_str())).collect();
        if !unknown.is_empty() {
            bail!("unknown sections {unknown:?}; known are {SECTIONS:?}");
        }
        let mut builder = tempfile::Builder::new();
        let folder = match &options.dir {
            Some(dir) => builder.prefix("loadtest-").tempdir_in(dir),
            None => builder.prefix("loadtest-").tempdir(),
        };
        Ok(Bench { options, folder: folder.context("a folder for data")?, begin: now() })
    }

    fn wants(&self, section: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|s| s == section)
    }

    fn say(&self, text: &str) {
        let seconds = self.begin.elapsed().as_secs();
        eprintln!("[{:>2}:{:02}] {text}", seconds / 60, seconds % 60);
    }

    /// An empty folder for one server.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn drop_data(&self, path: &Path) {
        if let Err(error) = std::fs::remove_dir_all(path) {
            eprintln!("loadtest: remove {}: {error}", path.display());
        }
    }

    /// A server on this folder; one that was there before goes on with its data.
    pub async fn start(&self, kind: Kind, data: &Path) -> Result<System> {
        let o = &self.options;
        match kind {
            Kind::Ours => standalone(&Program::new(&o.binary), data, None).await,
            Kind::Cluster => cluster(&Program::new(&o.binary), data).await,
            Kind::Prometheus => {
                let program = Program::new(&o.prometheus)
                    .with("--web.enable-admin-api")
                    .with("--query.max-samples=1000000000")
                    .with("--query.timeout=10m");
                prometheus(&program, data).await
            }
            Kind::Victoria => victoria(&Program::new(&o.victoria), data).await,
            Kind::VictoriaNext => {
                let path = o.victoria_next.as_ref().context("no newer VictoriaMetrics was given")?;
                victoria(&Program::new(path), data).await
            }
            Kind::Floor => floor(data).await,
        }
    }

    /// A tenth in a trial.
    fn scaled(&self, series: usize) -> usize {
        if self.options.quick { series / 10 } else { series }
    }

    fn runs(&self) -> usize {
        if self.options.quick { 1 } else { self.options.runs.max(1) }
    }

    /// Data that begins `minutes` ago.
    fn workload(&self, series: usize, samples: u32, minutes: i64) -> Result<Workload> {
        let start = unix_seconds()? - minutes * 60;
        Ok(Workload::new(self.scaled(series), samples, start * 1000, 15_000, self.options.batch, 1))
    }

    fn peers(&self) -> Vec<Kind> {
        let mut out = vec![Kind::Ours, Kind::Victoria];
        if self.options.victoria_next.is_some() {
            out.push(Kind::VictoriaNext);
        }
        out
    }
}

/// The whole run.
pub async fn run(options: Options) -> Result<Report> {
    let bench = Bench::new(options)?;
    let mut report = Report::new(&bench.options)?;
    for (section, series, samples) in [("100k", 100_000, 120), ("1M", 1_000_000, 10), ("500k", 500_000, 20)] {
        if bench.wants(section) {
            round(&bench, &mut report, section, series, samples).await?;
        }
    }
    if bench.wants("cut") {
        report.cut = Some(cut::run(&bench).await.context("section cut")?);
    }
    if bench.wants("block") {
        report.blocks = block::run(&bench).await.context("section block")?;
    }
    if bench.wants("instructions") && instructions::available() {
        bench.say("instructions: ours under callgrind");
        let series = bench.scaled(20_000);
        let data = bench.fresh("instructions")?;
        report.instructions =
            instructions::run(&bench.options.binary, &data, series, 10, "standalone", Door::default())
                .await?;
        bench.drop_data(&data);
    }
    report.seconds = bench.begin.elapsed().as_secs();
    report.judge();
    Ok(report)
}

/// One size: all servers in turn, as many rounds as there are runs; Prometheus once, in the first.
async fn round(bench: &Bench, report: &mut Report, section: &str, series: usize, samples: u32) -> Result<()> {
    bench.say(&format!("{section}: encoding {} series x {samples} samples", bench.scaled(series)));
    let workload = Arc::new(bench.workload(series, samples, 90)?);
    let bodies = crate::ingest::encode_all(&workload);
    for run in 0..bench.runs() {
        let mut kinds = bench.peers();
        if section == "100k" {
            kinds.insert(0, Kind::Floor);
            kinds.push(Kind::Cluster);
        }
        if run == 0 {
            kinds.push(Kind::Prometheus);
        }
        for kind in kinds {
            bench.say(&format!("{section}: {}, run {} of {}", kind.name(), run + 1, bench.runs()));
            let data = bench.fresh("steady")?;
            let figures = load::run(bench, kind, section, &data, &workload, &bodies)
                .await
                .with_context(|| format!("section {section}, {}", kind.name()))?;
            bench.say(&format!("    {}", figures.brief()));
            report.loads.push(figures);
            bench.drop_data(&data);
        }
    }
    Ok(())
}

// The generator times a system from outside: its own clock is the real one.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)]
pub(crate) fn unix_seconds() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs() as i64)
}
