//! A program that is scraped: a counter and a native histogram with exemplars, a gauge, a float histogram, and what is said of
//! them, as Prometheus's protobuf exposition has it; all grow with each scrape.
//!
//! Source: `io/prometheus/client/metrics.proto` of client_model, by field numbers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{SystemTime, UNIX_EPOCH};

/// Serves until it is dropped.
pub struct Exporter {
    pub port: u16,
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exporter {
    pub fn start() -> Exporter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, scrapes) = (Arc::clone(&stopped), AtomicU64::new(0));
        let serve = move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap_or(0);
                let takes_protobuf =
                    String::from_utf8_lossy(&request[..read]).contains("vnd.google.protobuf");
                let n = scrapes.fetch_add(1, SeqCst) + 1;
                let (kind, body) = match takes_protobuf {
                    true => (
                        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                        families(n),
                    ),
                    false => ("text/plain; version=0.0.4", text(n).into_bytes()),
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // Whoever left does not wait for it.
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        };
        Exporter { port, stopped, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        // Wakes the thread.
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// For those who take no histograms.
fn text(n: u64) -> String {
    format!(
        "# HELP app_requests_total Requests.\n# TYPE app_requests_total counter\napp_requests_total{{path=\"/a\"}} {n}\n\
         # HELP app_depth Waiting.\n# TYPE app_depth gauge\napp_depth {}\n",
        depth(n)
    )
}

fn depth(n: u64) -> f64 {
    -0.5 * n as f64
}

fn families(n: u64) -> Vec<u8> {
    let label =
        |name: &str, value: &str| bytes(1, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat());
    let exemplar = |value: f64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
        let time = [varint(1, now.as_secs()), varint(2, u64::from(now.subsec_nanos()))].concat();
        [label("trace_id", &format!("t{n}")), double(2, value), bytes(3, &time)].concat()
    };
    let counter = bytes(3, &[double(1, n as f64), bytes(2, &exemplar(n as f64))].concat());
    let gauge = bytes(2, &double(1, depth(n)));
    // Buckets 0, 1 and 3 on one side and 0 on the other, of schema 1, and zeroes.
    let span = |field: u32, offset: i64, length: u64| {
        bytes(field, &[varint(1, zigzag(offset)), varint(2, length)].concat())
    };
    let deltas: Vec<u8> =
        [2 * n as i64, n as i64, -(n as i64)].iter().flat_map(|d| varint(13, zigzag(*d))).collect();
    let whole = [
        varint(1, 10 * n),
        double(2, 7.5 * n as f64),
        varint(5, zigzag(1)),
        double(6, 0.001),
        varint(7, n),
        span(9, 0, 1),
        varint(10, zigzag(2 * n as i64)),
        span(12, 0, 2),
        span(12, 1, 1),
        deltas,
        // A classic bucket, for its exemplar.
        bytes(3, &[varint(1, 8 * n), double(2, 2.0), bytes(3, &exemplar(1.5))].concat()),
    ]
    .concat();
    let float = [
        double(4, 1.5 * n as f64),
        double(2, n as f64),
        varint(5, zigzag(0)),
        double(6, 0.5),
        double(8, 0.5 * n as f64),
        span(12, 2, 1),
        double(14, n as f64),
    ]
    .concat();
    let path = label("path", "/a");
    [
        family("app_requests_total", "Requests.", 0, &[path.clone(), counter].concat()),
        family("app_depth", "Waiting.", 1, &gauge),
        family("app_sizes", "Sizes.", 4, &[path, bytes(7, &whole)].concat()),
        family("app_shares", "Shares.", 5, &bytes(7, &float)),
    ]
    .concat()
}

/// One metric of one series, with its length before it.
fn family(name: &str, help: &str, kind: u64, metric: &[u8]) -> Vec<u8> {
    let message =
        [bytes(1, name.as_bytes()), bytes(2, help.as_bytes()), varint(3, kind), bytes(4, metric)].concat();
    [number(message.len() as u64), message].concat()
}

fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value, &mut out);
    out
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn varint(field: u32, value: u64) -> Vec<u8> {
    [number(u64::from(field) << 3), number(value)].concat()
}

fn double(field: u32, value: f64) -> Vec<u8> {
    [&number(u64::from(field) << 3 | 1)[..], &value.to_le_bytes()].concat()
}

fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
    [&number(u64::from(field) << 3 | 2)[..], &number(content.len() as u64), content].concat()
}
