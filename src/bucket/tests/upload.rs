//! A block goes up whole or stays invisible, whatever fails on the way, and once.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use block::{BlockWriter, MetaSpec, ThanosSpec};
use bucket::{RetryPolicy, ShipSettings, Shipper, ledger, upload_block};
use chunk::ChunkData;
use common::{Faulty, denied, folder, id, unavailable};
use model::{Kind, Labels, Sample, TimeRange};
use runtime::World;
use testkit::MemDisk;

fn world() -> (World, MemDisk) {
    let disk = MemDisk::new();
    let (world, _) = testkit::world(Arc::new(disk.clone()), 1_700_000_000_000, 1);
    (world, disk)
}

/// The folders of these stories are no real blocks.
fn unverified() -> ShipSettings {
    ShipSettings { verify: false, ..ShipSettings::default() }
}

#[tokio::test]
async fn chunks_then_index_then_a_check_then_meta() {
    let (world, _) = world();
    let store = Faulty::new();
    let bucket = store.bucket(&world);
    let (dir, meta) = folder(&world, Path::new("/data"), id(1), 0, 11 << 20);
    let done = upload_block(&bucket, &world, &dir, &meta).await.unwrap();
    assert!(!done.already && done.bytes > 11 << 20);
    let block = id(1).to_string();
    let want = [
        "list B",
        "begin B/chunks/000001",
        "part B/chunks/000001",
        "part B/chunks/000001",
        "part B/chunks/000001",
        "complete B/chunks/000001",
        "put B/index",
        "head B/chunks/000001",
        "head B/index",
        "put B/meta.json",
    ];
    let log: Vec<String> = store.log().iter().map(|l| l.replace(&block, "B")).collect();
    assert_eq!(log, want);
    let up = bucket.get(&format!("{block}/chunks/000001")).await.unwrap();
    assert_eq!(up, world.disk.read(&dir.join("chunks/000001")).unwrap());
    let thanos = bucket.meta(id(1)).await.unwrap().thanos.unwrap();
    assert_eq!(thanos.upload_time, "2023-11-14T22:13:20Z");
    assert_eq!(thanos.segment_files, ["000001"]);
    let files: Vec<_> = thanos.files.iter().map(|f| (f.rel_path.as_str(), f.size_bytes)).collect();
    assert_eq!(files, [("chunks/000001", 11 << 20), ("index", 8), ("meta.json", 0)]);
    store.log();
    let again = upload_block(&bucket, &world, &dir, &meta).await.unwrap();
    assert!(again.already && again.bytes == 0);
    assert_eq!(store.log().len(), 1, "one listing tells that all is there");
}

/// The upload stops for good after each of its requests in turn: the block is never visible in part, and the next
/// attempt completes it.
#[tokio::test]
async fn stopped_anywhere_it_is_invisible_and_goes_on() {
    for stop in 0.. {
        let (world, _) = world();
        let store = Faulty::new();
        let bucket = store.bucket(&world);
        let (dir, meta) = folder(&world, Path::new("/data"), id(1), 0, 6 << 20);
        let calls = AtomicUsize::new(0);
        store.on_each(move |_, _| (calls.fetch_add(1, SeqCst) >= stop).then(unavailable));
        let outcome = upload_block(&bucket, &world, &dir, &meta).await;
        store.heal();
        let listed = bucket.exists(&format!("{}/meta.json", id(1))).await.unwrap();
        assert_eq!(listed, outcome.is_ok(), "stopped after {stop} requests");
        if outcome.is_ok() {
            assert!(stop >= 9, "{stop}");
            return;
        }
        assert_eq!(outcome.unwrap_err().kind, Kind::Unavailable);
        store.log();
        upload_block(&bucket, &world, &dir, &meta).await.unwrap();
        for file in ["chunks/000001", "index"] {
            let up = bucket.get(&format!("{}/{file}", id(1))).await.unwrap();
            assert_eq!(up, world.disk.read(&dir.join(file)).unwrap(), "stopped after {stop} requests");
        }
        if stop >= 6 {
            assert!(!store.log().iter().any(|l| l.starts_with("part")), "what is there is not sent again");
        }
    }
}

#[tokio::test]
async fn a_passing_fault_is_not_noticed_and_a_refusal_is_not_repeated() {
    let (world, _) = world();
    let store = Faulty::new();
    // Beginning, parts and completion fail once each.
    let retry = RetryPolicy { attempts: 4, ..RetryPolicy::default() };
    let bucket = store.bucket(&world).with_retry(retry);
    let (dir, meta) = folder(&world, Path::new("/data"), id(1), 0, 6 << 20);
    let mut failed = std::collections::HashSet::new();
    store.on_each(move |verb, path| failed.insert(format!("{verb} {path}")).then(unavailable));
    upload_block(&bucket, &world, &dir, &meta).await.unwrap();
    assert!(store.log().iter().any(|l| l.starts_with("abort")), "parts of the failed attempt are given up");
    store.on_each(|_, path| Some(denied(path)));
    let error = bucket.get("x").await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert_eq!(store.log(), ["get x"]);
}

