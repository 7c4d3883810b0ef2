//! Morsels: series that are decoded and reckoned a few hundred at a time, on a second thread where one is free.
//!
//! Queries share the processors fairly: as long as there are as many queries as processors each has one thread, and
//! only what is left over helps, for one morsel at a time. So a small query never waits for the helpers of a large one
//! for longer than a morsel. The order of the series stays.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use storage::SeriesEntry;

use super::run::Held;
use super::select::Series;
use super::{Row, Run};
use crate::Error;

/// Series of a query before anybody helps: most queries have no more.
const ALONE: usize = 256;
/// Bytes of chunks and series of a morsel: a millisecond or two of work.
const BYTES: usize = 256 << 10;
const SERIES: usize = 2048;
/// A morsel with less than this is not worth a thread.
const WORTH: usize = 64 << 10;

/// Threads of all queries of an engine that are at work.
#[derive(Debug)]
pub(crate) struct Threads {
    most: usize,
    busy: AtomicUsize,
}

/// One of them, as long as it lives.
pub(crate) struct Busy<'t>(&'t Threads);

impl Threads {
    pub(crate) fn new(most: usize) -> Threads {
        Threads { most, busy: AtomicUsize::new(0) }
    }

    /// A query begins, however many there are.
    pub(crate) fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Relaxed);
        Busy(self)
    }

    /// A helper, unless all processors have something to do.
    fn help(&self) -> Option<Busy<'_>> {
        let more = |busy: usize| (busy < self.most).then_some(busy + 1);
        self.busy.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Busy(self))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// What makes a row of a series; each thread has one.
pub(crate) trait Reckon: Send {
    /// For another thread.
    fn another(&self) -> Result<Self, Error>
    where
        Self: Sized;

    /// False where nothing comes of the series. The row's buffers are reused.
    fn reckon(&mut self, entry: SeriesEntry, row: &mut Row) -> Result<bool, Error>;
}

/// Series of a selector, reckoned.
pub(crate) struct Morsels<'a, R> {
    run: &'a Run<'a>,
    series: Series<'a>,
    own: R,
    other: Option<R>,
    ready: VecDeque<Row>,
    held: Held<'a>,
    seen: usize,
}

impl<'a, R: Reckon> Morsels<'a, R> {
    pub(crate) fn new(run: &'a Run<'a>, series: Series<'a>, own: R) -> Result<Morsels<'a, R>, Error> {
        Ok(Morsels { run, series, own, other: None, ready: VecDeque::new(), held: run.hold(0, 0)?, seen: 0 })
    }

    pub(crate) fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                *row = next;
                return Ok(true);
            }
            if self.seen >= ALONE
                && let Some(helper) = self.run.threads.help()
            {
                let morsel = self.morsel()?;
                if morsel.is_empty() {
                    return Ok(false);
                }
                self.reckon(morsel, helper)?;
                continue;
            }
            let Some(entry) = self.series.next()? else { return Ok(false) };
            self.seen += 1;
            if self.own.reckon(entry, row)? {
                return Ok(true);
            }
        }
    }

    fn morsel(&mut self) -> Result<Vec<SeriesEntry>, Error> {
        let (mut morsel, mut bytes) = (Vec::new(), 0);
        while bytes < BYTES
            && morsel.len() < SERIES
            && let Some(entry) = self.series.next()?
        {
            bytes += entry.chunks.iter().map(|c| c.bytes.len()).sum::<usize>();
            morsel.push(entry);
        }
        Ok(morsel)
    }

    /// Reckons the first half here and the other one there, if that is worth it.
    fn reckon(&mut self, mut morsel: Vec<SeriesEntry>, helper: Busy<'_>) -> Result<(), Error> {
        let bytes: usize = morsel.iter().flat_map(|e| &e.chunks).map(|c| c.bytes.len()).sum();
        let helper = Some(helper).filter(|_| bytes >= WORTH);
        if helper.is_some() && self.other.is_none() {
            self.other = Some(self.own.another()?);
        }
        let (first, second) = match (helper, &mut self.other) {
            (Some(_helper), Some(other)) => {
                let rest = morsel.split_off(morsel.len() / 2);
                let own = &mut self.own;
                std::thread::scope(|scope| {
                    let there = std::thread::Builder::new()
                        .name("promql-morsel".to_owned())
                        .spawn_scoped(scope, move || all(other, rest))
                        .map_err(|e| Error::exhausted(format!("no thread for a part of the query: {e}")))?;
                    let first = all(own, morsel);
                    let second = there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    Ok::<_, Error>((first?, second?))
                })?
            }
            _ => (all(&mut self.own, morsel)?, Vec::new()),
        };
        let (mut samples, mut bytes) = (0, 0);
        for row in first.iter().chain(&second) {
            samples += row.points();
            bytes += row.bytes() + row.labels.as_bytes().len() + size_of::<Row>();
        }
        self.held.cover(self.run, samples, bytes)?;
        self.ready.extend(first);
        self.ready.extend(second);
        Ok(())
    }
}

fn all<R: Reckon>(own: &mut R, morsel: Vec<SeriesEntry>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::with_capacity(morsel.len());
    let mut row = Row::default();
    for entry in morsel {
        if own.reckon(entry, &mut row)? {
            rows.push(std::mem::take(&mut row));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_what_queries_leave_over() {
        let threads = Threads::new(2);
        let large = threads.begin();
        let helper = threads.help();
        assert!(helper.is_some() && threads.help().is_none());
        // Another query comes: nobody helps any more, and it does not wait.
        let small = threads.begin();
        drop(helper);
        assert!(threads.help().is_none());
        drop(small);
        assert!(threads.help().is_some());
        drop(large);
        assert_eq!(threads.busy.load(Relaxed), 0);
    }
}
