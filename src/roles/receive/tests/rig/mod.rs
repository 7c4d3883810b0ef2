//! Receivers in this process, over loopback, and a sender that speaks to them.

#![allow(dead_code)]

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Kind, Labels, Matcher, Sample, TenantId, TimeRange};
use receive::{Bound, Error, Receive, Settings};
use runtime::{Shutdown, World};
use settings::{LabelPair, Listen};
use storage::{Columns, Context, Select, SelectRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A receiver that runs.
pub struct Node {
    pub receive: Arc<Receive>,
    pub write: SocketAddr,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), Error>>,
}

impl Node {
    pub async fn start(settings: Settings) -> Node {
        for _ in 0..100 {
            match Bound::bind(settings.clone(), World::real()).await {
                Ok(bound) => return Node::run(bound).await,
                // The last tasks of the one before, in this process, may still hold what was its own.
                Err(error) if error.kind == Kind::Refused && error.message.contains("is in use") => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the node before never ends");
    }

    /// Starts these, one after the other.
    pub async fn start_all<S: Borrow<Settings>>(settings: impl IntoIterator<Item = S>) -> Vec<Node> {
        let mut nodes = Vec::new();
        for settings in settings {
            nodes.push(Node::start(settings.borrow().clone()).await);
        }
        nodes
    }

    /// Stops these, one after the other.
    pub async fn stop_all(nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            node.stop().await.unwrap();
        }
    }

    /// As [`Node::start`], with a ring that is agreed on.
    pub async fn governed(settings: Settings, handle: &control::Handle) -> Node {
        let bound = Bound::bind(settings, World::real()).await.unwrap();
        bound.receive().govern(handle.clone());
        Node::run(bound).await
    }

    /// Runs what has taken its ports already.
    pub async fn run(bound: Bound) -> Node {
        let (receive, write, http) =
            (Arc::clone(bound.receive()), bound.write_address(), bound.http_address());
        let grpc = bound.grpc_address();
        let shutdown = Shutdown::new();
        let running = tokio::spawn(bound.run(Arc::new(String::new), shutdown.clone()));
        let node = Node { receive, write, http, grpc, shutdown, running };
        node.until_ready().await;
        node
    }

    async fn until_ready(&self) {
        for _ in 0..1000 {
            if self.receive.readiness().is_ready() || self.running.is_finished() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready: {:?}", self.receive.readiness().check());
    }

    pub async fn stop(self) -> Result<(), Error> {
        self.shutdown.trigger();
        self.ended().await
    }

    /// How the node ended by itself.
    pub async fn ended(self) -> Result<(), Error> {
        self.running.await.unwrap()
    }

    pub async fn post(&self, series: &[Sent]) -> Answer {
        self.post_with("/api/v1/receive", &[], body(series)).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        request(self.write, "POST", path, headers, body).await
    }

    /// All samples of a series on this node.
    pub fn samples(&self, tenant: &str, series: &str) -> Vec<(i64, f64)> {
        let engine = self.receive.tsdb().unwrap();
        let Some(view) = engine.tenant(&TenantId::new(tenant).unwrap()) else { return Vec::new() };
        let request = SelectRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", series)]);
        let mut set = view.select(&request, &Context::background()).unwrap();
        let mut columns = Columns::default();
        while let Some(entry) = set.next().unwrap() {
            storage::decode_series(&entry.chunks, TimeRange::ALL, &mut columns).unwrap();
        }
        columns.timestamps.into_iter().zip(columns.values).collect()
    }
}

/// A series to send.
pub type Sent = (Vec<(String, String)>, Vec<Sample>);

/// `name{}` with samples of (time, value).
pub fn series(name: &str, samples: &[(i64, f64)]) -> Sent {
    let samples = samples.iter().map(|&(timestamp, value)| Sample { timestamp, value }).collect();
    (vec![("__name__".to_owned(), name.to_owned())], samples)
}

pub fn body(series: &[Sent]) -> Vec<u8> {
    let mut plain = Vec::new();
    let pairs = series.iter().map(|(labels, samples)| {
        (labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), samples.iter().copied())
    });
    wire::remote_write::encode_v1(pairs, &mut plain);
    wire::remote_write::compress(&plain).unwrap()
}

pub fn now() -> i64 {
    World::real().clock.now_ms()
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    let framed =
        |name: &str| ["content-length", "transfer-encoding"].iter().any(|f| name.eq_ignore_ascii_case(f));
    if !headers.iter().any(|(name, _)| framed(name)) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // A server that refuses by the head need not read the body.
    let _ = stream.write_all(&body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Settings of a node without a ring.
pub fn single(dir: &Path) -> Settings {
    let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
    settings.storage.segment_bytes = settings::ByteSize::from_mib(4);
    settings.common.http_address = Listen::loopback(0);
    settings.remote_write_address = Listen::loopback(0);
    settings.grpc.grpc_address = Listen::loopback(0);
    settings
}

/// Ports that were free a moment ago.
pub fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| testkit::free_port()).collect()
}

/// Settings of `count` receivers of one ring.
pub fn cluster(dir: &Path, count: usize, copies: u32) -> Vec<Settings> {
    let ports = free_ports(count);
    let endpoints: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let ring = format!("[{{\"hashring\": \"test\", \"endpoints\": [{}]}}]", endpoints.join(", "));
    let node = |(at, port): (usize, &u16)| {
        let mut settings = single(&dir.join(format!("node-{at}")));
        settings.grpc.grpc_address = Listen::loopback(*port);
        settings.labels = vec![LabelPair::new("replica", format!("r{at}"))];
        settings.replication.hashrings = Some(ring.clone());
        settings.replication.local_endpoint = Some(format!("127.0.0.1:{port}"));
        settings.replication.replication_factor = copies;
        settings
    };
    ports.iter().enumerate().map(node).collect()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub fn is_invalid(error: &Error) -> bool {
    error.kind == Kind::Invalid || error.kind == Kind::Internal
}

/// `count` series, `m0` on, with a sample each.
pub fn many(t: i64, count: usize) -> Vec<Sent> {
    (0..count).map(|n| series(&format!("m{n}"), &[(t, n as f64)])).collect()
}

/// Whether `what` holds within twenty seconds.
pub async fn eventually(what: impl FnMut() -> bool) -> bool {
    eventually_within(400, what).await
}

/// Whether `what` holds at one of so many looks, fifty milliseconds apart.
pub async fn eventually_within(looks: u32, mut what: impl FnMut() -> bool) -> bool {
    for _ in 0..looks {
        if what() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Times of the samples that a node has of a metric, counted from `from`.
pub fn times(node: &Node, name: &str, from: i64) -> Vec<i64> {
    node.samples("default-tenant", name).iter().map(|sample| sample.0 - from).collect()
}
