//! The instant selector: the newest sample of each series at each step, within the lookback.

use model::{TimeRange, Timestamp};
use storage::{Columns, SelectRequest, SeriesEntry, SeriesSet, decode_series};

use super::{ABSENT, Grid, Operator, Row, Run};
use crate::plan::Extend;
use crate::{Error, plan};

/// Series of a selector with their samples decoded, stale markers included.
pub(crate) struct Series<'a> {
    run: &'a Run<'a>,
    set: Box<dyn SeriesSet>,
    range: TimeRange,
    ended: bool,
}

impl<'a> Series<'a> {
    /// Asks for what the windows of `grid` need: each reaches from `back` ms before its end (not included) to
    /// `ahead` ms after its end.
    pub(crate) fn open(
        run: &'a Run<'a>,
        grid: &Grid,
        select: &plan::Select,
        back: i64,
        ahead: i64,
    ) -> Result<Series<'a>, Error> {
        let first = window_end(select.at, select.offset, grid.start);
        let last = window_end(select.at, select.offset, grid.last());
        let range = TimeRange::new(first.saturating_sub(back).saturating_add(1), last.saturating_add(ahead));
        let mut request = SelectRequest::new(range, select.matchers.clone());
        request.hints = select.hints.clone();
        let set = run.select.select(&request, run.context)?;
        Ok(Series { run, set, range, ended: false })
    }

    /// The next series; its samples replace what is in `columns`.
    pub(crate) fn next(&mut self, columns: &mut Columns) -> Result<Option<SeriesEntry>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.run.check()?;
        match self.set.next()? {
            Some(entry) => {
                columns.clear();
                decode_series(&entry.chunks, self.range, columns)?;
                Ok(Some(entry))
            }
            None => {
                self.ended = true;
                self.run.absorb(self.set.notes());
                Ok(None)
            }
        }
    }
}

/// Where the window of a step ends.
pub(crate) fn window_end(at: Option<Timestamp>, offset: i64, step: Timestamp) -> Timestamp {
    at.unwrap_or(step).saturating_sub(offset)
}

/// `metric{...}` or `timestamp(metric{...})`.
pub(crate) struct SelectOp<'a> {
    series: Series<'a>,
    grid: Grid,
    at: Option<Timestamp>,
    offset: i64,
    /// Yields the samples' times instead of their values.
    times: bool,
    /// Between two samples the value lies on the line between them.
    smoothed: bool,
    columns: Columns,
}

impl<'a> SelectOp<'a> {
    pub(crate) fn open(
        run: &'a Run<'a>,
        grid: Grid,
        select: &plan::Select,
        times: bool,
    ) -> Result<SelectOp<'a>, Error> {
        let smoothed = select.extend == Extend::Smoothed;
        let ahead = if smoothed { run.lookback } else { 0 };
        let series = Series::open(run, &grid, select, run.lookback, ahead)?;
        let (at, offset) = (select.at, select.offset);
        Ok(SelectOp { series, grid, at, offset, times, smoothed, columns: Columns::default() })
    }
}

impl Operator for SelectOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        while let Some(entry) = self.series.next(&mut self.columns)? {
            let (timestamps, values) = (&self.columns.timestamps[..], &self.columns.values[..]);
            let lookback = self.series.run.lookback;
            row.values.clear();
            let (mut next, mut found) = (0, 0);
            for step in 0..self.grid.len {
                let end = window_end(self.at, self.offset, self.grid.time(step));
                while next < timestamps.len() && timestamps[next] <= end {
                    next += 1;
                }
                let before = next.checked_sub(1);
                if self.smoothed
                    && let Some(at) = before
                    && let Some(&after) = timestamps.get(next)
                    && timestamps[at] > end.saturating_sub(lookback)
                    && timestamps[at] < end
                    && after <= end.saturating_add(lookback)
                    && !model::is_stale(values[at])
                    && !model::is_stale(values[next])
                {
                    found += 1;
                    let part = (end - timestamps[at]) as f64 / (after - timestamps[at]) as f64;
                    row.values.push(values[at] + (values[next] - values[at]) * part);
                    continue;
                }
                let value = match before {
                    Some(at)
                        if timestamps[at] > end.saturating_sub(lookback) && !model::is_stale(values[at]) =>
                    {
                        found += 1;
                        if self.times { timestamps[at] as f64 / 1000.0 } else { values[at] }
                    }
                    _ => ABSENT,
                };
                row.values.push(value);
            }
            if found > 0 {
                self.series.run.count(found);
                row.labels = entry.labels;
                row.drop_name = self.times;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
