//! Functions over windows: `rate(metric[5m])` and its kin.

use std::ops::Range;

use model::Timestamp;
use storage::Columns;

use super::aggregate::warn_quantile;
use super::select::window_end;
use super::subquery::Samples;
use super::window::{Kernel, Window};
use super::{ABSENT, Grid, Operator, Row, Run};
use crate::Error;
use crate::plan::{Extend, RangeFn, Source};

/// Slides the window of each step over one series after the other.
pub(crate) struct RangeOp<'a> {
    run: &'a Run<'a>,
    grid: Grid,
    samples: Samples<'a>,
    kernel: Kernel,
    function: RangeFn,
    /// Where the range vector stands.
    place: Range<usize>,
    /// Where the scalar argument stands.
    param_place: Range<usize>,
    /// Quantiles that have not been checked yet.
    quantiles: Vec<f64>,
    window: i64,
    /// How far the samples of a window reach beyond its start and its end.
    reach: (i64, i64),
    at: Option<Timestamp>,
    offset: i64,
    columns: Columns,
}

impl<'a> RangeOp<'a> {
    /// `params` are the scalar arguments, one value per step each.
    pub(crate) fn open(
        run: &'a Run<'a>,
        grid: Grid,
        function: RangeFn,
        source: &Source,
        params: Vec<Vec<f64>>,
        place: &Range<usize>,
        param_place: &Range<usize>,
    ) -> Result<RangeOp<'a>, Error> {
        let (window, at, offset) = source.window();
        let quantiles = if function == RangeFn::Quantile { params[0].clone() } else { Vec::new() };
        let reach = match source.extend() {
            Extend::No => (0, 0),
            Extend::Anchored => (run.lookback, 0),
            Extend::Smoothed => (run.lookback, run.lookback),
        };
        Ok(RangeOp {
            run,
            grid,
            samples: Samples::open(run, &grid, source)?,
            kernel: Kernel::new(function, params, window, source.extend())?,
            function,
            place: place.clone(),
            param_place: param_place.clone(),
            quantiles,
            window,
            reach,
            at,
            offset,
            columns: Columns::default(),
        })
    }
}

impl RangeOp<'_> {
    /// Names of counters end in certain ways; others make `rate` and `increase` suspicious.
    fn note_counter(&self, name: &str) {
        let endings = ["_total", "_sum", "_count", "_bucket"];
        let counts = matches!(self.function, RangeFn::Rate | RangeFn::Increase);
        if counts && !name.is_empty() && !endings.iter().any(|end| name.ends_with(end)) {
            self.run.info(
                &self.place,
                format_args!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ),
            );
        }
    }
}

impl Operator for RangeOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        while let Some((labels, drop_name)) = self.samples.next(&mut self.columns)? {
            if self.columns.is_empty() {
                continue;
            }
            let held = self.run.hold(self.columns.len(), self.columns.len() * 16)?;
            let (timestamps, values) = (&self.columns.timestamps[..], &self.columns.values[..]);
            self.kernel.begin(values);
            row.values.clear();
            let (mut low, mut high, mut seen, mut found) = (0, 0, 0u64, false);
            for step in 0..self.grid.len {
                let time = self.grid.time(step);
                let end = window_end(self.at, self.offset, time);
                let start = end.saturating_sub(self.window);
                let (first, last) = (start.saturating_sub(self.reach.0), end.saturating_add(self.reach.1));
                while high < timestamps.len() && timestamps[high] <= last {
                    high += 1;
                }
                while low < high && timestamps[low] <= first {
                    low += 1;
                }
                let mut value = ABSENT;
                if low < high {
                    seen += (high - low) as u64;
                    let window = Window { timestamps, values, low, high, start, end, time, step };
                    if let Some(result) = self.kernel.eval(&window) {
                        value = result;
                        found = true;
                    }
                }
                row.values.push(value);
            }
            self.run.count(seen);
            drop(held);
            if found {
                self.note_counter(labels.metric_name());
                for q in std::mem::take(&mut self.quantiles) {
                    warn_quantile(self.run, q, &self.param_place);
                }
                row.labels = labels;
                row.drop_name = drop_name || !self.function.keeps_name();
                return Ok(true);
            }
        }
        Ok(false)
    }
}
