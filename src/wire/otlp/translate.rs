//! Metrics as series: what Prometheus 3 makes of each point, written as a remote write 2.0 request.

use model::histogram::ResetHint;
use model::{METRIC_NAME, Native, Sample, Timestamp, stale_nan};

use super::Request;
use super::attributes::{self, LabelList};
use super::common::KeyValue;
use super::histograms::{self, is_unrecorded};
use super::metrics::{
    AggregationTemporality, Exemplar, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    SummaryDataPoint, exemplar, metric::Data, number_data_point,
};
use super::names::{self, Kind, Translation};
use crate::WireError;
use crate::remote_write::RequestV2;

/// How metrics are translated; the names are those of Prometheus's `otlp` section.
#[derive(Clone, Debug)]
pub struct Settings {
    pub translation: Translation,
    /// Resource attributes that become labels of every series.
    pub promote_resource_attributes: Vec<String>,
    /// Whether all of them do.
    pub promote_all_resource_attributes: bool,
    /// Whether resources are told by `target_info`.
    pub target_info: bool,
    /// Whether `target_info` repeats what `job` and `instance` are made of.
    pub keep_identifying_resource_attributes: bool,
    /// Whether name, version and attributes of the scope become labels `otel_scope_...`.
    pub promote_scope_metadata: bool,
    /// Whether histograms with bounds of their own become native ones.
    pub convert_histograms_to_nhcb: bool,
    /// Whether points that count from the one before are stored as they are.
    pub native_delta_ingestion: bool,
    /// Most series that one request may become.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            translation: Translation::default(),
            promote_resource_attributes: Vec::new(),
            promote_all_resource_attributes: false,
            target_info: true,
            keep_identifying_resource_attributes: false,
            promote_scope_metadata: false,
            convert_histograms_to_nhcb: false,
            native_delta_ingestion: false,
            max_series: 100_000,
        }
    }
}

/// Points that cannot be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    pub points: u64,
    /// Metric and reason of the first.
    pub example: Option<(String, String)>,
}

impl Aside {
    fn put(&mut self, points: usize, metric: &str, reason: impl FnOnce() -> String) {
        self.points += points as u64;
        if points > 0 && self.example.is_none() {
            self.example = Some((metric.to_owned(), reason()));
        }
    }
}

/// What a request became.
#[derive(Debug, Default)]
pub struct Translated {
    /// `io.prometheus.write.v2.Request`, uncompressed.
    pub request: Vec<u8>,
    pub aside: Aside,
}

/// Time between two samples of `target_info` within one request: half of the default lookback.
const TARGET_INFO_MS: i64 = 150_000;
/// Most samples of `target_info` for one resource; a request that spans more has its last ones.
const TARGET_INFO_SAMPLES: i64 = 1000;
const SERVICE: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

/// Translates a request. Refused only if it becomes too many series.
pub fn translate(request: &Request, settings: &Settings) -> Result<Translated, WireError> {
    let mut out = Writer { settings, request: RequestV2::default(), aside: Aside::default(), series: 0 };
    for resource in &request.resource_metrics {
        out.resource(resource)?;
    }
    Ok(Translated { request: out.request.finish(), aside: out.aside })
}

struct Writer<'a> {
    settings: &'a Settings,
    request: RequestV2,
    aside: Aside,
    series: usize,
}

/// A metric on its way: its Prometheus name, and what all its series share.
struct Family<'a> {
    metric: &'a Metric,
    name: String,
    /// Type by its number, as in remote write.
    kind: u8,
    /// Of the resource and the scope.
    base: &'a LabelList,
}

/// What distinguishes the series of one point.
struct Part<'a> {
    suffix: &'a str,
    extra: Option<(&'a str, &'a str)>,
    value: f64,
}

