//! One receiver and everything that a sender can do wrong: each answer by its rule, the valid samples kept.

mod rig;

use std::time::Duration;

use rig::{Node, body, now, request, series, single};

async fn node(dir: &tempfile::TempDir) -> Node {
    Node::start(single(dir.path())).await
}

/// One target's clock ran ahead by an hour, and nobody's samples were taken until the hour had passed.
#[tokio::test(flavor = "multi_thread")]
async fn far_future_sample_is_refused_alone_t6() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let (t, ahead) = (now(), now() + 3_600_000);
    let answer = node.post(&[series("a", &[(ahead, 1.0)]), series("b", &[(t, 1.0)])]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("too_far_in_future: 1") && answer.body.contains("1 of 2"), "{answer:?}");
    for n in 1..4 {
        let these =
            [series("a", &[(t + n, 1.0)]), series("b", &[(t + n, 1.0)]), series("c", &[(t - n, 1.0)])];
        let answer = node.post(&these).await;
        assert_eq!(answer.status, 204, "{n}: {answer:?}");
    }
    let counts = ["a", "b", "c"].map(|name| node.samples("default-tenant", name).len());
    assert_eq!(counts, [3, 4, 3]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_are_told_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let good = || body(&[series("up", &[(now(), 1.0)])]);
    for (method, path, status, part) in [
        ("GET", "/api/v1/receive", 405, ""),
        ("POST", "/api/v1/remote_write", 404, "/api/v1/receive"),
        ("POST", "/receive", 404, "/api/v1/receive"),
        ("POST", "/", 404, "did you mean /api/v1/receive?"),
        ("POST", "/api/v1/import", 404, "did you mean /api/v1/receive?"),
        ("POST", "/api/v1/otlp/v1/metrics", 415, "not supported for OTLP"),
    ] {
        let answer = request(node.write, method, path, &[], good()).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.body.contains(part), "{method} {path}: {answer:?}");
    }
    assert!(node.samples("default-tenant", "up").is_empty(), "nothing of it was stored");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_apart_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(&dir).await;
    let t = now();
    for (tenant, value) in [("a", 1.0), ("b", 2.0)] {
        let body = body(&[series("up", &[(t, value)])]);
        let answer = first.post_with("/api/v1/receive", &[("THANOS-TENANT", tenant)], body).await;
        assert_eq!(answer.status, 204);
    }
    first.stop().await.unwrap();
    let second = node(&dir).await;
    assert_eq!(second.samples("a", "up"), [(t, 1.0)]);
    assert_eq!(second.samples("b", "up"), [(t, 2.0)]);
    assert!(second.samples("default-tenant", "up").is_empty());
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_goes_to_the_bucket_and_the_node_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    let mut settings = single(dir.path());
    settings.labels = vec![settings::LabelPair::new("replica", "a")];
    settings.objstore.config =
        Some(format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display()));
    let node = Node::start(settings.clone()).await;
    let t = now();
    assert_eq!(node.post(&[series("up", &[(t - 1, 1.0), (t, 2.0)])]).await.status, 204);
    let drained = request(node.http, "GET", "/-/drained", &[], Vec::new()).await;
    assert_eq!(drained.status, 503, "{drained:?}");
    assert!(drained.body.contains("the head holds 2 samples"), "{drained:?}");
    let cut = request(node.http, "POST", "/-/cut", &[], Vec::new()).await;
    assert_eq!(cut.status, 200, "{cut:?}");
    assert!(cut.body.contains("uploaded"), "{cut:?}");
    let blocks: Vec<_> = std::fs::read_dir(&bucket).unwrap().map(|e| e.unwrap().path()).collect();
    let metas = blocks.iter().filter(|dir| dir.join("meta.json").is_file()).count();
    assert!(metas >= 1, "{blocks:?}");
    assert_eq!(
        node.samples("default-tenant", "up"),
        [(t - 1, 1.0), (t, 2.0)],
        "the block is read here as well"
    );
    let drained = request(node.http, "GET", "/-/drained", &[], Vec::new()).await;
    assert_eq!(drained.status, 200, "{drained:?}");
    // Lifecycle is for those on this machine unless the operator says otherwise.
    let closed = request(node.write, "POST", "/-/cut", &[], Vec::new()).await;
    assert_eq!(closed.status, 404, "{closed:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_data_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = runtime::World::real().disk;
    let foreign = dir.path().join("data/default-tenant/wal");
    disk.create_dir_all(&foreign).unwrap();
    disk.create(&foreign.join("00000000")).unwrap();
    let node = Node::start(single(dir.path())).await;
    let error = tokio::time::timeout(Duration::from_secs(10), node.ended()).await.unwrap().unwrap_err();
    assert!(error.message.contains("written by Thanos Receive"), "{error}");
    assert!(!dir.path().join("data/incarnation").exists(), "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_the_ring_are_in_blocks_and_over_the_store_api() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = rig::cluster(dir.path(), 1, 1).remove(0);
    let endpoint = settings.replication.local_endpoint.clone().unwrap();
    settings.replication.hashrings = Some(format!(
        r#"[{{"tenants": ["vip"], "endpoints": ["{endpoint}"], "external_labels": {{"tier": "1", "replica": "x"}}}},
            {{"endpoints": ["{endpoint}"]}}]"#
    ));
    let node = Node::start(settings).await;
    let t = now();
    for tenant in ["vip", "other"] {
        let body = body(&[series("up", &[(t, 1.0)])]);
        assert_eq!(node.post_with("/api/v1/receive", &[("THANOS-TENANT", tenant)], body).await.status, 204);
    }
    assert_eq!(request(node.http, "POST", "/-/cut", &[], Vec::new()).await.status, 200);
    let vip = rig::labels(&[("replica", "r0"), ("tenant_id", "vip"), ("tier", "1")]);
    let other = rig::labels(&[("replica", "r0"), ("tenant_id", "other")]);
    let mut shown = node.receive.store_backend().advertised().label_sets;
    shown.sort();
    assert_eq!(shown, [other.clone(), vip.clone()]);
    let engine = node.receive.tsdb().unwrap();
    for (tenant, labels) in [("vip", vip), ("other", other)] {
        let blocks = engine.local_blocks(&model::TenantId::new(tenant).unwrap());
        assert!(!blocks.is_empty());
        assert!(blocks.iter().all(|block| block.meta.external_labels().unwrap() == labels));
    }
    node.stop().await.unwrap();
}

