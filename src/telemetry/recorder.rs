//! Where `metrics` counts go: those of a tenant into a registry that forgets what has not moved for long, all others
//! into one that keeps them.
//!
//! A tenant that is gone would else be on the `/metrics` page, and in memory, for the life of the process. Its counters
//! begin anew if it comes back, as after a restart. Settings of tenants are not forgotten: they are said once.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SetRecorderError, SharedString, Unit,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;

/// How long values of a tenant stay on the page without moving. Longer than gauges of tenants are set again.
const IDLE: Duration = Duration::from_secs(3600);

/// Seconds: from a cache hit to the longest query.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Bytes: powers of four from 256 B to 4 GiB.
const BYTES: [f64; 13] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
    4294967296.0,
];
/// Everything else is a count.
const COUNTS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 5000.0, 20000.0, 100000.0, 1000000.0];

/// Both registries, to be rendered.
#[derive(Clone)]
pub(crate) struct Pages {
    lasting: PrometheusHandle,
    of_tenants: PrometheusHandle,
}

struct Split {
    lasting: PrometheusRecorder,
    of_tenants: PrometheusRecorder,
}

/// Makes the process's registry.
pub(crate) fn install() -> Result<Pages, BuildError> {
    let (split, pages) = split(IDLE)?;
    metrics::set_global_recorder(split).map_err(|error: SetRecorderError<Split>| {
        BuildError::FailedToSetGlobalRecorder(SetRecorderError(error.into_inner().lasting))
    })?;
    Ok(pages)
}

fn split(idle: Duration) -> Result<(Split, Pages), BuildError> {
    let builder = || {
        PrometheusBuilder::new()
            .set_buckets(&COUNTS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
    };
    let lasting = builder()?.build_recorder();
    let of_tenants = builder()?.idle_timeout(MetricKindMask::ALL, Some(idle)).build_recorder();
    let pages = Pages { lasting: lasting.handle(), of_tenants: of_tenants.handle() };
    Ok((Split { lasting, of_tenants }, pages))
}

impl Pages {
    /// No metric is on both: one either has tenants or has none.
    pub(crate) fn render(&self) -> String {
        let mut page = self.lasting.render();
        page.push_str(&self.of_tenants.render());
        page
    }

    pub(crate) fn upkeep(&self) {
        self.lasting.run_upkeep();
        self.of_tenants.run_upkeep();
    }
}

impl Split {
    fn of(&self, key: &Key) -> &PrometheusRecorder {
        let is_setting = key.name().ends_with("_limit") || key.name().ends_with("_limits");
        match !is_setting && key.labels().any(|label| label.key() == "tenant") {
            true => &self.of_tenants,
            false => &self.lasting,
        }
    }
}

impl Recorder for Split {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.lasting.describe_counter(name.clone(), unit, text.clone());
        self.of_tenants.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.lasting.describe_gauge(name.clone(), unit, text.clone());
        self.of_tenants.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.lasting.describe_histogram(name.clone(), unit, text.clone());
        self.of_tenants.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.of(key).register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.of(key).register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.of(key).register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_is_gone_leaves_the_page_and_nothing_else_does() {
        let (recorder, pages) = split(Duration::ZERO).unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("requests_total", "tenant" => "gone").increment(1);
            metrics::gauge!("series", "tenant" => "gone").set(2.0);
            metrics::histogram!("took_seconds", "tenant" => "gone").record(0.2);
            metrics::gauge!("head_series_limit", "tenant" => "gone").set(7.0);
            metrics::counter!("all_total").increment(1);
        });
        let has = |page: &str, text: &str| page.lines().any(|line| line.starts_with(text));
        let of_gone =
            ["requests_total{tenant=\"gone\"} 1", "series{tenant=\"gone\"} 2", "took_seconds_count"];
        let page = pages.render();
        assert!(of_gone.iter().all(|line| has(&page, line)), "{page}");
        std::thread::sleep(Duration::from_millis(2));
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("requests_total", "tenant" => "here").increment(1);
        });
        let page = pages.render();
        assert!(!of_gone.iter().any(|line| has(&page, line)), "{page}");
        for kept in
            ["requests_total{tenant=\"here\"} 1", "head_series_limit{tenant=\"gone\"} 7", "all_total 1"]
        {
            assert!(has(&page, kept), "{page}");
        }
        // Back again, from the beginning.
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("requests_total", "tenant" => "gone").increment(1);
        });
        assert!(has(&pages.render(), of_gone[0]));
    }
}
