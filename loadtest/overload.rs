//! More than a node can take: thousands of connections offer several times what it manages. It turns the rest away with 429 or
//! 503 and a time to come again, keeps what it took, and is itself again as soon as they are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::doors::Door;
use crate::http::{Client, split};
use crate::ingest::{self, Ledger, Outcome};
use crate::process::{folder_size, peak_rss, reset_peak_rss, run_on};
use crate::report::Line;
use crate::scenarios::Shape;
use crate::servers::{Program, standalone};
use crate::verify;
use crate::workload::{BodyEncoder, Workload};

/// How long it may take until every write is taken again, quickly.
const RECOVERS: Duration = Duration::from_secs(10);
/// So many in a row, each within a second, are that.
const IN_A_ROW: usize = 50;
/// Files of this process that are no connections.
const OTHER_FILES: usize = 200;

/// What is offered.
#[derive(Clone, Debug)]
pub struct Rush {
    pub connections: usize,
    /// Times what was managed before.
    pub times: f64,
    pub length: Duration,
    /// The node has a core to itself, as it would have a machine, and who offers has another.
    pub apart: bool,
    /// Further flags of the node.
    pub flags: Vec<String>,
}

/// Measures what a standalone node manages, offers it `rush`, and watches it recover.
pub async fn run(shape: &Shape, rush: Rush) -> Result<Line> {
    let allowed = runtime::raise_file_limit()? as usize;
    if rush.connections + OTHER_FILES > allowed {
        bail!("{} connections need more files than this process may open ({allowed})", rush.connections);
    }
    let folder = shape.folder()?;
    let data = folder.path.join("standalone");
    let program = rush.flags.iter().fold(Program::new(&shape.binary), |program, flag| program.with(flag));
    let system = standalone(&program, &data, None).await?;
    let pid = system.servers.first().map_or(0, |server| server.pid());
    if rush.apart {
        run_on(std::process::id(), 0)?;
        run_on(pid, 1)?;
    }
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let third = shape.samples / 3;

    let plan = shape.plan(system.write_urls.clone());
    let before = ingest::run(workload.clone(), ledger.clone(), &plan, 0..third, Arc::default()).await?;
    let manages = before.samples as f64 / before.elapsed.as_secs_f64();

    reset_peak_rss(pid)?;
    let steps = third..2 * third;
    let seen = offer(&workload, &ledger, &system.write_urls[0], &rush, manages, steps).await?;
    let peak = peak_rss(pid)?;
    let recovered = recovery(&workload, &ledger, &system.write_urls[0], 2 * third).await?;

    let mut plan = shape.plan(system.write_urls.clone());
    plan.rate = (manages / 2.0) as u64;
    let after = 2 * third + 1..shape.samples;
    let after: Outcome = ingest::run(workload.clone(), ledger.clone(), &plan, after, Arc::default()).await?;
    let mut line = Line::new("overload, after", shape.series, &after, system.usage()?, folder_size(&data));
    line.notes.extend(seen.told(&rush, manages, peak));
    line.notes.push(format!(
        "before: {manages:.0} samples/s, p99 {:.1?}; taken again {recovered:.1?} after the rush",
        before.percentile(0.99)
    ));
    line.broken = seen.broken();
    if recovered > RECOVERS {
        line.broken.push(format!("writes were not all taken again within {RECOVERS:?}"));
    }
    let found = verify::run(workload, ledger, &system.query_url, &system.drop_labels, false).await?;
    system.stop()?;
    Ok(line.verified(found))
}

/// What those of the rush were told.
#[derive(Default)]
struct Seen {
    offered: usize,
    offered_samples: usize,
    elapsed: Duration,
    statuses: BTreeMap<u16, usize>,
    taken_samples: usize,
    longest: Duration,
    /// Turned away without a word about when to come again.
    at_a_loss: usize,
    /// Without an answer.
    unanswered: usize,
    first_unanswered: String,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.offered += other.offered;
        self.offered_samples += other.offered_samples;
        self.taken_samples += other.taken_samples;
        self.longest = self.longest.max(other.longest);
        self.at_a_loss += other.at_a_loss;
        self.unanswered += other.unanswered;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        if self.first_unanswered.is_empty() {
            self.first_unanswered = other.first_unanswered;
        }
    }

    fn told(&self, rush: &Rush, manages: f64, peak: u64) -> Vec<String> {
        let seconds = self.elapsed.as_secs_f64();
        vec![format!(
            "rush: {} connections, {} requests in {seconds:.1} s ({:.1} times what is managed), by status {:?}, {:.0} \
             samples/s taken ({:.2} of before), longest answer {:.1?}, resident at most {:.0} MiB",
            rush.connections,
            self.offered,
            self.offered_samples as f64 / rush.length.as_secs_f64() / manages,
            self.statuses,
            self.taken_samples as f64 / seconds,
            self.taken_samples as f64 / seconds / manages,
            self.longest,
            peak as f64 / 1048576.0
        )]
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.unanswered > 0 {
            broken.push(format!("{} writes had no answer: {}", self.unanswered, self.first_unanswered));
        }
        if self.at_a_loss > 0 {
            broken.push(format!("{} were turned away without Retry-After", self.at_a_loss));
        }
        if !self.statuses.contains_key(&204) {
            broken.push("nothing was taken".to_owned());
        }
        let strange: Vec<_> = self.statuses.keys().filter(|s| !matches!(s, 204 | 429 | 503)).collect();
        if !strange.is_empty() {
            broken.push(format!("statuses {strange:?}"));
        }
        broken
    }
}

