//! Aggregations that choose among the series or name them by value: `topk`, `bottomk`, `limitk`,
//! `limit_ratio`, `count_values`.

use std::ops::Range;

use hashbrown::HashMap;
use model::Labels;

use super::group::{Grouping, Groups};
use super::number::format_general;
use super::run::{Ready, Rows};
use super::{CellRef, Grid, Op, Operator, Row, Run, format_float, present};
use crate::parse::AggregateOp;
use crate::{Error, native};

/// `topk`, `bottomk`, `limitk`, `limit_ratio`.
pub(crate) struct RankOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) op: AggregateOp,
    pub(crate) grouping: Grouping,
    /// k or the ratio, per step.
    pub(crate) param: Vec<f64>,
    pub(crate) param_range: Range<usize>,
    /// Where the whole aggregation stands.
    pub(crate) range: Range<usize>,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for RankOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            let params = self.params()?;
            let rows = self.run.collect(input)?;
            self.ready = Some(Ready::new(self.choose(rows, &params)));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> RankOp<'a> {
    fn params(&self) -> Result<Vec<f64>, Error> {
        if self.op == AggregateOp::LimitRatio {
            return self.param.iter().map(|r| self.ratio(*r)).collect();
        }
        for k in &self.param {
            if k.is_nan() {
                return Err(Error::execution("Parameter value is NaN"));
            }
            if k.abs() >= i64::MAX as f64 {
                return Err(Error::execution(format!("Scalar value {} overflows int64", format_general(*k))));
            }
        }
        Ok(self.param.clone())
    }

    fn ratio(&self, ratio: f64) -> Result<f64, Error> {
        if ratio.is_nan() {
            return Err(Error::execution("Ratio value is NaN"));
        }
        let capped = ratio.clamp(-1.0, 1.0);
        if capped != ratio {
            self.run.warn(
                &self.param_range,
                format_args!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_general(ratio),
                    format_general(capped)
                ),
            );
        }
        Ok(capped)
    }

    fn choose(&self, mut rows: Rows<'a>, params: &[f64]) -> Rows<'a> {
        if matches!(self.op, AggregateOp::TopK | AggregateOp::BottomK) {
            self.drop_natives(&mut rows.rows, params);
        }
        let mut groups = Groups::default();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (at, row) in rows.rows.iter().enumerate() {
            let (group, new) = groups.id(self.grouping.key(&row.labels));
            if new {
                members.push(Vec::new());
            }
            members[group].push(at);
        }
        let mut keep = vec![false; rows.rows.len()];
        let mut order: Vec<usize> = Vec::new();
        for (step, param) in params.iter().enumerate() {
            keep.fill(false);
            for group in &members {
                let there = group.iter().copied().filter(|at| rows.rows[*at].has(step));
                let chosen = self.choose_at(&rows.rows, there, step, *param);
                chosen.iter().for_each(|at| keep[*at] = true);
                if self.run.instant {
                    order.extend(chosen);
                }
            }
            for (row, keep) in rows.rows.iter_mut().zip(&keep) {
                if !keep {
                    row.clear(step);
                }
            }
        }
        if self.run.instant && self.grid.len == 1 {
            rows.rows = order.iter().map(|at| std::mem::take(&mut rows.rows[*at])).collect();
        }
        rows
    }

    /// Histograms have no order by which to choose them.
    fn drop_natives(&self, rows: &mut [Row], params: &[f64]) {
        for row in rows.iter_mut() {
            let natives = std::mem::take(&mut row.natives);
            if natives.iter().zip(params).any(|(h, k)| h.is_some() && *k >= 1.0) {
                self.run
                    .info(&self.range, format_args!("ignored histogram in {} aggregation", self.op.as_str()));
            }
        }
    }

    fn choose_at(
        &self,
        rows: &[Row],
        there: impl Iterator<Item = usize>,
        step: usize,
        param: f64,
    ) -> Vec<usize> {
        let k = param.max(0.0) as usize;
        let value = |at: usize| rows[at].values[step];
        match self.op {
            AggregateOp::LimitK => there.take(k).collect(),
            AggregateOp::LimitRatio => there.filter(|at| in_ratio(&rows[*at].labels, param)).collect(),
            _ if k == 0 => Vec::new(),
            op => {
                let top = op == AggregateOp::TopK;
                // Whether a is a worse choice than b; NaN is the worst.
                let worse = |a: usize, b: usize| {
                    let (a, b) = (value(a), value(b));
                    if a.is_nan() { !b.is_nan() } else { !b.is_nan() && if top { a < b } else { a > b } }
                };
                let mut heap = Heap { items: Vec::with_capacity(k.min(1024)), worse };
                for at in there {
                    if heap.items.len() < k {
                        heap.push(at);
                    } else if (heap.worse)(heap.items[0], at) {
                        heap.replace_worst(at);
                    }
                }
                let Heap { mut items, worse } = heap;
                items.sort_by(|a, b| match (worse(*a, *b), worse(*b, *a)) {
                    (true, _) => std::cmp::Ordering::Greater,
                    (_, true) => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Equal,
                });
                items
            }
        }
    }
}

