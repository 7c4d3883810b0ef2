//! Series that come and go: what they took is used again, and nobody is taken for somebody who was there before.

mod rig;

use model::{Labels, Sample, TimeRange};
use rig::{HOUR, Rig, tenant};
use storage::{Append, Columns, Context, Select, SelectRequest, Verdict, WriteBatch, decode_series};

/// Series per generation.
const SERIES: usize = 400;

fn labels(generation: i64, n: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", n % 40)),
        ("job", "api".to_owned()),
        ("pod", format!("api-{generation:08}-{}", n / 40)),
        ("request_of_this_pod_only", format!("{generation}-{n}")),
    ])
    .unwrap()
}

fn push(rig: &Rig, generation: i64, from: i64) {
    for scrape in 0..3 {
        let mut batch = WriteBatch::default();
        for n in 0..SERIES {
            let labels = labels(generation, n);
            let sample = Sample { timestamp: from + scrape * 60_000, value: n as f64 + scrape as f64 };
            batch.push(labels.as_bytes(), labels.placement_hash("t"), [sample]);
        }
        let rows: Vec<u32> = (0..SERIES as u32).collect();
        let mut verdicts = vec![Verdict::Unavailable; SERIES];
        rig.tsdb.append(&tenant("t"), &batch, &rows, rig.now(), &mut verdicts).unwrap();
        assert!(verdicts.iter().all(|v| *v == Verdict::Stored));
    }
}

#[test]
fn generations_of_series_leave_no_memory_behind_and_keep_their_samples() {
    let mut rig = Rig::new();
    let memory = |rig: &Rig| -> Vec<(&str, u64)> {
        // Slabs keep a spare block; what is in use of them counts.
        rig.tsdb.head_memory().into_iter().filter(|(part, _)| !part.ends_with("idle")).collect()
    };
    let mut most = Vec::new();
    for generation in 0..30 {
        push(&rig, generation, rig.now());
        rig.clock.advance(2 * HOUR);
        rig.tsdb.cut(rig.now(), false).unwrap();
        if generation == 17 {
            rig.kill();
        }
        let now = memory(&rig);
        // Windows are cut two hours after their end, series forgotten an hour later: four generations at once.
        let series = rig.tsdb.head_stats().series;
        assert!(series <= 4 * SERIES as u64, "{series} series in generation {generation}");
        match generation {
            8 => most = now,
            9.. => {
                for ((part, bytes), (_, before)) in now.iter().zip(&most) {
                    // A page more or less of either shard; what is never freed would take far more by the end.
                    let most = before + before / 4 + 2 * (32 << 10);
                    assert!(*bytes <= most, "{part}: {bytes} after {before}, {generation}");
                }
            }
            _ => {}
        }
    }
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let mut set = view.select(&SelectRequest::new(TimeRange::ALL, vec![]), &Context::background()).unwrap();
    let (mut series, mut columns) = (0, Columns::default());
    while let Some(entry) = set.next().unwrap() {
        columns.clear();
        decode_series(&entry.chunks, TimeRange::ALL, &mut columns).unwrap();
        let n: usize =
            entry.labels.value("request_of_this_pod_only").split_once('-').unwrap().1.parse().unwrap();
        let pod = entry.labels.value("pod");
        assert_eq!(entry.labels, labels(pod.split('-').nth(1).unwrap().parse().unwrap(), n));
        assert_eq!(columns.values, [n as f64, n as f64 + 1.0, n as f64 + 2.0], "{}", entry.labels);
        series += 1;
    }
    assert_eq!(series, 30 * SERIES);
}
