//! Receivers whose ring is agreed on: changes under load, routers that slept, restarts in the middle, nodes that leave, and a
//! bucket that is away meanwhile. What is asked of readers is asked by the agreed rule.

mod rig;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use agreed::{Command, Proposal, RingPlan, State, View};
use control::Handle;
use receive::Settings;
use rig::{Node, cluster, eventually, many, now, request, series};

const SERIES: usize = 40;

fn endpoint(settings: &Settings) -> String {
    settings.replication.local_endpoint.clone().unwrap()
}

fn text(members: &[&Settings]) -> String {
    let quoted: Vec<String> = members.iter().map(|s| format!("{:?}", endpoint(s))).collect();
    format!("[{{\"endpoints\": [{}]}}]", quoted.join(", "))
}

fn plan(members: &[&Settings]) -> RingPlan {
    RingPlan { text: text(members), replication: 3, quorum: 2, hashmod: false }
}

fn formed(members: &[&Settings]) -> State {
    let mut state = State::default();
    let form = Command::Form { cluster: "c".to_owned(), plan: plan(members), by: String::new(), time: now() };
    state.apply(form).unwrap();
    state
}

/// `count` receivers with one bucket, which need not wait long for those who read it.
fn receivers(dir: &Path, count: usize) -> Vec<Settings> {
    let mut settings = cluster(dir, count, 3);
    let bucket = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.join("bucket").display());
    for node in &mut settings {
        node.objstore.config = Some(bucket.clone());
        node.drain.delay = settings::Span::from_ms(1);
        node.drain.grace = settings::Span::from_ms(1);
    }
    settings
}

/// Starts a receiver of each of `settings`, in a ring of `members`.
async fn started(settings: &[Settings], members: &[&Settings]) -> (Handle, Vec<Node>) {
    let handle = Handle::alone(formed(members));
    let mut nodes = Vec::with_capacity(settings.len());
    for node in settings {
        nodes.push(Node::governed(node.clone(), &handle).await);
    }
    (handle, nodes)
}

async fn propose(handle: &Handle, before: &[&Settings], after: &[&Settings]) {
    let proposal = Proposal {
        expect: text(before),
        plan: plan(after),
        away: Default::default(),
        retire: Default::default(),
        by: "an operator".to_owned(),
        time: now(),
    };
    handle.propose(Command::Propose(proposal)).await.unwrap();
}

/// Waits until the ring of `members` is the only one.
async fn settled(handle: &Handle, members: &[&Settings]) {
    let want = text(members);
    let mut seen = handle.seen();
    let stable = seen.wait_for(|seen| {
        let view = seen.state.current().map(|epoch| &epoch.view);
        matches!(view, Some(View::Stable(ring)) if ring.plan().text == want) && seen.state.pending.is_none()
    });
    let ended = tokio::time::timeout(Duration::from_secs(30), stable).await;
    assert!(ended.is_ok(), "the change does not end: {:?}", handle.now().state);
}

/// What was acknowledged: of each time, all series.
#[derive(Default)]
struct Ledger {
    acked: AtomicI64,
    stop: AtomicBool,
    retries: AtomicI64,
}

