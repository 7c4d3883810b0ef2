//! Frames between receivers beside single calls: the same samples stored, the same verdicts, whatever becomes of names
//! and streams in between.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::Running;
use model::{Labels, Native, Sample, TenantId};
use parking_lot::Mutex;
use proptest::prelude::*;
use rpc::{
    KnownTaken, KnownWrite, PeerOptions, StaleEpoch, WriteBackend, WriteCall, WriteClient,
    WriteClientOptions, WriteFault, WriteRequest, WriteServer,
};
use runtime::World;
use storage::{Error, HistogramRow, Refusal, RowName, RowSource, SeriesHandle, Verdict, WriteBatch};
use tokio::runtime::Handle;
use wire::remote_write::Limits;

type Key = (String, Vec<u8>);

/// A store in memory whose places are given to other series again and again.
#[derive(Default)]
struct Store {
    state: Mutex<State>,
    framed: AtomicUsize,
    single: AtomicUsize,
    slow: AtomicBool,
    /// Writes of ring epochs before this one are refused.
    least: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Series and generation of each place.
    places: Vec<(Option<Key>, u32)>,
    /// What each series has: kind, time, value as text.
    samples: BTreeMap<Key, BTreeMap<(u8, i64), String>>,
}

impl State {
    fn place(&mut self, key: &Key) -> SeriesHandle {
        let at = match self.places.iter().position(|(of, _)| of.as_ref() == Some(key)) {
            Some(at) => at,
            None => {
                let free = self.places.iter().position(|(of, _)| of.is_none());
                let at = free.unwrap_or(self.places.len());
                if free.is_none() {
                    self.places.push((None, 0));
                }
                self.places[at] = (Some(key.clone()), self.places[at].1 + 1);
                at
            }
        };
        SeriesHandle { index: at as u32, generation: self.places[at].1 }
    }

    fn holds(&self, tenant: &str, handle: SeriesHandle, hash: u64) -> Option<Key> {
        let (key, generation) = self.places.get(handle.index as usize)?;
        let key = key.clone().filter(|(of, _)| of == tenant && *generation == handle.generation)?;
        (model::placement_hash(tenant, &key.1) == hash).then_some(key)
    }

    /// Every place is empty, and will be somebody else's.
    fn forget(&mut self) {
        self.places.iter_mut().for_each(|(key, _)| *key = None);
        let one = 1.min(self.places.len());
        self.places.rotate_left(one);
    }

    fn take(&mut self, key: &Key, kind: u8, time: i64, value: String) -> Verdict {
        // Refused whatever is stored.
        if time < 0 {
            return Verdict::Refused(Refusal::TooOld);
        }
        let samples = self.samples.entry(key.clone()).or_default();
        match samples.get(&(kind, time)) {
            Some(there) if *there == value => Verdict::Duplicate,
            Some(_) => Verdict::Refused(Refusal::Conflict),
            None => {
                samples.insert((kind, time), value);
                Verdict::Stored
            }
        }
    }

    fn take_row(&mut self, key: &Key, batch: &WriteBatch, row: u32, verdicts: &mut [Verdict]) {
        let series = &batch.series()[row as usize];
        let [floats, histograms, exemplars] = batch.verdicts_of(series);
        for at in floats {
            let (sample, start) = (batch.samples()[at], batch.start_of(at));
            verdicts[at] = self.take(key, 0, sample.timestamp, format!("{} {start}", sample.value.to_bits()));
        }
        for at in histograms {
            let row = &batch.histograms()[at - batch.first_histogram()];
            verdicts[at] = self.take(key, 1, row.timestamp, format!("{row:?}"));
        }
        for at in exemplars {
            let row = &batch.exemplars()[at - batch.first_exemplar()];
            let text = format!("{} {:?}", row.value, batch.exemplar_labels(row));
            verdicts[at] = self.take(key, 2, row.timestamp, text);
        }
    }
}

