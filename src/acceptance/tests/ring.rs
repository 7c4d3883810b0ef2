//! Changes of the ring under load, with real processes: three receivers become five and three again by edits of the ring file,
//! one is killed in the middle of each change, a query every second sees all that was acknowledged, and those that left are
//! deleted as soon as they say that they may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, binary, free_port, get, percent, post, wait_until};

/// Series, and milliseconds from one sample of each to the next.
const SERIES: usize = 60;
const STEP: i64 = 250;
/// How far each query looks back, in steps.
const WINDOW: i64 = 80;

struct Ports {
    grpc: u16,
    http: u16,
    write: u16,
}

struct Ring {
    dir: PathBuf,
    receivers: Vec<Ports>,
    store: Ports,
    query: Ports,
}

impl Ring {
    fn new(dir: &Path) -> Ring {
        let ports = || Ports { grpc: free_port(), http: free_port(), write: free_port() };
        let bucket = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.join("bucket").display());
        std::fs::write(dir.join("bucket.yaml"), bucket).expect("write the bucket's settings");
        Ring {
            dir: dir.to_owned(),
            receivers: (0..5).map(|_| ports()).collect(),
            store: ports(),
            query: ports(),
        }
    }

    /// Replaces the ring file, as an editor does.
    fn edit(&self, members: usize) {
        let endpoints: Vec<String> = self.receivers[..members].iter().map(endpoint).collect();
        let text = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]).to_string();
        let (new, file) = (self.dir.join("hashrings.json.new"), self.dir.join("hashrings.json"));
        std::fs::write(&new, text).expect("write the ring");
        std::fs::rename(&new, &file).expect("put the ring in its place");
    }

    fn voters(&self) -> String {
        let voters: Vec<String> = self.receivers[..3].iter().map(endpoint).collect();
        format!("--control.voters={}", voters.join(","))
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.dir.join(format!("receive-{at}"))
    }

    fn start_receiver(&self, at: usize) -> Running {
        let ports = &self.receivers[at];
        let args = vec![
            "receive".to_owned(),
            format!("--tsdb.path={}", self.folder(at).display()),
            format!("--grpc-address=127.0.0.1:{}", ports.grpc),
            format!("--http-address=127.0.0.1:{}", ports.http),
            format!("--remote-write.address=127.0.0.1:{}", ports.write),
            format!("--label=replica=\"{at}\""),
            format!("--receive.local-endpoint={}", endpoint(ports)),
            format!("--receive.hashrings-file={}", self.dir.join("hashrings.json").display()),
            "--receive.hashrings-file-refresh-interval=1s".to_owned(),
            "--receive.replication-factor=3".to_owned(),
            format!("--objstore.config-file={}", self.dir.join("bucket.yaml").display()),
            format!("--receive.drain-store=127.0.0.1:{}", self.store.grpc),
            "--receive.drain-grace=4s".to_owned(),
            self.voters(),
        ];
        self.program(&format!("receive-{at}"), args)
    }

    fn start_store(&self) -> Running {
        let args = vec![
            "store".to_owned(),
            format!("--data-dir={}", self.dir.join("store").display()),
            format!("--grpc-address=127.0.0.1:{}", self.store.grpc),
            format!("--http-address=127.0.0.1:{}", self.store.http),
            format!("--objstore.config-file={}", self.dir.join("bucket.yaml").display()),
            "--sync-block-duration=1s".to_owned(),
        ];
        self.program("store", args)
    }

    /// It is told of nobody but the store and the control plane.
    fn start_query(&self) -> Running {
        let args = vec![
            "query".to_owned(),
            format!("--grpc-address=127.0.0.1:{}", self.query.grpc),
            format!("--http-address=127.0.0.1:{}", self.query.http),
            format!("--endpoint=127.0.0.1:{}", self.store.grpc),
            "--endpoint.info-timeout=1s".to_owned(),
            "--query.drop-label=tenant_id".to_owned(),
            self.voters(),
        ];
        self.program("query", args)
    }

    fn program(&self, name: &str, args: Vec<String>) -> Running {
        let log = self.dir.join(format!("{name}.log"));
        Program { name: name.to_owned(), path: binary(), args, log }.start()
    }

    fn wait_ready(&self, at: usize, running: &mut Running) {
        running.wait_ready(&format!("http://127.0.0.1:{}/-/ready", self.receivers[at].http));
    }

    /// A gauge of receiver `at`.
    fn gauge(&self, at: usize, name: &str) -> Option<f64> {
        let page = get(&format!("http://127.0.0.1:{}/metrics", self.receivers[at].http)).ok()?.text();
        let line =
            page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits for a ring of so many, and no change under way, as each of `nodes` sees it.
    fn wait_settled(&self, members: usize, nodes: &[usize]) {
        for at in nodes {
            wait_until(&format!("a stable ring of {members} at receiver {at}"), || {
                let stable = self.gauge(*at, "tributary_ring_in_change")? == 0.0;
                let size = self.gauge(*at, "thanos_receive_hashring_nodes{name=\"default\"}")?;
                (stable && size == members as f64).then_some(())
            });
        }
    }
}

