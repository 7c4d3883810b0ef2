//! Plan to value: operators that yield one series at a time, with its values at every step.
//!
//! Stands last in a query. An [`Operator`] is pulled series by series; a series comes as a [`Row`], its values
//! in one dense column over the steps of the operator's [`Grid`]. Operators that can, stream (selectors, rate,
//! element-wise functions, aggregations); the others collect their input first, within the query's budget.
//! [`storage::Select`] is asked once per selector.

mod aggregate;
mod build;
mod calendar;
mod distinct;
mod group;
mod histogram;
mod info;
mod invariant;
mod join;
mod label;
mod map;
mod number;
mod range;
mod rank;
mod root;
mod run;
mod scalar;
mod select;
mod set;
mod sort;
mod subquery;
mod window;

pub(crate) use build::build;
pub(crate) use number::{almost_equal, format_float, scalar_op};
pub(crate) use root::Root;
pub(crate) use run::Run;

use model::{Labels, Timestamp, is_stale};

use crate::Error;

/// Steps of an evaluation: `start`, `start + step`, ...
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) start: Timestamp,
    pub(crate) step: i64,
    /// Number of steps, at least 1 except in subqueries.
    pub(crate) len: usize,
}

impl Grid {
    pub(crate) fn new(start: Timestamp, end: Timestamp, step: i64) -> Grid {
        if step <= 0 {
            return Grid { start, step: 1, len: 1 };
        }
        let len = if end < start { 0 } else { (end.saturating_sub(start) / step) as usize + 1 };
        Grid { start, step, len }
    }

    pub(crate) fn time(&self, at: usize) -> Timestamp {
        self.start + self.step * at as i64
    }

    pub(crate) fn last(&self) -> Timestamp {
        self.time(self.len.saturating_sub(1))
    }

    /// Only the first step.
    pub(crate) fn first(&self) -> Grid {
        Grid { len: self.len.min(1), ..*self }
    }
}

/// A value that is not there. Stale markers never are values of an expression, so their bits are free; when
/// columns come to hold native histograms, a second column beside this one will.
pub(crate) const ABSENT: f64 = f64::from_bits(model::STALE_NAN_BITS);

pub(crate) fn present(value: f64) -> bool {
    !is_stale(value)
}

/// One series with its value at each step of the grid, or [`ABSENT`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// The metric's name is to go at the end (with delayed name removal).
    pub(crate) drop_name: bool,
    pub(crate) values: Vec<f64>,
}

impl Row {
    pub(crate) fn is_blank(&self) -> bool {
        !self.values.iter().any(|v| present(*v))
    }

    pub(crate) fn points(&self) -> usize {
        self.values.iter().filter(|v| present(**v)).count()
    }
}

/// Yields series, one per call.
pub(crate) trait Operator {
    /// Puts the next series into `row`, whose buffers are reused; false at the end. A row has at least one
    /// value, and `grid.len` entries.
    fn next(&mut self, row: &mut Row) -> Result<bool, Error>;
}

pub(crate) type Op<'a> = Box<dyn Operator + 'a>;

/// Labels that go when the metric's name goes.
pub(crate) fn is_metadata(name: &str) -> bool {
    matches!(name, "__name__" | "__type__" | "__unit__")
}

/// `labels` without the metric's name, type and unit.
pub(crate) fn without_name(labels: &Labels) -> Labels {
    labels.filter(|name| !is_metadata(name))
}
