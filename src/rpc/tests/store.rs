//! The StoreAPI over loopback: what a server sends, and what a client makes of it.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{Backend, Endless, Memory, Running, chunk, entry, eventually, labels};
use model::{Kind, Labels, MatchOp, Matcher, TimeRange};
use rpc::{ClientOptions, NodeInfo, StoreClient, StoreOptions, StoreServer};
use runtime::World;
use storage::{
    Budget, Cancel, Context, Error, LabelRequest, PartialResponse, Select, SelectRequest, SeriesEntry,
    collect,
};
use tokio::runtime::Handle;
use tonic::Code;
use wire::pb::thanos::series_response::Result as Frame;
use wire::pb::thanos::store_client::StoreClient as Raw;
use wire::pb::thanos::{self as pb, LabelMatcher};

async fn serve(backend: Arc<Backend>, options: StoreOptions) -> Running {
    Running::start(|services| services.store(StoreServer::new(backend, options, World::real()))).await
}

fn client(running: &Running) -> StoreClient {
    StoreClient::new(&running.address, ClientOptions::default(), World::real(), Handle::current()).unwrap()
}

fn any() -> Vec<Matcher> {
    vec![Matcher::new(MatchOp::Regex, "__name__", ".*").unwrap()]
}

fn request(matchers: Vec<Matcher>) -> SelectRequest {
    SelectRequest::new(TimeRange::new(0, 1000), matchers)
}

