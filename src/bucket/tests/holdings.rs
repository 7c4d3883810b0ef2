//! What a bucket has of a block: itself, one that it was merged into, a mark, or nothing.

mod common;

use std::path::Path;
use std::sync::Arc;

use block::BlockId;
use bucket::{Bucket, Holdings, Whereabouts, upload_block};
use bytes::Bytes;
use common::{Faulty, folder, id, unavailable};
use runtime::World;
use testkit::MemDisk;

async fn put(bucket: &Bucket, world: &World, n: i64, sources: &[BlockId]) {
    let (dir, mut meta) = folder(world, Path::new("/data"), id(n), 0, 8);
    meta.compaction.sources = sources.to_vec();
    upload_block(bucket, world, &dir, &meta).await.unwrap();
}

async fn mark(bucket: &Bucket, id: BlockId) {
    let text = format!("{{\"id\":\"{id}\",\"version\":1,\"details\":\"x\",\"deletion_time\":1}}");
    bucket.put(&format!("{id}/deletion-mark.json"), Bytes::from(text)).await.unwrap();
}

#[tokio::test]
async fn merged_away_is_held_and_lost_is_missing() {
    let disk = MemDisk::new();
    let (world, clock) = testkit::world(Arc::new(disk), 1_700_000_000_000, 1);
    let store = Faulty::new();
    let bucket = store.bucket(&world);
    put(&bucket, &world, 1, &[id(1)]).await;
    // 2 and 3 were merged into 7 and deleted; 4 was marked and its files are going; 5 is nowhere; 6 is only in a
    // block that is itself given up.
    put(&bucket, &world, 7, &[id(2), id(3)]).await;
    mark(&bucket, id(4)).await;
    put(&bucket, &world, 8, &[id(6)]).await;
    mark(&bucket, id(8)).await;
    let holdings = Holdings::new(bucket.clone(), &world);
    assert_eq!(holdings.find(id(1)).await.unwrap(), Whereabouts::Held);
    for (n, want) in [
        (2, Whereabouts::Merged(id(7))),
        (3, Whereabouts::Merged(id(7))),
        (4, Whereabouts::GivenUp),
        (5, Whereabouts::Missing),
        (6, Whereabouts::Missing),
    ] {
        assert_eq!(holdings.find(id(n)).await.unwrap(), want, "{n}");
    }
    store.log();
    assert_eq!(holdings.find(id(2)).await.unwrap(), Whereabouts::Merged(id(7)));
    let log = store.log();
    assert_eq!(log.len(), 1, "one request while the listing is good: {log:?}");
    // Merged since the listing: that is not taken for lost.
    bucket.delete_block(id(1)).await.unwrap();
    put(&bucket, &world, 9, &[id(1)]).await;
    assert_eq!(holdings.find(id(1)).await.unwrap(), Whereabouts::Unknown);
    clock.advance(601_000);
    assert_eq!(holdings.find(id(1)).await.unwrap(), Whereabouts::Merged(id(9)));
    // What cannot be read may be what it was merged into.
    bucket.put(&format!("{}/meta.json", id(10)), Bytes::from_static(b"{")).await.unwrap();
    clock.advance(601_000);
    assert_eq!(holdings.find(id(5)).await.unwrap(), Whereabouts::Unknown);
    // A bucket that does not answer says nothing.
    store.on_each(|_, _| Some(unavailable()));
    assert!(holdings.find(id(1)).await.is_err());
}
