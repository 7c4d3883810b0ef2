//! Stories of the engine: what is taken, what is refused, what is still there after a kill or a cut.

mod rig;

use std::path::Path;
use std::sync::Arc;

use model::{Kind, Labels, Matcher, TimeRange, stale_nan};
use rig::{HOUR, MINUTE, NOON, Rig, Samples, read, settings, tenant};
use storage::Refusal::{Conflict, InvalidLabels, SeriesLimit, TooFarInFuture, TooOld};
use storage::Verdict::{Duplicate, Refused, Stored};
use storage::{Context, LabelRequest, Select, SelectRequest, collect};
use testkit::MemDisk;
use tsdb::{Settings, Tsdb};

#[test]
fn taken_refused_and_doubled() {
    let rig = Rig::new();
    let now = NOON;
    assert_eq!(rig.push("t", "up", &[(now, 1.0), (now + 1, 2.0)]), [Stored, Stored]);
    assert_eq!(rig.push("t", "up", &[(now, 1.0), (now + 1, 3.0)]), [Duplicate, Refused(Conflict)]);
    // Out of order within the window, up to its edge.
    assert_eq!(rig.push("t", "up", &[(now - HOUR, 4.0), (now - 2 * HOUR, 5.0)]), [Stored, Stored]);
    assert_eq!(rig.push("t", "up", &[(now - HOUR, 4.0), (now - HOUR, 4.5)]), [Duplicate, Refused(Conflict)]);
    assert_eq!(rig.push("t", "up", &[(now - 2 * HOUR - 1, 6.0)]), [Refused(TooOld)]);
    // The future: refused by itself, and it narrows nothing.
    let ahead =
        rig.push("t", "up", &[(now + 10 * MINUTE, 7.0), (now + 10 * MINUTE + 1, 8.0), (now + 2, 9.0)]);
    assert_eq!(ahead, [Stored, Refused(TooFarInFuture), Stored]);
    assert_eq!(rig.push("t", "up", &[(now + 3, stale_nan())]), [Stored]);
    assert_eq!(
        rig.push("t", "up", &[(now + 3, stale_nan()), (now + 3, f64::NAN)]),
        [Duplicate, Refused(Conflict)]
    );
    rig.expect(
        "t",
        &[(
            "up",
            &[
                (now - 2 * HOUR, 5.0),
                (now - HOUR, 4.0),
                (now, 1.0),
                (now + 1, 2.0),
                (now + 2, 9.0),
                (now + 3, stale_nan()),
                (now + 10 * MINUTE, 7.0),
            ],
        )],
    );
}

#[test]
fn a_backlog_in_order_is_taken_however_late_up_to_two_days() {
    let rig = Rig::new();
    let old: Vec<(i64, f64)> = (0..100).map(|i| (NOON - 40 * HOUR + i * 10 * MINUTE, i as f64)).collect();
    assert!(rig.push("t", "backfill", &old).iter().all(|v| *v == Stored));
    assert!(rig.push("t", "backfill", &old).iter().all(|v| *v == Duplicate));
    assert_eq!(rig.push("t", "backfill", &[(NOON - 39 * HOUR + 1, 0.0)]), [Refused(TooOld)]);
    assert_eq!(rig.push("t", "older", &[(NOON - 48 * HOUR - 1, 0.0)]), [Refused(TooOld)]);
    rig.expect("t", &[("backfill", &old)]);
    // A series of which nothing was taken does not exist.
    assert_eq!(rig.tsdb.head_stats().series, 1);
}

