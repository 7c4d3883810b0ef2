//! Changes of an agreed ring under load: each case is a story of edits, failures and recoveries, with a query every second
//! held against what was acknowledged. At the end everything is read back bit for bit; nothing may be lost, twice or missing
//! from a query, and no request may fail after its retries.

mod cases;
mod cluster;
mod net;
mod parted;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

pub use cases::Case;
use cases::Wires;
use cluster::Cluster;
pub use net::enter;
use watch::Watched;

use crate::ingest::{self, Fate, Ledger, Outcome, Plan};
use crate::process::folder_size;
use crate::report::Line;
use crate::scenarios::Shape;
use crate::verify;
use crate::workload::Workload;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub quick: bool,
    /// How long a trouble lasts; none for what is usual of the case.
    pub away: Option<Duration>,
}

impl Pace {
    /// Between two events of a story.
    fn pause(self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 15 })
    }

    fn away(self, usual: u64) -> Duration {
        self.away.unwrap_or(Duration::from_secs(if self.quick { 3 } else { usual }))
    }
}

/// Runs the cases one after the other.
pub async fn run(shape: &Shape, cases: &[Case], pace: Pace) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for case in cases {
        eprintln!("ring {}", case.name());
        lines.push(one(shape, *case, pace).await.with_context(|| format!("case {}", case.name()))?);
    }
    Ok(lines)
}

/// A story at work: the processes, the data that flow, and what is told of it in the end.
struct Stage {
    cluster: Cluster,
    pace: Pace,
    flow: Flow,
    url: String,
    wires: Wires,
    begun: Instant,
    notes: Vec<String>,
    broken: Vec<String>,
}

/// What is sent and asked.
struct Flow {
    plan: Plan,
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    sender: Option<JoinHandle<Result<Outcome>>>,
    watch: Option<JoinHandle<Result<Watched>>>,
    /// Ends the sender, and the watcher.
    stop: [Arc<AtomicBool>; 2],
    /// Grows whenever connections are to go back to where they were opened first.
    home: Arc<AtomicUsize>,
    /// What came of it so far.
    outcome: Outcome,
    watched: Watched,
}

/// Labels that the cluster adds.
fn hidden() -> Vec<String> {
    ["tenant_id", "replica"].map(str::to_owned).to_vec()
}

impl Stage {
    /// Begins to send to `urls` and to ask.
    fn open(
        shape: &Shape,
        pace: Pace,
        cluster: Cluster,
        url: String,
        urls: Vec<String>,
        wires: Wires,
    ) -> Result<Stage> {
        let workload = shape.workload()?;
        let home = Arc::new(AtomicUsize::new(0));
        let mut plan = shape.plan(urls);
        plan.retry_for = Duration::from_secs(120);
        plan.home = Some(Arc::clone(&home));
        plan.quiet = pace.quick;
        // Who is cut off says so; whoever stands in front of it goes to another one.
        plan.elsewhere = cluster.net.is_some();
        let flow = Flow {
            plan,
            ledger: Arc::new(Ledger::new(workload.requests())),
            workload,
            sender: None,
            watch: None,
            stop: Default::default(),
            home,
            outcome: Outcome::default(),
            watched: Watched::default(),
        };
        let (begun, notes, broken) = (Instant::now(), Vec::new(), Vec::new());
        let mut stage = Stage { cluster, pace, flow, url, wires, begun, notes, broken };
        stage.go_on();
        Ok(stage)
    }