async fn select(client: &StoreClient, request: SelectRequest) -> Result<Vec<SeriesEntry>, Error> {
    let client = client.clone();
    let work = move || collect(client.select(&request, &Context::background())?).map(|(entries, _)| entries);
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn shown(entries: &[SeriesEntry]) -> Vec<String> {
    entries.iter().map(|e| format!("{} x{}", e.labels, e.chunks.len())).collect()
}

async fn frames(address: &str, request: pb::SeriesRequest) -> Result<Vec<pb::SeriesResponse>, tonic::Status> {
    let mut raw = Raw::connect(format!("http://{address}")).await.unwrap();
    let mut stream = raw.series(request).await?.into_inner();
    let mut out = Vec::new();
    while let Some(frame) = stream.message().await? {
        out.push(frame);
    }
    Ok(out)
}

fn raw_request() -> pb::SeriesRequest {
    let all = LabelMatcher { r#type: 2, name: "__name__".to_owned(), value: ".*".to_owned() };
    pb::SeriesRequest { max_time: 1000, matchers: vec![all], ..Default::default() }
}

/// Two tenants of one receiver; one has HA pairs inside.
fn two_tenants() -> Arc<Backend> {
    let a = Memory::new(vec![
        entry(&[("__name__", "up"), ("i", "1"), ("replica", "x")], &[chunk(0, b"a1x")]),
        entry(&[("__name__", "up"), ("i", "1"), ("replica", "y")], &[chunk(0, b"a1y")]),
        entry(&[("__name__", "up"), ("i", "2"), ("replica", "x")], &[chunk(0, b"a2x")]),
    ]);
    let b = Memory::new(vec![entry(&[("__name__", "up"), ("i", "1")], &[chunk(0, b"b1"), chunk(10, b"b2")])]);
    let ext = |tenant: &str| labels(&[("rep", "r0"), ("tenant_id", tenant)]);
    Arc::new(Backend::new(vec![(ext("a"), Arc::new(a)), (ext("b"), Arc::new(b))]))
}

#[tokio::test]
async fn series_carry_external_labels_in_order() {
    let running = serve(two_tenants(), StoreOptions::default()).await;
    let got = select(&client(&running), request(any())).await.unwrap();
    assert_eq!(
        shown(&got),
        [
            r#"up{i="1", rep="r0", replica="x", tenant_id="a"} x1"#,
            r#"up{i="1", rep="r0", replica="y", tenant_id="a"} x1"#,
            r#"up{i="1", rep="r0", tenant_id="b"} x2"#,
            r#"up{i="2", rep="r0", replica="x", tenant_id="a"} x1"#,
        ]
    );
    assert_eq!(got[2].chunks, [chunk(0, b"b1"), chunk(10, b"b2")]);
    running.stop().await;
}

#[tokio::test]
async fn replica_labels_go_wherever_they_are_and_order_holds() {
    let running = serve(two_tenants(), StoreOptions::default()).await;
    let mut request = request(any());
    request.hints.without_labels = vec!["rep".to_owned(), "replica".to_owned()];
    let got = select(&client(&running), request).await.unwrap();
    assert_eq!(
        shown(&got),
        [
            r#"up{i="1", tenant_id="a"} x2"#,
            r#"up{i="1", tenant_id="b"} x2"#,
            r#"up{i="2", tenant_id="a"} x1"#
        ]
    );
    running.stop().await;
}

#[tokio::test]
async fn sending_never_breaks_the_order() {
    // Labels that overtake, replace and collide: `e` is external, and also on some series.
    let mut entries = Vec::new();
    for a in ["", "1", "2"] {
        for c in ["", "1"] {
            for e in ["", "9"] {
                for z in ["", "1"] {
                    let all = [("a", a), ("c", c), ("e", e), ("z", z), ("__name__", "m")];
                    entries.push(entry(&all, &[chunk(0, format!("{all:?}").as_bytes())]));
                }
            }
        }
    }
    let memory: Arc<dyn Select> = Arc::new(Memory::new(entries));
    for ext in [labels(&[("e", "5")]), labels(&[("d", "1"), ("zz", "1")])] {
        for without in [vec![], vec!["a".to_owned()], vec!["d".to_owned(), "z".to_owned()]] {
            let backend = Arc::new(Backend::new(vec![(ext.clone(), memory.clone())]));
            let running = serve(backend, StoreOptions::default()).await;
            let mut request = request(any());
            request.hints.without_labels = without;
            // The client refuses a stream that is out of order.
            let got = select(&client(&running), request).await.unwrap();
            assert!(got.windows(2).all(|pair| pair[0].labels < pair[1].labels));
            assert_eq!(got.iter().map(|e| e.chunks.len()).sum::<usize>(), 24);
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn matchers_on_external_labels_choose_views() {
    let running = serve(two_tenants(), StoreOptions::default()).await;
    let client = client(&running);
    let tenant = |t: &str| Matcher::equal("tenant_id", t);
    let up = Matcher::equal("__name__", "up");
    let got = select(&client, request(vec![up.clone(), tenant("b")])).await.unwrap();
    assert_eq!(shown(&got), [r#"up{i="1", rep="r0", tenant_id="b"} x2"#]);
    assert!(select(&client, request(vec![up, tenant("nobody")])).await.unwrap().is_empty());
    let error = select(&client, request(vec![tenant("b")])).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("no matchers specified (excluding external labels)"), "{error}");
    assert!(error.message.contains(&running.address), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn names_and_values() {
    let running = serve(two_tenants(), StoreOptions::default()).await;
    let client = client(&running);
    let list = |name: Option<&'static str>, matchers: Vec<Matcher>, limit| {
        let client = client.clone();
        let work = move || {
            let request = LabelRequest { range: TimeRange::new(0, 1000), matchers, limit };
            let listed = match name {
                None => client.label_names(&request, &Context::background()),
                Some(name) => client.label_values(name, &request, &Context::background()),
            };
            listed.unwrap()
        };
        async { tokio::task::spawn_blocking(work).await.unwrap() }
    };
    let all = list(None, vec![], 0).await;
    assert_eq!(all.values, ["__name__", "i", "rep", "replica", "tenant_id"]);
    let of_b = list(None, vec![Matcher::equal("tenant_id", "b")], 0).await;
    assert_eq!(of_b.values, ["__name__", "i", "rep", "tenant_id"]);
    assert_eq!(list(Some("tenant_id"), vec![], 0).await.values, ["a", "b"]);
    assert_eq!(list(Some("tenant_id"), vec![Matcher::equal("i", "2")], 0).await.values, ["a"]);
    assert_eq!(list(Some("i"), vec![], 0).await.values, ["1", "2"]);
    let cut = list(Some("i"), vec![], 1).await;
    assert_eq!(cut.values, ["1"]);
    assert!(cut.notes.warnings[0].contains("truncated"), "{:?}", cut.notes);
    let none = list(Some("rep"), vec![Matcher::equal("rep", "r9")], 0).await;
    assert!(none.values.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn batches_limits_and_labels_alone() {
    let many: Vec<_> = (0..10)
        .map(|n| entry(&[("__name__", "m"), ("n", &n.to_string())], &[chunk(0, b"x"), chunk(2000, b"late")]))
        .collect();
    let memory: Arc<dyn Select> = Arc::new(Memory::new(many));
    let running =
        serve(Arc::new(Backend::new(vec![(Labels::empty(), memory.clone())])), StoreOptions::default()).await;
    let sizes = |frames: Vec<pb::SeriesResponse>| -> Vec<(bool, usize)> {
        let size = |frame: pb::SeriesResponse| match frame.result {
            Some(Frame::Series(_)) => (false, 1),
            Some(Frame::Batch(batch)) => (true, batch.series.len()),
            other => panic!("{other:?}"),
        };
        frames.into_iter().map(size).collect()
    };
    let single = frames(&running.address, raw_request()).await.unwrap();
    assert_eq!(sizes(single), [(false, 1); 10]);
    let batched = pb::SeriesRequest { response_batch_size: 4, ..raw_request() };
    assert_eq!(sizes(frames(&running.address, batched).await.unwrap()), [(true, 4), (true, 4), (true, 2)]);
    let limited = pb::SeriesRequest { limit: 3, ..raw_request() };
    assert_eq!(sizes(frames(&running.address, limited).await.unwrap()).len(), 3);

    let bare = pb::SeriesRequest { skip_chunks: true, ..raw_request() };
    for frame in frames(&running.address, bare).await.unwrap() {
        let Some(Frame::Series(series)) = frame.result else { panic!() };
        assert!(series.chunks.is_empty() && series.labels.len() == 2);
    }

    // Chunks carry the hash by which Thanos drops copies, and the encoding one lower than in files.
    let one = frames(&running.address, pb::SeriesRequest { limit: 1, ..raw_request() }).await.unwrap();
    let Some(Frame::Series(series)) = &one[0].result else { panic!() };
    assert_eq!(series.chunks.len(), 1);
    let raw = series.chunks[0].raw.as_ref().unwrap();
    assert_eq!((raw.r#type, raw.hash), (0, xxhash_rust::xxh64::xxh64(b"x", 0)));

    // Shards are disjoint and together everything.
    let mut seen = Vec::new();
    for shard_index in 0..3 {
        let shard = pb::ShardInfo { shard_index, total_shards: 3, by: true, labels: vec!["n".to_owned()] };
        let request = pb::SeriesRequest { shard_info: Some(shard), ..raw_request() };
        for frame in frames(&running.address, request).await.unwrap() {
            let Some(Frame::Series(series)) = frame.result else { panic!() };
            seen.push(series.labels[1].value.clone());
        }
    }
    seen.sort();
    assert_eq!(seen.join(""), "0123456789");
    running.stop().await;

    let options = StoreOptions { max_series: 5, ..StoreOptions::default() };
    let running = serve(Arc::new(Backend::new(vec![(Labels::empty(), memory)])), options).await;
    let status = frames(&running.address, raw_request()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("exceeded series limit: limit 5"), "{status}");
    running.stop().await;
}

#[tokio::test]
async fn a_series_of_many_megabytes_comes_back_whole() {
    let chunks: Vec<_> = (0..30).map(|n| chunk(n * 10, &vec![n as u8; 200_000])).collect();
    let memory = Memory::new(vec![
        entry(&[("__name__", "big")], &chunks),
        entry(&[("__name__", "small")], &[chunk(0, b"s")]),
    ]);
    let backend = Backend::new(vec![(labels(&[("t", "1")]), Arc::new(memory))]);
    let running = serve(Arc::new(backend), StoreOptions::default()).await;
    let raw = frames(&running.address, pb::SeriesRequest { response_batch_size: 64, ..raw_request() }).await;
    assert!(raw.unwrap().len() >= 5);
    let got = select(&client(&running), request(any())).await.unwrap();
    assert_eq!(shown(&got), [r#"big{t="1"} x30"#, r#"small{t="1"} x1"#]);
    assert_eq!(got[0].chunks, chunks);
    running.stop().await;
}

#[tokio::test]
async fn warnings_travel_with_the_peers_name() {
    let mut memory = Memory::new(vec![entry(&[("__name__", "m")], &[chunk(0, b"x")])]);
    memory.warning = Some("one block was skipped".to_owned());
    let running =
        serve(Arc::new(Backend::new(vec![(Labels::empty(), Arc::new(memory))])), StoreOptions::default())
            .await;
    let client = client(&running);
    let work = move || collect(client.select(&request(any()), &Context::background()).unwrap()).unwrap().1;
    let notes = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(notes.warnings, [format!("{}: one block was skipped", running.address)]);
    running.stop().await;
}

#[tokio::test]
async fn who_leaves_stops_the_work() {
    let endless = Arc::new(Endless::default());
    let backend = Arc::new(Backend::new(vec![(Labels::empty(), endless.clone() as Arc<dyn Select>)]));
    let running = serve(backend, StoreOptions { max_concurrent: 1, ..StoreOptions::default() }).await;
    let client = client(&running);
    let taken = client.clone();
    let work = move || {
        let mut set = taken.select(&request(any()), &Context::background()).unwrap();
        for _ in 0..5 {
            assert!(set.next().unwrap().is_some());
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    // Back-pressure: what is made stays near what is taken, and ends.
    let made = endless.made.clone();
    let last = std::sync::atomic::AtomicUsize::new(usize::MAX);
    eventually("the server stops making series", move || {
        let now = made.load(SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        last.swap(now, SeqCst) == now
    })
    .await;
    assert!(endless.made.load(SeqCst) < 1000, "{}", endless.made.load(SeqCst));
    // And the only permit is free again.
    let again = client.clone();
    let work =
        move || again.select(&request(any()), &Context::background()).unwrap().next().unwrap().is_some();
    assert!(tokio::task::spawn_blocking(work).await.unwrap());
    running.stop().await;
}

#[tokio::test]
async fn slow_peers_meet_cancel_deadline_and_timeout() {
    let slow = Endless { pause: Duration::from_millis(700), ..Endless::default() };
    let backend = Arc::new(Backend::new(vec![(Labels::empty(), Arc::new(slow) as Arc<dyn Select>)]));
    let running = serve(backend, StoreOptions::default()).await;
    let options =
        ClientOptions { response_timeout: Some(Duration::from_millis(100)), ..ClientOptions::default() };
    let impatient = StoreClient::new(&running.address, options, World::real(), Handle::current()).unwrap();
    let error = select(&impatient, request(any())).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("no answer within 100ms"), "{error}");

    let patient = client(&running);
    let world = World::real();
    let deadline = world.clock.monotonic() + Duration::from_millis(120);
    for (cancel, kind) in
        [(Cancel::new(Some(deadline)), Kind::Unavailable), (Cancel::new(None), Kind::Refused)]
    {
        if kind == Kind::Refused {
            cancel.raise();
        }
        let context = Context { cancel, budget: Budget::unlimited(), partial: PartialResponse::Abort };
        let client = patient.clone();
        let work = move || collect(client.select(&request(any()), &context).unwrap()).unwrap_err();
        let error = tokio::task::spawn_blocking(work).await.unwrap();
        assert_eq!(error.kind, kind, "{error}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_read_ahead_counts_against_the_query() {
    let endless = Endless::default();
    let running = serve(
        Arc::new(Backend::new(vec![(Labels::empty(), Arc::new(endless) as Arc<dyn Select>)])),
        StoreOptions::default(),
    )
    .await;
    let client = client(&running);
    let budget = Budget::new("--query.max-memory", 500_000);
    let context = Context { budget: budget.clone(), ..Context::background() };
    let work = move || collect(client.select(&request(any()), &context).unwrap()).unwrap_err();
    let error = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(error.kind, Kind::Exhausted);
    assert!(error.message.contains("--query.max-memory"), "{error}");
    eventually("the budget is given back", move || budget.used() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn info_and_readiness() {
    let mut backend = Backend::new(vec![(labels(&[("t", "1")]), Arc::new(Memory::default()))]);
    let node = NodeInfo {
        replication_factor: 3,
        write_quorum: 2,
        own_replica_labels: vec!["tributary_replica".to_owned()],
        incarnation: "01ABC".to_owned(),
        ready: true,
        roles: vec!["receive".to_owned()],
        uploaded_before: Some(77),
        ring_members: vec!["a:10901".to_owned()],
        ring_address: "a:10901".to_owned(),
        ring_epoch: 3,
        version: "0.1.0".to_owned(),
    };
    backend.node = Some(node.clone());
    let backend = Arc::new(backend);
    let running = serve(backend.clone(), StoreOptions::default()).await;
    let client = client(&running);
    let info = client.info().await.unwrap();
    assert_eq!((info.component.as_str(), info.node), ("receive", Some(node)));
    assert_eq!(info.label_sets, [labels(&[("t", "1")])]);
    assert_eq!(info.store.unwrap().range, TimeRange::new(0, i64::MAX));

    backend.ready.store(false, SeqCst);
    assert_eq!(client.info().await.unwrap().store, None);
    let error = select(&client, request(any())).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("not ready"), "{error}");

    let mut health = wire::pb::grpc::health::v1::health_client::HealthClient::connect(format!(
        "http://{}",
        running.address
    ))
    .await
    .unwrap();
    assert_eq!(
        health
            .check(wire::pb::grpc::health::v1::HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner()
            .status,
        1
    );
    running.stop().await;
}

#[tokio::test]
async fn an_answer_cut_short_is_an_error_not_an_end() {
    // The peer lives on a runtime of its own, which is dropped as a killed process would be.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endless = Endless { pause: Duration::from_millis(5), ..Endless::default() };
    let backend = Backend::new(vec![(Labels::empty(), Arc::new(endless) as Arc<dyn Select>)]);
    let running = runtime.spawn(async move { serve(Arc::new(backend), StoreOptions::default()).await });
    let running = running.await.unwrap();
    let client = client(&running);
    let work = move || {
        let mut set = client.select(&request(any()), &Context::background()).unwrap();
        for _ in 0..20 {
            assert!(set.next().unwrap().is_some());
        }
        runtime.shutdown_background();
        loop {
            match set.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("half an answer was taken for a whole one"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.message.contains(&running.address), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client =
        StoreClient::new(&address, ClientOptions::default(), World::real(), Handle::current()).unwrap();
    let error = select(&client, request(any())).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.message.contains(&address), "{error}");
    assert_eq!(client.info().await.unwrap_err().kind, Kind::Unavailable);
}
