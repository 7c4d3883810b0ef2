//! One node from outside: what was written is read from the head, from local blocks and from the bucket alike.

// From outside, files and the clock are the real ones.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::Sample;

/// A started role; killed when dropped.
struct Node {
    child: Child,
    /// host:port of its HTTP listener, as its log names it.
    address: String,
    /// host:port of its gRPC listener.
    grpc: String,
}

impl Node {
    fn start(data: &Path) -> Node {
        let node = Node::of("standalone", &[format!("--data-dir={}", data.display())]);
        node.wait_ready();
        node
    }

    fn of(role: &str, args: &[String]) -> Node {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args([role, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"])
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start: {e}"));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (mut seen, mut address, mut grpc) = (String::new(), None, None);
        while address.is_none() || grpc.is_none() {
            let Some(Ok(line)) = lines.next() else { panic!("it ended before it listened:\n{seen}") };
            if let Some((_, at)) = line.split_once(" address=").filter(|_| line.contains("listening")) {
                let at = Some(at.trim().to_owned());
                if line.contains("grpc") { grpc = at } else { address = at }
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        // Whoever writes to a full pipe stops.
        std::thread::spawn(move || lines.for_each(drop));
        Node { child, address: address.unwrap_or_default(), grpc: grpc.unwrap_or_default() }
    }

    fn wait_ready(&self) {
        let begin = Instant::now();
        while self.ask("GET", "/-/ready", b"").0 != 200 {
            assert!(begin.elapsed() < Duration::from_secs(60), "{} does not become ready", self.address);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.ask_as("default-tenant", method, path, body)
    }

    fn ask_as(&self, tenant: &str, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap_or_else(|e| panic!("connect: {e}"));
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap_or_else(|e| panic!("timeout: {e}"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\
             content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\nthanos-tenant: {tenant}\r\n\r\n",
            self.address,
            body.len()
        );
        let mut answer = Vec::new();
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .and_then(|()| stream.read_to_end(&mut answer))
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    fn write(&self, samples: &[Sample]) {
        let mut request = Vec::new();
        let series = ["a", "b"].map(|job| ([("__name__", "up"), ("job", job)], samples.iter().copied()));
        wire::remote_write::encode_v1(series, &mut request);
        let body = wire::remote_write::compress(&request).unwrap_or_else(|e| panic!("compress: {e}"));
        let (status, text) = self.ask("POST", "/api/v1/write", &body);
        assert_eq!(status, 204, "{text}");
    }

    fn query(&self, query: &str, at: i64) -> String {
        let path = format!("/api/v1/query?query={query}&time={}", at as f64 / 1000.0);
        let (status, text) = self.ask("GET", &path, b"");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// SIGTERM, and the end it leads to.
    fn stop(mut self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(sent.is_ok_and(|s| s.success()));
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break assert!(status.success(), "{status}"),
                _ => assert!(begin.elapsed() < Duration::from_secs(20), "it does not stop"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap_or_else(|e| panic!("kill: {e}"));
        self.child.wait().unwrap_or_else(|e| panic!("wait: {e}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended already in the ordinary case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tributary-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The one folder in `parent` whose name is a block's.
fn block_in(parent: &Path) -> PathBuf {
    let entries = std::fs::read_dir(parent).unwrap_or_else(|e| panic!("list {}: {e}", parent.display()));
    let mut blocks = entries.flatten().map(|e| e.path()).filter(|p| p.join("meta.json").exists());
    blocks.next().unwrap_or_else(|| panic!("no block in {}", parent.display()))
}

#[test]
fn head_block_and_bucket_answer_alike() {
    let folder = Folder::new("standalone");
    let now = now_ms();
    let samples: Vec<Sample> =
        (0..60).map(|n| Sample { timestamp: now - 60_000 + n * 1000, value: n as f64 }).collect();
    let sum = "sum_over_time(up[5m])";
    let names = "/api/v1/label/job/values";

    // From the head, and after a crash.
    let node = Node::start(&folder.0);
    node.write(&samples);
    let (answer, listed) = (node.query(sum, now), node.ask("GET", names, b"").1);
    assert_eq!(answer.matches("\"1770\"").count(), 2, "{answer}");
    assert!(!answer.contains("tenant_id") && !answer.contains("tributary_replica"), "{answer}");
    node.kill();
    let node = Node::start(&folder.0);
    assert_eq!(node.query(sum, now), answer);

    // From a local block, with the head beside it.
    let (status, text) = node.ask("POST", "/-/cut", b"");
    assert_eq!(status, 200, "{text}");
    assert_eq!(node.query(sum, now), answer);
    node.write(&samples);
    assert_eq!(node.query(sum, now), answer, "the same samples again are no second ones");
    node.stop();

    // From the bucket alone, as after the retention.
    let block = block_in(&folder.0.join("blocks/default-tenant"));
    assert!(folder.0.join("bucket").join(block.file_name().expect("a name")).join("meta.json").exists());
    for gone in ["blocks", "wal", "tributary-tsdb.json"] {
        let path = folder.0.join(gone);
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
    }
    let node = Node::start(&folder.0);
    assert_eq!(node.query(sum, now), answer);
    assert_eq!(node.ask("GET", names, b"").1, listed);

    // Over the StoreAPI: the bucket's block, then the same samples in the head beside it. The tenant shows, as
    // in a cluster; the node's own replica label does not.
    let querier = Node::of("query", &[format!("--endpoint={}", node.grpc)]);
    querier.wait_ready();
    let over_grpc = answer.replace("\"job\":\"a\"", "\"job\":\"a\",\"tenant_id\":\"default-tenant\"");
    let over_grpc = over_grpc.replace("\"job\":\"b\"", "\"job\":\"b\",\"tenant_id\":\"default-tenant\"");
    assert_eq!(querier.query(sum, now), over_grpc);
    node.write(&samples);
    assert_eq!(node.query(sum, now), answer);
    assert_eq!(querier.query(sum, now), over_grpc);
    querier.stop();
    node.stop();
}

#[test]
fn other_tenants_see_nothing() {
    let folder = Folder::new("tenants");
    let node = Node::start(&folder.0);
    let now = now_ms();
    node.write(&[Sample { timestamp: now, value: 1.0 }]);
    let seen = |tenant: &str| {
        let mut stream = TcpStream::connect(&node.address).unwrap_or_else(|e| panic!("connect: {e}"));
        let head = format!(
            "GET /api/v1/query?query=up HTTP/1.1\r\nhost: x\r\nconnection: close\r\nTHANOS-TENANT: {tenant}\r\n\r\n"
        );
        let mut answer = String::new();
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.read_to_string(&mut answer))
            .unwrap_or_else(|e| panic!("query: {e}"));
        answer
    };
    let (status, text) = node.ask("GET", "/api/v1/status/tsdb", b"");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("{\"name\":\"up\",\"value\":2}"), "{text}");
    assert!(seen("default-tenant").contains("\"job\":\"a\""));
    assert!(seen("other").contains("\"result\":[]"));
    assert!(seen("../x").starts_with("HTTP/1.1 400"));
    node.stop();
}

/// Memory of a process that the system cannot take back, in bytes.
fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[test]
fn ten_thousand_tenants_with_one_series_each_take_little_memory_t14() {
    const TENANTS: usize = 10_000;
    let dir = Folder::new("tenants");
    let node = Node::start(&dir.0.join("data"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let mut request = Vec::new();
    let sample = Sample { timestamp: now, value: 1.0 };
    wire::remote_write::encode_v1([([("__name__", "up"), ("job", "a")], [sample])], &mut request);
    let body = wire::remote_write::compress(&request).unwrap_or_else(|e| panic!("compress: {e}"));
    let send = |from: usize, step: usize| {
        for n in (from..TENANTS).step_by(step) {
            let (status, text) = node.ask_as(&format!("tenant-{n:05}"), "POST", "/api/v1/write", &body);
            assert_eq!(status, 204, "{text}");
        }
    };
    // What the first few hundred requests make of threads and buffers is not the tenants'.
    send(0, 20);
    let before = anonymous(node.child.id());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let send = &send;
            scope.spawn(move || send(thread, 16));
        }
    });
    let after = anonymous(node.child.id());
    let each = after.saturating_sub(before) / (TENANTS as u64 * 19 / 20);
    println!("{TENANTS} tenants: {} MiB in all, {each} bytes for each", after >> 20);
    assert!(after < 200 << 20, "{after} bytes for {TENANTS} tenants");
    let (status, text) = node.ask_as("tenant-07777", "GET", "/api/v1/query?query=up", b"");
    assert!(status == 200 && text.contains("\"job\":\"a\""), "{text}");
    node.stop();
}
