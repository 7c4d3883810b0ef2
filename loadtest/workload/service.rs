//! Series beside the node_exporters' that queries need: a service's classic histogram, and an info metric to join with.

use super::mix;
use super::node::{Series, Shape};

const HANDLERS: [&str; 5] = ["/api/items", "/api/orders", "/api/users", "/healthz", "/login"];
const BOUNDS: [&str; 11] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"];

/// At least one service instance, and about `count` series of histograms.
pub fn histograms(count: usize) -> Vec<Series> {
    let per_instance = HANDLERS.len() * BOUNDS.len();
    let mut out = Vec::new();
    for instance in 0..count.div_ceil(per_instance).max(1) {
        for handler in HANDLERS {
            for (at, le) in BOUNDS.into_iter().enumerate() {
                let labels = [
                    ("__name__", "http_request_duration_seconds_bucket".to_owned()),
                    ("cluster", "prod-eu-1".to_owned()),
                    ("handler", handler.to_owned()),
                    ("instance", format!("api-{instance:05}.example.net:8080")),
                    ("job", "api".to_owned()),
                    ("le", le.to_owned()),
                ];
                let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
                out.push(Series { labels, shape: Shape::Bucket(at as u8) });
            }
        }
    }
    out
}

/// One info series for each instance of `series` that has a load average.
pub fn infos(series: &[Series]) -> Vec<Series> {
    let nodes = series.iter().filter(|s| s.name() == "node_load1").enumerate();
    nodes
        .map(|(at, node)| {
            let get = |name: &str| {
                node.labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
            };
            let labels = [
                ("__name__", "node_uname_info".to_owned()),
                ("cluster", get("cluster")),
                ("instance", get("instance")),
                ("job", get("job")),
                ("nodename", format!("host-{at}")),
                ("release", format!("6.1.{}", mix(at as u64) % 4)),
            ];
            let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
            Series { labels, shape: Shape::One }
        })
        .collect()
}
