//! The description of the API that is served at `/api/v1/openapi.yaml`, written from one table.
//!
//! A test holds the table against the routes, so that the document has every path that is served and no other.

use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use http::header;

/// One path: its methods, what it gives, and the parameters it reads.
pub(super) struct Entry {
    pub path: &'static str,
    pub methods: &'static [&'static str],
    pub summary: &'static str,
    pub parameters: &'static [&'static [(&'static str, Kind)]],
}

/// How a parameter is written.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// As [`Kind::Text`], and may not be absent.
    Required,
    Texts,
    RequiredTexts,
    Time,
    RequiredTime,
    Duration,
    Integer,
    Switch,
    /// A duration, or "auto".
    Resolution,
    Engine,
    /// JSON.
    Shard,
    /// A part of the path.
    Segment,
}

use Kind::*;

/// What every read takes besides: Thanos's parameters.
const READ: &[(&str, Kind)] = &[
    ("dedup", Switch),
    ("replicaLabels[]", Texts),
    ("partial_response", Switch),
    ("storeMatch[]", Texts),
    ("max_source_resolution", Resolution),
];
const QUERY: &[(&str, Kind)] = &[
    ("query", Required),
    ("timeout", Duration),
    ("limit", Integer),
    ("lookback_delta", Duration),
    ("stats", Text),
    ("engine", Engine),
    ("analyze", Switch),
    ("shard_info", Shard),
];
const LIST: &[(&str, Kind)] = &[("start", Time), ("end", Time), ("limit", Integer), ("timeout", Duration)];
const BOTH: &[&str] = &["get", "post"];
const GET: &[&str] = &["get"];

const fn entry(
    path: &'static str,
    methods: &'static [&'static str],
    summary: &'static str,
    parameters: &'static [&'static [(&'static str, Kind)]],
) -> Entry {
    Entry { path, methods, summary, parameters }
}

/// Every path of [`super::router`].
pub(super) const ENTRIES: &[Entry] = &[
    entry("/api/v1/query", BOTH, "Evaluates a query at one time.", &[QUERY, &[("time", Time)], READ]),
    entry(
        "/api/v1/query_range",
        BOTH,
        "Evaluates a query at every step of a range.",
        &[QUERY, &[("start", RequiredTime), ("end", RequiredTime), ("step", Duration)], READ],
    ),
    entry(
        "/api/v1/query_explain",
        BOTH,
        "The plan of a query at one time.",
        &[QUERY, &[("time", Time)], READ],
    ),
    entry(
        "/api/v1/query_range_explain",
        BOTH,
        "The plan of a query over a range.",
        &[QUERY, &[("start", RequiredTime), ("end", RequiredTime), ("step", Duration)], READ],
    ),
    entry(
        "/api/v1/query_exemplars",
        BOTH,
        "Exemplars of a query's series.",
        &[&[("query", Required), ("start", Time), ("end", Time)], READ],
    ),
    entry("/api/v1/format_query", BOTH, "The query as it was understood.", &[&[("query", Required)]]),
    entry("/api/v1/parse_query", BOTH, "The query's tree.", &[&[("query", Required)]]),
    entry("/api/v1/series", BOTH, "Label sets of series.", &[&[("match[]", RequiredTexts)], LIST, READ]),
    entry("/api/v1/labels", BOTH, "Names of labels.", &[&[("match[]", Texts)], LIST, READ]),
    entry(
        "/api/v1/label/{name}/values",
        GET,
        "Values of a label.",
        &[&[("name", Segment), ("match[]", Texts)], LIST, READ],
    ),
    entry("/api/v1/read", &["post"], "Remote read of Prometheus: a snappy-compressed ReadRequest.", &[READ]),
    entry(
        "/api/v1/metadata",
        GET,
        "Type, help and unit of metrics.",
        &[&[("metric", Text), ("limit", Integer), ("limit_per_metric", Integer)]],
    ),
    entry("/api/v1/targets/metadata", GET, "Metadata by target; nothing is scraped here.", &[]),
    entry(
        "/api/v1/targets",
        GET,
        "Targets of the Prometheus servers behind sidecars.",
        &[&[("state", Text), ("scrapePool", Text)], READ],
    ),
    entry("/api/v1/scrape_pools", GET, "Names of their scrape pools.", &[READ]),
    entry("/api/v1/alertmanagers", GET, "Alertmanagers; no alerts are sent from here.", &[]),
    entry(
        "/api/v1/rules",
        GET,
        "Rules of rulers, by group.",
        &[
            &[
                ("type", Text),
                ("rule_name[]", Texts),
                ("rule_group[]", Texts),
                ("file[]", Texts),
                ("match[]", Texts),
                ("exclude_alerts", Switch),
                ("group_limit", Integer),
                ("group_next_token", Text),
            ],
            READ,
        ],
    ),
    entry("/api/v1/alerts", GET, "Alerts of rulers.", &[READ]),
    entry("/api/v1/notifications", GET, "Notifications; there are none.", &[]),
    entry("/api/v1/notifications/live", GET, "Notifications as they come, as a stream of events.", &[]),
    entry("/api/v1/features", GET, "What this server can do.", &[]),
    entry(
        "/api/v1/scrape_pools/config",
        GET,
        "A scrape pool's configuration; there is no pool.",
        &[&[("scrapePool", Required)]],
    ),
    entry(
        "/api/v1/targets/relabel_steps",
        GET,
        "A scrape pool's relabelling; there is no pool.",
        &[&[("scrapePool", Required), ("labels", Text)]],
    ),
    entry("/api/v1/search/metric_names", BOTH, "Search for metrics; off.", &[]),
    entry("/api/v1/search/label_names", BOTH, "Search for label names; off.", &[]),
    entry("/api/v1/search/label_values", BOTH, "Search for label values; off.", &[]),
    entry("/version", GET, "The version of the API that is emulated.", &[]),
    entry("/api/v1/status/buildinfo", GET, "The version of the API that is emulated.", &[]),
    entry("/api/v1/status/runtimeinfo", GET, "Figures of the process.", &[]),
    entry("/api/v1/status/flags", GET, "Settings as flags.", &[]),
    entry("/api/v1/status/config", GET, "The configuration file.", &[]),
    entry("/api/v1/status/walreplay", GET, "The replay of the log.", &[]),
    entry(
        "/api/v1/status/self_metrics",
        GET,
        "Metrics of this process, as JSON.",
        &[&[("metric_name_pattern", Text)]],
    ),
    entry(
        "/api/v1/status/tsdb",
        GET,
        "What a tenant's recent series are made of.",
        &[&[("limit", Integer), ("all_tenants", Switch)]],
    ),
    entry("/api/v1/status/tsdb/blocks", GET, "A tenant's local blocks.", &[]),
    entry("/api/v1/openapi.yaml", GET, "This document.", &[]),
    entry(
        "/federate",
        GET,
        "The newest sample of series, as a scraped page.",
        &[&[("match[]", Texts)], READ],
    ),
];

pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], document()).into_response()
}

