//! An HA pair of two real Prometheus servers, of which one is killed, with the control plane away or there: what a querier sees
//! goes on as one series.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acceptance::{
    Program, Running, Said, When, ask, binary, difference, find_program, free_port, get, wait_until,
};

/// Between two scrapes, in milliseconds.
const STEP: i64 = 1_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64
}

/// One of a pair, which scrapes what both do.
fn replica(dir: &Path, name: &str, target: &str, write_url: &str) -> Option<(Running, String)> {
    let path = find_program("prometheus")?;
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{cluster: c, __replica__: {name}}}\n\
         scrape_configs:\n- job_name: node\n  static_configs: [{{targets: ['{target}']}}]\n\
         remote_write:\n- url: {write_url}\n  queue_config: {{batch_send_deadline: 500ms}}\n"
    );
    let (program, url) = Program::prometheus(path, dir, name, &config, &[]);
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    Some((running, url))
}

/// Whether a server had the time to scrape whenever it should: where it had not, it says nothing of who is listened to.
fn steady(scraped: &[(i64, f64)]) -> bool {
    let steady = scraped.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 3 * STEP / 2);
    if !steady {
        eprintln!("SKIPPED: this machine is too busy for a scrape every second");
    }
    steady
}

/// Whether the replica that is listened to was chosen so many times.
fn listened(url: &str, wanted: &str) -> Option<String> {
    let series = "tributary_ha_tracker_elected_replica_changes_total";
    let page = get(&format!("{url}/metrics")).expect("metrics");
    let line = page.text().lines().find(|line| line.starts_with(series)).map(str::to_owned);
    line.filter(|line| line.ends_with(&format!(" {wanted}")))
}

/// Samples of a counter over `seconds`, in which the second took over from the one that was killed: none twice, no gap longer
/// than a scrape, and bit for bit what the second has from the moment on when the first was no more.
fn goes_on_as_one(all: &[(i64, f64)], of_b: &[(i64, f64)], seconds: i64, killed: i64) {
    let of_b: BTreeMap<i64, u64> = of_b.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    assert!(all.len() as i64 >= seconds - 2, "{} samples in {seconds} s", all.len());
    for pair in all.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!(2 * apart > STEP - 100, "a scrape twice: {pair:?}");
        assert!(2 * apart <= 3 * STEP + 400, "more than one scrape is missing: {pair:?}");
        assert!(pair[1].1 >= pair[0].1, "a reset that was none: {pair:?}");
    }
    let taken_over =
        all.iter().position(|(t, v)| of_b.get(t) == Some(&v.to_bits())).expect("samples of the second");
    assert!(all[taken_over].0 <= killed + 2 * STEP, "what was held fills the gap");
    for (t, v) in &all[taken_over..] {
        assert_eq!(of_b.get(t), Some(&v.to_bits()), "at {t} behind the change-over");
    }
}

/// The samples of a series of the exporter, in milliseconds, over the last `seconds` before `at`.
fn samples(url: &str, series: &str, at: i64, seconds: i64, added: &[&str]) -> Vec<(i64, f64)> {
    match ask(url, &format!("{series}[{seconds}s]"), When::At(at), added) {
        Said::Series(all) => {
            assert!(all.len() <= 1, "{series} of {url} is {} series", all.len());
            all.into_values().next().unwrap_or_default()
        }
        Said::Failed(why) => panic!("{url} fails on {series}: {why}"),
    }
}

/// The one value of an answer.
fn one(url: &str, query: &str, at: i64) -> Option<f64> {
    match ask(url, query, When::At(at), &PAIR) {
        Said::Series(all) => all.into_values().next().map(|points| points[0].1),
        Said::Failed(why) => panic!("{url} fails on {query}: {why}"),
    }
}

/// What Prometheus adds to no series of its own, and ours takes out.
const PAIR: [&str; 2] = ["cluster", "__replica__"];
const COUNTER: &str = "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"}";
const QUERIES: [&str; 4] = [
    "sum by (mode) (rate(node_cpu_seconds_total[15s]))",
    "rate(node_context_switches_total[10s])",
    "increase(node_intr_total[20s])",
    "count(up)",
];

