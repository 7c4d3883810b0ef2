//! `/api/v1/status/self_metrics`: this process's own metrics as JSON, as Prometheus tells its.
//!
//! Made of the page that `/metrics` serves, so that both say the same. The form is protobuf's JSON of the client
//! library's messages: whole counts are text, numbers that JSON lacks are their names.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use model::{MatchOp, Matcher};
use storage::Notes;

use super::ApiState;
use crate::params::Params;
use crate::reply::{Reply, Written};
use crate::{Problem, json};

pub(super) async fn self_metrics(State(api): State<ApiState>, params: Params) -> Result<Response, Problem> {
    let pattern = match params.get("metric_name_pattern") {
        "" => None,
        text => Some(
            Matcher::new(MatchOp::Regex, "__name__", text)
                .map_err(|why| Problem::parameter("metric_name_pattern", why))?,
        ),
    };
    let page = api.inner.settings.metrics.as_ref().map(|page| page()).unwrap_or_default();
    let families = families(&page);
    let kept = families.iter().filter(|f| pattern.as_ref().is_none_or(|p| p.matches(f.name)));
    let mut out = Vec::new();
    separated(&mut out, kept, write);
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}

/// Metrics of one name.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: String,
    kind: &'a str,
    /// By labels, without those that tell parts of one metric apart; in the page's order of first sight.
    metrics: Vec<Metric<'a>>,
    at: BTreeMap<Vec<(&'a str, String)>, usize>,
}

#[derive(Default)]
struct Metric<'a> {
    labels: Vec<(&'a str, String)>,
    value: f64,
    sum: f64,
    count: f64,
    /// Quantiles or upper bounds with what stands there.
    parts: Vec<(f64, f64)>,
}

/// Reads a page in the text format, of our own making: lines that are none are passed over.
fn families(page: &str) -> Vec<Family<'_>> {
    let mut out = Families::default();
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(name), help) => out.family(name).help = unescaped(help.unwrap_or("")),
                (Some("TYPE"), Some(name), Some(kind)) => out.family(name).kind = kind,
                _ => {}
            }
            continue;
        }
        let Some((name, labels, value)) = sample(line) else { continue };
        // The parts of a histogram or summary belong to the family that was announced.
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let base = name.strip_suffix(suffix)?;
            let kind = out.list.get(*out.names.get(base)?)?.kind;
            ["histogram", "summary"].contains(&kind).then_some((base, *suffix))
        });
        let (base, suffix) = base.unwrap_or((name, ""));
        out.family(base).take(suffix, labels, value);
    }
    out.list.retain(|family| !family.metrics.is_empty());
    out.list
}

/// Families in the page's order, and their places by name.
#[derive(Default)]
struct Families<'a> {
    list: Vec<Family<'a>>,
    names: BTreeMap<&'a str, usize>,
}

impl<'a> Families<'a> {
    fn family(&mut self, name: &'a str) -> &mut Family<'a> {
        let Families { list, names } = self;
        let at = *names.entry(name).or_insert_with(|| {
            list.push(Family { name, kind: "untyped", ..Family::default() });
            list.len() - 1
        });
        &mut list[at]
    }
}

impl<'a> Family<'a> {
    fn take(&mut self, suffix: &str, mut labels: Vec<(&'a str, String)>, value: f64) {
        let part = match (self.kind, suffix) {
            ("histogram", "_bucket") => Some("le"),
            ("summary", "") => Some("quantile"),
            _ => None,
        };
        let place = part.and_then(|name| labels.iter().position(|(label, _)| *label == name));
        let part = place.and_then(|at| labels.remove(at).1.parse::<f64>().ok());
        let at = *self.at.entry(labels).or_insert_with_key(|labels| {
            self.metrics.push(Metric { labels: labels.clone(), ..Metric::default() });
            self.metrics.len() - 1
        });
        let metric = &mut self.metrics[at];
        match (part, suffix) {
            (Some(part), _) => metric.parts.push((part, value)),
            (None, "_sum") => metric.sum = value,
            (None, "_count") => metric.count = value,
            (None, _) => metric.value = value,
        }
    }
}

/// `name{label="value",…} number`, with a time behind it or not.
fn sample(line: &str) -> Option<(&str, Vec<(&str, String)>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let close = closing(after)?;
            labels.push((label, unescaped(&after[..close])));
            rest = &after[close + 1..];
        }
    }
    let value = rest.split_ascii_whitespace().next()?;
    Some((name, labels, value.parse().ok()?))
}

