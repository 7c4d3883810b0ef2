//! A real Thanos on the other side, where `THANOS_BIN` names one: its router writes to our receivers, ours to its, and
//! everything is read back once.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, Said, When, ask, binary, free_port, post, wait_until};

const SERIES: usize = 300;
const STEPS: i64 = 10;

fn thanos() -> Option<PathBuf> {
    let path = std::env::var_os("THANOS_BIN").map(PathBuf::from).filter(|path| path.exists());
    if path.is_none() {
        eprintln!("SKIPPED: THANOS_BIN names no thanos; the two are not tried together here");
    }
    path
}

fn start(name: &str, path: &Path, args: Vec<String>, dir: &Path, http: u16) -> Running {
    let log = dir.join(format!("{name}.log"));
    let mut running = Program { name: name.to_owned(), path: path.to_owned(), args, log }.start();
    running.wait_ready(&format!("http://127.0.0.1:{http}/-/ready"));
    running
}

/// Three ingestors of `ingestor`, a router of `router` before them and a querier of ours over them.
fn together(router: &Path, ingestor: &Path) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    let mut running = Vec::new();
    let mut endpoints = Vec::new();
    for at in 0..3 {
        let [grpc, http, write] = [(); 3].map(|()| free_port());
        let mut args = vec![
            "receive".to_owned(),
            format!("--tsdb.path={}", dir.join(format!("ingestor-{at}")).display()),
            format!("--grpc-address=127.0.0.1:{grpc}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--remote-write.address=127.0.0.1:{write}"),
            format!("--label=replica=\"{at}\""),
        ];
        if ingestor == binary() {
            // How many copies the router keeps.
            args.push("--receive.replication-factor=3".to_owned());
        }
        running.push(start(&format!("ingestor-{at}"), ingestor, args, dir, http));
        endpoints.push(format!("127.0.0.1:{grpc}"));
    }
    let ring = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]);
    std::fs::write(dir.join("hashrings.json"), ring.to_string()).expect("write the ring");
    let [grpc, http, write] = [(); 3].map(|()| free_port());
    let args = vec![
        "receive".to_owned(),
        format!("--tsdb.path={}", dir.join("router").display()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--remote-write.address=127.0.0.1:{write}"),
        "--label=replica=\"router\"".to_owned(),
        "--receive.replication-factor=3".to_owned(),
        "--receive.hashrings-algorithm=ketama".to_owned(),
        format!("--receive.hashrings-file={}", dir.join("hashrings.json").display()),
    ];
    running.push(start("router", router, args, dir, http));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let begin = (now.as_secs() as i64 - 120) * 1000;
    let names: Vec<String> = (0..SERIES).map(|n| n.to_string()).collect();
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    for step in 0..STEPS {
        let sample =
            |n: usize| model::Sample { timestamp: begin + step * 5000, value: (n as f64) + step as f64 };
        let series = names
            .iter()
            .enumerate()
            .map(|(n, name)| ([("__name__", "crossed"), ("n", name.as_str())], [sample(n)]));
        let mut plain = Vec::new();
        wire::remote_write::encode_v1(series, &mut plain);
        let body = wire::remote_write::compress(&plain).expect("compress");
        let url = format!("http://127.0.0.1:{write}/api/v1/receive");
        wait_until("the write to be taken", || {
            let answer = post(&url, &headers, &body).ok()?;
            (answer.status / 100 == 2).then_some(())
        });
    }

    let [grpc, http] = [(); 2].map(|()| free_port());
    let mut args = vec![
        "query".to_owned(),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
        "--query.replica-label=replica".to_owned(),
    ];
    args.extend(endpoints.iter().map(|endpoint| format!("--endpoint={endpoint}")));
    running.push(start("query", &binary(), args, dir, http));
    let base = format!("http://127.0.0.1:{http}");
    let last = When::At(begin + (STEPS - 1) * 5000);
    let seconds = 5 * STEPS;
    let steps: f64 = (0..STEPS).sum::<i64>() as f64;
    let all: f64 = (0..SERIES).sum::<usize>() as f64;
    let wanted = [
        ("count(crossed)".to_owned(), SERIES as f64),
        (format!("sum(count_over_time(crossed[{seconds}s]))"), (SERIES as i64 * STEPS) as f64),
        (format!("sum(sum_over_time(crossed[{seconds}s]))"), all * STEPS as f64 + steps * SERIES as f64),
    ];
    for (query, want) in wanted {
        // Copies beyond the quorum may still be on their way.
        wait_until(&format!("{query} to be {want}"), || match ask(&base, &query, last, &[]) {
            Said::Series(series) => {
                let value = series.values().next().and_then(|points| points.first()).map(|point| point.1);
                (value == Some(want)).then_some(())
            }
            Said::Failed(_) => None,
        });
    }
    drop(running);
}

#[test]
fn a_thanos_router_writes_to_our_receivers() {
    if let Some(thanos) = thanos() {
        together(&thanos, &binary());
    }
}

#[test]
fn our_router_writes_to_thanos_receivers() {
    if let Some(thanos) = thanos() {
        together(&binary(), &thanos);
    }
}

/// The story itself, with nobody else in it, so that it is known to hold where there is no Thanos.
#[test]
fn our_router_writes_to_our_receivers() {
    together(&binary(), &binary());
}
