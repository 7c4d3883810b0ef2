//! What a receiver misses while it is away comes to it when it is back: over restarts of those who keep it, once, beside
//! what is new; and to others where it never comes back.

mod rig;

use receive::Bound;
use rig::{Node, cluster, eventually, eventually_within, many, now, series, times};
use runtime::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_missed_comes_when_it_is_back_even_if_its_keeper_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 3);
    let mut nodes = Node::start_all(&settings).await;
    let t = now();
    assert_eq!(nodes[0].post(&many(t, 30)).await.status, 204);
    assert!(eventually(|| times(&nodes[2], "m29", t) == [0]).await);
    nodes.pop().unwrap().stop().await.unwrap();
    for step in 1..=20 {
        // What its door took late, and what is far behind.
        let mut sent = many(t + step, 30);
        sent.push(series("late", &[(t - step * 60_000, 1.0)]));
        let answer = nodes[(step % 2) as usize].post(&sent).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    // The two that keep it restart.
    while let Some(node) = nodes.pop() {
        node.stop().await.unwrap();
    }
    let world = runtime::World::real();
    let seen = catalog::inspect(&world, &settings[0].data_dir.join("catalog")).unwrap();
    let away = settings[2].replication.local_endpoint.clone().unwrap();
    let waiting: u64 = seen.hints[&away].files.iter().map(|file| file.samples).sum();
    assert_eq!(waiting, 10 * 31, "{seen:?}");
    nodes.extend(Node::start_all(&settings).await);
    // Beside what is new.
    for step in 21..=30 {
        assert_eq!(nodes[0].post(&many(t + step, 30)).await.status, 204);
    }
    let all: Vec<i64> = (0..=30).collect();
    for name in ["m0", "m17", "m29"] {
        let complete = eventually(|| times(&nodes[2], name, t) == all).await;
        assert!(complete, "{name}: {:?}", times(&nodes[2], name, t));
    }
    assert_eq!(times(&nodes[2], "late", t).len(), 20);
    // What is delivered is gone from the disk.
    for at in [0, 1] {
        let folder = settings[at].data_dir.join("hints");
        assert!(eventually(|| world.disk.list(&folder).unwrap().is_empty()).await);
    }
    Node::stop_all(nodes).await;
}

/// A disk has damaged the files in which a peer's hints wait: all that can be read of them comes to it, and each file as it was
/// is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_of_damaged_hints_comes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 3);
    let mut nodes = Node::start_all(&settings[..2]).await;
    let t = now();
    // One at a time, so that each is a record of its own.
    for step in 0..20 {
        assert_eq!(nodes[0].post(&many(t + step, 30)).await.status, 204);
    }
    while let Some(node) = nodes.pop() {
        node.stop().await.unwrap();
    }
    let disk = World::real().disk;
    let hints = settings[0].data_dir.join("hints");
    let folder = hints.join(settings[2].replication.local_endpoint.clone().unwrap().replace(':', "_3a"));
    let segment = folder.join("segment-000000000001");
    let mut bytes = disk.read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[5] ^= 1;
    bytes[middle] ^= 1;
    disk.write_atomic(&segment, &bytes).unwrap();

    nodes.extend(Node::start_all(&settings).await);
    let has = || -> Vec<usize> { (0..30).map(|n| times(&nodes[2], &format!("m{n}"), t).len()).collect() };
    // One hint of one write is lost.
    assert!(eventually(|| has().iter().all(|n| *n >= 19)).await, "{:?}", has());
    assert!(has().contains(&19), "{:?}", has());
    let names = disk.list(&hints).unwrap();
    let aside = names.iter().find(|name| name.contains(".damaged-")).unwrap();
    assert_eq!(disk.read(&hints.join(aside).join("segment-000000000001")).unwrap(), bytes);
    Node::stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_missed_is_placed_anew_where_it_left_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 2);
    let path = dir.path().join("ring.json");
    let endpoints: Vec<String> =
        settings.iter().map(|node| node.replication.local_endpoint.clone().unwrap()).collect();
    let disk = runtime::World::real().disk;
    let ring = |of: &[usize]| {
        let of: Vec<String> = of.iter().map(|at| format!("{:?}", endpoints[*at])).collect();
        disk.write_atomic(&path, format!("[{{\"endpoints\": [{}]}}]", of.join(", ")).as_bytes()).unwrap();
    };
    for node in &mut settings {
        node.replication.hashrings = None;
        node.replication.hashrings_file = Some(path.clone());
        node.replication.quorum = receive::QuorumName::One;
    }
    ring(&[0, 1]);
    let first = Node::start(settings[0].clone()).await;
    let t = now();
    // The second never comes.
    for step in 0..5 {
        let answer = first.post(&many(t + step, 20)).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let third = Node::start(settings[2].clone()).await;
    assert!(times(&third, "m3", t).is_empty());
    ring(&[0, 2]);
    let reload = rig::request(first.http, "POST", "/-/reload", &[], Vec::new()).await;
    assert_eq!(reload.status, 200, "{reload:?}");
    let complete = eventually(|| times(&third, "m3", t) == [0, 1, 2, 3, 4]).await;
    assert!(complete, "{:?}", times(&third, "m3", t));
    assert_eq!(times(&first, "m3", t), [0, 1, 2, 3, 4]);
    first.stop().await.unwrap();
    third.stop().await.unwrap();
}

