//! The processes of a ring that is agreed on: receivers, voters that keep nothing, routers, a store and a querier; started,
//! killed, put to sleep and asked how far they are.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::Client;
use crate::process::{Server, Usage, free_port};
use crate::ring::Pace;
use crate::ring::net::Net;
use crate::scenarios::Shape;
use crate::servers::{Program, READY};

/// How long a change, or a drain, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Where a node listens: its gRPC, HTTP and remote write.
#[derive(Clone, Copy)]
struct Ports {
    host: Ipv4Addr,
    grpc: u16,
    http: u16,
    write: u16,
}

impl Ports {
    fn new() -> Result<Ports> {
        Ok(Ports { host: Ipv4Addr::LOCALHOST, grpc: free_port()?, http: free_port()?, write: free_port()? })
    }

    fn grpc(self) -> String {
        format!("{}:{}", self.host, self.grpc)
    }

    /// Lifecycle, metrics and queries.
    fn url(self) -> String {
        format!("http://{}:{}", self.host, self.http)
    }

    fn write_url(self) -> String {
        format!("http://{}:{}/api/v1/receive", self.host, self.write)
    }
}

fn receiver(at: usize) -> String {
    format!("receive-{at}")
}

pub struct Cluster {
    binary: PathBuf,
    pub data: PathBuf,
    pace: Pace,
    nodes: Vec<Ports>,
    /// By place; none where it does not run.
    pub servers: Vec<Option<Server>>,
    voters: Vec<usize>,
    /// The highest feature level of receivers that are started; 0 for all.
    level: u32,
    /// The version before, where receivers that are held at a level run it.
    older: Option<PathBuf>,
    /// Where each process has a network namespace of its own.
    pub net: Option<Net>,
    /// Zones of the nodes, by place; empty where there are none.
    zones: Vec<&'static str>,
    store: Ports,
    query: Ports,
    query_aside: Ports,
    router: Ports,
    /// Store, queriers and router.
    others: Vec<Server>,
}

impl Cluster {
    /// Places for so many nodes, of which these vote. Nothing runs yet.
    pub fn new(shape: &Shape, data: PathBuf, pace: Pace, nodes: usize, voters: &[usize]) -> Result<Cluster> {
        std::fs::create_dir_all(&data)?;
        let bucket = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", data.join("bucket").display());
        std::fs::write(data.join("bucket.yaml"), bucket)?;
        std::fs::create_dir_all(data.join("bucket"))?;
        Ok(Cluster {
            binary: shape.binary.clone(),
            data,
            pace,
            nodes: (0..nodes).map(|_| Ports::new()).collect::<Result<_>>()?,
            servers: (0..nodes).map(|_| None).collect(),
            voters: voters.to_vec(),
            level: 0,
            older: shape.older.clone(),
            net: None,
            zones: Vec::new(),
            store: Ports::new()?,
            query: Ports::new()?,
            query_aside: Ports::new()?,
            router: Ports::new()?,
            others: Vec::new(),
        })
    }

    pub fn at_level(mut self, level: u32) -> Cluster {
        self.level = level;
        self
    }

    pub fn set_level(&mut self, level: u32) {
        self.level = level;
    }

