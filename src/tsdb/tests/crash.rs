//! The disk stops at any operation, loses what was not synced, and the engine starts again: what was
//! acknowledged is there exactly once, what was not at most once, and nothing that was never sent.

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use rig::{HOUR, MINUTE, NOON, Rig, Samples, read, settings, tenant};
use storage::Verdict;
use tsdb::Tsdb;

/// Every sample that was sent, and whether it was acknowledged.
type Ledger = BTreeMap<(String, i64), (u64, bool)>;

/// A day's work: appends over several windows, out-of-order ones, and cuts of both kinds. Stops at the first error.
fn work(rig: &Rig, ledger: &mut Ledger) -> Result<(), String> {
    for step in 0..36i64 {
        let now = NOON + step * 10 * MINUTE;
        rig.clock.set(now);
        let mut push = |series: &str, samples: &[(i64, f64)]| -> Result<(), String> {
            for (t, v) in samples {
                ledger.insert((series.to_owned(), *t), (v.to_bits(), false));
            }
            let verdicts = rig.try_push("t", &[(series, samples)])?;
            for ((t, _), verdict) in samples.iter().zip(verdicts) {
                if verdict == Verdict::Stored
                    && let Some(entry) = ledger.get_mut(&(series.to_owned(), *t))
                {
                    entry.1 = true;
                }
            }
            Ok(())
        };
        push("a", &[(now, step as f64), (now + 1, -step as f64)])?;
        push(&format!("churn{}", step / 7), &[(now, 0.5)])?;
        if step % 4 == 1 {
            push("a", &[(now - HOUR + 13, step as f64)])?;
        }
        if step % 12 == 11 {
            rig.tsdb.cut(now, step == 23).map_err(|e| e.to_string())?;
        }
    }
    rig.tsdb.cut(rig.now() + 10 * HOUR, false).map_err(|e| e.to_string())?;
    Ok(())
}

fn check(samples: &Samples, ledger: &Ledger, context: &str) {
    let mut found = BTreeMap::new();
    for (series, samples) in samples {
        for (t, bits) in samples {
            // `rig::read` has each time once; here each must be one that was sent, with its value.
            let sent = ledger.get(&(series.clone(), *t));
            assert_eq!(sent.map(|s| s.0), Some(*bits), "{context}: {series} at {t} was never sent so");
            found.insert((series.clone(), *t), ());
        }
    }
    for (key, (_, acked)) in ledger {
        assert!(!acked || found.contains_key(key), "{context}: acknowledged {key:?} is lost");
    }
}

/// Samples of all blocks and the head, counted without merging: a sample in both would show.
fn count_unmerged(tsdb: &Tsdb) -> u64 {
    let blocks: u64 = tsdb.local_blocks(&tenant("t")).iter().map(|b| b.meta.stats.num_samples).sum();
    blocks + tsdb.head_stats().samples
}

#[test]
fn acknowledged_samples_survive_a_crash_at_every_operation() {
    let mut total = 0;
    {
        let rig = Rig::new();
        let mut ledger = Ledger::new();
        work(&rig, &mut ledger).unwrap();
        assert!(ledger.values().all(|(_, acked)| *acked));
        assert!(rig.tsdb.local_blocks(&tenant("t")).len() >= 3);
        check(&rig.read("t"), &ledger, "undisturbed");
        total += rig.disk.ops();
    }
    assert!(total > 250, "{total} operations");
    let stride = std::env::var("CRASH_STRIDE").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let seeds: u64 = std::env::var("CRASH_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for k in (0..total).step_by(stride) {
        let mut rig = Rig::new();
        let mut ledger = Ledger::new();
        rig.disk.fail_after(k);
        let outcome = work(&rig, &mut ledger);
        let context = format!("crash after {k} of {total} operations ({outcome:?})");
        // Seed 0 forgets all that it may.
        crash(&mut rig, seeds * (k + 1));
        check(&rig.read("t"), &ledger, &context);
        let samples: usize = rig.read("t").values().map(Vec::len).sum();
        assert_eq!(count_unmerged(&rig.tsdb), samples as u64, "{context}: samples in both head and block");

        // It goes on as if nothing had been, and a resent batch is no harm.
        let t = NOON + 6 * HOUR;
        rig.clock.set(t);
        rig.push("t", "a", &[(t + 5, 1.0)]);
        ledger.insert(("a".to_owned(), t + 5), (1f64.to_bits(), true));
        rig.tsdb.cut(t, k % 2 == 0).unwrap();
        rig.kill();
        check(&rig.read("t"), &ledger, &context);
    }
}

