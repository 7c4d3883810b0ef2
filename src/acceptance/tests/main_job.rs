//! The main job, end to end: a real Prometheus writes, three receivers keep, the bucket holds, PromQL answers
//! as that Prometheus does, and a receiver that dies is not missed.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{
    Cluster, Program, Running, Said, When, ask, difference, find_program, get, post, wait_agreed, wait_until,
};

/// How long a sample may be on its way to the head, in milliseconds.
const CUT_LAG: i64 = 10_000;
/// What a cluster adds to a series; a Prometheus alone has neither.
const ADDED: [&str; 2] = ["tenant_id", "replica"];

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64
}

struct Scraper {
    prometheus: Running,
    _exporter: Running,
    url: String,
}

/// A Prometheus that scrapes itself and a node_exporter every second and writes to `write_url`.
fn scraper(dir: &Path, write_url: &str) -> Option<Scraper> {
    let (prometheus, exporter) = (find_program("prometheus")?, find_program("prometheus-node-exporter")?);
    let (exporter, target) = Program::node_exporter(exporter, dir);
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n\
         - job_name: prometheus\n  static_configs: [{{targets: ['OWN_ADDRESS']}}]\n\
         - job_name: node\n  static_configs: [{{targets: ['{target}']}}]\n\
         remote_write:\n- url: {write_url}\n  queue_config: {{batch_send_deadline: 500ms}}\n"
    );
    let (program, url) = Program::prometheus(prometheus, dir, "prometheus", &config, &[]);
    let exporter = exporter.start();
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    Some(Scraper { prometheus: running, _exporter: exporter, url })
}

/// Waits until everything scraped before `time` has arrived, so that both sides can be asked about it.
fn wait_arrived(query_url: &str, time: i64) {
    wait_until("samples to arrive at the querier", || {
        let at = When::At(now_ms());
        match ask(query_url, "min(timestamp(up))", at, &ADDED) {
            Said::Series(series) => {
                series.values().next().filter(|p| (p[0].1 * 1000.0) as i64 > time + 1500).map(|_| ())
            }
            Said::Failed(_) => None,
        }
    });
}

fn agree(scraper: &Scraper, query_url: &str, queries: &[&str], when: When) {
    for query in queries {
        let want = ask(&scraper.url, query, when, &[]);
        let Said::Series(series) = &want else { panic!("the reference fails on {query}") };
        assert!(!series.is_empty(), "{query} selects nothing on the reference: it proves nothing");
        // The sender's shards are not equally far: what `up` says has arrived, others may still send.
        wait_agreed(query, || difference(&want, &ask(query_url, query, when, &ADDED), 1e-12));
    }
}

const QUERIES: &[&str] = &[
    "up",
    "count({__name__!=\"\"})",
    "rate(node_cpu_seconds_total[10s])",
    "sum by (mode) (rate(node_cpu_seconds_total[15s]))",
    "sum by (job) (up)",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[20s])))",
    "max_over_time(node_load1[10s]) - min_over_time(node_load1[10s])",
    "topk(3, node_memory_MemTotal_bytes) / 1024",
    "process_resident_memory_bytes / on (instance, job) process_virtual_memory_bytes",
    "node_filesystem_size_bytes{mountpoint=~\"/.*\"} > bool 1000",
];

