//! Classic histograms of a `load_with_nhcb` block, turned into native ones with custom buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS, Span};
use model::{FloatHistogram, Labels, METRIC_NAME};

use super::memory::Stored;
use super::script::Loaded;
use super::series::Item;

/// What a classic histogram says at one time.
#[derive(Default)]
struct Classic {
    /// Bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Series of histograms from series that end in `_bucket`, `_count` and `_sum`.
pub(super) fn convert<'l>(series: impl Iterator<Item = &'l Loaded>, step: i64) -> Vec<(Labels, Vec<Stored>)> {
    let mut all: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for Loaded { labels, items, .. } in series {
        let name = labels.metric_name();
        let Some((base, part)) = ["_bucket", "_count", "_sum"]
            .into_iter()
            .find_map(|part| name.strip_suffix(part).map(|base| (base, part)))
        else {
            continue;
        };
        let bound = match part {
            "_bucket" => match labels.value("le").parse::<f64>() {
                Ok(bound) if !bound.is_nan() => bound,
                _ => continue,
            },
            _ => 0.0,
        };
        let mut builder = labels.filter(|name| name != "le").to_builder();
        builder.set(METRIC_NAME, base);
        let Ok(key) = builder.finish() else { continue };
        for (at, item) in items.iter().enumerate() {
            let Item::Float(value) = item else { continue };
            let classic = all.entry(key.clone()).or_default().entry(at as i64 * step).or_default();
            match part {
                "_bucket" => classic.buckets.push((bound, *value)),
                "_count" => classic.count = Some(*value),
                _ => classic.sum = *value,
            }
        }
    }
    let stored = |(time, classic): (i64, Classic)| {
        Some(Stored { time, start: 0, value: Err(Arc::new(classic.native()?)) })
    };
    all.into_iter().map(|(labels, times)| (labels, times.into_iter().filter_map(stored).collect())).collect()
}

impl Classic {
    /// None where the counts of the buckets fall.
    fn native(mut self) -> Option<FloatHistogram> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let in_buckets = self.buckets.last().map(|b| b.1);
        let count = self.count.or(in_buckets).unwrap_or(0.0);
        if self.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut before = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (_, cumulative) in &self.buckets {
            if *cumulative < before {
                return None;
            }
            counts.push(cumulative - before);
            before = *cumulative;
        }
        let bounds: Vec<f64> = self.buckets.iter().map(|b| b.0).filter(|b| *b != f64::INFINITY).collect();
        Some(FloatHistogram {
            schema: CUSTOM_BUCKETS,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_counts: counts,
            custom_values: bounds.into(),
            ..FloatHistogram::default()
        })
    }
}
