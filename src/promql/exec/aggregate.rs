//! Aggregation into dense accumulators, `[group][step]`; the input streams through.

use std::ops::Range;

use super::group::{Grouping, Groups};
use super::number::{Kahan, Mean, quantile};
use super::run::{Held, Ready, Rows};
use super::{ABSENT, Grid, Op, Operator, Row, Run, present};
use crate::Error;
use crate::parse::AggregateOp;

/// `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`, `stdvar`, `quantile`.
pub(crate) struct AggregateAll<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) op: AggregateOp,
    pub(crate) grouping: Grouping,
    /// The quantile at each step.
    pub(crate) param: Vec<f64>,
    pub(crate) param_range: Range<usize>,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for AggregateAll<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            self.ready = Some(self.fill(input)?);
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> AggregateAll<'a> {
    fn fill(&self, mut input: Op<'a>) -> Result<Ready<'a>, Error> {
        let len = self.grid.len;
        let mut held: Held<'a> = self.run.hold(0, 0)?;
        let mut groups = Groups::default();
        let mut drop_names = Vec::new();
        let mut cells = Cells::new(self.op);
        let mut row = Row::default();
        while input.next(&mut row)? {
            let (group, new) = groups.id(self.grouping.key(&row.labels));
            if new {
                held.grow(self.run, len, len * cells.width() + row.labels.as_bytes().len())?;
                cells.grow(len);
                drop_names.push(false);
            }
            drop_names[group] |= row.drop_name;
            if let Cells::Values(_) = cells {
                held.grow(self.run, row.points(), row.points() * 8)?;
            }
            cells.add(group * len, &row.values);
        }
        if self.op == AggregateOp::Quantile {
            for q in &self.param {
                warn_quantile(self.run, *q, &self.param_range);
            }
        }
        let mut rows = Rows::empty(self.run)?;
        for (group, labels) in groups.labels.iter().enumerate() {
            let values = (0..len)
                .map(|step| cells.value(group * len + step, self.op, self.param.get(step).copied()))
                .collect();
            rows.push(self.run, Row { labels: labels.clone(), drop_name: drop_names[group], values })?;
        }
        drop(held);
        Ok(Ready::new(rows))
    }
}

/// Warns of a quantile that is none.
pub(crate) fn warn_quantile(run: &Run<'_>, q: f64, range: &Range<usize>) {
    if !(0.0..=1.0).contains(&q) {
        run.warn(
            range,
            format_args!(
                "quantile value should be between 0 and 1, got {}",
                super::number::format_general(q)
            ),
        );
    }
}

#[derive(Clone, Copy)]
struct Deviation {
    mean: f64,
    squares: f64,
    count: f64,
}

/// Accumulators, all of one kind; a cell that has seen nothing is marked in its own way.
enum Cells {
    Sum(Vec<Kahan>),
    Avg(Vec<Option<Mean>>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Count(Vec<f64>),
    Deviation(Vec<Deviation>),
    Values(Vec<Vec<f64>>),
}

impl Cells {
    fn new(op: AggregateOp) -> Cells {
        match op {
            AggregateOp::Sum => Cells::Sum(Vec::new()),
            AggregateOp::Avg => Cells::Avg(Vec::new()),
            AggregateOp::Min => Cells::Min(Vec::new()),
            AggregateOp::Max => Cells::Max(Vec::new()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Cells::Deviation(Vec::new()),
            AggregateOp::Quantile => Cells::Values(Vec::new()),
            _ => Cells::Count(Vec::new()),
        }
    }

    /// Bytes of one cell.
    fn width(&self) -> usize {
        match self {
            Cells::Sum(_) => size_of::<Kahan>(),
            Cells::Avg(_) => size_of::<Option<Mean>>(),
            Cells::Min(_) | Cells::Max(_) | Cells::Count(_) => size_of::<f64>(),
            Cells::Deviation(_) => size_of::<Deviation>(),
            Cells::Values(_) => size_of::<Vec<f64>>(),
        }
    }

    fn grow(&mut self, by: usize) {
        match self {
            Cells::Sum(cells) => cells.resize(cells.len() + by, Kahan::new(ABSENT)),
            Cells::Avg(cells) => cells.resize(cells.len() + by, None),
            Cells::Min(cells) | Cells::Max(cells) => cells.resize(cells.len() + by, ABSENT),
            Cells::Count(cells) => cells.resize(cells.len() + by, 0.0),
            Cells::Deviation(cells) => {
                cells.resize(cells.len() + by, Deviation { mean: 0.0, squares: 0.0, count: 0.0 })
            }
            Cells::Values(cells) => cells.resize(cells.len() + by, Vec::new()),
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
            Cells::Sum(cells) => each(&mut cells[at..], values, |cell, v| match present(cell.sum) {
                true => cell.add(v),
                false => *cell = Kahan::new(v),
            }),
            Cells::Avg(cells) => each(&mut cells[at..], values, |cell, v| match cell {
                Some(mean) => mean.add(v),
                None => *cell = Some(Mean::new(v)),
            }),
            // An absent cell is a NaN: anything replaces it.
            Cells::Min(cells) => each(&mut cells[at..], values, |cell, v| {
                if *cell > v || cell.is_nan() {
                    *cell = v;
                }
            }),
            Cells::Max(cells) => each(&mut cells[at..], values, |cell, v| {
                if *cell < v || cell.is_nan() {
                    *cell = v;
                }
            }),
            Cells::Count(cells) => each(&mut cells[at..], values, |cell, _| *cell += 1.0),
            Cells::Deviation(cells) => each(&mut cells[at..], values, |cell, v| {
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
            Cells::Values(cells) => each(&mut cells[at..], values, |cell, v| cell.push(v)),
        }
    }

    fn value(&mut self, at: usize, op: AggregateOp, param: Option<f64>) -> f64 {
        match self {
            Cells::Sum(cells) => match cells[at] {
                cell if present(cell.sum) => cell.total(),
                _ => ABSENT,
            },
            Cells::Avg(cells) => cells[at].map_or(ABSENT, |mean| mean.value()),
            Cells::Min(cells) | Cells::Max(cells) => cells[at],
            Cells::Count(cells) => match cells[at] {
                0.0 => ABSENT,
                _ if op == AggregateOp::Group => 1.0,
                count => count,
            },
            Cells::Deviation(cells) => match cells[at] {
                Deviation { count: 0.0, .. } => ABSENT,
                cell if op == AggregateOp::Stddev => (cell.squares / cell.count).sqrt(),
                cell => cell.squares / cell.count,
            },
            Cells::Values(cells) => match &mut cells[at] {
                values if values.is_empty() => ABSENT,
                values => quantile(param.unwrap_or(f64::NAN), values),
            },
        }
    }
}