fn endpoint(ports: &Ports) -> String {
    format!("127.0.0.1:{}", ports.grpc)
}

fn value(series: usize, step: i64) -> f64 {
    (series as f64) * 1e6 + step as f64
}

/// What was sent and acknowledged, and what went wrong.
struct Ledger {
    start: i64,
    /// Steps before this one are acknowledged.
    acked: AtomicI64,
    stop: AtomicBool,
    retries: AtomicI64,
    queries: AtomicI64,
    wrong: Mutex<Vec<String>>,
}

impl Ledger {
    fn time(&self, step: i64) -> i64 {
        self.start + step * STEP
    }

    fn fail(&self, what: String) {
        self.wrong.lock().expect("nobody has panicked with it").push(what);
    }
}

fn body(ledger: &Ledger, step: i64) -> Vec<u8> {
    let names: Vec<String> = (0..SERIES).map(|n| n.to_string()).collect();
    let pairs = names.iter().enumerate().map(|(n, name)| {
        let sample = model::Sample { timestamp: ledger.time(step), value: value(n, step) };
        (vec![("__name__", "m"), ("n", name.as_str())], std::iter::once(sample))
    });
    let mut plain = Vec::new();
    wire::remote_write::encode_v1(pairs, &mut plain);
    wire::remote_write::compress(&plain).expect("a body that is not too large")
}

/// Sends in real time, each step until somebody acknowledges it.
fn send(ledger: &Arc<Ledger>, urls: Vec<String>) -> JoinHandle<()> {
    let ledger = Arc::clone(ledger);
    let headers = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
    std::thread::spawn(move || {
        let begun = Instant::now();
        for step in 0.. {
            if ledger.stop.load(SeqCst) {
                return;
            }
            let due = Duration::from_millis((step * STEP) as u64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let (body, tried) = (body(&ledger, step), Instant::now());
            for attempt in 0.. {
                let answer = post(&urls[(step as usize + attempt) % urls.len()], &headers, &body);
                match answer {
                    Ok(answer) if answer.status == 204 => break,
                    Ok(answer) if answer.status != 503 => {
                        ledger.fail(format!(
                            "step {step} is refused for good: {} {}",
                            answer.status,
                            answer.text()
                        ));
                        break;
                    }
                    Ok(answer) if tried.elapsed() > Duration::from_secs(30) => {
                        ledger.fail(format!("step {step} is not taken: {}", answer.text()));
                        return;
                    }
                    _ => {}
                }
                ledger.retries.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(100));
            }
            ledger.acked.store(step + 1, SeqCst);
        }
    })
}

