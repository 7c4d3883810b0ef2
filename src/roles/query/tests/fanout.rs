//! A querier over nodes of this process, some of which fail: what is complete, what is exact, what is said.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{Node, Running, SAMPLES, START, STEP, labels_of, one, value_of};
use model::{Kind, Matcher, TimeRange};
use query::{Dns, EndpointOptions, Endpoints, Fanout, Reading, Target, Wanted};
use runtime::World;
use storage::{
    Columns, Context, Error, LabelRequest, Notes, PartialResponse, Select, SelectRequest, SeriesEntry,
    decode_series,
};

const SERIES: usize = 400;

async fn endpoints(nodes: &[&Running]) -> Arc<Endpoints> {
    let options = EndpointOptions {
        info_timeout: Duration::from_secs(5),
        dns_interval: Duration::from_secs(30),
        files_interval: Duration::from_secs(5),
        response_timeout: None,
        tls: None,
        unhealthy_timeout: Duration::from_secs(300),
        straggler_delay: Duration::from_millis(100),
    };
    let endpoints = Endpoints::new(options, Arc::new(Dns::new()), World::real());
    let wanted = nodes.iter().map(|n| Wanted { target: Target::Fixed(n.address.to_string()), strict: false });
    endpoints.configure(wanted.collect());
    endpoints.discover().await;
    endpoints.poll_all().await;
    endpoints
}

fn context(partial: PartialResponse) -> Context {
    Context { partial, ..Context::background() }
}

async fn select(
    endpoints: &Arc<Endpoints>,
    reading: Reading,
    partial: PartialResponse,
) -> Result<(Vec<SeriesEntry>, Notes), Error> {
    let fanout = Fanout::new(endpoints.clone(), reading, World::real());
    let asked = tokio::task::spawn_blocking(move || {
        let request = SelectRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
        fanout.select(&request, &context(partial)).and_then(storage::collect)
    });
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap()
}

async fn by_default(endpoints: &Arc<Endpoints>) -> Result<(Vec<SeriesEntry>, Notes), Error> {
    select(endpoints, Reading::default(), PartialResponse::Warn).await
}

/// Every series once, in order, with every sample once and to the bit.
fn assert_exact(entries: &[SeriesEntry]) {
    let shown: Vec<_> = entries.iter().map(|e| e.labels.to_string()).collect();
    let wanted: Vec<_> = (0..SERIES)
        .map(|s| {
            let mut labels = labels_of(s);
            labels.push(("tenant_id".into(), "t".into()));
            model::Labels::from_pairs(labels).unwrap().to_string()
        })
        .collect();
    assert_eq!(shown, wanted);
    for entry in entries {
        let mut columns = Columns::default();
        decode_series(&entry.chunks, TimeRange::ALL, &mut columns).unwrap();
        let times: Vec<i64> = (0..SAMPLES).map(|at| START + at * STEP).collect();
        assert_eq!(columns.timestamps, times, "{}", entry.labels);
        for (at, v) in columns.values.iter().enumerate() {
            assert_eq!(v.to_bits(), value_of(at as i64).to_bits());
        }
    }
}

