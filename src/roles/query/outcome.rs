//! Who has answered and who has failed in one answer, and whether it can stand without them.
//!
//! An endpoint that fails midway is left where it broke off. One that is silent while the others have all that a
//! complete answer needs is given up after a while: what it holds, others hold too.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use agreed::State;
use model::Kind;
use parking_lot::Mutex;
use rpc::{PeerSeries, Waited, Watch};
use runtime::World;
use storage::{Cancel, Context, Error, Merge, Notes, SeriesEntry, SeriesSet};

use crate::complete::{Judgement, Needed, Tolerance, judge};
use crate::endpoints::Endpoint;
use crate::roster::behind;

/// How often a silent endpoint is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The ring as it was agreed on when the question was asked.
pub struct Ring {
    agreed: Arc<State>,
    /// Those of its receivers that are asked, each with its place among those that are needed.
    owners: Vec<(Arc<Endpoint>, usize)>,
}

impl Ring {
    /// `asked`: endpoints, each with its place in `needed`.
    pub fn new<'a>(
        agreed: Arc<State>,
        asked: impl Iterator<Item = (&'a Arc<Endpoint>, usize)>,
        needed: &[Needed],
    ) -> Ring {
        let owners = asked.filter(|(_, at)| needed[*at].owner.is_some());
        Ring { agreed, owners: owners.map(|(endpoint, at)| (Arc::clone(endpoint), at)).collect() }
    }

    /// What is wrong where a receiver answered in a later epoch: whom that has, nobody asked.
    fn behind(&self) -> Option<String> {
        let heard = self.owners.iter().map(|(owner, _)| owner.client.ring_epoch()).max()?;
        behind(&self.agreed, heard)
    }

    /// Of which log each owner has answered, which its answer has told.
    fn name_logs(&self, needed: &mut [Needed]) {
        for (endpoint, at) in &self.owners {
            if let Some(owner) = &mut needed[*at].owner {
                owner.log = endpoint.client.incarnation();
            }
        }
    }
}

/// Who has failed so far in one answer.
pub struct Outcome {
    needed: Mutex<Vec<Needed>>,
    ring: Option<Ring>,
    /// Of those that send series: whether something of theirs is there to be read.
    watches: Mutex<Vec<(usize, Watch)>>,
    tolerance: Tolerance,
    context: Context,
    world: World,
    /// How long an endpoint may be silent that the answer can do without; zero waits for all.
    patience: Duration,
}

impl Outcome {
    pub fn new(
        needed: Vec<Needed>,
        ring: Option<Ring>,
        tolerance: Tolerance,
        context: &Context,
        world: &World,
        patience: Duration,
    ) -> Arc<Outcome> {
        Arc::new(Outcome {
            needed: Mutex::new(needed),
            ring,
            watches: Mutex::default(),
            tolerance,
            context: context.clone(),
            world: world.clone(),
            patience,
        })
    }

    /// Takes note of a failed endpoint; an error where the answer cannot stand without it, or where the
    /// failure is none of the endpoint's.
    pub fn failed(&self, at: usize, error: Error) -> Result<(), Error> {
        self.context.cancel.check(self.world.clock.monotonic())?;
        if error.kind == Kind::Exhausted {
            // A budget or a limit: the question is too big, whoever answers.
            return Err(error);
        }
        let mut needed = self.needed.lock();
        tracing::warn!(endpoint = %needed[at].address, %error, "endpoint failed during a query");
        metrics::counter!("thanos_proxy_store_failures_total").increment(1);
        needed[at].missing = Some(error.message);
        match self.judge(&needed) {
            Judgement::Incomplete(message) => Err(Error::new(Kind::Unavailable, message)),
            _ => Ok(()),
        }
    }

    fn judge(&self, needed: &[Needed]) -> Judgement {
        judge(needed, self.tolerance, self.ring.as_ref().map(|ring| &*ring.agreed))
    }

    /// To be asked when all have answered or failed.
    pub fn finish(&self, notes: &mut Notes) -> Result<(), Error> {
        if let Some(why) = self.ring.as_ref().and_then(Ring::behind) {
            if !self.tolerance.partial {
                return Err(Error::new(Kind::Unavailable, why));
            }
            notes.warn(why);
        }
        let mut needed = self.needed.lock().clone();
        if let Some(ring) = &self.ring {
            ring.name_logs(&mut needed);
        }
        match self.judge(&needed) {
            Judgement::Complete => Ok(()),
            Judgement::Partial(warnings) => {
                warnings.into_iter().for_each(|warning| notes.warn(warning));
                Ok(())
            }
            Judgement::Incomplete(message) => Err(Error::new(Kind::Unavailable, message)),
        }
    }

    /// Whether the answer is complete without all of `silent`, and nobody has to be told.
    fn can_do_without(&self, silent: &[usize]) -> bool {
        let mut needed = self.needed.lock().clone();
        for at in silent {
            needed[*at].missing.get_or_insert_with(|| "it is silent".to_owned());
        }
        self.judge(&needed) == Judgement::Complete
    }

    /// `at`, and all others that have nothing to be read at this moment.
    fn silent_with(&self, at: usize) -> Vec<usize> {
        let watches = self.watches.lock();
        let waiting = watches.iter().filter(|(other, watch)| *other != at && !watch.has_something());
        waiting.map(|(other, _)| *other).chain([at]).collect()
    }