/// Whether an answer has every sample from step `from` up to `to`, once and right, and nothing else up to there.
fn check(ledger: &Ledger, base: &str, from: i64, to: i64) -> Result<(), String> {
    let range = (to - from) * STEP;
    let query = format!("m[{range}ms]");
    let time = ledger.time(to - 1) as f64 / 1000.0;
    let url = format!("{base}/api/v1/query?query={}&time={time:.3}", percent(&query));
    let answer = get(&url).map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    let json = answer.json();
    if let Some(warnings) = json["warnings"].as_array().filter(|warnings| !warnings.is_empty()) {
        return Err(format!("{warnings:?}"));
    }
    let mut found: BTreeMap<usize, Vec<(i64, f64)>> = BTreeMap::new();
    for series in json["data"]["result"].as_array().into_iter().flatten() {
        let n =
            series["metric"]["n"].as_str().and_then(|n| n.parse().ok()).ok_or("a series without its name")?;
        let samples = series["values"].as_array().into_iter().flatten().map(|pair| {
            let time = (pair[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (time, pair[1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN))
        });
        if found.insert(n, samples.collect()).is_some() {
            return Err(format!("series {n} comes twice"));
        }
    }
    for n in 0..SERIES {
        let want: Vec<(i64, f64)> = (from..to).map(|step| (ledger.time(step), value(n, step))).collect();
        let got = found.remove(&n).unwrap_or_default();
        if got != want {
            let missing: Vec<i64> =
                (from..to).filter(|step| !got.contains(&(ledger.time(*step), value(n, *step)))).collect();
            return Err(format!(
                "series {n} has {} of {} samples; missing are steps {missing:?}",
                got.len(),
                want.len()
            ));
        }
    }
    Ok(())
}

/// A query every second over what was acknowledged last.
fn watch(ledger: &Arc<Ledger>, base: String) -> JoinHandle<()> {
    let ledger = Arc::clone(ledger);
    std::thread::spawn(move || {
        while !ledger.stop.load(SeqCst) {
            let to = ledger.acked.load(SeqCst);
            if to > 0 {
                if let Err(why) = check(&ledger, &base, (to - WINDOW).max(0), to) {
                    ledger.fail(format!("a query after step {to}: {why}"));
                }
                ledger.queries.fetch_add(1, SeqCst);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

fn wait_drained(ring: &Ring, at: usize) {
    let url = format!("http://127.0.0.1:{}/-/drained", ring.receivers[at].http);
    let begun = Instant::now();
    loop {
        let said = match get(&url) {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        assert!(begun.elapsed() < Duration::from_secs(120), "receiver {at} is never drained: {said}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn three_receivers_become_five_and_three_again_under_load_with_one_killed_in_each_change() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ring = Ring::new(dir.path());
    ring.edit(3);
    let mut receivers: BTreeMap<usize, Running> = (0..3).map(|at| (at, ring.start_receiver(at))).collect();
    for (at, running) in &mut receivers {
        ring.wait_ready(*at, running);
    }
    ring.wait_settled(3, &[0, 1, 2]);
    wait_until("the first epoch", || (ring.gauge(0, "tributary_ring_epoch")? >= 1.0).then_some(()));
    let mut store = ring.start_store();
    store.wait_ready(&format!("http://127.0.0.1:{}/-/ready", ring.store.http));
    let mut query = ring.start_query();
    let base = format!("http://127.0.0.1:{}", ring.query.http);
    query.wait_ready(&format!("{base}/-/ready"));

    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64;
    let ledger = Arc::new(Ledger {
        start: now / 1000 * 1000,
        acked: AtomicI64::new(0),
        stop: AtomicBool::new(false),
        retries: AtomicI64::new(0),
        queries: AtomicI64::new(0),
        wrong: Mutex::new(Vec::new()),
    });
    let door = |at: usize| format!("http://127.0.0.1:{}/api/v1/receive", ring.receivers[at].write);
    let sending = send(&ledger, vec![door(0), door(2)]);
    wait_until("the first acknowledgements", || (ledger.acked.load(SeqCst) > 4).then_some(()));
    let watching = watch(&ledger, base.clone());
    let pause = || std::thread::sleep(Duration::from_secs(4));
    pause();

    // Two more, and one of the three is killed as soon as the change is asked for.
    for at in [3, 4] {
        receivers.insert(at, ring.start_receiver(at));
    }
    for at in [3, 4] {
        ring.wait_ready(at, receivers.get_mut(&at).expect("it runs"));
    }
    ring.edit(5);
    receivers.remove(&1).expect("it runs").kill();
    pause();
    receivers.insert(1, ring.start_receiver(1));
    ring.wait_settled(5, &[0, 1, 2, 3, 4]);
    pause();

    // Three again; one of those that leave is killed in the middle of it.
    let before = ring.gauge(0, "tributary_ring_epoch");
    ring.edit(3);
    wait_until("the change to begin", || (ring.gauge(0, "tributary_ring_epoch") > before).then_some(()));
    receivers.remove(&4).expect("it runs").kill();
    pause();
    receivers.insert(4, ring.start_receiver(4));
    ring.wait_settled(3, &[0, 1, 2]);
    for at in [3, 4] {
        wait_drained(&ring, at);
        receivers.remove(&at).expect("it runs").stop();
        std::fs::remove_dir_all(ring.folder(at)).expect("delete what nobody needs");
    }
    pause();
    pause();

    ledger.stop.store(true, SeqCst);
    sending.join().expect("the sender");
    watching.join().expect("the watcher");
    let acked = ledger.acked.load(SeqCst);
    if let Err(why) = check(&ledger, &base, 0, acked) {
        ledger.fail(format!("everything at the end: {why}"));
    }
    let wrong = ledger.wrong.lock().expect("nobody has panicked with it");
    assert!(wrong.is_empty(), "{} of {} queries: {:#?}", wrong.len(), ledger.queries.load(SeqCst), wrong);
    println!(
        "{acked} steps of {SERIES} samples, {} retries, {} queries",
        ledger.retries.load(SeqCst),
        ledger.queries.load(SeqCst)
    );
    query.stop();
    store.stop();
    receivers.into_values().for_each(Running::stop);
}