impl Store {
    fn not_stale(&self, ring_epoch: u64) -> Result<(), Error> {
        let epoch = self.least.load(SeqCst);
        match ring_epoch > 0 && ring_epoch < epoch {
            true => Err(StaleEpoch { epoch, ring: b"the new one".to_vec() }.into_error()),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl WriteBackend for Store {
    async fn write(&self, request: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error> {
        self.single.fetch_add(1, SeqCst);
        self.not_stale(request.ring_epoch)?;
        let mut state = self.state.lock();
        let groups = request.groups.iter().map(|group| {
            let mut verdicts = vec![Verdict::Unavailable; group.batch.verdicts()];
            for (row, series) in group.batch.series().iter().enumerate() {
                let labels = group.batch.label_bytes(series).to_vec();
                let key = (group.tenant.as_str().to_owned(), labels);
                state.take_row(&key, &group.batch, row as u32, &mut verdicts);
            }
            verdicts
        });
        Ok(groups.collect())
    }

    async fn write_known(&self, write: KnownWrite) -> Result<KnownTaken, Error> {
        self.framed.fetch_add(1, SeqCst);
        self.not_stale(write.ring_epoch)?;
        if self.slow.load(SeqCst) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let KnownWrite { tenant, batch, rows, .. } = write;
        let mut state = self.state.lock();
        let mut verdicts = vec![Verdict::Unavailable; batch.verdicts()];
        let (mut learned, mut unknown) = (Vec::new(), Vec::new());
        for row in rows {
            let series = &batch.series()[row as usize];
            let labels = batch.label_bytes(series);
            let key = match series.handle {
                Some(handle) => state.holds(tenant.as_str(), handle, series.hash),
                None => {
                    let key = (tenant.as_str().to_owned(), labels.to_vec());
                    // Some series are never given a place.
                    if !series.hash.is_multiple_of(5) {
                        learned.push((row, state.place(&key)));
                    }
                    Some(key)
                }
            };
            match key {
                Some(key) => state.take_row(&key, &batch, row, &mut verdicts),
                None => unknown.push(row),
            }
        }
        Ok(KnownTaken { batch, verdicts, learned, unknown })
    }
}

fn labels(n: u32) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())]).unwrap()
}

/// Names rows by their series, and has their labels.
struct Source(Vec<(u32, RowName)>);

impl RowSource for Source {
    fn name(&self, row: u32) -> Option<RowName> {
        // One series has no name.
        self.0.get(row as usize).filter(|(series, _)| *series != 3).map(|(_, name)| *name)
    }

    fn labels(&self, row: u32, out: &mut Vec<u8>) -> bool {
        let Some((series, _)) = self.0.get(row as usize) else { return false };
        out.extend_from_slice(labels(*series).as_bytes());
        true
    }

    fn bytes(&self) -> usize {
        self.0.len() * 100
    }

    fn learned(&self, _: &[(u32, SeriesHandle)]) {}
}

/// Series, time, value, and whether there is more than floats.
type Row = (u32, i64, f64, bool);

/// With `ids` series of more than so many share their numbers, as after some were forgotten.
fn call(tenant: &str, rows: &[Row], ids: u32) -> WriteCall {
    let mut batch = WriteBatch::default();
    for &(series, time, value, more) in rows {
        batch.open().push(Sample { timestamp: time, value });
        if more {
            batch.push_start(time - 5);
            batch.open().push(Sample { timestamp: time + 1, value });
            let histogram = Native::Whole(model::Histogram { sum: value, ..Default::default() });
            batch.push_histogram(HistogramRow { timestamp: time, start: 0, histogram });
            batch.push_exemplar(time, value, labels(9).as_bytes());
        }
        let hash = labels(series).placement_hash(tenant);
        batch.close(&[], hash, Some(SeriesHandle::NOWHERE));
    }
    let named = rows.iter().map(|row| {
        let check = 77 * u64::from(row.0) + tenant.len() as u64;
        (row.0, RowName { id: row.0 % ids, check })
    });
    batch.attach(Arc::new(Source(named.collect())));
    let all = (0..rows.len() as u32).collect();
    let tenant = TenantId::new(tenant).unwrap();
    WriteCall { tenant, batch: Arc::new(batch), rows: all, replica: 1, judged_at: 1000, ring_epoch: 0 }
}

async fn serve(store: &Arc<Store>, options: PeerOptions) -> Running {
    let server = WriteServer::new(store.clone(), Limits::default());
    Running::start(|services| services.write_with(server, options)).await
}

