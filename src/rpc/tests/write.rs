//! Writes over loopback: our own peers get verdicts, Thanos gets statuses, garbage gets neither.

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{Running, labels};
use model::{Kind, Labels, Native, Sample, TenantId};
use parking_lot::Mutex;
use prost::Message;
use rpc::{
    WriteBackend, WriteCall, WriteClient, WriteClientOptions, WriteError, WriteFault, WriteRequest,
    WriteServer, WriteShape,
};
use runtime::World;
use storage::{Error, HistogramRow, Refusal, Verdict, WriteBatch};
use tokio::runtime::Handle;
use tonic::Code;
use wire::pb::prometheus_copy::{Histogram, Sample as PbSample, TimeSeries};
use wire::pb::thanos::writeable_store_client::WriteableStoreClient;
use wire::pb::thanos::{self as pb, Label, TimeSeriesTenantTuple};
use wire::remote_write::Limits;

/// Keeps what it is given and answers by the sample's value: -1 conflicts, -2 cannot be stored now.
#[derive(Default)]
struct Keeper {
    requests: Mutex<Vec<WriteRequest>>,
    down: AtomicBool,
    slow: AtomicBool,
    calls: AtomicUsize,
}

#[tonic::async_trait]
impl WriteBackend for Keeper {
    async fn write(&self, request: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error> {
        self.calls.fetch_add(1, SeqCst);
        if self.slow.load(SeqCst) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        if self.down.load(SeqCst) {
            return Err(Error::new(Kind::Unavailable, "replay is not done"));
        }
        let verdict = |value: f64| match value {
            -1.0 => Verdict::Refused(Refusal::Conflict),
            -2.0 => Verdict::Unavailable,
            -3.0 => Verdict::Duplicate,
            _ => Verdict::Stored,
        };
        let answer = |group: &rpc::TenantGroup| {
            let batch = &group.batch;
            let floats = batch.samples().iter().map(|s| s.value);
            let sums = batch.histograms().iter().map(|h| h.histogram.to_float().sum);
            floats.chain(sums).chain(batch.exemplars().iter().map(|e| e.value)).map(verdict).collect()
        };
        let answers = request.groups.iter().map(answer).collect();
        self.requests.lock().push(request);
        Ok(answers)
    }
}

async fn serve(keeper: &Arc<Keeper>) -> Running {
    let server = WriteServer::new(keeper.clone(), Limits { max_bytes: 1 << 20, ..Limits::default() });
    Running::start(|services| services.write(server)).await
}

fn client(running: &Running, options: WriteClientOptions) -> WriteClient {
    WriteClient::new(&running.address, options, World::real(), &Handle::current()).unwrap()
}

fn call(values: &[&[f64]], rows: &[u32]) -> WriteCall {
    let tenant = TenantId::new("acme").unwrap();
    let mut batch = WriteBatch::default();
    for (n, values) in values.iter().enumerate() {
        let l = labels(&[("__name__", "m"), ("n", &n.to_string())]);
        let samples = values.iter().enumerate().map(|(t, &value)| Sample { timestamp: t as i64, value });
        batch.push(l.as_bytes(), l.placement_hash(tenant.as_str()), samples);
    }
    WriteCall {
        tenant,
        batch: Arc::new(batch),
        rows: rows.to_vec(),
        replica: 2,
        judged_at: 1234,
        ring_epoch: 0,
    }
}

#[tokio::test]
async fn verdicts_come_back_sample_by_sample_in_both_shapes() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    for shape in [WriteShape::Single, WriteShape::ByTenant] {
        let client = client(&running, WriteClientOptions { shape, ..Default::default() });
        // The second series stays behind.
        let call = call(&[&[1.0, -1.0, f64::NAN], &[9.0], &[-2.0, -3.0]], &[2, 0]);
        let verdicts = client.write(call.clone()).await.unwrap();
        let conflict = Verdict::Refused(Refusal::Conflict);
        let expected = [Verdict::Unavailable, Verdict::Duplicate, Verdict::Stored, conflict, Verdict::Stored];
        assert_eq!(verdicts, expected);

        let got = keeper.requests.lock().pop().unwrap();
        assert_eq!((got.replica, got.judged_at, got.groups.len()), (2, Some(1234), 1));
        let group = &got.groups[0];
        assert_eq!(group.tenant.as_str(), "acme");
        assert_eq!(group.batch.series().len(), 2);
        for (sent, came) in [2, 0].into_iter().zip(group.batch.series()) {
            let sent = &call.batch.series()[sent];
            assert_eq!(group.batch.label_bytes(came), call.batch.label_bytes(sent));
            assert_eq!(came.hash, sent.hash);
            assert_eq!(group.batch.samples()[came.samples()], call.batch.samples()[sent.samples()]);
        }
    }
    running.stop().await;
}

