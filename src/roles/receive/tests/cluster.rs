//! Three receivers of one ring over loopback: acks at the quorum, verdicts whoever gives them first, and what
//! a lost receiver changes.

mod rig;

use std::time::Duration;

use rig::{Node, Sent, body, cluster, now, series, single};
use settings::LabelPair;

fn many(t: i64, count: usize) -> Vec<Sent> {
    (0..count).map(|n| series(&format!("m{n}"), &[(t, n as f64)])).collect()
}

/// Waits for what goes on in the background after an ack.
async fn eventually(mut what: impl FnMut() -> bool) -> bool {
    for _ in 0..200 {
        if what() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_arrives_and_one_lost_receiver_changes_nothing_for_writers() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 3);
    let mut nodes = Node::start_all(&settings).await;
    let t = now();
    let answer = nodes[0].post(&many(t, 50)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    for node in &nodes {
        let all = || (0..50).all(|n| node.samples("default-tenant", &format!("m{n}")) == [(t, n as f64)]);
        assert!(eventually(all).await, "a copy is missing");
    }
    // The same again from another door: success, and nothing twice.
    assert_eq!(nodes[1].post(&many(t, 50)).await.status, 204);
    assert_eq!(nodes[2].samples("default-tenant", "m7"), [(t, 7.0)]);

    // One sample that each replica refuses: told once, the others kept, whoever answers first.
    let mut mixed = many(t + 1, 5);
    mixed.push(series("m7", &[(t, 8.0)]));
    let answer = nodes[0].post(&mixed).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("1 of 6 samples refused"), "{answer:?}");
    assert!(answer.body.contains("duplicate_sample_for_timestamp: 1; first: m7 at"), "{answer:?}");
    assert!(eventually(|| nodes[1].samples("default-tenant", "m3").len() == 2).await);

    // One receiver down: writes go on.
    nodes.pop().unwrap().stop().await.unwrap();
    let answer = nodes[0].post(&many(t + 2, 50)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    // Two down: a retry can help, and the sender is told when. What the one has is not lost.
    nodes.pop().unwrap().stop().await.unwrap();
    let answer = nodes[0].post(&many(t + 3, 50)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    assert!(answer.body.contains("50 of 50 samples"), "{answer:?}");

    // One comes back: the retry succeeds, and the sample that was stored once is there once.
    nodes.push(Node::start(settings[1].clone()).await);
    let mut status = 0;
    for _ in 0..100 {
        status = nodes[0].post(&many(t + 3, 50)).await.status;
        if status == 204 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 204);
    let times =
        |node: &Node| node.samples("default-tenant", "m9").iter().map(|s| s.0 - t).collect::<Vec<_>>();
    assert_eq!(times(&nodes[0]), [0, 2, 3]);
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_need_both_unless_told_otherwise() {
    for (quorum, status) in [(receive::QuorumName::Majority, 503), (receive::QuorumName::One, 204)] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = cluster(dir.path(), 2, 2);
        for node in &mut settings {
            node.replication.quorum = quorum;
        }
        let node = Node::start(settings[0].clone()).await;
        assert_eq!(node.post(&[series("up", &[(now(), 1.0)])]).await.status, status, "{quorum:?}");
        node.stop().await.unwrap();
    }
}

/// Ingestors without a ring keep one copy each and tell queriers of all that the router keeps.
#[tokio::test(flavor = "multi_thread")]
async fn ingestors_behind_a_router_say_how_many_copies_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    let mut router = single(&dir.path().join("router"));
    router.replication = settings[0].replication.clone();
    router.replication.local_endpoint = None;
    for ingestor in &mut settings {
        ingestor.replication.hashrings = None;
        ingestor.replication.local_endpoint = None;
    }
    let nodes = Node::start_all(&settings).await;
    let router = Node::start(router).await;
    let t = now();
    let answer = router.post(&[series("up", &[(t, 1.0)])]).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(
        eventually(|| nodes.iter().all(|node| node.samples("default-tenant", "up") == [(t, 1.0)])).await,
        "each ingestor has its one copy"
    );
    for node in &nodes {
        let info = node.receive.store_backend().advertised().node.unwrap();
        assert_eq!((info.replication_factor, info.write_quorum), (3, 2));
        // What comes without a router is stored here alone, and is answered.
        assert_eq!(node.post(&[series("alone", &[(t, 1.0)])]).await.status, 204);
    }
    router.stop().await.unwrap();
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_stores_nothing_and_needs_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 2, 2);
    let nodes = Node::start_all(&settings).await;
    let mut router = single(&dir.path().join("router"));
    router.replication = settings[0].replication.clone();
    router.replication.local_endpoint = None;
    let folder = router.data_dir.clone();
    let router = Node::start(router).await;
    let t = now();
    // It places anew what claims to be a copy already.
    let headers = [("THANOS-TENANT", "team"), ("THANOS-REPLICA", "1")];
    let answer = router.post_with("/api/v1/write", &headers, body(&[series("up", &[(t, 1.0)])])).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    for node in &nodes {
        assert_eq!(node.samples("team", "up"), [(t, 1.0)]);
    }
    assert!(router.receive.tsdb().is_none() && !folder.exists());
    router.stop().await.unwrap();
    // What says that it is a copy is stored where it arrives, and only there.
    let answer = nodes[0].post_with("/api/v1/write", &headers, body(&[series("copy", &[(t, 1.0)])])).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(nodes[0].samples("team", "copy"), [(t, 1.0)]);
    assert!(nodes[1].samples("team", "copy").is_empty());
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_labels_end_the_start_and_blocks_wait_until_they_are_seen_to_differ() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 2, 2);
    for node in &mut settings {
        node.replication.quorum = receive::QuorumName::One;
        let folder = dir.path().join("bucket");
        node.objstore.config =
            Some(format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", folder.display()));
    }
    let first = Node::start(settings[0].clone()).await;
    assert_eq!(first.post(&[series("up", &[(now(), 1.0)])]).await.status, 204);
    // The peer was never seen: nothing goes to the bucket yet.
    let cut = rig::request(first.http, "POST", "/-/cut", &[], Vec::new()).await;
    assert_eq!(cut.status, 503, "{cut:?}");
    assert!(cut.body.contains("uploads wait until every peer"), "{cut:?}");

    let mut twin = settings[1].clone();
    twin.labels = vec![LabelPair::new("replica", "r0")];
    let error = Node::start(twin).await.ended().await.unwrap_err();
    assert!(error.message.contains("same external labels"), "{error}");

    let second = Node::start(settings[1].clone()).await;
    let mut status = 0;
    for _ in 0..100 {
        let cut = rig::request(first.http, "POST", "/-/cut", &[], Vec::new()).await;
        status = cut.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 200);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_file_is_reloaded_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk = runtime::World::real().disk;
    let mut settings = cluster(dir.path(), 2, 1);
    let path = dir.path().join("ring.json");
    let [first, second] = [0, 1].map(|n| settings[n].replication.local_endpoint.clone().unwrap());
    disk.write_atomic(&path, format!("[{{\"endpoints\": [\"{first}\"]}}]").as_bytes()).unwrap();
    for node in &mut settings {
        node.replication.hashrings = None;
        node.replication.hashrings_file = Some(path.clone());
    }
    let nodes = Node::start_all(&settings).await;
    let t = now();
    assert_eq!(nodes[0].post(&many(t, 40)).await.status, 204);
    assert!(nodes[1].samples("default-tenant", "m1").is_empty());

    disk.write_atomic(&path, b"[\n{\"endpoints\": [\"a\"]}]").unwrap();
    let reload = rig::request(nodes[0].http, "POST", "/-/reload", &[], Vec::new()).await;
    assert_eq!(reload.status, 500, "{reload:?}");
    assert!(reload.body.contains("line 2") && reload.body.contains("stays in use"), "{reload:?}");
    assert_eq!(nodes[0].post(&many(t + 1, 40)).await.status, 204);

    // The change is seen without being told of, too.
    disk.write_atomic(&path, format!("[{{\"endpoints\": [\"{first}\", \"{second}\"]}}]").as_bytes()).unwrap();
    let mut step = 2;
    let moved = |nodes: &[Node]| {
        (0..40).filter(|n| !nodes[1].samples("default-tenant", &format!("m{n}")).is_empty()).count()
    };
    while moved(&nodes) == 0 && step < 100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(nodes[0].post(&many(t + step, 40)).await.status, 204);
        step += 1;
    }
    let moved = moved(&nodes);
    assert!((5..35).contains(&moved), "{moved} of 40 series moved to the newcomer");
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_costs_its_own_copy_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    for node in &mut settings {
        // Also how long the end waits for copies that cannot be delivered.
        node.replication.forward_timeout = settings::Span::from_secs(1);
    }
    // The third endpoint takes connections and never answers.
    let silent = settings[2].replication.local_endpoint.clone().unwrap();
    let _silent = tokio::net::TcpListener::bind(&silent).await.unwrap();
    let nodes = Node::start_all(&settings[..2]).await;
    let t = now();
    for step in 0..20 {
        let began = now();
        assert_eq!(nodes[step % 2].post(&many(t + step as i64, 20)).await.status, 204);
        assert!(now() - began < 900, "write {step} took {} ms", now() - began);
    }
    Node::stop_all(nodes).await;
}

