//! Reads everything back over the Prometheus HTTP API: each acknowledged sample must be there exactly once,
//! bit for bit; one without acknowledgement at most once; nothing else at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::http::Client;
use crate::ingest::{Fate, Ledger};
use crate::workload::Workload;

/// What reading back found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub read: u64,
    pub acked: u64,
    pub lost: u64,
    pub twice: u64,
    pub wrong: u64,
    /// Samples or series that nobody sent.
    pub strange: u64,
    pub examples: Vec<String>,
}

impl Findings {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < 10 {
            self.examples.push(text());
        }
    }

    fn absorb(&mut self, other: Findings) {
        self.read += other.read;
        self.acked += other.acked;
        self.lost += other.lost;
        self.twice += other.twice;
        self.wrong += other.wrong;
        self.strange += other.strange;
        self.examples.extend(other.examples);
        self.examples.truncate(10);
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<SeriesJson>,
}

#[derive(Deserialize)]
struct SeriesJson {
    metric: HashMap<String, String>,
    values: Vec<(f64, String)>,
}

impl SeriesJson {
    /// Sorted, without those that are to be ignored.
    fn labels(&self, drop_labels: &[String]) -> Vec<(String, String)> {
        let kept = self.metric.iter().filter(|(name, _)| !drop_labels.contains(name));
        let mut labels: Vec<_> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        labels.sort();
        labels
    }
}

/// The series of a complete answer.
fn answer_of(query: &str, status: u16, body: &[u8], partial: bool) -> Result<Vec<SeriesJson>> {
    let answer: Answer = serde_json::from_slice(body).with_context(|| {
        format!("status {status}, answer {:?}", String::from_utf8_lossy(&body[..body.len().min(200)]))
    })?;
    if answer.status != "success" {
        bail!("query {query} failed: {}", answer.error);
    }
    if !partial && !answer.warnings.is_empty() {
        bail!("query {query} is not complete: {}", answer.warnings.join("; "));
    }
    Ok(answer.data.context("no data")?.result)
}

/// Reads the whole workload from `url`, instance by instance. Labels named in `drop_labels` are ignored.
pub async fn run(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: &str,
    drop_labels: &[String],
    quiet: bool,
) -> Result<Findings> {
    read_back(workload, ledger, url, drop_labels, quiet, false).await
}

/// As [`run`], from a querier that knows one receiver of several: what that one has is to be everything.
pub async fn run_alone(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: &str,
    drop_labels: &[String],
    quiet: bool,
) -> Result<Findings> {
    read_back(workload, ledger, url, drop_labels, quiet, true).await
}

async fn read_back(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: &str,
    drop_labels: &[String],
    quiet: bool,
    partial: bool,
) -> Result<Findings> {
    let instances = targets(&workload);
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(instances.len() as u64) };
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent}% verifying, eta {eta}")
    {
        bar.set_style(style);
    }
    let instances = Arc::new(instances);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (workload, ledger, instances, next, bar) =
            (workload.clone(), ledger.clone(), instances.clone(), next.clone(), bar.clone());
        let (mut client, drop_labels) = (Client::new(url)?, drop_labels.to_vec());
        client.partial = partial;
        tasks.push(tokio::spawn(async move {
            let mut found = Findings::default();
            while let Some((instance, members)) = instances.get(next.fetch_add(1, Relaxed)) {
                found.absorb(check(&workload, &ledger, &mut client, instance, members, &drop_labels).await?);
                bar.inc(1);
            }
            Ok::<_, anyhow::Error>(found)
        }));
    }
    let mut found = Findings::default();
    for task in tasks {
        found.absorb(task.await??);
    }
    bar.finish_and_clear();
    Ok(found)
}

/// The series of each target, by its instance.
pub fn targets(workload: &Workload) -> Vec<(String, Vec<usize>)> {
    let mut instances: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, series) in workload.series.iter().enumerate() {
        let instance = label(&series.labels, "instance");
        match instances.last_mut() {
            Some((last, members)) if last == instance => members.push(at),
            _ => instances.push((instance.to_owned(), vec![at])),
        }
    }
    instances
}

/// Reads these steps of one target, all of which are acknowledged: each sample has to be there, once, bit for bit, and nothing
/// else.
pub async fn window(
    workload: &Workload,
    client: &mut Client,
    instance: &str,
    members: &[usize],
    steps: std::ops::Range<u32>,
    drop_labels: &[String],
) -> Result<()> {
    let range = i64::from(steps.end - steps.start) * workload.interval_ms;
    let query = format!("{{instance=\"{instance}\"}}[{range}ms]");
    let (status, body) = client.query(&query, workload.time(steps.end - 1)).await?;
    let answer = answer_of(&query, status, &body, client.partial)?;
    let mut by_labels: HashMap<Vec<(String, String)>, usize> =
        members.iter().map(|&at| (workload.series[at].labels.clone(), at)).collect();
    for series in answer {
        let labels = series.labels(drop_labels);
        let at = by_labels.remove(&labels);
        let at = at.with_context(|| format!("series {labels:?} was not sent, or came twice"))?;
        let mut wanted = steps.clone();
        for (seconds, text) in &series.values {
            let (time, value) = ((seconds * 1000.0).round() as i64, text.parse().unwrap_or(f64::NAN));
            let next = wanted.next().context("there are more samples than were sent")?;
            let right = time == workload.time(next) && value.to_bits() == workload.value(at, next).to_bits();
            if !right {
                bail!("{labels:?}: {text} at {time} stands where step {next} should be");
            }
        }
        if let Some(next) = wanted.next() {
            bail!("{labels:?} ends before step {next}");
        }
    }
    match by_labels.len() {
        0 => Ok(()),
        many => bail!("{many} of {} series are not there", members.len()),
    }
}

