//! A node that was killed starts again within the memory that it took before: a limit that was enough for the load is
//! enough for the start after it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, binary, free_port, get, percent, post};

const SERIES: usize = 40_000;
const SCRAPES: i64 = 15;
const BATCH: usize = 2_000;

/// A line of a process's status, in bytes.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of its status");
    let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    number.parse::<u64>().expect("a number") * 1024
}

/// A group of processes that may take so much memory together, removed when dropped.
struct Limit(PathBuf);

impl Limit {
    /// None where this process may not make one.
    fn new(bytes: u64) -> Option<Limit> {
        let name = format!("replay-memory-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let path = Path::new(root).join(&name);
            if !Path::new(root).exists() || std::fs::create_dir(&path).is_err() {
                continue;
            }
            let limit = Limit(path);
            if limit.0.join(file).exists() && std::fs::write(limit.0.join(file), bytes.to_string()).is_ok() {
                return Some(limit);
            }
        }
        eprintln!("SKIPPED in part: no memory limit can be set here; the peak is judged instead");
        None
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Its process may be on its way out.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

struct Node {
    running: Running,
    url: String,
}

fn start(dir: &Path, limit: Option<&Limit>) -> Node {
    let [http, grpc] = [(); 2].map(|()| free_port());
    let args = vec![
        "standalone".to_owned(),
        format!("--data-dir={}", dir.join("data").display()),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--grpc-address=127.0.0.1:{grpc}"),
    ];
    let (path, args) = match limit {
        None => (binary(), args),
        // The shell joins the group and becomes the node.
        Some(limit) => {
            let join = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", limit.0.display());
            let own = binary().display().to_string();
            (PathBuf::from("/bin/sh"), [vec!["-c".to_owned(), join, own], args].concat())
        }
    };
    let mut running = Program { name: "standalone".to_owned(), path, args, log: dir.join("log") }.start();
    let url = format!("http://127.0.0.1:{http}");
    running.wait_ready(&format!("{url}/-/ready"));
    Node { running, url }
}

impl Node {
    fn scrape(&self, t: i64) {
        for first in (0..SERIES).step_by(BATCH) {
            let names: Vec<String> = (first..first + BATCH).map(|n| format!("pod-{n}")).collect();
            let sample = model::Sample { timestamp: t, value: (t / 1000) as f64 };
            let series = names.iter().map(|pod| {
                ([("__name__", "http_requests_total"), ("job", "replayed"), ("pod", pod.as_str())], [sample])
            });
            let mut plain = Vec::new();
            wire::remote_write::encode_v1(series, &mut plain);
            let body = wire::remote_write::compress(&plain).expect("a body");
            let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
            let answer = post(&format!("{}/api/v1/write", self.url), &headers, &body).expect("an answer");
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
    }

    fn count(&self) -> String {
        let query = percent("sum(count_over_time(http_requests_total[1h]))");
        let answer = get(&format!("{}/api/v1/query?query={query}", self.url)).expect("an answer");
        answer.json()["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn replay_fits_into_what_the_node_took_before_t10() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = start(dir.path(), None);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
    for i in 0..SCRAPES {
        node.scrape(now - (SCRAPES - i) * 15_000);
    }
    let steady = status(node.running.pid(), "VmRSS");
    node.running.kill();

    let node = start(dir.path(), None);
    let peak = status(node.running.pid(), "VmHWM");
    println!("{} MiB under load, at most {} MiB during the start", steady >> 20, peak >> 20);
    // Pages of the binary itself are in both, and in either some that the other has not touched.
    assert!(peak <= steady + steady / 20, "the start took {peak} bytes, the load {steady}");
    node.running.kill();

    // And with no more than that to be had.
    let limit = Limit::new(steady);
    let node = start(dir.path(), limit.as_ref());
    assert_eq!(node.count(), (SERIES as i64 * SCRAPES).to_string());
    node.scrape(now);
    drop(node);
    drop(limit);
}
