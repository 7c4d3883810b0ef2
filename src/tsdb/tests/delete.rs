//! Deleting series and tenants: gone from head and blocks, gone after a kill, and what comes later is taken.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use model::{Matcher, TimeRange};
use rig::{HOUR, MINUTE, NOON, Rig, tenant};
use storage::Verdict::{Duplicate, Stored};

fn named(name: &str) -> Vec<Vec<Matcher>> {
    vec![vec![Matcher::equal("__name__", name)]]
}

/// Two series of 199 samples, one every 36 s from two hours before noon, and a late one.
fn fill(rig: &Rig) -> Vec<(i64, f64)> {
    let mut samples: Vec<(i64, f64)> = (0..199).map(|i| (NOON - 2 * HOUR + i * 36_000, i as f64)).collect();
    for series in ["a", "b"] {
        assert!(rig.push("t", series, &samples).iter().all(|v| *v == Stored));
        assert_eq!(rig.push("t", series, &[(NOON - HOUR + 1, 0.5)]), [Stored]);
    }
    samples.push((NOON - HOUR + 1, 0.5));
    samples.sort_by_key(|(t, _)| *t);
    samples
}

#[test]
fn a_deleted_range_is_gone_from_head_and_blocks_and_stays_gone() {
    for cut_first in [false, true] {
        let mut rig = Rig::new();
        let all = fill(&rig);
        rig.clock.advance(2 * HOUR);
        if cut_first {
            rig.tsdb.cut(rig.now(), true).unwrap();
        }
        let gone = TimeRange::new(NOON - 90 * MINUTE, NOON - 10 * MINUTE);
        let deleted = rig.tsdb.delete_series(&tenant("t"), &named("a"), gone).unwrap();
        assert_eq!(deleted.blocks.len(), usize::from(cut_first));
        let left: Vec<(i64, f64)> = all.iter().copied().filter(|(t, _)| !gone.contains(*t)).collect();
        assert!(left.len() < all.len() - 100);
        let wanted: &[(&str, &[(i64, f64)])] = &[("a", &left), ("b", &all)];
        rig.expect("t", wanted);
        rig.kill();
        rig.expect("t", wanted);
        // It holds on its way into a block, and in one that is written anew.
        rig.tsdb.cut(rig.now(), true).unwrap();
        rig.expect("t", wanted);
        let cleaned = rig.tsdb.clean_tombstones(&|_| false).unwrap();
        assert_eq!(cleaned.rewritten.len(), usize::from(cut_first));
        rig.expect("t", wanted);
        rig.kill();
        rig.expect("t", wanted);
    }
}

#[test]
fn what_comes_after_a_deletion_is_taken_also_at_the_same_times() {
    let mut rig = Rig::new();
    assert_eq!(rig.push("t", "a", &[(NOON, 1.0), (NOON + 1, 2.0)]), [Stored, Stored]);
    let deleted = rig.tsdb.delete_series(&tenant("t"), &named("a"), TimeRange::ALL).unwrap();
    assert_eq!(deleted.series, 1);
    assert!(rig.read("t").is_empty());
    let verdicts = rig.push("t", "a", &[(NOON, 9.0), (NOON + 1, 2.0), (NOON + 2, 3.0), (NOON + 2, 3.0)]);
    assert_eq!(verdicts, [Stored, Stored, Stored, Duplicate]);
    for _ in 0..2 {
        rig.expect("t", &[("a", &[(NOON, 9.0), (NOON + 1, 2.0), (NOON + 2, 3.0)])]);
        rig.kill();
    }
    // Samples that were cut and are still known by their times are forgotten, too.
    rig.tsdb.cut(rig.now(), true).unwrap();
    rig.tsdb.delete_series(&tenant("t"), &named("a"), TimeRange::ALL).unwrap();
    assert_eq!(rig.push("t", "a", &[(NOON + 2, 3.5)]), [Stored]);
    rig.expect("t", &[("a", &[(NOON + 2, 3.5)])]);
}

