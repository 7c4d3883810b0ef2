//! What becomes of writes whose peers are slow, full or away.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use futures::FutureExt;
use futures::future::BoxFuture;
use rpc::WriteCall;
use runtime::{Pool, Turns, World};
use storage::Verdict;
use tsdb::Tsdb;

use super::*;
use crate::breaker::Rules;
use crate::pending::tests::batch;
use crate::replicate::{Peer, PeerLimits, Remote};
use crate::settings::Settings;

/// Takes everything at once.
struct Quick;

impl Remote for Quick {
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
        let rows = call.rows.iter().map(|row| call.batch.series()[*row as usize].samples().len());
        let stored = vec![Verdict::Stored; rows.sum()];
        async { Ok(stored) }.boxed()
    }
}

/// Is away for so many calls, then takes everything.
struct Returns(AtomicU32);

impl Remote for Returns {
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
        match self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => async { Err(storage::Error::new(model::Kind::Unavailable, "refused")) }.boxed(),
            Err(_) => Quick.write(call),
        }
    }
}

fn door(dir: &std::path::Path) -> (Writer, Pool, Arc<Hints>) {
    door_to(dir, 1 << 20, |_| Arc::new(Quick))
}

/// A door with a log of its own, peers as they are given, queues of so many bytes, and the one thread that appends.
fn door_to(
    dir: &std::path::Path,
    queue_bytes: u64,
    remote: impl Fn(&str) -> Arc<dyn Remote> + Send + Sync + 'static,
) -> (Writer, Pool, Arc<Hints>) {
    let world = World::real();
    let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
    settings.replication.forward_queue = ::settings::ByteSize::from_bytes(queue_bytes);
    settings.replication.forward_timeout = ::settings::Span::from_secs(4);
    settings.replication.hashrings = Some(r#"[{"endpoints": ["a:1", "b:1", "c:1"]}]"#.to_owned());
    settings.replication.local_endpoint = Some("a:1".to_owned());
    settings.replication.replication_factor = 3;
    let hints = Hints::new(&world, settings.hints(true));
    let second = Duration::from_secs(1);
    let rules = Rules { slow: second, first_pause: second, max_pause: second };
    let limits = PeerLimits { workers: 1, queue_bytes, deadline: second, rules };
    let chance = Arc::clone(&world.chance);
    let connect = Arc::new(move |address: &str| {
        let peer = Peer::start(address, remote(address), limits, Arc::clone(&chance));
        // One call for each write.
        peer.set_ours(true);
        Ok(peer)
    });
    let ring = RingHolder::open(&settings, &world, connect).unwrap();
    let pool = Pool::new("append", 1, 16).unwrap();
    let local = Local::new((pool.clone(), Turns::new(2)));
    (Writer::new(&settings, ring, Arc::new(local), Arc::clone(&hints)), pool, hints)
}

fn engine(dir: &std::path::Path) -> Arc<Tsdb> {
    let settings =
        tsdb::Settings { dir: dir.join("tsdb"), segment_bytes: 1 << 20, ..tsdb::Settings::default() };
    Tsdb::open(World::real(), settings).unwrap()
}

async fn write(writer: &Writer) -> Vec<Outcome> {
    write_of(writer, batch(20, 1)).await
}

async fn write_of(writer: &Writer, batch: Arc<WriteBatch>) -> Vec<Outcome> {
    let tenant = TenantId::new("t").unwrap();
    let plan = writer.plan(&tenant, &batch).unwrap();
    writer.send(plan, &tenant, batch, 0).await.outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_this_nodes_copy_of_what_others_have_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, pool, _) = door(dir.path());
    let engine = engine(dir.path());
    writer.local().open(Arc::clone(&engine)).unwrap();
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let busy = tokio::spawn(async move {
        let wait = move || began.send(()).is_ok() && opened.recv().is_ok();
        pool.run(wait).await
    });
    begun.await.unwrap();
    assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
    let mut finished = Box::pin(writer.finish(Duration::from_secs(60)));
    for _ in 0..20 {
        assert!(futures::poll!(&mut finished).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(engine.head_stats().samples, 0);
    open.send(()).unwrap();
    finished.await;
    engine.close().unwrap();
    assert_eq!(engine.head_stats().samples, 20);
    assert!(busy.await.unwrap().unwrap());
}

/// As when all restart in turn: who goes was asked too late, who comes back too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_met_nobody_meets_the_one_that_is_back() {
    for (b, c, wanted) in [(1, 9, Outcome::Accepted), (2, 9, Outcome::Retryable)] {
        let dir = tempfile::tempdir().unwrap();
        let (writer, _, _) = door_to(dir.path(), 1 << 20, move |address| {
            Arc::new(Returns(AtomicU32::new(if address == "b:1" { b } else { c })))
        });
        writer.local().open(engine(dir.path())).unwrap();
        assert_eq!(write(&writer).await, [wanted; 20], "{b}");
        writer.finish(Duration::from_secs(60)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_node_does_not_take_itself_is_kept_for_it_from_the_first_request_on() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _, hints) = door(dir.path());
    // Its log is being replayed, and nobody writes hints yet.
    assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
    writer.finish(Duration::from_secs(60)).await;
    let opening = Arc::clone(&hints);
    tokio::task::spawn_blocking(move || opening.open(None)).await.unwrap().unwrap();
    // Its log has ended.
    let engine = engine(dir.path());
    writer.local().open(Arc::clone(&engine)).unwrap();
    engine.close().unwrap();
    assert_eq!(write(&writer).await, [Outcome::Accepted; 20]);
    writer.finish(Duration::from_secs(60)).await;
    let kept = || -> Vec<(String, u64)> {
        hints.figures().into_iter().map(|(peer, _, samples, _)| (peer, samples)).collect()
    };
    let wanted = [("a:1".to_owned(), 40)];
    for _ in 0..1000 {
        if kept() == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kept(), wanted);
    tokio::task::spawn_blocking(move || hints.close()).await.unwrap();
}

/// A peer is away, and what it misses comes faster than it is written down: no write is acknowledged whose copy would have
/// to be given up.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_misses_is_never_more_than_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes_of(&batch(20, 1), &(0..20).collect::<Vec<_>>());
    let (writer, _, hints) = door_to(dir.path(), 2 * bytes, |address| match address {
        "c:1" => Arc::new(Returns(AtomicU32::new(u32::MAX))),
        _ => Arc::new(Quick),
    });
    writer.local().open(engine(dir.path())).unwrap();
    // Nobody writes hints yet. Two have place in the queue to the peer, two beside it.
    for n in 0..4 {
        assert_eq!(write(&writer).await, [Outcome::Accepted; 20], "{n}");
    }
    let more = futures::future::join_all((0..4).map(|_| write(&writer))).await;
    assert_eq!(more, vec![[Outcome::Retryable; 20]; 4]);
    // Those that wait are answered once somebody does.
    let waiting = futures::future::join_all(
        (0..8).map(|_| async { while write(&writer).await != [Outcome::Accepted; 20] {} }),
    );
    let opening = Arc::clone(&hints);
    let opening = tokio::task::spawn_blocking(move || opening.open(None));
    let (_, opened) = futures::join!(waiting, opening);
    opened.unwrap().unwrap();
    // One that is larger than all there is has place by itself.
    while write_of(&writer, batch(200, 1)).await != [Outcome::Accepted; 200] {}
    let accepted = (4 + 8) * 20 + 200;
    writer.finish(Duration::from_secs(60)).await;
    let peers: Vec<_> = writer.ring().current().peers().cloned().collect();
    futures::future::join_all(peers.iter().map(|peer| peer.close(Duration::from_secs(60)))).await;
    let closing = Arc::clone(&hints);
    let kept = tokio::task::spawn_blocking(move || {
        while closing.figures().iter().map(|(_, _, samples, _)| samples).sum::<u64>() < accepted {
            std::thread::sleep(Duration::from_millis(5));
        }
        closing.figures().into_iter().map(|(peer, _, samples, _)| (peer, samples)).collect::<Vec<_>>()
    });
    assert_eq!(kept.await.unwrap(), [("c:1".to_owned(), accepted)]);
    tokio::task::spawn_blocking(move || hints.close()).await.unwrap();
    assert!(peers.iter().all(|peer| peer.queued_bytes() == 0));
}
