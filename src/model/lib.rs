//! What the field talks about, as plain values: labels, matchers, samples, time and tenants.
//!
//! Every other crate speaks in these types. This crate does no I/O, reads no clock and knows no protocol,
//! file format or configuration.

mod conflict;
mod error;
pub mod histogram;
mod labels;
mod matcher;
mod metadata;
mod pattern;
mod sample;
mod tenant;
mod time;

pub use conflict::{compare_conflict, float_wins, histogram_wins, native_wins};
pub use error::{Error, Kind};
pub use histogram::{FloatHistogram, Histogram, InvalidHistogram, Native};
pub use labels::{
    InvalidLabels, Labels, LabelsBuilder, MAX_LABELS_BYTES, METRIC_NAME, label_parts, label_spans,
    placement_hash, put_label,
};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Meaning, MetricKind, MetricMetadata};
pub use pattern::{Pattern, PatternError};
pub use sample::{STALE_NAN_BITS, Sample, is_stale, pick_conflict, stale_nan};
pub use tenant::{InvalidTenant, TenantId};
pub use time::{DurationError, TimeRange, Timestamp, format_duration, parse_duration};
