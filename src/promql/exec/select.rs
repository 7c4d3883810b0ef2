//! The instant selector: the newest sample of each series at each step, within the lookback.

use std::ops::Range;

use model::{Labels, TimeRange, Timestamp};
use storage::{Need, SelectRequest, SeriesEntry, SeriesSet};

use super::morsels::{Morsels, Reckon};
use super::points::{Notices, Points, note_mix};
use super::trace::Meter;
use super::track::{Place, Track};
use super::{ABSENT, Cell, Grid, Operator, Row, Run};
use crate::plan::Extend;
use crate::{Error, plan};

/// Series of a selector with their samples decoded, stale markers included.
pub(crate) struct Series<'a> {
    run: &'a Run<'a>,
    set: Box<dyn SeriesSet + 'a>,
    pub(crate) decode: Decode,
    ended: bool,
    /// Series so far.
    count: usize,
}

/// Series between two looks at the clock.
const UNWATCHED: usize = 16;

impl<'a> Series<'a> {
    /// Asks for what the windows of `grid` need: each reaches from `back` ms before its end (not included) to
    /// `ahead` ms after its end.
    pub(crate) fn open(
        run: &'a Run<'a>,
        grid: &Grid,
        select: &plan::Select,
        need: &Need,
        back: i64,
        ahead: i64,
    ) -> Result<Series<'a>, Error> {
        let first = window_end(select.at, select.offset, grid.start);
        let last = window_end(select.at, select.offset, grid.last());
        let range = TimeRange::new(first.saturating_sub(back).saturating_add(1), last.saturating_add(ahead));
        let mut request = SelectRequest::new(range, select.matchers.clone());
        request.hints = select.hints.clone();
        let set = match select.shared {
            Some(shared) => run.shares.open(run, shared, &request, need)?,
            None => run.select.scan(&request, need, run.context)?,
        };
        let decode = Decode { range, stats: select.stats };
        Ok(Series { run, set, decode, ended: false, count: 0 })
    }

    /// The next series.
    pub(crate) fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if self.ended {
            return Ok(None);
        }
        if self.count.is_multiple_of(UNWATCHED) || self.run.context.cancel.is_raised() {
            self.run.check()?;
        }
        self.count += 1;
        match self.set.next()? {
            Some(entry) => Ok(Some(entry)),
            None => {
                self.ended = true;
                self.run.absorb(self.set.notes());
                Ok(None)
            }
        }
    }
}

/// How the samples of a selector's series are decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decode {
    range: TimeRange,
    /// Only count and sum of histograms are wanted.
    stats: bool,
}

impl Decode {
    /// A series' samples replace what is in `track`.
    pub(crate) fn run(self, entry: &SeriesEntry, track: &mut Track) -> Result<(), Error> {
        track.decode(&entry.chunks, self.range, self.stats)
    }
}

/// Where the window of a step ends.
pub(crate) fn window_end(at: Option<Timestamp>, offset: i64, step: Timestamp) -> Timestamp {
    at.unwrap_or(step).saturating_sub(offset)
}

/// What a selector yields of its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    Values,
    /// Their times in seconds: `timestamp(...)`.
    Times,
    /// The same of what must be floats: info series.
    InfoTimes,
    /// When their counters began, in seconds: `start_timestamp(...)`.
    Starts,
}

/// `metric{...}`, `timestamp(metric{...})` or `start_timestamp(metric{...})`.
pub(crate) struct SelectOp<'a>(Morsels<'a, Picker<'a>>);

/// Picks the newest sample of a series at each step.
struct Picker<'a> {
    run: &'a Run<'a>,
    decode: Decode,
    grid: Grid,
    at: Option<Timestamp>,
    offset: i64,
    what: Yield,
    /// Between two samples the value lies on the line between them.
    smoothed: bool,
    /// Where the selector stands.
    range: Range<usize>,
    track: Track,
    meter: Meter,
}

impl<'a> SelectOp<'a> {
    pub(crate) fn open(
        run: &'a Run<'a>,
        grid: Grid,
        select: &plan::Select,
        what: Yield,
    ) -> Result<SelectOp<'a>, Error> {
        let smoothed = select.extend == Extend::Smoothed;
        let ahead = if smoothed { run.lookback } else { 0 };
        // One step looks at one sample.
        let all_samples = grid.len > 1 || smoothed || what == Yield::Starts;
        let need = Need { all_samples, ..select.need.clone() };
        let series = Series::open(run, &grid, select, &need, run.lookback, ahead)?;
        let (at, offset, range) = (select.at, select.offset, select.range.clone());
        let meter = run.trace.meter();
        let (decode, track) = (series.decode, Track::default());
        let picker = Picker { run, decode, grid, at, offset, what, smoothed, range, track, meter };
        Ok(SelectOp(Morsels::new(run, series, picker)?))
    }
}