/// The document, in YAML.
pub(super) fn document() -> String {
    let mut out = String::from(concat!(
        "openapi: 3.1.0\n",
        "info:\n  title: Tributary HTTP API\n",
        "  description: The query API of Prometheus, with Thanos's parameters; roles add paths of their own.\n",
        "  version: \"",
        env!("CARGO_PKG_VERSION"),
        "\"\npaths:\n"
    ));
    for entry in ENTRIES {
        // Writing into a String cannot fail, here and below.
        let _ = writeln!(out, "  {:?}:", entry.path);
        for method in entry.methods {
            let id = entry.path.trim_start_matches("/api/v1/").replace(['/', '{', '}', '.'], "-");
            let id = id.trim_matches('-').replace("--", "-");
            let _ = writeln!(out, "    {method}:\n      operationId: {method}-{id}");
            let _ = writeln!(out, "      summary: {:?}", entry.summary);
            operation(&mut out, entry, method);
        }
    }
    out.push_str(COMPONENTS);
    out
}

/// A parameter's schema, with an example that means something.
fn schema(name: &str, kind: Kind) -> &'static str {
    match kind {
        Required if name == "query" => "{type: string, example: up}",
        Time | RequiredTime => "{type: string, example: \"1767361020\"}",
        Duration => "{type: string, example: 15s}",
        Resolution => "{type: string, example: 5m}",
        Texts | RequiredTexts if name == "match[]" => {
            "{type: array, items: {type: string, example: up}, example: [up]}"
        }
        Texts | RequiredTexts if name == "storeMatch[]" => {
            "{type: array, items: {type: string}, example: ['{__address__=~\".*\"}']}"
        }
        Texts | RequiredTexts => "{type: array, items: {type: string}}",
        Integer => "{type: integer, format: int64, example: 10}",
        Switch => "{type: boolean}",
        Engine => "{type: string, enum: [prometheus, thanos]}",
        Shard => {
            "{type: string, example: '{\"shard_index\":0,\"total_shards\":2,\"by\":true,\"labels\":[\"job\"]}'}"
        }
        Segment => "{type: string, example: job}",
        Text | Required => "{type: string}",
    }
}

