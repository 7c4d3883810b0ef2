//! Functions over windows: `rate(metric[5m])` and its kin.

use std::ops::Range;

use model::{Labels, Timestamp};
use storage::SeriesEntry;

use super::aggregate::warn_quantile;
use super::mixed::Mixed;
use super::morsels::{Morsels, Reckon};
use super::points::{Notices, Points};
use super::run::Held;
use super::select::{Decode, window_end};
use super::subquery::{Samples, Subquery};
use super::trace::Meter;
use super::track::Track;
use super::window::{Kernel, Window};
use super::{ABSENT, Cell, Grid, Operator, Row, Run, present};
use crate::Error;
use crate::plan::{Extend, RangeFn, Source};

/// A function of windows over a selector's series, or over a subquery's rows.
pub(crate) enum RangeOp<'a> {
    Selector(Box<Morsels<'a, Slider<'a>>>),
    Subquery(Subquery<'a>, Box<Slider<'a>>),
}

/// Slides the window of each step over one series after the other.
pub(crate) struct Slider<'a> {
    run: &'a Run<'a>,
    decode: Option<Decode>,
    grid: Grid,
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
    track: Track,
    /// First and last sample, not included, of each step's window.
    windows: Vec<(usize, usize)>,
    /// As much as the longest series so far took.
    held: Held<'a>,
    meter: Meter,
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
        let samples = Samples::open(run, &grid, source)?;
        let slider = Slider {
            run,
            decode: None,
            grid,
            kernel: Kernel::new(function, params, window, source.extend())?,
            function,
            place: place.clone(),
            param_place: param_place.clone(),
            quantiles,
            window,
            reach,
            at,
            offset,
            track: Track::default(),
            windows: Vec::new(),
            held: run.hold(0, 0)?,
            meter: run.trace.meter(),
        };
        Ok(match samples {
            Samples::Selector(series) => {
                let slider = Slider { decode: Some(series.decode), ..slider };
                RangeOp::Selector(Box::new(Morsels::new(run, series, slider)?))
            }
            Samples::Subquery(subquery) => RangeOp::Subquery(subquery, Box::new(slider)),
        })
    }
}

impl Slider<'_> {
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

impl Slider<'_> {
    /// The borders of a step's window, and those of the samples that belong to it.
    fn window(&self, step: usize) -> Borders {
        let time = self.grid.time(step);
        let end = window_end(self.at, self.offset, time);
        let start = end.saturating_sub(self.window);
        let (first, last) = (start.saturating_sub(self.reach.0), end.saturating_add(self.reach.1));
        Borders { time, start, end, first, last }
    }

    /// Samples in the window of a step.
    fn seen_at(&self, step: usize) -> u64 {
        let Borders { first, last, .. } = self.window(step);
        let within = |times: &[Timestamp]| {
            times.partition_point(|t| *t <= last) - times.partition_point(|t| *t <= first)
        };
        (within(&self.track.floats.timestamps) + within(&self.track.natives.timestamps)) as u64
    }

    /// One series of floats: whether it has a result at all.
    fn floats(&mut self, row: &mut Row) -> bool {
        let columns = std::mem::take(&mut self.track.floats);
        let (timestamps, values, starts) =
            (&columns.timestamps[..], &columns.values[..], &columns.starts[..]);
        self.kernel.begin(timestamps, values, starts);
        let (mut low, mut high, mut seen, mut found) = (0, 0, 0u64, false);
        self.windows.clear();
        for step in 0..self.grid.len {
            let Borders { first, last, .. } = self.window(step);
            while high < timestamps.len() && timestamps[high] <= last {
                high += 1;
            }
            while low < high && timestamps[low] <= first {
                low += 1;
            }
            seen += (high - low) as u64;
            self.windows.push((low, high));
        }
        if self.kernel.eval_all(values, &self.windows, &mut row.values) {
            found = seen > 0;
        } else {
            for (step, &(low, high)) in self.windows.iter().enumerate() {
                let mut value = ABSENT;
                if low < high {
                    let Borders { time, start, end, .. } = self.window(step);
                    let window = Window { timestamps, values, starts, low, high, start, end, time, step };
                    if let Some(result) = self.kernel.eval(&window) {
                        value = result;
                        found = true;
                    }
                }
                row.values.push(value);
            }
        }
        self.run.count(self.meter, seen);
        self.track.floats = columns;
        found
    }

    /// One series that has histograms, maybe floats too.
    fn mixed(&mut self, name: &str, row: &mut Row) -> bool {
        let track = std::mem::take(&mut self.track);
        let (floats, natives) = (&track.floats, &track.natives);
        let (timestamps, values, starts) = (&floats.timestamps[..], &floats.values[..], &floats.starts[..]);
        let points = Points { times: &natives.timestamps, values: &natives.values, starts: &natives.starts };
        self.kernel.begin(timestamps, values, starts);
        let place = self.place.clone();
        let notes = Notices::new(self.run, &place, name);
        let (mut low, mut high, mut seen, mut found) = (0, 0, 0u64, false);
        let (mut native_low, mut native_high) = (0, 0);
        for step in 0..self.grid.len {
            let Borders { time, start, end, first, last } = self.window(step);
            let slide = |times: &[Timestamp], low: &mut usize, high: &mut usize| {
                while *high < times.len() && times[*high] <= last {
                    *high += 1;
                }
                while low < high && times[*low] <= first {
                    *low += 1;
                }
            };
            slide(timestamps, &mut low, &mut high);
            slide(points.times, &mut native_low, &mut native_high);
            seen += (high - low + native_high - native_low) as u64;
            let floats = Window { timestamps, values, starts, low, high, start, end, time, step };
            let cell = if native_low < native_high {
                let points = points.part(native_low, native_high);
                Mixed { floats, points }.eval(&mut self.kernel, &notes)
            } else if low < high {
                self.kernel.eval(&floats).map(Cell::Float)
            } else {
                None
            };
            found |= cell.is_some();
            row.push(cell);
        }
        self.run.count(self.meter, seen);
        self.track = track;
        found
    }
}

