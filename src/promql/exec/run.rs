//! What all operators of one evaluation share: source, limits, notes and figures.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use model::Labels;
use parking_lot::Mutex;
use runtime::World;
use storage::{Budget, Context, Notes, Reservation, Select};

use super::morsels::Threads;
use super::share::Shares;
use super::trace::{Meter, Trace};
use super::{Op, Row};
use crate::parse::line_column;
use crate::{Details, EngineSettings, Error};

/// One evaluation.
pub(crate) struct Run<'a> {
    pub(crate) select: &'a dyn Select,
    pub(crate) context: &'a Context,
    pub(crate) settings: &'a EngineSettings,
    pub(crate) world: &'a World,
    /// The query's text, for positions.
    pub(crate) text: &'a str,
    pub(crate) lookback: i64,
    /// Whether there is only one step, asked for as an instant query.
    pub(crate) instant: bool,
    pub(crate) deadline: Instant,
    pub(crate) budget: Budget,
    pub(crate) trace: Trace,
    pub(crate) shares: Shares,
    pub(crate) threads: &'a Threads,
    held: AtomicUsize,
    pub(crate) peak: AtomicUsize,
    notes: Mutex<Notes>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        select: &'a dyn Select,
        context: &'a Context,
        settings: &'a EngineSettings,
        world: &'a World,
        text: &'a str,
        lookback: i64,
        instant: bool,
        threads: &'a Threads,
    ) -> Run<'a> {
        let deadline = world.clock.monotonic() + settings.timeout;
        Run {
            select,
            context,
            settings,
            world,
            text,
            lookback,
            instant,
            deadline,
            budget: context.budget.clone(),
            trace: Trace::new(Details::default(), 0),
            shares: Shares::default(),
            threads,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            notes: Mutex::default(),
        }
    }

    /// To be called once per series.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.context.cancel.is_raised() {
            return Err(Error::canceled());
        }
        let now = self.world.clock.monotonic();
        if now >= self.deadline || self.context.cancel.check(now).is_err() {
            return Err(Error::timed_out());
        }
        Ok(())
    }

    /// Samples looked at.
    pub(crate) fn count(&self, meter: Meter, samples: u64) {
        self.trace.count(meter, samples);
    }

    /// Holds samples and bytes until the answer is dropped.
    pub(crate) fn hold(&self, samples: usize, bytes: usize) -> Result<Held<'_>, Error> {
        let mut held = Held { run_held: &self.held, samples: 0, reservation: self.budget.reserve(0)? };
        held.grow(self, samples, bytes)?;
        Ok(held)
    }

    pub(crate) fn warn(&self, range: &Range<usize>, message: impl std::fmt::Display) {
        let (line, column) = line_column(self.text, range.start);
        self.notes.lock().warn(format!("PromQL warning: {message} ({line}:{column})"));
    }

    pub(crate) fn info(&self, range: &Range<usize>, message: impl std::fmt::Display) {
        let (line, column) = line_column(self.text, range.start);
        let text = format!("PromQL info: {message} ({line}:{column})");
        let mut notes = self.notes.lock();
        if !notes.infos.contains(&text) {
            notes.infos.push(text);
        }
    }

    pub(crate) fn absorb(&self, notes: Notes) {
        if !notes.is_empty() {
            self.notes.lock().absorb(notes);
        }
    }

    pub(crate) fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.notes.lock())
    }

    /// Reads an operator to its end.
    pub(crate) fn collect(&self, mut op: Op<'_>) -> Result<Rows<'_>, Error> {
        let mut rows = Rows { rows: Vec::new(), held: self.hold(0, 0)? };
        let mut row = Row::default();
        while op.next(&mut row)? {
            rows.push(self, std::mem::take(&mut row))?;
        }
        Ok(rows)
    }
}

/// Samples and bytes in hand; given back on drop.
pub(crate) struct Held<'r> {
    run_held: &'r AtomicUsize,
    samples: usize,
    reservation: Reservation,
}

impl Held<'_> {
    pub(crate) fn grow(&mut self, run: &Run<'_>, samples: usize, bytes: usize) -> Result<(), Error> {
        self.reservation.grow(bytes as u64)?;
        self.samples += samples;
        let now = run.held.fetch_add(samples, Relaxed) + samples;
        run.peak.fetch_max(now, Relaxed);
        if now > run.settings.max_samples {
            return Err(Error::exhausted(
                "query processing would load too many samples into memory in query execution",
            ));
        }
        Ok(())
    }
}

impl Held<'_> {
    /// Holds at least so much.
    pub(crate) fn cover(&mut self, run: &Run<'_>, samples: usize, bytes: usize) -> Result<(), Error> {
        let more = bytes.saturating_sub(self.reservation.bytes() as usize);
        let samples = samples.saturating_sub(self.samples);
        if more == 0 && samples == 0 {
            return Ok(());
        }
        self.grow(run, samples, more)
    }

    /// Gives some of it back.
    fn shrink(&mut self, samples: usize, bytes: usize) {
        let samples = samples.min(self.samples);
        self.run_held.fetch_sub(samples, Relaxed);
        self.samples -= samples;
        self.reservation.shrink(bytes as u64);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.run_held.fetch_sub(self.samples, Relaxed);
    }
}

/// Collected rows, accounted for.
pub(crate) struct Rows<'r> {
    pub(crate) rows: Vec<Row>,
    held: Held<'r>,
}

impl<'r> Rows<'r> {
    pub(crate) fn empty(run: &'r Run<'_>) -> Result<Rows<'r>, Error> {
        Ok(Rows { rows: Vec::new(), held: run.hold(0, 0)? })
    }

    pub(crate) fn push(&mut self, run: &Run<'_>, row: Row) -> Result<(), Error> {
        self.held.grow(run, row.points(), row.bytes() + outside(&row))?;
        self.rows.push(row);
        Ok(())
    }

    /// As [`push`](Rows::push) for a row whose values are in a buffer that is accounted for here already.
    pub(crate) fn push_reused(&mut self, run: &Run<'_>, row: Row) -> Result<(), Error> {
        self.held.grow(run, 0, outside(&row))?;
        self.rows.push(row);
        Ok(())
    }

    /// The rows, and in their place nothing, with all of them still accounted for.
    pub(crate) fn apart(self) -> (Vec<Row>, Rows<'r>) {
        (self.rows, Rows { rows: Vec::new(), held: self.held })
    }
}

/// Bytes of a row besides its values.
fn outside(row: &Row) -> usize {
    shared_labels(&row.labels) + size_of::<Row>()
}

/// Bytes of labels that are shared by reference, their counts with them.
pub(crate) fn shared_labels(labels: &Labels) -> usize {
    labels.as_bytes().len() + 2 * size_of::<usize>()
}

/// Bytes that a hash table of `len` entries takes: at most 7 of 8 places are full, and each has a byte of its hash.
pub(crate) fn table_bytes<T>(len: usize) -> usize {
    (len * 8 / 7).next_power_of_two() * (size_of::<T>() + 1)
}

/// Yields rows that have been computed already, one by one; each is accounted for by who takes it.
pub(crate) struct Ready<'r> {
    rows: std::vec::IntoIter<Row>,
    held: Held<'r>,
}

impl<'r> Ready<'r> {
    pub(crate) fn new(rows: Rows<'r>) -> Ready<'r> {
        Ready { rows: rows.rows.into_iter(), held: rows.held }
    }
}

impl super::Operator for Ready<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        for next in self.rows.by_ref() {
            let points = next.points();
            self.held.shrink(points, next.bytes() + outside(&next));
            if points > 0 {
                *row = next;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
