//! A query every second while the ring changes, held against what was acknowledged: every series has its sample of the last
//! whole step, and one target's samples are read back bit for bit, of all epochs that there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::http::{Client, percent};
use crate::ingest::{Fate, Ledger};
use crate::verify;
use crate::workload::{Workload, mix};

/// Samples of one target that a query may bring.
const MANY: usize = 100_000;

/// Rounds that may be under way at once, where a machine needs longer than a second for one.
const AT_ONCE: usize = 4;

/// What the querier said.
#[derive(Debug, Default)]
pub struct Watched {
    /// Rounds of two questions.
    pub asked: u64,
    /// Seconds in which nothing could be asked, because so many rounds were still under way.
    pub passed_over: u64,
    /// How long a round took at most.
    pub slowest: Duration,
    pub gaps: Vec<String>,
}

impl Watched {
    pub fn absorb(&mut self, other: Watched) {
        self.asked += other.asked;
        self.passed_over += other.passed_over;
        self.slowest = self.slowest.max(other.slowest);
        self.gaps.extend(other.gaps);
    }
}

pub async fn watch(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: String,
    hidden: Vec<String>,
    stop: Arc<AtomicBool>,
) -> Result<Watched> {
    let asker = Arc::new(Asker { targets: verify::targets(&workload), workload, url, hidden });
    let (mut step, mut rounds, mut out) = (0u32, JoinSet::new(), Watched::default());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    while !stop.load(Relaxed) {
        second.tick().await;
        while let Some(ended) = rounds.try_join_next() {
            out.absorb(ended??);
        }
        while asker.is_whole(step, &ledger) {
            step += 1;
        }
        let Some(last) = step.checked_sub(1) else { continue };
        if rounds.len() == AT_ONCE {
            out.passed_over += 1;
            continue;
        }
        out.asked += 1;
        rounds.spawn(Arc::clone(&asker).ask(out.asked, last));
    }
    while let Some(ended) = rounds.join_next().await {
        out.absorb(ended??);
    }
    Ok(out)
}

/// Who asks, and knows what was sent.
struct Asker {
    workload: Arc<Workload>,
    /// Of each target, the places of its series in the workload.
    targets: Vec<(String, Vec<usize>)>,
    url: String,
    hidden: Vec<String>,
}

impl Asker {
    /// Whether everything of a step was acknowledged.
    fn is_whole(&self, step: u32, ledger: &Ledger) -> bool {
        let batches = self.workload.batches();
        let mut requests = (0..batches).map(|at| step as usize * batches + at);
        step < self.workload.steps && requests.all(|request| ledger.fate(request) == Fate::Acked)
    }

    /// A round, after which `last` is the newest step that has to be there.
    async fn ask(self: Arc<Asker>, round: u64, last: u32) -> Result<Watched> {
        let mut client = Client::new(&self.url)?.with_timeout(Duration::from_secs(60));
        let (mut gaps, began) = (Vec::new(), Instant::now());
        if let Err(why) = every_series(&self.workload, &mut client, last).await {
            gaps.push(format!("step {last}: {why}"));
        }
        // Of a short run all targets, of a long one some of each time.
        let (instance, members) = &self.targets[mix(round) as usize % self.targets.len()];
        let steps = (last + 1).min((MANY / members.len().max(1)) as u32).max(1);
        let first = match round % 2 {
            0 => last + 1 - steps,
            _ => (mix(!round) % u64::from(last + 2 - steps)) as u32,
        };
        let wanted = first..first + steps;
        let told = wanted.clone();
        let found = verify::window(&self.workload, &mut client, instance, members, wanted, &self.hidden);
        if let Err(why) = found.await {
            gaps.push(format!("steps {told:?} of {instance}, {last} are acknowledged: {why:#}"));
        }
        Ok(Watched { slowest: began.elapsed(), gaps, ..Watched::default() })
    }
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