#[test]
fn tenants_do_not_meet_and_limits_spare_what_exists() {
    let rig = Rig::with(Settings { limits: Some(rig::limits(|l| l.series = 2)), ..settings() });
    for (of, value) in [("a", 1.0), ("b", 2.0)] {
        for series in ["x", "y"] {
            assert_eq!(rig.push(of, series, &[(NOON, value)]), [Stored]);
        }
        assert_eq!(rig.push(of, "z", &[(NOON, value)]), [Refused(SeriesLimit)]);
        assert_eq!(rig.push(of, "x", &[(NOON + 1, value)]), [Stored]);
    }
    rig.expect("a", &[("x", &[(NOON, 1.0), (NOON + 1, 1.0)]), ("y", &[(NOON, 1.0)])]);
    rig.expect("b", &[("x", &[(NOON, 2.0), (NOON + 1, 2.0)]), ("y", &[(NOON, 2.0)])]);
    assert!(rig.tsdb.tenant(&tenant("c")).is_none());
    assert_eq!(rig.tsdb.tenants(), [tenant("a"), tenant("b")]);
}

#[test]
fn labels_that_are_too_long_are_refused_alone() {
    let rig = Rig::new();
    let long = "x".repeat(100_000);
    let rows: [(&str, &[(i64, f64)]); 3] =
        [("a", &[(NOON, 1.0)]), (&long, &[(NOON, 1.0)]), ("b", &[(NOON, 1.0)])];
    assert_eq!(rig.try_push("t", &rows).unwrap(), [Stored, Refused(InvalidLabels), Stored]);
}

#[test]
fn a_kill_loses_nothing_and_narrows_nothing() {
    let mut rig = Rig::new();
    let mut wanted: Vec<(String, Vec<(i64, f64)>)> = Vec::new();
    for n in 0..40 {
        let samples: Vec<(i64, f64)> =
            (0..n * 5).map(|i| (NOON - HOUR + i * 10_000, (i * n) as f64)).collect();
        rig.push("t", &format!("s{n:02}"), &samples);
        if n > 0 {
            wanted.push((format!("s{n:02}"), samples));
        }
    }
    rig.push("t", "s05", &[(NOON - HOUR - 7, 0.25)]);
    wanted[4].1.insert(0, (NOON - HOUR - 7, 0.25));
    let wanted: Vec<(&str, &[(i64, f64)])> = wanted.iter().map(|(n, s)| (&**n, &**s)).collect();
    for _ in 0..3 {
        rig.expect("t", &wanted);
        rig.kill();
    }
    rig.expect("t", &wanted);
    assert_eq!(
        rig.push("t", "s05", &[(NOON - HOUR - 7, 0.25), (NOON - HOUR - 7, 1.0)]),
        [Duplicate, Refused(Conflict)]
    );
    assert_eq!(rig.push("t", "s39", &[(NOON - 2 * HOUR, 1.0)]), [Stored]);
    assert_eq!(rig.push("t", "s39", &[(NOON - 2 * HOUR - 1, 1.0)]), [Refused(TooOld)]);
}

