//! Consecutive histograms of a series: differences, resets between them, and values between two of them.

use std::ops::Range;
use std::sync::Arc;

use model::histogram::ResetHint;
use model::{FloatHistogram, Timestamp};

use super::stretch::{overlaps, started_anew};
use super::{Native, Run};
use crate::native::{self, Incompatible, Met, is_custom, is_reset};

/// Where and of what metric notes are told.
pub(crate) struct Notices<'n> {
    run: &'n Run<'n>,
    range: &'n Range<usize>,
    name: &'n str,
}

/// The series' samples are floats as well as histograms.
pub(crate) fn note_mix(run: &Run<'_>, range: &Range<usize>, name: &str) {
    run.warn(range, format_args!("encountered a mix of histograms and floats for metric name {name:?}"));
}

impl<'n> Notices<'n> {
    pub(crate) fn new(run: &'n Run<'_>, range: &'n Range<usize>, name: &'n str) -> Notices<'n> {
        Notices { run, range, name }
    }

    pub(crate) fn mix(&self) {
        note_mix(self.run, self.range, self.name);
    }

    pub(crate) fn layouts(&self) {
        self.run.warn(
            self.range,
            format_args!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric \
                 name {:?}",
                self.name
            ),
        );
    }

    pub(crate) fn not_counter(&self) {
        self.run
            .warn(self.range, format_args!("this native histogram metric is not a counter: {:?}", self.name));
    }

    pub(crate) fn not_gauge(&self) {
        self.run
            .warn(self.range, format_args!("this native histogram metric is not a gauge: {:?}", self.name));
    }

    pub(crate) fn overlap(&self) {
        self.run.warn(
            self.range,
            format_args!(
                "sample has start time that overlaps with previous sample timestamp for metric {:?}",
                self.name
            ),
        );
    }

    pub(crate) fn ignored(&self) {
        self.run.info(
            self.range,
            format_args!(
                "ignored histograms in a range containing both floats and histograms for metric name {:?}",
                self.name
            ),
        );
    }

    pub(crate) fn reconciled(&self, during: &str) {
        self.run.info(self.range, format_args!("mismatched custom buckets were reconciled during {during}"));
    }

    pub(crate) fn collision(&self) {
        self.run.warn(self.range, "conflicting counter resets during histogram aggregation");
    }

    /// Adds in place; none where that is not possible, which is told.
    pub(crate) fn add(&self, h: &mut FloatHistogram, other: &FloatHistogram) -> Option<()> {
        self.met(native::add(h, other), "addition")
    }

    pub(crate) fn subtract(&self, h: &mut FloatHistogram, other: &FloatHistogram) -> Option<()> {
        self.met(native::subtract(h, other), "subtraction")
    }

    /// Collisions of resets are not told: who calls looks at resets himself.
    fn met(&self, met: Result<Met, Incompatible>, during: &str) -> Option<()> {
        match met {
            Ok(Met { reconciled, .. }) => {
                if reconciled {
                    self.reconciled(during);
                }
                Some(())
            }
            Err(Incompatible) => {
                self.layouts();
                None
            }
        }
    }
}

/// Histograms with their times, ascending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points<'p> {
    pub(crate) times: &'p [Timestamp],
    pub(crate) values: &'p [Native],
    /// When their counters began; empty where nothing is known.
    pub(crate) starts: &'p [Timestamp],
}

