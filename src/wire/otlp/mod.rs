//! OTLP metrics as remote write 2.0: `body -> decode -> translate -> Request`, which then goes the way of any other.
//!
//! What Prometheus 3 does at `/api/v1/otlp/v1/metrics` is done here: names, units and types become names, attributes
//! become labels, histograms become classic or native ones. Points that cannot be stored are set aside with their
//! reason and cost nothing else.

mod attributes;
mod bounded;
mod histograms;
mod json;
mod names;
mod translate;

pub use bounded::decode;
pub use json::decode_json;
pub use names::Translation;
pub use translate::{Aside, Settings, Translated, translate};

/// A decoded request.
pub type Request = crate::pb::opentelemetry::proto::collector::metrics::v1::ExportMetricsServiceRequest;

pub(crate) use crate::pb::opentelemetry::proto::common::v1 as common;
pub(crate) use crate::pb::opentelemetry::proto::metrics::v1 as metrics;
pub(crate) use crate::pb::opentelemetry::proto::resource::v1 as resource;