#[test]
fn a_cut_moves_windows_into_blocks_and_reads_see_one_whole() {
    let mut rig = Rig::new();
    let samples: Vec<(i64, f64)> = (0..480).map(|i| (NOON + i * 30_000, i as f64)).collect();
    for (i, (t, v)) in samples.iter().enumerate() {
        rig.clock.set(*t);
        rig.push("t", "up", &[(*t, *v)]);
        if i % 3 == 0 {
            rig.push("u", "other", &[(*t, *v)]);
        }
    }
    assert_eq!(rig.tsdb.cut(NOON + 4 * HOUR - 1, false).unwrap().len(), 0);
    rig.clock.set(NOON + 4 * HOUR + 5 * MINUTE);
    let cut = rig.tsdb.cut(rig.now(), false).unwrap();
    assert_eq!(cut.len(), 2);
    let meta = &cut[0].meta;
    assert_eq!((meta.min_time, meta.max_time), (NOON, NOON + 2 * HOUR));
    assert_eq!(meta.stats.num_samples, 240);
    assert!(meta.compaction.hints.is_empty());
    let thanos = meta.thanos.as_ref().unwrap();
    assert_eq!(thanos.source, "receive");
    assert_eq!(thanos.labels["tenant_id"], "t");
    assert_eq!(thanos.labels["replica"], "a");
    assert!(rig.disk_has(&cut[0].dir.join("meta.json")));
    rig.expect("t", &[("up", &samples)]);
    assert_eq!(rig.tsdb.head_stats().samples, 240 + 80);

    // The rest by force: clamped to the samples, and the series goes on afterwards.
    let forced = rig.tsdb.cut(rig.now(), true).unwrap();
    assert_eq!(forced.len(), 2);
    assert_eq!((forced[0].meta.min_time, forced[0].meta.max_time), (samples[240].0, samples[479].0 + 1));
    rig.expect("t", &[("up", &samples)]);
    let mut more = samples.clone();
    more.push((rig.now(), 0.5));
    rig.push("t", "up", &[(rig.now(), 0.5)]);
    rig.expect("t", &[("up", &more)]);
    for _ in 0..2 {
        rig.kill();
        rig.expect("t", &[("up", &more)]);
        assert_eq!(rig.tsdb.local_blocks(&tenant("t")).len(), 2);
        assert_eq!(rig.tsdb.head_stats().samples, 1);
    }

    // A sample of a window that is in a block already opens a supplementary block.
    rig.push("t", "up", &[(NOON + 3 * HOUR + 1, 0.75)]);
    let late = rig.tsdb.cut(rig.now(), true).unwrap();
    let hints: Vec<bool> = late
        .iter()
        .filter(|b| b.tenant == tenant("t"))
        .map(|b| b.meta.compaction.hints == ["from-out-of-order"])
        .collect();
    assert_eq!(hints, [true, false]);
    let at = more.partition_point(|(t, _)| *t < NOON + 3 * HOUR + 1);
    more.insert(at, (NOON + 3 * HOUR + 1, 0.75));
    rig.expect("t", &[("up", &more)]);

    // Retention: only what is shipped and old goes.
    let month = NOON + 30 * 24 * HOUR;
    assert_eq!(rig.tsdb.apply_retention(month, &|_| false).unwrap(), 0);
    assert_eq!(rig.tsdb.apply_retention(NOON + HOUR, &|_| true).unwrap(), 0);
    let first = late.len() + 4;
    assert_eq!(rig.tsdb.apply_retention(month, &|_| true).unwrap(), first);
    assert!(rig.read("t").is_empty());
    rig.kill();
    assert!(rig.tsdb.tenants().is_empty());
}

#[test]
fn what_is_acknowledged_stays_so_after_a_cut_before_its_time() {
    let mut rig = Rig::new();
    let t = NOON + HOUR;
    rig.clock.set(t);
    assert_eq!(rig.push("t", "up", &[(t - 5, 2.0), (t, 1.0)]), [Stored, Stored]);
    assert_eq!(rig.push("t", "up", &[(t - 9, 3.0)]), [Stored]);
    let again = |rig: &Rig| {
        let verdicts = rig.push("t", "up", &[(t, 1.0), (t, 5.0), (t - 5, 2.0), (t - 9, 3.0), (t - 9, 3.5)]);
        assert_eq!(verdicts, [Duplicate, Refused(Conflict), Duplicate, Duplicate, Refused(Conflict)]);
    };
    let cut = |rig: &Rig, blocks: usize| assert_eq!(rig.tsdb.cut(rig.now(), true).unwrap().len(), blocks);
    let all = [(t - 9, 3.0), (t - 5, 2.0), (t, 1.0)];
    cut(&rig, 1);
    for _ in 0..3 {
        again(&rig);
        rig.expect("t", &[("up", &all)]);
        assert_eq!(rig.tsdb.head_stats().samples, 0, "read from the block only");
        rig.kill();
    }
    // Another cut adds to what is known. The log keeps it although all of it is in blocks.
    rig.push("t", "up", &[(t + 1, 6.0)]);
    cut(&rig, 1);
    // As much log again as several segments hold, and the cuts that let it go.
    for i in 0..4000i64 {
        rig.try_push("u", &[("filler", &[(t + i, 0.25)])]).unwrap();
    }
    cut(&rig, 1);
    rig.clock.set(NOON + 4 * HOUR - 1);
    cut(&rig, 0);
    for _ in 0..2 {
        assert_eq!(rig.push("t", "up", &[(t + 1, 6.0), (t + 1, 5.0)]), [Duplicate, Refused(Conflict)]);
        again(&rig);
        rig.kill();
    }
    // Once nothing of the window can be written any more, memory and log let it go.
    let segments = |rig: &Rig| {
        let names = rig.world.disk.list(Path::new("/data/wal")).unwrap();
        names.iter().filter(|n| n.starts_with("segment")).count()
    };
    let before = (rig.tsdb.head_stats().bytes, segments(&rig));
    rig.clock.set(NOON + 4 * HOUR);
    cut(&rig, 0);
    let after = (rig.tsdb.head_stats().bytes, segments(&rig));
    assert!(after.0 < before.0 && after.1 < before.1, "{before:?} {after:?}");
    assert_eq!(rig.push("t", "up", &[(t, 5.0)]), [Refused(TooOld)]);
    rig.kill();
    assert_eq!(rig.push("t", "up", &[(t, 5.0)]), [Refused(TooOld)]);
    assert_eq!(rig.tsdb.head_stats().bytes, after.0);
    rig.expect("t", &[("up", &[all[0], all[1], all[2], (t + 1, 6.0)])]);
    rig.clock.set(NOON + 10 * HOUR);
    cut(&rig, 0);
    assert_eq!(rig.tsdb.head_stats().series, 0, "nothing keeps the series any more");
}

