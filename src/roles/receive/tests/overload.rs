//! More connections and more writes at once than a node can take: it says so, loses nothing that it took, and takes
//! everything again as soon as the rush is over. `OVERLOAD_CONNECTIONS` makes it larger (10000 are served).

mod rig;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rig::{Node, body, now, series, single};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections where the environment does not say; both ends of each are files of this process.
const CONNECTIONS: usize = 600;

/// A sender that keeps its connection.
struct Sender(TcpStream);

impl Sender {
    async fn connect(to: SocketAddr) -> Sender {
        Sender(TcpStream::connect(to).await.expect("connections are taken"))
    }

    /// Sends one write; gives the status, and whether the answer says when to come again.
    async fn send(&mut self, tenant: &str, body: &[u8]) -> (u16, bool) {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nhost: a\r\nthanos-tenant: {tenant}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(head.as_bytes()).await.expect("the head is taken");
        self.0.write_all(body).await.expect("the body is taken");
        let mut text = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let read = self.0.read(&mut piece).await.expect("an answer");
            assert!(read > 0, "closed without an answer: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&piece[..read]);
            let all = String::from_utf8_lossy(&text).to_ascii_lowercase();
            let Some((head, rest)) = all.split_once("\r\n\r\n") else { continue };
            let length = head.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next());
            if rest.len() >= length.map_or(0, |l| l.parse().expect("a number")) {
                let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
                return (status, head.contains("retry-after: "));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_is_shed_and_the_node_recovers() {
    let wanted = std::env::var("OVERLOAD_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    let allowed = runtime::raise_file_limit().expect("a limit") as usize;
    let connections = wanted.unwrap_or(CONNECTIONS).min(allowed.saturating_sub(200) / 2);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = single(dir.path());
    // A fifth of what comes at once, or less.
    settings.admission.max_inflight = settings::ByteSize::from_bytes(connections as u64 * 1500);
    let node = Node::start(settings).await;
    let t = now();
    let write = |tenant: &str, n: usize| {
        let samples: Vec<(i64, f64)> = (0..400).map(|i| (t - 400 + i, (n * 400) as f64 + i as f64)).collect();
        body(&[series(&format!("{tenant}_{n}"), &samples)])
    };

    // Everybody is connected and has been served once.
    let mut senders = Vec::with_capacity(connections);
    for n in 0..connections {
        let mut sender = Sender::connect(node.write).await;
        if n % 50 == 0 {
            assert_eq!(sender.send("quiet", &body(&[series("before", &[(t + n as i64, 1.0)])])).await.0, 204);
        }
        senders.push(sender);
    }

    // Now all at once, nearly all of them for one tenant.
    let began = tokio::time::Instant::now();
    let rush = senders.into_iter().enumerate().map(|(n, mut sender)| {
        let tenant = if n % 10 == 0 { "quiet" } else { "loud" };
        let body = write(tenant, n);
        tokio::spawn(async move {
            let (status, again) = sender.send(tenant, &body).await;
            (tenant, n, status, again)
        })
    });
    let rush: Vec<_> = rush.collect();
    let mut by_status: BTreeMap<(&str, u16), usize> = BTreeMap::new();
    let mut taken = Vec::new();
    for one in rush {
        let (tenant, n, status, again) = one.await.expect("a sender");
        *by_status.entry((tenant, status)).or_default() += 1;
        match status {
            204 => taken.push((tenant, n)),
            429 | 503 => assert!(again, "whoever is sent away is told when to come again"),
            other => panic!("{tenant} was told {other}"),
        }
    }
    println!("{connections} connections at once: {by_status:?} in {:?}", began.elapsed());
    assert!(!taken.is_empty());

    // The rush is over: everything is taken at once.
    let over = tokio::time::Instant::now();
    let mut late = Sender::connect(node.write).await;
    assert_eq!(late.send("loud", &body(&[series("after", &[(t, 1.0)])])).await.0, 204);
    assert!(over.elapsed() < Duration::from_secs(10));
    // What was taken is there, once.
    for (tenant, n) in taken {
        let found = node.samples(tenant, &format!("{tenant}_{n}"));
        assert_eq!(found.len(), 400, "{tenant}_{n}");
    }
    node.stop().await.unwrap();
}