/// What peers send over gRPC: a copy is stored where it arrives, at the time its door judged; what is no copy yet
/// is replicated from here.
#[tokio::test(flavor = "multi_thread")]
async fn peers_writes_are_stored_or_placed_by_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Node::start_all(&cluster(dir.path(), 2, 2)).await;
    let tenant = model::TenantId::new("team").unwrap();
    let t = now();
    let request = |name: &str, time: i64, replica, judged_at| {
        let mut batch = storage::WriteBatch::default();
        let labels = rig::labels(&[("__name__", name)]);
        let samples = [model::Sample { timestamp: time, value: 1.0 }];
        batch.push(labels.as_bytes(), labels.placement_hash("team"), samples);
        rpc::WriteRequest {
            groups: vec![rpc::TenantGroup { tenant: tenant.clone(), batch }],
            replica,
            judged_at,
            ring_epoch: 0,
        }
    };
    let door = nodes[0].receive.write_backend();
    let stored = vec![vec![storage::Verdict::Stored]];
    assert_eq!(door.write(request("copy", t, 2, Some(t))).await.unwrap(), stored);
    assert!(nodes[1].samples("team", "copy").is_empty());
    assert_eq!(door.write(request("fresh", t, 0, None)).await.unwrap(), stored);
    assert_eq!(nodes[0].samples("team", "fresh"), [(t, 1.0)]);
    assert_eq!(nodes[1].samples("team", "fresh"), [(t, 1.0)]);
    // Three days old: refused by the clock here, but its door took it three days ago.
    let old = t - 72 * 3_600_000;
    let late = storage::Verdict::Refused(storage::Refusal::TooOld);
    assert_eq!(door.write(request("late", old, 1, None)).await.unwrap(), vec![vec![late]]);
    assert_eq!(door.write(request("late", old, 1, Some(old))).await.unwrap(), stored);
    Node::stop_all(nodes).await;
}
