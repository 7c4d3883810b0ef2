//! Decodes an `ExportMetricsServiceRequest` written as JSON.
//!
//! The mapping is protobuf's, with OTLP's exceptions: keys in lowerCamelCase, trace and span ids in hex, enums as
//! numbers. 64-bit numbers come as strings or as numbers. Unknown keys are skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Request;
use super::bounded::{MAX_BUCKETS, MAX_MESSAGES};
use super::common::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value};
use super::metrics::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use super::resource::Resource;
use crate::WireError;

/// Decodes JSON. What will take memory is counted before anything is allocated.
pub fn decode_json(body: &[u8]) -> Result<Request, WireError> {
    let count = |byte: u8| body.iter().filter(|b| **b == byte).count();
    if count(b'{') > MAX_MESSAGES || count(b',') > MAX_BUCKETS || count(b'[') > MAX_MESSAGES {
        return Err(WireError::refused(format!(
            "OTLP request has more than {MAX_MESSAGES} points and attributes, or {MAX_BUCKETS} values; send smaller batches"
        )));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| WireError::invalid(format!("OTLP request is not JSON: {error}")))?;
    let root = Object { path: "request", map: object("request", &value)? };
    Ok(Request { resource_metrics: root.list("resourceMetrics", resource_metrics)? })
}

/// An object, and how to call it in errors.
struct Object<'a> {
    path: &'static str,
    map: &'a Map<String, Value>,
}

fn wrong(path: &str, key: &str, want: &str) -> WireError {
    WireError::invalid(format!("OTLP request: {key} of a {path} must be {want}"))
}

fn object<'a>(path: &'static str, value: &'a Value) -> Result<&'a Map<String, Value>, WireError> {
    value.as_object().ok_or_else(|| WireError::invalid(format!("OTLP request: a {path} must be an object")))
}

fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    let number: i128 = match value {
        Value::String(text) => text.parse().ok()?,
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => n.into(),
            (_, Some(n)) => n.into(),
            // 1.0 is a whole number too.
            _ => n.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 9e18)? as i128,
        },
        _ => return None,
    };
    T::try_from(number).ok()
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        },
        _ => None,
    }
}

impl<'a> Object<'a> {
    /// The value at a key; null is as good as none.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn list<T>(&self, key: &str, read: fn(&Value) -> Result<T, WireError>) -> Result<Vec<T>, WireError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().map(read).collect(),
            Some(_) => Err(wrong(self.path, key, "a list")),
        }
    }

    fn numbers<T>(&self, key: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<T>, WireError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all
                .iter()
                .map(|value| read(value).ok_or_else(|| wrong(self.path, key, "a list of numbers")))
                .collect(),
            Some(_) => Err(wrong(self.path, key, "a list of numbers")),
        }
    }

    fn one<T>(&self, key: &str, read: fn(&Value) -> Result<T, WireError>) -> Result<Option<T>, WireError> {
        self.get(key).map(read).transpose()
    }

    fn text(&self, key: &str) -> Result<String, WireError> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(self.path, key, "a string")),
        }
    }

    fn whole<T: TryFrom<i128> + Default>(&self, key: &str) -> Result<T, WireError> {
        let read = |value| integer(value).ok_or_else(|| wrong(self.path, key, "a whole number in range"));
        self.get(key).map_or(Ok(T::default()), read)
    }

    fn double(&self, key: &str) -> Result<Option<f64>, WireError> {
        self.get(key).map(|value| double(value).ok_or_else(|| wrong(self.path, key, "a number"))).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool, WireError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(self.path, key, "true or false")),
        }
    }

    fn temporality(&self) -> Result<i32, WireError> {
        const KEY: &str = "aggregationTemporality";
        match self.get(KEY) {
            Some(Value::String(name)) => AggregationTemporality::from_str_name(name)
                .map(|t| t as i32)
                .ok_or_else(|| wrong(self.path, KEY, "1 (delta) or 2 (cumulative)")),
            _ => self.whole(KEY),
        }
    }

    fn id(&self, key: &str) -> Result<Vec<u8>, WireError> {
        let text = self.text(key)?;
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok()?;
            (pair.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| wrong(self.path, key, "hex digits"))
    }
}

