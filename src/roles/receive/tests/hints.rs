//! What a receiver misses while it is away comes to it when it is back: over restarts of those who keep it, once, beside
//! what is new; and to others where it never comes back.

mod rig;

use rig::{Node, cluster, eventually, many, now, series, times};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_missed_comes_when_it_is_back_even_if_its_keeper_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 3, 3);
    let mut nodes = Vec::new();
    for settings in &settings {
        nodes.push(Node::start(settings.clone()).await);
    }
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
    for settings in &settings {
        nodes.push(Node::start(settings.clone()).await);
    }
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
    for node in nodes {
        node.stop().await.unwrap();
    }
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
