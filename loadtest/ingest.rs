//! Sends a workload and keeps the ledger: which requests were acknowledged, and how long each took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};

use crate::doors::{Door, GrpcClient};
use crate::http::{Client, split};
use crate::workload::{BodyEncoder, Workload};

/// State of each request, by its index in the workload.
pub struct Ledger {
    states: Vec<AtomicU8>,
    acked: AtomicUsize,
}

/// What is known of a request's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Never sent: none of its samples may be there.
    Unsent,
    /// Sent, no 2xx seen: each of its samples may be there, at most once.
    Unknown,
    /// Acknowledged: each of its samples must be there, exactly once.
    Acked,
}

impl Ledger {
    pub fn new(requests: usize) -> Ledger {
        Ledger { states: (0..requests).map(|_| AtomicU8::new(0)).collect(), acked: AtomicUsize::new(0) }
    }

    pub fn fate(&self, request: usize) -> Fate {
        match self.states[request].load(Relaxed) {
            0 => Fate::Unsent,
            1 => Fate::Unknown,
            _ => Fate::Acked,
        }
    }

    /// How many requests were acknowledged.
    pub fn acked(&self) -> usize {
        self.acked.load(Relaxed)
    }

    #[cfg(test)]
    pub fn mark_acked_for_test(&self, request: usize) {
        self.ack(request);
    }

    pub fn sent(&self, request: usize) {
        self.states[request].fetch_max(1, Relaxed);
    }

    pub fn ack(&self, request: usize) {
        if self.states[request].swap(2, Relaxed) != 2 {
            self.acked.fetch_add(1, Relaxed);
        }
    }
}

/// How to send.
#[derive(Clone)]
pub struct Plan {
    /// Full write URLs; connections are spread over them.
    pub urls: Vec<String>,
    pub connections: usize,
    /// Samples per second over all connections; 0 sends as fast as answers come.
    pub rate: u64,
    /// Retries with growing pauses, as a real sender does; without, a failure ends that request.
    pub retry_for: Duration,
    pub quiet: bool,
    /// All bodies of the workload, encoded beforehand, so that sending costs next to nothing.
    pub bodies: Option<Arc<Vec<Bytes>>>,
    pub door: Door,
    /// Whenever it grows, connections that went elsewhere go back to the address that they had first.
    pub home: Option<Arc<AtomicUsize>>,
    /// What was answered with 5xx is tried again at the next address, as a load balancer may have it.
    pub elsewhere: bool,
}

/// Encodes every request of a workload, on two threads.
pub fn encode_all(workload: &Workload) -> Arc<Vec<Bytes>> {
    Arc::new(encode(workload, 0..workload.requests()))
}

/// The same for some requests.
pub fn encode(workload: &Workload, requests: std::ops::Range<usize>) -> Vec<Bytes> {
    let encoder = BodyEncoder::new(workload);
    let half = requests.start + requests.len().div_ceil(2);
    let part = |part: std::ops::Range<usize>| {
        let mut scratch = Vec::new();
        part.map(|at| Bytes::from(encoder.body(workload, workload.request(at), &mut scratch)))
            .collect::<Vec<_>>()
    };
    let (mut first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| part(half..requests.end));
        (part(requests.start..half), second.join().unwrap_or_default())
    });
    first.extend(second);
    first
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub samples: u64,
    pub bytes: u64,
    pub retries: u64,
    pub failed: u64,
    pub elapsed: Duration,
    /// Sorted latencies of acknowledged requests, in microseconds.
    pub latencies: Vec<u32>,
    /// When each acknowledged request was sent, and its latency, both in microseconds.
    pub timeline: Vec<(u64, u32)>,
    /// The first few failures, in words.
    pub errors: Vec<String>,
    /// Answers of 5xx, retried or not, and the first of them.
    pub server_errors: u64,
    pub first_server_error: String,
}

impl Outcome {
    /// Adds what another part of the run, or a run after it, did.
    pub fn absorb(&mut self, part: Outcome) {
        self.requests += part.requests;
        self.samples += part.samples;
        self.bytes += part.bytes;
        self.retries += part.retries;
        self.failed += part.failed;
        self.elapsed += part.elapsed;
        self.latencies.extend(part.latencies);
        self.timeline.extend(part.timeline);
        self.errors.extend(part.errors);
        self.server_errors += part.server_errors;
        if self.first_server_error.is_empty() {
            self.first_server_error = part.first_server_error;
        }
        self.latencies.sort_unstable();
        self.errors.truncate(5);
    }

    pub fn percentile(&self, p: f64) -> Duration {
        let at = ((self.latencies.len() as f64 - 1.0) * p).max(0.0) as usize;
        Duration::from_micros(self.latencies.get(at).copied().unwrap_or(0).into())
    }
}

/// Shared by all connections of a run.
struct Shared {
    workload: Arc<Workload>,
    encoder: BodyEncoder,
    ledger: Arc<Ledger>,
    next: AtomicUsize,
    end: usize,
    /// Requests whose series' previous step is still on its way must wait: each lane sends its batches in order.
    lanes: usize,
    stop: Arc<AtomicBool>,
    samples: AtomicU64,
    begin: Instant,
}

