//! The limits file: Thanos's shape with keys of ours, read strictly, every fault with its line.
//!
//! ```yaml
//! write:
//!   global: {max_concurrency: 30}
//!   default:
//!     request: {size_bytes_limit: 1048576, series_limit: 5000, samples_limit: 5000}
//!     head_series_limit: 1000000
//!   tenants:
//!     team-a: {head_series_limit: 0, series_per_metric_limit: 20000}
//! ```
//! A key that a tenant does not have is taken from `default`; 0 is no limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::TenantId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use settings::{Scalar, Span};
use storage::TenantLimits;

/// What the file says, settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Writes in flight at once; 0 is no limit.
    pub max_concurrency: u64,
    pub default: Profile,
    pub tenants: BTreeMap<TenantId, Profile>,
    /// Keys that are read and mean nothing here.
    pub idle: Vec<&'static str>,
}

/// What one tenant may do. 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Bytes of a request, as sent and as decompressed.
    pub size_bytes: u64,
    /// Series of a request.
    pub request_series: u64,
    /// Samples of a request.
    pub request_samples: u64,
    pub samples_per_second: u64,
    /// Of bodies, as they are sent.
    pub bytes_per_second: u64,
    /// Active series in all receivers of the ring together, every copy counted, as Thanos counts them; none
    /// where the file does not say.
    pub head_series: Option<u64>,
    pub pairs: Pairs,
    /// What the engine of each receiver keeps to; `series` there follows from `head_series`.
    pub engine: TenantLimits,
}