/// Two series: a float, a histogram and an exemplar with a verdict each, then a float alone.
fn call_of_all_kinds() -> WriteCall {
    let tenant = TenantId::new("acme").unwrap();
    let mut batch = WriteBatch::default();
    let l = labels(&[("__name__", "m")]);
    for (n, sum) in [(1, 0.5), (2, -1.0)] {
        batch.open().push(Sample { timestamp: n, value: -3.0 });
        batch.push_start(n - 10);
        let histogram = Native::Whole(model::Histogram { sum, ..Default::default() });
        batch.push_histogram(HistogramRow { timestamp: n, start: 0, histogram });
        batch.push_exemplar(n, -2.0, labels(&[("trace_id", "x")]).as_bytes());
        batch.close(l.as_bytes(), l.placement_hash(tenant.as_str()), None);
    }
    batch.push(l.as_bytes(), l.placement_hash(tenant.as_str()), [Sample { timestamp: 3, value: 1.0 }]);
    WriteCall { tenant, batch: Arc::new(batch), rows: vec![1, 2, 0], replica: 1, judged_at: 1, ring_epoch: 0 }
}

#[tokio::test]
async fn every_kind_of_sample_arrives_and_has_its_verdict() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    let client = client(&running, WriteClientOptions::default());
    let call = call_of_all_kinds();
    let verdicts = client.write(call.clone()).await.unwrap();
    let conflict = Verdict::Refused(Refusal::Conflict);
    use Verdict::{Duplicate, Stored, Unavailable};
    assert_eq!(verdicts, [Duplicate, conflict, Unavailable, Stored, Duplicate, Stored, Unavailable]);
    let got = keeper.requests.lock().pop().unwrap();
    let batch = &got.groups[0].batch;
    assert_eq!(batch.histograms(), [1, 0].map(|at| call.batch.histograms()[at].clone()));
    let starts: Vec<_> = (0..3).map(|at| batch.start_of(at)).collect();
    assert_eq!(starts, [-8, 0, -9]);
    let exemplars = batch.exemplars().iter().map(|e| (e.timestamp, e.value, batch.exemplar_labels(e)));
    let trace = labels(&[("trace_id", "x")]);
    assert_eq!(exemplars.collect::<Vec<_>>(), [(2, -2.0, trace.as_bytes()), (1, -2.0, trace.as_bytes())]);
    running.stop().await;
}

/// Answers with so many verdicts, whatever it is asked.
struct Fixed(Vec<Verdict>);