fn client(running: &Running, options: WriteClientOptions) -> WriteClient {
    WriteClient::new(&running.address, options, World::real(), &Handle::current()).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Write(bool, Vec<Row>),
    /// Every handle becomes stale.
    Forget,
    /// The stream breaks.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..12u32, -1..6i64, 0..3u32, proptest::bool::weighted(0.1))
        .prop_map(|(series, time, value, more)| (series, time, f64::from(value), more));
    let write =
        (any::<bool>(), proptest::collection::vec(row, 0..15)).prop_map(|(a, rows)| Step::Write(a, rows));
    let step = prop_oneof![8 => write, 2 => Just(Step::Forget), 1 => Just(Step::Reconnect)];
    proptest::collection::vec(step, 1..12)
}

async fn compare(steps: Vec<Step>, names: u32) {
    let (framed, single) = (Arc::new(Store::default()), Arc::new(Store::default()));
    let by_frames = serve(&framed, PeerOptions { names, ..PeerOptions::default() }).await;
    let by_calls = serve(&single, PeerOptions::default()).await;
    let open = || client(&by_frames, WriteClientOptions::default());
    let mut a = open();
    let b = client(&by_calls, WriteClientOptions { peer: None, ..Default::default() });
    for step in steps {
        match step {
            Step::Forget => framed.state.lock().forget(),
            Step::Reconnect => a = open(),
            Step::Write(first, rows) => {
                let tenant = if first { "a" } else { "tenant-b" };
                // Numbers of series are given again where there are more than seven.
                let call = call(tenant, &rows, 7);
                let (one, other) = (a.write(call.clone()).await.unwrap(), b.write(call).await.unwrap());
                assert_eq!(one, other);
            }
        }
    }
    assert_eq!(framed.state.lock().samples, single.state.lock().samples);
    assert_eq!((framed.single.load(SeqCst), single.framed.load(SeqCst)), (0, 0));
    by_frames.stop().await;
    by_calls.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn frames_and_single_calls_store_and_say_the_same(steps in steps(), few in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(steps, if few { 4 } else { 1000 }));
    }
}

#[tokio::test]
async fn a_series_is_named_once_and_a_stale_name_takes_one_more_frame() {
    let store = Arc::new(Store::default());
    let running = serve(&store, PeerOptions::default()).await;
    let client = client(&running, WriteClientOptions::default());
    let rows = |time| (10..20u32).map(|n| (n, time, 1.0, false)).collect::<Vec<Row>>();
    for time in 0..3 {
        assert_eq!(client.write(call("t", &rows(time), 100)).await.unwrap(), [Verdict::Stored; 10]);
    }
    assert_eq!(store.framed.load(SeqCst), 3);
    let named = client.names().unwrap();
    assert!((5..=10).contains(&named), "{named}");
    // Places are given to others; nothing reaches them by the old names.
    store.state.lock().forget();
    let others =
        WriteClient::new(&running.address, Default::default(), World::real(), &Handle::current()).unwrap();
    let strangers: Vec<Row> = (50..60).map(|n| (n, 0, 2.0, false)).collect();
    others.write(call("t", &strangers, 100)).await.unwrap();
    assert_eq!(client.write(call("t", &rows(3), 100)).await.unwrap(), [Verdict::Stored; 10]);
    assert_eq!(store.framed.load(SeqCst), 6);
    let samples = store.state.lock().samples.clone();
    for (series, count) in (10..20).map(|n| (n, 4)).chain((50..60).map(|n| (n, 1))) {
        let key = ("t".to_owned(), labels(series).as_bytes().to_vec());
        assert_eq!(samples[&key].len(), count, "series {series}");
    }
    running.stop().await;
}

#[tokio::test]
async fn requests_overtake_one_another_and_all_are_answered() {
    let store = Arc::new(Store::default());
    let running = serve(&store, PeerOptions { inflight_bytes: 600, ..PeerOptions::default() }).await;
    let client = client(&running, WriteClientOptions::default());
    let writes = (0..60).map(|n| {
        let client = client.clone();
        async move {
            let rows: Vec<Row> = (0..5).map(|s| (10 + (n + s) % 9, n.into(), 1.0, false)).collect();
            client.write(call("t", &rows, 100)).await.unwrap().len()
        }
    });
    let answered = futures::future::join_all(writes).await;
    assert_eq!(answered, [5; 60]);
    let stored: usize = store.state.lock().samples.values().map(BTreeMap::len).sum();
    assert_eq!(stored, 300);
    running.stop().await;
}

