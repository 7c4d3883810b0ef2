//! The disk of a receiver fills up: writes are told to come back, reads go on, nothing acknowledged is lost, and the node
//! recovers by itself once there is room.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use testkit::SmallDisk;

use acceptance::{Program, Running, binary, free_port, get, percent, post, wait_until};

const SERIES: usize = 200;

struct Node {
    receive: Running,
    _query: Running,
    write: String,
    http: String,
    query: String,
}

fn start(dir: &Path, data: &Path) -> Node {
    let [grpc, http, write, query_grpc, query_http] = [(); 5].map(|()| free_port());
    let program = |name: &str, args: Vec<String>| Program {
        name: name.to_owned(),
        path: binary(),
        args,
        log: dir.join(format!("{name}.log")),
    };
    let receive = vec![
        "receive".to_owned(),
        format!("--tsdb.path={}", data.display()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--remote-write.address=127.0.0.1:{write}"),
        "--label=replica=\"0\"".to_owned(),
        "--tsdb.wal-segment-size=1MiB".to_owned(),
    ];
    let query = vec![
        "query".to_owned(),
        format!("--grpc-address=127.0.0.1:{query_grpc}"),
        format!("--http-address=127.0.0.1:{query_http}"),
        format!("--endpoint=127.0.0.1:{grpc}"),
    ];
    let (mut receive, mut query) = (program("receive", receive).start(), program("query", query).start());
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    receive.wait_ready(&format!("{}/-/ready", url(http)));
    query.wait_ready(&format!("{}/-/ready", url(query_http)));
    Node {
        receive,
        _query: query,
        write: format!("{}/api/v1/receive", url(write)),
        http: url(http),
        query: url(query_http),
    }
}

impl Node {
    /// One sample of every series.
    fn send(&self, time: i64, value: u32) -> acceptance::Answer {
        let names: Vec<String> = (0..SERIES).map(|n| n.to_string()).collect();
        let sample = model::Sample { timestamp: time, value: f64::from(value) };
        let series = names.iter().map(|n| ([("__name__", "full"), ("n", n.as_str())], [sample]));
        let mut plain = Vec::new();
        wire::remote_write::encode_v1(series, &mut plain);
        let body = wire::remote_write::compress(&plain).expect("compress");
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        post(&self.write, &headers, &body).expect("an answer")
    }

    /// Values of every series, each series by itself.
    fn read(&self) -> Vec<Vec<u32>> {
        let url = format!("{}/api/v1/query?query={}", self.query, percent("full[2h]"));
        // A querier that started just now has not met the receiver yet, and says so.
        let answer = wait_until("a complete answer", || {
            let answer = get(&url).expect("an answer");
            assert!(matches!(answer.status, 200 | 503), "{}: {}", answer.status, answer.text());
            (answer.status == 200).then_some(answer)
        });
        let result = answer.json()["data"]["result"].as_array().expect("a matrix").clone();
        let mut out = BTreeMap::new();
        for series in result {
            let values = series["values"].as_array().expect("values").iter();
            let values =
                values.map(|v| v[1].as_str().expect("text").parse().expect("a whole number")).collect();
            out.insert(series["metric"]["n"].as_str().expect("a label").to_owned(), values);
        }
        out.into_values().collect()
    }

    fn metric(&self, line: &str) -> bool {
        get(&format!("{}/metrics", self.http)).is_ok_and(|a| a.text().lines().any(|l| l == line))
    }

    /// All of `acked` once, in order of time, and of others nothing that was not sent.
    fn expect(&self, acked: &[u32], sent: u32, when: &str) {
        let all = self.read();
        assert_eq!(all.len(), SERIES, "{when}");
        for values in all {
            assert!(
                values.is_sorted_by(|a, b| a < b) && values.iter().all(|v| *v < sent),
                "{when}: {values:?}"
            );
            let lost: Vec<&u32> = acked.iter().filter(|v| values.binary_search(v).is_err()).collect();
            assert!(lost.is_empty(), "{when}: acknowledged {lost:?} are lost");
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_node_recovers_by_itself() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mounted = dir.path().join("disk");
    let Some(disk) = SmallDisk::mount(&mounted, 64) else { return };
    let data = mounted.join("data");
    let node = start(dir.path(), &data);
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64;
    let begin = now - 30 * 60_000;
    let time = |i: u32| begin + i64::from(i) * 100;
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    let mut sent = 0;
    let mut send = |node: &Node, acked: &mut Vec<u32>, refused: &mut Vec<u32>| -> u16 {
        let answer = node.send(time(sent), sent);
        match answer.status {
            204 => acked.push(sent),
            503 => {
                assert!(answer.header("retry-after").is_some(), "{}", answer.text());
                refused.push(sent);
            }
            other => panic!("{other}: {}", answer.text()),
        }
        sent += 1;
        answer.status
    };
    for _ in 0..50 {
        assert_eq!(send(&node, &mut acked, &mut refused), 204);
    }

    // No room for another segment: what is preallocated is used up, then writes are refused.
    let ballast = disk.fill(0);
    let before = acked.len();
    wait_until("writes to be refused", || {
        (0..100).any(|_| send(&node, &mut acked, &mut refused) == 503).then_some(())
    });
    assert!(acked.len() > before, "what was preallocated took nothing");
    for _ in 0..20 {
        send(&node, &mut acked, &mut refused);
    }
    assert!(refused.len() > 10, "{} refused", refused.len());
    let answer = node.send(time(*refused.last().expect("one")), *refused.last().expect("one"));
    assert!(answer.status == 503 && answer.text().contains("disk"), "{}: {}", answer.status, answer.text());
    assert!(node.metric("tributary_wal_read_only 1"));
    // Reads are served and the node stays ready: it still answers for what it holds.
    let sent_so_far = (acked.len() + refused.len()) as u32;
    node.expect(&acked, sent_so_far, "while the disk is full");
    assert_eq!(get(&format!("{}/-/ready", node.http)).expect("an answer").status, 200);

    // Room again: the same process takes writes, and what was refused is taken when it comes again.
    std::fs::remove_file(&ballast).expect("room");
    wait_until("writes to be taken", || (send(&node, &mut acked, &mut refused) == 204).then_some(()));
    wait_until("the metric to fall", || node.metric("tributary_wal_read_only 0").then_some(()));
    for value in refused.drain(..) {
        assert_eq!(node.send(time(value), value).status, 204, "{value} sent again");
        acked.push(value);
    }
    acked.sort_unstable();
    let sent = acked.len() as u32;
    assert_eq!(acked, (0..sent).collect::<Vec<_>>());
    node.expect(&acked, sent, "after the disk was full");

    // The log is whole: a process that is killed and comes back has it all.
    let Node { receive, .. } = node;
    receive.kill();
    start(dir.path(), &data).expect(&acked, sent, "after kill -9");
    println!("{sent} requests of {SERIES} samples acknowledged, none lost");
}
