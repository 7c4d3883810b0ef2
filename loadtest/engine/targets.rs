//! What the engine has to reach, judged against the figures of the same run. Pure functions of a report.

use serde::Serialize;

use super::Kind;
use super::report::Report;

/// One target: what was measured beside what was promised.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub what: String,
    pub figure: f64,
    pub at_most: f64,
    pub unit: &'static str,
    pub pass: bool,
}

fn target(what: impl Into<String>, figure: f64, at_most: f64, unit: &'static str) -> Target {
    Target { what: what.into(), figure, at_most, unit, pass: figure <= at_most }
}

/// All targets for which the run has figures.
pub fn judge(report: &Report) -> Vec<Target> {
    let mut out = Vec::new();
    let cpu = |section: &str, kind| report.median(section, kind, |f| Some(f.cpu_s_per_million));
    let anon = |section: &str, kind| report.median(section, kind, |f| Some(f.anon_bytes_per_series));
    let victorias = [Kind::Victoria, Kind::VictoriaNext];
    for section in ["100k", "1M"] {
        for kind in victorias {
            if let (Some(ours), Some(theirs)) = (cpu(section, Kind::Ours), cpu(section, kind)) {
                out.push(target(format!("CPU at {section}, of {}'s", kind.name()), ours / theirs, 0.25, "x"));
            }
        }
    }
    if let (Some(ours), Some(floor)) = (cpu("100k", Kind::Ours), cpu("100k", Kind::Floor)) {
        out.push(target("CPU at 100k, of the floor's", ours / floor, 2.5, "x"));
    }
    for (kind, at_most) in [(Kind::Prometheus, 0.25), (Kind::Victoria, 1.0), (Kind::VictoriaNext, 1.0)] {
        if let (Some(ours), Some(theirs)) = (cpu("100k", Kind::Cluster), cpu("100k", kind)) {
            let what = format!("CPU of three receivers with RF 3, of one {}'s", kind.name());
            out.push(target(what, ours / theirs, at_most, "x"));
        }
    }
    if let Some(bytes) = report.median("100k", Kind::Cluster, |f| f.peer_bytes_per_sample) {
        out.push(target("between peers, per sample", bytes, 15.0, "B"));
    }
    for kind in victorias {
        if let (Some(ours), Some(theirs)) = (anon("500k", Kind::Ours), anon("500k", kind)) {
            out.push(target(format!("memory at 500k, of {}'s", kind.name()), ours / theirs, 0.75, "x"));
        }
    }
    if let Some(ours) = anon("1M", Kind::Ours) {
        out.push(target("memory at 1M, per series", ours, 600.0, "B"));
    }
    if let [ours, theirs] = &report.blocks[..] {
        let ratio = ours.bytes_per_sample / theirs.bytes_per_sample;
        out.push(target("block bytes, of Prometheus's", ratio, 1.02, "x"));
    }
    if let Some(cut) = &report.cut {
        let ratio = cut.p99_during_ms / cut.p99_before_ms;
        out.push(target("p99 during a cut, of that before", ratio, 2.0, "x"));
    }
    if let Some(ready) = report.median("1M", Kind::Ours, |f| f.ready_s) {
        out.push(target("ready after kill -9 at 1M", ready, 10.0, "s"));
    }
    if let Some(lost) = report.median("1M", Kind::Ours, |f| f.lost_by_kill.map(|n| n as f64)) {
        out.push(target("acked samples lost by that kill", lost, 0.0, ""));
    }
    out
}