#[test]
fn a_series_that_was_cut_before_its_time_is_not_forgotten_before_it() {
    let rig = Rig::new();
    rig.push("t", "up", &[(NOON, 1.0), (NOON + 1, 1.0)]);
    rig.tsdb.cut(NOON, true).unwrap();
    // Silent for longer than idle series are kept.
    rig.clock.set(NOON + 4 * HOUR - 1);
    rig.tsdb.cut(rig.now(), false).unwrap();
    assert_eq!(rig.tsdb.head_stats().series, 1);
    assert_eq!(rig.push("t", "up", &[(NOON, 1.0), (NOON, 2.0)]), [Duplicate, Refused(Conflict)]);
    rig.clock.set(NOON + 4 * HOUR + 11 * MINUTE);
    rig.tsdb.cut(rig.now(), false).unwrap();
    assert_eq!(rig.tsdb.head_stats().series, 0);
}

#[test]
fn a_cut_in_its_time_keeps_nothing() {
    let mut rig = Rig::new();
    rig.push("t", "up", &[(NOON, 1.0)]);
    rig.clock.set(NOON + 2 * HOUR);
    rig.push("t", "up", &[(rig.now(), 1.0)]);
    // What the series takes with one chunk that grows.
    let alone = Rig::new();
    alone.push("t", "up", &[(NOON, 1.0)]);
    let alone = alone.tsdb.head_stats().bytes;
    rig.clock.set(NOON + 4 * HOUR + 5 * MINUTE);
    assert!(rig.tsdb.head_stats().bytes > alone);
    assert_eq!(rig.tsdb.cut(rig.now(), false).unwrap().len(), 1);
    assert_eq!(rig.tsdb.head_stats().bytes, alone);
    rig.kill();
    assert_eq!(rig.tsdb.head_stats().bytes, alone);
}

#[test]
fn a_backfill_over_many_windows_is_cut_from_the_oldest_on() {
    let rig = Rig::new();
    let old: Vec<(i64, f64)> = (0..120).map(|i| (NOON - 20 * HOUR + i * 10 * MINUTE, i as f64)).collect();
    for part in old.chunks(7) {
        rig.push("t", "backfill", part);
        rig.tsdb.cut(rig.now(), false).unwrap();
    }
    let blocks = rig.tsdb.local_blocks(&tenant("t"));
    assert_eq!(blocks.len(), 7, "ten windows, three of them still in the head");
    rig.expect("t", &[("backfill", &old)]);
}

