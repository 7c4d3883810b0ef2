//! Every case of remote write over HTTP, each by its name: what is sent, what is answered, what is then stored.
//!
//! What a whole cluster answers, rates, tenants and budgets have stories of their own (`version2.rs`, `doors.rs`).

mod protocol;
mod rig;

use protocol::{exemplars, floats, head, histograms, hold, metadata, version_1};

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies() {
    hold(head::cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floats_of_version_2() {
    hold(floats::cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_of_version_2() {
    hold(exemplars::cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_of_version_2() {
    hold(histograms::cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_version_2() {
    hold(metadata::cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_version_1() {
    hold(version_1::cases()).await;
}

/// Two senders differ about a sample: one is stored, the other is told, whoever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_race() {
    let dir = tempfile::tempdir().unwrap();
    let node = rig::Node::start(rig::single(dir.path())).await;
    let t = rig::now();
    for n in 0..20 {
        let send = async |value: f64| node.post(&[rig::series("raced", &[(t + n, value)])]).await;
        let (a, b) = tokio::join!(send(1.0), send(2.0));
        let mut both = [(a.status, 1.0), (b.status, 2.0)];
        both.sort_by_key(|(status, _)| *status);
        assert_eq!((both[0].0, both[1].0), (204, 400), "{a:?} {b:?}");
        assert_eq!(node.samples("default-tenant", "raced")[n as usize], (t + n, both[0].1));
    }
    node.stop().await.unwrap();
}

/// Floats, histograms, exemplars and metadata that were acknowledged are there after a restart, each once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_write_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = rig::Node::start(rig::single(dir.path())).await;
    let sent: protocol::Sent = protocol::two(&[("__name__", "f")])
        .float(0, 1.0)
        .metadata(2, "Help.", "s")
        .and(&[("__name__", "h")])
        .histogram(0, protocol::histogram())
        .into();
    let t = rig::now();
    let (headers, body) = sent.at(t);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    for _ in 0..2 {
        assert_eq!(node.post_with("/api/v1/write", &headers, body.clone()).await.status, 204);
    }
    let all = [
        "f 0:1",
        "h 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}",
        "metadata f gauge \"Help.\" \"s\"",
    ];
    assert!(rig::eventually(|| protocol::stored::lines(&node, "default-tenant", t) == all).await);
    node.stop().await.unwrap();
    let node = rig::Node::start(rig::single(dir.path())).await;
    assert_eq!(protocol::stored::lines(&node, "default-tenant", t), all);
    node.stop().await.unwrap();
}
