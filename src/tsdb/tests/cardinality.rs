//! What the head's series are made of, against a count by hand; more values than one hold of a lock reads.

mod rig;

use std::collections::BTreeMap;

use model::Labels;
use rig::{NOON, Rig, tenant};
use storage::{Append, Cancel, Verdict, WriteBatch};

#[test]
fn figures_agree_with_a_count_by_hand() {
    let rig = Rig::new();
    let mut batch = WriteBatch::default();
    let mut pairs: BTreeMap<(String, String), u64> = BTreeMap::new();
    for i in 0..3000u32 {
        let name = if i % 10 == 0 { "rare" } else { "common" };
        let of = [("__name__", name.to_owned()), ("id", format!("{i:05}")), ("job", format!("j{}", i % 3))];
        for (name, value) in &of {
            *pairs.entry(((*name).to_owned(), value.clone())).or_default() += 1;
        }
        let labels = Labels::from_pairs(of.iter().map(|(n, v)| (*n, v.as_str()))).unwrap();
        let samples = [model::Sample { timestamp: NOON + i64::from(i % 7), value: 1.0 }];
        batch.push(labels.as_bytes(), labels.placement_hash("t"), samples);
    }
    let all: Vec<u32> = (0..3000).collect();
    let mut verdicts = vec![Verdict::Unavailable; 3000];
    rig.tsdb.append(&tenant("t"), &batch, &all, NOON, &mut verdicts).unwrap();
    assert!(verdicts.iter().all(|v| *v == Verdict::Stored));
    rig.push("other", "elsewhere", &[(NOON - 5, 1.0)]);

    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let found = view.cardinality(4, &Cancel::new(None)).unwrap();
    assert_eq!((found.series, found.chunks), (3000, 3000));
    assert_eq!(found.label_pairs, pairs.len() as u64);
    assert_eq!((found.range.start, found.range.end), (NOON, NOON + 6));
    let of = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    assert_eq!(found.series_by_metric, of(&[("common", 2700), ("rare", 300)]));
    assert_eq!(found.values_by_label, of(&[("id", 3000), ("job", 3), ("__name__", 2)]));
    assert_eq!(found.bytes_by_label, of(&[("__name__", 2700 * 6 + 300 * 4), ("id", 15_000), ("job", 6000)]));
    let pairs = [("__name__=common", 2700), ("job=j0", 1000), ("job=j1", 1000), ("job=j2", 1000)];
    assert_eq!(found.series_by_pair, of(&pairs));

    // Whoever has left is not waited for.
    let left = Cancel::new(None);
    left.raise();
    assert!(view.cardinality(4, &left).is_err());
}