    /// Ends it in order and starts it again.
    pub async fn restart(&mut self, at: usize) -> Result<()> {
        let server = self.servers[at].take().context("it runs")?;
        tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(60))).await??;
        self.start(&[at]).await
    }

    /// Each process in a network namespace of its own.
    pub fn in_namespaces(mut self) -> Result<Cluster> {
        let mut net = Net::new()?;
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.host = net.place(&receiver(at))?;
        }
        let others = [&mut self.store, &mut self.query, &mut self.query_aside, &mut self.router];
        for (ports, name) in others.into_iter().zip(["store", "query", "query-aside", "router"]) {
            ports.host = net.place(name)?;
        }
        self.net = Some(net);
        Ok(self)
    }

    pub fn in_zones(mut self, zones: &[&'static str]) -> Cluster {
        self.zones = zones.to_vec();
        self
    }

    /// Forms the cluster with a ring of these, and starts a store and a querier beside it. Answers where the querier is.
    pub async fn form(&mut self, members: &[usize]) -> Result<String> {
        self.edit(members)?;
        let mut all: Vec<usize> = members.iter().chain(&self.voters).copied().collect();
        all.sort_unstable();
        all.dedup();
        self.start(&all).await?;
        self.settled(members, &all).await?;
        let store = vec![
            "store".to_owned(),
            format!("--data-dir={}", self.data.join("store").display()),
            format!("--objstore.config-file={}", self.data.join("bucket.yaml").display()),
            "--sync-block-duration=1s".to_owned(),
        ];
        self.beside("store", self.store, store).await?;
        self.start_querier("query", self.query).await
    }

    /// Told of nobody but the store and the control plane.
    async fn start_querier(&mut self, name: &str, ports: Ports) -> Result<String> {
        let mut query =
            vec!["query".to_owned(), format!("--endpoint={}", self.store.grpc()), self.voters_flag()];
        if self.pace.quick {
            query.push("--endpoint.info-timeout=1s".to_owned());
        }
        self.beside(name, ports, query).await?;
        Ok(ports.url())
    }

    /// A querier in the place of the one more, which knows this receiver and nobody else.
    pub async fn start_querier_of(&mut self, at: usize) -> Result<String> {
        if let Some(server) = self.others.iter().position(|server| server.name == "query-aside") {
            self.others.remove(server).stop(Duration::from_secs(60))?;
        }
        let query = vec!["query".to_owned(), format!("--endpoint={}", self.address(at))];
        self.beside("query-aside", self.query_aside, query).await?;
        Ok(self.query_aside.url())
    }

    /// A querier more.
    pub async fn start_querier_aside(&mut self) -> Result<String> {
        self.start_querier("query-aside", self.query_aside).await
    }

    /// Starts a router, which finds the voters at these addresses; answers where it takes writes.
    pub async fn start_router(&mut self, voters: &[String]) -> Result<String> {
        let args = vec![
            "receive".to_owned(),
            format!("--remote-write.address={}:{}", self.router.host, self.router.write),
            format!("--receive.hints.dir={}", self.data.join("router").display()),
            "--receive.replication-factor=3".to_owned(),
            format!("--control.voters={}", voters.join(",")),
        ];
        self.beside("router", self.router, args).await?;
        Ok(self.router.write_url())
    }

    async fn beside(&mut self, name: &str, ports: Ports, mut args: Vec<String>) -> Result<()> {
        args.push(format!("--grpc-address={}", ports.grpc()));
        args.push(format!("--http-address={}:{}", ports.host, ports.http));
        let mut server = self.launch(name, args)?;
        server.wait_ready(&ports.url(), "/-/ready", READY).await?;
        self.others.push(server);
        Ok(())
    }

    fn launch(&self, name: &str, args: Vec<String>) -> Result<Server> {
        let mut program = Program::new(&self.binary);
        if let Some(older) = self.older.as_ref().filter(|_| self.level > 0 && name.starts_with("receive-")) {
            program.path.clone_from(older);
        }
        program.under = self.net.as_ref().and_then(|net| net.inside(name)).unwrap_or_default();
        program.start(name, args, &self.data.join(format!("{name}.log")))
    }

    pub fn address(&self, at: usize) -> String {
        self.nodes[at].grpc()
    }

    pub fn write_url(&self, at: usize) -> String {
        self.nodes[at].write_url()
    }

    /// gRPC addresses.
    pub fn voters(&self) -> Vec<String> {
        self.voters.iter().map(|at| self.address(*at)).collect()
    }

    pub fn voter_ports(&self) -> Vec<u16> {
        self.voters.iter().map(|at| self.nodes[*at].grpc).collect()
    }

    fn voters_flag(&self) -> String {
        format!("--control.voters={}", self.voters().join(","))
    }

    pub fn folder(&self, at: usize) -> PathBuf {
        self.data.join(receiver(at))
    }

    /// Replaces the ring file, as an editor does.
    pub fn edit(&self, members: &[usize]) -> Result<()> {
        let endpoint = |at: &usize| match self.zones.get(*at) {
            Some(zone) => serde_json::json!({ "address": self.address(*at), "az": zone }),
            None => serde_json::json!(self.address(*at)),
        };
        let endpoints: Vec<Value> = members.iter().map(endpoint).collect();
        let text = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]).to_string();
        let (new, file) = (self.data.join("hashrings.json.new"), self.data.join("hashrings.json"));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, &file)?)
    }

    /// Starts these, without waiting for them.
    pub fn begin(&mut self, which: &[usize]) -> Result<()> {
        for at in which {
            let ports @ Ports { host, http, write, .. } = self.nodes[*at];
            let mut args = vec![
                "receive".to_owned(),
                format!("--tsdb.path={}", self.folder(*at).display()),
                format!("--grpc-address={}", ports.grpc()),
                format!("--http-address={host}:{http}"),
                format!("--remote-write.address={host}:{write}"),
                format!("--label=replica=\"{at}\""),
                format!("--receive.local-endpoint={}", ports.grpc()),
                format!("--receive.hashrings-file={}", self.data.join("hashrings.json").display()),
                "--receive.hashrings-file-refresh-interval=1s".to_owned(),
                "--receive.replication-factor=3".to_owned(),
                format!("--objstore.config-file={}", self.data.join("bucket.yaml").display()),
                format!("--receive.drain-store={}", self.store.grpc()),
                self.voters_flag(),
            ];
            if self.pace.quick {
                args.push("--receive.drain-grace=4s".to_owned());
            }
            // The version before has no word for it, or speaks no more by itself.
            if self.level > 0 && self.older.is_none() {
                args.push(format!("--control.max-feature-level={}", self.level));
            }
            self.servers[*at] = Some(self.launch(&receiver(*at), args)?);
        }
        Ok(())
    }

    pub async fn start(&mut self, which: &[usize]) -> Result<()> {
        self.begin(which)?;
        self.ready(which).await
    }

    /// Waits until these take writes.
    pub async fn ready(&mut self, which: &[usize]) -> Result<()> {
        for at in which {
            let url = self.nodes[*at].url();
            let server = self.servers[*at].as_mut().context("it runs")?;
            server.wait_ready(&url, "/-/ready", READY).await?;
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.servers[at].take().context("it runs")?.kill()
    }

    /// Ends it in order and deletes what it had.
    pub fn remove(&mut self, at: usize) -> Result<()> {
        self.servers[at].take().context("it runs")?.stop(Duration::from_secs(60))?;
        Ok(std::fs::remove_dir_all(self.folder(at))?)
    }

    /// STOP or CONT.
    pub fn signal(&self, at: usize, signal: &str) -> Result<()> {
        send_signal(self.servers[at].as_ref().context("it runs")?, signal)
    }

    pub fn signal_router(&self, signal: &str) -> Result<()> {
        let router = self.others.iter().find(|server| server.name == "router");
        send_signal(router.context("there is no router")?, signal)
    }

    pub async fn gauge(&self, at: usize, name: &str) -> Option<f64> {
        gauge(self.nodes[at], name).await
    }

    /// The sum of a metric over its labels; none where the receiver does not answer.
    pub async fn sum(&self, at: usize, name: &str) -> Option<f64> {
        sum(self.nodes[at], name).await
    }

    pub async fn router_sum(&self, name: &str) -> Option<f64> {
        sum(self.router, name).await
    }

    pub async fn router_gauge(&self, name: &str) -> Option<f64> {
        gauge(self.router, name).await
    }

    /// Waits for a value of a gauge; how long that took.
    pub async fn until(&self, at: usize, name: &str, wanted: impl Fn(f64) -> bool) -> Result<Duration> {
        self.within(PATIENCE, at, name, wanted).await
    }

    /// Waits until no receiver is needed for epochs that are over; how long that took.
    pub async fn until_bare(&self, at: usize) -> Result<Duration> {
        self.within(4 * PATIENCE, at, "tributary_control_ring_unretired_epochs", |n| n == 0.0).await
    }

    async fn within(
        &self,
        patience: Duration,
        at: usize,
        name: &str,
        wanted: impl Fn(f64) -> bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        while !self.gauge(at, name).await.is_some_and(&wanted) {
            if begun.elapsed() > patience {
                bail!("{name} of receiver {at} is not what it should be after {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(begun.elapsed())
    }

    /// Waits until these nodes know of a ring of so many as `members`, without a change under way.
    pub async fn settled(&self, members: &[usize], nodes: &[usize]) -> Result<Duration> {
        let begun = Instant::now();
        for at in nodes {
            loop {
                let change = self.gauge(*at, "tributary_ring_in_change").await;
                let size = self.gauge(*at, "thanos_receive_hashring_nodes{name=\"default\"}").await;
                if change == Some(0.0) && size == Some(members.len() as f64) {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    bail!("receiver {at} has not seen a ring of {} within {PATIENCE:?}", members.len());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(begun.elapsed())
    }

    /// What a receiver says when it is asked whether it may go; none if it may.
    pub async fn stays_for(&self, at: usize) -> Result<Option<String>> {
        let url = self.nodes[at].url();
        let mut client = Client::new(&url)?.with_timeout(Duration::from_secs(10));
        Ok(match client.get("/-/drained").await {
            Ok((200, _)) => None,
            Ok((_, body)) => Some(String::from_utf8_lossy(&body).into_owned()),
            Err(error) => Some(error.to_string()),
        })
    }

    /// Waits until a receiver may go; how long that took.
    pub async fn drained(&self, at: usize) -> Result<Duration> {
        let begun = Instant::now();
        while let Some(why) = self.stays_for(at).await? {
            if begun.elapsed() > PATIENCE {
                bail!("receiver {at} is not drained within {PATIENCE:?}: {why}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    /// `tributary ring`, at any of the voters; given up after some seconds.
    pub async fn ring_at_once(&self, args: &[&str]) -> Result<String> {
        tokio::time::timeout(Duration::from_secs(20), self.ring(args)).await?
    }

    /// `tributary ring`, at any of the voters.
    pub async fn ring(&self, args: &[&str]) -> Result<String> {
        let (name, rest) = args.split_first().context("no command")?;
        let mut command = Command::new(&self.binary);
        command.args(["ring", name, &self.voters_flag()]).args(rest);
        let out = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if !out.status.success() {
            bail!("ring {args:?} fails: {text}{}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(text)
    }

    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for server in self.servers.iter().flatten() {
            sum += server.usage().unwrap_or_default();
        }
        sum
    }

    pub fn stop(self) -> Result<()> {
        // Who asks goes before who is asked.
        for server in self.others.into_iter().rev().chain(self.servers.into_iter().flatten()) {
            server.stop(Duration::from_secs(60))?;
        }
        Ok(())
    }
}

fn send_signal(server: &Server, signal: &str) -> Result<()> {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(server.pid().to_string()).status()?;
    if !sent.success() {
        bail!("{signal} cannot be sent to {}", server.name);
    }
    Ok(())
}

async fn metrics(ports: Ports) -> Option<String> {
    let mut client = Client::new(&ports.url()).ok()?.with_timeout(Duration::from_secs(5));
    let (_, page) = client.get("/metrics").await.ok()?;
    Some(String::from_utf8_lossy(&page).into_owned())
}

async fn sum(ports: Ports, name: &str) -> Option<f64> {
    let page = metrics(ports).await?;
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|rest| rest.starts_with('{') || rest.starts_with(' '));
    Some(lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn gauge(ports: Ports, name: &str) -> Option<f64> {
    let page = metrics(ports).await?;
    let line = page.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}