/// Sends a time after the other to whoever listens, each until it is acknowledged.
async fn send(ledger: Arc<Ledger>, doors: Vec<std::net::SocketAddr>, t: i64) {
    for step in 0.. {
        if ledger.stop.load(SeqCst) {
            return;
        }
        for attempt in 0.. {
            let door = doors[(step as usize + attempt) % doors.len()];
            let answer =
                request(door, "POST", "/api/v1/receive", &[], rig::body(&many(t + step, SERIES))).await;
            if answer.status == 204 {
                break;
            }
            // Nothing but a retry helps, and it helps soon.
            assert!(answer.status == 503 && attempt < 50, "{answer:?}");
            ledger.retries.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ledger.acked.store(step + 1, SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All samples that these nodes have between them, by series; twice the same counts once, two values of one time do not exist.
fn union(nodes: &[&Node]) -> BTreeMap<String, BTreeMap<i64, f64>> {
    let mut all: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for node in nodes {
        for n in 0..SERIES {
            let name = format!("m{n}");
            for (time, value) in node.samples("default-tenant", &name) {
                let known = all.entry(name.clone()).or_default().insert(time, value);
                assert!(known.is_none_or(|known| known == value));
            }
        }
    }
    all
}

fn has_all(all: &BTreeMap<String, BTreeMap<i64, f64>>, from: i64, acked: i64) -> Result<(), String> {
    for n in 0..SERIES {
        let times = all.get(&format!("m{n}"));
        let have = |step: i64| times.is_some_and(|times| times.get(&(from + step)) == Some(&(n as f64)));
        if let Some(lost) = (0..acked).find(|step| !have(*step)) {
            return Err(format!("m{n} lacks the sample of step {lost} of {acked}"));
        }
    }
    Ok(())
}

/// Every choice of nodes that the rule calls complete has everything, with what is in the bucket: what those have who are
/// not asked any more.
fn check_reads(handle: &Handle, nodes: &BTreeMap<String, &Node>, from: i64, acked: i64) {
    let state = handle.now().state;
    let (names, to_ask): (Vec<&String>, _) = (nodes.keys().collect(), state.to_ask());
    let mut complete = 0;
    for choice in 0u32..1 << names.len() {
        let chosen: Vec<&String> = names
            .iter()
            .enumerate()
            .filter(|(at, _)| choice & (1 << at) != 0)
            .map(|(_, name)| *name)
            .collect();
        if state.complete(|a| chosen.iter().any(|name| *name == a)).is_ok() {
            complete += 1;
            let bucket =
                nodes.iter().filter(|(name, _)| !to_ask.contains(name.as_str())).map(|(_, node)| *node);
            let all = union(&chosen.iter().map(|name| nodes[*name]).chain(bucket).collect::<Vec<_>>());
            has_all(&all, from, acked).unwrap_or_else(|lost| panic!("{chosen:?} is complete, and {lost}"));
        }
    }
    assert!(complete > 0, "nobody can answer: {state:?}");
}

async fn drained(node: &Node) -> rig::Answer {
    request(node.http, "GET", "/-/drained", &[], Vec::new()).await
}

async fn until_drained(node: &Node) {
    let mut last = String::new();
    for _ in 0..600 {
        let answer = drained(node).await;
        if answer.status == 200 {
            return;
        }
        last = answer.body;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never drained: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_become_five_and_three_again_under_load_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let settings = receivers(dir.path(), 5);
    let (three, five): (Vec<_>, Vec<_>) = (settings[..3].iter().collect(), settings.iter().collect());
    let handle = Handle::alone(formed(&three));
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for node in &three {
        nodes.insert(endpoint(node), Node::governed((*node).clone(), &handle).await);
    }
    let ledger = Arc::new(Ledger::default());
    let t = now() - 60_000;
    let doors = vec![nodes[&endpoint(three[0])].write, nodes[&endpoint(three[1])].write];
    let sending = tokio::spawn(send(Arc::clone(&ledger), doors, t));
    let some = |more: i64| {
        let want = ledger.acked.load(SeqCst) + more;
        let ledger = Arc::clone(&ledger);
        async move { assert!(eventually(|| ledger.acked.load(SeqCst) >= want).await, "no acks any more") }
    };
    let check = |nodes: &BTreeMap<String, Node>| {
        let acked = ledger.acked.load(SeqCst);
        check_reads(&handle, &nodes.iter().map(|(name, node)| (name.clone(), node)).collect(), t, acked);
    };
    some(20).await;
    check(&nodes);

    propose(&handle, &three, &five).await;
    some(10).await;
    assert_eq!(handle.now().state.current().unwrap().number, 1, "nobody waits for who is not there yet");
    for node in &five[3..] {
        nodes.insert(endpoint(node), Node::governed((*node).clone(), &handle).await);
    }
    settled(&handle, &five).await;
    check(&nodes);
    some(20).await;
    check(&nodes);
    let new = &nodes[&endpoint(five[3])];
    assert!(union(&[new]).values().any(|times| !times.is_empty()), "the new one takes its share");
    assert_eq!(drained(new).await.status, 503);

    // One of those that stay ends in the middle of the change, and comes back.
    nodes.remove(&endpoint(three[2])).unwrap().stop().await.unwrap();
    propose(&handle, &five, &three).await;
    some(20).await;
    nodes.insert(endpoint(three[2]), Node::governed(three[2].clone(), &handle).await);
    settled(&handle, &three).await;
    some(10).await;
    for node in &five[3..] {
        let leaving = &nodes[&endpoint(node)];
        until_drained(leaving).await;
        let engine = leaving.receive.tsdb().unwrap();
        assert_eq!(engine.head_stats().samples, 0);
        for tenant in engine.tenants() {
            for block in engine.local_blocks(&tenant) {
                assert!(dir.path().join("bucket").join(block.id.to_string()).join("meta.json").exists());
            }
        }
    }
    check(&nodes);
    // What the two that leave have is in the bucket; who stays has the rest of what a complete answer needs.
    let mut gone = BTreeMap::new();
    for node in &five[3..] {
        let name = endpoint(node);
        gone.insert(name.clone(), nodes.remove(&name).unwrap());
    }
    let state = handle.now().state;
    assert!(state.to_ask().iter().all(|name| nodes.contains_key(*name)), "{:?}", state.to_ask());
    ledger.stop.store(true, SeqCst);
    sending.await.unwrap();
    let bucket: Vec<&Node> = gone.values().collect();
    for left_out in [None, Some(&three[0]), Some(&three[2])] {
        let asked: Vec<&Node> = nodes
            .iter()
            .filter(|(name, _)| left_out.is_none_or(|o| endpoint(o) != **name))
            .map(|(_, n)| n)
            .collect();
        let all = union(&asked.into_iter().chain(bucket.iter().copied()).collect::<Vec<_>>());
        has_all(&all, t, ledger.acked.load(SeqCst)).unwrap();
    }
    Node::stop_all(nodes.into_values().chain(gone.into_values())).await;
}

/// A router that hears nothing of two changes is told by those it writes to, within the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_slept_through_two_epochs_is_corrected_and_not_failed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = receivers(dir.path(), 5);
    let (three, four): (Vec<_>, Vec<_>) = (settings[..3].iter().collect(), settings[1..].iter().collect());
    let (handle, nodes) = started(&settings, &three).await;
    let mut asleep = rig::single(&dir.path().join("router"));
    asleep.replication = settings[0].replication.clone();
    asleep.replication.local_endpoint = None;
    let router = Node::governed(asleep, &Handle::alone(formed(&three))).await;
    let t = now();
    assert_eq!(router.post(&many(t, SERIES)).await.status, 204);
    propose(&handle, &three, &four).await;
    settled(&handle, &four).await;
    let number = handle.now().state.current().unwrap().number;
    assert!(
        eventually(|| {
            let state = handle.now().state;
            settings.iter().all(|s| state.nodes.get(&endpoint(s)).is_none_or(|n| n.min_epoch == number))
        })
        .await
    );
    let answer = router.post(&many(t + 1, SERIES)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let state = handle.now().state;
    let ring = state.current().unwrap().view.target();
    let placed = ring.rings().resolve("default-tenant").unwrap();
    for n in 0..SERIES {
        let labels = rig::labels(&[("__name__", &format!("m{n}"))]);
        let owners = placed.replicas(labels.placement_hash("default-tenant"));
        let names: Vec<&str> =
            owners.iter().map(|at| ring.rings().endpoints()[usize::from(*at)].address.as_str()).collect();
        let holders = || {
            let has =
                |node: &&Node| node.samples("default-tenant", &format!("m{n}")).iter().any(|s| s.0 == t + 1);
            let at = settings.iter().zip(&nodes).filter(|(_, node)| has(node));
            at.map(|(settings, _)| endpoint(settings)).collect::<Vec<_>>()
        };
        assert!(eventually(|| holders().len() >= 3).await, "{:?} for {names:?}", holders());
        assert!(
            names.iter().all(|name| holders().iter().any(|holder| holder == name)),
            "{names:?}: {:?}",
            holders()
        );
    }
    router.stop().await.unwrap();
    Node::stop_all(nodes).await;
}

/// A copy of one sample, as it comes from a peer.
fn write(t: i64, ring_epoch: u64) -> rpc::WriteRequest {
    let mut batch = storage::WriteBatch::default();
    let labels = rig::labels(&[("__name__", "late")]);
    let samples = [model::Sample { timestamp: t, value: 1.0 }];
    batch.push(labels.as_bytes(), labels.placement_hash("team"), samples);
    let tenant = model::TenantId::new("team").unwrap();
    let groups = vec![rpc::TenantGroup { tenant, batch }];
    rpc::WriteRequest { groups, replica: 1, judged_at: Some(t), ring_epoch }
}

/// Whoever places by a ring of its own, Thanos or a router that was never told of the control plane, cannot have a write
/// acknowledged by who may be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_the_ring_takes_nothing_that_names_no_epoch_but_hints() {
    let dir = tempfile::tempdir().unwrap();
    let settings = receivers(dir.path(), 4);
    let (four, three): (Vec<_>, Vec<_>) = (settings.iter().collect(), settings[..3].iter().collect());
    let (handle, nodes) = started(&settings, &four).await;
    let promised = || {
        let state = handle.now().state;
        let number = state.current().map(|epoch| epoch.number);
        settings.iter().all(|s| state.nodes.get(&endpoint(s)).is_none_or(|n| Some(n.min_epoch) == number))
    };
    let t = now();
    let door = nodes[3].receive.write_backend();
    assert!(eventually(promised).await);
    assert!(door.write(write(t, 0)).await.is_ok());
    propose(&handle, &four, &three).await;
    settled(&handle, &three).await;
    until_drained(&nodes[3]).await;
    let error = door.write(write(t + 1, 0)).await.unwrap_err();
    assert_eq!(error.kind, model::Kind::Unavailable);
    assert!(error.message.contains("not in the ring that was agreed on"), "{error}");
    assert!(nodes[3].samples("team", "late").iter().all(|sample| sample.0 != t + 1));
    assert!(door.write(write(t + 2, rpc::ANY_EPOCH)).await.is_ok());
    assert!(nodes[0].receive.write_backend().write(write(t + 1, 0)).await.is_ok());
    // It is back.
    propose(&handle, &three, &four).await;
    settled(&handle, &four).await;
    assert!(eventually(promised).await);
    assert!(door.write(write(t + 3, 0)).await.is_ok());
    drop(door);
    Node::stop_all(nodes).await;
}

/// The promise outlives the process: whoever comes back refuses what it refused, before it has heard anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_holds_over_a_restart_and_an_empty_disk_takes_a_new_place() {
    let dir = tempfile::tempdir().unwrap();
    let settings = receivers(dir.path(), 3);
    let three: Vec<_> = settings.iter().collect();
    let (handle, mut nodes) = started(&settings, &three).await;
    let t = now();
    assert_eq!(nodes[0].post(&many(t, SERIES)).await.status, 204);
    let min_epoch = |handle: &Handle| handle.now().state.nodes[&endpoint(&settings[2])].min_epoch;
    assert!(eventually(|| min_epoch(&handle) == 1).await);

    // Its disk is gone: it counts from a new epoch on, and the others go on in it.
    nodes.pop().unwrap().stop().await.unwrap();
    runtime::World::real().disk.remove_dir_all(&settings[2].data_dir).unwrap();
    nodes.push(Node::governed(settings[2].clone(), &handle).await);
    assert!(
        eventually(|| handle.now().state.current().unwrap().number == 2 && min_epoch(&handle) == 2).await
    );
    let state = handle.now().state;
    assert_eq!(state.nodes[&endpoint(&settings[2])].joined, 2);
    let of = |some: &[usize]| {
        let names: Vec<String> = some.iter().map(|at| endpoint(&settings[*at])).collect();
        state.complete(|a| names.iter().any(|name| name == a)).is_ok()
    };
    assert!(of(&[0, 1]) && !of(&[0, 2]));
    assert_eq!(nodes[0].post(&many(t + 1, SERIES)).await.status, 204);

    // A write of the first epoch is told of the second by who is asked, also right after a restart.
    nodes.pop().unwrap().stop().await.unwrap();
    let deaf = Node::governed(settings[2].clone(), &Handle::alone(State::default())).await;
    let door = deaf.receive.write_backend();
    let error = door.write(write(t, 1)).await.unwrap_err();
    assert_eq!(rpc::StaleEpoch::of(&error).map(|stale| stale.epoch), Some(2), "{error}");
    assert!(deaf.samples("team", "late").is_empty());
    assert!(door.write(write(t, 2)).await.is_ok() && door.write(write(t, 0)).await.is_ok());
    // It knows no ring to place by, and says so.
    let answer = deaf.post(&[series("up", &[(t, 1.0)])]).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    // It holds the catalog as well.
    drop(door);
    deaf.stop().await.unwrap();

    // Another cluster's control plane is not followed.
    let mut other = formed(&three);
    other.cluster = "another".to_owned();
    let mut message = String::new();
    for _ in 0..50 {
        let stranger = Node::governed(settings[2].clone(), &Handle::alone(other.clone())).await;
        message = stranger.ended().await.unwrap_err().message;
        // The one before may still be closing its catalog.
        if !message.contains("is in use") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(message.contains("belong to cluster c"), "{message}");
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_delays_a_drain_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = receivers(dir.path(), 4);
    let (four, three): (Vec<_>, Vec<_>) = (settings.iter().collect(), settings[..3].iter().collect());
    let (handle, nodes) = started(&settings, &four).await;
    let t = now();
    for step in 0..5 {
        assert_eq!(nodes[0].post(&many(t + step, SERIES)).await.status, 204);
    }
    // An ack waits for two copies; the third, on whoever is to leave, may be on its way.
    let copies = |node: &Node| node.receive.tsdb().map_or(0, |engine| engine.head_stats().samples);
    let all = || nodes.iter().map(copies).sum::<u64>() == 3 * 5 * SERIES as u64;
    assert!(eventually(all).await, "{:?}", nodes.iter().map(copies).collect::<Vec<_>>());
    // Nothing can be written below a file.
    let bucket = dir.path().join("bucket");
    let disk = runtime::World::real().disk;
    if disk.exists(&bucket) {
        disk.remove_dir_all(&bucket).unwrap();
    }
    disk.write_atomic(&bucket, b"in the way").unwrap();
    propose(&handle, &four, &three).await;
    settled(&handle, &three).await;
    let mut told = String::new();
    for _ in 0..200 {
        told = drained(&nodes[3]).await.body;
        if told.contains("blocks to be uploaded") && !told.contains(" 0 blocks to be uploaded") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.contains("what was acknowledged in epoch 1 is here: 0 samples"), "{told}");
    assert!(told.contains("1 blocks to be uploaded"), "{told}");
    // It is asked for as long as that.
    assert!(handle.now().state.to_ask().contains(endpoint(&settings[3]).as_str()));
    disk.remove_file(&bucket).unwrap();
    disk.create_dir_all(&bucket).unwrap();
    until_drained(&nodes[3]).await;
    assert!(!handle.now().state.to_ask().contains(endpoint(&settings[3]).as_str()));
    assert_eq!(disk.list(&bucket).unwrap().iter().filter(|name| name.len() == 26).count(), 1);
    Node::stop_all(nodes).await;
}
