//! Peers that fail: one of three receivers is stopped, swallowed by the network, restarted again and again or out of disk,
//! or all three restart in turn. Acks are held against a run without that peer, and everything is read back from all of
//! them together and from each alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http::Client;
use crate::ingest::{self, Ledger, Outcome};
use crate::process::{Server, Usage, folder_size, free_port, run_on};
use crate::report::Line;
use crate::scenarios::Shape;
use crate::servers::{Program, READY, cluster_ports, cluster_receiver};
use crate::verify;
use crate::workload::{Workload, mix};

/// How a peer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Stopped,
    BlackHole,
    Restarts,
    FullDisk,
    Rolling,
    AllKilled,
}

impl Case {
    pub const ALL: [Case; 6] =
        [Case::Stopped, Case::BlackHole, Case::Restarts, Case::FullDisk, Case::Rolling, Case::AllKilled];

    pub fn name(self) -> &'static str {
        match self {
            Case::Stopped => "stopped",
            Case::BlackHole => "black-hole",
            Case::Restarts => "restarts",
            Case::FullDisk => "full-disk",
            Case::Rolling => "rolling",
            Case::AllKilled => "all-killed",
        }
    }

    pub fn of(name: &str) -> Result<Case> {
        let known = Case::ALL.into_iter().find(|case| case.name() == name);
        known.with_context(|| format!("unknown case {name:?}; known are {:?}", Case::ALL.map(Case::name)))
    }
}

/// How long and how often; a quick run judges no times.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub quick: bool,
    pub away: Duration,
    pub restarts: usize,
    /// The third receiver has a core to itself, as it would have a machine; all else, the sender too, has another.
    pub apart: bool,
}

/// Longest ack that is let pass, in milliseconds.
const LONGEST_MS: f64 = 1000.0;
/// How much longer the slowest hundredth may take than without the peer.
const WORSE: f64 = 1.2;
const QUEUE_LIMIT: u64 = 64 << 20;

/// Runs the cases one after the other, after the control.
pub async fn run(shape: &Shape, cases: &[Case], pace: Pace) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    if pace.apart {
        run_on(std::process::id(), 0)?;
    }
    // By the length of the run, since who sends more slowly waits for other reasons.
    let mut controls: Vec<(f64, Duration)> = Vec::new();
    for case in cases {
        let secs = length(*case, pace);
        let known = controls.iter().find(|control| control.0 == secs).map(|control| control.1);
        let control = match known {
            _ if pace.quick => None,
            Some(p99) => Some(p99),
            None => {
                eprintln!("the control, two receivers of three, for {secs:.0} s");
                let (line, p99) = away_from_the_start(shape, secs, pace).await.context("the control run")?;
                lines.push(line);
                controls.push((secs, p99));
                Some(p99)
            }
        };
        eprintln!("peer {}", case.name());
        let line = one(shape, *case, pace, control).await;
        lines.push(line.with_context(|| format!("case {}", case.name()))?);
    }
    Ok(lines)
}

/// Three receivers of which any may be missing.
struct Trio {
    binary: PathBuf,
    apart: bool,
    data: PathBuf,
    servers: Vec<Option<Server>>,
    more: Vec<String>,
    /// In front of the third receiver, where there is one.
    proxy: Option<Proxy>,
}

