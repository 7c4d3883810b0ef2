//! A day's work is recorded once; then the machine stops after each of its operations, many times over, each time losing
//! other parts of what was not synced. The engine starts again, and what was acknowledged is there exactly once.

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use rig::{HOUR, MINUTE, NOON, Rig, Samples, read, settings, tenant};
use runtime::World;
use storage::Verdict;
use testkit::{MemDisk, Replay};
use tsdb::{Settings, Tsdb};

/// Stops in one run of the tests; `CRASH_CUTS` asks for more.
const CUTS: usize = 13_000;

/// What became of a sample, by the number of operations that the disk had done.
struct Sent {
    bits: u64,
    at: usize,
    acked: Option<usize>,
    /// From here on retention may have taken it.
    expired: Option<usize>,
}

type Ledger = BTreeMap<(String, i64), Sent>;

fn wanted() -> Settings {
    Settings { retention: 5 * HOUR, ..settings() }
}

/// Appends in order, late and twice, cuts of both kinds, checkpoints and retention: six windows of time.
fn work(rig: &Rig) -> Ledger {
    let mut ledger = Ledger::new();
    let mut push = |series: &str, samples: &[(i64, f64)]| {
        let at = rig.disk.recorded();
        for (t, v) in samples {
            let new = Sent { bits: v.to_bits(), at, acked: None, expired: None };
            ledger.entry((series.to_owned(), *t)).or_insert(new);
        }
        let verdicts = rig.push("t", series, samples);
        let done = rig.disk.recorded();
        for ((t, _), verdict) in samples.iter().zip(verdicts) {
            let entry = ledger.get_mut(&(series.to_owned(), *t)).unwrap();
            if matches!(verdict, Verdict::Stored | Verdict::Duplicate) {
                entry.acked.get_or_insert(done);
            }
        }
    };
    let mut expiries = Vec::new();
    for step in 0..48i64 {
        let now = NOON + step * 15 * MINUTE;
        rig.clock.set(now);
        push("a", &[(now, step as f64), (now + 1, -step as f64)]);
        push(&format!("churn{}", step / 7), &[(now, 0.5), (now + 2, 0.25)]);
        if step % 4 == 1 {
            push("a", &[(now - HOUR + 13, step as f64), (now, step as f64)]);
        }
        if step % 8 == 7 {
            rig.tsdb.cut(now, step % 16 == 7).unwrap();
            expiries.push((rig.disk.recorded(), now - rig.settings.retention));
            rig.tsdb.apply_retention(now, &|_| true).unwrap();
        }
    }
    rig.tsdb.cut(rig.now() + 10 * HOUR, false).unwrap();
    for ((_, t), sent) in &mut ledger {
        sent.expired = expiries.iter().find(|(_, oldest)| t < oldest).map(|(at, _)| *at);
    }
    ledger
}

fn check(found: &Samples, ledger: &Ledger, cut: usize, context: &dyn Fn() -> String) {
    let mut seen = 0;
    for ((series, t), sent) in ledger {
        let bits = found.get(series).and_then(|samples| {
            let at = samples.binary_search_by_key(t, |(t, _)| *t).ok()?;
            Some(samples[at].1)
        });
        seen += usize::from(bits.is_some());
        match bits {
            Some(bits) => assert!(
                bits == sent.bits && sent.at <= cut,
                "{}: {series} at {t} was not sent so, or not yet",
                context()
            ),
            None => assert!(
                sent.acked.is_none_or(|at| at > cut) || sent.expired.is_some_and(|at| at <= cut),
                "{}: acknowledged {series} at {t} is lost",
                context()
            ),
        }
    }
    assert_eq!(seen, found.values().map(Vec::len).sum::<usize>(), "{}: samples nobody sent", context());
}

fn start(disk: &MemDisk) -> (World, Arc<Tsdb>) {
    let (world, _) = testkit::world(Arc::new(disk.clone()), NOON + 12 * HOUR, 1);
    let tsdb = Tsdb::open(world.clone(), wanted()).unwrap_or_else(|error| panic!("start: {error}"));
    (world, tsdb)
}

/// Each sample is in the head or in one block: counted without merging.
fn count_unmerged(tsdb: &Tsdb) -> usize {
    let blocks: u64 = tsdb.local_blocks(&tenant("t")).iter().map(|b| b.meta.stats.num_samples).sum();
    (blocks + tsdb.head_stats().samples) as usize
}

