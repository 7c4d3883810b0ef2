//! Arithmetic on native histograms, with Prometheus's rules for layouts that differ.
//!
//! [`model::FloatHistogram`] is the value; everything here works on it and knows neither series nor queries.
//! Two histograms meet at the coarser schema and the wider zero bucket; of custom bounds those that both have
//! remain. Exponential and custom buckets never meet.

mod arith;
mod bounds;
mod buckets;
mod quantile;
mod reset;
mod total;
mod trim;

pub(crate) use arith::{Incompatible, Met, add, compact, divide, scale, subtract, to_schema};
pub(crate) use buckets::show;
pub use buckets::{Bucket, all_buckets};
pub(crate) use quantile::{Skew, fraction, quantile, variance};
pub(crate) use reset::{equal, is_reset, keep_stats};
pub(crate) use total::{NativeMean, Total};
pub(crate) use trim::trim;

use model::FloatHistogram;
use model::histogram::CUSTOM_BUCKETS;

/// Whether a histogram has bounds of its own.
pub(crate) fn is_custom(h: &FloatHistogram) -> bool {
    h.schema == CUSTOM_BUCKETS
}
