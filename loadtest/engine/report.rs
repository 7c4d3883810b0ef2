//! The figures of a run as one table for people, and as JSON; medians are taken here, figure by figure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::block::Block;
use super::cut::Cut;
use super::load::Figures;
use super::targets::{self, Target};
use super::{Kind, Options};
use crate::instructions::Count;

/// Everything that a run showed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub date: String,
    pub machine: String,
    pub quick: bool,
    pub versions: Vec<(String, String)>,
    pub seconds: u64,
    pub loads: Vec<Figures>,
    pub cut: Option<Cut>,
    pub blocks: Vec<Block>,
    pub instructions: Vec<Count>,
    pub targets: Vec<Target>,
}

const KINDS: [Kind; 6] =
    [Kind::Ours, Kind::Cluster, Kind::Victoria, Kind::VictoriaNext, Kind::Prometheus, Kind::Floor];

impl Report {
    pub fn new(options: &Options) -> Result<Report> {
        let mut versions = vec![
            ("tributary".to_owned(), version(&options.binary)),
            (Kind::Victoria.name().to_owned(), version(&options.victoria)),
            (Kind::Prometheus.name().to_owned(), version(&options.prometheus)),
        ];
        if let Some(path) = &options.victoria_next {
            versions.insert(2, (Kind::VictoriaNext.name().to_owned(), version(path)));
        }
        let seconds = super::unix_seconds()?;
        Ok(Report {
            date: date(seconds),
            machine: machine(),
            quick: options.quick,
            versions,
            seconds: 0,
            loads: Vec::new(),
            cut: None,
            blocks: Vec::new(),
            instructions: Vec::new(),
            targets: Vec::new(),
        })
    }

    pub fn judge(&mut self) {
        self.targets = targets::judge(self);
    }