#[test]
fn shipped_blocks_keep_their_note_and_nobody_else_is_touched() {
    let rig = Rig::new();
    fill(&rig);
    rig.push("other", "a", &[(NOON, 1.0)]);
    rig.clock.advance(2 * HOUR);
    rig.tsdb.cut(rig.now(), true).unwrap();
    rig.tsdb.delete_series(&tenant("t"), &[vec![]], TimeRange::ALL).unwrap();
    let cleaned = rig.tsdb.clean_tombstones(&|_| true).unwrap();
    assert!(cleaned.rewritten.is_empty() && !cleaned.left.is_empty());
    assert!(rig.read("t").is_empty());
    rig.expect("other", &[("a", &[(NOON, 1.0)])]);
    let cleaned = rig.tsdb.clean_tombstones(&|_| false).unwrap();
    assert!(!cleaned.rewritten.is_empty());
    assert!(rig.tsdb.local_blocks(&tenant("t")).is_empty(), "blocks of which nothing is left are gone");
}

#[test]
fn a_removed_tenant_is_gone_with_its_folder_and_can_come_back() {
    let mut rig = Rig::new();
    fill(&rig);
    rig.push("other", "a", &[(NOON, 1.0)]);
    rig.tsdb.cut(rig.now(), true).unwrap();
    rig.push("t", "c", &[(NOON, 1.0)]);
    let folder = std::path::Path::new("/data/blocks/t");
    assert!(rig.world.disk.exists(folder));
    let removed = rig.tsdb.remove_tenant(&tenant("t")).unwrap();
    assert!(!removed.blocks.is_empty());
    assert!(!rig.world.disk.exists(folder));
    assert_eq!(rig.tsdb.tenants(), [tenant("other")]);
    assert_eq!(rig.tsdb.head_stats().series, 1);
    rig.kill();
    assert!(rig.read("t").is_empty());
    rig.expect("other", &[("a", &[(NOON, 1.0)])]);
    assert_eq!(rig.push("t", "c", &[(NOON, 2.0)]), [Stored]);
    rig.expect("t", &[("c", &[(NOON, 2.0)])]);
}

#[test]
fn an_idle_tenant_disappears_and_a_write_during_the_prune_succeeds_t14() {
    let rig = Rig::new();
    for n in 0..50 {
        rig.push(&format!("idle-{n}"), "up", &[(NOON, 1.0)]);
    }
    rig.push("busy", "up", &[(NOON, 1.0)]);
    assert!(rig.tsdb.prune_tenants().is_empty(), "they have samples");
    // A day later all is in blocks, uploaded, and past the retention.
    rig.clock.advance(24 * HOUR);
    rig.tsdb.cut(rig.now(), false).unwrap();
    rig.clock.advance(20 * 24 * HOUR);
    rig.push("busy", "up", &[(rig.now(), 2.0)]);
    rig.tsdb.cut(rig.now(), false).unwrap();
    rig.tsdb.apply_retention(rig.now(), &|_| true).unwrap();
    let gone = rig.tsdb.prune_tenants();
    assert_eq!(gone.len(), 50, "{gone:?}");
    assert_eq!(rig.tsdb.tenants(), [tenant("busy")]);
    assert!(!rig.world.disk.exists(std::path::Path::new("/data/blocks/idle-7")));
    assert!(rig.world.disk.exists(std::path::Path::new("/data/blocks/busy")));

    // Writers come back while tenants are pruned over and over: what is acknowledged can be read.
    let (rig, stop) = (Arc::new(rig), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            while !stop.load(SeqCst) {
                rig.tsdb.prune_tenants();
            }
        });
        for n in 0..200 {
            let name = format!("back-{n}");
            assert_eq!(rig.push(&name, "up", &[(rig.now(), 1.0)]), [Stored]);
            assert_eq!(rig.read(&name)["up"].len(), 1, "{name}");
            // One whose samples were all refused is nobody.
            rig.push(&format!("refused-{n}"), "up", &[(0, 1.0)]);
        }
        stop.store(true, SeqCst);
        pruner.join().unwrap();
    });
    rig.tsdb.prune_tenants();
    assert_eq!(rig.tsdb.tenants().len(), 201);
}