    /// The endpoint is not waited for any longer.
    fn give_up(&self, at: usize) {
        let mut needed = self.needed.lock();
        let one = &mut needed[at];
        tracing::warn!(endpoint = %one.address, patience = ?self.patience, "silent endpoint was not waited for");
        metrics::counter!("tributary_query_stragglers_total").increment(1);
        one.missing = Some(format!("nothing came for {:?}, and it was not waited for", self.patience));
    }
}

/// Asks every source on a thread of its own; what those that answered said. `ask` must look at its context's
/// flag: that is how stragglers are called back.
pub fn gather<T: Send>(
    sources: &[(Arc<Endpoint>, usize, Context)],
    outcome: &Outcome,
    ask: impl Fn(&Endpoint, &Context) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let own =
        |context: &Context| Context { cancel: Cancel::new(context.cancel.deadline()), ..context.clone() };
    let contexts: Vec<Context> = sources.iter().map(|(_, _, context)| own(context)).collect();
    let (ask, clock) = (&ask, &outcome.world.clock);
    let begun = clock.monotonic();
    std::thread::scope(|scope| {
        let (sender, answers) = mpsc::channel();
        for (i, ((endpoint, _, _), context)) in sources.iter().zip(&contexts).enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                // Whoever listens stays until all have answered.
                let _ = sender.send((i, ask(endpoint, context)));
            });
        }
        drop(sender);
        let mut open: Vec<usize> = (0..sources.len()).collect();
        let (mut found, mut given_up, mut failed) = (Vec::new(), false, None);
        while !open.is_empty() {
            match answers.recv_timeout(LOOK_EVERY) {
                Ok((i, answer)) => {
                    open.retain(|other| *other != i);
                    match answer {
                        Ok(answer) => found.push((i, answer)),
                        Err(_) if given_up || failed.is_some() => {}
                        Err(error) => {
                            failed = outcome.failed(sources[i].1, error).err();
                            if failed.is_some() {
                                contexts.iter().for_each(|context| context.cancel.raise());
                            }
                        }
                    }
                }
                // A thread that ended without a word.
                Err(RecvTimeoutError::Disconnected) => {
                    for i in open.drain(..) {
                        let error = Error::new(Kind::Internal, "asking an endpoint ended abnormally");
                        outcome.failed(sources[i].1, error)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = clock.monotonic();
            if outcome.context.cancel.check(now).is_err() {
                contexts.iter().for_each(|context| context.cancel.raise());
            }
            let silent: Vec<usize> = open.iter().map(|i| sources[*i].1).collect();
            let late = !outcome.patience.is_zero() && now.duration_since(begun) >= outcome.patience;
            if late && !given_up && !open.is_empty() && outcome.can_do_without(&silent) {
                given_up = true;
                silent.iter().for_each(|at| outcome.give_up(*at));
                open.iter().for_each(|i| contexts[*i].cancel.raise());
            }
        }
        outcome.context.cancel.check(clock.monotonic())?;
        match failed {
            Some(error) => Err(error),
            None => {
                // The order of the sources, not of arrival: the same question has the same answer.
                found.sort_by_key(|(i, _)| *i);
                Ok(found.into_iter().map(|(_, answer)| answer).collect())
            }
        }
    })
}

/// One endpoint's series; where it breaks off it ends, and the outcome decides what that means.
pub struct Guarded {
    inner: Option<PeerSeries>,
    at: usize,
    outcome: Arc<Outcome>,
    notes: Notes,
}

impl Guarded {
    pub fn new(inner: PeerSeries, at: usize, outcome: Arc<Outcome>) -> Guarded {
        outcome.watches.lock().extend(inner.watch().map(|watch| (at, watch)));
        Guarded { inner: Some(inner), at, outcome, notes: Notes::default() }
    }

    fn end(&mut self) {
        if let Some(mut inner) = self.inner.take() {
            self.notes.absorb(inner.notes());
        }
    }

    /// The next entry; waits no longer than the outcome has patience where others have the same.
    fn wait(&mut self) -> Result<Option<SeriesEntry>, Error> {
        let Some(inner) = &mut self.inner else { return Ok(None) };
        let outcome = &self.outcome;
        if outcome.patience.is_zero() {
            return inner.next();
        }
        let since = outcome.world.clock.monotonic();
        loop {
            match inner.next_within(LOOK_EVERY)? {
                Waited::Came(entry) => return Ok(entry),
                Waited::NotYet => {
                    let silent_for = outcome.world.clock.monotonic().duration_since(since);
                    if silent_for >= outcome.patience && outcome.can_do_without(&outcome.silent_with(self.at))
                    {
                        outcome.give_up(self.at);
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl SeriesSet for Guarded {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        match self.wait() {
            Ok(Some(entry)) => Ok(Some(entry)),
            Ok(None) => {
                self.end();
                Ok(None)
            }
            Err(error) => {
                self.end();
                self.outcome.failed(self.at, error)?;
                Ok(None)
            }
        }
    }

    fn notes(&mut self) -> Notes {
        self.end();
        std::mem::take(&mut self.notes)
    }
}

/// The merged answer, with what is missing in it.
pub struct Judged {
    merged: Merge,
    outcome: Arc<Outcome>,
    notes: Notes,
}

impl Judged {
    pub fn new(merged: Merge, outcome: Arc<Outcome>, notes: Notes) -> Judged {
        Judged { merged, outcome, notes }
    }
}

impl SeriesSet for Judged {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        let next = self.merged.next()?;
        if next.is_none() {
            self.outcome.finish(&mut self.notes)?;
        }
        Ok(next)
    }

    fn notes(&mut self) -> Notes {
        let mut notes = std::mem::take(&mut self.notes);
        notes.absorb(self.merged.notes());
        notes
    }
}