#[test]
fn a_pair_of_which_one_is_killed_goes_on_as_one() {
    let (Some(exporter), Some(_)) = (find_program("prometheus-node-exporter"), find_program("prometheus"))
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut program, url) = Program::standalone(dir.path());
    program.args.push("--receive.ha".to_owned());
    let mut node = program.start();
    node.wait_ready(&format!("{url}/-/ready"));
    let (exporter, target) = Program::node_exporter(exporter, dir.path());
    let _exporter = exporter.start();
    let write_url = format!("{url}/api/v1/write");
    let Some((a, a_url)) = replica(dir.path(), "a", &target, &write_url) else { return };
    wait_until("the first replica to be listened to", || listened(&url, "1"));
    // The second scrapes at another time of the second.
    let Some((b, b_url)) = replica(dir.path(), "b", &target, &write_url) else { return };
    let begin = now_ms();
    std::thread::sleep(Duration::from_secs(35));

    // On one side: what a says is what is there, to the last digit.
    let before = now_ms() - 5_000;
    if !steady(&samples(&a_url, COUNTER, before, 25, &[])) {
        return;
    }
    for query in QUERIES {
        let at = When::At(before);
        let (want, got) = (ask(&a_url, query, at, &[]), ask(&url, query, at, &PAIR));
        assert!(difference(&want, &got, 1e-12).is_none(), "{query}: {:?}", difference(&want, &got, 1e-12));
    }
    let of_a = samples(&a_url, COUNTER, before, 25, &[]);
    assert_eq!(samples(&url, COUNTER, before, 25, &PAIR), of_a);

    // The one that is listened to is killed; the other was there all along.
    a.kill();
    let killed = now_ms();
    wait_until("the second replica to be listened to", || listened(&url, "2"));
    let over = now_ms();
    assert!(over - killed < 20_000, "noticed after {} ms", over - killed);
    std::thread::sleep(Duration::from_secs(25));
    let end = now_ms() - 5_000;
    let seconds = (end - begin) / 1000 - 8;
    if !steady(&samples(&b_url, COUNTER, end, seconds, &[])) {
        return;
    }
    goes_on_as_one(
        &samples(&url, COUNTER, end, seconds, &PAIR),
        &samples(&b_url, COUNTER, end, seconds, &[]),
        seconds,
        killed,
    );

    // On the other side: what b says.
    for query in QUERIES {
        let at = When::At(end);
        let (want, got) = (ask(&b_url, query, at, &[]), ask(&url, query, at, &PAIR));
        assert!(difference(&want, &got, 1e-12).is_none(), "{query}: {:?}", difference(&want, &got, 1e-12));
    }
    // Across it: what the one that lives says, at this step or a scrape beside it, give or take what a scrape brings.
    let span = 10;
    for counter in ["node_context_switches_total", "node_intr_total"] {
        let resets = format!("sum(resets({counter}[{seconds}s]))");
        assert_eq!(one(&url, &resets, end), Some(0.0), "{counter} was never reset");
        let grown = samples(&b_url, counter, end, seconds, &[]);
        for at in (killed - 2_000..killed + 9_000).step_by(1_000) {
            let rate = format!("sum(rate({counter}[{span}s]))");
            let got = one(&url, &rate, at).expect("a rate across the change-over");
            let of_b = (-1..=1).filter_map(|n| one(&b_url, &rate, at + n * STEP));
            // The one that is dead scraped the same: what it would say now is what the other says, a scrape aside.
            let around: Vec<f64> = of_b.collect();
            let (least, most) =
                around.iter().fold((f64::INFINITY, 0.0f64), |(least, most), v| (least.min(*v), most.max(*v)));
            let near =
                grown.windows(2).filter(|pair| (at - (span + 1) * STEP..=at + STEP).contains(&pair[1].0));
            let scrape = near.map(|pair| pair[1].1 - pair[0].1).fold(0.0, f64::max) / span as f64;
            assert!(
                got >= least - scrape && got <= most + scrape,
                "rate of {counter} at {at}, {} ms after: {got}, not around {around:?}, a scrape is {scrape}",
                at - killed
            );
        }
    }
    drop(b);
    node.stop();
}

/// What a cluster adds beside.
const CLUSTER: [&str; 4] = ["cluster", "__replica__", "tenant_id", "replica"];

