//! The whole role over loopback: a bucket in S3 (or in a folder, where there is no S3 server), asked by a StoreAPI
//! client.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bucket::Bucket;
use common::{House, id, labels, noisy, remote};
use model::{Matcher, TimeRange};
use rpc::{ClientOptions, StoreClient};
use runtime::Shutdown;
use settings::{Listen, Span};
use storage::PartialResponse;
use store::{Settings, Store};
use testkit::S3Server;

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come to pass within 10 s");
}

#[test]
fn a_store_gateway_serves_a_bucket() {
    let mut house = House::new();
    let server = S3Server::start().unwrap();
    let yaml = match &server {
        Some(server) => {
            server.create_bucket("metrics").unwrap();
            server.objstore_yaml("metrics", "blocks")
        }
        None => {
            let dir = house.home.path().join("bucket");
            format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.display())
        }
    };
    house.bucket = Bucket::from_yaml(&yaml, &house.world).unwrap();
    house.block(1, &[("replica", "a"), ("tenant_id", "x")], &noisy(120, 100, 0));

    let mut settings = Settings::default();
    settings.common.http_address = Listen::loopback(0);
    settings.grpc.grpc_address = Listen::loopback(0);
    settings.objstore.config = Some(yaml);
    settings.data_dir = house.home.path().join("data");
    settings.blocks.sync_block_duration = Span::from_ms(100);
    let page = Arc::new(String::new);
    let store = house.rt.block_on(Store::build(&settings, &house.world, page)).unwrap();
    let (http, grpc) = (store.http_address(), store.grpc_address());
    let shutdown = Shutdown::new();
    let running = house.rt.spawn(store.run(shutdown.clone()));
    eventually("ready", || get(http, "/-/ready").contains(" 200 "));
    assert!(get(http, "/-/healthy").contains("store is Healthy."));

    let handle = house.rt.handle().clone();
    let client =
        StoreClient::new(&grpc.to_string(), ClientOptions::default(), house.world.clone(), handle).unwrap();
    let info = house.rt.block_on(client.info()).unwrap();
    assert_eq!(info.component, "store");
    assert_eq!(info.label_sets, [labels(&[("replica", "a"), ("tenant_id", "x")])]);
    // The StoreAPI wants a matcher besides those of external labels.
    let ask = |more: &[Matcher], partial| {
        let matchers = [&[Matcher::equal("__name__", "m")], more].concat();
        remote(&client, &matchers, TimeRange::ALL, partial)
    };
    let got = ask(&[], PartialResponse::Abort).unwrap().0;
    assert_eq!(got.len(), 120);
    assert!(got.iter().all(|(labels, _)| labels.value("tenant_id") == "x" && labels.value("replica") == "a"));
    let matchers = [Matcher::equal("tenant_id", "x"), Matcher::equal("i", "7")];
    let (one, _) = ask(&matchers, PartialResponse::Abort).unwrap();
    assert_eq!(one.len(), 1);
    let other = [Matcher::equal("tenant_id", "y")];
    assert!(ask(&other, PartialResponse::Abort).unwrap().0.is_empty());

    // A block that comes is served after the next search, one that is damaged is named.
    house.block(2, &[("replica", "a"), ("tenant_id", "y")], &noisy(30, 100, 5_000_000));
    eventually("the new block", || ask(&[], PartialResponse::Abort).unwrap().0.len() == 150);
    house.block(3, &[("replica", "a"), ("tenant_id", "z")], &noisy(30, 100, 5_000_000));
    house.damage(&format!("{}/index", id(3)), |bytes| bytes[30] ^= 1);
    eventually("the warning", || {
        let (got, notes) = ask(&[], PartialResponse::Warn).unwrap();
        got.len() == 150 && notes.warnings.iter().any(|w| w.contains(&id(3).to_string()))
    });
    assert!(ask(&[], PartialResponse::Abort).unwrap_err().message.contains(&id(3).to_string()));

    shutdown.trigger();
    house.rt.block_on(running).unwrap().unwrap();
    assert!(TcpStream::connect(http).is_err());
}

#[test]
fn a_port_in_use_or_a_wrong_bucket_ends_the_start() {
    let house = House::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Settings::default();
    settings.common.http_address = Listen::loopback(0);
    settings.grpc.grpc_address = Listen::loopback(taken.local_addr().unwrap().port());
    let build = |settings: &Settings| {
        let page = Arc::new(String::new);
        house.rt.block_on(Store::build(settings, &house.world, page)).err().unwrap().to_string()
    };
    assert!(build(&settings).contains("--objstore.config-file"));
    settings.objstore.config = Some("type: NFS\n".to_owned());
    assert!(build(&settings).contains("FILESYSTEM, S3, GCS and AZURE"));
    let dir = house.home.path().join("b");
    settings.objstore.config =
        Some(format!("type: FILESYSTEM\nconfig: {{directory: '{}'}}\n", dir.display()));
    assert!(build(&settings).contains("--grpc-address"));
}
