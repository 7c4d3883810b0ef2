//! One selection asked of everybody who may have part of the answer, and merged into one.
//!
//! The middle of every query: the engine asks it as it would ask a local store. Endpoints are pruned
//! ([`crate::prune`]), asked at once, merged as their streams come in, and the whole is judged
//! ([`crate::complete`]): an endpoint that fails midway is left where it broke off, and the answer stands if the
//! others have what it had. It keeps nothing between two queries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agreed::State;
use model::{Kind, Matcher, TimeRange};
use rpc::PeerSeries;
use runtime::World;
use storage::{
    Context, Error, LabelRequest, Listed, Merge, Notes, PartialResponse, Select, SelectRequest, SeriesSet,
};

use crate::complete::{Judgement, Needed, Owner, Seat, Tolerance, judge};
use crate::dedup::Pairs;
use crate::endpoints::{Endpoint, Endpoints};
use crate::outcome::{Guarded, Judged, Outcome, Ring, gather};
use crate::roster::{Part, Roster, behind};
use crate::shard::Sharded;
use crate::{penalty, prune};
use wire::pb::thanos::ShardInfo;

/// What one request wants of the fan-out.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Labels of highly available pairs to be shown as one; empty shows them apart.
    pub pair_labels: Vec<String>,
    /// Labels removed from every series.
    pub drop_labels: Vec<String>,
    /// `storeMatch[]`.
    pub store_matchers: Vec<Vec<Matcher>>,
    /// Demanded of every series besides what the query says (a tenant's label).
    pub also: Vec<Matcher>,
    /// What the client said of partial answers; the context says what holds for leaves.
    pub partial: Option<bool>,
    /// Only series of this shard.
    pub shard: Option<ShardInfo>,
    /// The context alone says what may be missing: for StoreAPI clients, who always say.
    pub partial_by_context: bool,
}

/// Everybody, for one request.
pub struct Fanout {
    endpoints: Arc<Endpoints>,
    reading: Reading,
    world: World,
}

impl Fanout {
    pub fn new(endpoints: Arc<Endpoints>, reading: Reading, world: World) -> Fanout {
        Fanout { endpoints, reading, world }
    }

    fn tolerance(&self, context: &Context) -> Tolerance {
        let by_context = context.partial == PartialResponse::Warn;
        let asked = if self.reading.partial_by_context { Some(by_context) } else { self.reading.partial };
        Tolerance {
            partial: asked == Some(true),
            partial_leaves: asked.unwrap_or(by_context),
            chosen: !self.reading.store_matchers.is_empty(),
        }
    }

    /// Who has to answer: those to be asked, those known to be missing already, and whose copies are ours.
    fn plan(&self, range: TimeRange, matchers: &[Matcher], context: &Context) -> Result<Plan, Error> {
        let begun = self.world.clock.monotonic();
        loop {
            let list = self.endpoints.list();
            let roster = self.endpoints.roster(&list)?;
            let planned = match roster.agreed.as_deref().and_then(|agreed| behind(agreed, roster.heard)) {
                None => self.plan_by(&list, &roster, range, matchers, context),
                Some(why) => Err(Error::new(Kind::Unavailable, why)),
            };
            // In a change of the ring what is missing here may be on its way.
            let waited = self.world.clock.monotonic().saturating_duration_since(begun);
            if planned.is_ok() || waited >= CHANGE_PATIENCE || !self.endpoints.in_change(&roster) {
                return planned;
            }
            context.cancel.check(self.world.clock.monotonic())?;
            self.endpoints.wait_for_news(CHANGE_LOOK);
        }
    }

