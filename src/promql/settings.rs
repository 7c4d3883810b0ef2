//! What an operator can set about evaluation; the roles fill it from their flags.

use std::time::Duration;

use crate::Features;

/// Limits and defaults of evaluation.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// How far back a selector looks for a sample, in milliseconds. Requests may override it.
    pub lookback_ms: i64,
    /// Longest time one query may take.
    pub timeout: Duration,
    /// Most samples that one query may hold at once.
    pub max_samples: usize,
    /// Most bytes that one query may hold at once; drawn from the context's budget as well.
    pub max_memory_per_query: u64,
    /// Step of subqueries that name none, in milliseconds.
    pub default_subquery_step_ms: i64,
    /// Deepest nesting of an expression.
    pub max_depth: usize,
    /// Threads that queries keep busy by helping one another, at most; each query has one in any case.
    pub threads: usize,
    /// Longest query text in bytes.
    pub max_query_bytes: usize,
    /// Experimental parts of the language that queries may use.
    pub features: Features,
    /// Drop metric names once at the end of the evaluation instead of in each function (Prometheus's
    /// `promql-delayed-name-removal` feature; off there by default).
    pub delayed_name_removal: bool,
    /// Let functions of counters use the samples' start times (Prometheus's `use-start-timestamps` feature; off there
    /// by default).
    pub use_start_timestamps: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            lookback_ms: 5 * 60 * 1000,
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            max_memory_per_query: 1 << 30,
            default_subquery_step_ms: 60 * 1000,
            max_depth: 128,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            max_query_bytes: 256 << 10,
            features: Features::ALL,
            delayed_name_removal: false,
            use_start_timestamps: false,
        }
    }
}