impl Writer<'_> {
    fn resource(&mut self, metrics: &ResourceMetrics) -> Result<(), WireError> {
        let attributes = metrics.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        let identity = identity(attributes);
        let mut base = LabelList::default();
        let promoted = attributes.iter().filter(|pair| {
            self.settings.promote_all_resource_attributes
                || self.settings.promote_resource_attributes.contains(&pair.key)
        });
        base.add(promoted, self.settings.translation);
        let mut times: Option<(Timestamp, Timestamp)> = None;
        for scope in &metrics.scope_metrics {
            let mut base = base.clone();
            if let Some(scope) = scope.scope.as_ref().filter(|_| self.settings.promote_scope_metadata) {
                let named = |pair: &KeyValue| KeyValue {
                    key: format!("otel_scope_{}", pair.key),
                    value: pair.value.clone(),
                };
                let renamed: Vec<KeyValue> = scope.attributes.iter().map(named).collect();
                base.add(&renamed, self.settings.translation);
                for (name, value) in
                    [("otel_scope_name", &scope.name), ("otel_scope_version", &scope.version)]
                {
                    if !value.is_empty() {
                        base.set(name, value);
                    }
                }
            }
            identity.iter().for_each(|(name, value)| base.set(name, value));
            for metric in &scope.metrics {
                self.metric(metric, &base, &mut times)?;
            }
        }
        match times {
            Some(times) if self.settings.target_info => self.target_info(attributes, &identity, times),
            _ => Ok(()),
        }
    }

    fn metric(
        &mut self,
        metric: &Metric,
        base: &LabelList,
        times: &mut Option<(Timestamp, Timestamp)>,
    ) -> Result<(), WireError> {
        let Some(data) = &metric.data else { return Ok(()) };
        let (naming, kind, temporality, points) = shape(data);
        let Some(name) = names::metric(&metric.name, &metric.unit, naming, self.settings.translation) else {
            self.aside.put(points, &metric.name, || {
                "nothing is left of the metric's name as a Prometheus name".to_owned()
            });
            return Ok(());
        };
        let delta = temporality == Some(AggregationTemporality::Delta as i32);
        if delta && !self.settings.native_delta_ingestion {
            self.aside.put(points, &metric.name, || {
                "delta temporality is not accepted: let the exporter send cumulative points, or put the collector's \
                 deltatocumulative processor before it"
                    .to_owned()
            });
            return Ok(());
        }
        if temporality == Some(AggregationTemporality::Unspecified as i32) {
            self.aside.put(points, &metric.name, || "aggregation temporality is missing".to_owned());
            return Ok(());
        }
        // What counts from the point before is no counter to Prometheus.
        let (kind, hint) = if delta { (0, ResetHint::Gauge) } else { (kind, ResetHint::Unknown) };
        let family = Family { metric, name, kind, base };
        let mut seen = |nanos: u64| {
            let t = millis(nanos);
            let (first, last) = times.unwrap_or((t, t));
            *times = Some((first.min(t), last.max(t)));
        };
        match data {
            Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    seen(point.time_unix_nano);
                    self.number(&family, point, false)?;
                }
            }
            Data::Sum(sum) => {
                for point in &sum.data_points {
                    seen(point.time_unix_nano);
                    self.number(&family, point, sum.is_monotonic)?;
                }
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    seen(point.time_unix_nano);
                    match self.settings.convert_histograms_to_nhcb {
                        true => {
                            let at = At::new(point.start_time_unix_nano, point.time_unix_nano);
                            let native = histograms::custom(point, hint);
                            self.native(&family, &point.attributes, &point.exemplars, at, native)?;
                        }
                        false => self.classic(&family, point)?,
                    }
                }
            }
            Data::ExponentialHistogram(histogram) => {
                for point in &histogram.data_points {
                    seen(point.time_unix_nano);
                    let at = At::new(point.start_time_unix_nano, point.time_unix_nano);
                    let native = histograms::exponential(point, hint);
                    self.native(&family, &point.attributes, &point.exemplars, at, native)?;
                }
            }
            Data::Summary(summary) => {
                for point in &summary.data_points {
                    seen(point.time_unix_nano);
                    self.summary(&family, point)?;
                }
            }
        }
        Ok(())
    }

    fn number(
        &mut self,
        family: &Family<'_>,
        point: &NumberDataPoint,
        counts: bool,
    ) -> Result<(), WireError> {
        let value = match point.value {
            _ if is_unrecorded(point.flags) => stale_nan(),
            Some(number_data_point::Value::AsDouble(v)) => v,
            Some(number_data_point::Value::AsInt(v)) => v as f64,
            None => {
                self.aside.put(1, &family.metric.name, || "a point has no value".to_owned());
                return Ok(());
            }
        };
        let start = if counts { point.start_time_unix_nano } else { 0 };
        let at = At::new(start, point.time_unix_nano);
        let exemplars = if counts { &point.exemplars[..] } else { &[] };
        let labels = self.labels(family, &point.attributes);
        self.float(family, &labels, Part { suffix: "", extra: None, value }, at, exemplars)
    }

    /// Classic series: a cumulative count per bound, their sum and count.
    fn classic(&mut self, family: &Family<'_>, point: &HistogramDataPoint) -> Result<(), WireError> {
        let at = At::new(point.start_time_unix_nano, point.time_unix_nano);
        let labels = self.labels(family, &point.attributes);
        let unrecorded = is_unrecorded(point.flags);
        let shown = |value: f64| if unrecorded { stale_nan() } else { value };
        if let Some(sum) = point.sum {
            self.float(family, &labels, Part { suffix: "_sum", extra: None, value: shown(sum) }, at, &[])?;
        }
        let count = shown(point.count as f64);
        self.float(family, &labels, Part { suffix: "_count", extra: None, value: count }, at, &[])?;
        let mut exemplars: Vec<&Exemplar> = point.exemplars.iter().collect();
        exemplars.sort_by(|a, b| value_of(a).total_cmp(&value_of(b)));
        let mut rest = &exemplars[..];
        let mut cumulated = 0u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            if *bound == f64::INFINITY {
                // Written once, below, with everything that was counted.
                break;
            }
            cumulated = cumulated.saturating_add(*count);
            let (here, beyond) = rest.split_at(rest.partition_point(|e| value_of(e) <= *bound));
            rest = beyond;
            let bound = bound_text(*bound);
            let part =
                Part { suffix: "_bucket", extra: Some(("le", &bound)), value: shown(cumulated as f64) };
            self.float(family, &labels, part, at, here.iter().copied())?;
        }
        let part = Part { suffix: "_bucket", extra: Some(("le", "+Inf")), value: count };
        self.float(family, &labels, part, at, rest.iter().copied())
    }

    fn summary(&mut self, family: &Family<'_>, point: &SummaryDataPoint) -> Result<(), WireError> {
        let at = At::new(point.start_time_unix_nano, point.time_unix_nano);
        let labels = self.labels(family, &point.attributes);
        let unrecorded = is_unrecorded(point.flags);
        let shown = |value: f64| if unrecorded { stale_nan() } else { value };
        self.float(family, &labels, Part { suffix: "_sum", extra: None, value: shown(point.sum) }, at, &[])?;
        let count = Part { suffix: "_count", extra: None, value: shown(point.count as f64) };
        self.float(family, &labels, count, at, &[])?;
        for quantile in &point.quantile_values {
            let rank = bound_text(quantile.quantile);
            let part = Part { suffix: "", extra: Some(("quantile", &rank)), value: shown(quantile.value) };
            self.float(family, &labels, part, at, &[])?;
        }
        Ok(())
    }

    fn native(
        &mut self,
        family: &Family<'_>,
        attributes: &[KeyValue],
        exemplars: &[Exemplar],
        at: At,
        native: Result<Native, String>,
    ) -> Result<(), WireError> {
        let native = match native {
            Ok(native) => native,
            Err(reason) => {
                self.aside.put(1, &family.metric.name, || reason);
                return Ok(());
            }
        };
        let labels = self.labels(family, attributes);
        self.begin(family, &labels, "", None)?;
        self.request.histogram(&native, at.time, at.start);
        self.exemplars(exemplars);
        self.end(family);
        Ok(())
    }

    fn float<'e>(
        &mut self,
        family: &Family<'_>,
        labels: &LabelList,
        part: Part<'_>,
        at: At,
        exemplars: impl IntoIterator<Item = &'e Exemplar>,
    ) -> Result<(), WireError> {
        self.begin(family, labels, part.suffix, part.extra)?;
        self.request.sample(Sample { timestamp: at.time, value: part.value }, at.start);
        self.exemplars(exemplars);
        self.end(family);
        Ok(())
    }

    fn labels(&self, family: &Family<'_>, attributes: &[KeyValue]) -> LabelList {
        let mut labels = family.base.clone();
        labels.add(attributes, self.settings.translation);
        // Who sends is not for a point to say.
        for name in ["job", "instance"] {
            if let Some((_, value)) = family.base.iter().find(|(known, _)| *known == name) {
                labels.set(name, value);
            }
        }
        labels
    }

    fn begin(
        &mut self,
        family: &Family<'_>,
        labels: &LabelList,
        suffix: &str,
        extra: Option<(&str, &str)>,
    ) -> Result<(), WireError> {
        self.count_series()?;
        self.request.label(METRIC_NAME, &format!("{}{suffix}", family.name));
        let replaced = |name: &str| name == METRIC_NAME || extra.is_some_and(|(extra, _)| extra == name);
        for (name, value) in labels.iter().filter(|(name, _)| !replaced(name)) {
            self.request.label(name, value);
        }
        if let Some((name, value)) = extra {
            self.request.label(name, value);
        }
        Ok(())
    }

    fn end(&mut self, family: &Family<'_>) {
        self.request.metadata(family.kind, &family.metric.description, &family.metric.unit);
        self.request.end();
    }

    fn exemplars<'e>(&mut self, exemplars: impl IntoIterator<Item = &'e Exemplar>) {
        for exemplar in exemplars {
            let mut labels = LabelList::default();
            labels.add(&exemplar.filtered_attributes, self.settings.translation);
            for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
                if !id.is_empty() {
                    labels.set(name, &hex(id));
                }
            }
            self.request.exemplar(labels.iter(), value_of(exemplar), millis(exemplar.time_unix_nano));
        }
    }

    /// One series that tells the resource's attributes, for joins.
    fn target_info(
        &mut self,
        attributes: &[KeyValue],
        identity: &[(&'static str, String)],
        (first, last): (Timestamp, Timestamp),
    ) -> Result<(), WireError> {
        let identifying = |pair: &&KeyValue| SERVICE.contains(&pair.key.as_str());
        if identity.is_empty() || attributes.iter().all(|pair| identifying(&pair)) {
            return Ok(());
        }
        let keep = self.settings.keep_identifying_resource_attributes;
        let mut labels = LabelList::default();
        labels.add(attributes.iter().filter(|pair| keep || !identifying(pair)), self.settings.translation);
        identity.iter().for_each(|(name, value)| labels.set(name, value));
        self.count_series()?;
        self.request.label(METRIC_NAME, "target_info");
        labels
            .iter()
            .filter(|(name, _)| *name != METRIC_NAME)
            .for_each(|(name, value)| self.request.label(name, value));
        let first = first.max(last.saturating_sub(TARGET_INFO_MS * TARGET_INFO_SAMPLES));
        let mut t = first;
        while t < last {
            self.request.sample(Sample { timestamp: t, value: 1.0 }, 0);
            t = t.saturating_add(TARGET_INFO_MS);
        }
        self.request.sample(Sample { timestamp: last, value: 1.0 }, 0);
        self.request.metadata(2, "Target metadata", "");
        self.request.end();
        Ok(())
    }

    fn count_series(&mut self) -> Result<(), WireError> {
        self.series += 1;
        if self.series > self.settings.max_series {
            return Err(WireError::refused(format!(
                "OTLP request becomes more than {} series; send smaller batches",
                self.settings.max_series
            )));
        }
        Ok(())
    }
}

/// When a point was taken, and since when it counts (0: unknown).
#[derive(Clone, Copy)]
struct At {
    start: Timestamp,
    time: Timestamp,
}

impl At {
    fn new(start_nanos: u64, nanos: u64) -> At {
        At { start: millis(start_nanos), time: millis(nanos) }
    }
}

fn millis(nanos: u64) -> Timestamp {
    (nanos / 1_000_000) as i64
}

/// A bound or rank as a label has it.
fn bound_text(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => format!("{value}"),
    }
}

