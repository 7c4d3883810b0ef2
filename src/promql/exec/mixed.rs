//! Functions of windows that hold histograms, with floats among them or not.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::{FloatHistogram, Timestamp};

use super::aggregate::NativeCell;
use super::points::{Notices, Points};
use super::stretch::{Stretch, started_anew};
use super::window::{Kernel, Window};
use super::{Cell, Native};
use crate::native::{self, Incompatible, Met, is_reset};
use crate::parse::AggregateOp;
use crate::plan::{Extend, RangeFn};

/// The samples of one window: its floats, and its histograms, of which there is one at least.
pub(crate) struct Mixed<'w> {
    pub(crate) floats: Window<'w>,
    pub(crate) points: Points<'w>,
}

/// A sample of a window, by its time.
#[derive(Clone, Copy)]
struct Sample<'w> {
    time: Timestamp,
    start: Timestamp,
    value: Result<f64, &'w Native>,
}

impl<'w> Mixed<'w> {
    fn has_floats(&self) -> bool {
        self.floats.low < self.floats.high
    }

    /// Floats and histograms in order of time.
    fn samples(&self) -> Vec<Sample<'w>> {
        let w = &self.floats;
        let floats = (w.low..w.high).map(|at| Sample {
            time: w.timestamps[at],
            start: w.starts.get(at).copied().unwrap_or(0),
            value: Ok(w.values[at]),
        });
        let p = self.points;
        let natives = (0..p.len()).map(|at| Sample {
            time: p.times[at],
            start: p.starts.get(at).copied().unwrap_or(0),
            value: Err(&p.values[at]),
        });
        let mut all: Vec<Sample<'w>> = floats.chain(natives).collect();
        all.sort_by_key(|s| s.time);
        all
    }

    /// The function's result for this window.
    pub(crate) fn eval(&self, kernel: &mut Kernel, notes: &Notices<'_>) -> Option<Cell> {
        use RangeFn::*;
        let function = kernel.function();
        let float = |v: f64| Some(Cell::Float(v));
        match function {
            Rate | Increase | Delta => {
                if self.has_floats() {
                    notes.mix();
                    return None;
                }
                self.rate(kernel, notes).map(native)
            }
            Irate | Idelta => self.instant(function == Irate, notes),
            Resets | Changes => self.count(function, kernel.extend()).and_then(float),
            Sum | Avg => {
                if self.has_floats() {
                    notes.mix();
                    return None;
                }
                self.total(function == Avg, notes).map(native)
            }
            Count => float((self.floats.high - self.floats.low + self.points.len()) as f64),
            Present => float(1.0),
            First => self.samples().first().map(cell),
            Last => self.samples().last().map(cell),
            TsOfFirst => self.samples().first().and_then(|s| float(s.time as f64 / 1000.0)),
            TsOfLast => self.samples().last().and_then(|s| float(s.time as f64 / 1000.0)),
            Min
            | Max
            | Stddev
            | Stdvar
            | Quantile
            | Mad
            | TsOfMin
            | TsOfMax
            | Deriv
            | PredictLinear
            | DoubleExponentialSmoothing => {
                if !self.has_floats() {
                    return None;
                }
                notes.ignored();
                kernel.eval(&self.floats).map(Cell::Float)
            }
        }
    }

    fn rate(&self, kernel: &Kernel, notes: &Notices<'_>) -> Option<FloatHistogram> {
        let (points, w) = (self.points, &self.floats);
        let function = kernel.function();
        let counter = function != RangeFn::Delta;
        if kernel.extend() != Extend::No {
            let smoothed = kernel.extend() == Extend::Smoothed;
            let mut out = points.extended((w.start, w.end), smoothed, counter, notes)?;
            if function == RangeFn::Rate {
                native::divide(&mut out, kernel.seconds());
            }
            native::compact(&mut out);
            return Some(out);
        }
        let mut result = match points.len() {
            0 => return None,
            1 => None,
            _ => Some(points.difference(counter, notes)?),
        };
        let first = &points.values[0];
        let mut stretch = Stretch::new(w, points.times[0], points.times[points.len() - 1], points.len() - 1);
        if counter && let Some(start) = points.starts.first() {
            stretch.begin_at(*start);
        }
        if stretch.begins() {
            match &mut result {
                Some(sum) => notes.add(sum, first)?,
                None => result = Some((**first).clone()),
            }
        }
        let mut result = result?;
        let counted = counter.then_some((first.count, result.count));
        let mut factor = stretch.factor(counted)?;
        if function == RangeFn::Rate {
            factor /= kernel.seconds();
        }
        native::scale(&mut result, factor);
        Some(result)
    }

    fn instant(&self, rate: bool, notes: &Notices<'_>) -> Option<Cell> {
        let samples = self.samples();
        let [.., before, last] = samples[..] else { return None };
        let interval = last.time - before.time;
        if interval == 0 {
            return None;
        }
        let seconds = interval as f64 / 1000.0;
        let anew = started_anew(before.start, before.time, last.start, last.time);
        match (before.value, last.value) {
            (Ok(a), Ok(b)) => {
                let change = if rate && (b < a || anew) { b } else { b - a };
                Some(Cell::Float(if rate { change / seconds } else { change }))
            }
            (Err(a), Err(b)) => {
                let gauges = [a, b].map(|h| h.hint == ResetHint::Gauge);
                if rate && gauges.contains(&true) {
                    notes.not_counter();
                }
                if !rate && gauges.contains(&false) {
                    notes.not_gauge();
                }
                let mut out = (**b).clone();
                if !rate || !(anew || is_reset(b, a)) {
                    notes.subtract(&mut out, a)?;
                }
                out.hint = ResetHint::Gauge;
                native::compact(&mut out);
                if rate {
                    native::divide(&mut out, seconds);
                }
                Some(native(out))
            }
            _ => {
                notes.mix();
                None
            }
        }
    }

    /// How often the value changed, or counting began anew.
    fn count(&self, function: RangeFn, extend: Extend) -> Option<f64> {
        let mut samples = self.samples();
        if extend == Extend::Anchored {
            let start = self.floats.start;
            // From the last sample at or before the start on.
            let first = samples.partition_point(|s| s.time <= start);
            if first == samples.len() {
                return None;
            }
            samples.drain(..first.saturating_sub(1));
        }
        let hit = |a: &Sample<'_>, b: &Sample<'_>| {
            let anew = started_anew(a.start, a.time, b.start, b.time);
            match (function, a.value, b.value) {
                (RangeFn::Resets, Ok(x), Ok(y)) => y < x || anew,
                (RangeFn::Resets, Err(x), Err(y)) => anew || is_reset(y, x),
                (_, Ok(x), Ok(y)) => x != y && !(x.is_nan() && y.is_nan()),
                (_, Err(x), Err(y)) => !native::equal(x, y),
                _ => true,
            }
        };
        Some(samples.windows(2).filter(|pair| hit(&pair[0], &pair[1])).count() as f64)
    }

    fn total(&self, mean: bool, notes: &Notices<'_>) -> Option<FloatHistogram> {
        let mut cell = NativeCell::new(if mean { AggregateOp::Avg } else { AggregateOp::Sum });
        for h in self.points.values {
            match cell.add(h) {
                Ok(Met { reconciled: true, .. }) => notes.reconciled("aggregation"),
                Ok(_) => {}
                Err(Incompatible) => {
                    notes.layouts();
                    return None;
                }
            }
        }
        if cell.conflicts() {
            notes.collision();
        }
        cell.value()
    }
}

fn native(h: FloatHistogram) -> Cell {
    Cell::Native(Arc::new(h))
}

fn cell(sample: &Sample<'_>) -> Cell {
    match sample.value {
        Ok(v) => Cell::Float(v),
        Err(h) => Cell::Native(h.clone()),
    }
}
