//! A listener's life: bound early, full, and closed in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Server, ServerSettings};
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
    text
}

/// A route that says when it is entered and answers when it is let go.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, gate) = (entered.clone(), go.clone());
    let handler = move || async move {
        inside.notify_one();
        gate.notified().await;
        "done"
    };
    (Router::new().route("/", get(handler)), entered, go)
}

#[tokio::test]
async fn requests_in_flight_finish() {
    let server = Server::bind("127.0.0.1:0", ServerSettings::default()).await.unwrap();
    let address = server.local_addr();
    // Bound, not yet served: the request waits.
    let early = ask(address).await;
    let (routes, entered, go) = gated();
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let serving = tokio::spawn(server.serve(routes, async move { stopping.notified().await }));
    entered.notified().await;
    stop.notify_one();
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    go.notify_one();
    let text = answer(early).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{text}");
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_period_ends() {
    let settings = ServerSettings { grace: Duration::from_millis(20), ..ServerSettings::default() };
    let server = Server::bind("127.0.0.1:0", settings).await.unwrap();
    let address = server.local_addr();
    let (routes, entered, _never) = gated();
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let serving = tokio::spawn(server.serve(routes, async move { stopping.notified().await }));
    let stream = ask(address).await;
    entered.notified().await;
    stop.notify_one();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
    assert_eq!(answer(stream).await, "");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let settings = ServerSettings { max_connections: 1, ..ServerSettings::default() };
    let server = Server::bind("127.0.0.1:0", settings).await.unwrap();
    let address = server.local_addr();
    let (routes, entered, go) = gated();
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let serving = tokio::spawn(server.serve(routes, async move { stopping.notified().await }));
    let first = ask(address).await;
    entered.notified().await;
    let second = ask(address).await;
    let early = tokio::time::timeout(Duration::from_millis(50), entered.notified()).await;
    assert!(early.is_err(), "the second request must wait for the first connection to end");
    drop(first);
    tokio::time::timeout(Duration::from_secs(10), entered.notified()).await.unwrap();
    go.notify_waiters();
    go.notify_one();
    stop.notify_one();
    assert!(answer(second).await.ends_with("done"));
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let first = Server::bind("127.0.0.1:0", ServerSettings::default()).await.unwrap();
    let error = Server::bind(first.local_addr(), ServerSettings::default()).await.err().unwrap();
    assert!(
        error.message.starts_with(&format!("cannot listen on {} (http): ", first.local_addr())),
        "{error}"
    );
}

/// Byte by byte a head would keep its place for as long as the sender likes.
#[tokio::test]
async fn heads_that_dribble_and_silence_from_the_start_end_and_idle_connections_stay() {
    let settings = ServerSettings { head_timeout: Duration::from_millis(200), ..ServerSettings::default() };
    let server = Server::bind("127.0.0.1:0", settings).await.unwrap();
    let address = server.local_addr();
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let routes = Router::new().route("/", get(|| async { "here" }));
    let serving = tokio::spawn(server.serve(routes, async move { stopping.notified().await }));
    let silent = TcpStream::connect(address).await.unwrap();
    let mut idle = ask(address).await;
    let mut dribbling = TcpStream::connect(address).await.unwrap();
    let mut sent = 0;
    while dribbling.write_all(b"G").await.is_ok() && sent < 1000 {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(sent < 1000, "it is closed while it sends");
    assert_eq!(answer(silent).await, "");
    // The one that has had its answer may ask again.
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert_eq!(answer(idle).await.matches("here").count(), 2);
    stop.notify_one();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn slow_heads_are_not_waited_for() {
    let settings = ServerSettings { header_timeout: Duration::from_millis(50), ..ServerSettings::default() };
    let server = Server::bind("127.0.0.1:0", settings).await.unwrap();
    let address = server.local_addr();
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    let serving = tokio::spawn(server.serve(Router::new(), async move { stopping.notified().await }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let text = answer(stream).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    stop.notify_one();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}