#[tokio::test]
async fn a_receiver_without_frames_is_written_to_by_single_calls() {
    let store = Arc::new(Store::default());
    let server = WriteServer::new(store.clone(), Limits::default());
    let running = Running::start(|services| services.write_unframed(server)).await;
    let client = client(&running, WriteClientOptions::default());
    for time in 0..3 {
        assert_eq!(client.write(call("t", &[(1, time, 1.0, true)], 100)).await.unwrap().len(), 4);
    }
    assert_eq!((store.framed.load(SeqCst), store.single.load(SeqCst), client.names()), (0, 3, None));
    running.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_a_frame_goes_by_a_single_call() {
    let store = Arc::new(Store::default());
    let running = serve(&store, PeerOptions { inflight_bytes: 500, ..PeerOptions::default() }).await;
    let client = client(&running, WriteClientOptions::default());
    let many: Vec<Row> = (10..60).map(|n| (n, 1, 1.0, false)).collect();
    assert_eq!(client.write(call("t", &many, 100)).await.unwrap(), [Verdict::Stored; 50]);
    assert_eq!(client.write(call("t", &many[..2], 100)).await.unwrap(), [Verdict::Duplicate; 2]);
    assert_eq!((store.framed.load(SeqCst), store.single.load(SeqCst)), (1, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_answers_what_was_sent_and_ends_the_streams() {
    let store = Arc::new(Store::default());
    let running = serve(&store, PeerOptions::default()).await;
    let client = client(&running, WriteClientOptions::default());
    assert_eq!(client.write(call("t", &[(1, 1, 1.0, false)], 9)).await.unwrap(), [Verdict::Stored]);
    let world = World::real();
    let began = world.clock.monotonic();
    running.stop().await;
    // The stream does not hold the listener open for its grace period.
    assert!(world.clock.monotonic() - began < Duration::from_secs(5));
    let error = client.write(call("t", &[(1, 2, 1.0, false)], 9)).await.unwrap_err();
    assert_eq!(error.kind, model::Kind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_request_that_is_late_fails_alone() {
    let store = Arc::new(Store::default());
    let running = serve(&store, PeerOptions::default()).await;
    let options = WriteClientOptions {
        timeout: Duration::from_millis(600),
        max_backoff: Duration::from_millis(1),
        ..Default::default()
    };
    let client = client(&running, options);
    client.write(call("t", &[(1, 1, 1.0, false)], 9)).await.unwrap();
    store.slow.store(true, SeqCst);
    let error = client.write(call("t", &[(1, 2, 1.0, false)], 9)).await.unwrap_err();
    assert_eq!(error.kind, model::Kind::Unavailable, "{error}");
    store.slow.store(false, SeqCst);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(client.write(call("t", &[(1, 2, 1.0, false)], 9)).await.unwrap(), [Verdict::Stored]);
    running.stop().await;
}

/// By frames and by single calls alike, a write of a ring that is over is told which one is to be used.
#[tokio::test]
async fn a_write_of_a_ring_epoch_that_is_over_is_told_of_the_one_that_is() {
    for frames in [true, false] {
        let store = Arc::new(Store::default());
        let running = serve(&store, PeerOptions::default()).await;
        let peer = frames.then(PeerOptions::default);
        let client = client(&running, WriteClientOptions { peer, ..Default::default() });
        let of = |ring_epoch| WriteCall { ring_epoch, ..call("t", &[(1, 1, 1.0, false)], 9) };
        store.least.store(7, SeqCst);
        let error = client.write(of(6)).await.unwrap_err();
        assert_eq!(error.fault, WriteFault::Stale, "{error}");
        let stale = StaleEpoch::of(&error).unwrap();
        assert_eq!((stale.epoch, stale.ring.as_slice()), (7, b"the new one".as_slice()));
        // Nobody is left alone for that, and what names no epoch is taken.
        assert_eq!(client.write(of(7)).await.unwrap(), [Verdict::Stored], "{frames}");
        assert_eq!(client.write(of(0)).await.unwrap(), [Verdict::Duplicate], "{frames}");
        assert_eq!(store.single.load(SeqCst) == 0, frames);
        running.stop().await;
    }
}