/// One stop: start, read, and with some seeds go on, stop in the middle of that, and start once more.
fn stop(replay: &Replay, ledger: &Ledger, seed: u64) -> usize {
    let cut = replay.done();
    let context = || format!("stopped before operation {cut} ({}), seed {seed}", replay.next());
    let everything = |tsdb: &Tsdb| {
        let found = read(tsdb, "t", model::TimeRange::ALL, vec![]);
        check(&found, ledger, cut, &context);
        let samples: usize = found.values().map(Vec::len).sum();
        assert_eq!(count_unmerged(tsdb), samples, "{}: samples in both head and block", context());
    };
    let disk = replay.crash(seed);
    let (_, tsdb) = start(&disk);
    everything(&tsdb);
    if seed % 8 != 5 {
        return 1;
    }
    // A cut of all that there is, stopped somewhere; nothing new, so that the ledger stays true.
    disk.fail_after(seed % 41);
    let _ = tsdb.cut(NOON + 12 * HOUR, true);
    drop(tsdb);
    let disk = disk.crash(seed / 3);
    // And a start that is stopped itself.
    disk.fail_after(seed % 13);
    let (world, _) = testkit::world(Arc::new(disk.clone()), NOON + 12 * HOUR, 1);
    if let Ok(tsdb) = Tsdb::open(world, wanted()) {
        everything(&tsdb);
    }
    let (_, tsdb) = start(&disk.crash(seed / 5));
    everything(&tsdb);
    3
}

#[test]
fn acknowledged_samples_are_there_once_wherever_the_machine_stops() {
    let wanted_cuts = std::env::var("CRASH_CUTS").ok().and_then(|s| s.parse().ok()).unwrap_or(CUTS);
    let disk = MemDisk::new();
    disk.record();
    let rig = Rig::on(disk, wanted());
    let ledger = work(&rig);
    assert!(ledger.values().all(|sent| sent.acked.is_some()));
    let total = Replay::of(&rig.disk).len();
    assert!(total > 350 && ledger.values().any(|sent| sent.expired.is_some()), "{total} operations");
    assert!(rig.tsdb.local_blocks(&tenant("t")).len() >= 3);
    let per_cut = wanted_cuts.div_ceil(total + 1) as u64;
    const THREADS: usize = 2;
    let cuts: usize = std::thread::scope(|scope| {
        let run = |thread: usize| {
            let (mut replay, ledger) = (Replay::of(&rig.disk), &ledger);
            scope.spawn(move || {
                let mut cuts = 0;
                loop {
                    if replay.done() % THREADS == thread {
                        let of = replay.done() as u64 * per_cut;
                        // Seed 0 forgets all that it may.
                        cuts += stop(&replay, ledger, 0);
                        cuts += (1..per_cut).map(|n| stop(&replay, ledger, of + n)).sum::<usize>();
                    }
                    if !replay.step().unwrap() {
                        return cuts;
                    }
                }
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{cuts} stops over {total} operations");
    assert!(cuts >= wanted_cuts, "{cuts} stops");
}

#[test]
fn a_sync_that_failed_once_is_never_believed_again() {
    let mut failed = 0;
    for n in 0..140 {
        let disk = MemDisk::new();
        let rig = Rig::on(disk.clone(), wanted());
        disk.fail_sync_after(n);
        let mut acked = Vec::new();
        let mut refused = 0;
        for i in 0..90i64 {
            let t = NOON + i;
            match rig.try_push("t", &[("a", &[(t, i as f64)])]) {
                Ok(verdicts) if verdicts == [Verdict::Stored] => acked.push((t, (i as f64).to_bits())),
                Ok(verdicts) => panic!("{verdicts:?}"),
                Err(_) => refused += 1,
            }
            if i % 30 == 29 {
                let _ = rig.tsdb.cut(NOON, true);
            }
        }
        let more = rig.try_push("t", &[("a", &[(NOON + 90, 0.0)])]);
        let poisoned = matches!(rig.tsdb.health(), tsdb::Health::Poisoned(_));
        assert_eq!(more.is_err(), poisoned, "sync {n}: {refused} of 90 writes had failed before");
        assert!(poisoned || refused == 0, "sync {n}: {refused} writes failed, and the log goes on");
        failed += usize::from(poisoned);
        drop(rig);
        for seed in [0, n + 1] {
            let (_, tsdb) = start(&disk.crash(seed));
            let found = read(&tsdb, "t", model::TimeRange::ALL, vec![]);
            let found = found.get("a").cloned().unwrap_or_default();
            for sample in &acked {
                assert!(found.contains(sample), "sync {n} failed: acknowledged {sample:?} is lost");
            }
            assert_eq!(count_unmerged(&tsdb), found.len(), "sync {n}");
        }
    }
    assert!(failed > 60, "{failed} syncs of the log failed");
}