/// Where the quote is that ends a label's value.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| match b {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        b => b == b'"',
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, rest.as_str().chars().next()) {
            ('\\', Some(next @ ('n' | '\\' | '"'))) => {
                out.push(if next == 'n' { '\n' } else { next });
                rest.next();
            }
            _ => out.push(c),
        }
    }
    out
}

fn separated<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

fn write(out: &mut Vec<u8>, family: &Family<'_>) {
    out.extend_from_slice(b"{\"name\":");
    json::text(out, family.name);
    if !family.help.is_empty() {
        out.extend_from_slice(b",\"help\":");
        json::text(out, &family.help);
    }
    out.extend_from_slice(format!(",\"type\":\"{}\",\"metric\":", family.kind.to_uppercase()).as_bytes());
    separated(out, family.metrics.iter(), |out, metric| write_metric(out, family.kind, metric));
    out.push(b'}');
}

fn write_metric(out: &mut Vec<u8>, kind: &str, metric: &Metric<'_>) {
    out.push(b'{');
    if !metric.labels.is_empty() {
        out.extend_from_slice(b"\"label\":");
        separated(out, metric.labels.iter(), |out, (name, value)| {
            out.extend_from_slice(b"{\"name\":");
            json::text(out, name);
            out.extend_from_slice(b",\"value\":");
            json::text(out, value);
            out.push(b'}');
        });
        out.push(b',');
    }
    let (list, key, value) = match kind {
        "summary" => ("quantile", "quantile", "value"),
        "histogram" => ("bucket", "upperBound", "cumulativeCount"),
        _ => {
            out.extend_from_slice(format!("\"{kind}\":{{\"value\":{}}}}}", number(metric.value)).as_bytes());
            return;
        }
    };
    let head = format!(
        "\"{kind}\":{{\"sampleCount\":\"{}\",\"sampleSum\":{},\"{list}\":",
        metric.count,
        number(metric.sum)
    );
    out.extend_from_slice(head.as_bytes());
    separated(out, metric.parts.iter(), |out, &(at, there)| {
        let there = if kind == "histogram" { format!("\"{there}\"") } else { number(there) };
        out.extend_from_slice(format!("{{\"{key}\":{},\"{value}\":{there}}}", number(at)).as_bytes());
    });
    out.extend_from_slice(b"}}");
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "\"NaN\"".to_owned(),
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        v => v.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PAGE: &str = "\
# HELP up Whether it \\\\ is\\nthere.
# TYPE up gauge
up{job=\"a\\\"}\",zone=\"\"} 1
up{job=\"b\"} NaN

# TYPE took histogram
took_bucket{code=\"200\",le=\"0.5\"} 1
took_bucket{code=\"200\",le=\"+Inf\"} 3
took_sum{code=\"200\"} 2.5
took_count{code=\"200\"} 3
# TYPE size summary
size{quantile=\"0.5\"} 7
size_sum 20
size_count 2
# TYPE lonely counter
things_total 12 1700000000000
what is this
";

    fn all() -> Value {
        let mut out = Vec::new();
        separated(&mut out, families(PAGE).iter(), write);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_page_as_json() {
        assert_eq!(
            all(),
            json!([
                {"name": "up", "help": "Whether it \\ is\nthere.", "type": "GAUGE", "metric": [
                    {"label": [{"name": "job", "value": "a\"}"}, {"name": "zone", "value": ""}], "gauge": {"value": 1}},
                    {"label": [{"name": "job", "value": "b"}], "gauge": {"value": "NaN"}},
                ]},
                {"name": "took", "type": "HISTOGRAM", "metric": [{
                    "label": [{"name": "code", "value": "200"}],
                    "histogram": {"sampleCount": "3", "sampleSum": 2.5, "bucket": [
                        {"upperBound": 0.5, "cumulativeCount": "1"},
                        {"upperBound": "Infinity", "cumulativeCount": "3"},
                    ]},
                }]},
                {"name": "size", "type": "SUMMARY", "metric": [{
                    "summary": {"sampleCount": "2", "sampleSum": 20, "quantile": [{"quantile": 0.5, "value": 7}]},
                }]},
                {"name": "things_total", "type": "UNTYPED", "metric": [{"untyped": {"value": 12}}]},
            ])
        );
    }
}
