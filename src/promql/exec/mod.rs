//! Plan to value: operators that yield one series at a time, with its values at every step.
//!
//! Stands last in a query. An [`Operator`] is pulled series by series; a series comes as a [`Row`], its values
//! in one dense column over the steps of the operator's [`Grid`]. Operators that can, stream (selectors, rate,
//! element-wise functions, aggregations); the others collect their input first, within the query's budget.
//! [`storage::Select`] is asked once per selector.

mod aggregate;
mod build;
mod calendar;
mod cells;
mod distinct;
mod group;
mod histogram;
mod info;
mod invariant;
mod join;
mod label;
mod map;
mod mixed;
mod morsels;
mod number;
mod points;
mod range;
mod rank;
mod root;
mod run;
mod scalar;
mod select;
mod set;
mod share;
mod sort;
mod stretch;
mod subquery;
mod trace;
mod track;
mod window;

pub(crate) use build::build;
pub(crate) use morsels::Threads;
pub(crate) use number::{Kahan, almost_equal, format_float, format_general, scalar_op};
pub(crate) use root::Root;
pub(crate) use run::Run;
pub(crate) use trace::Trace;

use std::sync::Arc;

use model::{FloatHistogram, Labels, Timestamp, is_stale};

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

/// A float that is not there. Stale markers never are values of an expression, so their bits are free.
pub(crate) const ABSENT: f64 = f64::from_bits(model::STALE_NAN_BITS);

pub(crate) fn present(value: f64) -> bool {
    !is_stale(value)
}

/// A histogram of a row; shared, for most operators pass it on as it is.
pub(crate) type Native = Arc<FloatHistogram>;

/// One value of a row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Float(f64),
    Native(Native),
}

/// The same, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CellRef<'r> {
    Float(f64),
    Native(&'r Native),
}

impl CellRef<'_> {
    pub(crate) fn to_cell(self) -> Cell {
        match self {
            CellRef::Float(v) => Cell::Float(v),
            CellRef::Native(h) => Cell::Native(h.clone()),
        }
    }
}

/// One series with its value at each step of the grid: a float, a histogram, or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// The metric's name is to go at the end (with delayed name removal).
    pub(crate) drop_name: bool,
    /// [`ABSENT`] where there is no float.
    pub(crate) values: Vec<f64>,
    /// Empty where the series has no histogram, else as long as `values`, which are absent where it has one.
    pub(crate) natives: Vec<Option<Native>>,
}

impl Row {
    /// A series of floats.
    pub(crate) fn floats(labels: Labels, drop_name: bool, values: Vec<f64>) -> Row {
        Row { labels, drop_name, values, natives: Vec::new() }
    }

    /// A series without values yet.
    pub(crate) fn absent(labels: Labels, drop_name: bool, len: usize) -> Row {
        Row::floats(labels, drop_name, vec![ABSENT; len])
    }

    pub(crate) fn is_blank(&self) -> bool {
        !self.values.iter().any(|v| present(*v)) && !self.natives.iter().any(Option::is_some)
    }

    pub(crate) fn points(&self) -> usize {
        self.values.iter().filter(|v| present(**v)).count() + self.natives.iter().flatten().count()
    }

    /// Bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        let each = |h: &Native| {
            size_of::<FloatHistogram>() + 8 * (h.positive_counts.len() + h.negative_counts.len())
        };
        self.values.len() * 8
            + self.natives.len() * size_of::<Option<Native>>()
            + self.natives.iter().flatten().map(each).sum::<usize>()
    }

    pub(crate) fn native(&self, step: usize) -> Option<&Native> {
        self.natives.get(step).and_then(Option::as_ref)
    }

    pub(crate) fn has(&self, step: usize) -> bool {
        present(self.values[step]) || self.native(step).is_some()
    }

    pub(crate) fn get(&self, step: usize) -> Option<CellRef<'_>> {
        match self.native(step) {
            Some(h) => Some(CellRef::Native(h)),
            None => Some(self.values[step]).filter(|v| present(*v)).map(CellRef::Float),
        }
    }

    pub(crate) fn put(&mut self, step: usize, cell: Cell) {
        match cell {
            Cell::Float(v) => {
                self.values[step] = v;
                if let Some(native) = self.natives.get_mut(step) {
                    *native = None;
                }
            }
            Cell::Native(h) => {
                self.natives.resize(self.values.len(), None);
                self.values[step] = ABSENT;
                self.natives[step] = Some(h);
            }
        }
    }

    pub(crate) fn clear(&mut self, step: usize) {
        self.put(step, Cell::Float(ABSENT));
    }

    /// Appends nothing, one value, or one histogram at the next step.
    pub(crate) fn push(&mut self, cell: Option<Cell>) {
        self.values.push(ABSENT);
        if !self.natives.is_empty() {
            self.natives.push(None);
        }
        if let Some(cell) = cell {
            self.put(self.values.len() - 1, cell);
        }
    }

    /// Begins anew, with the buffers there are.
    pub(crate) fn restart(&mut self) {
        self.values.clear();
        self.natives.clear();
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
