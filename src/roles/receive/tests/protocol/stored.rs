//! Everything that a node keeps of a tenant, as lines of text.

use std::fmt::Write;

use model::{FloatHistogram, TenantId, TimeRange, is_stale};
use storage::{
    Columns, Context, Exemplars, HistogramColumns, MetadataRequest, Select, SelectRequest, decode_mixed,
};

use crate::rig::Node;

/// A line for each series, for each exemplar, and for each metric that something is said of:
/// `up{job="x"} 0:1 5:{count 10 ..}`, `exemplar up 0:0.5 {trace_id="x"}`, `metadata up gauge "Help." "unit"`. Times are
/// told from `base`.
pub fn lines(node: &Node, tenant: &str, base: i64) -> Vec<String> {
    let tenant = TenantId::new(tenant).unwrap();
    let mut out = Vec::new();
    if let Some(view) = node.receive.tsdb().unwrap().tenant(&tenant) {
        let everything = Context::background();
        let mut set = view.select(&SelectRequest::new(TimeRange::ALL, vec![]), &everything).unwrap();
        while let Some(entry) = set.next().unwrap() {
            let (mut floats, mut histograms) = (Columns::default(), HistogramColumns::default());
            decode_mixed(&entry.chunks, TimeRange::ALL, &mut floats, &mut histograms).unwrap();
            let all = floats.timestamps.iter().zip(&floats.values).map(|(t, v)| (*t, number(*v)));
            let rest = histograms.timestamps.iter().zip(&histograms.histograms).map(|(t, h)| (*t, shown(h)));
            let mut samples: Vec<_> = all.chain(rest).collect();
            samples.sort_by_key(|(t, _)| *t);
            let mut line = entry.labels.to_string();
            samples.iter().for_each(|(t, what)| write!(line, " {}:{what}", t - base).unwrap());
            out.push(line);
        }
        for series in view.exemplars(&[vec![]], TimeRange::ALL, &everything).unwrap() {
            for one in &series.exemplars {
                let (at, value) = (one.timestamp - base, number(one.value));
                out.push(format!("exemplar {} {at}:{value} {}", series.labels, one.labels));
            }
        }
    }
    let request = MetadataRequest { tenant: Some(tenant), metric: None, limit: None };
    let said = node.receive.metadata().metadata(&request, &Context::background()).unwrap();
    for (metric, all) in said.metrics {
        for one in all {
            out.push(format!("metadata {metric} {} {:?} {:?}", one.kind.as_str(), one.help, one.unit));
        }
    }
    out
}

fn number(value: f64) -> String {
    if is_stale(value) { "stale".to_owned() } else { value.to_string() }
}

fn shown(h: &FloatHistogram) -> String {
    if is_stale(h.sum) {
        return "{stale}".to_owned();
    }
    let mut out = format!("{{count {} sum {} schema {}", h.count, h.sum, h.schema);
    if h.zero_threshold > 0.0 {
        write!(out, " zero {}@{}", h.zero_count, h.zero_threshold).unwrap();
    }
    for (sign, spans, counts) in
        [('+', &h.positive_spans, &h.positive_counts), ('-', &h.negative_spans, &h.negative_counts)]
    {
        let (mut at, mut counts) = (0, counts.iter());
        for span in spans {
            at += i64::from(span.offset);
            for _ in 0..span.length {
                // Whether an empty bucket is written down depends on what shares the chunk.
                let count = *counts.next().unwrap();
                if count != 0.0 {
                    write!(out, " {sign}{at}={count}").unwrap();
                }
                at += 1;
            }
        }
    }
    if !h.custom_values.is_empty() {
        write!(out, " bounds {:?}", &h.custom_values[..]).unwrap();
    }
    out.push('}');
    out
}