impl Picker<'_> {
    /// One series of floats; how many values it has.
    fn floats(&self, row: &mut Row) -> u64 {
        let (timestamps, values) = (&self.track.floats.timestamps[..], &self.track.floats.values[..]);
        let lookback = self.run.lookback;
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
                Some(at) if timestamps[at] > end.saturating_sub(lookback) && !model::is_stale(values[at]) => {
                    found += 1;
                    match self.what {
                        Yield::Values => values[at],
                        Yield::Times | Yield::InfoTimes => timestamps[at] as f64 / 1000.0,
                        Yield::Starts => self.track.start(Place::Float(at)) as f64 / 1000.0,
                    }
                }
                _ => ABSENT,
            };
            row.values.push(value);
        }
        found
    }

    /// One series that has histograms, maybe floats too; how many values it has.
    fn mixed(&mut self, labels: &Labels, row: &mut Row) -> u64 {
        if self.smoothed {
            self.track.drop_stale();
        }
        let lookback = self.run.lookback;
        let (mut floats, mut natives, mut found) = (0, 0, 0);
        for step in 0..self.grid.len {
            let end = window_end(self.at, self.offset, self.grid.time(step));
            if self.smoothed {
                let cell = self.smooth(labels, end);
                found += u64::from(cell.is_some());
                row.push(cell);
                continue;
            }
            while self.track.floats.timestamps.get(floats).is_some_and(|t| *t <= end) {
                floats += 1;
            }
            while self.track.natives.timestamps.get(natives).is_some_and(|t| *t <= end) {
                natives += 1;
            }
            let newest = self.track.newest(floats, natives);
            let there =
                newest.filter(|(t, place)| *t > end.saturating_sub(lookback) && !self.track.is_stale(*place));
            found += u64::from(there.is_some());
            row.push(there.map(|(time, place)| match self.what {
                Yield::Values => self.track.cell(place),
                Yield::Times | Yield::InfoTimes => Cell::Float(time as f64 / 1000.0),
                Yield::Starts => Cell::Float(self.track.start(place) as f64 / 1000.0),
            }));
        }
        found
    }

    /// The value between the neighbours of a time.
    fn smooth(&self, labels: &Labels, time: Timestamp) -> Option<Cell> {
        let lookback = self.run.lookback;
        let (first, last) = (time.saturating_sub(lookback), time.saturating_add(lookback));
        let within = |times: &[Timestamp]| {
            (times.partition_point(|t| *t <= first), times.partition_point(|t| *t <= last))
        };
        let (floats, natives) = (&self.track.floats, &self.track.natives);
        let (low, high) = within(&floats.timestamps);
        let (native_low, native_high) = within(&natives.timestamps);
        let run = self.run;
        if low < high && native_low < native_high {
            note_mix(run, &self.range, labels.metric_name());
            return None;
        }
        if low < high {
            let next = low + floats.timestamps[low..high].partition_point(|t| *t < time);
            let (times, values) = (&floats.timestamps, &floats.values);
            if next < high && times[next] == time {
                return Some(Cell::Float(values[next]));
            }
            let at = next.checked_sub(1).filter(|at| *at >= low)?;
            if next == high {
                return Some(Cell::Float(values[at]));
            }
            let part = (time - times[at]) as f64 / (times[next] - times[at]) as f64;
            return Some(Cell::Float(values[at] + (values[next] - values[at]) * part));
        }
        let points = Points::new(&natives.timestamps, &natives.values).part(native_low, native_high);
        let mut notes = Notices::new(run, &self.range, labels.metric_name());
        points.smooth(time, &mut notes).map(Cell::Native)
    }
}

impl Operator for SelectOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        self.0.next(row)
    }
}

impl Reckon for Picker<'_> {
    fn another(&self) -> Result<Self, Error> {
        Ok(Picker { track: Track::default(), range: self.range.clone(), ..*self })
    }

    fn reckon(&mut self, entry: SeriesEntry, row: &mut Row) -> Result<bool, Error> {
        self.decode.run(&entry, &mut self.track)?;
        row.restart();
        let found = match self.track.natives.values.is_empty() {
            true => self.floats(row),
            false => self.mixed(&entry.labels, row),
        };
        if self.what == Yield::InfoTimes && found > 0 && !self.track.natives.values.is_empty() {
            return Err(Error::execution(format!(
                "info series {} has histograms; info samples must be floats",
                entry.labels
            )));
        }
        if found == 0 {
            return Ok(false);
        }
        self.run.count(self.meter, found);
        let each = (0..self.grid.len).map(|step| u64::from(row.has(step)));
        self.run.trace.count_steps(self.meter, each);
        row.labels = entry.labels;
        row.drop_name = self.what != Yield::Values;
        Ok(true)
    }
}
