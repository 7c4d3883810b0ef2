//! Figures of several heads as those of one. A pure function.

use std::collections::BTreeMap;

use api::{Counts, HeadFigures};
use model::TimeRange;
use wire::pb::thanos as pb;

/// Sums of what `all` count, each with the number of copies that receivers keep of a series: with three copies
/// every series is counted three times. Values of a label are the same in every copy, so that the greatest
/// count stands. None if nobody has anything of the tenant.
pub fn merge<'a>(
    all: impl Iterator<Item = (u64, &'a pb::TsdbStatistics)>,
    tenant: Option<&str>,
    limit: usize,
) -> Option<HeadFigures> {
    let mut found = false;
    let (mut series, mut pairs, mut chunks) = (0.0, 0, 0.0);
    let mut range = TimeRange::EMPTY;
    let (mut by_metric, mut by_pair) = (BTreeMap::new(), BTreeMap::new());
    let (mut values, mut bytes) = (BTreeMap::new(), BTreeMap::new());
    for (copies, statistics) in all {
        let entries = statistics.statistics.iter();
        for (_, entry) in entries.filter(|(name, _)| tenant.is_none_or(|tenant| *name == tenant)) {
            found = true;
            let part = |n: u64| n as f64 / copies as f64;
            if let Some(head) = &entry.head_statistics {
                series += part(head.num_series);
                pairs = pairs.max(head.num_label_pairs);
                chunks += part(u64::try_from(head.chunk_count).unwrap_or(0));
                if head.num_series > 0 {
                    range = range.cover(&TimeRange::new(head.min_time, head.max_time));
                }
            }
            add(&mut by_metric, &entry.series_count_by_metric_name, part);
            add(&mut by_pair, &entry.series_count_by_label_value_pair, part);
            add(&mut bytes, &entry.memory_in_bytes_by_label_name, |n| n as f64);
            for one in &entry.label_value_count_by_label_name {
                let most: &mut f64 = values.entry(one.name.clone()).or_default();
                *most = most.max(one.value as f64);
            }
        }
    }
    found.then(|| HeadFigures {
        series: series.round() as u64,
        label_pairs: u64::try_from(pairs).unwrap_or(0),
        chunks: chunks.round() as u64,
        range,
        series_by_metric: greatest(by_metric, limit),
        values_by_label: greatest(values, limit),
        bytes_by_label: greatest(bytes, limit),
        series_by_pair: greatest(by_pair, limit),
    })
}

fn add(sums: &mut BTreeMap<String, f64>, list: &[pb::Statistic], part: impl Fn(u64) -> f64) {
    for one in list {
        *sums.entry(one.name.clone()).or_default() += part(one.value);
    }
}

fn greatest(sums: BTreeMap<String, f64>, limit: usize) -> Counts {
    let mut list: Counts = sums.into_iter().map(|(name, n)| (name, n.round() as u64)).collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(limit);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(series: u64, metric: &str) -> pb::TsdbStatisticsEntry {
        let one = |name: &str, value| vec![pb::Statistic { name: name.into(), value }];
        pb::TsdbStatisticsEntry {
            head_statistics: Some(pb::HeadStatistics {
                num_series: series,
                num_label_pairs: 7,
                chunk_count: 3,
                min_time: 10,
                max_time: 20,
            }),
            series_count_by_metric_name: one(metric, series),
            label_value_count_by_label_name: one("job", 4),
            memory_in_bytes_by_label_name: one("job", 100),
            series_count_by_label_value_pair: one("job=a", series),
        }
    }

    #[test]
    fn copies_count_once() {
        let of = |tenants: &[(&str, u64)]| pb::TsdbStatistics {
            statistics: tenants.iter().map(|(t, n)| ((*t).to_owned(), head(*n, "up"))).collect(),
        };
        let all = [of(&[("a", 2), ("b", 5)]), of(&[("a", 2)]), of(&[("a", 2)])];
        let a = merge(all.iter().map(|s| (3, s)), Some("a"), 10).unwrap();
        assert_eq!((a.series, a.label_pairs, a.chunks), (2, 7, 3));
        assert_eq!(a.series_by_metric, [("up".to_owned(), 2)]);
        assert_eq!(a.values_by_label, [("job".to_owned(), 4)]);
        assert_eq!(a.bytes_by_label, [("job".to_owned(), 300)]);
        assert_eq!((a.range.start, a.range.end), (10, 20));
        assert!(merge(all.iter().map(|s| (3, s)), Some("c"), 10).is_none());
        let everybody = merge(all.iter().map(|s| (1, s)), None, 0).unwrap();
        assert_eq!(everybody.series, 11);
        assert!(everybody.series_by_metric.is_empty());
    }
}