fn operation(out: &mut String, entry: &Entry, method: &str) {
    let form = method == "post" && entry.path != "/api/v1/read";
    let all: Vec<_> = entry.parameters.iter().flat_map(|part| part.iter()).collect();
    let is_required = |kind: &Kind| matches!(kind, Segment | Required | RequiredTexts | RequiredTime);
    let (of_url, of_form): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, kind)| !form || matches!(kind, Segment));
    if !of_url.is_empty() {
        out.push_str("      parameters:\n");
    }
    for (name, kind) in of_url {
        let place = if matches!(kind, Segment) { "path" } else { "query" };
        let (required, schema) = (is_required(&kind), schema(name, kind));
        // Writing into a String cannot fail, here and below.
        let _ =
            writeln!(out, "      - {{name: {name:?}, in: {place}, required: {required}, schema: {schema}}}");
    }
    if form {
        out.push_str(
            "      requestBody:\n        description: The parameters as a form.\n        content:\n          \
             application/x-www-form-urlencoded:\n            schema:\n              type: object\n",
        );
        let required: Vec<&str> =
            of_form.iter().filter(|(_, kind)| is_required(kind)).map(|(name, _)| *name).collect();
        if !required.is_empty() {
            let _ = writeln!(out, "              required: {required:?}");
        }
        if !of_form.is_empty() {
            out.push_str("              properties:\n");
        }
        for (name, kind) in of_form {
            let _ = writeln!(out, "                {name:?}: {}", schema(name, kind));
        }
    }
    let of_json =
        |schema: &str| format!("application/json: {{schema: {{$ref: '#/components/schemas/{schema}'}}}}");
    let success = match entry.path {
        "/federate" => "text/plain: {schema: {type: string}}".to_owned(),
        "/api/v1/openapi.yaml" => "application/yaml: {}".to_owned(),
        "/api/v1/read" => "application/x-protobuf: {}".to_owned(),
        "/api/v1/notifications/live" => "text/event-stream: {schema: {type: string}}".to_owned(),
        "/api/v1/query" | "/api/v1/query_range" => of_json("Evaluated"),
        "/api/v1/query_explain" | "/api/v1/query_range_explain" => of_json("Explained"),
        "/api/v1/labels" | "/api/v1/label/{name}/values" => of_json("Texts"),
        "/api/v1/series" => of_json("LabelSets"),
        "/api/v1/format_query" => of_json("Text"),
        "/api/v1/query_exemplars" => of_json("Exemplars"),
        _ => of_json("Success"),
    };
    let failure = match entry.path {
        "/federate" | "/api/v1/read" => "text/plain: {schema: {type: string}}".to_owned(),
        _ => of_json("Error"),
    };
    let nothing = match entry.path {
        "/api/v1/query_exemplars" => "        \"204\":\n          description: The query selects nothing.\n",
        _ => "",
    };
    let _ = writeln!(
        out,
        "      responses:\n        \"200\":\n          description: Success.\n          content:\n            \
         {success}\n{nothing}        default:\n          description: Failure.\n          content:\n            \
         {failure}"
    );
}