/// Sends requests `from..to`. Each connection owns every `connections`-th batch of series, so that a series'
/// samples are sent in order, as Prometheus's shards do. Ends early when `stop` is raised.
pub async fn run(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    plan: &Plan,
    steps: std::ops::Range<u32>,
    stop: Arc<AtomicBool>,
) -> Result<Outcome> {
    if plan.urls.is_empty() {
        bail!("no write URL given");
    }
    let lanes = plan.connections.clamp(1, workload.batches());
    let shared = Arc::new(Shared {
        encoder: BodyEncoder::new(&workload),
        next: AtomicUsize::new(0),
        end: steps.len() * workload.batches(),
        lanes,
        stop,
        samples: AtomicU64::new(0),
        begin: Instant::now(),
        workload,
        ledger,
    });
    let bar = progress(&shared, plan.quiet);
    let mut tasks = Vec::new();
    for lane in 0..lanes {
        let (shared, plan, steps) = (shared.clone(), plan.clone(), steps.clone());
        tasks.push(tokio::spawn(async move { connection(lane, &shared, &plan, steps).await }));
    }
    let ticker = tokio::spawn(tick(shared.clone(), bar.clone()));
    let mut out = Outcome::default();
    for task in tasks {
        out.absorb(task.await??);
    }
    out.elapsed = shared.begin.elapsed();
    ticker.abort();
    bar.finish_and_clear();
    Ok(out)
}

/// The path of a write URL, and a client of its server.
fn dial(url: &str) -> Result<(String, Client)> {
    Ok((split(url)?.1, Client::new(url)?.with_timeout(Duration::from_secs(30))))
}

async fn connection(
    lane: usize,
    shared: &Shared,
    plan: &Plan,
    steps: std::ops::Range<u32>,
) -> Result<Outcome> {
    let (mut at, mut called) = (lane % plan.urls.len(), 0);
    let (mut path, mut client) = dial(&plan.urls[at])?;
    let headers = plan.door.headers();
    let mut grpc = match plan.door.is_grpc() {
        true => Some(GrpcClient::new(&split(&plan.urls[at])?.0)),
        false => None,
    };
    let mut out = Outcome::default();
    let mut scratch = Vec::new();
    let batches = shared.workload.batches();
    for step in steps {
        for batch in (lane..batches).step_by(shared.lanes) {
            if shared.stop.load(Relaxed) {
                return Ok(out);
            }
            let index = step as usize * batches + batch;
            if plan.home.as_ref().is_some_and(|home| home.load(Relaxed) != called) {
                called += 1;
                at = lane % plan.urls.len();
                (path, client) = dial(&plan.urls[at])?;
            }
            let request = shared.workload.request(index);
            let body = match &plan.bodies {
                Some(bodies) => bodies[index].clone(),
                None => {
                    Bytes::from(shared.encoder.through(plan.door, &shared.workload, request, &mut scratch))
                }
            };
            out.bytes += body.len() as u64;
            shared.ledger.sent(index);
            let sent = Instant::now();
            let mut pause = Duration::from_millis(30);
            loop {
                let answer = match &mut grpc {
                    Some(grpc) => grpc.write(body.clone()).await,
                    None => client.send("POST", &path, &headers, body.clone()).await,
                };
                let problem = match answer {
                    Ok((200 | 204, _)) => {
                        shared.ledger.ack(index);
                        shared.samples.fetch_add(request.len as u64, Relaxed);
                        out.samples += request.len as u64;
                        let took = sent.elapsed().as_micros().min(u128::from(u32::MAX)) as u32;
                        out.latencies.push(took);
                        out.timeline.push(((sent - shared.begin).as_micros() as u64, took));
                        break;
                    }
                    Ok((status, text)) => {
                        let problem = format!("{status}: {}", String::from_utf8_lossy(&text).trim());
                        if status >= 500 {
                            out.server_errors += 1;
                            if out.first_server_error.is_empty() {
                                out.first_server_error.clone_from(&problem);
                            }
                            if plan.elsewhere {
                                at = (at + 1) % plan.urls.len();
                                (path, client) = dial(&plan.urls[at])?;
                            }
                        }
                        problem
                    }
                    Err(error) => {
                        // Nobody there: the next one, as a load balancer would have it.
                        at = (at + 1) % plan.urls.len();
                        (path, client) = dial(&plan.urls[at])?;
                        format!("{error:#}")
                    }
                };
                let final_status = problem.starts_with('4') && !problem.starts_with("429");
                if final_status || sent.elapsed() >= plan.retry_for || shared.stop.load(Relaxed) {
                    out.failed += 1;
                    if out.errors.len() < 5 {
                        out.errors.push(problem);
                    }
                    break;
                }
                out.retries += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            out.requests += 1;
            shared.next.fetch_add(1, Relaxed);
            if plan.rate > 0 {
                let due = Duration::from_secs_f64(shared.samples.load(Relaxed) as f64 / plan.rate as f64);
                if let Some(wait) = due.checked_sub(shared.begin.elapsed()) {
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
    Ok(out)
}

fn progress(shared: &Shared, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(shared.end as u64);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent}% {msg} eta {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

async fn tick(shared: Arc<Shared>, bar: ProgressBar) {
    let mut since_line = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let done = shared.next.load(Relaxed) as u64;
        let rate = shared.samples.load(Relaxed) as f64 / shared.begin.elapsed().as_secs_f64();
        bar.set_position(done);
        bar.set_message(format!("{:.0}k samples/s", rate / 1000.0));
        since_line += 1;
        // Where no terminal shows the bar, a line every ten seconds does.
        if bar.is_hidden() && since_line % 20 == 0 {
            eprintln!("{} of {} requests, {:.0}k samples/s", done, shared.end, rate / 1000.0);
        }
    }
}
