//! Where windows of samples come from: a selector's series, or a subquery's rows turned into samples.

use std::sync::Arc;

use model::Labels;
use model::histogram::ResetHint;

use super::select::{Series, window_end};
use super::track::Track;
use super::{Cell, Grid, Op, Row, Run, build};
use crate::plan::{Extend, Source};
use crate::{Error, plan};

/// Yields series of samples without stale markers.
pub(crate) enum Samples<'a> {
    Selector(Series<'a>),
    Subquery(Subquery<'a>),
}

/// Rows that are turned into samples.
pub(crate) struct Subquery<'a> {
    op: Op<'a>,
    grid: Grid,
    row: Row,
}

impl<'a> Samples<'a> {
    pub(crate) fn open(run: &'a Run<'a>, grid: &Grid, source: &plan::Source) -> Result<Samples<'a>, Error> {
        match source {
            Source::Selector(select) => {
                let (back, ahead) = match select.extend {
                    Extend::No => (0, 0),
                    Extend::Anchored => (run.lookback, 0),
                    Extend::Smoothed => (run.lookback, run.lookback),
                };
                let back = select.window.saturating_add(back);
                Ok(Samples::Selector(Series::open(run, grid, select, &select.need, back, ahead)?))
            }
            Source::Subquery(subquery) => {
                let first = window_end(subquery.at, subquery.offset, grid.start);
                let last = window_end(subquery.at, subquery.offset, grid.last());
                let inner = steps(first, last, subquery.window, subquery.step);
                if inner.len > run.settings.max_samples {
                    return Err(Error::exhausted(format!(
                        "subquery has {} steps per series, more than the limit of {} samples; use a longer \
                         step or a shorter range",
                        inner.len, run.settings.max_samples
                    )));
                }
                let op = run.trace.nested(|| build(&subquery.input, inner, run))?;
                Ok(Samples::Subquery(Subquery { op, grid: inner, row: Row::default() }))
            }
        }
    }

    /// Puts the next series' samples into `track`.
    pub(crate) fn next(&mut self, track: &mut Track) -> Result<Option<(Labels, bool)>, Error> {
        match self {
            Samples::Selector(series) => {
                let Some(entry) = series.next()? else { return Ok(None) };
                series.decode.run(&entry, track)?;
                track.drop_stale();
                Ok(Some((entry.labels, false)))
            }
            Samples::Subquery(subquery) => subquery.next(track),
        }
    }
}

impl Subquery<'_> {
    /// Puts the next row's values into `track`.
    pub(crate) fn next(&mut self, track: &mut Track) -> Result<Option<(Labels, bool)>, Error> {
        let Subquery { op, grid, row } = self;
        if !op.next(row)? {
            return Ok(None);
        }
        track.clear();
        for at in 0..row.values.len() {
            if let Some(cell) = row.get(at) {
                track.push(grid.time(at), unhinted(cell.to_cell()));
            }
        }
        Ok(Some((std::mem::take(&mut row.labels), row.drop_name)))
    }
}

/// What is known of resets between stored samples does not hold between those of a subquery, which may leave out
/// samples or repeat them.
fn unhinted(cell: Cell) -> Cell {
    match cell {
        Cell::Native(mut h) if matches!(h.hint, ResetHint::Reset | ResetHint::NotReset) => {
            Arc::make_mut(&mut h).hint = ResetHint::Unknown;
            Cell::Native(h)
        }
        cell => cell,
    }
}

/// Steps of a subquery: multiples of `step` after the start of the first window, up to the end of the last.
fn steps(first_end: i64, last_end: i64, window: i64, step: i64) -> Grid {
    let after = first_end.saturating_sub(window);
    let start = (after.div_euclid(step)).saturating_mul(step).saturating_add(step);
    Grid::new(start, last_end, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned() {
        let grid = |first, last| {
            let g = steps(first, last, 60, 20);
            (g.start, g.len)
        };
        assert_eq!(grid(100, 100), (60, 3));
        assert_eq!(grid(90, 90), (40, 3));
        assert_eq!(grid(-10, -10), (-60, 3));
    }
}