/// What of HA pairs a tenant has otherwise than the flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    pub accepted: Option<bool>,
    pub cluster_label: Option<Arc<str>>,
    pub replica_label: Option<Arc<str>>,
    pub max_clusters: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Root {
    write: Write,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Write {
    global: Global,
    default: Tenant,
    tenants: BTreeMap<String, Option<Tenant>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Global {
    max_concurrency: u64,
    meta_monitoring_url: Option<IgnoredAny>,
    meta_monitoring_http_client: Option<IgnoredAny>,
    meta_monitoring_limit_query: Option<IgnoredAny>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    size_bytes_limit: Option<u64>,
    series_limit: Option<u64>,
    samples_limit: Option<u64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tenant {
    request: Request,
    head_series_limit: Option<u64>,
    series_per_metric_limit: Option<u64>,
    new_series_per_second_limit: Option<u64>,
    samples_per_second_limit: Option<u64>,
    bytes_per_second_limit: Option<u64>,
    label_names_per_series_limit: Option<u32>,
    label_name_length_limit: Option<u32>,
    label_value_length_limit: Option<u32>,
    out_of_order_time_window: Option<String>,
    exemplars_limit: Option<u64>,
    accept_ha_samples: Option<bool>,
    ha_cluster_label: Option<String>,
    ha_replica_label: Option<String>,
    ha_max_clusters: Option<u64>,
}

/// Reads the text. `base`: what is not in the file; `widest`: the node's out-of-order window in milliseconds,
/// which tenants can only narrow.
pub fn parse(text: &str, base: &Profile, widest: i64) -> Result<Document, String> {
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    if text.lines().all(blank) {
        return Ok(Document { default: base.clone(), ..Document::default() });
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let root: Root = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default().to_owned();
        match error.location() {
            Some(at) => format!("line {}: {said}", at.line()),
            None => said,
        }
    })?;
    let Write { global, default, tenants } = root.write;
    let place = |part: &str| match lines_with(text, part).next() {
        Some(line) => format!("line {line}: "),
        None => String::new(),
    };
    let settled = |tenant: &Tenant, under: &Profile| {
        settle(tenant, under, widest).map_err(|(key, value, why)| {
            format!("{}{key} {value:?} {why}", place(&format!("{key}: {value}")))
        })
    };
    let default = settled(&default, base)?;
    let mut all = BTreeMap::new();
    for (name, tenant) in tenants {
        let id = TenantId::new(&name)
            .map_err(|error| format!("{}tenant {name:?}: {error}", place(&format!("{name}:"))))?;
        all.insert(id, settled(&tenant.unwrap_or_default(), &default)?);
    }
    let idle = [
        ("meta_monitoring_url", global.meta_monitoring_url.is_some()),
        ("meta_monitoring_http_client", global.meta_monitoring_http_client.is_some()),
        ("meta_monitoring_limit_query", global.meta_monitoring_limit_query.is_some()),
    ];
    Ok(Document {
        max_concurrency: global.max_concurrency,
        default,
        tenants: all,
        idle: idle.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect(),
    })
}

type Fault = (&'static str, String, String);

fn settle(tenant: &Tenant, under: &Profile, widest: i64) -> Result<Profile, Fault> {
    let Request { size_bytes_limit, series_limit, samples_limit } = tenant.request;
    let engine = &under.engine;
    let window = match &tenant.out_of_order_time_window {
        None => engine.out_of_order_window,
        Some(text) => {
            let fault = |why: String| ("out_of_order_time_window", text.clone(), why);
            let span = Span::parse(text).map_err(|why| fault(format!("is not a length of time: {why}")))?;
            if span.ms() > widest {
                return Err(fault(format!(
                    "is longer than --tsdb.out-of-order.time-window ({widest} ms), which a tenant can only narrow"
                )));
            }
            Some(span.ms())
        }
    };
    let label = |key, given: &Option<String>, under: &Option<Arc<str>>| match given.as_deref() {
        Some("") => Err((key, String::new(), "must not be empty".to_owned())),
        Some(name) => Ok(Some(Arc::from(name))),
        None => Ok(under.clone()),
    };
    let pairs = Pairs {
        accepted: tenant.accept_ha_samples.or(under.pairs.accepted),
        cluster_label: label("ha_cluster_label", &tenant.ha_cluster_label, &under.pairs.cluster_label)?,
        replica_label: label("ha_replica_label", &tenant.ha_replica_label, &under.pairs.replica_label)?,
        max_clusters: tenant.ha_max_clusters.or(under.pairs.max_clusters),
    };
    Ok(Profile {
        pairs,
        size_bytes: size_bytes_limit.unwrap_or(under.size_bytes),
        request_series: series_limit.unwrap_or(under.request_series),
        request_samples: samples_limit.unwrap_or(under.request_samples),
        samples_per_second: tenant.samples_per_second_limit.unwrap_or(under.samples_per_second),
        bytes_per_second: tenant.bytes_per_second_limit.unwrap_or(under.bytes_per_second),
        head_series: tenant.head_series_limit.or(under.head_series),
        engine: TenantLimits {
            series: engine.series,
            series_per_metric: tenant.series_per_metric_limit.unwrap_or(engine.series_per_metric),
            new_series_per_second: tenant.new_series_per_second_limit.unwrap_or(engine.new_series_per_second),
            label_names: tenant.label_names_per_series_limit.unwrap_or(engine.label_names),
            label_name_bytes: tenant.label_name_length_limit.unwrap_or(engine.label_name_bytes),
            label_value_bytes: tenant.label_value_length_limit.unwrap_or(engine.label_value_bytes),
            out_of_order_window: window,
            exemplars: tenant.exemplars_limit.or(engine.exemplars),
        },
    })
}

/// Lines, from 1, that hold `part` once quotes are left out.
fn lines_with<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bare = |line: &str| line.chars().filter(|c| !matches!(c, '"' | '\'')).collect::<String>();
    text.lines().zip(1..).filter(move |(line, _)| bare(line).contains(part)).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn read(text: &str) -> Result<Document, String> {
        parse(text, &Profile { samples_per_second: 7, ..Profile::default() }, 2 * HOUR)
    }

    #[test]
    fn the_shape_of_thanos_with_our_keys() {
        let document = read(
            "write:\n  global:\n    max_concurrency: 30\n    meta_monitoring_url: \"http://m:9090\"\n  \
             default:\n    request:\n      size_bytes_limit: 1024\n      series_limit: 1000\n      \
             samples_limit: 10\n    head_series_limit: 1000\n    series_per_metric_limit: 5\n    \
             out_of_order_time_window: 30m\n  tenants:\n    acme:\n      request:\n        series_limit: 0\n      \
             head_series_limit: 0\n      samples_per_second_limit: 9\n    ajax:\n",
        )
        .unwrap();
        assert_eq!((document.max_concurrency, document.idle.as_slice()), (30, &["meta_monitoring_url"][..]));
        let default = &document.default;
        assert_eq!((default.size_bytes, default.request_series, default.request_samples), (1024, 1000, 10));
        assert_eq!((default.head_series, default.samples_per_second), (Some(1000), 7));
        let acme = &document.tenants[&TenantId::new("acme").unwrap()];
        assert_eq!((acme.size_bytes, acme.request_series, acme.request_samples), (1024, 0, 10));
        assert_eq!((acme.head_series, acme.samples_per_second), (Some(0), 9));
        assert_eq!((acme.engine.series_per_metric, acme.engine.out_of_order_window), (5, Some(HOUR / 2)));
        assert_eq!(document.tenants[&TenantId::new("ajax").unwrap()], *default);
    }

    #[test]
    fn pairs_of_a_tenant() {
        let document = read(
            "write:\n  default: {accept_ha_samples: true, ha_cluster_label: dc}\n  tenants:\n    \
             a: {ha_replica_label: prom, ha_max_clusters: 3}\n    b: {accept_ha_samples: false}\n",
        )
        .unwrap();
        let of = |name: &str| document.tenants[&TenantId::new(name).unwrap()].pairs.clone();
        let dc = Some(Arc::from("dc"));
        assert_eq!(
            of("a"),
            Pairs {
                accepted: Some(true),
                cluster_label: dc.clone(),
                replica_label: Some(Arc::from("prom")),
                max_clusters: Some(3)
            }
        );
        assert_eq!(of("b"), Pairs { accepted: Some(false), cluster_label: dc, ..Pairs::default() });
    }

    #[test]
    fn the_example_limits_nothing() {
        let document = read(include_str!("../../../../config/limits.yaml")).unwrap();
        assert_eq!(
            document.default,
            Profile { samples_per_second: 7, head_series: Some(0), ..Profile::default() }
        );
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", "# no limits\n\n", "---\n", "write: {}\n"] {
            let document = read(text).unwrap();
            assert_eq!((document.default.samples_per_second, document.tenants.len()), (7, 0), "{text:?}");
        }
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line, part) in [
            ("write:\n  default:\n    head_series_limt: 3\n", "line 3", "head_series_limt"),
            ("write:\n  default:\n    head_series_limit: -3\n", "line 3", ""),
            ("write:\n  default:\n    head_series_limit: many\n", "line 3", ""),
            ("write:\n  tenants:\n    a:\n      request:\n        series: 1\n", "line 5", "series"),
            ("write:\n  tenants:\n    'a/b':\n      head_series_limit: 1\n", "line 3", "a/b"),
            ("write:\n  default:\n    out_of_order_time_window: 3h\n", "line 3", "can only narrow"),
            ("write:\n  default:\n    out_of_order_time_window: soon\n", "line 3", "not a length of time"),
            ("write:\n  default:\n    ha_cluster_label: ''\n", "line 3", "must not be empty"),
            ("rite:\n", "line 1", "rite"),
            ("write: [\n", "line", ""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(line) && error.contains(part), "{text:?}: {error}");
        }
    }
}