#[test]
fn a_prometheus_three_receivers_a_bucket_and_one_loss() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cluster = Cluster::new(dir.path(), 3);
    let mut receivers: Vec<Running> = (0..3).map(|at| cluster.launch_receiver(at, 3)).collect();
    for (at, receiver) in receivers.iter_mut().enumerate() {
        cluster.wait_receiver(at, receiver);
    }
    let Some(scraper) = scraper(dir.path(), &cluster.write_url(0)) else { return };
    let query = cluster.start_query(false);
    let base = cluster.query_url();

    // Some data in the heads alone.
    let begin = now_ms();
    std::thread::sleep(std::time::Duration::from_secs(22));
    wait_arrived(&base, begin + 20_000);
    agree(&scraper, &base, QUERIES, When::At(begin + 20_000));

    // Cut everywhere: the bucket has blocks, the store serves them, and answers span block and head.
    for at in 0..3 {
        let answer = post(&format!("{}/-/cut", cluster.receiver_url(at)), &[], b"").expect("ask for a cut");
        assert_eq!(answer.status / 100, 2, "cut: {}", answer.text());
    }
    let blocks = std::fs::read_dir(cluster.bucket()).expect("the bucket exists").count();
    assert!(blocks >= 3, "{blocks} blocks in the bucket after a cut of three receivers");
    query.stop();
    let store = cluster.start_store();
    let query = cluster.start_query(true);
    let across = now_ms();
    wait_arrived(&base, across);
    agree(&scraper, &base, QUERIES, When::Range(begin + 5_000, across, 1_000));

    // One receiver dies while data flows; nobody notices.
    receivers.remove(2).kill();
    let without = now_ms();
    std::thread::sleep(std::time::Duration::from_secs(8));
    wait_arrived(&base, without + 6_000);
    agree(&scraper, &base, QUERIES, When::Range(begin + 5_000, without + 6_000, 1_000));

    // It comes back, from its log.
    let mut back = cluster.launch_receiver(2, 3);
    cluster.wait_receiver(2, &mut back);
    let returned = now_ms();
    std::thread::sleep(std::time::Duration::from_secs(5));
    wait_arrived(&base, returned + 3_000);
    agree(&scraper, &base, QUERIES, When::Range(begin + 5_000, returned + 3_000, 1_000));

    // No write failed for good.
    let failed =
        "prometheus_remote_storage_samples_failed_total + prometheus_remote_storage_samples_dropped_total";
    match ask(&scraper.url, failed, When::At(now_ms()), &[]) {
        Said::Series(series) => {
            assert!(series.values().all(|p| p[0].1 == 0.0), "samples failed for good: {series:?}")
        }
        Said::Failed(error) => panic!("{failed}: {error}"),
    }

    opens_elsewhere(dir.path(), &cluster, &base);

    // Everybody leaves when asked.
    for running in [query, store, scraper.prometheus, back].into_iter().chain(receivers) {
        running.stop();
    }
}

/// promtool and a Prometheus of Debian's open a block of ours and answer as we do.
fn opens_elsewhere(dir: &Path, cluster: &Cluster, query_url: &str) {
    let (Some(promtool), Some(prometheus)) = (find_program("promtool"), find_program("prometheus")) else {
        return;
    };
    let folder = dir.join("elsewhere");
    std::fs::create_dir(&folder).expect("create a folder");
    let mut blocks: Vec<_> =
        std::fs::read_dir(cluster.bucket()).expect("list the bucket").flatten().map(|e| e.path()).collect();
    blocks.sort();
    let block = blocks.first().expect("a block");
    let name = block.file_name().expect("a name").to_owned();
    let copied = Command::new("cp").arg("-r").arg(block).arg(folder.join(&name)).status().expect("cp runs");
    assert!(copied.success());
    for args in [vec!["tsdb", "list"], vec!["tsdb", "analyze"]] {
        let mut command = Command::new(&promtool);
        command.args(&args).arg(&folder);
        if args[1] == "analyze" {
            command.arg(&name);
        }
        let out = command.output().expect("promtool runs");
        assert!(out.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains(&*name.to_string_lossy()), "promtool {args:?} does not name the block: {text}");
    }
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(block.join("meta.json")).expect("read meta.json"))
            .expect("meta.json is JSON");
    let (program, url) = Program::prometheus(prometheus, dir, "elsewhere", "", &[]);
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    let (min, max) = (meta["minTime"].as_i64().expect("minTime"), meta["maxTime"].as_i64().expect("maxTime"));
    let everything = format!("{{__name__!=\"\"}}[{}ms]", max - min);
    let there = ask(&url, &everything, When::At(max - 1), &[]);
    let Said::Series(series) = &there else { panic!("a Prometheus cannot read our block") };
    let samples: usize = series.values().map(Vec::len).sum();
    assert_eq!(Some(samples as u64), meta["stats"]["numSamples"].as_u64(), "samples that a Prometheus reads");
    // The last seconds are left out: what was on its way while the block was cut is in the head, and in our answer.
    let (end, all) = (max - 1 - CUT_LAG, format!("{{__name__!=\"\"}}[{}ms]", max - min - CUT_LAG));
    let there = ask(&url, &all, When::At(end), &[]);
    let here = ask(query_url, &all, When::At(end), &ADDED);
    if let Some(difference) = difference(&there, &here, 0.0) {
        panic!("a Prometheus on our block and we differ: {difference}");
    }
    running.stop();
    assert!(get(&url).is_err(), "the Prometheus of this test still answers");
}
