//! Everything that Prometheus 3 stores goes through the shipped program: floats, histograms of all kinds, stale markers
//! and series of several kinds, written by both remote-write protocols in order and out of it, cut into blocks, which a
//! real Prometheus opens; every sample is compared.

mod natives;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use acceptance::{Program, Running, binary, free_port, post};
use chunk::histogram::At;
use model::histogram::{FloatHistogram, Histogram};
use model::{Native, stale_nan};
use natives::*;
use prost::Message;
use wire::pb::io::prometheus::write::v2;
use wire::pb::prometheus as pb;

/// One sample as it was sent.
#[derive(Clone, Debug)]
enum Any {
    Float(f64),
    Native(Native),
}

/// Times and samples by metric.
type Sent = BTreeMap<String, BTreeMap<i64, Any>>;

fn is_same(a: &Any, b: &Any) -> bool {
    match (a, b) {
        (Any::Float(a), Any::Float(b)) => a.to_bits() == b.to_bits(),
        (Any::Native(a), Any::Native(b)) => a.is_same(b),
        // What ends a series is one thing, whatever kind it is sent as.
        (Any::Float(v), Any::Native(h)) | (Any::Native(h), Any::Float(v)) => {
            model::is_stale(*v) && h.is_stale()
        }
    }
}

fn whole(list: &[At<Histogram>]) -> BTreeMap<i64, Any> {
    list.iter().map(|s| (s.timestamp, Any::Native(Native::Whole(s.histogram.clone())))).collect()
}

fn float(list: &[At<FloatHistogram>]) -> BTreeMap<i64, Any> {
    list.iter().map(|s| (s.timestamp, Any::Native(Native::Float(s.histogram.clone())))).collect()
}

/// Every kind, each in a series of its own, and series of several kinds.
fn everything(begin: i64, samples: usize) -> Sent {
    let mut sent = Sent::new();
    let floats = |from: usize, to: usize| -> BTreeMap<i64, Any> {
        let value = |n: usize| if n % 57 == 56 { stale_nan() } else { (n as f64).sqrt() };
        (from..to).map(|n| (begin + n as i64 * STEP + 3, Any::Float(value(n)))).collect()
    };
    let lives = lives(begin, samples);
    for (metric, list) in &lives {
        sent.insert(metric.clone(), whole(list));
        sent.insert(format!("{metric}_float"), float(&floated(list)));
    }
    sent.insert("floats".to_owned(), floats(0, samples));
    // Three kinds after one another, and back; a float marker ends the histograms.
    let (list, third) = (&lives[0].1, samples / 4);
    let mut mixed = floats(0, third);
    mixed.append(&mut whole(&list[third..2 * third]));
    mixed.insert(list[2 * third].timestamp, Any::Float(stale_nan()));
    mixed.append(&mut float(&floated(&list[2 * third + 1..3 * third])));
    mixed.append(&mut floats(3 * third, samples));
    sent.insert("mixed.kinds é".to_owned(), mixed);
    sent
}

/// Sends samples of all metrics, of each those that pass `which` by their number, a few at a time.
fn send(url: &str, sent: &Sent, suffix: &str, version: u8, which: impl Fn(usize) -> bool) {
    let longest = sent.values().map(BTreeMap::len).max().unwrap_or(0);
    for from in (0..longest).step_by(50) {
        let mut one = pb::WriteRequest::default();
        let mut two =
            v2::Request { symbols: vec![String::new(), "__name__".to_owned()], ..Default::default() };
        for (metric, samples) in sent {
            let few = samples.iter().enumerate().skip(from).take(50).filter(|(n, _)| which(*n));
            let mut series = pb::TimeSeries::default();
            for (_, (&timestamp, sample)) in few {
                match sample {
                    Any::Float(value) => series.samples.push(pb::Sample { value: *value, timestamp }),
                    Any::Native(Native::Whole(histogram)) => {
                        series.histograms.push(to_pb_whole(&At { timestamp, histogram: histogram.clone() }))
                    }
                    Any::Native(Native::Float(histogram)) => {
                        series.histograms.push(to_pb_float(&At { timestamp, histogram: histogram.clone() }))
                    }
                }
            }
            let name = format!("{metric}{suffix}");
            two.symbols.push(name.clone());
            let float =
                |s: &pb::Sample| v2::Sample { value: s.value, timestamp: s.timestamp, start_timestamp: 0 };
            // The messages are alike on the wire.
            let same =
                |h: &pb::Histogram| v2::Histogram::decode(&h.encode_to_vec()[..]).expect("a histogram");
            two.timeseries.push(v2::TimeSeries {
                labels_refs: vec![1, two.symbols.len() as u32 - 1],
                samples: series.samples.iter().map(float).collect(),
                histograms: series.histograms.iter().map(same).collect(),
                ..Default::default()
            });
            series.labels = vec![pb::Label { name: "__name__".to_owned(), value: name }];
            one.timeseries.push(series);
        }
        let (kind, plain) = match version {
            1 => ("application/x-protobuf", one.encode_to_vec()),
            _ => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", two.encode_to_vec()),
        };
        let body = snap::raw::Encoder::new().compress_vec(&plain).expect("compresses");
        let headers = [("content-encoding", "snappy"), ("content-type", kind)];
        let answer = post(&format!("{url}/api/v1/write"), &headers, &body).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

fn standalone(dir: &Path) -> (Running, String) {
    let port = free_port();
    let program = Program {
        name: "standalone".to_owned(),
        path: binary(),
        args: vec![
            "standalone".to_owned(),
            format!("--data-dir={}", dir.join("data").display()),
            format!("--http-address=127.0.0.1:{port}"),
            format!("--grpc-address=127.0.0.1:{}", free_port()),
            "--tsdb.out-of-order.time-window=12h".to_owned(),
        ],
        log: dir.join("standalone.log"),
    };
    let mut running = program.start();
    let url = format!("http://127.0.0.1:{port}");
    running.wait_ready(&format!("{url}/-/ready"));
    (running, url)
}

/// Folders of local blocks.
fn blocks(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.join("meta.json").exists() && entry.join("index").exists() {
            found.push(entry);
        } else if entry.is_dir() && !entry.ends_with("bucket") {
            found.extend(blocks(&entry));
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|e| e.expect("an entry")) {
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &there);
        } else {
            std::fs::copy(entry.path(), there).expect("a copy");
        }
    }
}