#[tonic::async_trait]
impl WriteBackend for Fixed {
    async fn write(&self, _: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error> {
        Ok(vec![self.0.clone()])
    }
}

#[tokio::test]
async fn a_peer_that_reads_floats_alone_says_nothing_of_the_others() {
    // The server of an earlier version: it skips what it does not know and answers for the floats.
    struct Earlier;
    #[tonic::async_trait]
    impl pb::writeable_store_server::WriteableStore for Earlier {
        async fn remote_write(
            &self,
            _: tonic::Request<pb::WriteRequest>,
        ) -> Result<tonic::Response<pb::WriteResponse>, tonic::Status> {
            let (codes, counts) = (vec![0, 1], vec![2, 1]);
            let verdicts =
                wire::pb::tributary::v1::Verdicts { codes, counts, stale: None, pairs: Vec::new() };
            Ok(tonic::Response::new(pb::WriteResponse { tributary: Some(verdicts) }))
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_service(pb::writeable_store_server::WriteableStoreServer::new(Earlier));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let task = tokio::spawn(server.serve_with_incoming(incoming));
    let client = WriteClient::new(&address, WriteClientOptions::default(), World::real(), &Handle::current());
    let verdicts = client.unwrap().write(call_of_all_kinds()).await.unwrap();
    // Two of three such peers in the middle of an upgrade must not make a sender drop its histograms.
    let unread = Verdict::Unavailable;
    use Verdict::{Duplicate, Stored};
    assert_eq!(verdicts, [Stored, unread, unread, Stored, Duplicate, unread, unread]);
    task.abort();
}

#[tokio::test]
async fn each_audience_hears_of_what_it_knows() {
    // Histograms that are none are refused where they stand; an exemplar is no concern of Thanos's.
    let fixed = Arc::new(Fixed(vec![Verdict::Stored, Verdict::Duplicate, Verdict::Unavailable]));
    let server = WriteServer::new(fixed, Limits::default());
    let running = Running::start(|services| services.write(server)).await;
    let exemplar = wire::pb::prometheus_copy::Exemplar { timestamp: 1, ..Default::default() };
    let bad = Histogram { schema: 99, timestamp: 1, ..Default::default() };
    let request = |good: bool, context| pb::WriteRequest {
        timeseries: vec![TimeSeries {
            histograms: if good {
                vec![Histogram::default()]
            } else {
                vec![bad.clone(), Histogram::default()]
            },
            exemplars: vec![exemplar.clone()],
            ..series(&[("a", "1")], &[1.0])
        }],
        tenant: "t".to_owned(),
        tributary: context,
        ..Default::default()
    };
    let context = |all_kinds| wire::pb::tributary::v1::WriteContext { all_kinds, ..Default::default() };
    let told = |response: pb::WriteResponse| response.tributary.map(|v| (v.codes, v.counts));
    let invalid = 16 + Refusal::InvalidHistogram as u32;
    let all = thanos(&running, request(false, Some(context(true)))).await.unwrap();
    assert_eq!(told(all), Some((vec![0, invalid, 1, 2], vec![1; 4])));
    let floats = thanos(&running, request(false, Some(context(false)))).await.unwrap();
    assert_eq!(told(floats), Some((vec![0], vec![1])));
    assert_eq!(told(thanos(&running, request(true, None)).await.unwrap()), None);
    let refused = thanos(&running, request(false, None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    running.stop().await;
}

fn series(pairs: &[(&str, &str)], values: &[f64]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label { name: name.to_string(), value: value.to_string() };
    let sample = |(t, &value): (usize, &f64)| PbSample { timestamp: t as i64 + 1, value };
    TimeSeries {
        labels: pairs.iter().map(label).collect(),
        samples: values.iter().enumerate().map(sample).collect(),
        ..Default::default()
    }
}

/// As a Thanos router of either age sends it.
async fn thanos(running: &Running, request: pb::WriteRequest) -> Result<pb::WriteResponse, tonic::Status> {
    let mut client = WriteableStoreClient::connect(format!("http://{}", running.address)).await.unwrap();
    client.remote_write(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn thanos_is_told_by_status() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    let old = |values: &[f64]| pb::WriteRequest {
        timeseries: vec![series(&[("__name__", "m")], values)],
        tenant: "t".to_owned(),
        replica: 1,
        ..Default::default()
    };
    let response = thanos(&running, old(&[1.0, -3.0])).await.unwrap();
    assert_eq!(response.tributary, None);
    assert_eq!(keeper.requests.lock()[0].judged_at, None);
    let conflict = thanos(&running, old(&[1.0, -1.0])).await.unwrap_err();
    assert_eq!(conflict.code(), Code::AlreadyExists);
    assert!(conflict.message().contains("1: duplicate sample for timestamp"), "{conflict}");
    assert_eq!(thanos(&running, old(&[-2.0, -1.0])).await.unwrap_err().code(), Code::Unavailable);
    keeper.down.store(true, SeqCst);
    assert_eq!(thanos(&running, old(&[1.0])).await.unwrap_err().code(), Code::Unavailable);
    keeper.down.store(false, SeqCst);

    // A histogram that is none is not stored: that must not look like success.
    let mut request = old(&[]);
    request.timeseries[0].histograms.push(Histogram { schema: 99, ..Default::default() });
    assert_eq!(thanos(&running, request).await.unwrap_err().code(), Code::AlreadyExists);

    let path = pb::WriteRequest { tenant: "../etc".to_owned(), ..old(&[1.0]) };
    assert_eq!(thanos(&running, path).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(thanos(&running, pb::WriteRequest::default()).await.unwrap(), Default::default());
    running.stop().await;
}

#[tokio::test]
async fn the_newer_shape_wins_and_brings_many_tenants() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    let tuple = |tenant: &str, value: f64| TimeSeriesTenantTuple {
        timeseries: vec![series(&[("__name__", "m")], &[value])],
        tenant: tenant.to_owned(),
    };
    let request = pb::WriteRequest {
        timeseries: vec![series(&[("__name__", "ignored")], &[1.0])],
        tenant: "ignored".to_owned(),
        timeseries_tenant_data: vec![tuple("a", 1.0), tuple("b", -1.0), tuple("a", 3.0)],
        tributary: Some(wire::pb::tributary::v1::WriteContext::default()),
        ..Default::default()
    };
    let response = thanos(&running, request).await.unwrap();
    let verdicts = response.tributary.unwrap();
    assert_eq!((verdicts.codes, verdicts.counts), (vec![0, 17, 0], vec![1, 1, 1]));
    let got = keeper.requests.lock().pop().unwrap();
    let tenants: Vec<_> = got.groups.iter().map(|g| g.tenant.as_str().to_owned()).collect();
    assert_eq!(tenants, ["a", "b", "a"]);
    // A context without a time leaves the judging to the store.
    assert_eq!((got.replica, got.judged_at), (0, None));
    running.stop().await;
}

#[tokio::test]
async fn bad_labels_are_refused_where_they_stand() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    let request = pb::WriteRequest {
        timeseries: vec![
            series(&[("b", "1"), ("a", "2")], &[1.0, 2.0]),
            series(&[("a", "1"), ("a", "2")], &[3.0, 4.0, 5.0]),
            series(&[], &[6.0]),
            series(&[("a", "1")], &[-3.0]),
            series(&[("", "1")], &[7.0]),
        ],
        tenant: "t".to_owned(),
        tributary: Some(wire::pb::tributary::v1::WriteContext { judged_at_ms: 5, ..Default::default() }),
        ..Default::default()
    };
    let verdicts = thanos(&running, request).await.unwrap().tributary.unwrap();
    let invalid = 16 + Refusal::InvalidLabels as u32;
    assert_eq!((verdicts.codes, verdicts.counts), (vec![0, invalid, 1, invalid], vec![2, 4, 1, 1]));
    let got = keeper.requests.lock().pop().unwrap();
    let batch = &got.groups[0].batch;
    let sent: Vec<Labels> = batch.series().iter().map(|s| batch.labels(s).unwrap()).collect();
    assert_eq!(sent, [labels(&[("a", "2"), ("b", "1")]), labels(&[("a", "1")])]);
    running.stop().await;
}

/// One gRPC call by hand: the message as given, flagged and announced as compressed or not.
async fn by_hand(running: &Running, encoding: Option<&str>, flag: u8, message: &[u8]) -> tonic::Status {
    let mut body = vec![flag];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut request = http::Request::post("/thanos.WriteableStore/RemoteWrite")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(body)));
    let response = tower::ServiceExt::oneshot(channel, request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let trailers =
        http_body_util::BodyExt::collect(body).await.unwrap().trailers().cloned().unwrap_or(head.headers);
    tonic::Status::from_header_map(&trailers).unwrap()
}

#[tokio::test]
async fn framed_snappy_is_read_and_garbage_is_named() {
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    let request = pb::WriteRequest {
        timeseries: (0..2000)
            .map(|n| series(&[("__name__", "m"), ("n", &format!("{n:040}"))], &[n as f64]))
            .collect(),
        tenant: "t".to_owned(),
        ..Default::default()
    };
    let plain = request.encode_to_vec();
    let pack = |plain: &[u8]| {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.into_inner().unwrap()
    };
    assert_eq!(by_hand(&running, Some("snappy"), 1, &pack(&plain)).await.code(), Code::Ok);
    assert_eq!(by_hand(&running, Some("snappy"), 0, &plain).await.code(), Code::Ok);
    let got = keeper.requests.lock().drain(..).collect::<Vec<_>>();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].groups[0].batch.samples().len(), 2000);

    for (encoding, flag, message, code) in [
        (Some("snappy"), 1, b"junk".to_vec(), Code::InvalidArgument),
        (Some("snappy"), 1, pack(&vec![0; 8 << 20]), Code::ResourceExhausted),
        (Some("brotli"), 1, b"junk".to_vec(), Code::Unimplemented),
        (None, 0, b"\x0a\xff".to_vec(), Code::InvalidArgument),
        (None, 0, vec![0x0a; 4 << 20], Code::OutOfRange),
    ] {
        let status = by_hand(&running, encoding, flag, &message).await;
        assert_eq!(status.code(), code, "{status}");
    }
    assert_eq!(keeper.calls.load(SeqCst), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_failing_peer_is_left_alone_and_comes_back() {
    let keeper = Arc::new(Keeper::default());
    keeper.down.store(true, SeqCst);
    let running = serve(&keeper).await;
    let client = client(&running, WriteClientOptions::default());
    let fault = |result: Result<Vec<Verdict>, WriteError>| result.unwrap_err().fault;
    assert_eq!(fault(client.write(call(&[&[1.0]], &[0])).await), WriteFault::Unavailable);
    assert!(client.is_backing_off());
    assert_eq!(fault(client.write(call(&[&[1.0]], &[0])).await), WriteFault::BackingOff);
    assert_eq!(keeper.calls.load(SeqCst), 1);
    keeper.down.store(false, SeqCst);
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(client.write(call(&[&[1.0]], &[0])).await.unwrap(), [Verdict::Stored]);
    assert!(!client.is_backing_off());
    running.stop().await;
}

#[tokio::test]
async fn a_hanging_or_absent_peer_fails_in_time() {
    let keeper = Arc::new(Keeper::default());
    keeper.slow.store(true, SeqCst);
    let running = serve(&keeper).await;
    let options = WriteClientOptions { timeout: Duration::from_millis(400), ..Default::default() };
    let hanging = client(&running, options.clone());
    let error = hanging.write(call(&[&[1.0]], &[0])).await.unwrap_err();
    assert_eq!((error.fault, error.kind), (WriteFault::TimedOut, Kind::Unavailable), "{error}");
    assert!(error.message.starts_with(&running.address), "{error}");
    running.stop().await;

    // Nobody is where nothing listens, and that is told at once, not after a time.
    let address = format!("127.0.0.1:{}", testkit::free_port());
    let options = WriteClientOptions { timeout: Duration::from_secs(60), ..options };
    let absent = WriteClient::new(&address, options, World::real(), &Handle::current()).unwrap();
    let error = absent.write(call(&[&[1.0]], &[0])).await.unwrap_err();
    assert_eq!((error.fault, error.kind), (WriteFault::Unavailable, Kind::Unavailable), "{error}");
    assert!(absent.is_backing_off());
}

#[tokio::test]
async fn a_peer_that_dies_in_mid_call_and_returns_is_found_again() {
    // The peer lives on a runtime of its own, which is dropped as a killed process would be.
    let life = |address: String, slow: bool| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let keeper = Arc::new(Keeper::default());
        keeper.slow.store(slow, SeqCst);
        let server = WriteServer::new(keeper.clone(), Limits::default());
        let running = runtime.spawn(async move { Running::start_at(&address, |s| s.write(server)).await });
        (runtime, keeper, running)
    };
    let (first, keeper, running) = life("127.0.0.1:0".to_owned(), true);
    let running = running.await.unwrap();
    let address = running.address.clone();
    let options = WriteClientOptions { max_backoff: Duration::from_millis(200), ..Default::default() };
    let client = WriteClient::new(&address, options, World::real(), &Handle::current()).unwrap();
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.write(call(&[&[1.0]], &[0])).await }
    });
    common::eventually("the call arrives", || keeper.calls.load(SeqCst) == 1).await;
    first.shutdown_background();
    let error = under_way.await.unwrap().unwrap_err();
    assert_eq!((error.fault, error.kind), (WriteFault::Unavailable, Kind::Unavailable), "{error}");
    assert!(client.is_backing_off());

