//! The nodes of a plan.

use std::ops::Range;

use model::{METRIC_NAME, MatchOp, Matcher, Timestamp};
use storage::{Hints, Need};

use super::Shared;
use super::function::{InfoLabels, LabelFn, MapFn, RangeFn, SortFn};
use crate::parse::{AggregateOp, BinaryOp, Matching};

/// What is to be computed at every step.
#[derive(Clone, Debug)]
pub enum Node {
    // One value per step.
    Number(f64),
    Text(String),
    /// The evaluation time in seconds.
    Time,
    /// `scalar(vector)`.
    ScalarOf(Box<Node>),
    ScalarNegate(Box<Node>),
    /// `min_of`, `max_of`.
    ScalarExtreme {
        greatest: bool,
        lhs: Box<Node>,
        rhs: Box<Node>,
    },
    ScalarBinary {
        op: BinaryOp,
        lhs: Box<Node>,
        rhs: Box<Node>,
    },

    // Any number of series.
    Select(Select),
    /// `timestamp(selector)`: the times of the samples themselves.
    SelectTimes(Select),
    /// `start_timestamp(selector)`.
    SelectStarts(Select),
    Range {
        function: RangeFn,
        source: Source,
        params: Vec<Node>,
        range: Range<usize>,
        /// Where the scalar argument stands, if there is one.
        param_range: Range<usize>,
    },
    Map {
        function: MapFn,
        input: Box<Node>,
        params: Vec<Node>,
    },
    Negate(Box<Node>),
    /// `vector(scalar)`.
    VectorOf(Box<Node>),
    /// `absent(...)`; the labels follow from the selector's matchers.
    Absent {
        input: Box<Node>,
        labels: Vec<(String, String)>,
    },
    Label {
        function: LabelFn,
        input: Box<Node>,
    },
    /// `info(...)`: `select` finds the info series.
    Info {
        input: Box<Node>,
        select: Select,
        wanted: InfoLabels,
    },
    Sort {
        function: SortFn,
        input: Box<Node>,
    },
    HistogramQuantile {
        q: Box<Node>,
        input: Box<Node>,
        q_range: Range<usize>,
        range: Range<usize>,
    },
    HistogramQuantiles {
        label: String,
        qs: Vec<(Node, Range<usize>)>,
        input: Box<Node>,
        range: Range<usize>,
    },
    HistogramFraction {
        lower: Box<Node>,
        upper: Box<Node>,
        input: Box<Node>,
        range: Range<usize>,
    },
    Aggregate {
        op: AggregateOp,
        param: Option<Box<Node>>,
        /// Where the parameter stands, for annotations.
        param_range: Range<usize>,
        grouping: Vec<String>,
        without: bool,
        input: Box<Node>,
        /// What annotations about the input are told of: the input, or the whole where that chooses.
        range: Range<usize>,
    },
    VectorScalar {
        op: BinaryOp,
        returns_bool: bool,
        vector: Box<Node>,
        scalar: Box<Node>,
        scalar_left: bool,
        /// Where the whole expression stands, for annotations; so with the next one.
        range: Range<usize>,
    },
    Join {
        op: BinaryOp,
        returns_bool: bool,
        matching: Matching,
        lhs: Box<Node>,
        rhs: Box<Node>,
        range: Range<usize>,
    },
    Set {
        op: BinaryOp,
        matching: Matching,
        lhs: Box<Node>,
        rhs: Box<Node>,
    },

    /// Computed once and repeated at every step.
    Invariant(Box<Node>),
}

/// An instant selector, or the selector of a range.
#[derive(Clone, Debug)]
pub struct Select {
    pub matchers: Vec<Matcher>,
    /// Milliseconds subtracted from the evaluation time.
    pub offset: i64,
    /// The evaluation time if `@` fixes it.
    pub at: Option<Timestamp>,
    /// Length of the range in milliseconds; 0 for an instant selector.
    pub window: i64,
    /// Samples beyond the window that are looked at.
    pub extend: Extend,
    /// Of histograms only count, sum and resets are wanted.
    pub stats: bool,
    pub hints: Hints,
    pub need: Need,
    /// Others ask for the same.
    pub shared: Option<Shared>,
    pub range: Range<usize>,
}

/// Whether a window is extended over its borders, each time by the lookback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extend {
    #[default]
    No,
    /// By the last sample before its start.
    Anchored,
    /// By the neighbours on both sides, between which the values at its borders are interpolated.
    Smoothed,
}

/// `expr[window:step]`.
#[derive(Clone, Debug)]
pub struct Subquery {
    pub input: Node,
    pub window: i64,
    pub step: i64,
    pub offset: i64,
    pub at: Option<Timestamp>,
}