    fn plan_by(
        &self,
        list: &[Arc<Endpoint>],
        roster: &Roster,
        range: TimeRange,
        matchers: &[Matcher],
        context: &Context,
    ) -> Result<Plan, Error> {
        let tolerance = self.tolerance(context);
        let mut plan = Plan {
            sources: Vec::new(),
            needed: Vec::new(),
            removed: BTreeSet::new(),
            agreed: roster.agreed.clone(),
        };
        plan.removed.extend(self.reading.drop_labels.iter().cloned());
        for (endpoint, part) in list.iter().zip(&roster.parts) {
            let state = endpoint.state();
            plan.removed.extend(state.own_replica_labels().iter().cloned());
            if *part == Part::Spare {
                continue;
            }
            let sets = state.info.as_ref().map_or(&[][..], |info| &info.label_sets);
            if !prune::chosen(&endpoint.address, sets, &self.reading.store_matchers) {
                continue;
            }
            let (seat, owner) = match part {
                Part::Owner(name) => (Seat::Receiver { write_quorum: 1 }, Some(Owner::named(name))),
                Part::Other | Part::Spare => (state.seat(), None),
            };
            let missing = state.missing();
            let relevant = match (&seat, &state.info) {
                // Routers keep nothing: ready, but without a store.
                (Seat::Receiver { .. }, Some(info)) => info.store.is_some() || missing.is_some(),
                (_, Some(info)) if info.store.is_some() => prune::may_have(info, range, matchers),
                _ => missing.is_some(),
            };
            if !relevant {
                continue;
            }
            if missing.is_none() {
                plan.sources.push((endpoint.clone(), plan.needed.len()));
            }
            // What an owner has forgotten is known to the agreed ring.
            let forgot = owner.is_none()
                && matches!(seat, Seat::Receiver { .. })
                && state.reborn_ms.is_some_and(|at| range.start <= at.saturating_add(AHEAD));
            plan.needed.push(Needed { address: endpoint.address.clone(), seat, missing, forgot, owner });
        }
        if !tolerance.chosen {
            plan.needed.extend(strangers(list.iter().zip(&roster.parts)));
        }
        if let Judgement::Incomplete(message) = judge(&plan.needed, tolerance, plan.agreed.as_deref()) {
            return Err(Error::new(Kind::Unavailable, message));
        }
        Ok(plan)
    }

    /// What goes to an endpoint: only leaves may leave something out by themselves, unless the client asked.
    fn context_for(&self, seat: Seat, context: &Context) -> Context {
        let tolerance = self.tolerance(context);
        let partial = if seat == Seat::Leaf { tolerance.partial_leaves } else { tolerance.partial };
        let partial = if partial { PartialResponse::Warn } else { PartialResponse::Abort };
        Context { partial, ..context.clone() }
    }

    fn outcome(
        &self,
        sources: &[(Arc<Endpoint>, usize)],
        needed: Vec<Needed>,
        agreed: Option<Arc<State>>,
        context: &Context,
    ) -> Arc<Outcome> {
        let patience = self.endpoints.options().straggler_delay;
        let asked = sources.iter().map(|(endpoint, at)| (endpoint, *at));
        let ring = agreed.map(|agreed| Ring::new(agreed, asked, &needed));
        Outcome::new(needed, ring, self.tolerance(context), context, &self.world, patience)
    }

    /// Asks every source on a thread of its own and gathers what they list.
    fn list(
        &self,
        request: &LabelRequest,
        context: &Context,
        ask: impl Fn(&dyn Select, &LabelRequest, &Context) -> Result<Listed, Error> + Sync,
    ) -> Result<(BTreeSet<String>, Notes, BTreeSet<String>), Error> {
        let mut request = request.clone();
        request.matchers.extend(self.reading.also.iter().cloned());
        let Plan { sources, needed, removed, agreed } =
            self.plan(request.range, &request.matchers, context)?;
        let seats: Vec<Seat> = sources.iter().map(|(_, at)| needed[*at].seat).collect();
        let outcome = self.outcome(&sources, needed, agreed, context);
        let sources: Vec<(Arc<Endpoint>, usize, Context)> = sources
            .into_iter()
            .zip(seats)
            .map(|((endpoint, at), seat)| (endpoint, at, self.context_for(seat, context)))
            .collect();
        let answers =
            gather(&sources, &outcome, |endpoint, context| ask(&endpoint.client, &request, context))?;
        let (mut union, mut notes) = (BTreeSet::new(), Notes::default());
        for listed in answers {
            union.extend(listed.values);
            notes.absorb(listed.notes);
        }
        outcome.finish(&mut notes)?;
        Ok((union, notes, removed))
    }
}

/// Members of the receivers' ring that are not among the endpoints at all: they hold copies, and are missed like
/// receivers that are away.
fn strangers<'a>(endpoints: impl Iterator<Item = (&'a Arc<Endpoint>, &'a Part)>) -> Vec<Needed> {
    let (mut known, mut members, mut quorum) = (0, 0, 1);
    // Whom the agreed ring needs it says itself.
    let others = endpoints.filter(|(_, part)| **part == Part::Other);
    for state in others.map(|(endpoint, _)| endpoint.state()) {
        let Seat::Receiver { write_quorum } = state.seat() else { continue };
        known += 1;
        let named = state.info.and_then(|info| info.node).map_or(0, |node| node.ring_members.len());
        if named > members {
            (members, quorum) = (named, write_quorum);
        }
    }
    let why =
        format!("of a ring of {members} receivers only {known} are among the endpoints; add the others");
    let stranger = |_| Needed {
        address: "not configured here".to_owned(),
        seat: Seat::Receiver { write_quorum: quorum },
        missing: Some(why.clone()),
        forgot: false,
        owner: None,
    };
    (known..members).map(stranger).collect()
}