async fn three() -> [Running; 3] {
    [
        Node::receiver(0, 3, SERIES).serve().await,
        Node::receiver(1, 3, SERIES).serve().await,
        Node::receiver(2, 3, SERIES).serve().await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_are_one_exact_answer() {
    let [a, b, c] = three().await;
    let endpoints = endpoints(&[&a, &b, &c]).await;
    for _ in 0..3 {
        let (entries, notes) = by_default(&endpoints).await.unwrap();
        assert_exact(&entries);
        assert!(notes.is_empty(), "{notes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_receiver_is_not_even_a_warning() {
    let [a, b, c] = three().await;
    let endpoints = endpoints(&[&a, &b, &c]).await;
    // Found by the query itself, before anybody was asked again; and then as one that is known to be away.
    b.stop();
    for _ in 0..2 {
        let (entries, notes) = select(&endpoints, Reading::default(), PartialResponse::Abort).await.unwrap();
        assert_exact(&entries);
        assert!(notes.is_empty(), "{notes:?}");
        endpoints.poll_all().await;
    }
    assert!(endpoints.list()[..].iter().any(|e| e.state().missing().is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_breaks_midway_costs_nothing() {
    let [a, b, c] = three().await;
    let endpoints = endpoints(&[&a, &b, &c]).await;
    for breaks_after in [0, 1, 63, 64, 65, 200, SERIES - 1, SERIES] {
        b.node.breaks_after.store(breaks_after, SeqCst);
        let (entries, notes) = by_default(&endpoints).await.unwrap();
        assert_exact(&entries);
        assert!(notes.is_empty(), "{notes:?}");
    }
    // A second one that breaks makes the answer an error, wherever it breaks.
    for breaks_after in [0, 100, SERIES] {
        c.node.breaks_after.store(breaks_after, SeqCst);
        let error = by_default(&endpoints).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("the disk is gone"), "{}", error.message);
        assert!(error.message.contains("2 of 3 receivers are missing, 1 may be"), "{}", error.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lost_receivers_are_an_error_unless_asked_for() {
    let [a, b, c] = three().await;
    let endpoints = endpoints(&[&a, &b, &c]).await;
    b.stop();
    // Replaying counts as away.
    c.node.ready.store(false, SeqCst);
    endpoints.poll_all().await;
    let error = by_default(&endpoints).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    for name in [&b, &c] {
        assert!(error.message.contains(&format!("receiver {}", name.address)), "{}", error.message);
    }
    assert!(error.message.contains("not ready"), "{}", error.message);
    let asked = Reading { partial: Some(true), ..Reading::default() };
    let (entries, notes) = select(&endpoints, asked, PartialResponse::Warn).await.unwrap();
    assert_eq!(entries.len(), SERIES);
    assert_eq!(notes.warnings.len(), 2, "{notes:?}");
    assert!(notes.warnings.iter().any(|w| w.contains(&b.address.to_string())), "{notes:?}");
    // It comes back.
    c.node.ready.store(true, SeqCst);
    endpoints.poll_all().await;
    assert_exact(&by_default(&endpoints).await.unwrap().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_was_never_reached_is_needed() {
    let [a, b, c] = three().await;
    c.stop();
    while tokio::net::TcpStream::connect(c.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let endpoints = endpoints(&[&a, &b, &c]).await;
    let error = by_default(&endpoints).await.unwrap_err();
    assert!(error.message.contains("never reached yet"), "{}", error.message);
    let asked = Reading { partial: Some(true), ..Reading::default() };
    let (entries, notes) = select(&endpoints, asked, PartialResponse::Warn).await.unwrap();
    assert_exact(&entries);
    assert_eq!(notes.warnings.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_of_the_ring_that_are_no_endpoints_are_missed() {
    let naming = |replica| {
        let mut node = Node::receiver(replica, 3, SERIES);
        if let Some(info) = &mut node.node {
            info.ring_members = (0..3).map(|at| format!("receive-{at}:10901")).collect();
        }
        node
    };
    let nodes = [naming(0).serve().await, naming(1).serve().await];
    // Two of three suffice, as when the third is away.
    let (entries, notes) = by_default(&endpoints(&[&nodes[0], &nodes[1]]).await).await.unwrap();
    assert_exact(&entries);
    assert!(notes.is_empty(), "{notes:?}");
    // One of three does not: an acknowledged sample may be on the other two.
    let error = by_default(&endpoints(&[&nodes[0]]).await).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("of a ring of 3 receivers only 1"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_of_the_ring_that_was_never_reached_is_a_receiver_that_is_away() {
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let naming = |replica| {
        let mut node = Node::receiver(replica, 3, SERIES);
        if let Some(info) = &mut node.node {
            info.ring_members = vec!["elsewhere:10901".to_owned(), away.clone()];
        }
        node
    };
    let nodes = [naming(0).serve().await, naming(1).serve().await];
    let list = endpoints(&[&nodes[0], &nodes[1]]).await;
    let wanted = |address: String| Wanted { target: Target::Fixed(address), strict: false };
    let mut all: BTreeSet<Wanted> = nodes.iter().map(|n| wanted(n.address.to_string())).collect();
    all.insert(wanted(away.clone()));
    list.configure(all);
    list.discover().await;
    list.poll_all().await;
    let (entries, notes) = by_default(&list).await.unwrap();
    assert_exact(&entries);
    assert!(notes.is_empty(), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_needed_and_leaves_are_not() {
    let mut store = Node::new(rpc::component::STORE, &[("tenant_id", "t"), ("replica", "r0")]);
    store.series = (0..SERIES).map(|s| one(&labels_of(s), |_| true)).collect();
    let mut leaf = Node::new(rpc::component::SIDECAR, &[("dc", "x")]);
    leaf.series = vec![one(&labels_of(0), |_| true)];
    let (store, leaf) = (store.serve().await, leaf.serve().await);
    let receiver = Node::receiver(0, 1, SERIES).serve().await;
    let endpoints = endpoints(&[&store, &leaf, &receiver]).await;
    let (entries, _) = by_default(&endpoints).await.unwrap();
    assert_eq!(entries.len(), SERIES + 1);
    leaf.stop();
    endpoints.poll_all().await;
    let (entries, notes) = by_default(&endpoints).await.unwrap();
    // The block's replica label is the receiver's own: head and block are one series.
    assert_exact(&entries);
    assert_eq!(notes.warnings.len(), 1);
    assert!(notes.warnings[0].contains(&leaf.address.to_string()), "{notes:?}");
    for (partial, context) in [(Some(false), PartialResponse::Abort), (None, PartialResponse::Abort)] {
        let refused = Reading { partial, ..Reading::default() };
        assert!(select(&endpoints, refused, context).await.is_err());
    }
    // Left out on purpose, nobody misses it.
    let chosen = Matcher::new(model::MatchOp::NotEqual, "__address__", &leaf.address.to_string()).unwrap();
    let reading = Reading { store_matchers: vec![vec![chosen]], ..Reading::default() };
    let (entries, notes) = select(&endpoints, reading, PartialResponse::Warn).await.unwrap();
    assert_exact(&entries);
    assert!(notes.is_empty());
    store.stop();
    endpoints.poll_all().await;
    let error = by_default(&endpoints).await.unwrap_err();
    assert!(error.message.contains(&format!("store {}", store.address)), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_listed_without_what_results_do_not_show() {
    let [a, b, c] = three().await;
    let endpoints = endpoints(&[&a, &b, &c]).await;
    let reading = Reading { drop_labels: vec!["tenant_id".into()], ..Reading::default() };
    let fanout = Fanout::new(endpoints.clone(), reading.clone(), World::real());
    tokio::task::spawn_blocking(move || {
        let request = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 0 };
        let context = context(PartialResponse::Abort);
        let names = fanout.label_names(&request, &context).unwrap();
        assert_eq!(names.values, ["__name__", "i"]);
        let values = fanout.label_values("i", &request, &context).unwrap();
        assert_eq!(values.values.len(), SERIES);
        assert!(fanout.label_values("replica", &request, &context).unwrap().values.is_empty());
    })
    .await
    .unwrap();
    let (entries, _) = select(&endpoints, reading, PartialResponse::Abort).await.unwrap();
    assert_eq!(entries.len(), SERIES);
    let names: BTreeSet<&str> = entries.iter().flat_map(|e| e.labels.iter().map(|(n, _)| n)).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["__name__", "i"]);
    b.stop();
    c.stop();
    let fanout = Fanout::new(endpoints, Reading::default(), World::real());
    let asked = tokio::task::spawn_blocking(move || {
        let request = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 0 };
        fanout.label_names(&request, &context(PartialResponse::Warn))
    });
    assert_eq!(asked.await.unwrap().unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_are_not_ours_are_never_interleaved() {
    let mut sides = Vec::new();
    for (ha, shift) in [("a", 0), ("b", 4_000)] {
        let mut node = Node::new(rpc::component::SIDECAR, &[("ha", ha), ("tenant_id", "t")]);
        let samples = (0..SAMPLES)
            .map(|at| model::Sample { timestamp: START + shift + at * STEP, value: value_of(at) });
        let range = TimeRange::new(START + shift, START + shift + (SAMPLES - 1) * STEP);
        let bytes = chunk::xor::encode(samples).unwrap().into();
        let chunks = vec![chunk::ChunkData { range, encoding: chunk::Encoding::Xor, bytes }];
        let labels = model::Labels::from_pairs(labels_of(0)).unwrap();
        node.series = vec![SeriesEntry { labels, chunks }];
        sides.push(node.serve().await);
    }
    let endpoints = endpoints(&[&sides[0], &sides[1]]).await;
    let pairs = Reading { pair_labels: vec!["ha".into()], ..Reading::default() };
    let (entries, _) = select(&endpoints, pairs, PartialResponse::Abort).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].labels.get("ha"), None);
    let mut columns = Columns::default();
    decode_series(&entries[0].chunks, TimeRange::ALL, &mut columns).unwrap();
    assert_eq!(columns.len(), SAMPLES as usize);
    assert!(columns.timestamps.windows(2).all(|w| w[1] - w[0] == STEP));
    // Without deduplication both are shown, apart.
    let (entries, _) = by_default(&endpoints).await.unwrap();
    assert_eq!(entries.len(), 2);
}

/// A name whose addresses a test changes.
#[derive(Default)]
struct Names(parking_lot::Mutex<BTreeSet<String>>);

impl query::Resolve for Names {
    fn resolve(&self, target: Target) -> query::Resolved {
        let found = match target {
            Target::Fixed(address) => BTreeSet::from([address]),
            _ => self.0.lock().clone(),
        };
        Box::pin(std::future::ready(Ok(found)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_leaves_its_name_stays_needed() {
    let [a, b, c] = three().await;
    let names = Arc::new(Names::default());
    let point_to = |nodes: &[&Running]| {
        *names.0.lock() = nodes.iter().map(|node| node.address.to_string()).collect();
    };
    let fixed = Endpoints::new(
        EndpointOptions {
            info_timeout: Duration::from_secs(5),
            dns_interval: Duration::from_secs(30),
            files_interval: Duration::from_secs(5),
            response_timeout: None,
            tls: None,
            unhealthy_timeout: Duration::from_secs(300),
            straggler_delay: Duration::ZERO,
        },
        names.clone(),
        World::real(),
    );
    let wanted = |targets: &[&str]| {
        let read = |text: &&str| Wanted { target: Target::parse(text).unwrap(), strict: false };
        targets.iter().map(read).collect::<BTreeSet<_>>()
    };
    point_to(&[&a, &b, &c]);
    fixed.configure(wanted(&["dns+receive:10901"]));
    fixed.discover().await;
    fixed.poll_all().await;
    // Two pods are not ready and leave the name: their copies are missing, not forgotten.
    point_to(&[&a]);
    fixed.discover().await;
    assert_eq!(fixed.list().len(), 3);
    let error = by_default(&fixed).await.unwrap_err();
    assert!(error.message.contains("its name no longer leads to this address"), "{}", error.message);
    // One of them comes back under another address: the same log, the same node.
    let moved = Node::receiver(1, 3, SERIES).serve().await;
    point_to(&[&a, &moved]);
    fixed.discover().await;
    fixed.poll_all().await;
    fixed.discover().await;
    assert_eq!(fixed.list().len(), 3);
    assert_exact(&by_default(&fixed).await.unwrap().0);
    // Once the operator names others, what the old name led to is gone.
    let address = a.address.to_string();
    fixed.configure(wanted(&[&address]));
    fixed.discover().await;
    assert_eq!(fixed.list().len(), 1);
}

/// A stopped receiver neither delays an answer that the others have whole, nor is it noticed by the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stands_still_is_not_waited_for() {
    let nodes = three().await;
    let all = [&nodes[0], &nodes[1], &nodes[2]];
    let endpoints = endpoints(&all).await;
    for silent in &nodes {
        // Before its first series, after some frames, and shortly before its end.
        for stalls_after in [0, 70, SERIES - 1] {
            silent.node.stalls_after.store(stalls_after, SeqCst);
            let (entries, notes) = by_default(&endpoints).await.unwrap();
            assert_exact(&entries);
            assert!(notes.is_empty(), "{notes:?}");
        }
        silent.node.stalls_after.store(0, SeqCst);
        let fanout = Fanout::new(endpoints.clone(), Reading::default(), World::real());
        let asked = tokio::task::spawn_blocking(move || {
            let request = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 0 };
            fanout.label_names(&request, &context(PartialResponse::Warn))
        });
        let listed = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap().unwrap();
        assert_eq!(listed.values, ["__name__", "i", "tenant_id"]);
        silent.node.stalls_after.store(usize::MAX, SeqCst);
    }
    for node in &nodes {
        node.stop();
    }
}

/// Two of three: nobody may be spared, and the query ends by its deadline, not by a short answer.
#[tokio::test(flavor = "multi_thread")]
async fn stragglers_that_are_needed_are_waited_for() {
    let nodes = three().await;
    let endpoints = endpoints(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    nodes[0].node.stalls_after.store(50, SeqCst);
    nodes[1].node.stalls_after.store(50, SeqCst);
    let fanout = Fanout::new(endpoints.clone(), Reading::default(), World::real());
    let asked = tokio::task::spawn_blocking(move || {
        let deadline = World::real().clock.monotonic() + Duration::from_secs(2);
        let context = Context { cancel: storage::Cancel::new(Some(deadline)), ..Context::background() };
        let request = SelectRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
        fanout.select(&request, &context).and_then(storage::collect)
    });
    let error = asked.await.unwrap().expect_err("two copies cannot be missing");
    assert_eq!(error.message, "query timed out");
    for node in &nodes {
        node.stop();
    }
}

/// Three receivers that are agreed on, and the querier that was told so.
async fn governed() -> (Vec<Running>, Arc<Endpoints>, tokio::sync::watch::Sender<control::Seen>) {
    let mut nodes = Vec::new();
    for replica in 0..3 {
        let mut node = Node::receiver(replica, 3, SERIES);
        node.ring_epoch.store(1, SeqCst);
        node.facts.metadata = Some(Default::default());
        nodes.push(node.serve().await);
    }
    let endpoints = endpoints(&nodes.iter().collect::<Vec<_>>()).await;
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    let text = serde_json::json!([{ "hashring": "default", "endpoints": addresses }]).to_string();
    let plan = agreed::RingPlan { text, replication: 3, quorum: 2, hashmod: false };
    let mut state = agreed::State::default();
    state
        .apply(agreed::Command::Form { cluster: "c".to_owned(), plan, by: "a test".to_owned(), time: 0 })
        .unwrap();
    for (replica, address) in addresses.iter().enumerate() {
        let (address, incarnation, cluster) = (address.clone(), format!("r{replica}"), "c".to_owned());
        let node = agreed::Registration { address, incarnation, cluster, levels: (1, 1), ships: false };
        state.apply(agreed::Command::Register { node, time: 0 }).unwrap();
    }
    let (told, seen) = tokio::sync::watch::channel(control::Seen { revision: 1, state: Arc::new(state) });
    endpoints.govern(seen);
    (nodes, endpoints, told)
}

#[tokio::test]
async fn an_answer_of_a_ring_that_is_over_is_none() {
    let (nodes, endpoints, _told) = governed().await;
    endpoints.poll_all().await;
    assert_exact(&by_default(&endpoints).await.unwrap().0);

    // One of them has promised to take no more writes of this epoch, and nobody has told the querier: it hears it with the
    // answer, for what was acknowledged since may be with others.
    nodes[1].node.ring_epoch.store(2, SeqCst);
    let error = by_default(&endpoints).await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.message.contains("ring epoch 2"), "{error}");
    let error = label_values(&endpoints).await.unwrap_err();
    assert!(error.message.contains("ring epoch 2"), "{error}");
    // Once it has been said that it is otherwise, as after a restored backup, the word is taken back.
    nodes[1].node.ring_epoch.store(1, SeqCst);
    endpoints.poll_all().await;
    assert_exact(&by_default(&endpoints).await.unwrap().0);
    assert!(metadata(&endpoints).await.is_ok());
    nodes[1].node.ring_epoch.store(2, SeqCst);
    assert!(label_values(&endpoints).await.is_err());
    // What was heard with one answer holds for all.
    let error = metadata(&endpoints).await.unwrap_err();
    assert!(error.message.contains("ring epoch 2"), "{error}");
}

async fn metadata(endpoints: &Arc<Endpoints>) -> Result<storage::Meanings, Error> {
    let (queries, world) = (query::Queries::default(), World::real());
    let everyone = query::Everyone { endpoints: endpoints.clone(), queries, world };
    let asked = tokio::task::spawn_blocking(move || {
        let (request, read) = (storage::MetadataRequest::default(), api::ReadParams::default());
        api::Facts::metadata(&everyone, &request, &read, &context(PartialResponse::Warn))
    });
    asked.await.unwrap()
}

/// Behind a name that is agreed on there is another disk, and the voters have not heard of it yet: what was acknowledged lies
/// on one of those who answer, or on none.
#[tokio::test]
async fn a_receiver_with_another_disk_has_not_answered_until_it_has_joined() {
    let (nodes, endpoints, told) = governed().await;
    endpoints.poll_all().await;
    nodes[2].node.reborn.store(true, SeqCst);
    assert_exact(&by_default(&endpoints).await.unwrap().0);
    nodes[0].node.down.store(true, SeqCst);
    let error = by_default(&endpoints).await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.message.contains("too few have answered"), "{error}");
    assert!(label_values(&endpoints).await.is_err());

    // It is the same one after all.
    nodes[2].node.reborn.store(false, SeqCst);
    assert_exact(&by_default(&endpoints).await.unwrap().0);

    // It has joined: what was acknowledged since, it has.
    nodes[2].node.reborn.store(true, SeqCst);
    nodes[0].node.down.store(false, SeqCst);
    let mut state = (*told.borrow().state).clone();
    let (address, incarnation) = (nodes[2].address.to_string(), "r2 anew".to_owned());
    let cluster = "c".to_owned();
    let node = agreed::Registration { address, incarnation, cluster, levels: (1, 1), ships: false };
    state.apply(agreed::Command::Register { node, time: 1 }).unwrap();
    told.send_replace(control::Seen { revision: 2, state: Arc::new(state) });
    endpoints.poll_all().await;
    assert_exact(&by_default(&endpoints).await.unwrap().0);
}

async fn label_values(endpoints: &Arc<Endpoints>) -> Result<storage::Listed, Error> {
    let fanout = Fanout::new(endpoints.clone(), Reading::default(), World::real());
    let asked = tokio::task::spawn_blocking(move || {
        let request = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 0 };
        fanout.label_values("i", &request, &context(PartialResponse::Warn))
    });
    asked.await.unwrap()
}