fn value_of(exemplar: &Exemplar) -> f64 {
    match exemplar.value {
        Some(exemplar::Value::AsDouble(v)) => v,
        Some(exemplar::Value::AsInt(v)) => v as f64,
        None => 0.0,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Labels `job` and `instance`, where the resource says who it is.
fn identity(attributes: &[KeyValue]) -> Vec<(&'static str, String)> {
    let get = |key: &str| attributes::get(attributes, key);
    let job = get("service.name").map(|name| match get("service.namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.into_owned(),
    });
    let instance = get("service.instance.id").map(|id| id.into_owned());
    [("job", job), ("instance", instance)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// How a metric is named, its type by its number, its temporality if it has one, and how many points it has.
fn shape(data: &Data) -> (Kind, u8, Option<i32>, usize) {
    match data {
        Data::Gauge(gauge) => (Kind::Gauge, 2, None, gauge.data_points.len()),
        Data::Sum(sum) if sum.is_monotonic => {
            (Kind::Counter, 1, Some(sum.aggregation_temporality), sum.data_points.len())
        }
        Data::Sum(sum) => (Kind::Other, 2, Some(sum.aggregation_temporality), sum.data_points.len()),
        Data::Histogram(h) => (Kind::Other, 3, Some(h.aggregation_temporality), h.data_points.len()),
        Data::ExponentialHistogram(h) => {
            (Kind::Other, 3, Some(h.aggregation_temporality), h.data_points.len())
        }
        Data::Summary(summary) => (Kind::Other, 5, None, summary.data_points.len()),
    }
}