struct Borders {
    time: Timestamp,
    start: Timestamp,
    end: Timestamp,
    first: Timestamp,
    last: Timestamp,
}

impl Operator for RangeOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        match self {
            RangeOp::Selector(morsels) => morsels.next(row),
            RangeOp::Subquery(subquery, slider) => {
                while let Some((labels, drop_name)) = subquery.next(&mut slider.track)? {
                    if slider.slide(labels, drop_name, row)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

impl Reckon for Slider<'_> {
    fn another(&self) -> Result<Self, Error> {
        Ok(Slider {
            kernel: self.kernel.clone(),
            place: self.place.clone(),
            param_place: self.param_place.clone(),
            quantiles: self.quantiles.clone(),
            track: Track::default(),
            windows: Vec::new(),
            held: self.run.hold(0, 0)?,
            ..*self
        })
    }

    fn reckon(&mut self, entry: SeriesEntry, row: &mut Row) -> Result<bool, Error> {
        if let Some(decode) = self.decode {
            decode.run(&entry, &mut self.track)?;
        }
        self.track.drop_stale();
        self.slide(entry.labels, false, row)
    }
}

impl Slider<'_> {
    /// What comes of the series in the track, if anything does.
    fn slide(&mut self, labels: Labels, drop_name: bool, row: &mut Row) -> Result<bool, Error> {
        if self.track.is_empty() {
            return Ok(false);
        }
        if !self.run.settings.use_start_timestamps {
            self.track.drop_starts();
        }
        self.held.cover(self.run, self.track.len(), self.track.bytes())?;
        row.restart();
        let found = match self.track.natives.values.is_empty() {
            true => self.floats(row),
            false => self.mixed(labels.metric_name(), row),
        };
        self.run.trace.count_steps(self.meter, (0..self.grid.len).map(|step| self.seen_at(step)));
        if self.kernel.take_overlap() {
            Notices::new(self.run, &self.place, labels.metric_name()).overlap();
        }
        if !found {
            return Ok(false);
        }
        if row.natives.is_empty() || row.values.iter().any(|v| present(*v)) {
            self.note_counter(labels.metric_name());
        }
        for q in std::mem::take(&mut self.quantiles) {
            warn_quantile(self.run, q, &self.param_place);
        }
        row.labels = labels;
        row.drop_name = drop_name || !self.function.keeps_name();
        Ok(true)
    }
}