    let (second, keeper, running) = life(address, false);
    let _running = running.await.unwrap();
    let mut result = Err(error);
    for _ in 0..50 {
        result = client.write(call(&[&[1.0]], &[0])).await;
        if result.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(result.unwrap(), [Verdict::Stored]);
    assert_eq!(keeper.calls.load(SeqCst), 1);
    second.shutdown_background();
}

/// A Thanos receiver, which answers without verdicts.
struct Plain(Option<Code>);

#[tonic::async_trait]
impl pb::writeable_store_server::WriteableStore for Plain {
    async fn remote_write(
        &self,
        request: tonic::Request<pb::WriteRequest>,
    ) -> Result<tonic::Response<pb::WriteResponse>, tonic::Status> {
        assert_eq!(request.get_ref().tenant, "acme");
        match self.0 {
            None => Ok(tonic::Response::new(pb::WriteResponse::default())),
            Some(code) => Err(tonic::Status::new(code, "as Thanos says")),
        }
    }
}

#[tokio::test]
async fn what_thanos_answers_holds_for_the_batch() {
    let conflict = Verdict::Refused(Refusal::Conflict);
    let invalid = Verdict::Refused(Refusal::InvalidLabels);
    for (answer, expected) in [
        (None, Ok(Verdict::Stored)),
        (Some(Code::AlreadyExists), Ok(conflict)),
        (Some(Code::InvalidArgument), Ok(invalid)),
        (Some(Code::Unavailable), Err((WriteFault::Unavailable, Kind::Unavailable))),
        (Some(Code::Internal), Err((WriteFault::Failed, Kind::Internal))),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = pb::writeable_store_server::WriteableStoreServer::new(Plain(answer));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        let client =
            WriteClient::new(&address, WriteClientOptions::default(), World::real(), &Handle::current());
        let result = client.unwrap().write(call(&[&[1.0, 2.0], &[3.0]], &[0, 1])).await;
        let shown = result.map_err(|error| (error.fault, error.kind));
        assert_eq!(shown, expected.map(|verdict| vec![verdict; 3]));
        server.abort();
    }
}

/// One series of `tenant`, by hand: `up{n="1"} 2 @1000`, as Thanos's messages have it.
const SERIES: &[u8] = &[
    0x0a, 0x0e, // labels, 14 bytes
    0x0a, 0x08, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', 0x12, 0x02, b'u', b'p', //
    0x0a, 0x06, 0x0a, 0x01, b'n', 0x12, 0x01, b'1', // n="1"
    0x12, 0x0c, // a sample, 12 bytes
    0x09, 0, 0, 0, 0, 0, 0, 0, 0x40, // 2.0
    0x10, 0xe8, 0x07, // at 1000
];

/// Both shapes of a request, byte by byte: Thanos up to 0.42 (fields 1, 2 and 3), and from 0.43 on (fields 3 and 4).
fn shapes() -> [Vec<u8>; 2] {
    let len = SERIES.len() as u8;
    let mut single = vec![0x0a, len];
    single.extend_from_slice(SERIES);
    single.extend_from_slice(&[0x12, 0x04, b't', b'e', b'a', b'm', 0x18, 0x02]);
    let mut by_tenant = vec![0x18, 0x02, 0x22, len + 8, 0x0a, len];
    by_tenant.extend_from_slice(SERIES);
    by_tenant.extend_from_slice(&[0x12, 0x04, b't', b'e', b'a', b'm']);
    [single, by_tenant]
}

/// The fields of a message by number, ours of 1000 and above left out, in the order of their numbers.
fn fields(message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut rest = message;
    let varint = |rest: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        while let Some((byte, next)) = rest.split_first() {
            *rest = next;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    };
    let mut out = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let value = match key & 7 {
            0 => varint(&mut rest).to_le_bytes().to_vec(),
            2 => {
                let len = varint(&mut rest) as usize;
                let (value, next) = rest.split_at(len);
                rest = next;
                value.to_vec()
            }
            other => panic!("wire type {other}"),
        };
        if key >> 3 < 1000 {
            out.push((key >> 3, value));
        }
    }
    out.sort();
    out
}

