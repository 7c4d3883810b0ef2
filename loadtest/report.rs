//! What a run is reported as: one line per server, as a table and as JSON.

use serde::Serialize;

use crate::ingest::Outcome;
use crate::process::Usage;
use crate::verify::Findings;

/// The figures of one server in one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    pub server: String,
    pub series: u64,
    pub samples: u64,
    pub samples_per_second: f64,
    pub bytes_per_sample_on_wire: f64,
    /// User and system CPU of the server per million accepted samples, in seconds.
    pub cpu_s_per_million: f64,
    pub anon_bytes_per_series: f64,
    pub file_bytes_per_series: f64,
    pub disk_bytes_per_sample: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub retries: u64,
    pub failed: u64,
    /// What the run promises and did not keep, in words.
    pub broken: Vec<String>,
    /// Longest time from a start after kill -9 to readiness, in seconds.
    pub restart_s: Option<f64>,
    pub verified: Option<Verified>,
    pub notes: Vec<String>,
}

/// The result of reading back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    pub acked: u64,
    pub lost: u64,
    pub twice: u64,
    pub wrong: u64,
    pub strange: u64,
}

impl Line {
    pub fn new(server: &str, series: usize, outcome: &Outcome, used: Usage, disk: u64) -> Line {
        let samples = outcome.samples.max(1) as f64;
        let ms = |p| outcome.percentile(p).as_secs_f64() * 1000.0;
        Line {
            server: server.to_owned(),
            series: series as u64,
            samples: outcome.samples,
            samples_per_second: outcome.samples as f64 / outcome.elapsed.as_secs_f64(),
            bytes_per_sample_on_wire: outcome.bytes as f64 / samples,
            cpu_s_per_million: used.cpu / samples * 1e6,
            anon_bytes_per_series: used.anon as f64 / series as f64,
            file_bytes_per_series: used.file as f64 / series as f64,
            disk_bytes_per_sample: disk as f64 / samples,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
            retries: outcome.retries,
            failed: outcome.failed,
            broken: Vec::new(),
            restart_s: None,
            verified: None,
            notes: outcome.errors.clone(),
        }
    }

    pub fn verified(mut self, found: Findings) -> Line {
        self.notes.extend(found.examples);
        self.verified = Some(Verified {
            acked: found.acked,
            lost: found.lost,
            twice: found.twice,
            wrong: found.wrong,
            strange: found.strange,
        });
        self
    }

    /// Nothing failed for good, no promise was broken, and reading back (where it was done) found every acknowledged
    /// sample once.
    pub fn passed(&self) -> bool {
        let clean = |v: &Verified| v.acked > 0 && v.lost + v.twice + v.wrong + v.strange == 0;
        self.failed == 0 && self.broken.is_empty() && self.verified.as_ref().is_none_or(clean)
    }
}

/// A table for people.
pub fn table(lines: &[Line]) -> String {
    let mut out = format!(
        "{:<18} {:>10} {:>11} {:>9} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}  {}\n",
        "server",
        "samples",
        "samples/s",
        "CPU-s/M",
        "anon B/ser",
        "file B/s.",
        "disk B/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "retries",
        "read back"
    );
    for line in lines {
        let verified = match &line.verified {
            Some(v) => format!(
                "{} acked: {} lost, {} twice, {} wrong, {} strange",
                v.acked, v.lost, v.twice, v.wrong, v.strange
            ),
            None => "not asked for".to_owned(),
        };
        out.push_str(&format!(
            "{:<18} {:>10} {:>11.0} {:>9.3} {:>10.0} {:>9.0} {:>8.2} {:>8.1} {:>8.1} {:>8.1} {:>7}  {}\n",
            line.server,
            line.samples,
            line.samples_per_second,
            line.cpu_s_per_million,
            line.anon_bytes_per_series,
            line.file_bytes_per_series,
            line.disk_bytes_per_sample,
            line.p50_ms,
            line.p99_ms,
            line.max_ms,
            line.retries,
            verified
        ));
        if let Some(seconds) = line.restart_s {
            out.push_str(&format!("    longest start after kill -9: {seconds:.2} s\n"));
        }
        if line.failed > 0 {
            out.push_str(&format!("    {} requests failed for good\n", line.failed));
        }
        for broken in &line.broken {
            out.push_str(&format!("    BROKEN: {broken}\n"));
        }
        for note in &line.notes {
            out.push_str(&format!("    {note}\n"));
        }
    }
    out
}

/// The same for programs.
pub fn json(lines: &[Line]) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(lines)? + "\n")
}
