//! HA pairs at the doors: one replica is listened to, the other acknowledged and held, and stored when the first falls
//! silent.

mod rig;

use std::time::Duration;

use model::{Histogram, Native, Sample, TenantId};
use receive::{Bound, Settings};
use rig::{Answer, Node, Sent, body, cluster, eventually, now, single};
use runtime::World;
use settings::Span;
use wire::remote_write::RequestV2;

const V2: [(&str, &str); 2] = [
    ("Content-Encoding", "snappy"),
    ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
];

/// A node that gives a silent replica up after a second.
fn listening(mut settings: Settings) -> Settings {
    settings.ha.enabled = true;
    settings.ha.failover = Span::from_secs(1);
    settings
}

fn of(replica: &str, name: &str, samples: &[(i64, f64)]) -> Sent {
    let samples = samples.iter().map(|&(timestamp, value)| Sample { timestamp, value }).collect();
    let labels = [("__name__", name), ("__replica__", replica), ("cluster", "c")];
    (labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(), samples)
}

/// The labels of all series of a name.
fn labels(node: &Node, name: &str) -> Vec<String> {
    use storage::{Context, Select, SelectRequest};
    let engine = node.receive.tsdb().unwrap();
    let view = engine.tenant(&TenantId::new("default-tenant").unwrap()).unwrap();
    let request = SelectRequest::new(model::TimeRange::ALL, vec![model::Matcher::equal("__name__", name)]);
    let mut set = view.select(&request, &Context::background()).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = set.next().unwrap() {
        let ours = |name: &str| name != "tenant_id" && name != "__name__" && name != "replica";
        let pairs = entry.labels.iter().filter(|(n, _)| ours(n));
        all.push(pairs.map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(","));
    }
    all
}

fn written(answer: &Answer) -> Vec<u64> {
    let of = |kind: &str| {
        let name = format!("x-prometheus-remote-write-{kind}-written: ");
        answer.head.lines().find_map(|line| line.strip_prefix(&name)).unwrap().trim().parse().unwrap()
    };
    ["samples", "histograms", "exemplars"].map(of).to_vec()
}