/// A binary heap with the worst on top. Its moves are those of Go's container/heap, so that among equal values
/// the same series are chosen as by Prometheus.
struct Heap<W: Fn(usize, usize) -> bool> {
    items: Vec<usize>,
    worse: W,
}

impl<W: Fn(usize, usize) -> bool> Heap<W> {
    fn push(&mut self, item: usize) {
        self.items.push(item);
        let mut at = self.items.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !(self.worse)(self.items[at], self.items[parent]) {
                break;
            }
            self.items.swap(at, parent);
            at = parent;
        }
    }

    fn replace_worst(&mut self, item: usize) {
        self.items[0] = item;
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.items.len() {
                break;
            }
            let right = left + 1;
            let worst = if right < self.items.len() && (self.worse)(self.items[right], self.items[left]) {
                right
            } else {
                left
            };
            if !(self.worse)(self.items[worst], self.items[at]) {
                break;
            }
            self.items.swap(at, worst);
            at = worst;
        }
    }
}

/// Whether a label set belongs to a ratio: by its hash, so that r and r - 1 complete one another.
fn in_ratio(labels: &Labels, ratio: f64) -> bool {
    // The hash of the length-prefixed bytes is also what Prometheus takes, as long as they are short.
    let offset = xxhash_rust::xxh64::xxh64(labels.as_bytes(), 0) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// `count_values("label", v)`.
pub(crate) struct CountValuesOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) label: String,
    pub(crate) grouping: Grouping,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for CountValuesOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            self.ready = Some(self.count(input)?);
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> CountValuesOp<'a> {
    fn count(&self, mut input: Op<'a>) -> Result<Ready<'a>, Error> {
        if self.label.is_empty() {
            return Err(Error::execution(format!("invalid label name {:?}", self.label)));
        }
        let mut groups = Groups::default();
        let mut out = Rows::empty(self.run)?;
        // Group of each value of the current row.
        let mut known: HashMap<u64, usize> = HashMap::new();
        let mut row = Row::default();
        while input.next(&mut row)? {
            known.clear();
            for step in 0..row.values.len() {
                let Some(cell) = row.get(step) else { continue };
                let seen = match cell {
                    CellRef::Float(v) => known.get(&v.to_bits()).copied(),
                    CellRef::Native(_) => None,
                };
                let group = match seen {
                    Some(group) => group,
                    None => {
                        let text = match cell {
                            CellRef::Float(v) => format_float(v),
                            CellRef::Native(h) => native::show(h),
                        };
                        let mut builder = row.labels.to_builder();
                        builder.set(&self.label, &text);
                        let labels = builder
                            .finish()
                            .map_err(|e| Error::execution(format!("labels of count_values: {e}")))?;
                        let (group, new) = groups.id(self.grouping.key(&labels));
                        if new {
                            let labels = groups.labels[group].clone();
                            out.push(self.run, Row::absent(labels, false, self.grid.len))?;
                        }
                        if let CellRef::Float(v) = cell {
                            known.insert(v.to_bits(), group);
                        }
                        group
                    }
                };
                let count = &mut out.rows[group].values[step];
                *count = if present(*count) { *count + 1.0 } else { 1.0 };
            }
        }
        Ok(Ready::new(out))
    }
}