/// Where the samples of a range function come from.
#[derive(Clone, Debug)]
// A plan has a handful of them.
#[allow(clippy::large_enum_variant)]
pub enum Source {
    Selector(Select),
    Subquery(Box<Subquery>),
}

impl Node {
    /// Whether it yields one value per step instead of series.
    pub fn is_scalar(&self) -> bool {
        match self {
            Node::Number(_)
            | Node::Time
            | Node::ScalarOf(_)
            | Node::ScalarNegate(_)
            | Node::ScalarBinary { .. }
            | Node::ScalarExtreme { .. } => true,
            Node::Invariant(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    /// Calls `visit` on each direct child.
    pub fn each_child(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        match self {
            Node::Number(_)
            | Node::Text(_)
            | Node::Time
            | Node::Select(_)
            | Node::SelectTimes(_)
            | Node::SelectStarts(_) => {}
            Node::ScalarOf(n)
            | Node::ScalarNegate(n)
            | Node::Negate(n)
            | Node::VectorOf(n)
            | Node::Invariant(n)
            | Node::Absent { input: n, .. }
            | Node::Label { input: n, .. }
            | Node::Info { input: n, .. }
            | Node::Sort { input: n, .. } => visit(n),
            Node::ScalarExtreme { lhs, rhs, .. }
            | Node::ScalarBinary { lhs, rhs, .. }
            | Node::Join { lhs, rhs, .. }
            | Node::Set { lhs, rhs, .. } => {
                visit(lhs);
                visit(rhs);
            }
            Node::Range { source, params, .. } => {
                if let Source::Subquery(subquery) = source {
                    visit(&mut subquery.input);
                }
                params.iter_mut().for_each(visit);
            }
            Node::Map { input, params, .. } => {
                visit(input);
                params.iter_mut().for_each(visit);
            }
            Node::HistogramQuantile { q, input, .. } => {
                visit(q);
                visit(input);
            }
            Node::HistogramQuantiles { qs, input, .. } => {
                qs.iter_mut().for_each(|(q, _)| visit(q));
                visit(input);
            }
            Node::HistogramFraction { lower, upper, input, .. } => {
                visit(lower);
                visit(upper);
                visit(input);
            }
            Node::Aggregate { param, input, .. } => {
                if let Some(param) = param {
                    visit(param);
                }
                visit(input);
            }
            Node::VectorScalar { vector, scalar, .. } => {
                visit(vector);
                visit(scalar);
            }
        }
    }
}

impl Node {
    /// Whether all series are known to have the same metric name, or none.
    pub(crate) fn one_name(&self) -> bool {
        let select_has =
            |s: &Select| s.matchers.iter().any(|m| *m.name == *METRIC_NAME && m.op == MatchOp::Equal);
        match self {
            Node::Select(select) | Node::SelectTimes(select) | Node::SelectStarts(select) => {
                select_has(select)
            }
            Node::Range { source: Source::Selector(select), .. } => select_has(select),
            Node::Range { source: Source::Subquery(subquery), .. } => subquery.input.one_name(),
            Node::Map { input, .. } | Node::Negate(input) | Node::Sort { input, .. } => input.one_name(),
            Node::Invariant(inner) => inner.one_name(),
            Node::VectorScalar { vector, .. } => vector.one_name(),
            Node::VectorOf(_) | Node::HistogramQuantile { .. } | Node::HistogramFraction { .. } => true,
            Node::Join { op, returns_bool, .. } => *returns_bool || op.is_arithmetic(),
            Node::Aggregate { op, grouping, without, input, .. } => match op {
                AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio => {
                    input.one_name()
                }
                _ => *without || !grouping.iter().any(|g| crate::exec::is_metadata(g)),
            },
            _ => false,
        }
    }

    /// The offset and the fixed time of the first selector or subquery in here.
    pub(crate) fn times(&mut self) -> Option<(i64, Option<Timestamp>)> {
        match self {
            Node::Select(select) | Node::SelectTimes(select) | Node::SelectStarts(select) => {
                Some((select.offset, select.at))
            }
            Node::Range { source, .. } => {
                let (_, at, offset) = source.window();
                Some((offset, at))
            }
            _ => {
                let mut found = None;
                self.each_child(&mut |child| found = found.or_else(|| child.times()));
                found
            }
        }
    }
}

impl Source {
    /// How its windows are extended.
    pub fn extend(&self) -> Extend {
        match self {
            Source::Selector(select) => select.extend,
            Source::Subquery(_) => Extend::No,
        }
    }

    /// Length of the window, the time that `@` fixes, and the offset.
    pub fn window(&self) -> (i64, Option<Timestamp>, i64) {
        match self {
            Source::Selector(select) => (select.window, select.at, select.offset),
            Source::Subquery(subquery) => (subquery.window, subquery.at, subquery.offset),
        }
    }
}