impl Trio {
    async fn start(shape: &Shape, data: &Path, which: &[usize], pace: Pace, proxied: bool) -> Result<Trio> {
        std::fs::create_dir_all(data)?;
        let ports = cluster_ports(data)?;
        let mut endpoints: Vec<String> = ports[..3].iter().map(|p| format!("127.0.0.1:{}", p[0])).collect();
        let proxy = match proxied {
            true => Some(Proxy::start(ports[2][0]).await?),
            false => None,
        };
        if let Some(proxy) = &proxy {
            endpoints[2] = format!("127.0.0.1:{}", proxy.port);
        }
        let ring = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]);
        std::fs::write(data.join("hashrings.json"), ring.to_string())?;
        let mut trio = Trio {
            binary: shape.binary.clone(),
            apart: pace.apart,
            data: data.to_owned(),
            servers: (0..3).map(|_| None).collect(),
            more: vec!["--tsdb.wal-segment-size=8MiB".to_owned()],
            proxy,
        };
        for at in which {
            trio.launch(*at)?;
        }
        for at in which {
            trio.wait(*at).await?;
        }
        Ok(trio)
    }

    fn launch(&mut self, at: usize) -> Result<()> {
        let mut start = cluster_receiver(&self.data, at)?;
        start.args.extend_from_slice(&self.more);
        if let (2, Some(proxy)) = (at, &self.proxy) {
            start.args.retain(|arg| !arg.starts_with("--receive.local-endpoint"));
            start.args.push(format!("--receive.local-endpoint=127.0.0.1:{}", proxy.port));
        }
        let name = format!("receive-{at}");
        let log = self.data.join(format!("{name}.log"));
        let mut program = Program::new(&self.binary);
        if self.apart && at == 2 {
            // It becomes the receiver, which so never runs anywhere else.
            program.under = ["taskset", "-c", "1"].map(str::to_owned).to_vec();
        }
        self.servers[at] = Some(program.start(&name, start.args, &log)?);
        Ok(())
    }

    async fn wait(&mut self, at: usize) -> Result<()> {
        let url = cluster_receiver(&self.data, at)?.http;
        match &mut self.servers[at] {
            Some(server) => server.wait_ready(&url, "/-/ready", READY).await.map(drop),
            None => Ok(()),
        }
    }

    fn write_url(&self, at: usize) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}/api/v1/receive", cluster_ports(&self.data)?[at][2]))
    }

    fn signal(&self, at: usize, signal: &str) -> Result<()> {
        let server = self.servers[at].as_ref().context("no such receiver")?;
        Command::new("kill").arg(signal).arg(server.pid().to_string()).status()?;
        Ok(())
    }

    /// A querier over these receivers, and where it answers.
    async fn query(&self, over: &[usize]) -> Result<(Server, String)> {
        let ports = cluster_ports(&self.data)?;
        let http = free_port()?;
        let mut args = vec![
            "query".to_owned(),
            format!("--grpc-address=127.0.0.1:{}", free_port()?),
            format!("--http-address=127.0.0.1:{http}"),
        ];
        args.extend(over.iter().map(|at| format!("--endpoint=127.0.0.1:{}", ports[*at][0])));
        let url = format!("http://127.0.0.1:{http}");
        let mut server = Server::start("query", &self.binary, &args, &self.data.join("query.log"))?;
        server.wait_ready(&url, "/-/ready", READY).await?;
        Ok((server, url))
    }

    fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for server in self.servers.iter().flatten() {
            sum += server.usage().unwrap_or_default();
        }
        sum
    }

    /// The sum of a metric over the receivers that answer.
    async fn metric(&self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for at in 0..3 {
            if self.servers[at].is_some() {
                sum += metric(&cluster_receiver(&self.data, at)?.http, name).await.unwrap_or(0.0);
            }
        }
        Ok(sum)
    }

    /// Until no receiver keeps anything for another.
    async fn converged(&self, within: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let mut quiet = 0;
        while quiet < 3 {
            // The gauges are a few seconds behind; three looks in a row are not.
            let waiting = self.metric("tributary_hints_waiting_samples").await?;
            quiet = if waiting == 0.0 { quiet + 1 } else { 0 };
            if begin.elapsed() > within {
                bail!("{waiting} samples still wait for a peer after {within:?}");
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        Ok(begin.elapsed())
    }
}

async fn metric(url: &str, name: &str) -> Result<f64> {
    let mut client = Client::new(url)?.with_timeout(Duration::from_secs(2));
    let (_, text) = client.get("/metrics").await?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// A way to a port that can swallow everything: what comes is read and forgotten, nothing is answered.
pub struct Proxy {
    port: u16,
    swallow: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own.
    pub async fn start(to: u16) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let swallow = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&swallow);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let swallow = Arc::clone(&seen);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let (from_client, to_client) = stream.into_split();
                    let (from_server, to_server) = server.into_split();
                    // A side that ends ends both: whoever waits is to see it.
                    tokio::select! {
                        () = pump(from_client, to_server, &swallow) => {}
                        () = pump(from_server, to_client, &swallow) => {}
                    }
                });
            }
        });
        Ok(Proxy { port, swallow, task })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on everything is swallowed, or new connections go through again.
    pub fn swallow(&self, on: bool) {
        self.swallow.store(on, Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallow: &AtomicBool,
) {
    use tokio::io::AsyncWriteExt;
    let mut buf = vec![0; 64 << 10];
    let mut holed = false;
    while let Ok(n) = from.read(&mut buf).await {
        if n == 0 {
            return;
        }
        // What was swallowed once can never go on: a hole in the stream.
        holed |= swallow.load(Relaxed);
        if !holed && to.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

fn plan_of(shape: &Shape, workload: &Workload, secs: f64, urls: Vec<String>) -> ingest::Plan {
    let mut plan = shape.plan(urls);
    if plan.rate == 0 {
        plan.rate = ((workload.series.len() as f64 * f64::from(shape.samples)) / secs.max(1.0)) as u64;
    }
    plan
}

/// How long the data flows.
fn length(case: Case, pace: Pace) -> f64 {
    match case {
        Case::Restarts => 2.0 + pace.restarts as f64 * 1.5,
        Case::AllKilled => 12.0,
        // As long as the control, so that both run at one rate.
        Case::Rolling => (pace.away.as_secs_f64() + 5.0).max(12.0),
        _ => pace.away.as_secs_f64() + 5.0,
    }
}

/// The control: two receivers, the third never comes.
async fn away_from_the_start(shape: &Shape, secs: f64, pace: Pace) -> Result<(Line, Duration)> {
    let folder = shape.folder()?;
    let data = folder.path.join("control");
    let trio = Trio::start(shape, &data, &[0, 1], pace, false).await?;
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let urls = vec![trio.write_url(0)?, trio.write_url(1)?];
    let plan = plan_of(shape, &workload, secs, urls);
    let outcome = ingest::run(workload, ledger, &plan, 0..shape.samples, Arc::default()).await?;
    let p99 = outcome.percentile(0.99);
    let line = Line::new("two of three", shape.series, &outcome, trio.usage(), folder_size(&data));
    Ok((line, p99))
}

async fn one(shape: &Shape, case: Case, pace: Pace, control: Option<Duration>) -> Result<Line> {
    let folder = shape.folder()?;
    let data = folder.path.join(case.name());
    let small = match case {
        Case::FullDisk => match SmallDisk::mount(&data.join("receive-2"), 160)? {
            Some(disk) => Some(disk),
            None => bail!("SKIPPED: no small file system can be mounted here"),
        },
        _ => None,
    };
    let mut trio = Trio::start(shape, &data, &[0, 1, 2], pace, case == Case::BlackHole).await?;
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    let mut urls = vec![trio.write_url(0)?, trio.write_url(1)?];
    if matches!(case, Case::Rolling | Case::AllKilled) {
        urls.push(trio.write_url(2)?);
    }
    let plan = plan_of(shape, &workload, length(case, pace), urls);
    let sender = {
        let (workload, ledger, steps) = (workload.clone(), ledger.clone(), 0..shape.samples);
        tokio::spawn(async move { ingest::run(workload, ledger, &plan, steps, Arc::default()).await })
    };
    let sending = Instant::now();
    let queue = watch_queues(&trio)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = sending.elapsed();
    let during = !sender.is_finished();
    trouble(&mut trio, case, pace, shape.seed).await?;
    let ended = sending.elapsed();
    let outcome = sender.await??;
    let most = queue.stop();

    let mut line =
        Line::new(&format!("peer {}", case.name()), shape.series, &outcome, trio.usage(), folder_size(&data));
    let converged = trio.converged(Duration::from_secs(120)).await?;
    line.notes.push(format!(
        "trouble from {began:.1?} to {ended:.1?}{}; converged {converged:.1?} after the data; queues held {:.1} MiB at most",
        if during { "" } else { ", after the data" },
        most as f64 / 1048576.0
    ));
    // Nobody can take anything while all are down.
    if case != Case::AllKilled {
        judge(&mut line, &outcome, (began, ended), most, control);
    }

    let drop_labels = ["tenant_id".to_owned(), "replica".to_owned()];
    let mut found = None;
    // A keeper that is killed loses what it had not written for others; together they have everything.
    let alone: &[usize] = if case == Case::AllKilled { &[] } else { &[0, 1, 2] };
    for over in std::iter::once(vec![0, 1, 2]).chain(alone.iter().map(|at| vec![*at])) {
        let (querier, url) = trio.query(&over).await?;
        let (data, sent) = (workload.clone(), ledger.clone());
        let read = match over.len() {
            1 => verify::run_alone(data, sent, &url, &drop_labels, pace.quick).await?,
            _ => verify::run(data, sent, &url, &drop_labels, pace.quick).await?,
        };
        querier.stop(Duration::from_secs(20))?;
        let clean = read.acked > 0 && read.lost + read.twice + read.wrong + read.strange == 0;
        if !clean && over.len() == 1 {
            line.notes.push(format!("receiver {} alone: {} lost, {} twice", over[0], read.lost, read.twice));
        }
        if found.is_none() || !clean {
            found = Some(read);
        }
    }
    for server in trio.servers.iter_mut().filter_map(Option::take) {
        server.stop(Duration::from_secs(60))?;
    }
    drop(small);
    Ok(match found {
        Some(found) => line.verified(found),
        None => line,
    })
}

/// What the run promises, beside what is read back.
fn judge(
    line: &mut Line,
    outcome: &Outcome,
    (began, ended): (Duration, Duration),
    most: u64,
    control: Option<Duration>,
) {
    let mut broken = Vec::new();
    if outcome.server_errors > 0 {
        broken.push(format!("{} answers of 5xx: {}", outcome.server_errors, outcome.first_server_error));
    }
    if most > 2 * QUEUE_LIMIT {
        broken.push(format!("queues held {most} bytes"));
    }
    let window = |(at, _): &&(u64, u32)| {
        let at = Duration::from_micros(*at);
        at >= began && at <= ended
    };
    let mut during: Vec<u32> = outcome.timeline.iter().filter(window).map(|(_, took)| *took).collect();
    during.sort_unstable();
    let p99 = during.get(during.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0);
    let p99 = Duration::from_micros(p99.into());
    if let Some(control) = control {
        let ratio = p99.as_secs_f64() / control.as_secs_f64().max(1e-9);
        let text =
            format!("p99 of acks meanwhile {p99:.1?}, without the peer {control:.1?}: {ratio:.2} times");
        match ratio <= WORSE {
            true => line.notes.push(text),
            false => broken.push(text),
        }
        if line.max_ms > LONGEST_MS {
            broken.push(format!("an ack took {:.0} ms", line.max_ms));
        }
    }
    line.broken = broken;
}

/// Lets it happen, and ends it.
async fn trouble(trio: &mut Trio, case: Case, pace: Pace, seed: u64) -> Result<()> {
    match case {
        Case::Stopped => {
            trio.signal(2, "-STOP")?;
            tokio::time::sleep(pace.away).await;
            trio.signal(2, "-CONT")
        }
        Case::BlackHole => {
            let swallow = trio.proxy.as_ref().map(|proxy| Arc::clone(&proxy.swallow)).context("no proxy")?;
            swallow.store(true, Relaxed);
            tokio::time::sleep(pace.away).await;
            swallow.store(false, Relaxed);
            Ok(())
        }
        Case::Restarts => {
            for cycle in 0..pace.restarts {
                if let Some(server) = trio.servers[2].take() {
                    server.kill()?;
                }
                tokio::time::sleep(Duration::from_millis(mix(seed ^ cycle as u64) % 300)).await;
                trio.launch(2)?;
                // Now and then it is killed while it starts.
                if cycle % 3 != 2 || cycle + 1 == pace.restarts {
                    trio.wait(2).await?;
                }
                tokio::time::sleep(Duration::from_millis(mix(seed ^ !(cycle as u64)) % 800)).await;
            }
            Ok(())
        }
        Case::FullDisk => {
            let filler = trio.data.join("receive-2").join("filler");
            let filling = filler.clone();
            tokio::task::spawn_blocking(move || fill(&filling)).await??;
            tokio::time::sleep(pace.away).await;
            std::fs::remove_file(filler)?;
            Ok(())
        }
        Case::AllKilled => {
            for server in trio.servers.iter_mut().filter_map(Option::take) {
                server.kill()?;
            }
            for at in 0..3 {
                trio.launch(at)?;
            }
            for at in 0..3 {
                trio.wait(at).await?;
            }
            Ok(())
        }
        Case::Rolling => {
            for at in 0..3 {
                if let Some(server) = trio.servers[at].take() {
                    tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(60))).await??;
                }
                trio.launch(at)?;
                // Ready is the only gate.
                trio.wait(at).await?;
            }
            Ok(())
        }
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    let mut block = vec![0u8; 1 << 16];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    Ok(())
}

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(at: &Path, mib: u64) -> Result<Option<SmallDisk>> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mib}m");
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        Ok(out.is_ok_and(|out| out.status.success()).then(|| SmallDisk(at.to_owned())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The most that queues to peers were seen to hold together.
struct Queues {
    task: tokio::task::JoinHandle<()>,
    most: Arc<AtomicU64>,
}

impl Queues {
    fn stop(self) -> u64 {
        self.task.abort();
        self.most.load(Relaxed)
    }
}

fn watch_queues(trio: &Trio) -> Result<Queues> {
    let urls = [0, 1].map(|at| cluster_receiver(&trio.data, at).map(|start| start.http));
    let urls = urls.into_iter().collect::<Result<Vec<_>>>()?;
    let most = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&most);
    let task = tokio::spawn(async move {
        loop {
            for url in &urls {
                let held = metric(url, "tributary_receive_peer_queue_bytes").await.unwrap_or(0.0);
                seen.fetch_max(held as u64, Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    Ok(Queues { task, most })
}