impl<'p> Points<'p> {
    pub(crate) fn new(times: &'p [Timestamp], values: &'p [Native]) -> Points<'p> {
        Points { times, values, starts: &[] }
    }

    pub(crate) fn part(self, low: usize, high: usize) -> Points<'p> {
        let starts = if self.starts.is_empty() { self.starts } else { &self.starts[low..high] };
        Points { times: &self.times[low..high], values: &self.values[low..high], starts }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the counters began anew between a point and the one before.
    pub(crate) fn resets_at(&self, at: usize) -> bool {
        self.started_anew(at) || is_reset(&self.values[at], &self.values[at - 1])
    }

    fn started_anew(&self, at: usize) -> bool {
        match self.starts.get(at) {
            Some(start) => started_anew(self.starts[at - 1], self.times[at - 1], *start, self.times[at]),
            None => false,
        }
    }

    /// What was added between the first and the last of at least two points, over resets if they are counters.
    pub(crate) fn difference(&self, counter: bool, notes: &Notices<'_>) -> Option<FloatHistogram> {
        let (first, last) = (self.values.first()?, self.values.last()?);
        let is_gauge = |h: &FloatHistogram| h.hint == ResetHint::Gauge;
        if counter && (is_gauge(first) || is_gauge(last)) {
            notes.not_counter();
        }
        let second = &self.values[1];
        let mut before: &FloatHistogram = first;
        let nothing;
        if counter && self.resets_at(1) {
            // Nothing of the first one enters the result, its layout neither.
            nothing = FloatHistogram {
                schema: second.schema,
                custom_values: second.custom_values.clone(),
                ..FloatHistogram::default()
            };
            before = &nothing;
        }
        let custom = is_custom(before);
        if is_custom(last) != custom {
            notes.layouts();
            return None;
        }
        let mut schema = last.schema.min(before.schema);
        if counter {
            for h in &self.values[1..self.len() - 1] {
                if is_gauge(h) {
                    notes.not_counter();
                }
                schema = schema.min(h.schema);
                if is_custom(h) != custom {
                    notes.layouts();
                    return None;
                }
            }
        }
        let mut sum = native::to_schema(last, schema);
        notes.subtract(&mut sum, before)?;
        if counter {
            for at in 1..self.len() {
                if at < self.starts.len()
                    && overlaps(self.starts[at - 1], self.times[at - 1], self.starts[at])
                {
                    notes.overlap();
                }
                let h = &self.values[at];
                if self.started_anew(at) || is_reset(h, before) {
                    notes.add(&mut sum, before)?;
                }
                before = h;
            }
        } else if !is_gauge(first) || !is_gauge(last) {
            notes.not_gauge();
        }
        sum.hint = ResetHint::Gauge;
        native::compact(&mut sum);
        Some(sum)
    }

    /// The value at a time from its neighbours; the one before where there is no next one.
    pub(crate) fn smooth(&self, time: Timestamp, notes: &mut Notices<'_>) -> Option<Native> {
        let next = self.times.partition_point(|t| *t < time);
        if self.times.get(next) == Some(&time) {
            return Some(self.values[next].clone());
        }
        let at = next.checked_sub(1)?;
        let before = &self.values[at];
        let Some(after) = self.values.get(next) else {
            let mut h = (**before).clone();
            // What was known of resets held for that sample's own time.
            h.hint = ResetHint::Unknown;
            return Some(Arc::new(h));
        };
        if is_custom(before) != is_custom(after) {
            notes.layouts();
            return None;
        }
        let gauge = before.hint == ResetHint::Gauge && after.hint == ResetHint::Gauge;
        self.between(at, time, !gauge, notes).map(Arc::new)
    }

    /// On the line between a point and the next one. A counter that was reset counts from 0.
    fn between(
        &self,
        at: usize,
        time: Timestamp,
        counter: bool,
        notes: &Notices<'_>,
    ) -> Option<FloatHistogram> {
        let (before, after) = (&self.values[at], &self.values[at + 1]);
        let (from, to) = (self.times[at], self.times[at + 1]);
        if time == from {
            return Some((**before).clone());
        }
        let mut out = (**after).clone();
        if time == to {
            return Some(out);
        }
        let part = (time - from) as f64 / (to - from) as f64;
        if counter && is_reset(after, before) {
            native::scale(&mut out, part);
            return Some(out);
        }
        notes.subtract(&mut out, before)?;
        native::scale(&mut out, part);
        notes.add(&mut out, before)?;
        Some(out)
    }

    /// The difference between the borders of a window that is extended over them: from the last point before it,
    /// or, `smoothed`, between the values interpolated at both borders.
    pub(crate) fn extended(
        &self,
        (start, end): (Timestamp, Timestamp),
        smoothed: bool,
        counter: bool,
        notes: &Notices<'_>,
    ) -> Option<FloatHistogram> {
        let mut last = self.len().checked_sub(1)?;
        let first = self.times[..last].partition_point(|t| *t <= start).saturating_sub(1);
        if smoothed {
            last = self.times[..last].partition_point(|t| *t < end);
        }
        if self.times[last] <= start || (smoothed && self.times[first] > end) {
            return None;
        }
        let custom = is_custom(&self.values[first]);
        for h in &self.values[first..=last] {
            if is_custom(h) != custom {
                notes.layouts();
                return None;
            }
            if counter && h.hint == ResetHint::Gauge {
                notes.not_counter();
            }
        }
        let cuts_first = smoothed && self.times[first] < start;
        let left = match cuts_first {
            true => self.between(first, start, counter, notes)?,
            false => (*self.values[first]).clone(),
        };
        let right = match smoothed && last > 0 && self.times[last] > end {
            true => self.between(last - 1, end, counter, notes)?,
            false => (*self.values[last]).clone(),
        };
        if !counter && (left.hint != ResetHint::Gauge || right.hint != ResetHint::Gauge) {
            notes.not_gauge();
        }
        let mut out = right.clone();
        notes.subtract(&mut out, &left)?;
        if counter {
            let mut before = &left;
            let mut next = first + 1;
            if cuts_first && is_reset(&self.values[first + 1], &self.values[first]) {
                // That reset is in the value at the border already.
                before = &self.values[first + 1];
                next += 1;
            }
            if next <= last {
                let inside = self.values[next..last].iter().map(|h| &**h);
                for h in inside.chain([&right]) {
                    if is_reset(h, before) {
                        notes.add(&mut out, before)?;
                    }
                    before = h;
                }
            }
        }
        out.hint = ResetHint::Gauge;
        Some(out)
    }
}
