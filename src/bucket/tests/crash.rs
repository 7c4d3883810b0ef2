//! The machine stops anywhere in a round of uploads: in the bucket each block is whole or no block, the ledger knows no block that
//! is not there, and the round after the restart brings what is missing, each block once.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use block::{BlockId, Meta};
use bucket::{Bucket, RetryPolicy, ShipSettings, Shipper, layout};
use catalog::Catalog;
use common::{Faulty, id, real, unavailable};
use runtime::World;
use testkit::MemDisk;

const HOME: &str = "/data/blocks/t";
const BLOCKS: i64 = 3;

/// Three blocks on a disk; the second is sent in parts.
fn blocks(disk: &MemDisk) -> Vec<(PathBuf, Meta)> {
    let world = world(disk);
    let sizes = [300, 800_000, 5];
    let blocks =
        sizes.into_iter().zip(1..).map(|(n, at)| real(&world, Path::new(HOME), id(at), at * 10_000_000, n));
    let blocks: Vec<_> = blocks.collect();
    world.disk.sync_dir(Path::new(HOME)).unwrap();
    blocks
}

fn world(disk: &MemDisk) -> World {
    testkit::world(Arc::new(disk.clone()), 1_700_000_000_000, 1).0
}

/// A bucket that gives up at the first fault, as a process that ends does.
fn bucket(store: &Arc<Faulty>, world: &World) -> Bucket {
    store.bucket(world).with_retry(RetryPolicy { attempts: 1, ..RetryPolicy::default() })
}

/// Counts how often each block's meta.json got into the bucket; the answer to change `lost`, from 0, gets lost.
fn watch(store: &Faulty, lost: Option<usize>) -> Arc<Mutex<BTreeMap<String, usize>>> {
    let seen: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let (noted, changes) = (seen.clone(), AtomicUsize::new(0));
    store.after_each(move |_, path| {
        if let Some(block) = path.strip_suffix("/meta.json") {
            *noted.lock().unwrap().entry(block.to_owned()).or_default() += 1;
        }
        (Some(changes.fetch_add(1, SeqCst)) == lost).then(unavailable)
    });
    seen
}

/// Blocks that a reader of the bucket sees; each must be as it is on the disk.
async fn whole(bucket: &Bucket, world: &World, context: &str) -> BTreeSet<BlockId> {
    let mut seen = BTreeSet::new();
    for id in bucket.list_blocks().await.unwrap() {
        if !bucket.exists(&layout::of(id, layout::META)).await.unwrap() {
            continue;
        }
        let meta = bucket.meta(id).await.unwrap();
        let files = &meta.thanos.as_ref().unwrap().files;
        assert!(files.len() >= 3, "{context}");
        for file in files.iter().filter(|f| f.rel_path != "meta.json") {
            let there = bucket.get(&layout::of(id, &file.rel_path)).await.unwrap();
            let here = world.disk.read(&Path::new(HOME).join(id.to_string()).join(&file.rel_path)).unwrap();
            assert!(there == here, "{context}: {} of block {id}", file.rel_path);
        }
        seen.insert(id);
    }
    seen
}

/// What must hold after a restart, and after the round that follows it.
async fn check(
    shipper: &Shipper,
    world: &World,
    blocks: &[(PathBuf, Meta)],
    metas: &Mutex<BTreeMap<String, usize>>,
    context: &str,
) {
    let visible = whole(shipper.bucket(), world, context).await;
    let known = shipper.known("t", Path::new(HOME)).await.unwrap();
    assert!(known.is_subset(&visible), "{context}: the ledger knows {known:?}, there are {visible:?}");
    let report = shipper.sync("t", Path::new(HOME), blocks.to_vec()).await;
    assert!(report.error.is_none() && report.skipped.is_empty(), "{context}: {report:?}");
    let all: BTreeSet<BlockId> = (1..=BLOCKS).map(id).collect();
    assert_eq!(whole(shipper.bucket(), world, context).await, all, "{context}");
    assert_eq!(report.shipped, all, "{context}");
    let once: Vec<usize> = metas.lock().unwrap().values().copied().collect();
    assert_eq!(once, [1; BLOCKS as usize], "{context}: meta.json of each block goes up once");
    let again = shipper.sync("t", Path::new(HOME), blocks.to_vec()).await;
    assert!(again.uploaded.is_empty() && again.error.is_none(), "{context}");
}

