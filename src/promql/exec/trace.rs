//! What each operator of an evaluation cost, for those who ask: time, and samples looked at, at which step.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::Timestamp;
use parking_lot::Mutex;

use super::{Grid, Op, Operator, Row, Run};
use crate::value::Analysis;
use crate::{Details, Error};

/// How the samples count that an operator looks at; taken when it is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// Steps at which its result stands: 1 where it looks at samples for each, 0 within a subquery, whose own values are
    /// counted instead.
    times: u64,
    /// Its one result stands at every step.
    every: bool,
    /// Of which operator it is.
    span: Option<usize>,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter { times: 1, every: false, span: None }
    }
}

#[derive(Debug)]
struct Span {
    name: String,
    parent: Option<usize>,
    took: Duration,
    samples: u64,
}

/// Figures of one evaluation.
#[derive(Debug)]
pub(crate) struct Trace {
    samples: AtomicU64,
    meter: Mutex<Meter>,
    /// One per step of the query, where they are wanted.
    steps: Option<Vec<AtomicU64>>,
    /// In the order of building, parents first, where they are wanted.
    spans: Option<Mutex<Vec<Span>>>,
}

impl Trace {
    pub(crate) fn new(details: Details, steps: usize) -> Trace {
        let one_per_step = || std::iter::repeat_with(AtomicU64::default).take(steps).collect();
        Trace {
            samples: AtomicU64::new(0),
            meter: Mutex::default(),
            steps: details.per_step.then(one_per_step),
            spans: details.analyze.then(Mutex::default),
        }
    }

    /// For an operator that is being built.
    pub(crate) fn meter(&self) -> Meter {
        *self.meter.lock()
    }

    /// Builds what is part of a subquery.
    pub(crate) fn nested<T>(&self, build: impl FnOnce() -> T) -> T {
        let meter = Meter { times: 0, ..self.meter() };
        self.within(meter, build)
    }

    /// Builds what is computed once for `len` steps.
    pub(crate) fn repeated<T>(&self, len: usize, build: impl FnOnce() -> T) -> T {
        let meter = self.meter();
        let meter = Meter { times: meter.times * len as u64, every: true, ..meter };
        self.within(meter, build)
    }

    fn within<T>(&self, meter: Meter, build: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut *self.meter.lock(), meter);
        let built = build();
        *self.meter.lock() = before;
        built
    }

    /// Samples were looked at, at all steps together.
    pub(crate) fn count(&self, meter: Meter, samples: u64) {
        self.samples.fetch_add(samples * meter.times, Relaxed);
        if let (Some(spans), Some(at)) = (&self.spans, meter.span)
            && let Some(span) = spans.lock().get_mut(at)
        {
            span.samples += samples * meter.times;
        }
    }

    /// The same once more step by step, where that is wanted.
    pub(crate) fn count_steps(&self, meter: Meter, each: impl Iterator<Item = u64>) {
        let Some(steps) = &self.steps else { return };
        if meter.times == 0 {
            return;
        }
        if meter.every {
            let samples = each.sum();
            steps.iter().for_each(|step| _ = step.fetch_add(samples, Relaxed));
            return;
        }
        for (step, samples) in steps.iter().zip(each) {
            step.fetch_add(samples, Relaxed);
        }
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples.load(Relaxed)
    }

    pub(crate) fn per_step(&self, grid: Grid) -> Vec<(Timestamp, u64)> {
        let steps = self.steps.iter().flatten().enumerate();
        steps.map(|(at, samples)| (grid.time(at), samples.load(Relaxed))).collect()
    }

    /// The operators as a tree; `whole` stands for the query where it is no single operator.
    pub(crate) fn analysis(&self, whole: &str, took: Duration, peak_samples: usize) -> Option<Analysis> {
        let spans = self.spans.as_ref()?.lock();
        let mut top = Vec::new();
        let mut children: Vec<Vec<Analysis>> = spans.iter().map(|_| Vec::new()).collect();
        for (at, span) in spans.iter().enumerate().rev() {
            let mut below = std::mem::take(&mut children[at]);
            below.reverse();
            let samples = span.samples + below.iter().map(|child| child.samples).sum::<u64>();
            let one = Analysis {
                name: span.name.clone(),
                took: span.took,
                samples,
                peak_samples: None,
                children: below,
            };
            match span.parent {
                Some(parent) => children[parent].push(one),
                None => top.push(one),
            }
        }
        top.reverse();
        let mut root = match <[Analysis; 1]>::try_from(top) {
            Ok([one]) => one,
            Err(several) => Analysis {
                name: whole.to_owned(),
                took,
                samples: self.samples(),
                peak_samples: None,
                children: several,
            },
        };
        root.peak_samples = Some(peak_samples);
        Some(root)
    }
}

/// Builds an operator, and has it timed where that is wanted.
pub(crate) fn traced<'a>(
    run: &'a Run<'a>,
    name: impl FnOnce() -> String,
    build: impl FnOnce() -> Result<Op<'a>, Error>,
) -> Result<Op<'a>, Error> {
    let trace = &run.trace;
    let Some(spans) = &trace.spans else { return build() };
    let meter = trace.meter();
    let at = {
        let mut spans = spans.lock();
        spans.push(Span { name: name(), parent: meter.span, took: Duration::ZERO, samples: 0 });
        spans.len() - 1
    };
    let took = Took { run, at };
    let op = took.measure(|| trace.within(Meter { span: Some(at), ..meter }, build))?;
    Ok(Box::new(Timed { op, took }))
}

struct Took<'a> {
    run: &'a Run<'a>,
    at: usize,
}

impl Took<'_> {
    fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let clock = &self.run.world.clock;
        let began = clock.monotonic();
        let done = work();
        let took = clock.monotonic() - began;
        if let Some(spans) = &self.run.trace.spans
            && let Some(span) = spans.lock().get_mut(self.at)
        {
            span.took += took;
        }
        done
    }
}

/// An operator that is timed, its inputs included.
struct Timed<'a> {
    op: Op<'a>,
    took: Took<'a>,
}

impl Operator for Timed<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        let Timed { op, took } = self;
        took.measure(|| op.next(row))
    }
}
