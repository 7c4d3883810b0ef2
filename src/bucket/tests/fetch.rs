//! What is in a bucket is found, judged block by block, and not fetched twice.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket::{Bucket, DeletionMark, FetchSettings, Fetcher, State, upload_block};
use bytes::Bytes;
use common::{Faulty, folder, id, unavailable};
use runtime::World;
use testkit::MemDisk;

async fn filled() -> (Arc<Faulty>, World, Bucket) {
    let (world, _) = testkit::world(Arc::new(MemDisk::new()), 1_700_000_000_000, 1);
    let store = Faulty::new();
    let bucket = store.bucket(&world);
    for n in 1..=4 {
        let (dir, meta) = folder(&world, Path::new("/data"), id(n), n * 100, 100);
        upload_block(&bucket, &world, &dir, &meta).await.unwrap();
    }
    let put = |path: String, text: &str| {
        let (bucket, text) = (bucket.clone(), Bytes::from(text.to_owned()));
        async move { bucket.put(&path, text).await.unwrap() }
    };
    // A half upload, a damaged meta.json, a mark that counts, one that nobody can read, and what is not a block.
    put(format!("{}/index", id(10)), "x").await;
    put(format!("{}/meta.json", id(11)), "{").await;
    put(format!("{}/meta.json", id(12)), &format!("{{\"ulid\":\"{}\"}}", id(1))).await;
    let old = DeletionMark::new(id(2), 1_600_000_000_000, "test").to_json().unwrap();
    put(format!("{}/deletion-mark.json", id(2)), &String::from_utf8(old).unwrap()).await;
    put(format!("{}/deletion-mark.json", id(3)), "no").await;
    put("debug/metas/x.json".to_owned(), "{}").await;
    put("notes.txt".to_owned(), "hello").await;
    store.log();
    (store, world, bucket)
}

fn gets(store: &Faulty) -> usize {
    store.log().iter().filter(|l| l.starts_with("get")).count()
}

#[tokio::test]
async fn every_folder_has_a_state_in_both_ways_of_listing() {
    for recursive in [false, true] {
        let (store, world, bucket) = filled().await;
        let cache_dir = Some(PathBuf::from("/cache"));
        let settings = FetchSettings { recursive, cache_dir, ..FetchSettings::default() };
        let fetcher = Fetcher::new(bucket.clone(), &world, settings.clone());
        let found = fetcher.fetch().await.unwrap();
        assert_eq!(found.loaded.keys().copied().collect::<Vec<_>>(), [id(1), id(3), id(4)]);
        assert_eq!(found.in_state(State::NoMeta).collect::<Vec<_>>(), [id(10)]);
        assert_eq!(found.in_state(State::CorruptedMeta).collect::<Vec<_>>(), [id(11), id(12)]);
        assert_eq!(found.in_state(State::MarkedForDeletion).collect::<Vec<_>>(), [id(2)]);
        assert_eq!(gets(&store), 8, "six metas and two marks");
        fetcher.fetch().await.unwrap();
        assert_eq!(gets(&store), 3, "only what could not be read");
        // A restart reads metas from its disk; a block that goes is forgotten there too.
        bucket.delete_block(id(4)).await.unwrap();
        let deleted: Vec<String> = store.log().into_iter().filter(|l| l.starts_with("delete")).collect();
        assert!(deleted[0].ends_with("meta.json") && deleted.last().unwrap().ends_with("deletion-mark.json"));
        let restarted = Fetcher::new(bucket.clone(), &world, settings);
        let found = restarted.fetch().await.unwrap();
        assert_eq!(found.loaded.keys().copied().collect::<Vec<_>>(), [id(1), id(3)]);
        assert_eq!(gets(&store), 4, "two damaged metas, two marks");
        assert!(world.disk.exists(&Path::new("/cache").join(id(1).to_string()).join("meta.json")));
        assert!(!world.disk.exists(&Path::new("/cache").join(id(4).to_string())));
    }
}

#[tokio::test]
async fn a_block_that_does_not_answer_costs_only_itself() {
    let (store, world, bucket) = filled().await;
    let fetcher = Fetcher::new(bucket, &world, FetchSettings::default());
    let bad = id(1).to_string();
    store.on_each(move |verb, path| (verb == "get" && path.contains(&bad)).then(unavailable));
    let found = fetcher.fetch().await.unwrap();
    assert_eq!(found.in_state(State::Failed).collect::<Vec<_>>(), [id(1)]);
    assert!(found.loaded.contains_key(&id(3)));
    store.heal();
    assert!(fetcher.fetch().await.unwrap().loaded.contains_key(&id(1)));
    store.on_each(|verb, _| (verb == "level").then(unavailable));
    assert!(fetcher.fetch().await.unwrap_err().retryable());
}
