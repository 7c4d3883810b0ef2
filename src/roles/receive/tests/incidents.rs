//! What has gone wrong elsewhere, with a ring: each test is named after its line in the list of incidents.

mod rig;

use std::time::Duration;

use prost::Message;
use rig::{Node, cluster, eventually, many, now, series, times};
use wire::pb::io::prometheus::write::v2;

const HOUR: i64 = 3_600_000;

/// One of three is down and the sender sends again what is stored already: a success each time, whichever door and
/// whatever comes with it; what is refused is refused each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_stored_already_is_a_success_while_a_peer_is_down_t1() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Node::start_all(&cluster(dir.path(), 3, 3)).await;
    let t = now();
    assert_eq!(nodes[0].post(&many(t, 20)).await.status, 204);
    nodes.pop().unwrap().stop().await.unwrap();
    for round in 0..6 {
        let door = &nodes[round % 2];
        let answer = door.post(&many(t, 20)).await;
        assert_eq!(answer.status, 204, "round {round}: {answer:?}");
        // Some are new, some are there.
        let mut mixed = many(t, 20);
        mixed.extend(many(t + 1, 20));
        assert_eq!(door.post(&mixed).await.status, 204, "round {round}");
        // One is too old for its series.
        mixed.push(series("m3", &[(t - 5 * HOUR, 1.0)]));
        let answer = door.post(&mixed).await;
        assert_eq!(answer.status, 400, "round {round}: {answer:?}");
        assert!(answer.body.contains("1 of 41 samples refused"), "{answer:?}");
    }
    assert_eq!(times(&nodes[0], "m3", t), [0, 1]);
    Node::stop_all(nodes).await;
}

/// One sample of five thousand is out of order: the others are stored on every replica, and the sender is told once.
#[tokio::test(flavor = "multi_thread")]
async fn one_sample_out_of_order_among_five_thousand_costs_itself_t2() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Node::start_all(&cluster(dir.path(), 3, 3)).await;
    let t = now();
    assert_eq!(nodes[0].post(&[series("m7", &[(t, 7.0)])]).await.status, 204);
    let mut sent = many(t + 1, 4999);
    sent.push(series("m7", &[(t - 5 * HOUR, 1.0)]));
    let answer = nodes[1].post(&sent).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("1 of 5000 samples refused"), "{answer:?}");
    for node in &nodes {
        for name in ["m0", "m2500", "m4998"] {
            assert!(eventually(|| times(node, name, t) == [1]).await, "{name}");
        }
        assert_eq!(times(node, "m7", t), [0, 1]);
    }

    // The same in 2.0, where the sender counts.
    let mut symbols = vec![String::new(), "__name__".to_owned()];
    let mut timeseries = Vec::new();
    for at in 0..5000 {
        symbols.push(format!("v{at}"));
        let timestamp = if at == 4321 { t - 72 * HOUR } else { t };
        timeseries.push(v2::TimeSeries {
            labels_refs: vec![1, symbols.len() as u32 - 1],
            samples: vec![v2::Sample { value: 1.0, timestamp, start_timestamp: 0 }],
            ..Default::default()
        });
    }
    let plain = v2::Request { symbols, timeseries }.encode_to_vec();
    let body = wire::remote_write::compress(&plain).unwrap();
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ];
    let answer = nodes[2].post_with("/api/v1/write", &headers, body).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.head.contains("x-prometheus-remote-write-samples-written: 4999"), "{answer:?}");
    Node::stop_all(nodes).await;
}

/// A peer whose host swallows the first packet of a connection: nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cannot_be_dialled_costs_nothing_t4() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    let address = settings[2].replication.local_endpoint.clone().unwrap();
    let hole = tokio::net::TcpSocket::new_v4().unwrap();
    hole.bind(address.parse().unwrap()).unwrap();
    let _hole = hole.listen(1).unwrap();
    // Connections that nobody accepts, until the next one is not even answered.
    let mut held = Vec::new();
    let connect = || tokio::net::TcpStream::connect(&address);
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), connect()).await {
        held.push(stream);
        assert!(held.len() < 50, "the hole has no bottom");
    }
    for node in &mut settings {
        node.replication.forward_timeout = settings::Span::from_secs(1);
    }
    let nodes = Node::start_all(&settings[..2]).await;
    let t = now();
    for step in 0..20 {
        let answer = nodes[step % 2].post(&many(t + step as i64, 20)).await;
        // Beyond its own second a write is a 503.
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    assert_eq!(times(&nodes[1], "m3", t).len(), 20);
    Node::stop_all(nodes).await;
}

/// While a node is away the others have not one series more, and it has everything when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_moves_no_series_t19() {
    let dir = tempfile::tempdir().unwrap();
    let settings = cluster(dir.path(), 5, 3);
    let mut nodes = Node::start_all(&settings).await;
    let t = now();
    assert_eq!(nodes[0].post(&many(t, 200)).await.status, 204);
    let tenant = model::TenantId::new("default-tenant").unwrap();
    let held = |nodes: &[Node]| -> Vec<u64> {
        nodes.iter().map(|node| node.receive.tsdb().unwrap().active_series(&tenant)).collect()
    };
    assert!(eventually(|| held(&nodes).iter().sum::<u64>() == 600).await, "{:?}", held(&nodes));
    let before = held(&nodes);
    nodes.pop().unwrap().stop().await.unwrap();
    for step in 1..=10 {
        let answer = nodes[(step % 4) as usize].post(&many(t + step, 200)).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    assert_eq!(held(&nodes), before[..4]);
    nodes.push(Node::start(settings[4].clone()).await);
    let whole = |node: &Node| {
        let mine = (0..200).map(|n| times(node, &format!("m{n}"), t)).filter(|times| !times.is_empty());
        mine.filter(|times| times.len() == 11).count() as u64
    };
    assert!(eventually(|| whole(&nodes[4]) == before[4]).await, "{} of {}", whole(&nodes[4]), before[4]);
    assert_eq!(held(&nodes)[..4], before[..4]);
    Node::stop_all(nodes).await;
}