/// How far ahead of a receiver's clock the samples are that it acknowledges.
const AHEAD: i64 = 10 * 60_000;

/// How long a query waits for what a change of the ring brings with it, and how often it looks.
const CHANGE_PATIENCE: Duration = Duration::from_secs(2);
const CHANGE_LOOK: Duration = Duration::from_millis(50);

struct Plan {
    /// Who is asked, with its index in `needed`.
    sources: Vec<(Arc<Endpoint>, usize)>,
    needed: Vec<Needed>,
    /// Labels that no result shows: those that tell our copies apart, and those that the operator drops.
    removed: BTreeSet<String>,
    agreed: Option<Arc<State>>,
}

impl Select for Fanout {
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        let mut request = request.clone();
        request.matchers.extend(self.reading.also.iter().cloned());
        let Plan { sources, needed, removed, agreed } =
            self.plan(request.range, &request.matchers, context)?;
        let pair_labels: Vec<String> =
            self.reading.pair_labels.iter().filter(|label| !removed.contains(*label)).cloned().collect();
        request.hints.without_labels.extend(removed);
        request.hints.without_labels.sort_unstable();
        request.hints.without_labels.dedup();
        let limit = request.limit;
        if !pair_labels.is_empty() || self.reading.shard.is_some() {
            // Two series become one here: a limit set there would cut too early.
            request.limit = 0;
        }
        let mut notes = Notes::default();
        if sources.is_empty() && needed.is_empty() && self.endpoints.list().is_empty() {
            notes.warn("no endpoint is configured: there is nobody to ask");
        }
        let seats: Vec<Seat> = sources.iter().map(|(_, at)| needed[*at].seat).collect();
        let outcome = self.outcome(&sources, needed, agreed, context);
        // Opening waits only where a peer cannot remove labels itself and must be read to its end first.
        let request = &request;
        let opened: Vec<Result<PeerSeries, Error>> = std::thread::scope(|scope| {
            let opening: Vec<_> = sources
                .iter()
                .zip(seats)
                .map(|((endpoint, _), seat)| {
                    let context = self.context_for(seat, context);
                    let state = endpoint.state();
                    let store = state.info.as_ref().and_then(|info| info.store.as_ref());
                    let streams = store.is_none_or(|store| store.strips_replica_labels);
                    match streams || request.hints.without_labels.is_empty() {
                        true => Opening::Done(endpoint.client.open(request, &context)),
                        false => {
                            Opening::Running(scope.spawn(move || endpoint.client.open(request, &context)))
                        }
                    }
                })
                .collect();
            opening.into_iter().map(Opening::wait).collect()
        });
        let mut sets: Vec<Box<dyn SeriesSet>> = Vec::with_capacity(opened.len());
        for ((_, at), opened) in sources.iter().zip(opened) {
            match opened {
                Ok(inner) => sets.push(Box::new(Guarded::new(inner, *at, outcome.clone()))),
                Err(error) => outcome.failed(*at, error)?,
            }
        }
        let merged: Box<dyn SeriesSet> = Box::new(Judged::new(Merge::new(sets), outcome, notes));
        let shown: Box<dyn SeriesSet> = match pair_labels.is_empty() {
            true => merged,
            false => {
                let counter = penalty::reads_counter(&request.hints.function);
                let limit = if self.reading.shard.is_some() { 0 } else { limit };
                Box::new(Pairs::read(merged, pair_labels, counter, request.range, limit, context)?)
            }
        };
        Ok(match self.reading.shard.clone() {
            None => shown,
            Some(shard) => Box::new(Sharded { inner: shown, shard, left: (limit > 0).then_some(limit) }),
        })
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        let ask = |select: &dyn Select, request: &LabelRequest, context: &Context| {
            select.label_names(request, context)
        };
        let (union, notes, removed) = self.list(request, context, ask)?;
        let values = union.into_iter().filter(|name| !removed.contains(name)).collect();
        Ok(Listed { values, notes })
    }

    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        let ask = |select: &dyn Select, request: &LabelRequest, context: &Context| {
            select.label_values(name, request, context)
        };
        let (union, notes, removed) = self.list(request, context, ask)?;
        let values = if removed.contains(name) { Vec::new() } else { union.into_iter().collect() };
        Ok(Listed { values, notes })
    }
}

enum Opening<'scope> {
    Done(Result<PeerSeries, Error>),
    Running(std::thread::ScopedJoinHandle<'scope, Result<PeerSeries, Error>>),
}

impl Opening<'_> {
    fn wait(self) -> Result<PeerSeries, Error> {
        match self {
            Opening::Done(opened) => opened,
            Opening::Running(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "asking an endpoint ended abnormally"))),
        }
    }
}