/// Cut before request `k` of the bucket, and, of those that change it, behind it with the answer lost; the disk forgets what
/// was not synced.
#[tokio::test]
async fn cut_at_every_request_of_the_bucket() {
    let (mut cuts, original) = (0, MemDisk::new());
    let blocks = blocks(&original);
    for lost in [false, true] {
        for k in 0.. {
            let (disk, store) = (original.crash(0), Faulty::new());
            let metas = watch(&store, lost.then_some(k));
            let calls = AtomicUsize::new(0);
            if !lost {
                store.on_each(move |_, _| (calls.fetch_add(1, SeqCst) >= k).then(unavailable));
            }
            let before = world(&disk);
            let shipper = Shipper::new(bucket(&store, &before), &before, ShipSettings::default());
            let report = shipper.sync("t", Path::new(HOME), blocks.clone()).await;
            if report.error.is_none() {
                assert!(report.shipped.len() == BLOCKS as usize && k > 8, "{k}");
                break;
            }
            drop(shipper);
            store.on_each(|_, _| None);
            let after = world(&disk.crash(k as u64));
            let shipper = Shipper::new(bucket(&store, &after), &after, ShipSettings::default());
            check(&shipper, &after, &blocks, &metas, &format!("request {k}, answer lost: {lost}")).await;
            cuts += 1;
        }
    }
    assert!(cuts > 25, "{cuts} cuts");
}

/// The same on our side: cut at every change of the disk, which is the ledger's.
#[tokio::test]
async fn cut_at_every_write_and_sync_of_the_ledger() {
    let original = MemDisk::new();
    let blocks = blocks(&original);
    for k in 0.. {
        for seed in 0..3 {
            let (disk, store) = (original.crash(0), Faulty::new());
            let metas = watch(&store, None);
            disk.fail_after(k);
            let before = world(&disk);
            let shipper = Shipper::new(bucket(&store, &before), &before, ShipSettings::default());
            let report = shipper.sync("t", Path::new(HOME), blocks.clone()).await;
            if report.error.is_none() {
                assert!(k >= 3 * BLOCKS as u64, "{k}");
                return;
            }
            drop(shipper);
            let after = world(&disk.crash(seed));
            let shipper = Shipper::new(bucket(&store, &after), &after, ShipSettings::default());
            check(&shipper, &after, &blocks, &metas, &format!("change {k} of the disk, seed {seed}")).await;
        }
    }
}

/// With the ledger in the catalog, as a receiver has it: the process ends between any two requests, and a catalog that
/// lost what it never confirmed asks the bucket again.
#[tokio::test]
async fn cut_at_every_request_with_the_ledger_in_the_catalog() {
    let original = MemDisk::new();
    let blocks = blocks(&original);
    for k in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let (disk, store) = (original.crash(0), Faulty::new());
        let metas = watch(&store, None);
        let calls = AtomicUsize::new(0);
        store.on_each(move |_, _| (calls.fetch_add(1, SeqCst) >= k).then(unavailable));
        let open = |at: &str| Catalog::open(&World::real(), &dir.path().join(at)).unwrap();
        let before = world(&disk);
        let shipper = Shipper::new(bucket(&store, &before), &before, ShipSettings::default());
        shipper.keep_in(open("catalog"));
        let report = shipper.sync("t", Path::new(HOME), blocks.clone()).await;
        drop(shipper);
        store.on_each(|_, _| None);
        let after = world(&disk.crash(0));
        let shipper = Shipper::new(bucket(&store, &after), &after, ShipSettings::default());
        // Every other time the catalog's folder is gone, as after the way out of damage.
        shipper.keep_in(open(if k % 2 == 0 { "catalog" } else { "new" }));
        check(&shipper, &after, &blocks, &metas, &format!("request {k}")).await;
        if report.error.is_none() {
            break;
        }
    }
}
