//! Many at once: writers, readers and the cut together; a sample is never missing once it was acknowledged, and
//! never there twice.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use rig::{HOUR, MINUTE, NOON, Rig};

#[test]
fn readers_see_every_acknowledged_sample_while_blocks_are_cut() {
    let rig = Arc::new(Rig::new());
    let stop = Arc::new(AtomicBool::new(false));
    let series: Vec<(String, Arc<AtomicI64>)> =
        (0..3).map(|n| (format!("s{n}"), Arc::new(AtomicI64::new(-1)))).collect();
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (name, acked) in &series {
            let rig = &rig;
            writers.push(scope.spawn(move || {
                for i in 0..400i64 {
                    let t = NOON - 40 * HOUR + i * 6 * MINUTE;
                    let verdicts = rig.push("t", name, &[(t, i as f64)]);
                    assert!(verdicts[0].is_success(), "{name} {i}: {verdicts:?}");
                    acked.store(i, SeqCst);
                }
            }));
        }
        for _ in 0..2 {
            let (rig, series, stop) = (&rig, &series, &stop);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let acked: Vec<i64> = series.iter().map(|(_, acked)| acked.load(SeqCst)).collect();
                    let read = rig.read("t");
                    for ((name, _), acked) in series.iter().zip(acked) {
                        let samples = read.get(name).map_or(&[][..], Vec::as_slice);
                        assert!(
                            samples.len() as i64 > acked,
                            "{name}: {} read, {acked} acked",
                            samples.len()
                        );
                        for (i, (t, bits)) in samples.iter().enumerate() {
                            let wanted = (NOON - 40 * HOUR + i as i64 * 6 * MINUTE, (i as f64).to_bits());
                            assert_eq!((*t, *bits), wanted, "{name}");
                        }
                    }
                }
            });
        }
        let (rig, stop) = (&rig, &stop);
        scope.spawn(move || {
            let mut force = false;
            while !stop.load(SeqCst) {
                rig.tsdb.cut(rig.now(), force).unwrap();
                force = !force;
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        });
        // Those who loop are stopped even where a writer failed, so that the failure is seen.
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, SeqCst);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    assert!(rig.tsdb.local_blocks(&rig::tenant("t")).len() > 3);
    assert_eq!(rig.read("t")["s0"].len(), 400);
}
