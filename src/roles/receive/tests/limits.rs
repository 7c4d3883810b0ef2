//! A receiver with a limits file: requests at the door, series where they live, and new limits without a restart.

mod rig;

use std::path::Path;

use rig::{Node, body, now, request, series, single};

fn put(path: &Path, text: &str) {
    runtime::World::real().disk.write_atomic(path, text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_limits_is_told_and_its_series_go_on_t15() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.yaml");
    put(
        &path,
        "write:\n  default:\n    head_series_limit: 2\n  tenants:\n    small:\n      request:\n        \
         samples_limit: 2\n        size_bytes_limit: 400\n    \
         fast: {bytes_per_second_limit: 300}\n",
    );
    let mut settings = single(dir.path());
    settings.admission.limits_config_file = Some(path.clone());
    let node = Node::start(settings).await;
    let t = now();
    let both = |t| [series("a", &[(t, 1.0)]), series("b", &[(t, 1.0)])];
    assert_eq!(node.post(&both(t)).await.status, 204);
    let three = [series("a", &[(t + 1, 1.0)]), series("c", &[(t + 1, 1.0)]), series("b", &[(t + 1, 1.0)])];
    let answer = node.post(&three).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("series_limit: 1"), "{}", answer.body);
    assert_eq!(node.samples("default-tenant", "b"), [(t, 1.0), (t + 1, 1.0)]);
    assert_eq!(node.samples("default-tenant", "c"), []);

    let small = [("THANOS-TENANT", "small")];
    let send = async |sent: &[rig::Sent]| node.post_with("/api/v1/receive", &small, body(sent)).await;
    let answer = send(&[series("a", &[(t, 1.0), (t + 1, 1.0), (t + 2, 1.0)])]).await;
    assert_eq!((answer.status, answer.body.contains("samples_limit")), (413, true), "{}", answer.body);
    let answer = send(&[series(&"long".repeat(200), &[(t, 1.0)])]).await;
    assert_eq!((answer.status, answer.body.contains("size_bytes_limit")), (413, true), "{}", answer.body);
    assert_eq!(send(&[series("a", &[(t, 1.0)])]).await.status, 204);

    let big = [("THANOS-TENANT", "fast")];
    let long =
        body(&[series(&format!("n{}", (0..2000).map(|n| n.to_string()).collect::<String>()), &[(t, 1.0)])]);
    assert_eq!(node.post_with("/api/v1/receive", &big, long.clone()).await.status, 204);
    let answer = node.post_with("/api/v1/receive", &big, long).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert!(answer.body.contains("more than 300 bytes per second"), "{}", answer.body);
    let wait = answer.head.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!((5..=60).contains(&wait.parse::<u32>().unwrap()), "{wait}");

    // A broken file changes nothing and is named with its line; a good one counts at once.
    put(&path, "write:\n  default:\n    head_series_limit: two\n");
    let answer = request(node.http, "POST", "/-/reload", &[], Vec::new()).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("limits.yaml: line 3"), "{}", answer.body);
    assert_eq!(node.post(&[series("c", &[(t, 1.0)])]).await.status, 400);
    put(&path, "write:\n  default:\n    head_series_limit: 3\n");
    // The watcher may have been faster.
    let answer = request(node.http, "POST", "/-/reload", &[], Vec::new()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(node.post(&[series("c", &[(t, 1.0)])]).await.status, 204);
    node.stop().await.unwrap();
}
