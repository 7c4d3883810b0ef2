//! Short of memory: new series are put off first, then everything; nothing is lost, and it ends.

mod rig;

use model::Kind;
use rig::{NOON, Rig, tenant};
use storage::Append;
use storage::Verdict::{Stored, Unavailable};
use tsdb::Pressure;

#[test]
fn new_series_are_put_off_first_and_all_writes_before_memory_runs_out() {
    let rig = Rig::new();
    assert_eq!(rig.push("t", "old", &[(NOON, 1.0)]), [Stored]);
    rig.tsdb.set_pressure(Pressure::NewSeries);
    let rows: [(&str, &[(i64, f64)]); 2] = [("old", &[(NOON + 1, 1.0)]), ("new", &[(NOON + 1, 1.0)])];
    assert_eq!(rig.try_push("t", &rows).unwrap(), [Stored, Unavailable]);
    rig.tsdb.set_pressure(Pressure::All);
    let (batch, all) = rig::batch(&tenant("t"), &[("old", &[(NOON + 2, 1.0)])]);
    let refused = rig.tsdb.append(&tenant("t"), &batch, &all, rig.now(), &mut [Unavailable]).unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert_eq!(rig.read("t").len(), 1, "reads go on");
    rig.tsdb.set_pressure(Pressure::None);
    assert_eq!(rig.try_push("t", &rows).unwrap(), [storage::Verdict::Duplicate, Stored]);
    rig.expect("t", &[("new", &[(NOON + 1, 1.0)]), ("old", &[(NOON, 1.0), (NOON + 1, 1.0)])]);
}

#[test]
fn cuts_of_tenants_are_spread_over_the_jitter() {
    let rig = Rig::with(tsdb::Settings { cut_jitter: 10 * rig::MINUTE, ..rig::settings() });
    for n in 0..40 {
        rig.push(&format!("t{n}"), "up", &[(NOON, 1.0)]);
    }
    rig.clock.advance(4 * rig::HOUR);
    let mut cuts = Vec::new();
    for _ in 0..12 {
        cuts.push(rig.tsdb.cut(rig.now(), false).unwrap().len());
        rig.clock.advance(rig::MINUTE);
    }
    assert_eq!(cuts.iter().sum::<usize>(), 40, "{cuts:?}");
    assert!(cuts.iter().all(|n| *n <= 15) && cuts[11] == 0, "{cuts:?}");
}