fn resource_metrics(value: &Value) -> Result<ResourceMetrics, WireError> {
    let at = Object { path: "resourceMetrics", map: object("resourceMetrics", value)? };
    Ok(ResourceMetrics {
        resource: at.one("resource", resource)?,
        scope_metrics: at.list("scopeMetrics", scope_metrics)?,
        schema_url: at.text("schemaUrl")?,
    })
}

fn resource(value: &Value) -> Result<Resource, WireError> {
    let at = Object { path: "resource", map: object("resource", value)? };
    Ok(Resource { attributes: at.list("attributes", pair)?, dropped_attributes_count: 0 })
}

fn scope_metrics(value: &Value) -> Result<ScopeMetrics, WireError> {
    let at = Object { path: "scopeMetrics", map: object("scopeMetrics", value)? };
    Ok(ScopeMetrics {
        scope: at.one("scope", scope)?,
        metrics: at.list("metrics", metric)?,
        schema_url: at.text("schemaUrl")?,
    })
}

fn scope(value: &Value) -> Result<InstrumentationScope, WireError> {
    let at = Object { path: "scope", map: object("scope", value)? };
    Ok(InstrumentationScope {
        name: at.text("name")?,
        version: at.text("version")?,
        attributes: at.list("attributes", pair)?,
        dropped_attributes_count: 0,
    })
}

fn metric(value: &Value) -> Result<Metric, WireError> {
    let at = Object { path: "metric", map: object("metric", value)? };
    let part = |key: &'static str| -> Result<Option<Object<'_>>, WireError> {
        at.get(key).map(|value| Ok(Object { path: key, map: object(key, value)? })).transpose()
    };
    const POINTS: &str = "dataPoints";
    let data = if let Some(gauge) = part("gauge")? {
        Some(Data::Gauge(Gauge { data_points: gauge.list(POINTS, number)? }))
    } else if let Some(sum) = part("sum")? {
        Some(Data::Sum(Sum {
            data_points: sum.list(POINTS, number)?,
            aggregation_temporality: sum.temporality()?,
            is_monotonic: sum.flag("isMonotonic")?,
        }))
    } else if let Some(h) = part("histogram")? {
        let (data_points, aggregation_temporality) = (h.list(POINTS, histogram)?, h.temporality()?);
        Some(Data::Histogram(Histogram { data_points, aggregation_temporality }))
    } else if let Some(h) = part("exponentialHistogram")? {
        let (data_points, aggregation_temporality) = (h.list(POINTS, exponential)?, h.temporality()?);
        Some(Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality }))
    } else if let Some(s) = part("summary")? {
        Some(Data::Summary(Summary { data_points: s.list(POINTS, summary)? }))
    } else {
        None
    };
    Ok(Metric {
        name: at.text("name")?,
        description: at.text("description")?,
        unit: at.text("unit")?,
        metadata: Vec::new(),
        data,
    })
}

fn number(value: &Value) -> Result<NumberDataPoint, WireError> {
    let at = Object { path: "data point", map: object("data point", value)? };
    let value = match at.double("asDouble")? {
        Some(v) => Some(number_data_point::Value::AsDouble(v)),
        None if at.get("asInt").is_some() => Some(number_data_point::Value::AsInt(at.whole("asInt")?)),
        None => None,
    };
    Ok(NumberDataPoint {
        attributes: at.list("attributes", pair)?,
        start_time_unix_nano: at.whole("startTimeUnixNano")?,
        time_unix_nano: at.whole("timeUnixNano")?,
        exemplars: at.list("exemplars", exemplar)?,
        flags: at.whole("flags")?,
        value,
    })
}

fn histogram(value: &Value) -> Result<HistogramDataPoint, WireError> {
    let at = Object { path: "histogram data point", map: object("histogram data point", value)? };
    Ok(HistogramDataPoint {
        attributes: at.list("attributes", pair)?,
        start_time_unix_nano: at.whole("startTimeUnixNano")?,
        time_unix_nano: at.whole("timeUnixNano")?,
        count: at.whole("count")?,
        sum: at.double("sum")?,
        bucket_counts: at.numbers("bucketCounts", integer)?,
        explicit_bounds: at.numbers("explicitBounds", double)?,
        exemplars: at.list("exemplars", exemplar)?,
        flags: at.whole("flags")?,
        min: at.double("min")?,
        max: at.double("max")?,
    })
}

