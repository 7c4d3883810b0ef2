//! Changes of an agreed ring under load: three receivers become five and three again by edits of the ring file, one is killed
//! in each change, and a query every second counts what was acknowledged. At the end everything is read back bit for bit, from
//! the three that stay and the store: those that left are stopped as soon as they say that they may be, and deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{Client, percent};
use crate::ingest::{self, Fate, Ledger};
use crate::process::{Server, Usage, folder_size, free_port};
use crate::report::Line;
use crate::scenarios::Shape;
use crate::servers::READY;
use crate::verify;
use crate::workload::Workload;

/// How long a change, and a drain, may take.
const PATIENCE: Duration = Duration::from_secs(300);

struct Ring {
    binary: PathBuf,
    data: PathBuf,
    /// gRPC, HTTP and remote write of each receiver.
    receivers: Vec<[u16; 3]>,
    store: [u16; 2],
    query: [u16; 2],
}

impl Ring {
    fn new(binary: &Path, data: &Path) -> Result<Ring> {
        std::fs::create_dir_all(data)?;
        let bucket = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", data.join("bucket").display());
        std::fs::write(data.join("bucket.yaml"), bucket)?;
        let mut receivers = Vec::new();
        for _ in 0..5 {
            receivers.push([free_port()?, free_port()?, free_port()?]);
        }
        let (store, query) = ([free_port()?, free_port()?], [free_port()?, free_port()?]);
        Ok(Ring { binary: binary.to_owned(), data: data.to_owned(), receivers, store, query })
    }