/// Two floats, a histogram and an exemplar.
fn of_all_kinds(replica: &str, t: i64) -> Vec<u8> {
    let mut request = RequestV2::default();
    for name in ["one", "two"] {
        [("__name__", name), ("__replica__", replica), ("cluster", "c")]
            .iter()
            .for_each(|(name, value)| request.label(name, value));
        request.sample(Sample { timestamp: t, value: 1.0 }, 0);
        request.exemplar([("trace", replica)], 0.5, t);
        request.end();
    }
    [("__name__", "three"), ("__replica__", replica), ("cluster", "c")]
        .iter()
        .for_each(|(name, value)| request.label(name, value));
    request.histogram(&Native::Whole(Histogram { sum: 2.0, ..Histogram::default() }), t, 0);
    request.end();
    wire::remote_write::compress(&request.finish()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secondary_is_told_that_all_it_sent_was_written_t17() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    let t = now();
    let first = node.post_with("/api/v1/write", &V2, of_all_kinds("a", t)).await;
    let second = node.post_with("/api/v1/write", &V2, of_all_kinds("b", t - 100)).await;
    for answer in [&first, &second] {
        assert_eq!((answer.status, written(answer)), (204, vec![2, 1, 2]), "{answer:?}");
    }
    // Known series go the same way.
    let again = node.post_with("/api/v1/write", &V2, of_all_kinds("a", t + 1)).await;
    assert_eq!((again.status, written(&again)), (204, vec![2, 1, 2]));
    for name in ["one", "two"] {
        assert_eq!(labels(&node, name), ["cluster=c"]);
        assert_eq!(node.samples("default-tenant", name), [(t, 1.0), (t + 1, 1.0)]);
    }
    // What both say of metrics without any sample is nobody's.
    assert_eq!(node.post(&[]).await.status, 204);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_fills_the_gap_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    let t = now() / 15_000 * 15_000 - 120_000;
    let scrape = |replica: &'static str, step: i64, off: i64| {
        [
            of(replica, "m", &[(t + step * 15_000 + off, step as f64)]),
            of(replica, "n", &[(t + step * 15_000 + off, 0.0)]),
        ]
    };
    for step in 0..4 {
        assert_eq!(node.post(&scrape("a", step, 0)).await.status, 204);
        assert_eq!(node.post(&scrape("b", step, 5_000)).await.status, 204);
    }
    // One more of the other, and then the first is silent.
    assert_eq!(node.post(&scrape("b", 4, 5_000)).await.status, 204);
    let times = |name: &str| -> Vec<i64> {
        node.samples("default-tenant", name).iter().map(|(at, _)| (at - t) / 1000).collect()
    };
    assert_eq!(times("m"), [0, 15, 30, 45]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(node.post(&scrape("b", 5, 5_000)).await.status, 204);
    // 5 s behind the last one is the same scrape.
    let want = [0, 15, 30, 45, 65, 80];
    assert!(eventually(|| times("m") == want).await, "{:?}", times("m"));
    assert!(eventually(|| times("n") == want).await, "{:?}", times("n"));
    // It comes back with what it could not send, and is on standby now.
    for step in 4..7 {
        assert_eq!(node.post(&scrape("a", step, 0)).await.status, 204);
    }
    assert_eq!(node.post(&scrape("b", 6, 5_000)).await.status, 204);
    assert_eq!(times("m"), [0, 15, 30, 45, 65, 80, 95]);
    assert_eq!(labels(&node, "m"), ["cluster=c"]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_says_two_things_is_stored_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    let t = now();
    assert_eq!(node.post(&[of("a", "m", &[(t, 1.0)])]).await.status, 204);
    // Held, if its first series were asked alone.
    let mixed = [of("b", "x", &[(t, 1.0)]), rig::series("y", &[(t, 2.0)])];
    assert_eq!(node.post(&mixed).await.status, 204);
    assert_eq!(labels(&node, "x"), ["__replica__=b,cluster=c"]);
    assert_eq!(node.samples("default-tenant", "y"), [(t, 2.0)]);
    let two = [of("a", "z", &[(t, 1.0)]), of("b", "z", &[(t, 2.0)])];
    assert_eq!(node.post(&two).await.status, 204);
    assert_eq!(labels(&node, "z"), ["__replica__=a,cluster=c", "__replica__=b,cluster=c"]);
    // A copy of a router is stored, whoever is listened to.
    let copy = node
        .post_with("/api/v1/receive", &[("THANOS-REPLICA", "1")], body(&[of("b", "w", &[(t, 1.0)])]))
        .await;
    assert_eq!((copy.status, labels(&node, "w")), (204, vec!["__replica__=b,cluster=c".to_owned()]));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_until_asked_for_and_by_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.admission.limits_config = Some(
        "write: {tenants: {pairs: {accept_ha_samples: true, ha_replica_label: prom, ha_max_clusters: 1}}}"
            .to_owned(),
    );
    let node = Node::start(settings).await;
    let t = now();
    for replica in ["a", "b"] {
        assert_eq!(node.post(&[of(replica, "m", &[(t, 1.0)])]).await.status, 204);
    }
    assert_eq!(labels(&node, "m").len(), 2);
    let as_pairs = |cluster: &'static str, prom: &'static str, value: f64| {
        let labels = [("__name__", "m"), ("cluster", cluster), ("prom", prom)];
        let labels = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let sent: Sent = (labels, vec![Sample { timestamp: t, value }]);
        node.post_with("/api/v1/receive", &[("THANOS-TENANT", "pairs")], body(&[sent]))
    };
    assert_eq!(as_pairs("c", "a", 1.0).await.status, 204);
    assert_eq!(as_pairs("c", "b", 2.0).await.status, 204);
    assert_eq!(node.samples("pairs", "m"), [(t, 1.0)]);
    // One pair too many is stored as it comes.
    assert_eq!(as_pairs("d", "a", 3.0).await.status, 204);
    assert_eq!(node.samples("pairs", "m"), [(t, 1.0), (t, 3.0)]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_telemetry_has_pairs_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = listening(single(dir.path()));
    settings.ha.replica_label = "prom".to_owned();
    let node = Node::start(settings).await;
    let t = now();
    let send = |prom: &'static str, at: i64| {
        let attribute =
            |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
        let body = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[
            {{"timeUnixNano":"{}","asDouble":1,"attributes":[{},{}]}}]}}}}]}}]}}]}}"#,
            at * 1_000_000,
            attribute("cluster", "c"),
            attribute("prom", prom)
        );
        node.post_with("/api/v1/otlp/v1/metrics", &[("Content-Type", "application/json")], body.into_bytes())
    };
    for step in [80_000, 70_000, 60_000] {
        assert_eq!(send("a", t - step).await.status, 200);
    }
    assert_eq!(send("b", t - 52_000).await.status, 200);
    assert_eq!(labels(&node, "m"), ["cluster=c"]);
    let times = || rig::times(&node, "m", t);
    assert_eq!(times(), [-80_000, -70_000, -60_000]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(send("b", t).await.status, 200);
    assert!(eventually(|| times() == [-80_000, -70_000, -60_000, -52_000, 0]).await, "{:?}", times());
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_listened_to_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    let t = now() - 10_000;
    assert_eq!(node.post(&[of("b", "m", &[(t, 1.0)])]).await.status, 204);
    let file = dir.path().join("data/elections.json");
    assert!(eventually(|| file.exists()).await);
    node.stop().await.unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    assert_eq!(node.post(&[of("a", "m", &[(t + 1, 2.0)])]).await.status, 204);
    assert_eq!(node.post(&[of("b", "m", &[(t + 2, 3.0)])]).await.status, 204);
    assert_eq!(node.samples("default-tenant", "m"), [(t, 1.0), (t + 2, 3.0)]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_when_a_door_stopped_is_there_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    let t = now() / 15_000 * 15_000 - 120_000;
    let at = |step: i64, off: i64| [(t + step * 15_000 + off, step as f64)];
    for step in 0..4 {
        assert_eq!(node.post(&[of("a", "m", &at(step, 0))]).await.status, 204);
    }
    assert_eq!(node.post(&[of("b", "m", &at(4, 5_000))]).await.status, 204);
    let file = dir.path().join("data/elections.json");
    assert!(eventually(|| file.exists()).await);
    node.stop().await.unwrap();
    let node = Node::start(listening(single(dir.path()))).await;
    assert_eq!(node.post(&[of("b", "m", &at(5, 5_000))]).await.status, 204);
    // The one that was listened to has gone meanwhile.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(node.post(&[of("b", "m", &at(6, 5_000))]).await.status, 204);
    let times = || rig::times(&node, "m", t);
    let want = [0, 15_000, 30_000, 45_000, 65_000, 80_000, 95_000];
    assert!(eventually(|| times() == want).await, "{:?}", times());
    assert!(!dir.path().join("data/held-of-pairs").exists());
    node.stop().await.unwrap();
}

/// A sender that keeps to one door and sends again what is not taken.
async fn push(node: &Node, sent: Sent) {
    for _ in 0..100 {
        match node.post(std::slice::from_ref(&sent)).await.status {
            204 => return,
            503 => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{other}"),
        }
    }
    panic!("never taken");
}

async fn each_at_a_door_of_its_own(nodes: Vec<Node>) {
    let t = now() - 60_000;
    let stored = |node: &Node| {
        node.samples("default-tenant", "m").into_iter().map(|(_, value)| value as i64).collect::<Vec<_>>()
    };
    push(&nodes[0], of("a", "m", &[(t, 1.0)])).await;
    assert!(eventually(|| nodes.iter().all(|node| stored(node) == [1])).await);
    // The other door has heard of it by now, and hears on, longer than a silence may last.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for step in 1..8 {
        push(&nodes[0], of("a", "m", &[(t + step * 1_000, 1.0)])).await;
        push(&nodes[1], of("b", "m", &[(t + step * 1_000 + 100, 2.0)])).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for node in &nodes {
        assert!(eventually(|| stored(node) == [1; 8]).await, "{:?}", stored(node));
    }
    // Silence at the first door is told as well.
    for step in 8..20 {
        push(&nodes[1], of("b", "m", &[(t + step * 1_000 + 100, 2.0)])).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for node in &nodes {
        let whole = || {
            let mut seen = stored(node);
            seen.dedup();
            seen == [1, 2] && node.samples("default-tenant", "m").len() == 20
        };
        assert!(eventually(whole).await, "{:?}", rig::times(node, "m", t));
    }
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_of_a_ring_tell_each_other_whom_they_hear() {
    let dir = tempfile::tempdir().unwrap();
    let mut all: Vec<_> = cluster(dir.path(), 3, 3).into_iter().map(listening).collect();
    all.iter_mut().for_each(|settings| settings.ha.failover = Span::from_secs(3));
    let nodes = Node::start_all(all).await;
    each_at_a_door_of_its_own(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_of_a_cluster_agree_on_whom_they_listen_to() {
    let dir = tempfile::tempdir().unwrap();
    let plane = control::Handle::alone(agreed::State::default());
    let mut nodes = Vec::new();
    for mut settings in cluster(dir.path(), 3, 3) {
        settings = listening(settings);
        settings.ha.failover = Span::from_secs(3);
        let bound = Bound::bind(settings, World::real()).await.unwrap();
        bound.receive().elect_by(plane.clone());
        nodes.push(Node::run(bound).await);
    }
    let seen = plane.clone();
    each_at_a_door_of_its_own(nodes).await;
    let elections = seen.now().state.elections.clone();
    let elected = elections.get("default-tenant", "c").unwrap();
    assert_eq!((elected.replica.as_str(), elected.term), ("b", 2));
}

/// What one receiver missed is not filled in there with the other replica's scrape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_receiver_lacks_is_not_stored_there_from_another_replica() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Node::start_all(cluster(dir.path(), 3, 3).into_iter().map(listening)).await;
    let t = now() - 60_000;
    let write = |name: &str, replica: u32, spliced: bool, at: &[i64]| {
        let mut batch = storage::WriteBatch::default();
        let labels = rig::labels(&[("__name__", name), ("cluster", "c")]);
        let samples = at.iter().map(|at| Sample { timestamp: t + at, value: *at as f64 });
        batch.push(labels.as_bytes(), labels.placement_hash("default-tenant"), samples);
        batch.splice(spliced);
        let tenant = TenantId::new("default-tenant").unwrap();
        let groups = vec![rpc::TenantGroup { tenant, batch }];
        rpc::WriteRequest { groups, replica, judged_at: Some(t), ring_epoch: 0 }
    };
    let doors: Vec<_> = nodes.iter().map(|node| node.receive.write_backend()).collect();
    // Peers are asked once they are known to be ours, which they are not at once.
    let mut asked = None;
    for attempt in 0..100 {
        let name = format!("m{attempt}");
        for (at, door) in doors.iter().enumerate() {
            door.write(write(&name, 1, false, &[0, 10_000, 20_000, 30_000])).await.unwrap();
            if at < 2 {
                door.write(write(&name, 1, false, &[40_000])).await.unwrap();
            }
        }
        let verdicts = doors[2].write(write(&name, 0, true, &[42_000, 52_000])).await.unwrap();
        assert!(verdicts[0].iter().all(|verdict| verdict.is_success()), "{verdicts:?}");
        if rig::times(&nodes[2], &name, t) == [0, 10_000, 20_000, 30_000, 52_000] {
            asked = Some(name);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let name = asked.expect("it is never asked");
    for node in &nodes[..2] {
        let times = || rig::times(node, &name, t);
        let want = [0, 10_000, 20_000, 30_000, 40_000, 52_000];
        assert!(eventually(|| times() == want).await, "{:?}", times());
    }
    // What was stored at one alone is taken when it comes again.
    doors[0].write(write(&name, 1, true, &[62_000])).await.unwrap();
    doors[2].write(write(&name, 0, true, &[62_000])).await.unwrap();
    assert!(eventually(|| rig::times(&nodes[2], &name, t).last() == Some(&62_000)).await);
    drop(doors);
    Node::stop_all(nodes).await;
}
