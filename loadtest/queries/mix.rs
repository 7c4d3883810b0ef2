//! What is asked: instant and range queries, and the calls that dashboards make, over one workload.

use crate::http::percent;
use crate::workload::Workload;

/// One request to a Prometheus HTTP API.
#[derive(Clone, Debug)]
pub struct Query {
    pub name: &'static str,
    /// The expression, or the call.
    pub text: String,
    /// Path with parameters, for a GET.
    pub path: String,
}

/// A query over all series there are costs one full scan; the others are what dashboards and rules ask.
pub fn queries(workload: &Workload) -> Vec<Query> {
    let nodes: Vec<&str> = workload
        .series
        .iter()
        .filter(|s| s.name() == "node_load1")
        .filter_map(|s| s.labels.iter().find(|(n, _)| n == "instance").map(|(_, v)| v.as_str()))
        .collect();
    let one = nodes.get(nodes.len() / 2).copied().unwrap_or("");
    // Beside every scrape, so that no sample lies on the edge of a range: Prometheus 2 counts it, 3 does not.
    let end = workload.end_ms() / 1000 + 7;
    let instant = |name: &'static str, text: String| Query {
        name,
        path: format!("/api/v1/query?query={}&time={end}&nocache=1", percent(&text)),
        text,
    };
    // The last hour, one step a minute: a dashboard's panel.
    let range = |name: &'static str, text: String| Query {
        name,
        path: format!(
            "/api/v1/query_range?query={}&start={}&end={end}&step=60&nocache=1",
            percent(&text),
            end - 3600
        ),
        text,
    };
    let call = |name: &'static str, path: String| Query { name, text: path.clone(), path };
    let first = workload.start_ms / 1000;
    vec![
        instant("one series", format!("node_load1{{instance=\"{one}\"}}")),
        range("one series, range", format!("node_load1{{instance=\"{one}\"}}")),
        range("one node, rate", format!("rate(node_cpu_seconds_total{{instance=\"{one}\"}}[5m])")),
        instant("sum by rate", "sum by (mode) (rate(node_cpu_seconds_total[5m]))".to_owned()),
        range("sum by rate, range", "sum by (mode) (rate(node_cpu_seconds_total[5m]))".to_owned()),
        instant("count over all", "count({__name__=~\".+\"})".to_owned()),
        instant("topk", "topk(10, rate(node_network_receive_bytes_total[5m]))".to_owned()),
        range(
            "histogram_quantile, range",
            "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))"
                .to_owned(),
        ),
        range("quantile_over_time, range", "quantile_over_time(0.9, node_load1[10m])".to_owned()),
        range("avg_over_time, range", "avg_over_time(node_memory_MemAvailable_bytes[30m])".to_owned()),
        instant(
            "regex matcher",
            "count by (device) (node_network_receive_bytes_total{device=~\"eth.*|bond.+\",instance!~\".*zone-1.*\"})"
                .to_owned(),
        ),
        instant(
            "subquery",
            "max_over_time(sum(rate(node_network_receive_bytes_total[5m]))[30m:1m])".to_owned(),
        ),
        range(
            "join, range",
            "sum by (release) (rate(node_cpu_seconds_total{mode!=\"idle\"}[5m]) * on (instance) group_left (release) node_uname_info)"
                .to_owned(),
        ),
        instant(
            "one minus idle",
            "1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m]))".to_owned(),
        ),
        instant(
            "division and filter",
            "node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.5".to_owned(),
        ),
        instant("names", "topk(5, count by (__name__) ({__name__!=\"\"}))".to_owned()),
        call("label values", format!("/api/v1/label/instance/values?start={first}&end={end}")),
        call(
            "series call",
            format!("/api/v1/series?match[]={}&start={first}&end={end}", percent("node_cpu_seconds_total")),
        ),
    ]
}

/// How two answers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    Bits,
    /// Equal but for the last digits of numbers: another order of summation.
    Digits,
    No,
}

/// Compares the data of two answers; the order of series counts for nothing.
pub fn compare(ours: &[u8], theirs: &[u8]) -> Same {
    let parse = |bytes: &[u8]| -> Option<serde_json::Value> {
        let answer: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    };
    let (Some(a), Some(b)) = (parse(ours), parse(theirs)) else { return Same::No };
    let rows = |data: &serde_json::Value| -> Vec<serde_json::Value> {
        let rows = if data.is_array() { data } else { &data["result"] };
        let mut rows = rows.as_array().cloned().unwrap_or_default();
        rows.sort_by_cached_key(|row| match &row["metric"] {
            serde_json::Value::Null => row.to_string(),
            metric => metric.to_string(),
        });
        rows
    };
    let (a, b) = (rows(&a), rows(&b));
    if a.len() != b.len() {
        return Same::No;
    }
    a.iter().zip(&b).map(|(a, b)| close(a, b)).fold(Same::Bits, |all, one| match (all, one) {
        (Same::No, _) | (_, Same::No) => Same::No,
        (Same::Digits, _) | (_, Same::Digits) => Same::Digits,
        _ => Same::Bits,
    })
}

fn close(a: &serde_json::Value, b: &serde_json::Value) -> Same {
    use serde_json::Value::{Array, Object, String};
    let all = |parts: &mut dyn Iterator<Item = Same>| {
        let mut out = Same::Bits;
        for part in parts {
            match part {
                Same::No => return Same::No,
                Same::Digits => out = Same::Digits,
                Same::Bits => {}
            }
        }
        out
    };
    match (a, b) {
        _ if a == b => Same::Bits,
        (Array(x), Array(y)) if x.len() == y.len() => all(&mut x.iter().zip(y).map(|(x, y)| close(x, y))),
        (Object(x), Object(y)) if x.len() == y.len() => {
            all(&mut x.iter().map(|(key, x)| y.get(key).map_or(Same::No, |y| close(x, y))))
        }
        (String(x), String(y)) => match (x.parse::<f64>(), y.parse::<f64>()) {
            (Ok(x), Ok(y)) if (x - y).abs() <= 1e-9 * x.abs().max(y.abs()) => Same::Digits,
            _ => Same::No,
        },
        _ => Same::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_whatever_their_order() {
        let one = r#"{"status":"success","data":{"result":[{"metric":{"a":"1"},"value":[1,"0.3"]},{"metric":{"a":"2"},"value":[1,"5"]}]}}"#;
        let turned = r#"{"status":"success","data":{"result":[{"metric":{"a":"2"},"value":[1,"5"]},{"metric":{"a":"1"},"value":[1,"0.30000000000000004"]}]}}"#;
        let other = one.replace("0.3", "0.31");
        assert_eq!(compare(one.as_bytes(), one.as_bytes()), Same::Bits);
        assert_eq!(compare(one.as_bytes(), turned.as_bytes()), Same::Digits);
        assert_eq!(compare(one.as_bytes(), other.as_bytes()), Same::No);
        assert_eq!(compare(one.as_bytes(), b"{}"), Same::No);
    }
}