    fn edit(&self, members: usize) -> Result<()> {
        let endpoints: Vec<String> =
            self.receivers[..members].iter().map(|[grpc, ..]| format!("127.0.0.1:{grpc}")).collect();
        let text = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]).to_string();
        let (new, file) = (self.data.join("hashrings.json.new"), self.data.join("hashrings.json"));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, &file)?)
    }

    fn voters(&self) -> String {
        let voters: Vec<String> =
            self.receivers[..3].iter().map(|[grpc, ..]| format!("127.0.0.1:{grpc}")).collect();
        format!("--control.voters={}", voters.join(","))
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.data.join(format!("receive-{at}"))
    }

    fn http(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.receivers[at][1])
    }

    fn start(&self, name: &str, args: Vec<String>) -> Result<Server> {
        Server::start(name, &self.binary, &args, &self.data.join(format!("{name}.log")))
    }

    fn receiver(&self, at: usize) -> Result<Server> {
        let [grpc, http, write] = self.receivers[at];
        let args = vec![
            "receive".to_owned(),
            format!("--tsdb.path={}", self.folder(at).display()),
            format!("--grpc-address=127.0.0.1:{grpc}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--remote-write.address=127.0.0.1:{write}"),
            format!("--label=replica=\"{at}\""),
            format!("--receive.local-endpoint=127.0.0.1:{grpc}"),
            format!("--receive.hashrings-file={}", self.data.join("hashrings.json").display()),
            "--receive.hashrings-file-refresh-interval=1s".to_owned(),
            "--receive.replication-factor=3".to_owned(),
            format!("--objstore.config-file={}", self.data.join("bucket.yaml").display()),
            format!("--receive.drain-store=127.0.0.1:{}", self.store[0]),
            self.voters(),
        ];
        self.start(&format!("receive-{at}"), args)
    }

    async fn store(&self) -> Result<Server> {
        let [grpc, http] = self.store;
        let args = vec![
            "store".to_owned(),
            format!("--data-dir={}", self.data.join("store").display()),
            format!("--grpc-address=127.0.0.1:{grpc}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--objstore.config-file={}", self.data.join("bucket.yaml").display()),
            "--sync-block-duration=2s".to_owned(),
        ];
        let mut server = self.start("store", args)?;
        server.wait_ready(&format!("http://127.0.0.1:{http}"), "/-/ready", READY).await?;
        Ok(server)
    }

    /// Told of nobody but the store and the control plane.
    async fn query(&self) -> Result<(Server, String)> {
        let [grpc, http] = self.query;
        let args = vec![
            "query".to_owned(),
            format!("--grpc-address=127.0.0.1:{grpc}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--endpoint=127.0.0.1:{}", self.store[0]),
            self.voters(),
        ];
        let mut server = self.start("query", args)?;
        let url = format!("http://127.0.0.1:{http}");
        server.wait_ready(&url, "/-/ready", READY).await?;
        Ok((server, url))
    }

    async fn gauge(&self, at: usize, name: &str) -> Option<f64> {
        let mut client = Client::new(&self.http(at)).ok()?.with_timeout(Duration::from_secs(5));
        let (_, page) = client.get("/metrics").await.ok()?;
        let page = String::from_utf8_lossy(&page).into_owned();
        let line = page.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits for a ring of so many, without a change under way.
    async fn settled(&self, members: usize, nodes: std::ops::Range<usize>) -> Result<()> {
        let begun = Instant::now();
        for at in nodes {
            loop {
                let change = self.gauge(at, "tributary_ring_in_change").await;
                let size = self.gauge(at, "thanos_receive_hashring_nodes{name=\"default\"}").await;
                if change == Some(0.0) && size == Some(members as f64) {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    bail!("receiver {at} has not seen a ring of {members} within {PATIENCE:?}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Waits until a receiver may go; how long that took.
    async fn drained(&self, at: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut client = Client::new(&self.http(at))?.with_timeout(Duration::from_secs(10));
        loop {
            let said = match client.get("/-/drained").await {
                Ok((200, _)) => return Ok(begun.elapsed()),
                Ok((_, body)) => String::from_utf8_lossy(&body).into_owned(),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > PATIENCE {
                bail!("receiver {at} is not drained within {PATIENCE:?}: {said}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Asks once a second for the last step that is acknowledged whole: every series has its one sample there.
async fn watch(
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    url: String,
    stop: Arc<AtomicBool>,
) -> Result<(u64, Vec<String>)> {
    let (mut step, mut asked, mut gaps) = (0u32, 0, Vec::new());
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
        let range = workload.interval_ms;
        // Keeps names; in one interval each series has one sample.
        let query = format!("count(last_over_time({{__name__!=\"\"}}[{range}ms]))");
        let time = workload.time(last) as f64 / 1000.0;
        let path = format!("/api/v1/query?query={}&time={time:.3}&timeout=50s", percent(&query));
        asked += 1;
        let found = match client.get(&path).await {
            Ok((200, body)) => {
                let answer: Value = serde_json::from_slice(&body)?;
                answer["data"]["result"][0]["value"][1].as_str().unwrap_or("nothing").to_owned()
            }
            Ok((status, body)) => format!("{status} {}", String::from_utf8_lossy(&body)),
            Err(error) => error.to_string(),
        };
        if found != workload.series.len().to_string() {
            gaps.push(format!("step {last}: {found} instead of {} samples", workload.series.len()));
        }
    }
    Ok((asked, gaps))
}

/// The whole story on one machine.
pub async fn run(shape: &Shape) -> Result<Line> {
    let folder = shape.folder()?;
    let ring = Ring::new(&shape.binary, &folder.path.join("ring"))?;
    ring.edit(3)?;
    let mut servers: Vec<Option<Server>> = Vec::new();
    for at in 0..3 {
        servers.push(Some(ring.receiver(at)?));
    }
    for (at, server) in servers.iter_mut().enumerate() {
        if let Some(server) = server {
            server.wait_ready(&ring.http(at), "/-/ready", READY).await?;
        }
    }
    ring.settled(3, 0..3).await?;
    let store = ring.store().await?;
    let (querier, url) = ring.query().await?;
    let workload = shape.workload()?;
    let ledger = Arc::new(Ledger::new(workload.requests()));
    // A load balancer before those that stay; one of them is killed under it.
    let urls =
        ring.receivers[..3].iter().map(|[.., write]| format!("http://127.0.0.1:{write}/api/v1/receive"));
    let mut plan = shape.plan(urls.collect());
    plan.retry_for = Duration::from_secs(120);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (workload, ledger, steps) = (workload.clone(), ledger.clone(), 0..shape.samples);
        tokio::spawn(async move { ingest::run(workload, ledger, &plan, steps, Arc::default()).await })
    };
    let watcher = tokio::spawn(watch(workload.clone(), ledger.clone(), url.clone(), Arc::clone(&stop)));
    let acked = async |part: usize| {
        let due = workload.requests() * part / 10;
        while ledger.acked() < due && !sender.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut notes = Vec::new();

    acked(2).await;
    for at in [3, 4] {
        servers.push(Some(ring.receiver(at)?));
    }
    for at in [3, 4] {
        if let Some(server) = servers[at].as_mut() {
            server.wait_ready(&ring.http(at), "/-/ready", READY).await?;
        }
    }
    let begun = Instant::now();
    ring.edit(5)?;
    servers[1].take().context("it runs")?.kill()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    servers[1] = Some(ring.receiver(1)?);
    ring.settled(5, 0..5).await?;
    notes.push(format!("grown in {:.1?}, one killed", begun.elapsed()));

    acked(6).await;
    let begun = Instant::now();
    let before = ring.gauge(0, "tributary_ring_epoch").await;
    ring.edit(3)?;
    while ring.gauge(0, "tributary_ring_epoch").await <= before {
        if begun.elapsed() > PATIENCE {
            bail!("the ring does not shrink");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    servers[4].take().context("it runs")?.kill()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    servers[4] = Some(ring.receiver(4)?);
    ring.settled(3, 0..3).await?;
    notes.push(format!("shrunk in {:.1?}, one killed", begun.elapsed()));
    for at in [3, 4] {
        let took = ring.drained(at).await?;
        servers[at].take().context("it runs")?.stop(Duration::from_secs(60))?;
        std::fs::remove_dir_all(ring.folder(at))?;
        notes.push(format!("receiver {at} drained {took:.1?} after that and deleted"));
    }

    let outcome = sender.await??;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Relaxed);
    let (asked, gaps) = watcher.await??;
    let mut used = Usage::default();
    for server in servers.iter().flatten() {
        used += server.usage()?;
    }
    let mut line = Line::new("ring 3-5-3", shape.series, &outcome, used, folder_size(&ring.data));
    notes.push(format!("{} of {asked} queries with a gap", gaps.len()));
    line.failed += gaps.len() as u64;
    line.notes.extend(notes);
    line.notes.extend(gaps.into_iter().take(10));
    let hidden = ["tenant_id", "replica"].map(str::to_owned);
    let line = line.verified(verify::run(workload, ledger, &url, &hidden, false).await?);
    querier.stop(Duration::from_secs(60))?;
    store.stop(Duration::from_secs(60))?;
    for server in servers.into_iter().flatten() {
        server.stop(Duration::from_secs(60))?;
    }
    Ok(line)
}