/// What a Prometheus says is there. A remote read tells everything but custom bounds.
fn told(peer: &Peer, metric: &str) -> BTreeMap<i64, Any> {
    let mut out = BTreeMap::new();
    for series in peer.read(metric) {
        for sample in series.samples {
            assert!(out.insert(sample.timestamp, Any::Float(sample.value)).is_none(), "{metric}");
        }
        for histogram in &series.histograms {
            let (t, native) = match histogram.count {
                Some(pb::histogram::Count::CountInt(_)) => {
                    let At { timestamp, histogram } = from_pb_whole(histogram);
                    (timestamp, Native::Whole(histogram))
                }
                _ => {
                    let At { timestamp, histogram } = from_pb_float(histogram);
                    (timestamp, Native::Float(histogram))
                }
            };
            assert!(out.insert(t, Any::Native(native)).is_none(), "{metric}");
        }
    }
    out
}

fn without_bounds(sample: &Any) -> Any {
    let mut sample = sample.clone();
    match &mut sample {
        Any::Native(Native::Whole(h)) => h.custom_values = [].into(),
        Any::Native(Native::Float(h)) => h.custom_values = [].into(),
        Any::Float(_) => {}
    }
    sample
}

#[test]
fn a_prometheus_reads_every_sample_of_every_kind_from_our_blocks() {
    let dir = tempfile::tempdir().expect("a folder");
    let (running, url) = standalone(dir.path());
    let sent = everything(begin(), 470);
    let ways = [("_one", 1), ("_two", 2), ("_late_one", 1), ("_late_two", 2)];
    for (suffix, version) in ways {
        if suffix.contains("late") {
            // Out of order: every third one first, then the others, then some again.
            send(&url, &sent, suffix, version, |n| n % 3 == 0);
            send(&url, &sent, suffix, version, |n| n % 3 != 0);
            send(&url, &sent, suffix, version, |n| n % 7 == 0);
        } else {
            send(&url, &sent, suffix, version, |_| true);
        }
    }
    let answer = post(&format!("{url}/-/cut"), &[], b"").expect("an answer");
    assert_eq!(answer.status / 100, 2, "{}", answer.text());
    running.stop();
    let ours = dir.path().join("ours");
    let blocks = blocks(&dir.path().join("data"));
    assert!(!blocks.is_empty());
    for block in &blocks {
        copy(block, &ours.join(block.file_name().expect("a name")));
        let opened = block::Block::open(&runtime::World::real(), block).expect("a block");
        opened.verify().expect("a block without a fault");
    }
    let Some(peer) = start(dir.path(), "ours") else { return };
    let mut compared = 0;
    for (suffix, _) in ways {
        for (metric, sent) in &sent {
            let metric = format!("{metric}{suffix}");
            let there = told(&peer, &metric);
            let missing = sent.keys().find(|t| !there.contains_key(t));
            assert_eq!((there.len(), missing), (sent.len(), None), "{metric}");
            for (t, sent) in sent {
                assert!(
                    is_same(&there[t], &without_bounds(sent)),
                    "{metric} at {t}: {:?}, sent {sent:?}",
                    there[t]
                );
                compared += 1;
            }
        }
    }
    println!("{compared} samples of our blocks, read by a Prometheus, are bit-equal");
    peer.running.stop();
    let promtool =
        std::env::var_os("PROMETHEUS_BIN").map(|bin| PathBuf::from(bin).with_file_name("promtool"));
    let Some(promtool) = promtool.filter(|p| p.exists()).or_else(|| acceptance::find_program("promtool"))
    else {
        return;
    };
    for block in &blocks {
        let id = block.file_name().expect("a name");
        let out = Command::new(&promtool).args(["tsdb", "analyze"]).arg(&ours).arg(id).output();
        let out = out.expect("a promtool that runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        println!("{}", String::from_utf8_lossy(&out.stdout).lines().take(12).collect::<Vec<_>>().join("\n"));
    }
}
