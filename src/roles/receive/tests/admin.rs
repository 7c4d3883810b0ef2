//! The admin calls of a receiver: off by default, exact when on, honest about what they do not reach.

mod rig;

use rig::{Node, cluster, now, request, series, single};

const DELETE: &str = "/api/v1/admin/tsdb/delete_series";

#[tokio::test(flavor = "multi_thread")]
async fn series_are_deleted_where_the_operator_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    let off = request(node.http, "POST", &format!("{DELETE}?match[]=up"), &[], Vec::new()).await;
    assert_eq!(off.status, 500, "{}", off.body);
    assert!(
        off.body.contains("\"errorType\":\"unavailable\",\"error\":\"admin APIs disabled"),
        "{}",
        off.body
    );
    node.stop().await.unwrap();

    let mut settings = single(dir.path());
    settings.enable_admin_api = true;
    let bucket = dir.path().join("bucket");
    let text = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    settings.objstore.config = Some(text);
    settings.labels = vec![settings::LabelPair::new("replica", "a")];
    let node = Node::start(settings).await;
    let t = now();
    let both = [series("up", &[(t - 1000, 1.0), (t, 2.0)]), series("down", &[(t, 1.0)])];
    assert_eq!(node.post(&both).await.status, 204);
    let call = async |method: &str, path: &str| request(node.http, method, path, &[], Vec::new()).await;
    for (path, part) in [
        (DELETE.to_owned(), "no match[] parameter provided"),
        (format!("{DELETE}?match[]=up{{"), "invalid parameter"),
        (format!("{DELETE}?match[]=up&start=10&end=5"), "end time must not be before start time"),
        (format!("{DELETE}?match[]=up&scope=all"), "scope"),
    ] {
        let answer = call("POST", &path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
    }
    let end = (t - 1) as f64 / 1e3;
    assert_eq!(call("PUT", &format!("{DELETE}?match[]=up&end={end}")).await.status, 204);
    assert_eq!(node.samples("default-tenant", "up"), [(t, 2.0)]);
    assert_eq!(node.samples("default-tenant", "down"), [(t, 1.0)]);

    // What is in the bucket is not reached, and the answer says so.
    assert_eq!(call("POST", "/-/cut").await.status, 200);
    let answer = call("POST", &format!("{DELETE}?match[]=up")).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert!(answer.head.contains("warning: 299") && answer.head.contains("in the bucket"), "{}", answer.head);
    assert_eq!(node.samples("default-tenant", "up"), []);
    let t = now();
    assert_eq!(node.post(&[series("up", &[(t, 7.0)])]).await.status, 204);
    assert_eq!(node.samples("default-tenant", "up"), [(t, 7.0)]);
    assert_eq!(call("POST", "/api/v1/admin/tsdb/clean_tombstones").await.status, 204);

    let answer = call("DELETE", "/api/v1/admin/tenants/default-tenant?bucket=true").await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert!(answer.head.contains("marked for deletion"), "{}", answer.head);
    assert!(node.receive.tsdb().unwrap().tenants().is_empty());
    assert_eq!(call("DELETE", "/api/v1/admin/tenants/..%2Fx").await.status, 400);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_ring_the_caller_must_know_that_each_member_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = cluster(dir.path(), 2, 1).remove(0);
    settings.enable_admin_api = true;
    let node = Node::start(settings).await;
    let call = async |path: &str| request(node.http, "POST", path, &[], Vec::new()).await;
    let answer = call(&format!("{DELETE}?match[]=up")).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(
        answer.body.contains("one of 2 of a ring") && answer.body.contains("scope=node"),
        "{}",
        answer.body
    );
    assert_eq!(call(&format!("{DELETE}?match[]=up&scope=node")).await.status, 204);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_gone_once_its_node_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(single(dir.path())).await;
    assert_eq!(node.post(&[series("up", &[(now(), 1.0)])]).await.status, 204);
    let engine = std::sync::Arc::downgrade(&node.receive.tsdb().unwrap());
    node.stop().await.unwrap();
    // Connections and tasks that were told to end may take a moment.
    for _ in 0..1000 {
        if engine.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} parts of a stopped node still hold its engine", engine.strong_count());
}