/// Opens all connections, then sends by the clock, whether earlier answers are there or not: each connection the next
/// request that is due, from the first again after the last.
async fn offer(
    workload: &Arc<Workload>,
    ledger: &Arc<Ledger>,
    url: &str,
    rush: &Rush,
    manages: f64,
    steps: std::ops::Range<u32>,
) -> Result<Seen> {
    let path = split(url)?.1;
    let mut clients = Vec::with_capacity(rush.connections);
    for _ in 0..rush.connections {
        let mut client = Client::new(url)?.with_timeout(Duration::from_secs(60));
        client.get("/-/ready").await?;
        clients.push(client);
    }
    let batches = workload.batches();
    let requests = steps.start as usize * batches..steps.end as usize * batches;
    // Who offers is not to be the slower one.
    let bodies = Arc::new(ingest::encode(workload, requests.clone()));
    let next = Arc::new(AtomicUsize::new(0));
    let length = rush.length;
    let per_second = manages * rush.times / workload.batch.min(workload.series.len()) as f64;
    let begin = Instant::now();
    let tasks = clients.into_iter().map(|mut client| {
        let (workload, ledger, bodies, next, path) =
            (workload.clone(), ledger.clone(), bodies.clone(), next.clone(), path.clone());
        let first = requests.start;
        tokio::spawn(async move {
            let mut seen = Seen::default();
            loop {
                let turn = next.fetch_add(1, Relaxed);
                let due = Duration::from_secs_f64(turn as f64 / per_second);
                if due > length || begin.elapsed() > length {
                    return seen;
                }
                tokio::time::sleep_until((begin + due).into()).await;
                let body = bodies[turn % bodies.len()].clone();
                let index = first + turn % bodies.len();
                let request = workload.request(index);
                ledger.sent(index);
                seen.offered += 1;
                seen.offered_samples += request.len;
                let sent = Instant::now();
                match client.exchange("POST", &path, &Door::Rw1.headers(), body).await {
                    Ok(answer) => {
                        *seen.statuses.entry(answer.status).or_default() += 1;
                        seen.longest = seen.longest.max(sent.elapsed());
                        if answer.status == 204 {
                            ledger.ack(index);
                            seen.taken_samples += request.len;
                        } else if !answer.says_when {
                            seen.at_a_loss += 1;
                        }
                    }
                    Err(error) => {
                        seen.unanswered += 1;
                        seen.first_unanswered = format!("{error:#}");
                    }
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut all = Seen::default();
    for task in tasks {
        all.add(task.await?);
    }
    all.elapsed = begin.elapsed();
    Ok(all)
}

/// How long it takes until writes are taken one after the other again.
async fn recovery(workload: &Workload, ledger: &Ledger, url: &str, step: u32) -> Result<Duration> {
    let (encoder, mut scratch) = (BodyEncoder::new(workload), Vec::new());
    let path = split(url)?.1;
    let mut client = Client::new(url)?.with_timeout(Duration::from_secs(30));
    let begin = Instant::now();
    let (mut row, mut since) = (0, Duration::ZERO);
    while row < IN_A_ROW && begin.elapsed() < 6 * RECOVERS {
        let index = step as usize * workload.batches() + row % workload.batches();
        let body = Bytes::from(encoder.body(workload, workload.request(index), &mut scratch));
        ledger.sent(index);
        let sent = Instant::now();
        let answer = client.exchange("POST", &path, &Door::Rw1.headers(), body).await;
        if answer.is_ok_and(|answer| answer.status == 204) {
            ledger.ack(index);
            if sent.elapsed() < Duration::from_secs(1) {
                row += 1;
                continue;
            }
        }
        (row, since) = (0, begin.elapsed());
    }
    Ok(if row < IN_A_ROW { begin.elapsed() } else { since })
}
