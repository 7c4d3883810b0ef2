//! What a query answers: a scalar, a string, an instant vector or a matrix, with notes and figures.

use std::sync::Arc;
use std::time::Duration;

use model::{FloatHistogram, Labels, Timestamp};
use storage::Notes;

/// One value at one time.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Milliseconds since the epoch.
    pub t: Timestamp,
    pub v: f64,
}

/// One native histogram at one time.
#[derive(Clone, Debug)]
pub struct NativePoint {
    /// Milliseconds since the epoch.
    pub t: Timestamp,
    pub h: Arc<FloatHistogram>,
}

/// One element of an instant vector; `point.t` is the evaluation time.
#[derive(Clone, Debug)]
pub struct VectorSample {
    pub labels: Labels,
    /// Its value is NaN where the element is a histogram.
    pub point: Point,
    pub histogram: Option<Arc<FloatHistogram>>,
}

/// One series of a matrix; never without points of either kind.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<Point>,
    /// At other times than `points`.
    pub histograms: Vec<NativePoint>,
}

/// The answer's value.
#[derive(Clone, Debug)]
pub enum Value {
    Scalar(Timestamp, f64),
    String(Timestamp, String),
    /// In the order of evaluation: meaningful after `sort`, `topk` and the like, else sorted by labels.
    Vector(Vec<VectorSample>),
    /// Sorted by labels.
    Matrix(Vec<Series>),
}

impl Value {
    /// As the HTTP API names it in `resultType`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Scalar(..) => "scalar",
            Value::String(..) => "string",
            Value::Vector(_) => "vector",
            Value::Matrix(_) => "matrix",
        }
    }
}

/// Figures about one evaluation.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Samples looked at, summed over steps (`totalQueryableSamples`).
    pub samples: u64,
    /// The same at each step, where it was asked for.
    pub per_step: Vec<(Timestamp, u64)>,
    /// Most samples held at once (`peakSamples`).
    pub peak_samples: usize,
    /// Most bytes held at once, as accounted in the query's budget.
    pub peak_bytes: u64,
    /// Parsing and planning.
    pub prepare: Duration,
    /// Reading and evaluating.
    pub evaluate: Duration,
    /// Sorting the result.
    pub sort: Duration,
}

/// What one operator cost.
#[derive(Clone, Debug)]
pub struct Analysis {
    pub name: String,
    /// Its inputs included.
    pub took: Duration,
    /// Samples looked at, its inputs included.
    pub samples: u64,
    /// Most samples held at once, known of the whole only.
    pub peak_samples: Option<usize>,
    pub children: Vec<Analysis>,
}

/// A value with everything that has to be said about it.
#[derive(Clone, Debug)]
pub struct QueryResult {
    pub value: Value,
    pub notes: Notes,
    pub stats: Stats,
    /// Where it was asked for.
    pub analysis: Option<Analysis>,
}