fn exponential(value: &Value) -> Result<ExponentialHistogramDataPoint, WireError> {
    let at = Object { path: "exponential data point", map: object("exponential data point", value)? };
    Ok(ExponentialHistogramDataPoint {
        attributes: at.list("attributes", pair)?,
        start_time_unix_nano: at.whole("startTimeUnixNano")?,
        time_unix_nano: at.whole("timeUnixNano")?,
        count: at.whole("count")?,
        sum: at.double("sum")?,
        scale: at.whole("scale")?,
        zero_count: at.whole("zeroCount")?,
        positive: at.one("positive", buckets)?,
        negative: at.one("negative", buckets)?,
        flags: at.whole("flags")?,
        exemplars: at.list("exemplars", exemplar)?,
        min: at.double("min")?,
        max: at.double("max")?,
        zero_threshold: at.double("zeroThreshold")?.unwrap_or(0.0),
    })
}

fn buckets(value: &Value) -> Result<Buckets, WireError> {
    let at = Object { path: "buckets", map: object("buckets", value)? };
    Ok(Buckets { offset: at.whole("offset")?, bucket_counts: at.numbers("bucketCounts", integer)? })
}

fn summary(value: &Value) -> Result<SummaryDataPoint, WireError> {
    let at = Object { path: "summary data point", map: object("summary data point", value)? };
    Ok(SummaryDataPoint {
        attributes: at.list("attributes", pair)?,
        start_time_unix_nano: at.whole("startTimeUnixNano")?,
        time_unix_nano: at.whole("timeUnixNano")?,
        count: at.whole("count")?,
        sum: at.double("sum")?.unwrap_or(0.0),
        quantile_values: at.list("quantileValues", quantile)?,
        flags: at.whole("flags")?,
    })
}

fn quantile(value: &Value) -> Result<ValueAtQuantile, WireError> {
    let at = Object { path: "quantile value", map: object("quantile value", value)? };
    Ok(ValueAtQuantile {
        quantile: at.double("quantile")?.unwrap_or(0.0),
        value: at.double("value")?.unwrap_or(0.0),
    })
}

fn exemplar(value: &Value) -> Result<Exemplar, WireError> {
    let at = Object { path: "exemplar", map: object("exemplar", value)? };
    let value = match at.double("asDouble")? {
        Some(v) => Some(exemplar::Value::AsDouble(v)),
        None if at.get("asInt").is_some() => Some(exemplar::Value::AsInt(at.whole("asInt")?)),
        None => None,
    };
    Ok(Exemplar {
        filtered_attributes: at.list("filteredAttributes", pair)?,
        time_unix_nano: at.whole("timeUnixNano")?,
        span_id: at.id("spanId")?,
        trace_id: at.id("traceId")?,
        value,
    })
}

fn pair(value: &Value) -> Result<KeyValue, WireError> {
    let at = Object { path: "attribute", map: object("attribute", value)? };
    Ok(KeyValue { key: at.text("key")?, value: at.one("value", any)? })
}

fn any(value: &Value) -> Result<AnyValue, WireError> {
    let at = Object { path: "value", map: object("value", value)? };
    let value = if at.get("stringValue").is_some() {
        Some(any_value::Value::StringValue(at.text("stringValue")?))
    } else if at.get("boolValue").is_some() {
        Some(any_value::Value::BoolValue(at.flag("boolValue")?))
    } else if at.get("intValue").is_some() {
        Some(any_value::Value::IntValue(at.whole("intValue")?))
    } else if let Some(v) = at.double("doubleValue")? {
        Some(any_value::Value::DoubleValue(v))
    } else if let Some(value) = at.get("arrayValue") {
        let list = Object { path: "arrayValue", map: object("arrayValue", value)? };
        Some(any_value::Value::ArrayValue(ArrayValue { values: list.list("values", any)? }))
    } else if let Some(value) = at.get("kvlistValue") {
        let list = Object { path: "kvlistValue", map: object("kvlistValue", value)? };
        Some(any_value::Value::KvlistValue(KeyValueList { values: list.list("values", pair)? }))
    } else if at.get("bytesValue").is_some() {
        let bytes = STANDARD.decode(at.text("bytesValue")?);
        Some(any_value::Value::BytesValue(bytes.map_err(|_| wrong(at.path, "bytesValue", "base64"))?))
    } else {
        None
    };
    Ok(AnyValue { value })
}
