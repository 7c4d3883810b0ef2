//! What went up comes back equal, whatever is cached, and damage costs only the block that has it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{House, Series, all, id, labels, local, noisy, remote};
use model::{Kind, MatchOp, Matcher, Sample, TimeRange};
use storage::{Budget, Context, LabelRequest, PartialResponse, SelectRequest};
use store::{Blocks, BlocksSettings};

const REPLICA: &[(&str, &str)] = &[("replica", "a")];

#[test]
fn a_block_reads_back_equal_with_and_without_caches() {
    let mut house = House::new();
    let dir = house.block(1, REPLICA, &noisy(700, 130, 0));
    let want = local(&house.world, &dir, &[], TimeRange::ALL);
    assert_eq!(want.len(), 700);
    assert!(want[0].1.len() == 3);
    let whole = house.settings();
    let bare = BlocksSettings { index_cache: 0, chunk_cache: 0, header_memory: 0, ..house.settings() };
    for settings in [whole, bare] {
        let blocks = house.blocks(settings);
        let select = blocks.select(Vec::new());
        for _ in 0..2 {
            assert!(all(&*select) == want);
        }
        let range = TimeRange::new(600_000, 700_000);
        let some = [Matcher::new(MatchOp::Regex, "i", "1.*").unwrap()];
        let (got, notes) = remote(&*select, &some, range, PartialResponse::Abort).unwrap();
        assert!(got == local(&house.world, &dir, &some, range) && got.len() == 111);
        assert!(notes.is_empty());
        let mut request = SelectRequest::new(TimeRange::ALL, Vec::new());
        request.limit = 5;
        request.skip_chunks = true;
        let (first, _) = storage::collect(select.select(&request, &Context::background()).unwrap()).unwrap();
        assert_eq!(first.len(), 5);
        assert!(first.iter().zip(&want).all(|(a, b)| a.labels == b.0 && a.chunks.is_empty()));
        let outside = TimeRange::new(10_000_000, 20_000_000);
        assert!(remote(&*select, &[], outside, PartialResponse::Abort).unwrap().0.is_empty());
    }
}

#[test]
fn blocks_without_sizes_in_their_meta_and_long_chunks_read_too() {
    let mut house = House::new();
    // Chunks far longer than is guessed, in a block that says nothing of its sizes.
    let forget = |meta: &mut block::Meta| {
        let thanos = meta.thanos.as_mut().unwrap();
        thanos.index_stats = Default::default();
        thanos.files.clear();
    };
    let dir = house.block_with(1, REPLICA, &noisy(9, 3000, 0), 3000, forget);
    let want = local(&house.world, &dir, &[], TimeRange::ALL);
    assert!(want[0].1[0].bytes.len() > 10_000);
    // As if another tool had written it: the bucket's meta.json has no list of files.
    house.damage(&format!("{}/meta.json", id(1)), |bytes| {
        let mut meta = block::Meta::parse(bytes).unwrap();
        forget(&mut meta);
        *bytes = meta.to_json().unwrap();
    });
    let blocks = house.blocks(house.settings());
    assert!(all(&*blocks.select(Vec::new())) == want);
}