#[test]
fn old_segments_go_and_series_outlive_them() {
    let mut rig = Rig::new();
    let mut wanted = Vec::new();
    for i in 0..600i64 {
        let t = NOON + i * MINUTE;
        rig.clock.set(t);
        rig.push("t", "up", &[(t, i as f64)]);
        wanted.push((t, i as f64));
        if i % 3 == 0 {
            let churn = format!("churn_{}", i / 30);
            rig.push("t", &churn, &[(t, 1.0)]);
        }
        if i % 60 == 0 {
            rig.tsdb.cut(t, false).unwrap();
        }
    }
    let segments = |rig: &Rig| {
        let names = rig.world.disk.list(Path::new("/data/wal")).unwrap();
        names.iter().filter(|n| n.starts_with("segment")).count()
    };
    let before = segments(&rig);
    let read_before = rig.read("t");
    assert_eq!(read_before["up"], wanted.iter().map(|(t, v)| (*t, v.to_bits())).collect::<Vec<_>>());
    let names = rig.world.disk.list(Path::new("/data/wal")).unwrap();
    assert!(names.iter().any(|n| n.starts_with("checkpoint-")), "{names:?}");
    rig.kill();
    assert_eq!(rig.read("t"), read_before);
    assert!(segments(&rig) <= before + 1);
    // What the checkpoint knew of `up` still holds.
    rig.push("t", "up", &[(rig.now() + 1, 5.0)]);
    rig.kill();
    assert_eq!(rig.read("t")["up"].len(), 601);
    // Series nobody writes to are forgotten once their samples are in blocks.
    assert!(rig.tsdb.head_stats().series < 21, "{}", rig.tsdb.head_stats().series);
}

#[test]
fn matchers_names_and_values_over_head_and_blocks() {
    let rig = Rig::new();
    rig.push("t", "in_block", &[(NOON, 1.0)]);
    rig.tsdb.cut(rig.now(), true).unwrap();
    rig.push("t", "in_head", &[(NOON + 1, 2.0)]);
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let context = Context::background();
    let request = |range| LabelRequest { range, matchers: vec![], limit: 0 };
    let all = request(TimeRange::ALL);
    assert_eq!(view.label_names(&all, &context).unwrap().values, ["__name__", "job"]);
    assert_eq!(view.label_values("__name__", &all, &context).unwrap().values, ["in_block", "in_head"]);
    let old = request(TimeRange::new(0, NOON - 3 * HOUR));
    assert!(view.label_values("__name__", &old, &context).unwrap().values.is_empty());
    let some = LabelRequest { matchers: vec![Matcher::equal("__name__", "in_head")], ..all.clone() };
    assert_eq!(view.label_values("job", &some, &context).unwrap().values, ["test"]);
    assert_eq!(view.time_range().unwrap(), TimeRange::new(NOON, NOON + 2 * HOUR - 1));

    let names = |samples: Samples| samples.into_keys().collect::<Vec<_>>();
    let regex = Matcher::new(model::MatchOp::Regex, "__name__", "in_.*").unwrap();
    assert_eq!(names(read(&rig.tsdb, "t", TimeRange::ALL, vec![regex])), ["in_block", "in_head"]);
    let mut request = SelectRequest::new(TimeRange::ALL, vec![]);
    request.limit = 1;
    request.skip_chunks = true;
    let (entries, notes) = collect(view.select(&request, &context).unwrap()).unwrap();
    assert_eq!(entries.len(), 1);
    assert!(entries[0].chunks.is_empty());
    assert_eq!(notes.warnings.len(), 1);
    // A budget that is too small is an error with the figures.
    let small = Context { budget: storage::Budget::new("--query.max-memory", 10), ..context };
    let request = SelectRequest::new(TimeRange::ALL, vec![]);
    assert_eq!(view.select(&request, &small).err().unwrap().kind, Kind::Exhausted);
}