/// A receiver by the agreed ring, of which the voter is another one; where it answers and takes writes.
fn receiver(dir: &Path, name: &str, grpc: u16, voter: u16) -> (Program, String, String) {
    let (http, write) = (free_port(), free_port());
    let program = Program {
        name: name.to_owned(),
        path: binary(),
        args: vec![
            "receive".to_owned(),
            "--receive.ha".to_owned(),
            format!("--tsdb.path={}", dir.join(name).display()),
            format!("--receive.hashrings-file={}", dir.join("hashrings.json").display()),
            format!("--receive.local-endpoint=127.0.0.1:{grpc}"),
            format!("--control.voters=127.0.0.1:{voter}"),
            format!("--label=replica=\"{name}\""),
            format!("--grpc-address=127.0.0.1:{grpc}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--remote-write.address=127.0.0.1:{write}"),
        ],
        log: dir.join(format!("{name}.log")),
    };
    (program, format!("http://127.0.0.1:{http}"), format!("http://127.0.0.1:{write}/api/v1/receive"))
}

#[test]
fn the_last_election_stands_while_nobody_can_elect() {
    let (Some(exporter), Some(_)) = (find_program("prometheus-node-exporter"), find_program("prometheus"))
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (data, voter) = (free_port(), free_port());
    let ring = format!("[{{\"endpoints\": [\"127.0.0.1:{data}\"]}}]");
    std::fs::write(dir.path().join("hashrings.json"), ring).expect("write the ring");
    let (voter_program, voter_url, _) = receiver(dir.path(), "voter", voter, voter);
    let (node, node_url, write_url) = receiver(dir.path(), "data", data, voter);
    let (mut voter, mut node) = (voter_program.start(), node.start());
    voter.wait_ready(&format!("{voter_url}/-/ready"));
    node.wait_ready(&format!("{node_url}/-/ready"));
    let (http, grpc) = (free_port(), free_port());
    let querier = Program {
        name: "query".to_owned(),
        path: binary(),
        args: vec![
            "query".to_owned(),
            format!("--endpoint=127.0.0.1:{data}"),
            format!("--http-address=127.0.0.1:{http}"),
            format!("--grpc-address=127.0.0.1:{grpc}"),
        ],
        log: dir.path().join("query.log"),
    };
    let (mut querier, url) = (querier.start(), format!("http://127.0.0.1:{http}"));
    querier.wait_ready(&format!("{url}/-/ready"));
    let (exporter, target) = Program::node_exporter(exporter, dir.path());
    let _exporter = exporter.start();
    let Some((a, a_url)) = replica(dir.path(), "a", &target, &write_url) else { return };
    wait_until("the first replica to be listened to", || listened(&node_url, "1"));
    let Some((b, b_url)) = replica(dir.path(), "b", &target, &write_url) else { return };
    let begin = now_ms();
    std::thread::sleep(Duration::from_secs(6));

    // Nobody is left who could elect: who was listened to is, to the last sample.
    voter.kill();
    std::thread::sleep(Duration::from_secs(12));
    let at = now_ms() - 4_000;
    let seconds = (at - begin) / 1000;
    let of_a = samples(&a_url, COUNTER, at, seconds, &[]);
    if !steady(&of_a) {
        return;
    }
    assert!(of_a.len() > 8, "{of_a:?}");
    assert_eq!(samples(&url, COUNTER, at, seconds, &CLUSTER), of_a);
    assert!(listened(&node_url, "1").is_some(), "nobody else was chosen");

    // The one that is listened to goes as well: the other is heard by the same rule.
    a.kill();
    let killed = now_ms();
    wait_until("the second replica to be listened to", || listened(&node_url, "2"));
    std::thread::sleep(Duration::from_secs(5));

    // They can elect again, and remember the first: it stays with the one that lives.
    let mut voter = voter_program.start();
    voter.wait_ready(&format!("{voter_url}/-/ready"));
    std::thread::sleep(Duration::from_secs(12));
    let end = now_ms() - 4_000;
    let seconds = (end - begin) / 1000 - 4;
    let of_b = samples(&b_url, COUNTER, end, seconds, &[]);
    if steady(&of_b) {
        goes_on_as_one(&samples(&url, COUNTER, end, seconds, &CLUSTER), &of_b, seconds, killed);
    }
    drop(b);
    querier.stop();
    node.stop();
    voter.stop();
}