/// The process is gone, and the disk is as a reboot finds it.
fn reboot(rig: &mut Rig, seed: u64) {
    let (elsewhere, _) = testkit::world(Arc::new(testkit::MemDisk::new()), NOON, 1);
    rig.tsdb = Tsdb::open(elsewhere, settings()).unwrap();
    rig.disk = rig.disk.crash(seed);
    rig.world = runtime::World { disk: Arc::new(rig.disk.clone()), ..rig.world.clone() };
}

/// Lets the process die with its memory and the disk forget, by a seed, what was not synced.
fn crash(rig: &mut Rig, seed: u64) {
    reboot(rig, seed);
    rig.tsdb = Tsdb::open(rig.world.clone(), rig.settings.clone()).unwrap_or_else(|error| {
        panic!("start after a crash with seed {seed}: {error}");
    });
}

#[test]
fn a_crash_while_starting_is_a_crash_like_any_other() {
    let mut rig = Rig::new();
    let mut ledger = Ledger::new();
    rig.disk.fail_after(260);
    let _ = work(&rig, &mut ledger);
    for k in 0..30 {
        reboot(&mut rig, k + 7);
        rig.disk.fail_after(k);
        let opened = Tsdb::open(rig.world.clone(), rig.settings.clone());
        if let Ok(tsdb) = opened {
            check(&read(&tsdb, "t", model::TimeRange::ALL, vec![]), &ledger, &format!("start {k}"));
        }
    }
    crash(&mut rig, 3);
    check(&rig.read("t"), &ledger, "at last");
}