#[test]
fn labels_alone_are_those_of_the_samples() {
    let rig = Rig::new();
    // Windows of the same series, some of which come and go, over several blocks and the head.
    for window in 0..5i64 {
        for series in 0..40i64 {
            if series < 30 || series % 5 == window {
                let t = NOON - (8 - 2 * window) * HOUR + series * MINUTE;
                rig.push("t", &format!("m{series:02}"), &[(t, 1.0), (t + 30_000, 2.0)]);
            }
        }
        if window < 4 {
            rig.tsdb.cut(rig.now(), true).unwrap();
        }
    }
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let context = Context::background();
    let labels = |request: &SelectRequest| -> Vec<Labels> {
        let (entries, _) = collect(view.select(request, &context).unwrap()).unwrap();
        entries.into_iter().map(|entry| entry.labels).collect()
    };
    for (start, end) in [
        (0, i64::MAX),
        (-8 * 60, -5 * 60),
        (-4 * 60 + 20, -4 * 60 + 25),
        (-90, 0),
        (10, 20),
        (-3 * 60, -3 * 60),
    ] {
        let range = TimeRange::new(
            if start == 0 { 0 } else { NOON + start * MINUTE },
            if end == i64::MAX { end } else { NOON + end * MINUTE },
        );
        for matchers in [vec![], vec![Matcher::new(model::MatchOp::Regex, "__name__", "m[13].").unwrap()]] {
            let full = SelectRequest::new(range, matchers);
            let alone = SelectRequest { skip_chunks: true, ..full.clone() };
            assert_eq!(labels(&alone), labels(&full), "{range:?}");
        }
    }
}

#[test]
fn a_damaged_block_is_skipped_and_an_unfinished_one_removed() {
    let mut rig = Rig::new();
    rig.push("t", "a", &[(NOON, 1.0)]);
    let one = rig.tsdb.cut(rig.now(), true).unwrap().remove(0);
    rig.push("t", "b", &[(NOON + 1, 2.0)]);
    rig.tsdb.cut(rig.now(), true).unwrap();
    let index = one.dir.join("index");
    rig.world.disk.open(&index).unwrap().set_len(30).unwrap();
    let unfinished = one.dir.with_file_name(format!("{}.tmp-for-creation", one.id));
    rig.world.disk.create_dir_all(&unfinished).unwrap();
    rig.kill();
    rig.expect("t", &[("b", &[(NOON + 1, 2.0)])]);
    assert!(rig.disk_has(&index));
    assert!(!rig.disk_has(&unfinished));
}

#[test]
fn folders_of_others_and_newer_versions_are_refused_untouched() {
    let cases: [&[&str]; 6] = [
        &["/data/data/small/parts.json", "/data/metadata/minTimestamp"],
        &["/data/wal/00000000", "/data/chunks_head/000001"],
        &["/data/tenant/wal/00000003"],
        &["/data/thanos.shipper.json"],
        &["/data/chunks_head/000001"],
        &["/data/wal/checkpoint.00000005/00000000"],
    ];
    for files in cases {
        let disk = MemDisk::new();
        let (world, _) = testkit::world(Arc::new(disk.clone()), NOON, 1);
        for file in files {
            let path = Path::new(file);
            world.disk.create_dir_all(path.parent().unwrap()).unwrap();
            world.disk.create(path).unwrap();
        }
        let before = world.disk.list(Path::new("/data")).unwrap();
        assert_eq!(tsdb::recognise(&world, Path::new("/data")).unwrap_err().kind, Kind::Refused);
        let error = Tsdb::open(world.clone(), settings()).err().unwrap();
        assert_eq!(error.kind, Kind::Refused, "{files:?}: {error}");
        assert!(error.message.contains("Use another folder"), "{error}");
        assert_eq!(world.disk.list(Path::new("/data")).unwrap(), before);
    }
    // A new disk, with what its file system and the other roles put there.
    let (world, _) = testkit::world(Arc::new(MemDisk::new()), NOON, 1);
    for beside in ["lost+found", "bucket", "store/meta-syncer", ".snapshot"] {
        world.disk.create_dir_all(&Path::new("/data").join(beside)).unwrap();
    }
    tsdb::recognise(&world, Path::new("/data")).unwrap();
    Tsdb::open(world, settings()).unwrap().close().unwrap();
    let rig = Rig::new();
    tsdb::recognise(&rig.world, Path::new("/data")).unwrap();
    tsdb::recognise(&rig.world, Path::new("/not/there")).unwrap();
    let path = Path::new("/data/tributary-tsdb.json");
    rig.world.disk.write_atomic(path, br#"{"version":2,"shards":2}"#).unwrap();
    let error = Tsdb::open(rig.world.clone(), settings()).err().unwrap();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("newer version"), "{error}");
}

