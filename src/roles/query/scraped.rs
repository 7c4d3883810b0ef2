//! Targets and exemplars of several endpoints as one list, each once. Pure functions.

use std::collections::BTreeMap;

use model::Labels;
use wire::pb::thanos as pb;

use crate::facts::{carries, labels_of, remove};

/// One discovery of all: of equal targets the one that was scraped last stands.
pub fn merge_targets(
    all: impl Iterator<Item = pb::TargetDiscovery>,
    replica_labels: &[String],
    only: Option<(&str, &str)>,
) -> pb::TargetDiscovery {
    let mut active: BTreeMap<(Labels, String, String), pb::ActiveTarget> = BTreeMap::new();
    let mut dropped: BTreeMap<Labels, pb::DroppedTarget> = BTreeMap::new();
    for mut discovery in all {
        for mut target in discovery.active_targets.drain(..) {
            remove(&mut target.labels, replica_labels);
            remove(&mut target.discovered_labels, replica_labels);
            if !carries(target.labels.as_ref(), only) {
                continue;
            }
            let labels = labels_of(target.labels.as_ref());
            let key = (labels, target.scrape_pool.clone(), target.scrape_url.clone());
            let at = |t: &pb::ActiveTarget| t.last_scrape.as_ref().map(|t| (t.seconds, t.nanos));
            match active.get_mut(&key) {
                Some(known) if at(known) >= at(&target) => {}
                Some(known) => *known = target,
                None => drop(active.insert(key, target)),
            }
        }
        for mut target in discovery.dropped_targets.drain(..) {
            remove(&mut target.discovered_labels, replica_labels);
            if carries(target.discovered_labels.as_ref(), only) {
                dropped.insert(labels_of(target.discovered_labels.as_ref()), target);
            }
        }
    }
    pb::TargetDiscovery {
        active_targets: active.into_values().collect(),
        dropped_targets: dropped.into_values().collect(),
    }
}

/// By series without the `hidden` labels, each sorted by time with every exemplar once.
pub fn merge_exemplars(
    all: impl Iterator<Item = pb::ExemplarData>,
    hidden: &[String],
    only: Option<(&str, &str)>,
) -> Vec<pb::ExemplarData> {
    type Found = BTreeMap<(i64, u64, Labels), pb::Exemplar>;
    let mut series: BTreeMap<Labels, (Option<pb::ZLabelSet>, Found)> = BTreeMap::new();
    for mut data in all {
        if !carries(data.series_labels.as_ref(), only) {
            continue;
        }
        remove(&mut data.series_labels, hidden);
        let key = labels_of(data.series_labels.as_ref());
        let (_, found) = series.entry(key).or_insert_with(|| (data.series_labels, Found::new()));
        for one in data.exemplars {
            let key = (one.ts, one.value.to_bits(), labels_of(one.labels.as_ref()));
            found.entry(key).or_insert(one);
        }
    }
    let shown = series.into_values().map(|(series_labels, found)| pb::ExemplarData {
        series_labels,
        exemplars: found.into_values().collect(),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Option<pb::ZLabelSet> {
        let label = |(n, v): &(&str, &str)| pb::Label { name: (*n).into(), value: (*v).into() };
        Some(pb::ZLabelSet { labels: pairs.iter().map(label).collect() })
    }

    #[test]
    fn exemplars_of_copies_are_one() {
        let data = |replica: &str, times: &[i64]| pb::ExemplarData {
            series_labels: set(&[("__name__", "m"), ("replica", replica), ("tenant_id", "a")]),
            exemplars: times
                .iter()
                .map(|ts| pb::Exemplar { labels: set(&[("trace_id", "x")]), value: 1.0, ts: *ts })
                .collect(),
        };
        let both = || vec![data("1", &[3, 1]), data("2", &[2, 3])];
        let merged = merge_exemplars(both().into_iter(), &["replica".into()], Some(("tenant_id", "a")));
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].exemplars.iter().map(|e| e.ts).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(merge_exemplars(both().into_iter(), &[], None).len(), 2);
        assert!(merge_exemplars(both().into_iter(), &[], Some(("tenant_id", "b"))).is_empty());
    }

    #[test]
    fn the_newest_scrape_of_a_target_stands() {
        let target = |replica: &str, at: i64| pb::ActiveTarget {
            labels: set(&[("job", "x"), ("replica", replica)]),
            last_scrape: Some(prost_types::Timestamp { seconds: at, nanos: 0 }),
            ..Default::default()
        };
        let all = || {
            [target("1", 5), target("2", 9), target("1", 7)].map(|t| pb::TargetDiscovery {
                active_targets: vec![t],
                dropped_targets: vec![pb::DroppedTarget { discovered_labels: set(&[("job", "y")]) }],
            })
        };
        let merged = merge_targets(all().into_iter(), &["replica".into()], None);
        assert_eq!(merged.active_targets.len(), 1);
        assert_eq!(merged.active_targets[0].last_scrape.as_ref().map(|t| t.seconds), Some(9));
        assert_eq!(merged.dropped_targets.len(), 1);
        assert_eq!(merge_targets(all().into_iter(), &[], None).active_targets.len(), 2);
        let nobody = merge_targets(all().into_iter(), &[], Some(("tenant_id", "a")));
        assert!(nobody.active_targets.is_empty() && nobody.dropped_targets.is_empty());
    }
}