#[test]
fn flipped_bits_of_the_log_are_refused_or_cost_only_its_unacknowledged_end() {
    let rig = Rig::new();
    let mut ledger = Ledger::new();
    work(&rig, &mut ledger).unwrap();
    rig.tsdb.close().unwrap();
    let disk = &rig.world.disk;
    let dir = std::path::Path::new("/data/wal");
    let (mut refused, mut read_on) = (0, 0);
    for name in disk.list(dir).unwrap() {
        let path = dir.join(&name);
        let len = disk.len(&path).unwrap();
        for at in (0..len).step_by(977) {
            let file = disk.open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            match Tsdb::open(rig.world.clone(), settings()) {
                Ok(tsdb) => {
                    for (series, samples) in read(&tsdb, "t", model::TimeRange::ALL, vec![]) {
                        for (t, bits) in samples {
                            assert_eq!(ledger[&(series.clone(), t)].0, bits, "{name} byte {at}");
                        }
                    }
                    read_on += 1;
                }
                Err(error) => {
                    assert!(matches!(error.kind, model::Kind::Corrupt | model::Kind::Refused), "{error}");
                    refused += 1;
                }
            }
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert!(refused > 0 && read_on > 0, "{refused} refused, {read_on} read on");
}

#[test]
fn a_block_that_was_returned_may_be_shipped_and_survives_any_crash() {
    for seed in 0..8 {
        let mut rig = Rig::new();
        rig.push("t", "a", &[(NOON, 1.0)]);
        let cut = rig.tsdb.cut(NOON, true).unwrap();
        crash(&mut rig, seed);
        let after: Vec<_> = rig.tsdb.local_blocks(&tenant("t")).iter().map(|b| b.id).collect();
        assert_eq!(after, [cut[0].id], "seed {seed}");
        assert_eq!(rig.tsdb.head_stats().samples, 0, "seed {seed}");
        rig.expect("t", &[("a", &[(NOON, 1.0)])]);
    }
}

#[test]
fn an_acknowledged_value_cannot_change_wherever_a_forced_cut_is_interrupted() {
    let mut whole = 0;
    for k in 0..200 {
        let mut rig = Rig::new();
        rig.disk.fail_after(k);
        // Several cuts, so that each finds what the one before it left.
        let steps = |rig: &Rig, acked: &mut Vec<i64>| -> Result<(), String> {
            for i in 0..3 {
                let t = NOON + i;
                rig.try_push("t", &[("a", &[(t, 1.0)])])?;
                acked.push(t);
                rig.tsdb.cut(NOON, true).map_err(|e| e.to_string())?;
            }
            Ok(())
        };
        let mut acked = Vec::new();
        let done = steps(&rig, &mut acked).is_ok();
        for round in 0..3 {
            crash(&mut rig, k + round);
            for &t in &acked {
                let verdicts = rig.push("t", "a", &[(t, 1.0), (t, 5.0)]);
                let wanted = [Verdict::Duplicate, Verdict::Refused(storage::Refusal::Conflict)];
                assert_eq!(verdicts, wanted, "{t}: crash after {k} operations, round {round}");
            }
            if round == 1 {
                rig.tsdb.cut(NOON, true).unwrap();
            }
        }
        whole += usize::from(done);
    }
    assert!((1..200).contains(&whole), "{whole} runs were not interrupted");
}

#[test]
fn what_is_not_durable_is_not_shown() {
    let mut rig = Rig::new();
    rig.push("t", "a", &[(NOON, 1.0)]);
    rig.disk.fail_after(0);
    rig.try_push("t", &[("a", &[(NOON + 1, 2.0)])]).unwrap_err();
    assert!(matches!(rig.tsdb.health(), tsdb::Health::Poisoned(_)));
    // The sample is in the head, its record is not on the disk: a read says so instead of showing it.
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let all = storage::SelectRequest::new(model::TimeRange::ALL, vec![]);
    let set = storage::Select::select(&*view, &all, &storage::Context::background());
    let error = set.and_then(storage::collect).unwrap_err();
    assert_eq!(error.kind, model::Kind::Unavailable);
    assert!(error.message.contains("the log has failed"), "{error}");
    drop(view);
    let again = rig.try_push("t", &[("a", &[(NOON + 2, 2.0)])]).unwrap_err();
    assert!(again.contains("the log has failed"), "{again}");
    crash(&mut rig, 0);
    rig.expect("t", &[("a", &[(NOON, 1.0)])]);
}

#[test]
fn a_cut_that_fails_leaves_everything_as_it_was_and_can_be_repeated() {
    let mut rig = Rig::new();
    let samples: Vec<(i64, f64)> = (0..200).map(|i| (NOON + i * 30_000, i as f64)).collect();
    rig.clock.set(NOON + HOUR + 50 * MINUTE);
    rig.push("t", "a", &samples[..150]);
    rig.disk.set_capacity_limit(Some(1));
    for _ in 0..2 {
        assert!(rig.tsdb.cut(NOON, true).is_err());
        rig.expect("t", &[("a", &samples[..150])]);
        assert!(rig.tsdb.local_blocks(&tenant("t")).is_empty());
    }
    // Writes go on meanwhile, into the same window.
    rig.push("t", "a", &samples[150..180]);
    rig.disk.set_capacity_limit(None);
    assert_eq!(rig.tsdb.cut(NOON, true).unwrap().len(), 1);
    rig.push("t", "a", &samples[180..]);
    for _ in 0..2 {
        rig.expect("t", &[("a", &samples)]);
        assert_eq!(rig.tsdb.head_stats().samples, 20);
        assert_eq!(count_unmerged(&rig.tsdb), 200);
        rig.kill();
    }
    let left = rig.world.disk.list(std::path::Path::new("/data/blocks/t")).unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}