async fn check(
    workload: &Workload,
    ledger: &Ledger,
    client: &mut Client,
    instance: &str,
    members: &[usize],
    drop_labels: &[String],
) -> Result<Findings> {
    // One second more than the range on both sides, so that a misplaced sample would show.
    let range = workload.end_ms() - workload.start_ms + 2000;
    let query = format!("{{instance=\"{instance}\"}}[{range}ms]");
    let (status, body) = client.query(&query, workload.end_ms() + 1000).await?;
    let answer = answer_of(&query, status, &body, client.partial)?;
    let mut by_labels: HashMap<Vec<(String, String)>, usize> =
        members.iter().map(|&at| (workload.series[at].labels.clone(), at)).collect();
    let mut found = Findings::default();
    for series in answer {
        let labels = series.labels(drop_labels);
        match by_labels.remove(&labels) {
            Some(at) => compare(workload, ledger, at, &series.values, &mut found),
            None => {
                found.strange += 1;
                found.note(|| format!("series {labels:?} was not sent, or came twice"));
            }
        }
    }
    for at in by_labels.into_values() {
        compare(workload, ledger, at, &[], &mut found);
    }
    Ok(found)
}

fn compare(workload: &Workload, ledger: &Ledger, at: usize, values: &[(f64, String)], found: &mut Findings) {
    let mut count = vec![0u8; workload.steps as usize];
    found.read += values.len() as u64;
    for (seconds, text) in values {
        let ms = (seconds * 1000.0).round() as i64 - workload.start_ms;
        let step = ms / workload.interval_ms;
        if ms < 0 || ms % workload.interval_ms != 0 || step >= i64::from(workload.steps) {
            found.strange += 1;
            found.note(|| {
                format!("{:?} has a sample at {seconds} that was not sent", workload.series[at].labels)
            });
            continue;
        }
        let step = step as u32;
        count[step as usize] = count[step as usize].saturating_add(1);
        let want = workload.value(at, step);
        let got: f64 = text.parse().unwrap_or(f64::NAN);
        if got.to_bits() != want.to_bits() {
            found.wrong += 1;
            found.note(|| format!("{:?} at {seconds}: sent {want}, read {text}", workload.series[at].labels));
        }
    }
    for step in 0..workload.steps {
        let fate = ledger.fate(workload.request_of(at, step));
        let seen = count[step as usize];
        found.acked += u64::from(fate == Fate::Acked);
        match (fate, seen) {
            (Fate::Acked, 0) => {
                found.lost += 1;
                found.note(|| {
                    format!(
                        "{:?} lost its acknowledged sample at {}",
                        workload.series[at].labels,
                        workload.time(step)
                    )
                });
            }
            (Fate::Unsent, 1..) => found.strange += 1,
            (_, 2..) => {
                found.twice += 1;
                found.note(|| {
                    format!("{:?} has {seen} samples at {}", workload.series[at].labels, workload.time(step))
                });
            }
            _ => {}
        }
    }
}

fn label<'a>(labels: &'a [(String, String)], name: &str) -> &'a str {
    labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A verification that cannot fail proves nothing: each kind of fault must be found.
    #[test]
    fn each_fault_is_found() {
        let workload = Workload::new(1, 4, 60_000, 15_000, 1, 3);
        let ledger = Ledger::new(workload.requests());
        for request in 0..3 {
            ledger.mark_acked_for_test(request);
        }
        let good = |step: u32| (workload.time(step) as f64 / 1000.0, format!("{}", workload.value(0, step)));
        let run = |values: &[(f64, String)]| {
            let mut found = Findings::default();
            compare(&workload, &ledger, 0, values, &mut found);
            (found.lost, found.twice, found.wrong, found.strange)
        };
        assert_eq!(run(&[good(0), good(1), good(2)]), (0, 0, 0, 0));
        assert_eq!(run(&[good(0), good(2)]), (1, 0, 0, 0));
        assert_eq!(run(&[good(0), good(1), good(1), good(2)]), (0, 1, 0, 0));
        assert_eq!(run(&[good(0), (good(1).0, "7.25".into()), good(2)]), (0, 0, 1, 0));
        assert_eq!(run(&[good(0), good(1), good(2), (76.0, "1".into())]), (0, 0, 0, 1));
        assert_eq!(run(&[good(0), good(1), good(2), good(3)]), (0, 0, 0, 1));
    }
}