#[test]
fn blocks_are_merged_and_grouped_by_external_labels() {
    let mut house = House::new();
    house.block(1, &[("replica", "a"), ("tenant_id", "x")], &noisy(20, 100, 0));
    house.block(2, &[("replica", "a"), ("tenant_id", "x")], &noisy(30, 100, 1_000_000));
    house.block(3, &[("replica", "a"), ("tenant_id", "y")], &noisy(10, 100, 0));
    let blocks = house.blocks(house.settings());
    let views = blocks.views(TimeRange::ALL, &[]);
    assert_eq!(views.len(), 2);
    assert_eq!(views[0].labels, labels(&[("replica", "a"), ("tenant_id", "x")]));
    assert_eq!(views[0].range, TimeRange::new(0, 1_990_000));
    assert_eq!(blocks.views(TimeRange::ALL, &[Matcher::equal("tenant_id", "y")]).len(), 1);
    assert_eq!(blocks.views(TimeRange::new(1_500_000, 1_600_000), &[]).len(), 1);
    let x = blocks.select(vec![Matcher::equal("tenant_id", "x")]);
    let merged = all(&*x);
    assert_eq!(merged.len(), 30);
    assert!(merged.iter().all(|(labels, chunks)| {
        let both = labels.value("i").parse::<u32>().unwrap() < 20;
        chunks.len() == if both { 4 } else { 2 }
    }));
    let request = LabelRequest { range: TimeRange::ALL, matchers: Vec::new(), limit: 0 };
    let context = Context::background();
    assert_eq!(x.label_names(&request, &context).unwrap().values, ["__name__", "i"]);
    assert_eq!(x.label_values("i", &request, &context).unwrap().values.len(), 30);
    let request = LabelRequest { matchers: vec![Matcher::equal("i", "25")], ..request };
    assert_eq!(x.label_values("i", &request, &context).unwrap().values, ["25"]);
    assert_eq!(x.label_names(&request, &context).unwrap().values, ["__name__", "i"]);
    let info = blocks.advertised();
    assert!(info.ready && info.label_sets.len() == 2);
    assert_eq!(info.range, TimeRange::new(0, 1_990_000));
}

#[test]
fn values_of_many_series_are_listed_by_postings_and_of_few_by_labels() {
    let mut house = House::new();
    let dir = house.block(1, REPLICA, &noisy(700, 5, 0));
    let block = block::Block::open(&house.world, &dir).unwrap();
    let select = house.blocks(house.settings()).select(Vec::new());
    for (pattern, count) in [("[1-6].*", 666), ("1.?", 11), (".*7", 70), ("x", 0)] {
        let matchers =
            vec![Matcher::equal("__name__", "m"), Matcher::new(MatchOp::Regex, "i", pattern).unwrap()];
        let request = LabelRequest { range: TimeRange::ALL, matchers: matchers.clone(), limit: 0 };
        let got = select.label_values("i", &request, &Context::background()).unwrap().values;
        assert_eq!(got, block.label_values("i", &matchers, TimeRange::ALL, 0).unwrap());
        assert_eq!(got.len(), count, "{pattern}");
    }
}

#[test]
fn a_restart_needs_nothing_of_the_bucket_but_its_listing() {
    let mut house = House::new();
    let dir = house.block(1, REPLICA, &noisy(50, 100, 0));
    let want = local(&house.world, &dir, &[], TimeRange::ALL);
    assert!(all(&*house.blocks(house.settings()).select(Vec::new())) == want);
    let header = house.home.path().join("store").join(id(1).to_string()).join("index-header");
    let bytes = house.world.disk.read(&header).unwrap();
    assert_eq!(bytes[..6], [0xba, 0xaa, 0xd7, 0x92, 1, 2]);
    // The table of contents in the bucket is gone: only the header on disk knows where things are.
    house.damage(&format!("{}/index", id(1)), |bytes| {
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
    });
    assert!(all(&*house.blocks(house.settings()).select(Vec::new())) == want);
    // A damaged header on disk is fetched again, and then the damage in the bucket shows.
    let mut broken = bytes.clone();
    broken[40] ^= 1;
    house.world.disk.write_atomic(&header, &broken).unwrap();
    let select = house.blocks(house.settings()).select(Vec::new());
    let error = remote(&*select, &[], TimeRange::ALL, PartialResponse::Abort).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(error.message.contains(&format!("delete block {} from the bucket", id(1))), "{error}");
    // Blocks that leave the bucket leave the disk.
    house.rt.block_on(house.bucket.delete_block(id(1))).unwrap();
    house.blocks(house.settings());
    assert!(!house.world.disk.exists(&header));
}