    /// Sends from the first step of which nothing was sent, and asks.
    fn go_on(&mut self) {
        let Flow { plan, workload, ledger, .. } = &self.flow;
        let (plan, workload, ledger) = (plan.clone(), Arc::clone(workload), Arc::clone(ledger));
        let untouched = |step: &u32| {
            let first = *step as usize * workload.batches();
            (first..first + workload.batches()).all(|request| ledger.fate(request) == Fate::Unsent)
        };
        let steps = (0..workload.steps).find(untouched).unwrap_or(workload.steps)..workload.steps;
        self.flow.stop = Default::default();
        let [stop_sending, stop_asking] = self.flow.stop.clone();
        let asks = watch::watch(workload.clone(), ledger.clone(), self.url.clone(), hidden(), stop_asking);
        self.flow.watch = Some(tokio::spawn(asks));
        let sends = async move { ingest::run(workload, ledger, &plan, steps, stop_sending).await };
        self.flow.sender = Some(tokio::spawn(sends));
    }

    /// Lets data flow for a while, with nothing going on.
    async fn pause(&self) {
        tokio::time::sleep(self.pace.pause()).await;
    }

    fn note(&mut self, what: impl Into<String>) {
        let line = format!("{:.1?}: {}", self.begun.elapsed(), what.into());
        eprintln!("{line}");
        self.notes.push(line);
    }

    fn broken(&mut self, what: impl Into<String>) {
        let line = format!("at {:.1?}: {}", self.begun.elapsed(), what.into());
        eprintln!("{line}");
        self.broken.push(line);
    }

    /// Requests that were acknowledged so far.
    fn acked(&self) -> usize {
        self.flow.ledger.acked()
    }

    /// Something has to be acknowledged while `what` goes on.
    async fn acks_go_on(&mut self, what: &str) {
        let before = self.acked();
        self.pause().await;
        if self.acked() == before {
            self.broken(format!("nothing is acknowledged {what}"));
        }
    }

    /// Ends the data, and then the queries, a while after.
    async fn hush(&mut self) -> Result<()> {
        self.pause().await;
        let sender = self.flow.sender.take().context("it sends")?;
        if sender.is_finished() {
            self.broken("the data were at their end before the story was; take more --samples");
        }
        self.flow.stop[0].store(true, Relaxed);
        self.flow.outcome.absorb(sender.await??);
        self.pause().await;
        self.flow.stop[1].store(true, Relaxed);
        let watched = self.flow.watch.take().context("it asks")?.await??;
        self.flow.watched.absorb(watched);
        Ok(())
    }
}

async fn one(shape: &Shape, case: Case, pace: Pace) -> Result<Line> {
    let folder = shape.folder()?;
    let mut stage = case.open(shape, folder.path.join(case.name()), pace).await?;
    stage.pause().await;
    case.play(&mut stage).await?;
    stage.hush().await?;
    let (outcome, watched) =
        (std::mem::take(&mut stage.flow.outcome), std::mem::take(&mut stage.flow.watched));
    let name = format!("ring {}", case.name());
    let cluster = &stage.cluster;
    let mut line = Line::new(&name, shape.series, &outcome, cluster.usage(), folder_size(&cluster.data));
    line.notes.append(&mut stage.notes);
    if outcome.retries > 0 {
        line.notes.push(format!("the first answer of 5xx: {:?}", outcome.first_server_error));
    }
    let (gaps, asked, slowest) = (watched.gaps.len(), watched.asked, watched.slowest);
    line.notes.push(format!("{gaps} of {asked} queries with a gap; the slowest took {slowest:.1?}"));
    if watched.passed_over > 0 {
        line.notes.push(format!("in {} more seconds four were still under way", watched.passed_over));
    }
    if watched.asked == 0 {
        stage.broken("nobody asked anything");
    }
    line.broken.append(&mut stage.broken);
    line.broken.extend(watched.gaps.into_iter().take(10));
    let Flow { workload, ledger, .. } = &stage.flow;
    let found = verify::run(workload.clone(), ledger.clone(), &stage.url, &hidden(), pace.quick).await?;
    let mut line = line.verified(found);
    // The last act, after which not everything can be read.
    if let Err(error) = case.epilogue(&mut stage).await {
        line.broken.push(format!("{error:#}"));
    }
    stage.cluster.stop()?;
    Ok(line)
}
