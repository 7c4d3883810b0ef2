//! The process's metrics, rendered as the `/metrics` page.

use std::sync::{Mutex, PoisonError};

use metrics::gauge;
use metrics_exporter_prometheus::BuildError;

use crate::recorder::{self, Pages};
use crate::{build, help, process};

/// The process's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Pages);

impl Handle {
    /// The `/metrics` page in Prometheus's text format.
    pub fn render(&self) -> String {
        process::update();
        // The one counter that is no whole number has to be kept as a gauge.
        self.0
            .render()
            .replace("# TYPE process_cpu_seconds_total gauge", "# TYPE process_cpu_seconds_total counter")
    }

    /// To be called every few seconds: folds what histograms have gathered, which would else grow until the
    /// next scrape.
    pub fn upkeep(&self) {
        self.0.upkeep();
    }
}

static INSTALLED: Mutex<Option<Handle>> = Mutex::new(None);

/// Installs the process's registry; later calls give the same handle.
pub fn install_metrics() -> Result<Handle, BuildError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let pages = recorder::install()?;
    help::describe();
    show_build();
    let handle = Handle(pages);
    *installed = Some(handle.clone());
    Ok(handle)
}

fn show_build() {
    let build = build();
    gauge!(
        "tributary_build_info",
        "version" => build.version, "revision" => build.revision, "branch" => build.branch, "rustc" => build.rustc
    )
    .set(1);
    gauge!(
        "thanos_build_info",
        "version" => build.version, "revision" => build.revision, "branch" => build.branch,
        "goversion" => build.rustc
    )
    .set(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_types_help_and_the_process() {
        let handle = install_metrics().unwrap();
        install_metrics().unwrap();
        metrics::describe_histogram!("thanos_request_duration_seconds", "How long it took.");
        metrics::histogram!("thanos_request_duration_seconds").record(0.2);
        metrics::histogram!("batch_series").record(3.0);
        handle.upkeep();
        let page = handle.render();
        for line in [
            "# HELP thanos_request_duration_seconds How long it took.",
            "# TYPE thanos_request_duration_seconds histogram",
            "thanos_request_duration_seconds_bucket{le=\"0.25\"} 1",
            "thanos_request_duration_seconds_bucket{le=\"0.1\"} 0",
            "batch_series_bucket{le=\"5\"} 1",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
        }
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|l| l.starts_with(&format!("{name} "))).expect(name);
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_start_time_seconds") > 1.6e9);
        assert!(value("process_open_fds") >= 3.0);
        assert!(page.contains(&format!("tributary_build_info{{version=\"{}\"", build().version)), "{page}");
        assert!(!page.contains("\ngo_"));
    }
}
