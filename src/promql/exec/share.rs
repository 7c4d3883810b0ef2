//! One read for several readers: what a selector's first reader pulls is kept until the others have had it.
//!
//! Kept are chunks as they came, within a part of the query's budget. What would not fit is read anew by those who have
//! not begun yet.

use std::collections::VecDeque;
use std::sync::Arc;

use model::TimeRange;
use parking_lot::Mutex;
use storage::{Need, Notes, Reservation, SelectRequest, SeriesEntry, SeriesSet};

use super::Run;
use crate::Error;
use crate::plan::Shared;

/// The part of the query's budget that one read may keep.
const PART: u64 = 4;

/// What is read together, by the number of its selectors.
#[derive(Default)]
pub(crate) struct Shares(Mutex<Vec<(usize, Arc<Share>)>>);

struct Share {
    range: TimeRange,
    need: Need,
    state: Mutex<State>,
}

struct State {
    /// None once it has ended.
    set: Option<Box<dyn SeriesSet>>,
    /// Entries that some reader has not had yet; the first of them is number `first`.
    kept: VecDeque<SeriesEntry>,
    first: usize,
    /// What each reader has had; all those that are expected, there or not.
    readers: Vec<usize>,
    opened: usize,
    held: Reservation,
    most: u64,
    /// Only this reader goes on; the others have sets of their own.
    alone: Option<usize>,
    notes: Notes,
}

impl Shares {
    /// The set of a request that others make as well.
    pub(crate) fn open<'a>(
        &self,
        run: &'a Run<'a>,
        shared: Shared,
        request: &SelectRequest,
        need: &Need,
    ) -> Result<Box<dyn SeriesSet + 'a>, Error> {
        let known = {
            let all = self.0.lock();
            all.iter().find(|(number, _)| *number == shared.number).map(|(_, share)| share.clone())
        };
        let share = match known {
            Some(share) => share,
            None => {
                let state = State {
                    set: Some(run.select.scan(request, need, run.context)?),
                    kept: VecDeque::new(),
                    first: 0,
                    readers: vec![0; shared.readers],
                    opened: 0,
                    held: run.budget.reserve(0)?,
                    most: run.budget.limit() / PART,
                    alone: None,
                    notes: Notes::default(),
                };
                let (range, need) = (request.range, need.clone());
                let share = Arc::new(Share { range, need, state: Mutex::new(state) });
                self.0.lock().push((shared.number, share.clone()));
                share
            }
        };
        let mut state = share.state.lock();
        // At other times or with other needs, or too late: by itself.
        let together = share.range == request.range && share.need == *need && state.alone.is_none();
        if !together || state.opened == state.readers.len() {
            return Ok(run.select.scan(request, need, run.context)?);
        }
        let number = state.opened;
        state.opened += 1;
        drop(state);
        Ok(Box::new(Reader { run, share, number, request: request.clone(), own: None }))
    }
}

impl State {
    /// The next entry of a reader. The flag: it has to read by itself.
    fn next(&mut self, reader: usize) -> Result<(Option<SeriesEntry>, bool), storage::Error> {
        if self.alone.is_some_and(|alone| alone != reader) {
            return Ok((None, true));
        }
        let at = self.readers[reader];
        let entry = match self.kept.get(at - self.first) {
            Some(kept) => Some(kept.clone()),
            None => self.pull(reader)?,
        };
        if entry.is_some() {
            self.readers[reader] += 1;
            self.forget();
        }
        Ok((entry, false))
    }

    /// Reads on, for the reader who is farthest.
    fn pull(&mut self, reader: usize) -> Result<Option<SeriesEntry>, storage::Error> {
        let Some(set) = &mut self.set else { return Ok(None) };
        let Some(entry) = set.next()? else {
            self.notes = set.notes();
            self.set = None;
            return Ok(None);
        };
        if self.alone.is_some() {
            return Ok(Some(entry));
        }
        let bytes = bytes_of(&entry);
        let room = self.held.bytes() + bytes <= self.most && self.held.grow(bytes).is_ok();
        if room {
            self.kept.push_back(entry.clone());
        } else if self.readers.iter().enumerate().all(|(at, had)| at == reader || *had == 0) {
            self.kept = VecDeque::new();
            self.held.resize(0)?;
            self.alone = Some(reader);
        } else {
            self.held.grow(bytes)?;
            self.kept.push_back(entry.clone());
        }
        Ok(Some(entry))
    }

    /// Lets go of what all readers have had.
    fn forget(&mut self) {
        let had = self.readers.iter().copied().min().unwrap_or(0);
        if self.alone.is_some() || had <= self.first {
            return;
        }
        let gone = self.kept.drain(..(had - self.first).min(self.kept.len()));
        let bytes: u64 = gone.map(|entry| bytes_of(&entry)).sum();
        self.first = had;
        // Less is never refused.
        let _ = self.held.resize(self.held.bytes().saturating_sub(bytes));
    }
}

/// Many chunks share one allocation, which stays as long as any of them: entry by entry all of it is counted.
fn bytes_of(entry: &SeriesEntry) -> u64 {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of_val(c)).sum();
    (entry.labels.as_bytes().len() + chunks + size_of_val(entry)) as u64
}

/// One of several readers.
struct Reader<'a> {
    run: &'a Run<'a>,
    share: Arc<Share>,
    number: usize,
    request: SelectRequest,
    own: Option<Box<dyn SeriesSet>>,
}

impl SeriesSet for Reader<'_> {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        if let Some(own) = &mut self.own {
            return own.next();
        }
        let (entry, by_itself) = self.share.state.lock().next(self.number)?;
        if !by_itself {
            return Ok(entry);
        }
        let own = self.run.select.scan(&self.request, &self.share.need, self.run.context)?;
        self.own.insert(own).next()
    }

    fn notes(&mut self) -> Notes {
        match &mut self.own {
            Some(own) => own.notes(),
            None => self.share.state.lock().notes.clone(),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut state = self.share.state.lock();
        state.readers[self.number] = usize::MAX;
        state.forget();
    }
}
