//! A ring whose members, senders and readers show certificates: all of it works, and nobody else gets in.

#![allow(clippy::disallowed_methods)]

mod rig;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::DnType;
use rig::{Node, body, cluster, now, request, series};
use rpc::{ClientOptions, StoreClient};
use runtime::World;
use secure::{ClientFiles, ClientTls};
use testkit::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Pair = (PathBuf, PathBuf);

fn client(ca: &Path, pair: Option<&Pair>) -> ClientTls {
    let files = ClientFiles {
        ca: Some(ca.to_owned()),
        certificate: pair.map(|pair| pair.0.clone()),
        key: pair.map(|pair| pair.1.clone()),
        ..ClientFiles::default()
    };
    ClientTls::start("test", &World::real(), files).unwrap()
}

/// Status of a write within TLS, or why there was none.
async fn write(to: SocketAddr, tls: &ClientTls, tenant: &str, body: &[u8]) -> std::io::Result<u16> {
    let stream = TcpStream::connect(to).await?;
    let mut stream = tls.connect("127.0.0.1", stream).await?;
    let head = format!(
        "POST /api/v1/receive HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTHANOS-TENANT: {tenant}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::Error::other("no answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_within_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let server = authority.issue(dir.path(), "node", "127.0.0.1", |_| {});
    let sender = authority.issue(dir.path(), "sender", "sender", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "team-a");
    });
    let nobody = authority.issue(dir.path(), "nobody", "sender", |_| {});
    let mut all = cluster(dir.path(), 3, 3);
    for settings in &mut all {
        let files = (Some(server.0.clone()), Some(server.1.clone()), Some(ca.clone()));
        (settings.tls.certificate, settings.tls.key, settings.tls.client_ca) = files.clone();
        (settings.tls.client_certificate, settings.tls.client_key, settings.tls.ca) = files.clone();
        (settings.grpc.tls.certificate, settings.grpc.tls.key, settings.grpc.tls.client_ca) = files;
        settings.tls.to_peers = true;
        settings.tenancy.certificate_field = "organization".to_owned();
    }
    let grpc = all[1].grpc.grpc_address.socket_address().unwrap();
    let nodes = Node::start_all(all).await;
    let t = now();
    let sent = body(&[series("up", &[(t, 1.0)])]);
    let good = client(&ca, Some(&sender));
    assert_eq!(write(nodes[0].write, &good, "team-b", &sent).await.unwrap(), 204);
    for node in &nodes {
        for _ in 0..500 {
            if !node.samples("team-a", "up").is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            node.samples("team-a", "up"),
            [(t, 1.0)],
            "copies are made, for the tenant of the certificate"
        );
        assert!(node.samples("team-b", "up").is_empty(), "the header does not count");
    }
    // A certificate that names no tenant, none at all, and no TLS.
    assert_eq!(write(nodes[0].write, &client(&ca, Some(&nobody)), "team-a", &sent).await.unwrap(), 400);
    assert!(write(nodes[0].write, &client(&ca, None), "team-a", &sent).await.is_err());
    assert_eq!(request(nodes[0].write, "POST", "/api/v1/receive", &[], sent).await.status, 0);

    let info = async |tls: Option<ClientTls>| {
        let options = ClientOptions {
            tls,
            response_timeout: Some(Duration::from_secs(2)),
            connect_timeout: Duration::from_secs(2),
            ..ClientOptions::default()
        };
        let handle = tokio::runtime::Handle::current();
        StoreClient::new(&grpc.to_string(), options, World::real(), handle).unwrap().info().await
    };
    assert!(info(Some(good)).await.is_ok());
    assert!(info(Some(client(&ca, None))).await.is_err());
    assert!(info(None).await.is_err());
    Node::stop_all(nodes).await;
}