/// A sender reads why its body is too large, whatever it has still to send.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_large_is_read_to_its_end_before_the_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.admission.max_body = settings::ByteSize::from_kib(64);
    let node = Node::start(settings).await;
    let bytes = 24 << 20;
    for framing in [format!("Content-Length: {bytes}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut stream = tokio::net::TcpStream::connect(node.write).await.unwrap();
        let head =
            format!("POST /api/v1/receive HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{framing}\r\n\r\n");
        let mut sent = head.into_bytes();
        let chunked = framing.ends_with("chunked");
        if chunked {
            sent.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        }
        sent.resize(sent.len() + bytes, b'x');
        if chunked {
            sent.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        stream.write_all(&sent).await.unwrap_or_else(|error| panic!("{framing}: {error}"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
        assert!(answer.contains("write request too large"), "{framing}: {answer}");
    }
    node.stop().await.unwrap();
}

/// 429 only for the tenant's own rate, with nothing taken; 503 for the node's trouble.
#[tokio::test(flavor = "multi_thread")]
async fn rates_and_budgets_say_when_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.admission.samples_per_second = 1;
    let node = Node::start(settings).await;
    let t = now();
    let ten: Vec<(i64, f64)> = (0..10).map(|n| (t + n, 1.0)).collect();
    assert_eq!(node.post(&[series("up", &ten)]).await.status, 204);
    // As many again would have to wait for ten seconds.
    let more: Vec<(i64, f64)> = (11..21).map(|n| (t + n, 1.0)).collect();
    let answer = node.post(&[series("up", &more)]).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    assert_eq!(node.samples("default-tenant", "up").len(), 10);
    let other = body(&[series("up", &[(t, 1.0)])]);
    let answer = node.post_with("/api/v1/receive", &[("THANOS-TENANT", "other")], other).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_names_the_tenant_of_its_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    settings.tenancy.split_label = "team".to_owned();
    let node = Node::start(settings).await;
    let t = now();
    let of = |name: &str, team: &str| {
        let mut one = series(name, &[(t, 1.0)]);
        if !team.is_empty() {
            one.0.push(("team".to_owned(), team.to_owned()));
        }
        one
    };
    let mixed = [of("a", "x"), of("a", "y"), of("b", "x"), of("c", "")];
    assert_eq!(node.post(&mixed).await.status, 204);
    assert_eq!(node.post(&[of("d", "x")]).await.status, 204);
    for (tenant, name, found) in [
        ("x", "a", 1),
        ("y", "a", 1),
        ("x", "b", 1),
        ("y", "b", 0),
        ("default-tenant", "c", 1),
        ("x", "d", 1),
    ] {
        assert_eq!(node.samples(tenant, name).len(), found, "{tenant} {name}");
    }
    // The label itself is not stored.
    let engine = node.receive.tsdb().unwrap();
    let view = engine.tenant(&model::TenantId::new("x").unwrap()).unwrap();
    let request = storage::LabelRequest { range: model::TimeRange::ALL, matchers: Vec::new(), limit: 0 };
    let names = storage::Select::label_names(&*view, &request, &storage::Context::background()).unwrap();
    assert_eq!(names.values, ["__name__"]);
    // What is no tenant refuses the request, before any of it is stored.
    let answer = node.post(&[of("e", "x"), of("e", "../y")]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(node.samples("x", "e"), []);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_names_the_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        runtime::World::real().disk.write_atomic(&path, text.as_bytes()).unwrap();
        path
    };
    put("a", "the-token-of-team-a");
    put("any", "the-token-of-a-gateway");
    let text =
        "credentials:\n- {tenant: team-a, bearer_token_file: a}\n- {tenant: '*', bearer_token_file: any}\n";
    let mut settings = single(dir.path());
    settings.tenancy.credentials = Some(put("credentials.yml", text));
    let node = Node::start(settings).await;
    let t = now();
    let send = async |headers: &[(&str, &str)]| {
        node.post_with("/api/v1/write", headers, body(&[series("up", &[(t, 1.0)])])).await
    };
    let (own, any) = ("Bearer the-token-of-team-a", "Bearer the-token-of-a-gateway");
    let answer = send(&[]).await;
    assert_eq!((answer.status, answer.head.contains("www-authenticate: bearer")), (401, true), "{answer:?}");
    assert_eq!(send(&[("Authorization", "Bearer the-token-of-team-b")]).await.status, 401);
    let answer = send(&[("Authorization", own), ("THANOS-TENANT", "team-b")]).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(send(&[("Authorization", own)]).await.status, 204);
    assert_eq!(send(&[("Authorization", own), ("THANOS-TENANT", "team-a")]).await.status, 204);
    assert_eq!(send(&[("Authorization", any), ("THANOS-TENANT", "team-c")]).await.status, 204);
    assert_eq!(send(&[("Authorization", any)]).await.status, 204);
    for tenant in ["team-a", "team-c", "default-tenant"] {
        assert_eq!(node.samples(tenant, "up"), [(t, 1.0)], "{tenant}");
    }
    assert_eq!(node.samples("team-b", "up"), []);
    node.stop().await.unwrap();
}

/// The doors are open while the log is replayed, and ask to come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_asks_to_come_again() {
    use tower::ServiceExt;
    let dir = tempfile::tempdir().unwrap();
    let readiness = api::Readiness::starting("the log is being replayed");
    let receive = receive::Receive::build(single(dir.path()), runtime::World::real(), readiness).unwrap();
    let body = axum::body::Body::from(body(&[series("up", &[(now(), 1.0)])]));
    let request = http::Request::post("/api/v1/receive").body(body).unwrap();
    let answer = receive.write_router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let advertised = receive.store_backend().advertised();
    assert!(!advertised.ready && !advertised.node.unwrap().ready);
    let views = receive.store_backend().views(model::TimeRange::ALL, &[]);
    assert_eq!(views.err().unwrap().kind, model::Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_is_described_tenant_by_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let t = now();
    assert_eq!(node.post(&[series("up", &[(t, 1.0)]), series("down", &[(t, 1.0)])]).await.status, 204);
    let other = [("THANOS-TENANT", "other")];
    assert_eq!(node.post_with("/api/v1/write", &other, body(&[series("up", &[(t, 1.0)])])).await.status, 204);
    let ask = async |query: &str, headers: &[(&str, &str)]| {
        let answer =
            request(node.http, "GET", &format!("/api/v1/status/tsdb{query}"), headers, Vec::new()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let of = |tenant: &str, series: u32| {
        format!("{{\"tenant\":\"{tenant}\",\"headStats\":{{\"numSeries\":{series},")
    };
    let own = ask("?limit=1", &[]).await;
    assert!(own.contains(&of("default-tenant", 2)) && !own.contains(&of("other", 1)), "{own}");
    assert!(own.contains("\"seriesCountByMetricName\":[{\"name\":\"down\",\"value\":1}]"), "{own}");
    assert!(ask("", &other).await.contains(&of("other", 1)));
    let all = ask("?all_tenants=true", &[]).await;
    assert!(all.contains(&of("default-tenant", 2)) && all.contains(&of("other", 1)), "{all}");
    node.stop().await.unwrap();
}