#[test]
fn two_processes_cannot_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { dir: dir.path().to_owned(), ..settings() };
    let first = Tsdb::open(runtime::World::real(), settings.clone()).unwrap();
    let error = Tsdb::open(runtime::World::real(), settings.clone()).err().unwrap();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("in use by another process"), "{error}");
    first.close().unwrap();
    Tsdb::open(runtime::World::real(), settings).unwrap();
}

#[test]
fn many_small_tenants_cost_little_and_leave_nothing_when_they_end() {
    let mut rig = Rig::new();
    for n in 0..300 {
        let of = format!("tenant-{n}");
        assert_eq!(rig.push(&of, "up", &[(NOON, f64::from(n))]), [Stored]);
    }
    assert_eq!(rig.tsdb.tenants().len(), 300);
    assert!(rig.tsdb.head_stats().bytes < 300 * 1000);
    let day = NOON + 24 * HOUR;
    rig.clock.set(day);
    assert_eq!(rig.tsdb.cut(day, false).unwrap().len(), 300);
    assert_eq!(rig.tsdb.head_stats().series, 0, "idle series are forgotten");
    rig.expect("tenant-7", &[("up", &[(NOON, 7.0)])]);
    // One that comes back is welcome, and its old samples are still its own.
    rig.push("tenant-7", "up", &[(day, 8.0)]);
    rig.kill();
    rig.expect("tenant-7", &[("up", &[(NOON, 7.0), (day, 8.0)])]);
    assert_eq!(rig.tsdb.apply_retention(day + 30 * 24 * HOUR, &|_| true).unwrap(), 300);
    assert_eq!(rig.tsdb.tenants(), [tenant("tenant-7")]);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_keeps_reads() {
    let rig = Rig::new();
    rig.push("t", "up", &[(NOON, 1.0)]);
    rig.disk.set_capacity_limit(Some(1));
    let value = |i: i64| (NOON + i, i as f64);
    let mut stored = vec![value(0)];
    stored[0].1 = 1.0;
    let mut refused = 0;
    for i in 1..2000 {
        match rig.try_push("t", &[("up", &[value(i)])]) {
            Ok(_) => stored.push(value(i)),
            Err(error) => {
                assert!(error.contains("until the disk has room"), "{error}");
                refused += 1;
                break;
            }
        }
    }
    assert_eq!(refused, 1, "the log must meet the limit");
    assert!(matches!(rig.tsdb.health(), tsdb::Health::ReadOnly(_)));
    rig.expect("t", &[("up", &stored)]);
    rig.disk.set_capacity_limit(None);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    rig.push("t", "up", &[value(5000)]);
    stored.push(value(5000));
    rig.expect("t", &[("up", &stored)]);
    assert_eq!(rig.tsdb.health(), tsdb::Health::Good);
}

#[test]
fn a_series_without_labels_is_refused() {
    let rig = Rig::new();
    let labels = Labels::empty();
    let t = tenant("t");
    let mut batch = storage::WriteBatch::default();
    batch.push(
        labels.as_bytes(),
        labels.placement_hash("t"),
        [model::Sample { timestamp: NOON, value: 1.0 }],
    );
    let mut verdicts = [Stored];
    storage::Append::append(&*rig.tsdb, &t, &batch, &[0], NOON, &mut verdicts).unwrap();
    assert_eq!(verdicts, [Refused(InvalidLabels)]);
}

impl Rig {
    fn disk_has(&self, path: &Path) -> bool {
        self.world.disk.exists(path)
    }
}
