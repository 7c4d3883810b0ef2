//! Accumulators of an aggregation, `[group][step]`, in pieces that never move.

use super::number::{Kahan, Mean, quantile};
use super::{ABSENT, present};
use crate::parse::AggregateOp;

/// Cells in a piece, at least one group's.
const PIECE: usize = 256;

/// Accumulators of all groups.
pub(crate) struct Cells {
    op: AggregateOp,
    /// Steps.
    len: usize,
    /// Groups in a piece.
    per: usize,
    groups: usize,
    pieces: Vec<Column>,
}

impl Cells {
    pub(crate) fn new(op: AggregateOp, len: usize) -> Cells {
        Cells { op, len, per: (PIECE / len.max(1)).max(1), groups: 0, pieces: Vec::new() }
    }

    /// Bytes that another group will take.
    pub(crate) fn next_bytes(&self) -> usize {
        let pieces = usize::from(self.groups.is_multiple_of(self.per));
        pieces * self.per * self.len * Column::width(self.op)
    }

    pub(crate) fn add_group(&mut self) {
        if self.groups.is_multiple_of(self.per) {
            self.pieces.push(Column::new(self.op, self.per * self.len));
        }
        self.groups += 1;
    }

    /// Whether cells keep all values that they see.
    pub(crate) fn keeps_values(&self) -> bool {
        matches!(self.op, AggregateOp::Quantile)
    }

    /// Whether cells count what they see, of whatever kind.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.op, AggregateOp::Count | AggregateOp::Group)
    }

    fn at(&self, group: usize, step: usize) -> (usize, usize) {
        (group / self.per, group % self.per * self.len + step)
    }

    /// Adds one series to a group.
    pub(crate) fn add(&mut self, group: usize, values: &[f64]) {
        let (piece, at) = self.at(group, 0);
        self.pieces[piece].add(at, values);
    }

    /// Adds one to a cell that counts.
    pub(crate) fn add_one(&mut self, group: usize, step: usize) {
        let (piece, at) = self.at(group, step);
        // Any value but an absent one.
        self.pieces[piece].add(at, &[0.0]);
    }

    /// Whether a sum or a mean has seen a float.
    pub(crate) fn has(&self, group: usize, step: usize) -> bool {
        let (piece, at) = self.at(group, step);
        self.pieces[piece].has(at)
    }

    /// What came of a cell, `param` being the quantile.
    pub(crate) fn value(&mut self, group: usize, step: usize, param: Option<f64>) -> f64 {
        let (piece, at) = self.at(group, step);
        self.pieces[piece].value(at, self.op, param)
    }
}

#[derive(Clone, Copy)]
struct Deviation {
    mean: f64,
    squares: f64,
    count: f64,
}

/// Accumulators of some groups, all of one kind; a cell that has seen nothing is marked in its own way.
enum Column {
    Sum(Vec<Kahan>),
    Avg(Vec<Option<Mean>>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Count(Vec<f64>),
    Deviation(Vec<Deviation>),
    Values(Vec<Vec<f64>>),
}

impl Column {
    /// `len` cells that have seen nothing.
    fn new(op: AggregateOp, len: usize) -> Column {
        match op {
            AggregateOp::Sum => Column::Sum(vec![Kahan::new(ABSENT); len]),
            AggregateOp::Avg => Column::Avg(vec![None; len]),
            AggregateOp::Min => Column::Min(vec![ABSENT; len]),
            AggregateOp::Max => Column::Max(vec![ABSENT; len]),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                Column::Deviation(vec![Deviation { mean: 0.0, squares: 0.0, count: 0.0 }; len])
            }
            AggregateOp::Quantile => Column::Values(vec![Vec::new(); len]),
            _ => Column::Count(vec![0.0; len]),
        }
    }

    /// Bytes of one cell.
    fn width(op: AggregateOp) -> usize {
        match op {
            AggregateOp::Sum => size_of::<Kahan>(),
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Stddev | AggregateOp::Stdvar => size_of::<Deviation>(),
            AggregateOp::Quantile => size_of::<Vec<f64>>(),
            _ => size_of::<f64>(),
        }
    }

    /// Adds one series to the cells from `at` on.
    fn add(&mut self, at: usize, values: &[f64]) {
        fn each<T>(cells: &mut [T], values: &[f64], mut add: impl FnMut(&mut T, f64)) {
            for (cell, value) in cells.iter_mut().zip(values) {
                if present(*value) {
                    add(cell, *value);
                }
            }
        }
        match self {
            Column::Sum(cells) => each(&mut cells[at..], values, |cell, v| match present(cell.sum) {
                true => cell.add(v),
                false => *cell = Kahan::new(v),
            }),
            Column::Avg(cells) => each(&mut cells[at..], values, |cell, v| match cell {
                Some(mean) => mean.add(v),
                None => *cell = Some(Mean::new(v)),
            }),
            // An absent cell is a NaN: anything replaces it.
            Column::Min(cells) => each(&mut cells[at..], values, |cell, v| {
                if *cell > v || cell.is_nan() {
                    *cell = v;
                }
            }),
            Column::Max(cells) => each(&mut cells[at..], values, |cell, v| {
                if *cell < v || cell.is_nan() {
                    *cell = v;
                }
            }),
            Column::Count(cells) => each(&mut cells[at..], values, |cell, _| *cell += 1.0),
            Column::Deviation(cells) => each(&mut cells[at..], values, |cell, v| {
                cell.count += 1.0;
                if cell.count == 1.0 {
                    cell.mean = v;
                    cell.squares = if v.is_finite() { 0.0 } else { f64::NAN };
                } else {
                    let delta = v - cell.mean;
                    cell.mean += delta / cell.count;
                    cell.squares += delta * (v - cell.mean);
                }
            }),
            Column::Values(cells) => each(&mut cells[at..], values, |cell, v| cell.push(v)),
        }
    }

    /// Whether a sum or a mean has seen a float.
    fn has(&self, at: usize) -> bool {
        match self {
            Column::Sum(cells) => present(cells[at].sum),
            Column::Avg(cells) => cells[at].is_some(),
            _ => false,
        }
    }

    fn value(&mut self, at: usize, op: AggregateOp, param: Option<f64>) -> f64 {
        match self {
            Column::Sum(cells) => match cells[at] {
                cell if present(cell.sum) => cell.total(),
                _ => ABSENT,
            },
            Column::Avg(cells) => cells[at].map_or(ABSENT, |mean| mean.value()),
            Column::Min(cells) | Column::Max(cells) => cells[at],
            Column::Count(cells) => match cells[at] {
                0.0 => ABSENT,
                _ if op == AggregateOp::Group => 1.0,
                count => count,
            },
            Column::Deviation(cells) => match cells[at] {
                Deviation { count: 0.0, .. } => ABSENT,
                cell if op == AggregateOp::Stddev => (cell.squares / cell.count).sqrt(),
                cell => cell.squares / cell.count,
            },
            Column::Values(cells) => match &mut cells[at] {
                values if values.is_empty() => ABSENT,
                values => quantile(param.unwrap_or(f64::NAN), values),
            },
        }
    }
}
