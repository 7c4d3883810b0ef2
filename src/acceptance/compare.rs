//! Two servers, one query: their answers must be the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::post_form;

/// Labels and points (time in milliseconds, value) of each series of an answer.
pub type Series = BTreeMap<BTreeMap<String, String>, Vec<(i64, f64)>>;

/// What one server says.
pub enum Said {
    Series(Series),
    Failed(String),
}

/// How a query is asked.
#[derive(Clone, Copy)]
pub enum When {
    /// Milliseconds since the epoch.
    At(i64),
    /// Start, end and step in milliseconds.
    Range(i64, i64, i64),
}

/// Asks `base` (`http://host:port`) and drops `drop_labels` from the answer. Warnings count as a failure: an
/// answer that is not complete must not pass for one that is.
pub fn ask(base: &str, query: &str, when: When, drop_labels: &[&str]) -> Said {
    let s = |ms: i64| format!("{}", ms as f64 / 1000.0);
    let answer = match when {
        When::At(t) => post_form(&format!("{base}/api/v1/query"), &[("query", query), ("time", &s(t))]),
        When::Range(start, end, step) => post_form(
            &format!("{base}/api/v1/query_range"),
            &[("query", query), ("start", &s(start)), ("end", &s(end)), ("step", &s(step))],
        ),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Said::Failed(format!("transport: {error}")),
    };
    let json = answer.json();
    if json["status"] != "success" {
        return Said::Failed(format!(
            "{}: {}",
            answer.status,
            json["error"].as_str().unwrap_or(&answer.text())
        ));
    }
    let incomplete = json["warnings"].as_array().and_then(|all| all.iter().find(|w| !is_promql(w)));
    if let Some(warning) = incomplete {
        return Said::Failed(format!("incomplete: {warning}"));
    }
    Said::Series(series(&json["data"], drop_labels))
}

fn is_promql(warning: &Value) -> bool {
    warning.as_str().is_some_and(|w| w.starts_with("PromQL"))
}

fn series(data: &Value, drop_labels: &[&str]) -> Series {
    let mut out = Series::new();
    let point = |p: &Value| {
        let time = (p[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
        let value = p[1].as_str().unwrap_or("");
        // A string result has no number; its text is compared by its bytes' sum, which is enough here.
        let value = value.parse().unwrap_or_else(|_| value.bytes().map(f64::from).sum());
        (time, value)
    };
    if matches!(data["resultType"].as_str(), Some("scalar" | "string")) {
        out.insert(BTreeMap::new(), vec![point(&data["result"])]);
        return out;
    }
    for one in data["result"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let metric = one["metric"].as_object().into_iter().flatten();
        let labels = metric
            .filter(|(name, _)| !drop_labels.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
            .collect();
        let points = match one.get("value") {
            Some(value) => vec![point(value)],
            None => one["values"].as_array().into_iter().flatten().map(point).collect(),
        };
        out.insert(labels, points);
    }
    out
}

/// The first difference between two answers, in words; none where they agree within `fraction`.
pub fn difference(want: &Said, got: &Said, fraction: f64) -> Option<String> {
    let (want, got) = match (want, got) {
        (Said::Failed(_), Said::Failed(_)) => return None,
        (Said::Failed(error), Said::Series(_)) => {
            return Some(format!("should have failed, as with: {error}"));
        }
        (Said::Series(_), Said::Failed(error)) => return Some(format!("failed: {error}")),
        (Said::Series(want), Said::Series(got)) => (want, got),
    };
    if let Some(missing) = want.keys().find(|labels| !got.contains_key(*labels)) {
        return Some(format!("{missing:?} is missing ({} series wanted, {} got)", want.len(), got.len()));
    }
    if let Some(extra) = got.keys().find(|labels| !want.contains_key(*labels)) {
        return Some(format!("{extra:?} is too many ({} series wanted, {} got)", want.len(), got.len()));
    }
    for (labels, points) in want {
        let other = &got[labels];
        let times = |p: &[(i64, f64)]| p.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        if times(points) != times(other) {
            return Some(format!(
                "{labels:?}: {} points wanted, {} got, or at other times",
                points.len(),
                other.len()
            ));
        }
        for ((time, want), (_, got)) in points.iter().zip(other) {
            if !same(*want, *got, fraction) {
                return Some(format!("{labels:?} at {time}: {want} wanted, {got} got"));
            }
        }
    }
    None
}

fn same(a: f64, b: f64, fraction: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= fraction * a.abs().min(b.abs())
}