#[test]
fn damage_is_reported_and_costs_one_block() {
    for file in ["index", "chunks/000001", "missing"] {
        let mut house = House::new();
        house.block(1, REPLICA, &noisy(40, 100, 0));
        let good = house.block(2, REPLICA, &noisy(40, 100, 2_000_000));
        let path = format!("{}/{file}", id(1));
        match file {
            "missing" => house.rt.block_on(house.bucket.delete(&format!("{}/index", id(1)))).unwrap(),
            _ => house.damage(&path, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle..middle + 64].iter_mut().for_each(|b| *b ^= 0x55);
            }),
        }
        let select = house.blocks(house.settings()).select(Vec::new());
        let (got, notes) = remote(&*select, &[], TimeRange::ALL, PartialResponse::Warn).unwrap();
        assert_eq!(notes.warnings.len(), 1, "{file}: {notes:?}");
        assert!(notes.warnings[0].contains(&id(1).to_string()), "{notes:?}");
        let newer = TimeRange::new(2_000_000, i64::MAX);
        let kept: Vec<_> = got
            .into_iter()
            .map(|(labels, mut chunks)| {
                chunks.retain(|c| c.range.overlaps(&newer));
                (labels, chunks)
            })
            .collect();
        assert!(kept == local(&house.world, &good, &[], TimeRange::ALL), "{file}");
        let error = remote(&*select, &[], TimeRange::ALL, PartialResponse::Abort).unwrap_err();
        assert!(error.message.contains(&id(1).to_string()), "{file}: {error}");
        // Where the damaged block is not asked, nothing is wrong.
        assert!(remote(&*select, &[], newer, PartialResponse::Abort).is_ok());
    }
}

#[test]
fn limits_budget_and_cancellation_end_a_call() {
    let mut house = House::new();
    house.block(1, REPLICA, &noisy(300, 200, 0));
    let limited = BlocksSettings { downloaded_limit: 70_000, ..house.settings() };
    let select = house.blocks(limited).select(Vec::new());
    let error = remote(&*select, &[], TimeRange::ALL, PartialResponse::Warn).unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted);
    assert!(error.message.contains("--store.grpc.downloaded-bytes-limit"), "{error}");
    let select = house.blocks(house.settings()).select(Vec::new());
    let request = SelectRequest::new(TimeRange::ALL, Vec::new());
    let small = Context { budget: Budget::new("--store.memory", 2000), ..Context::background() };
    let error = select.select(&request, &small).and_then(storage::collect).unwrap_err();
    assert_eq!((error.kind, small.budget.used()), (Kind::Exhausted, 0));
    let gone = Context { partial: PartialResponse::Warn, ..Context::background() };
    gone.cancel.raise();
    let error = select.select(&request, &gone).and_then(storage::collect).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
}

#[test]
fn who_answers_for_a_block_himself_leaves_it_out() {
    let mut house = House::new();
    house.block(1, REPLICA, &noisy(5, 100, 0));
    house.block(2, REPLICA, &noisy(6, 100, 2_000_000));
    let is_local = Arc::new(AtomicBool::new(true));
    let asked = is_local.clone();
    let _in = house.rt.enter();
    let leave_out = Arc::new(move |block| block == id(2) && asked.load(SeqCst));
    let blocks = Blocks::new(house.bucket.clone(), &house.world, house.settings(), leave_out);
    drop(_in);
    assert!(!blocks.is_ready() && !blocks.advertised().ready);
    house.rt.block_on(blocks.sync()).unwrap();
    let select = blocks.select(Vec::new());
    assert_eq!(all(&*select).len(), 5);
    is_local.store(false, SeqCst);
    assert_eq!(all(&*select).len(), 6);
}

#[test]
fn a_bucket_that_cannot_be_searched_keeps_its_blocks() {
    let mut house = House::new();
    let dir = house.home.path().join("bucket");
    house.bucket = bucket::Bucket::filesystem(&dir, &house.world).unwrap();
    let one: Series = vec![(labels(&[("a", "b")]), vec![Sample { timestamp: 5, value: 1.0 }])];
    house.block(1, REPLICA, &one);
    let blocks = house.blocks(house.settings());
    assert_eq!(all(&*blocks.select(Vec::new())).len(), 1, "from a folder");
    house.world.disk.rename(&dir, &house.home.path().join("elsewhere")).unwrap();
    assert!(house.rt.block_on(blocks.sync()).unwrap_err().message.contains("is gone"));
    assert_eq!(blocks.ids().len(), 1);
    assert_eq!(blocks.advertised().range, TimeRange::new(5, 5));
}