#[tokio::test]
async fn blocks_ship_oldest_first_and_a_bad_one_stops_nobody() {
    let (world, _) = world();
    let store = Faulty::new();
    let home = Path::new("/data/tenant");
    let good = folder(&world, home, id(5), 100, 100);
    let older = folder(&world, home, id(6), 50, 100);
    let broken = folder(&world, home, id(1), 10, 100);
    world.disk.remove_file(&broken.0.join("index")).unwrap();
    let mut unlabelled = folder(&world, home, id(2), 20, 100);
    unlabelled.1.thanos = None;
    let mut merged = folder(&world, home, id(3), 30, 100);
    merged.1.compaction.level = 2;
    let mut empty = folder(&world, home, id(4), 40, 100);
    empty.1.stats.num_samples = 0;
    let blocks = vec![good, older, broken, unlabelled, merged, empty];
    let shipper = Shipper::new(store.bucket(&world), &world, unverified());
    let report = shipper.sync("tenant", home, blocks.clone()).await;
    assert_eq!(report.uploaded, [id(6), id(5)]);
    assert_eq!(
        report.skipped.iter().map(|(id, e)| (*id, e.kind)).collect::<Vec<_>>(),
        [(id(1), Kind::Corrupt), (id(2), Kind::Invalid)]
    );
    assert!(report.error.is_none());
    assert_eq!(report.shipped.into_iter().collect::<Vec<_>>(), [id(5), id(6)]);
    store.log();
    let report = shipper.sync("tenant", home, blocks[..2].to_vec()).await;
    assert!(report.uploaded.is_empty() && store.log().is_empty(), "the ledger saves the requests");
    assert_eq!(report.shipped.len(), 2);
    world.disk.remove_file(&home.join(ledger::FILE)).unwrap();
    let report = shipper.sync("tenant", home, blocks[..2].to_vec()).await;
    assert_eq!(report.uploaded.len(), 2, "a lost ledger is made again from the bucket");
    assert!(!store.log().iter().any(|l| l.starts_with("put")));
}

#[tokio::test]
async fn a_bucket_that_fails_is_tried_again_later() {
    let (world, disk) = world();
    let store = Faulty::new();
    let home = Path::new("/data/tenant");
    let blocks = vec![folder(&world, home, id(1), 0, 100), folder(&world, home, id(2), 100, 100)];
    let shipper = Shipper::new(store.bucket(&world), &world, unverified());
    let second = id(2).to_string();
    store.on_each(move |verb, path| (verb == "put" && path.contains(&second)).then(|| denied(path)));
    let report = shipper.sync("tenant", home, blocks.clone()).await;
    assert_eq!(report.uploaded, [id(1)]);
    assert_eq!(report.error.as_ref().map(|e| e.kind), Some(Kind::Refused));
    let first_pause = report.retry_in.unwrap();
    store.on_each(|_, _| Some(unavailable()));
    let mut pause = first_pause;
    for _ in 0..4 {
        pause = shipper.sync("tenant", home, blocks.clone()).await.retry_in.unwrap();
    }
    assert!(pause > first_pause, "{first_pause:?} {pause:?}");
    store.heal();
    // The ledger cannot be written: the block is up, but nobody may rely on it being noted.
    disk.set_capacity_limit(Some(0));
    let report = shipper.sync("tenant", home, blocks.clone()).await;
    assert_eq!(report.error.map(|e| e.kind), Some(Kind::Exhausted));
    assert!(!report.shipped.contains(&id(2)));
    disk.set_capacity_limit(None);
    let report = shipper.sync("tenant", home, blocks).await;
    assert!(report.error.is_none() && report.retry_in.is_none());
    assert_eq!(report.shipped.len(), 2);
}

#[tokio::test]
async fn a_damaged_index_does_not_travel() {
    let (world, disk) = world();
    let store = Faulty::new();
    let home = Path::new("/data/tenant");
    let labels = Labels::from_pairs([("a", "b")]).unwrap();
    let bytes = chunk::xor::encode([Sample { timestamp: 5, value: 1.0 }]).unwrap();
    let chunks =
        [ChunkData { range: TimeRange::new(5, 5), encoding: chunk::Encoding::Xor, bytes: bytes.into() }];
    let mut blocks = Vec::new();
    for n in 1..=2 {
        let mut writer = BlockWriter::create(&world, home, id(n)).unwrap();
        writer.add_series(&labels, &chunks).unwrap();
        let thanos =
            ThanosSpec { labels: [("r".to_owned(), "a".to_owned())].into(), ..ThanosSpec::default() };
        let meta = writer.finish(MetaSpec { thanos: Some(thanos), ..MetaSpec::default() }).unwrap().unwrap();
        blocks.push((home.join(id(n).to_string()), meta));
    }
    disk.damage(&blocks[0].0.join("index"), |bytes| bytes[20] ^= 1).unwrap();
    let shipper = Shipper::new(store.bucket(&world), &world, ShipSettings::default());
    let report = shipper.sync("tenant", home, blocks).await;
    assert_eq!(report.uploaded, [id(2)]);
    assert_eq!(report.skipped.len(), 1);
    assert_eq!(report.skipped[0].1.kind, Kind::Corrupt);
}
