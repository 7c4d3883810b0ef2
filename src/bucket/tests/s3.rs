//! The bucket against a real S3 server.

mod common;

use bucket::{Bucket, FetchSettings, Fetcher, RetryPolicy, upload_block};
use bytes::Bytes;
use common::{folder, id};
use model::Kind;
use runtime::World;
use testkit::S3Server;

fn open(server: &S3Server, bucket: &str, prefix: &str) -> Bucket {
    let quick = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    Bucket::from_yaml(&server.objstore_yaml(bucket, prefix), &World::real()).unwrap().with_retry(quick)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_live_in_s3() {
    let Some(server) = S3Server::start().unwrap() else { return };
    server.create_bucket("metrics").unwrap();
    let home = tempfile::tempdir().unwrap();
    let world = World::real();
    let bucket = open(&server, "metrics", "some/where");
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
    let root = open(&server, "metrics", "");
    assert_eq!(root.list_level("").await.unwrap().folders, ["some"]);
    assert_eq!(root.list_blocks().await.unwrap(), []);
    bucket.delete_block(id(1)).await.unwrap();
    assert_eq!(root.list_all("").await.unwrap(), []);

    let error = open(&server, "elsewhere", "").list_blocks().await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("the bucket does not exist"), "{error}");
    drop(server);
    let error = root.get("x").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("cannot connect to http://127.0.0.1"), "{error}");
    assert!(!format!("{error:?}").contains("a-secret"));
}
