//! A querier that is started, asked over HTTP and stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use query::{Query, Settings};
use runtime::{Shutdown, World};
use settings::Listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Running;

pub struct Querier {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<Result<(), query::Error>>,
}

impl Querier {
    pub async fn start(nodes: &[&Running], change: impl FnOnce(&mut Settings)) -> Querier {
        let mut settings = Settings::default();
        settings.common.http_address = Listen::loopback(0);
        settings.grpc.grpc_address = Listen::loopback(0);
        settings.discovery.endpoints = nodes.iter().map(|n| n.address.to_string()).collect();
        change(&mut settings);
        let flags = BTreeMap::from([("query.timeout".to_owned(), "2m".to_owned())]);
        let built = Query::build(settings, &World::real(), Arc::new(String::new), flags).await.unwrap();
        let (http, grpc, shutdown) = (built.http_address(), built.grpc_address(), Shutdown::new());
        let running = tokio::spawn(built.run(shutdown.clone()));
        let querier = Querier { http, grpc, shutdown, running };
        let ready = async {
            while querier.get("/-/ready").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ready).await.unwrap();
        querier
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "").await
    }

    /// As [`Querier::get`], with lines of headers, each ended by CRLF.
    pub async fn get_as(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: q\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(Duration::from_secs(10), self.running).await.unwrap().unwrap().unwrap();
    }
}
