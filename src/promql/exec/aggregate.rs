//! Aggregation into dense accumulators, `[group][step]`; the input streams through.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use model::FloatHistogram;
use model::histogram::ResetHint;

use super::cells::Cells;
use super::group::{Grouping, Groups, Memo};
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
        let mut cells = Cells::new(self.op, len);
        let mut natives: HashMap<usize, NativeCell> = HashMap::new();
        let mut memo = Memo::new();
        // Bytes of groups that are held.
        let mut known = 0;
        let mut row = Row::default();
        while input.next(&mut row)? {
            let group = memo.get(&row.labels, |labels| groups.id(self.grouping.key(labels)).0);
            if group == drop_names.len() {
                held.grow(self.run, len, cells.next_bytes() + groups.bytes() - known)?;
                known = groups.bytes();
                cells.add_group();
                drop_names.push(false);
            }
            drop_names[group] |= row.drop_name;
            if cells.keeps_values() {
                held.grow(self.run, row.points(), row.points() * 8)?;
            }
            if natives.is_empty() {
                cells.add(group, &row.values);
            } else {
                // What is incompatible already takes no more.
                let settled =
                    |step: usize| natives.get(&(group * len + step)).is_some_and(|n| n.incompatible);
                (0..len).filter(|step| settled(*step)).for_each(|step| row.values[step] = ABSENT);
                cells.add(group, &row.values);
            }
            if !row.natives.is_empty() {
                held.grow(self.run, 0, row.bytes())?;
                self.add_natives(&row, group, &mut cells, &mut natives);
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
            let values =
                (0..len).map(|step| cells.value(group, step, self.param.get(step).copied())).collect();
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
        group: usize,
        cells: &mut Cells,
        natives: &mut HashMap<usize, NativeCell>,
    ) {
        for (step, h) in row.natives.iter().enumerate() {
            let Some(h) = h else { continue };
            match self.op {
                _ if cells.counts() => cells.add_one(group, step),
                AggregateOp::Sum | AggregateOp::Avg => {
                    let after_float = cells.has(group, step);
                    let cell = natives.entry(group * self.grid.len + step).or_insert_with(|| {
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