const COMPONENTS: &str = "\
components:
  schemas:
    Success: {$ref: '#/components/schemas/Any'}
    Any:
      type: object
      required: [status, data]
      properties:
        status: {type: string, enum: [success]}
        data: {}
        warnings: {type: array, items: {type: string}}
        infos: {type: array, items: {type: string}}
      additionalProperties: false
    Text: {allOf: [{$ref: '#/components/schemas/Any'}, {properties: {data: {type: string}}}]}
    Texts: {allOf: [{$ref: '#/components/schemas/Any'}, {properties: {data: {type: array, items: {type: string}}}}]}
    LabelSet: {type: object, additionalProperties: {type: string}}
    LabelSets:
      allOf:
      - {$ref: '#/components/schemas/Any'}
      - {properties: {data: {type: array, items: {$ref: '#/components/schemas/LabelSet'}}}}
    Exemplars:
      allOf:
      - {$ref: '#/components/schemas/Any'}
      - properties:
          data:
            type: array
            items:
              type: object
              required: [seriesLabels, exemplars]
              properties:
                seriesLabels: {$ref: '#/components/schemas/LabelSet'}
                exemplars:
                  type: array
                  items:
                    type: object
                    required: [labels, value, timestamp]
                    properties:
                      labels: {$ref: '#/components/schemas/LabelSet'}
                      value: {type: string}
                      timestamp: {type: number}
    Value:
      description: A time in seconds, and a number as text or a histogram.
      type: array
      minItems: 2
      maxItems: 2
      prefixItems: [{type: number}, {anyOf: [{type: string}, {$ref: '#/components/schemas/Histogram'}]}]
    Histogram:
      type: object
      required: [count, sum]
      properties:
        count: {type: string}
        sum: {type: string}
        buckets: {type: array, items: {type: array, minItems: 4, maxItems: 4}}
      additionalProperties: false
    Series:
      type: object
      required: [metric]
      properties:
        metric: {$ref: '#/components/schemas/LabelSet'}
        value: {$ref: '#/components/schemas/Value'}
        histogram: {$ref: '#/components/schemas/Value'}
        values: {type: array, minItems: 1, items: {$ref: '#/components/schemas/Value'}}
        histograms: {type: array, minItems: 1, items: {$ref: '#/components/schemas/Value'}}
      additionalProperties: false
    Evaluated:
      allOf:
      - {$ref: '#/components/schemas/Any'}
      - properties:
          data:
            type: object
            required: [resultType, result]
            oneOf:
            - properties:
                resultType: {type: string, enum: [vector, matrix]}
                result: {type: array, items: {$ref: '#/components/schemas/Series'}}
            - properties:
                resultType: {type: string, enum: [scalar, string]}
                result: {$ref: '#/components/schemas/Value'}
            properties:
              stats: {type: object}
              analysis: {$ref: '#/components/schemas/Operator'}
    Operator:
      type: object
      required: [name]
      properties:
        name: {type: string}
        executionTime: {type: string}
        peakSamples: {type: integer}
        totalSamples: {type: integer}
        children: {type: array, minItems: 1, items: {$ref: '#/components/schemas/Operator'}}
      additionalProperties: false
    Explained: {allOf: [{$ref: '#/components/schemas/Any'}, {properties: {data: {$ref: '#/components/schemas/Operator'}}}]}
    Error:
      type: object
      required: [status, errorType, error]
      properties:
        status: {type: string, enum: [error]}
        errorType:
          type: string
          enum: [bad_data, execution, canceled, timeout, internal, unavailable, not_found]
        error: {type: string}
      additionalProperties: false
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn parsed() -> Value {
        serde_saphyr::from_str(&document()).unwrap()
    }

    #[test]
    fn every_path_served_is_described_and_no_other() {
        // Roles that serve the one list serve the other.
        let routes = super::super::routes().into_iter().map(|(path, _)| path);
        let served: BTreeSet<&str> = routes.chain(super::super::TSDB_PATHS).collect();
        let document = parsed();
        let described: BTreeSet<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(described, served);
        for path in super::super::PATHS {
            assert!(served.contains(path.replace("__name__", "{name}").as_str()), "{path}");
        }
        // No two operations share a name.
        let paths = document["paths"].as_object().unwrap().values();
        let ids: Vec<&str> = paths
            .flat_map(|path| path.as_object().unwrap().values().map(|op| op["operationId"].as_str().unwrap()))
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }

    fn names(operation: &Value) -> BTreeSet<String> {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        parameters.iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Against Prometheus's own document, where it lies beside the repository.
    #[test]
    fn what_upstream_describes_is_described_here() {
        let golden = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../shared/conformance/openapi/openapi_3.1_golden.yaml"
        );
        let Ok(text) = std::fs::read_to_string(golden) else { return };
        let upstream: Value = serde_saphyr::from_str(&text).unwrap();
        // Read upstream and without effect on our empty answers.
        let idle = ["metric", "match_target", "limit"];
        let thanos: BTreeSet<String> = READ
            .iter()
            .map(|(name, _)| *name)
            .chain(["engine", "analyze", "shard_info", "all_tenants"])
            .map(str::to_owned)
            .collect();
        let mut compared = 0;
        for entry in ENTRIES {
            let Some(theirs) = entry.path.strip_prefix("/api/v1").and_then(|p| upstream["paths"].get(p))
            else {
                continue;
            };
            compared += 1;
            for method in entry.methods {
                assert!(theirs.get(method).is_some(), "{method} {}", entry.path);
            }
            let ours = names(&parsed()["paths"][entry.path][entry.methods[0]]);
            let theirs = names(&theirs[entry.methods[0]]);
            let reads = ours.contains("dedup");
            // What is off reads nothing.
            let off = entry.path.starts_with("/api/v1/search/");
            for missing in theirs.difference(&ours).filter(|_| !off) {
                assert!(!reads && idle.contains(&missing.as_str()), "{}: {missing}", entry.path);
            }
            for more in ours.difference(&theirs) {
                assert!(thanos.contains(more) || more == "timeout", "{}: {more}", entry.path);
            }
        }
        assert!(compared > 18, "{compared}");
    }
}
