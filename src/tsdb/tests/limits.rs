//! Limits where the series live: existing ones always pass, new ones are refused alone, and room comes back.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use model::stale_nan;
use rig::{HOUR, MINUTE, NOON, Rig, limits, settings, tenant};
use storage::Refusal::{LabelLimit, MetricSeriesLimit, NewSeriesRate, SeriesLimit, TooOld};
use storage::Verdict::{self, Refused, Stored};
use storage::{Append, LimitsOf, TenantLimits, WriteBatch};
use tsdb::Settings;

/// Appends one sample each of series with one metric name and an own label.
fn push_pods(rig: &Rig, metric: &str, pods: std::ops::Range<u32>, t: i64, value: f64) -> Vec<Verdict> {
    let tenant = tenant("t");
    let mut batch = WriteBatch::default();
    for pod in pods.clone() {
        let labels =
            model::Labels::from_pairs([("__name__", metric), ("pod", &format!("{pod:06}"))]).unwrap();
        let sample = model::Sample { timestamp: t, value };
        batch.push(labels.as_bytes(), labels.placement_hash("t"), [sample]);
    }
    let rows: Vec<u32> = (0..pods.len() as u32).collect();
    let mut verdicts = vec![Verdict::Unavailable; pods.len()];
    rig.tsdb.append(&tenant, &batch, &rows, rig.now(), &mut verdicts).unwrap();
    verdicts
}

fn count(verdicts: &[Verdict], of: Verdict) -> usize {
    verdicts.iter().filter(|v| **v == of).count()
}

#[test]
fn over_its_series_limit_a_tenant_keeps_its_series_and_recovers_when_churn_stops_t15() {
    let rig = Rig::with(Settings { limits: Some(limits(|l| l.series = 100)), ..settings() });
    let mut steady = 0;
    let mut refused = 0;
    // Half of the limit is steady; every round a deployment replaces 20 pods, which end with stale markers.
    for round in 0..30u32 {
        rig.clock.advance(15_000);
        let now = rig.now();
        rig.tsdb.count_active(now, false);
        let verdicts = push_pods(&rig, "steady", 0..50, now, f64::from(round));
        assert_eq!(count(&verdicts, Stored), 50, "existing series are lossless: round {round}");
        steady += 50;
        let verdicts = push_pods(&rig, "churn", round * 40..round * 40 + 40, now, 1.0);
        refused += count(&verdicts, Refused(SeriesLimit));
        assert_eq!(count(&verdicts, Stored) + count(&verdicts, Refused(SeriesLimit)), 40);
        if round % 2 == 1 {
            push_pods(&rig, "churn", (round - 1) * 40..round * 40, now + 1, stale_nan());
        }
    }
    assert!(refused > 100, "the limit was met: {refused}");
    assert!(rig.tsdb.active_series(&tenant("t")) <= 100);
    // Churn stops, its last series end, and within a minute there is room for new ones again.
    push_pods(&rig, "churn", 0..30 * 40, rig.now() + 2, stale_nan());
    for _ in 0..4 {
        rig.clock.advance(15_000);
        rig.tsdb.count_active(rig.now(), false);
    }
    assert_eq!(count(&push_pods(&rig, "fresh", 0..50, rig.now(), 1.0), Stored), 50);
    assert_eq!(count(&push_pods(&rig, "more", 0..10, rig.now(), 1.0), Refused(SeriesLimit)), 10);
    let read = rig::read(
        &rig.tsdb,
        "t",
        model::TimeRange::ALL,
        vec![model::Matcher::equal("__name__", "steady"), model::Matcher::equal("pod", "000000")],
    );
    assert_eq!(read["steady"].len(), steady / 50);
}

#[test]
fn series_that_went_without_a_word_stop_counting_after_the_activity_window() {
    let rig = Rig::with(Settings { limits: Some(limits(|l| l.series = 10)), ..settings() });
    push_pods(&rig, "m", 0..10, NOON, 1.0);
    let full = |rig: &Rig| count(&push_pods(rig, "m", 10..11, rig.now(), 1.0), Refused(SeriesLimit)) == 1;
    rig.tsdb.count_active(rig.now(), false);
    assert!(full(&rig));
    rig.clock.advance(9 * MINUTE);
    push_pods(&rig, "m", 0..5, rig.now(), 1.0);
    rig.clock.advance(2 * MINUTE);
    assert!(full(&rig), "nobody has counted yet");
    rig.tsdb.count_active(rig.now(), false);
    assert_eq!(rig.tsdb.active_series(&tenant("t")), 5);
    assert!(!full(&rig));
    // An idle series that goes on is an existing one.
    assert_eq!(count(&push_pods(&rig, "m", 5..10, rig.now(), 2.0), Stored), 5);
}

#[test]
fn one_metric_cannot_take_all_and_its_limit_can_come_and_go() {
    let most = Arc::new(AtomicU64::new(0));
    let asked = most.clone();
    let of = LimitsOf(Arc::new(move |_| TenantLimits {
        series_per_metric: asked.load(SeqCst),
        ..TenantLimits::default()
    }));
    let rig = Rig::with(Settings { limits: Some(of), ..settings() });
    assert_eq!(count(&push_pods(&rig, "a", 0..30, NOON, 1.0), Stored), 30);
    most.store(20, SeqCst);
    rig.tsdb.reload_limits(rig.now());
    assert_eq!(count(&push_pods(&rig, "a", 0..40, NOON + 1, 1.0), Refused(MetricSeriesLimit)), 10);
    assert_eq!(count(&push_pods(&rig, "b", 0..30, NOON, 1.0), Stored), 20);
    most.store(0, SeqCst);
    rig.tsdb.reload_limits(rig.now());
    assert_eq!(count(&push_pods(&rig, "a", 0..40, NOON + 2, 1.0), Stored), 40);
}

#[test]
fn new_series_come_at_their_rate_and_a_restart_counts_what_is_there() {
    let mut rig = Rig::with(Settings { limits: Some(limits(|l| l.new_series_per_second = 2)), ..settings() });
    assert_eq!(count(&push_pods(&rig, "m", 0..20, NOON, 1.0), Stored), 20);
    assert_eq!(count(&push_pods(&rig, "m", 20..30, NOON, 1.0), Refused(NewSeriesRate)), 10);
    assert_eq!(count(&push_pods(&rig, "m", 0..20, NOON + 1, 1.0), Stored), 20);
    rig.clock.advance(3000);
    assert_eq!(count(&push_pods(&rig, "m", 20..30, rig.now(), 1.0), Stored), 6);
    rig.push("t", "end", &[]);
    rig.kill();
    rig.tsdb.count_active(rig.now(), true);
    assert_eq!(rig.tsdb.active_series(&tenant("t")), 26);
}

#[test]
fn labels_and_times_can_be_narrower_for_a_tenant() {
    let of = limits(|l| {
        l.label_value_bytes = 8;
        l.out_of_order_window = Some(10 * MINUTE);
    });
    let rig = Rig::with(Settings { limits: Some(of), ..settings() });
    let rows: [(&str, &[(i64, f64)]); 2] = [("short", &[(NOON, 1.0)]), ("much_too_long", &[(NOON, 1.0)])];
    assert_eq!(rig.try_push("t", &rows).unwrap(), [Stored, Refused(LabelLimit)]);
    assert_eq!(rig.push("t", "short", &[(NOON - 10 * MINUTE, 1.0)]), [Stored]);
    assert_eq!(rig.push("t", "short", &[(NOON - HOUR, 1.0)]), [Refused(TooOld)]);
}
