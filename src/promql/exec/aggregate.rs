//! Aggregation into dense accumulators, `[group][step]`; the input streams through.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use model::FloatHistogram;
use model::histogram::ResetHint;

use super::group::{Grouping, Groups, Memo};
use super::number::{Kahan, Mean, quantile};
use super::run::{Held, Ready, Rows};
use super::{ABSENT, Cell, Grid, Op, Operator, Row, Run, present};
use crate::Error;
use crate::native::{Incompatible, Met, NativeMean, Total, compact};
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
    /// Where the vector stands.
    pub(crate) range: Range<usize>,
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
        let mut natives: HashMap<usize, NativeCell> = HashMap::new();
        let mut memo = Memo::new();
        let mut row = Row::default();
        while input.next(&mut row)? {
            let group = memo.get(&row.labels, |labels| groups.id(self.grouping.key(labels)).0);
            if group == drop_names.len() {
                held.grow(self.run, len, len * cells.width() + row.labels.as_bytes().len())?;
                cells.grow(len);
                drop_names.push(false);
            }
            drop_names[group] |= row.drop_name;
            if let Cells::Values(_) = cells {
                held.grow(self.run, row.points(), row.points() * 8)?;
            }
            if natives.is_empty() {
                cells.add(group * len, &row.values);
            } else {
                // What is incompatible already takes no more.
                let settled =
                    |step: usize| natives.get(&(group * len + step)).is_some_and(|n| n.incompatible);
                (0..len).filter(|step| settled(*step)).for_each(|step| row.values[step] = ABSENT);
                cells.add(group * len, &row.values);
            }
            if !row.natives.is_empty() {
                held.grow(self.run, 0, row.bytes())?;
                self.add_natives(&row, group * len, &mut cells, &mut natives);
            }
        }
        if self.op == AggregateOp::Quantile {
            for q in &self.param {
                warn_quantile(self.run, *q, &self.param_range);
            }
        }
        let mut rows = Rows::empty(self.run)?;
        // The input came in any order.
        let mut order: Vec<usize> = (0..groups.labels.len()).collect();
        order.sort_unstable_by(|a, b| groups.labels[*a].cmp(&groups.labels[*b]));
        for group in order {
            let labels = &groups.labels[group];
            let values = (0..len)
                .map(|step| cells.value(group * len + step, self.op, self.param.get(step).copied()))
                .collect();
            let mut row = Row::floats(labels.clone(), drop_names[group], values);
            for step in 0..if natives.is_empty() { 0 } else { len } {
                if let Some(native) = natives.get(&(group * len + step)) {
                    self.settle(&mut row, step, native);
                }
            }
            rows.push(self.run, row)?;
        }
        drop(held);
        Ok(Ready::new(rows))
    }

    fn add_natives(
        &self,
        row: &Row,
        first: usize,
        cells: &mut Cells,
        natives: &mut HashMap<usize, NativeCell>,
    ) {
        for (step, h) in row.natives.iter().enumerate() {
            let Some(h) = h else { continue };
            match (self.op, &mut *cells) {
                (_, Cells::Count(counts)) => counts[first + step] += 1.0,
                (AggregateOp::Sum | AggregateOp::Avg, _) => {
                    let after_float = cells.has(first + step);
                    let cell = natives.entry(first + step).or_insert_with(|| {
                        // After a float nothing comes of histograms.
                        NativeCell { closed: after_float, ..NativeCell::new(self.op) }
                    });
                    if cell.closed || cell.incompatible {
                        continue;
                    }
                    match cell.add(h) {
                        Ok(Met { reconciled: true, .. }) => self.run.info(
                            &self.range,
                            "mismatched custom buckets were reconciled during aggregation",
                        ),
                        Ok(_) => {}
                        Err(Incompatible) => self.run.warn(
                            &self.range,
                            format_args!(
                                "vector contains a mix of histograms with exponential and custom buckets \
                                 schemas for metric name {:?}",
                                row.labels.metric_name()
                            ),
                        ),
                    }
                }
                _ => {
                    let op = self.op.as_str();
                    self.run.info(&self.range, format_args!("ignored histogram in {op} aggregation"));
                }
            }
        }
    }

    /// Puts the sum or mean of a cell's histograms into the row, unless it cannot be told.
    fn settle(&self, row: &mut Row, step: usize, native: &NativeCell) {
        if native.conflicts() {
            self.run.warn(&self.range, "conflicting counter resets during histogram aggregation");
        }
        if present(row.values[step]) {
            self.run.warn(&self.range, "encountered a mix of histograms and floats for aggregation");
            row.clear(step);
        } else if let Some(mut h) = native.value() {
            compact(&mut h);
            row.put(step, Cell::Native(Arc::new(h)));
        }
    }
}

/// Sum or mean of histograms, with what has been seen among them.
pub(crate) struct NativeCell {
    mean: bool,
    state: Option<Accumulator>,
    incompatible: bool,
    /// Takes nothing.
    closed: bool,
    reset: bool,
    not_reset: bool,
}

enum Accumulator {
    Sum(Total),
    Mean(NativeMean),
}

impl NativeCell {
    pub(crate) fn new(op: AggregateOp) -> NativeCell {
        let mean = op == AggregateOp::Avg;
        NativeCell { mean, state: None, incompatible: false, closed: false, reset: false, not_reset: false }
    }

    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<Met, Incompatible> {
        match h.hint {
            ResetHint::Reset => self.reset = true,
            ResetHint::NotReset => self.not_reset = true,
            _ => {}
        }
        let added = match &mut self.state {
            Some(Accumulator::Sum(total)) => total.add(h),
            Some(Accumulator::Mean(mean)) => mean.add(h),
            None => {
                self.state = Some(match self.mean {
                    true => Accumulator::Mean(NativeMean::new(h)),
                    false => Accumulator::Sum(Total::new(h)),
                });
                Ok(Met::default())
            }
        };
        self.incompatible |= added.is_err();
        added
    }

    /// Whether some of them are known to begin with a reset and others not to.
    pub(crate) fn conflicts(&self) -> bool {
        self.reset && self.not_reset
    }

    pub(crate) fn value(&self) -> Option<FloatHistogram> {
        match &self.state {
            _ if self.incompatible => None,
            Some(Accumulator::Sum(total)) => Some(total.finish()),
            Some(Accumulator::Mean(mean)) => Some(mean.finish()),
            None => None,
        }
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

    /// Whether a sum or a mean has seen a float.
    fn has(&self, at: usize) -> bool {
        match self {
            Cells::Sum(cells) => present(cells[at].sum),
            Cells::Avg(cells) => cells[at].is_some(),
            _ => false,
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