/// The doors of a node are open while its log is being replayed: what enough others take is acknowledged there, and its own
/// copy is brought once there is a log to take it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_passed_on_before_it_could_store_comes_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    let bound = Bound::bind(settings.remove(0), World::real()).await.unwrap();
    let mut others = Vec::new();
    for settings in settings {
        others.push(Node::start(settings).await);
    }
    let t = now();
    let batch = |t: i64| {
        let mut batch = storage::WriteBatch::default();
        let labels = rig::labels(&[("__name__", "m0")]);
        let samples = [model::Sample { timestamp: t, value: 1.0 }];
        batch.push(labels.as_bytes(), labels.placement_hash("default-tenant"), samples);
        batch
    };
    let tenant = model::TenantId::new("default-tenant").unwrap();
    for step in 0..5 {
        let groups = vec![rpc::TenantGroup { tenant: tenant.clone(), batch: batch(t + step) }];
        let request = rpc::WriteRequest { groups, replica: 0, judged_at: Some(t), ring_epoch: 0 };
        let verdicts = bound.receive().write_backend().write(request).await.unwrap();
        assert_eq!(verdicts, [[storage::Verdict::Stored]]);
    }
    assert!(bound.receive().tsdb().is_none());
    let first = Node::run(bound).await;
    let complete = eventually(|| times(&first, "m0", t) == [0, 1, 2, 3, 4]).await;
    assert!(complete, "{:?}", times(&first, "m0", t));
    Node::stop_all(others.into_iter().chain([first])).await;
}

/// More is missed at once than has place in the queues: writes wait, or are sent again, and the peer has all of them in the end.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_beyond_every_queue_is_there_when_the_peer_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    for node in &mut settings {
        node.replication.forward_queue = settings::ByteSize::from_kib(16);
    }
    let mut nodes = Node::start_all(&settings[..2]).await;
    let t = now();
    let door = &nodes[0];
    let sent = futures::future::join_all((0..64).map(|step| async move {
        for _ in 0..1000 {
            let status = door.post(&many(t + step, 40)).await.status;
            if status == 204 {
                return;
            }
            assert_eq!(status, 503);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("never taken");
    }));
    sent.await;
    nodes.push(Node::start(settings[2].clone()).await);
    let all: Vec<i64> = (0..64).collect();
    for name in ["m0", "m17", "m39"] {
        let complete = eventually(|| times(&nodes[2], name, t) == all).await;
        assert!(complete, "{name}: {:?}", times(&nodes[2], name, t));
    }
    Node::stop_all(nodes).await;
}

/// A replica has newer samples of a series than the others, which take an old one in order. It is not in order there, and
/// comes as a hint.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_for_one_replica_alone_comes_to_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 3);
    let nodes = Node::start_all(&settings).await;
    let t = now();
    // Only the third has this: a write that says it is a copy is stored where it comes.
    let mut batch = storage::WriteBatch::default();
    let labels = rig::labels(&[("__name__", "m0")]);
    let samples = [model::Sample { timestamp: t, value: 1.0 }];
    batch.push(labels.as_bytes(), labels.placement_hash("default-tenant"), samples);
    let tenant = model::TenantId::new("default-tenant").unwrap();
    let groups = vec![rpc::TenantGroup { tenant, batch }];
    let request = rpc::WriteRequest { groups, replica: 1, judged_at: Some(t), ring_epoch: 0 };
    nodes[2].receive.write_backend().write(request).await.unwrap();
    let old = t - 10 * 3_600_000;
    // The second of it is too old for everybody.
    let sent = [series("m0", &[(old, 1.0), (t - 100 * 3_600_000, 2.0)])];
    let answer = nodes[0].post(&sent).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    for node in &nodes {
        assert!(
            eventually(|| times(node, "m0", old).first() == Some(&0)).await,
            "{:?}",
            times(node, "m0", old)
        );
        let seen = times(node, "m0", old);
        assert!(seen == [0] || seen == [0, t - old], "{seen:?}");
    }
    Node::stop_all(nodes).await;
}

/// Four segments of the log are not for hints: where the disk has no more than that, none are taken, and writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn hints_leave_the_log_its_part_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = testkit::SmallDisk::mount(&dir.path().join("small"), 64) else { return };
    let mut settings = cluster(dir.path(), 3, 3);
    let away = settings.pop().unwrap().replication.local_endpoint.unwrap().replace(':', "_3a");
    for (at, node) in settings.iter_mut().enumerate() {
        node.replication.hints_dir = Some(small.path().join(format!("{at}")));
    }
    let nodes = Node::start_all(settings).await;
    let disk = World::real().disk;
    let folder = small.path().join("0").join(away);
    let t = now();
    let ballast = small.fill(10 << 20);
    assert_eq!(nodes[0].post(&many(t, 30)).await.status, 204);
    assert!(!eventually_within(20, || disk.exists(&folder)).await);
    disk.remove_file(&ballast).unwrap();
    assert_eq!(nodes[0].post(&many(t + 1, 30)).await.status, 204);
    assert!(eventually(|| disk.exists(&folder)).await);
    Node::stop_all(nodes).await;
}
