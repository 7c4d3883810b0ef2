//! The series of a small demo service, the same for every server: counters with resets, classic histograms,
//! gauges, and a metric that comes and goes with stale markers. PromQL is compared over them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::http::{Client, split};
use crate::workload::{body_of, mix};

type Labels = Vec<(String, String)>;

/// Milliseconds between scrapes.
const INTERVAL_MS: i64 = 5_000;
const STALE: u64 = 0x7ff0_0000_0000_0002;

struct Demo {
    series: BTreeMap<Labels, Vec<(i64, f64)>>,
    state: u64,
}

impl Demo {
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(1);
        (mix(self.state) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }

    fn put(&mut self, time: i64, name: &str, value: f64, instance: &str, more: &[(&str, &str)]) {
        let mut labels: Labels = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        for (n, v) in [("__name__", name), ("instance", instance), ("job", "demo")] {
            labels.push((n.to_owned(), v.to_owned()));
        }
        labels.sort();
        self.series.entry(labels).or_default().push((time, value));
    }
}

/// Bucket bounds that grow by half, as the demo service has them.
fn bounds() -> Vec<f64> {
    let mut out = vec![0.0001];
    for at in 0..24 {
        out.push(out[at] * 1.5);
    }
    out
}

/// Writes `minutes` of data that ends at `end` (Unix seconds) to every URL.
pub async fn run(urls: &[String], minutes: i64, end: Option<i64>) -> Result<()> {
    #[allow(clippy::disallowed_methods)]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let end = end.unwrap_or(now) * 1000;
    let start = end - minutes * 60_000;
    let mut demo = Demo { series: BTreeMap::new(), state: mix(end as u64) };
    for instance in 0..3 {
        scrape_all(&mut demo, instance, start, end);
    }
    let samples: usize = demo.series.values().map(Vec::len).sum();
    // In slices of time, so that series stay interleaved as a real sender has them.
    let slice = 300_000;
    let mut from = start;
    while from <= end {
        let part: Vec<_> = demo
            .series
            .iter()
            .map(|(labels, all)| {
                let inside =
                    all.iter().copied().filter(|(t, _)| (from..from + slice).contains(t)).collect::<Vec<_>>();
                (labels.clone(), inside)
            })
            .filter(|(_, inside)| !inside.is_empty())
            .collect();
        from += slice;
        if part.is_empty() {
            continue;
        }
        let body = body_of(&part);
        for url in urls {
            let headers = [
                ("content-type", "application/x-protobuf"),
                ("content-encoding", "snappy"),
                ("x-prometheus-remote-write-version", "0.1.0"),
            ];
            let path = split(url)?.1;
            let (status, text) = Client::new(url)?
                .send("POST", &path, &headers, body.clone().into())
                .await
                .with_context(|| url.clone())?;
            if !matches!(status, 200 | 204) {
                bail!("{url} answered {status}: {}", String::from_utf8_lossy(&text));
            }
        }
    }
    println!("series {} samples {samples} start {} end {}", demo.series.len(), start / 1000, end / 1000);
    Ok(())
}

fn scrape_all(demo: &mut Demo, at: i64, start: i64, end: i64) {
    let instance = format!("demo.promlabs.com:1000{at}");
    let instance = instance.as_str();
    let bounds = bounds();
    let routes = [
        ("/api/foo", "GET", "200"),
        ("/api/foo", "POST", "500"),
        ("/api/bar", "GET", "200"),
        ("/api/nonexistent", "GET", "404"),
    ];
    let mut cpu = [0.0; 3].map(|_: f64| demo.unit() * 1000.0);
    let mut buckets = vec![vec![0u64; bounds.len() + 1]; routes.len()];
    let mut sums = vec![0.0; routes.len()];
    let mut disk = 1e10 * (1 + at) as f64;
    let mut batch = start - 600_000;
    let mut was_on = false;
    let mut time = start + 700 * at + 123;
    let mut n = 0;
    while time < end {
        n += 1;
        let seconds = time as f64 / 1000.0;
        let phase = std::f64::consts::TAU * seconds / 3600.0 + at as f64;
        demo.put(time, "up", 1.0, instance, &[]);
        demo.put(time, "demo_num_cpus", (4 - at) as f64, instance, &[]);
        for (k, kind) in ["buffers", "cached", "free", "used"].into_iter().enumerate() {
            let bytes = 2e9 * (1.3 + (phase + k as f64).sin()) + demo.below(20_000_000) as f64 - 1e7;
            demo.put(time, "demo_memory_usage_bytes", bytes, instance, &[("type", kind)]);
        }
        if n % 700 == 0 {
            cpu = [0.0; 3];
            buckets.iter_mut().for_each(|b| b.fill(0));
            sums.fill(0.0);
        }
        for (k, (mode, rate)) in [("idle", 3.0), ("user", 0.6), ("system", 0.4)].into_iter().enumerate() {
            cpu[k] += 5.0 * rate * (1.0 + 0.3 * phase.sin()) * demo.unit();
            demo.put(time, "demo_cpu_usage_seconds_total", cpu[k], instance, &[("mode", mode)]);
        }
        disk = if disk < 2e10 * (1 + at) as f64 { disk + 1e5 * demo.unit() } else { 1e10 * (1 + at) as f64 };
        demo.put(time, "demo_disk_usage_bytes", disk, instance, &[]);
        demo.put(time, "demo_disk_total_bytes", 2.5e11, instance, &[]);
        if time - batch > 240_000 + demo.below(60_000) as i64 {
            batch = time;
        }
        demo.put(
            time,
            "demo_batch_last_success_timestamp_seconds",
            (batch / 1000) as f64 + 0.5,
            instance,
            &[],
        );
        demo.put(time, "demo_batch_last_run_timestamp_seconds", (time / 60_000 * 60) as f64, instance, &[]);
        for (k, (path, method, status)) in routes.into_iter().enumerate() {
            for _ in 0..demo.below(7) {
                let took = 10f64.powf(-4.2 + 4.6 * demo.unit());
                sums[k] += took;
                for (bucket, count) in buckets[k].iter_mut().enumerate() {
                    *count += u64::from(bounds.get(bucket).is_none_or(|le| took <= *le));
                }
            }
            let labels = [("method", method), ("path", path), ("status", status)];
            for (bucket, count) in buckets[k].clone().into_iter().enumerate() {
                let le = bounds.get(bucket).map_or("+Inf".to_owned(), |le| le.to_string());
                let with_le = [labels[0], labels[1], labels[2], ("le", le.as_str())];
                let name = "demo_api_request_duration_seconds_bucket";
                demo.put(time, name, count as f64, instance, &with_le);
            }
            demo.put(
                time,
                "demo_api_request_duration_seconds_count",
                buckets[k][bounds.len()] as f64,
                instance,
                &labels,
            );
            demo.put(time, "demo_api_request_duration_seconds_sum", sums[k], instance, &labels);
            if method == "GET" {
                let running = demo.below(10) as f64;
                demo.put(time, "demo_api_http_requests_in_progress", running, instance, &labels);
            }
        }
        let on = time / 60_000 % 7 < 3;
        if on {
            let value = demo.below(101) as f64;
            demo.put(time, "demo_intermittent_metric", value, instance, &[]);
        } else if was_on {
            demo.put(time, "demo_intermittent_metric", f64::from_bits(STALE), instance, &[]);
        }
        was_on = on;
        time += INTERVAL_MS;
    }
}