    /// The median of one figure over the runs of one server in one section.
    pub fn median(&self, section: &str, kind: Kind, of: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let runs = self.loads.iter().filter(|f| f.section == section && f.server == kind.name());
        let mut values: Vec<f64> = runs.filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len().checked_sub(1)? / 2).copied()
    }

    /// Writes `engine.md` and `engine.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("engine.md", self.markdown()), ("engine.json", json)] {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let mut out = format!("# The engine, {}, {}\n\n", self.date, self.machine);
        out += "`loadtest engine`: each server alone on the machine, load and server sharing its cores; medians, figure by figure, over the runs\n\
                that the table says; servers take turns. CPU is the server's user and system time. Memory is RssAnon + RssShmem after the last\n\
                acknowledgement (at most, in parentheses). Quote ratios: times move from hour to hour.\n\n";
        if self.quick {
            out += "**A trial with a tenth of every size: not a measurement.**\n\n";
        }
        for (name, text) in &self.versions {
            out += &format!("- {name}: {text}\n");
        }
        out += &format!("- the whole run took {} min {} s\n\n", self.seconds / 60, self.seconds % 60);
        out += &self.target_table();
        out += &self.load_table();
        out += &self.restart_table();
        out += &self.rest();
        out
    }

    fn target_table(&self) -> String {
        let mut rows = vec![["target", "measured", "at most", ""].map(str::to_owned).to_vec()];
        for t in &self.targets {
            let verdict = if t.pass { "pass" } else { "**miss**" };
            rows.push(vec![
                t.what.clone(),
                format!("{} {}", short(t.figure), t.unit),
                format!("{} {}", short(t.at_most), t.unit),
                verdict.to_owned(),
            ]);
        }
        table(&rows)
    }

    fn load_table(&self) -> String {
        let heads = [
            "load",
            "server",
            "runs",
            "samples/s",
            "CPU-s per million",
            "anon B per series",
            "file B per series",
            "WAL B per sample",
            "disk B per sample",
            "p50 ms",
            "p99 ms",
            "B between peers per sample",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for section in ["100k", "500k", "1M"] {
            for kind in KINDS {
                let m = |of: fn(&Figures) -> f64| self.median(section, kind, |f| Some(of(f))).unwrap_or(0.0);
                let mine: Vec<_> =
                    self.loads.iter().filter(|f| f.section == section && f.server == kind.name()).collect();
                let Some(one) = mine.first() else { continue };
                let memory = kind != Kind::Floor;
                let only = |text: String| if memory { text } else { String::new() };
                rows.push(vec![
                    format!("{} x {}", one.series, one.samples / one.series.max(1)),
                    kind.name().to_owned(),
                    mine.len().to_string(),
                    format!("{:.0}", m(|f| f.samples_per_second)),
                    format!("{:.3}", m(|f| f.cpu_s_per_million)),
                    only(format!(
                        "{:.0} ({:.0})",
                        m(|f| f.anon_bytes_per_series),
                        m(|f| f.anon_peak_bytes_per_series)
                    )),
                    only(format!("{:.0}", m(|f| f.file_bytes_per_series))),
                    only(format!("{:.2}", m(|f| f.wal_bytes_per_sample))),
                    only(format!("{:.2}", m(|f| f.disk_bytes_per_sample))),
                    format!("{:.1}", m(|f| f.p50_ms)),
                    format!("{:.1}", m(|f| f.p99_ms)),
                    self.median(section, kind, |f| f.peer_bytes_per_sample)
                        .map_or(String::new(), |bytes| format!("{bytes:.1}")),
                ]);
            }
        }
        table(&rows)
    }

    fn restart_table(&self) -> String {
        let heads = ["kill -9 after the load", "ready s", "anon B per series then", "acked samples lost"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for kind in KINDS {
            let Some(ready) = self.median("1M", kind, |f| f.ready_s) else { continue };
            let held = self.median("1M", kind, |f| f.ready_anon_bytes_per_series).unwrap_or(0.0);
            let lost = self.median("1M", kind, |f| f.lost_by_kill.map(|n| n as f64)).unwrap_or(f64::NAN);
            rows.push(vec![
                kind.name().to_owned(),
                format!("{ready:.2}"),
                format!("{held:.0}"),
                format!("{lost:.0}"),
            ]);
        }
        table(&rows)
    }

    fn rest(&self) -> String {
        let mut out = String::new();
        if let Some(c) = &self.cut {
            out += &format!(
                "A cut of {} series x {} samples under {} samples/s took {:.2} s. Requests before it: p50 {:.1} ms, p99 {:.1} ms;\n\
                 during it ({}): p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms; {} retries, {} failed.\n\
                 Anonymous memory per series: {:.0} B before the cut, {:.0} B at most, {:.0} B at the end.\n\n",
                c.series,
                c.samples / c.series.max(1),
                c.rate,
                c.cut_s,
                c.p50_before_ms,
                c.p99_before_ms,
                c.requests_during,
                c.p50_during_ms,
                c.p99_during_ms,
                c.max_during_ms,
                c.retries,
                c.failed,
                c.anon_before_bytes_per_series,
                c.anon_peak_bytes_per_series,
                c.anon_end_bytes_per_series,
            );
        }
        if !self.blocks.is_empty() {
            let heads = [
                "block of 2 h",
                "series",
                "blocks",
                "index B",
                "chunks B",
                "chunks B per sample",
                "B per sample",
            ];
            let mut rows = vec![heads.map(str::to_owned).to_vec()];
            for b in &self.blocks {
                rows.push(vec![
                    b.server.clone(),
                    b.series.to_string(),
                    b.blocks.to_string(),
                    b.index_bytes.to_string(),
                    b.chunk_bytes.to_string(),
                    format!("{:.3}", b.chunk_bytes_per_sample),
                    format!("{:.3}", b.bytes_per_sample),
                ]);
            }
            out += &table(&rows);
        }
        out + &counts(&self.instructions)
    }
}

/// Where the results of this machine and day belong.
pub fn results_folder(results: &Path) -> Result<PathBuf> {
    Ok(results.join(format!("{}-{}", date(super::unix_seconds()?), machine())))
}

/// Instruction counts as a table, and under it the functions that cost most.
pub fn counts(all: &[Count]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut rows = vec![["instructions", "phase", "series", "per sample"].map(str::to_owned).to_vec()];
    for c in all {
        rows.push(vec![
            c.server.clone(),
            c.phase.clone(),
            c.series.to_string(),
            format!("{:.0}", c.instructions_per_sample),
        ]);
    }
    let mut out = table(&rows);
    for c in all {
        out += &format!("{}, {}: where they go, per sample\n\n```\n", c.server, c.phase);
        for (cost, name) in &c.top {
            out += &format!("{cost:8.1}  {name}\n");
        }
        out += "```\n\n";
    }
    out
}

fn short(figure: f64) -> String {
    if figure.abs() >= 100.0 || figure == 0.0 { format!("{figure:.0}") } else { format!("{figure:.3}") }
}

/// A markdown table whose columns line up, so that it reads as well on a terminal.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, &width) in row.iter().zip(&widths) {
            out += &format!("| {cell:<width$} ");
        }
        out += "|\n";
        if at == 0 {
            for &width in &widths {
                out += &format!("|{}", "-".repeat(width + 2));
            }
            out += "|\n";
        }
    }
    out + "\n"
}

/// What a program says of itself: the first line in which a number stands.
fn version(program: &Path) -> String {
    let unknown = "does not say its version";
    let Ok(out) = Command::new(program).arg("--version").output() else { return unknown.to_owned() };
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|l| l.contains(|c: char| c.is_ascii_digit())).unwrap_or(unknown).trim().to_owned()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!("{cores}vcpu")
}

/// `YYYY-MM-DD` of Unix seconds, by the civil calendar (days counted from 1 March of the year 0).
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_219_200), "2026-11-21");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "figure".to_owned()], vec!["longer".to_owned(), "1".to_owned()]];
        let text = table(&rows);
        let lengths: Vec<usize> = text.trim_end().lines().map(str::len).collect();
        assert_eq!(lengths, [lengths[0]; 3]);
    }
}
