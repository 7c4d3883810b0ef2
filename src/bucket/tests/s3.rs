//! The bucket against a real S3 server: moto, started here on a free port of loopback. Without moto
//! (`pip install 'moto[server]'`) the story is skipped and says so; with `CI` set, that is a failure.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bucket::{Bucket, FetchSettings, Fetcher, RetryPolicy, upload_block};
use bytes::Bytes;
use common::{folder, id};
use model::Kind;
use runtime::World;

/// A server that ends with the test.
struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// None where moto is not installed.
    fn start() -> Option<Moto> {
        let installed = Command::new("python3")
            .args(["-c", "import moto.server"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !installed {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let run = "import sys; from moto.server import main; main(sys.argv[1:])";
        let child = Command::new("python3")
            .args(["-c", run, "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Moto { child, address };
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return Some(moto);
            }
            assert!(moto.child.try_wait().unwrap().is_none(), "moto ended at its start");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("moto did not listen within 30 s");
    }

    fn create_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    fn open(&self, bucket: &str, prefix: &str) -> Bucket {
        s3(self.address, bucket, prefix)
    }
}

fn s3(address: SocketAddr, bucket: &str, prefix: &str) -> Bucket {
    let text = format!(
        "type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: {address}\n  insecure: true\n  region: us-east-1\n  \
         access_key: someone\n  secret_key: a-secret\n  part_size: 5242880\nprefix: {prefix}\n"
    );
    let quick = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    Bucket::from_yaml(&text, &World::real()).unwrap().with_retry(quick)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_live_in_s3() {
    let Some(moto) = Moto::start() else {
        assert!(std::env::var_os("CI").is_none(), "moto[server] is not installed");
        eprintln!("skipped: python3 has no moto.server (pip install 'moto[server]')");
        return;
    };
    moto.create_bucket("metrics");
    let home = tempfile::tempdir().unwrap();
    let world = World::real();
    let bucket = moto.open("metrics", "some/where");
    let (dir, meta) = folder(&world, home.path(), id(1), 0, 12 << 20);
    let done = upload_block(&bucket, &world, &dir, &meta).await.unwrap();
    assert!(done.bytes > 12 << 20, "in three parts");
    assert!(upload_block(&bucket, &world, &dir, &meta).await.unwrap().already);
    assert_eq!(bucket.list_blocks().await.unwrap(), [id(1)]);
    let path = format!("{}/chunks/000001", id(1));
    let whole = Bytes::from(world.disk.read(&dir.join("chunks/000001")).unwrap());
    assert_eq!(bucket.size(&path).await.unwrap(), Some(whole.len() as u64));
    let end = whole.len() as u64;
    let ranges = [0..10, 5_242_870..5_242_890, end - 3..end, end - 3..end + 100];
    let read = bucket.get_ranges(&path, &ranges, 4).await.unwrap();
    for (range, bytes) in ranges.iter().zip(read) {
        assert_eq!(bytes, whole[range.start as usize..(range.end as usize).min(whole.len())], "{range:?}");
    }
    for recursive in [false, true] {
        let settings = FetchSettings { recursive, ..FetchSettings::default() };
        let found = Fetcher::new(bucket.clone(), &world, settings).fetch().await.unwrap();
        assert_eq!(found.loaded.keys().copied().collect::<Vec<_>>(), [id(1)]);
    }
    assert_eq!(bucket.get_opt("nothing").await.unwrap(), None);
    assert!(!bucket.exists("nothing").await.unwrap());
    // Outside of the prefix there is nothing, and the prefix is all there is.
    let root = moto.open("metrics", "");
    assert_eq!(root.list_level("").await.unwrap().folders, ["some"]);
    assert_eq!(root.list_blocks().await.unwrap(), []);
    bucket.delete_block(id(1)).await.unwrap();
    assert_eq!(root.list_all("").await.unwrap(), []);

    let error = moto.open("elsewhere", "").list_blocks().await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("the bucket does not exist"), "{error}");
    let address = moto.address;
    drop(moto);
    let error = s3(address, "metrics", "").get("x").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("cannot connect to http://127.0.0.1"), "{error}");
    assert!(!format!("{error:?}").contains("a-secret"));
}
