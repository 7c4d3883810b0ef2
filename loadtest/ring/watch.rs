//! A query every second while the ring changes, held against what was acknowledged: every series has its sample of the last
//! whole step, and one target's samples are read back bit for bit, of all epochs that there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::http::{Client, percent};
use crate::ingest::{Fate, Ledger};
use crate::verify;
use crate::workload::{Workload, mix};

/// Samples of one target that a query may bring.
const MANY: usize = 100_000;

/// What the querier said.
#[derive(Debug, Default)]
pub struct Watched {
    pub asked: u64,
    /// How long the two questions of a round took at most.
    pub slowest: Duration,
    pub gaps: Vec<String>,
}

pub async fn watch(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: String,
    hidden: Vec<String>,
    stop: Arc<AtomicBool>,
) -> Result<Watched> {
    let (mut step, mut out) = (0u32, Watched::default());
    let targets = verify::targets(&workload);
    let mut client = Client::new(&url)?.with_timeout(Duration::from_secs(60));
    while !stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let whole = |step: u32| {
            let mut batches = (0..workload.batches()).map(|at| step as usize * workload.batches() + at);
            step < workload.steps && batches.all(|request| ledger.fate(request) == Fate::Acked)
        };
        while whole(step) {
            step += 1;
        }
        let Some(last) = step.checked_sub(1) else { continue };
        out.asked += 1;
        let asked = Instant::now();
        if let Err(why) = every_series(&workload, &mut client, last).await {
            out.gaps.push(format!("step {last}: {why}"));
        }
        // Of a short run all targets, of a long one some of each time.
        let (instance, members) = &targets[mix(out.asked) as usize % targets.len()];
        let steps = (last + 1).min((MANY / members.len().max(1)) as u32).max(1);
        let first = match out.asked % 2 {
            0 => last + 1 - steps,
            _ => (mix(!out.asked) % u64::from(last + 2 - steps)) as u32,
        };
        let wanted = first..first + steps;
        let told = wanted.clone();
        if let Err(why) = verify::window(&workload, &mut client, instance, members, wanted, &hidden).await {
            out.gaps.push(format!("steps {told:?} of {instance}, {last} are acknowledged: {why:#}"));
        }
        out.slowest = out.slowest.max(asked.elapsed());
    }
    Ok(out)
}

/// Whether each series has one sample in the interval that ends with this step.
async fn every_series(workload: &Workload, client: &mut Client, last: u32) -> Result<(), String> {
    let range = workload.interval_ms;
    // Keeps names.
    let query = format!("count(last_over_time({{__name__!=\"\"}}[{range}ms]))");
    let time = workload.time(last) as f64 / 1000.0;
    let path = format!("/api/v1/query?query={}&time={time:.3}&timeout=50s", percent(&query));
    let found = match client.get(&path).await {
        Ok((200, body)) => {
            let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            if answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()) {
                return Err(format!("warnings: {}", answer["warnings"]));
            }
            answer["data"]["result"][0]["value"][1].as_str().unwrap_or("nothing").to_owned()
        }
        Ok((status, body)) => format!("{status} {}", String::from_utf8_lossy(&body)),
        Err(error) => format!("{error:#}"),
    };
    match found == workload.series.len().to_string() {
        true => Ok(()),
        false => Err(format!("{found} instead of {} samples", workload.series.len())),
    }
}
