//! Frames between receivers, into the engine: the same data and verdicts as by single calls, also where series are cut
//! away between one frame and the next, and where a receiver comes back with an empty dictionary.

mod rig;

use std::sync::Arc;

use model::{Labels, Sample, TenantId};
use rig::{Node, cluster, now, request, series, single};
use rpc::{WriteCall, WriteClient, WriteClientOptions};
use runtime::{Chance, World};
use storage::{RowName, RowSource, SeriesHandle, Verdict, WriteBatch};
use testkit::SeededChance;
use tokio::runtime::Handle;

fn labels(n: u32) -> Labels {
    Labels::from_pairs([("__name__", format!("m{n}").as_str()), ("job", "x")]).unwrap()
}

struct Source(Vec<u32>);

impl RowSource for Source {
    fn name(&self, row: u32) -> Option<RowName> {
        self.0.get(row as usize).map(|n| RowName { id: *n, check: u64::from(*n) + 1 })
    }

    fn labels(&self, row: u32, out: &mut Vec<u8>) -> bool {
        let Some(n) = self.0.get(row as usize) else { return false };
        out.extend_from_slice(labels(*n).as_bytes());
        true
    }

    fn bytes(&self) -> usize {
        0
    }

    fn learned(&self, _: &[(u32, SeriesHandle)]) {}
}

/// Series, time and value of each row.
fn call(rows: &[(u32, i64, f64)], judged_at: i64) -> WriteCall {
    let tenant = TenantId::new("default-tenant").unwrap();
    let mut batch = WriteBatch::default();
    for &(n, timestamp, value) in rows {
        let hash = labels(n).placement_hash(tenant.as_str());
        batch.push_known(SeriesHandle::NOWHERE, hash, [Sample { timestamp, value }]);
    }
    batch.attach(Arc::new(Source(rows.iter().map(|row| row.0).collect())));
    let rows = (0..rows.len() as u32).collect();
    WriteCall { tenant, batch: Arc::new(batch), rows, replica: 1, judged_at, ring_epoch: 0 }
}

fn client(node: &Node, frames: bool) -> WriteClient {
    let peer = frames.then(rpc::PeerOptions::default);
    let options = WriteClientOptions { peer, ..WriteClientOptions::default() };
    WriteClient::new(&node.grpc.to_string(), options, World::real(), &Handle::current()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_has_the_same_by_frames_and_by_single_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) =
        (Node::start(single(&dir.path().join("a"))).await, Node::start(single(&dir.path().join("b"))).await);
    let (framed, called) = (client(&one, true), client(&other, false));
    let chance = SeededChance::new(7);
    let begin = now() - 3_600_000;
    for round in 0..40i64 {
        let rows: Vec<(u32, i64, f64)> = (0..chance.below(60))
            .map(|_| {
                // Some are doubled, some contradict, some are too old or too far ahead.
                let back = [0, 0, 0, 5_000, 90_000_000, -90_000_000][chance.below(6) as usize];
                let time = begin + round * 10_000 - back;
                (chance.below(40) as u32, time, chance.below(2) as f64)
            })
            .collect();
        let call = call(&rows, begin + round * 10_000);
        let (a, b) = (framed.write(call.clone()).await.unwrap(), called.write(call).await.unwrap());
        assert_eq!(a, b, "round {round}");
        assert_eq!(a.len(), rows.len());
    }
    assert!(framed.names().is_some_and(|names| names == 40), "{:?}", framed.names());
    let same = |when: &str| {
        for n in 0..40 {
            let name = format!("m{n}");
            let (a, b) = (one.samples("default-tenant", &name), other.samples("default-tenant", &name));
            assert_eq!(a, b, "{name} {when}");
            assert!(!a.is_empty());
        }
    };
    same("before");
    // What the head had is in blocks now, and other series lie where these lay.
    for node in [&one, &other] {
        let answer = request(node.http, "POST", "/-/cut", &[], Vec::new()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let t = now();
        let strangers: Vec<_> = (100..160).map(|n| series(&format!("m{n}"), &[(t, 9.0)])).collect();
        assert_eq!(node.post(&strangers).await.status, 204);
    }
    let t = now();
    let rows: Vec<(u32, i64, f64)> = (0..40).rev().map(|n| (n, t, 5.0)).collect();
    assert_eq!(framed.write(call(&rows, t)).await.unwrap(), [Verdict::Stored; 40]);
    assert_eq!(called.write(call(&rows, t)).await.unwrap(), [Verdict::Stored; 40]);
    same("after");
    for n in 100..160 {
        assert_eq!(one.samples("default-tenant", &format!("m{n}")).len(), 1, "m{n}");
    }
    Node::stop_all([one, other]).await;
}

/// One receiver comes back as it was before there were frames, and later with them.
#[tokio::test(flavor = "multi_thread")]
async fn releases_with_and_without_frames_form_one_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 3, 3);
    settings[1].replication.peer_frames = false;
    let mut nodes = Node::start_all(&settings).await;
    let t = now();
    for round in 0..6i64 {
        if round == 3 {
            let restarted = nodes.remove(2);
            restarted.stop().await.unwrap();
            nodes.push(Node::start(settings[2].clone()).await);
        }
        let door = &nodes[round as usize % 2];
        let sent: Vec<_> = (0..20).map(|n| series(&format!("m{n}"), &[(t + round, n as f64)])).collect();
        let answer = door.post(&sent).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    for _ in 0..400 {
        let all = |node: &Node| (0..20).all(|n| node.samples("default-tenant", &format!("m{n}")).len() == 6);
        if nodes.iter().all(all) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    for node in nodes {
        for n in 0..20 {
            let times: Vec<_> =
                node.samples("default-tenant", &format!("m{n}")).iter().map(|s| s.0 - t).collect();
            assert_eq!(times, [0, 1, 2, 3, 4, 5], "m{n}");
        }
        node.stop().await.unwrap();
    }
}
