//! Receivers that vote, each behind its own gRPC listener: a catalog that is lost beside an intact log, another cluster's
//! data, and what was agreed brought back to voters that have lost all of it.

mod rig;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use agreed::{Command, Outcome};
use control::Seen;
use model::Kind;
use rig::{Node, cluster, eventually_within, many, now};
use runtime::World;

/// Three receivers that all vote.
fn voting(dir: &Path) -> Vec<receive::Settings> {
    let mut all = cluster(dir, 3, 3);
    let address = |s: &receive::Settings| s.replication.local_endpoint.clone().unwrap();
    let voters: Vec<String> = all.iter().map(address).collect();
    for settings in &mut all {
        settings.control.voters = voters.join(",");
    }
    all
}

async fn start(settings: &[receive::Settings]) -> Vec<Node> {
    let starting: Vec<_> = settings.iter().map(|s| tokio::spawn(Node::start(s.clone()))).collect();
    let mut nodes = Vec::new();
    for node in starting {
        nodes.push(node.await.unwrap());
    }
    nodes
}

fn seen(node: &Node) -> Seen {
    node.receive.plane().unwrap().handle.now()
}

async fn formed(nodes: &[Node]) -> String {
    let all = || nodes.iter().all(|node| !seen(node).state.cluster.is_empty());
    assert!(eventually_within(1200, all).await, "the cluster is never formed");
    seen(&nodes[0]).state.cluster.clone()
}

/// Agreed limits are as good as anything to see that something is agreed on.
async fn agree(node: &Node, text: &str) {
    let handle = node.receive.plane().unwrap().handle.clone();
    for _ in 0..40 {
        let expect = handle.now().state.limits.version;
        let limits = Command::SetLimits { expect, text: text.to_owned(), by: String::new(), time: now() };
        match handle.propose(limits).await {
            Ok(Outcome::Done | Outcome::Already) => return,
            Ok(other) => panic!("{other:?}"),
            Err(error) if error.kind != Kind::Invalid => tokio::time::sleep(Duration::from_millis(250)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never agreed on {text}");
}

fn lose_catalog(settings: &receive::Settings) {
    let catalog = settings.data_dir.join("catalog");
    World::real().disk.rename(&catalog, &settings.data_dir.parent().unwrap().join("lost")).unwrap();
}

async fn accepted(node: &Node, t: i64) {
    for _ in 0..40 {
        if node.post(&many(t, 3)).await.status == 204 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{:?}", node.post(&many(t, 3)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_beside_an_intact_log_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = voting(dir.path());
    let mut nodes = start(&settings).await;
    let name = formed(&nodes).await;
    let t = now();
    accepted(&nodes[0], t).await;
    agree(&nodes[0], "write: {default: {head_series_limit: 70}}").await;
    // Two of three are enough for an acknowledgement; its log is to have it as well.
    let stored = || nodes[2].samples("default-tenant", "m1") == [(t, 1.0)];
    assert!(eventually_within(400, stored).await, "the third copy never comes");

    nodes.pop().unwrap().stop().await.unwrap();
    lose_catalog(&settings[2]);
    let back = Node::start(settings[2].clone()).await;
    let knows = || seen(&back).state.cluster == name && seen(&back).state.limits.version == 1;
    assert!(eventually_within(1200, knows).await, "it is not told what is agreed");
    assert_eq!(back.samples("default-tenant", "m1"), [(t, 1.0)]);
    // It votes again, as another one.
    let votes = || nodes[0].receive.plane().unwrap().handle.about().group.len() == 3;
    assert!(eventually_within(400, votes).await);
    nodes.remove(0).stop().await.unwrap();
    agree(&back, "write: {default: {head_series_limit: 71}}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_that_lost_everything_wait_and_are_given_back_what_a_node_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let settings = voting(dir.path());
    let nodes = start(&settings).await;
    let name = formed(&nodes).await;
    accepted(&nodes[0], now()).await;
    agree(&nodes[1], "write: {default: {head_series_limit: 70}}").await;
    // Whoever is registered knows whose data it has.
    let registered = || seen(&nodes[0]).state.nodes.len() == 3;
    assert!(eventually_within(400, registered).await, "{:?}", seen(&nodes[0]).state.nodes);
    let told = || seen(&nodes[1]).state.nodes.len() == 3 && seen(&nodes[1]).state.limits.version == 1;
    assert!(eventually_within(400, told).await, "{:?}", seen(&nodes[1]));
    let kept = seen(&nodes[1]);
    for (node, settings) in nodes.into_iter().zip(&settings) {
        node.stop().await.unwrap();
        lose_catalog(settings);
    }

    let nodes = start(&settings).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let names: BTreeSet<String> = nodes.iter().map(|node| seen(node).state.cluster.clone()).collect();
    assert_eq!(names, BTreeSet::from([String::new()]), "no new cluster is begun over the data of another");
    let handle = nodes[2].receive.plane().unwrap().handle.clone();
    let restore = Command::Restore {
        state: Box::new(agreed::State::clone(&kept.state)),
        beyond: 5,
        by: "a test".to_owned(),
        time: now(),
    };
    let mut asked = handle.propose(restore.clone()).await;
    for _ in 0..40 {
        if asked.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        asked = handle.propose(restore.clone()).await;
    }
    asked.unwrap();
    let back = || {
        nodes.iter().all(|node| {
            let seen = seen(node);
            seen.state.cluster == name && seen.state.generation == 1 && seen.state.limits.version == 1
        })
    };
    assert!(eventually_within(400, back).await);
    assert!(seen(&nodes[0]).state.current().unwrap().number > 5);
    accepted(&nodes[0], now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_clusters_data_refuses_to_run() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (voting(here.path()), voting(there.path()));
    let nodes = start(&ours).await;
    formed(&nodes).await;
    let registered = || seen(&nodes[0]).state.nodes.len() == 3;
    assert!(eventually_within(400, registered).await);
    let others = start(&theirs).await;
    formed(&others).await;
    Node::stop_all(nodes).await;
    // One of ours, told of their voters.
    let mut lost = ours[0].clone();
    lost.control.voters.clone_from(&theirs[0].control.voters);
    let error = Node::start(lost).await.ended().await.unwrap_err();
    assert!(error.message.contains("cluster"), "{error}");
    assert!(matches!(error.kind, Kind::Refused | Kind::Invalid | Kind::Internal), "{error}");
}