#[tokio::test]
async fn both_shapes_of_a_request_are_read_and_sent_byte_for_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let keeper = Arc::new(Keeper::default());
    let running = serve(&keeper).await;
    for shape in shapes() {
        let status = by_hand(&running, None, 0, &shape).await;
        assert_eq!(status.code(), tonic::Code::Ok, "{status:?}");
        let got = keeper.requests.lock().pop().unwrap();
        assert_eq!((got.replica, got.judged_at, got.groups.len()), (2, None, 1));
        let group = &got.groups[0];
        assert_eq!(group.tenant.as_str(), "team");
        let one = &group.batch.series()[0];
        assert_eq!(group.batch.labels(one).unwrap(), labels(&[("__name__", "up"), ("n", "1")]));
        assert_eq!(group.batch.samples(), [model::Sample { timestamp: 1000, value: 2.0 }]);
    }
    running.stop().await;

    // What we send holds the same fields, in each shape: read off the wire by a peer that only listens.
    for (shape, want) in [rpc::WriteShape::Single, rpc::WriteShape::ByTenant].into_iter().zip(shapes()) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = WriteClientOptions { shape, peer: None, ..WriteClientOptions::default() };
        let client = WriteClient::new(&address, options, World::real(), &Handle::current()).unwrap();
        let mut batch = WriteBatch::default();
        let of = labels(&[("__name__", "up"), ("n", "1")]);
        batch.push(of.as_bytes(), 0, [model::Sample { timestamp: 1000, value: 2.0 }]);
        let call = WriteCall {
            tenant: TenantId::new("team").unwrap(),
            batch: Arc::new(batch),
            rows: vec![0],
            replica: 2,
            judged_at: 5,
            ring_epoch: 0,
        };
        let sending = tokio::spawn(async move { client.write(call).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        // Empty SETTINGS of HTTP/2; then frames until the body is there.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut message = Vec::new();
        while message.len() < 5 || message.len() < 5 + message[4] as usize {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut body).await.unwrap();
            if head[3] == 0 {
                message.extend(body);
            }
        }
        sending.abort();
        assert_eq!(message[0], 0, "not compressed");
        let (sent, want) = (fields(&message[5..]), fields(&want));
        assert_eq!(sent, want, "{shape:?}");
    }
}
