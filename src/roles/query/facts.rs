//! Rules, targets, exemplars and figures of heads, asked of everybody who has them and made one answer.
//!
//! Each endpoint says in its Info what it can be asked. Receivers hold copies of one another here too, so the same
//! judgement as for series says whether an answer is whole; everybody else counts as a leaf. Where tenancy is
//! enforced, only what carries the tenant's label leaves this file.

use std::sync::Arc;

use api::{Problem, ReadParams};
use model::{Labels, Matcher, TenantId};
use rpc::facts::{Exemplars, Rules, Statistics, Targets};
use rpc::{Apis, Subject, Told};
use runtime::World;
use storage::{Budget, Context, Error, Notes, PartialResponse};
use wire::pb::thanos as pb;

use crate::complete::{Needed, Owner, Seat, Tolerance};
use crate::endpoints::{Endpoint, Endpoints};
use crate::outcome::{Outcome, Ring, gather};
use crate::roster::Part;
use crate::settings::Queries;
use crate::{figures, prune, rules, scraped};

/// Everybody's facts.
#[derive(Clone)]
pub struct Everyone {
    pub endpoints: Arc<Endpoints>,
    pub queries: Queries,
    pub world: World,
}

/// How one question is asked.
pub struct Asked<'a> {
    pub store_matchers: &'a [Vec<Matcher>],
    pub partial: Option<bool>,
    /// What is shown to whom: only what carries this label and value.
    pub only: Option<(&'a str, &'a str)>,
    /// Labels by which pairs differ.
    pub replica_labels: Vec<String>,
}

impl Everyone {
    /// What each endpoint that has `S` said, with its state; incomplete answers are errors or warnings.
    pub fn ask<S: Subject>(
        &self,
        request: &S::Request,
        asked: &Asked<'_>,
        has: impl Fn(&Apis) -> bool,
        context: &Context,
    ) -> Result<(Vec<(Arc<Endpoint>, Told<S::Item>)>, Notes), Error>
    where
        S::Request: Sync,
    {
        let by_context = context.partial == PartialResponse::Warn;
        let tolerance = Tolerance {
            partial: asked.partial == Some(true),
            partial_leaves: asked.partial.unwrap_or(by_context),
            chosen: !asked.store_matchers.is_empty(),
        };
        let (mut sources, mut needed) = (Vec::new(), Vec::new());
        let list = self.endpoints.list();
        let roster = self.endpoints.roster(&list)?;
        for (endpoint, part) in list.iter().zip(&roster.parts) {
            let state = endpoint.state();
            let missing = state.missing();
            let relevant = state.info.as_ref().map_or(missing.is_some(), |info| has(&info.apis));
            let sets = state.info.as_ref().map_or(&[][..], |info| &info.label_sets);
            if *part == Part::Spare
                || !relevant
                || !prune::chosen(&endpoint.address, sets, asked.store_matchers)
            {
                continue;
            }
            let (seat, owner) = match (part, state.seat()) {
                (Part::Owner(name), _) => (Seat::Receiver { write_quorum: 1 }, Some(Owner::named(name))),
                (_, seat @ Seat::Receiver { .. }) => (seat, None),
                _ => (Seat::Leaf, None),
            };
            let partial = if seat == Seat::Leaf { tolerance.partial_leaves } else { tolerance.partial };
            let partial = if partial { PartialResponse::Warn } else { PartialResponse::Abort };
            if missing.is_none() {
                let context = Context { partial, ..context.clone() };
                sources.push((endpoint.clone(), needed.len(), context));
            }
            needed.push(Needed { address: endpoint.address.clone(), seat, missing, forgot: false, owner });
        }
        let patience = self.endpoints.options().straggler_delay;
        let asked = sources.iter().map(|(endpoint, at, _)| (endpoint, *at));
        let ring = roster.agreed.map(|agreed| Ring::new(agreed, asked, &needed));
        let outcome = Outcome::new(needed, ring, tolerance, context, &self.world, patience);
        let by_address = |address: &str| sources.iter().find(|(e, _, _)| e.address == address);
        let answers = gather(&sources, &outcome, |endpoint, context| {
            Ok((endpoint.address.clone(), endpoint.client.ask::<S>(request, context)?))
        })?;
        let mut notes = Notes::default();
        let mut found = Vec::with_capacity(answers.len());
        for (address, mut told) in answers {
            std::mem::take(&mut told.warnings).into_iter().for_each(|text| notes.warn(text));
            found.extend(by_address(&address).map(|(endpoint, _, _)| (endpoint.clone(), told)));
        }
        outcome.finish(&mut notes)?;
        Ok((found, notes))
    }

    /// The tenant whose label everything must carry, where that is demanded.
    pub fn enforced(&self, tenant: Option<&str>) -> Result<Option<TenantId>, Error> {
        if !self.queries.enforce_tenancy {
            return Ok(None);
        }
        let tenant = tenant.unwrap_or(&self.queries.default_tenant);
        TenantId::new(tenant).map(Some).map_err(|e| Error::new(model::Kind::Invalid, e.to_string()))
    }

    /// Labels that no answer shows, and by which copies of our own differ.
    fn hidden(&self) -> Vec<String> {
        let mut hidden = self.queries.drop_labels();
        for endpoint in self.endpoints.list().iter() {
            hidden.extend(endpoint.state().own_replica_labels().iter().cloned());
        }
        hidden
    }

    fn rules_of(
        &self,
        request: &pb::RulesRequest,
        asked: &Asked<'_>,
        context: &Context,
    ) -> Result<(Vec<pb::RuleGroup>, Notes), Error> {
        let (found, notes) = self.ask::<Rules>(request, asked, |apis| apis.rules, context)?;
        let groups = found.into_iter().flat_map(|(_, told)| told.items);
        Ok((rules::merge(groups, &asked.replica_labels, asked.only), notes))
    }

    fn targets_of(
        &self,
        request: &pb::TargetsRequest,
        asked: &Asked<'_>,
        context: &Context,
    ) -> Result<(Vec<pb::TargetDiscovery>, Notes), Error> {
        let (found, notes) = self.ask::<Targets>(request, asked, |apis| apis.targets, context)?;
        let all = found.into_iter().flat_map(|(_, told)| told.items);
        Ok((vec![scraped::merge_targets(all, &asked.replica_labels, asked.only)], notes))
    }

    fn exemplars_of(
        &self,
        request: &pb::ExemplarsRequest,
        asked: &Asked<'_>,
        context: &Context,
    ) -> Result<(Vec<pb::ExemplarData>, Notes), Error> {
        let overlaps = |apis: &Apis| {
            apis.exemplars.is_some_and(|range| range.start <= request.end && request.start <= range.end)
        };
        let (found, notes) = self.ask::<Exemplars>(request, asked, overlaps, context)?;
        let mut hidden = self.hidden();
        hidden.extend(asked.replica_labels.iter().cloned());
        let all = found.into_iter().flat_map(|(_, told)| told.items);
        Ok((scraped::merge_exemplars(all, &hidden, asked.only), notes))
    }

    /// Figures of all heads: of `tenant`, or of all tenants together.
    pub fn figures(
        &self,
        tenant: Option<&str>,
        limit: usize,
        context: &Context,
    ) -> Result<Option<api::HeadFigures>, Error> {
        let request = pb::TsdbStatisticsRequest {
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            ..Default::default()
        };
        let asked = Asked { store_matchers: &[], partial: None, only: None, replica_labels: Vec::new() };
        let (found, _) = self.ask::<Statistics>(&request, &asked, |apis| apis.status, context)?;
        let copies = |endpoint: &Endpoint| {
            let node = endpoint.state().info.and_then(|info| info.node);
            node.map_or(1, |node| u64::from(node.replication_factor.max(1)))
        };
        let all = found.iter().flat_map(|(endpoint, told)| {
            let copies = copies(endpoint);
            told.items.iter().map(move |item| (copies, item))
        });
        Ok(figures::merge(all, tenant, limit))
    }
}

/// Parameters of a request over HTTP.
fn over_http<'a>(everyone: &'a Everyone, read: &'a ReadParams, tenant: &'a Option<TenantId>) -> Asked<'a> {
    let replica_labels = match (read.dedup, &read.replica_labels) {
        (false, _) => Vec::new(),
        (true, Some(asked)) => crate::settings::split(asked),
        (true, None) => everyone.queries.replica_labels(),
    };
    Asked {
        store_matchers: &read.store_matchers,
        partial: read.partial_response,
        only: tenant.as_ref().map(|tenant| (everyone.queries.tenant_label.as_str(), tenant.as_str())),
        replica_labels,
    }
}

impl api::Facts for Everyone {
    fn rules(
        &self,
        request: &pb::RulesRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<api::Told<pb::RuleGroup>, Error> {
        let tenant = self.enforced(read.tenant.as_deref())?;
        self.rules_of(request, &over_http(self, read, &tenant), context)
    }

    fn targets(
        &self,
        request: &pb::TargetsRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<api::Told<pb::TargetDiscovery>, Error> {
        let tenant = self.enforced(read.tenant.as_deref())?;
        self.targets_of(request, &over_http(self, read, &tenant), context)
    }

    fn exemplars(
        &self,
        request: &pb::ExemplarsRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<api::Told<pb::ExemplarData>, Error> {
        let tenant = self.enforced(read.tenant.as_deref())?;
        self.exemplars_of(request, &over_http(self, read, &tenant), context)
    }

    fn metadata(
        &self,
        request: &storage::MetadataRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<storage::Meanings, Error> {
        self.metadata_over_http(request, read, context)
    }
}

impl api::Heads for Everyone {
    fn tenants(&self) -> Result<Vec<String>, Problem> {
        Ok(Vec::new())
    }

    fn figures(
        &self,
        tenant: &str,
        limit: usize,
        cancel: &storage::Cancel,
    ) -> Result<Option<api::HeadFigures>, Problem> {
        let named = Some(tenant).filter(|tenant| !tenant.is_empty());
        let enforced = self.enforced(named)?;
        let partial =
            if self.queries.partial_response { PartialResponse::Warn } else { PartialResponse::Abort };
        let budget = Budget::new("--query.max-memory", self.queries.max_memory.bytes());
        let context = Context { cancel: cancel.clone(), partial, budget };
        let tenant = enforced.as_ref().map(TenantId::as_str).or(named);
        Ok(Everyone::figures(self, tenant, limit, &context)?)
    }
}

/// Parameters of a call over gRPC: the caller's strategy holds, and it merges by its own replica labels.
macro_rules! tell {
    ($subject:ident, $method:ident) => {
        impl rpc::Tell<$subject> for Everyone {
            fn tell(
                &self,
                request: &<$subject as Subject>::Request,
                tenant: Option<&str>,
                context: &Context,
            ) -> Result<Told<<$subject as Subject>::Item>, Error> {
                let tenant = self.enforced(tenant)?;
                let asked = Asked {
                    store_matchers: &[],
                    partial: Some(context.partial == PartialResponse::Warn),
                    only: tenant.as_ref().map(|t| (self.queries.tenant_label.as_str(), t.as_str())),
                    replica_labels: Vec::new(),
                };
                let (items, notes) = self.$method(request, &asked, context)?;
                Ok(Told { items, warnings: notes.warnings, held: None })
            }
        }
    };
}

tell!(Rules, rules_of);
tell!(Targets, targets_of);
tell!(Exemplars, exemplars_of);

impl rpc::Tell<Statistics> for Everyone {
    fn tell(
        &self,
        request: &pb::TsdbStatisticsRequest,
        tenant: Option<&str>,
        context: &Context,
    ) -> Result<Told<pb::TsdbStatistics>, Error> {
        let tenant = self.enforced(tenant)?;
        let asked = Asked {
            store_matchers: &[],
            partial: Some(context.partial == PartialResponse::Warn),
            only: None,
            replica_labels: Vec::new(),
        };
        let (found, notes) = self.ask::<Statistics>(request, &asked, |apis| apis.status, context)?;
        let mut items: Vec<pb::TsdbStatistics> = found.into_iter().flat_map(|(_, told)| told.items).collect();
        if let Some(tenant) = tenant {
            items.iter_mut().for_each(|item| item.statistics.retain(|name, _| name == tenant.as_str()));
        }
        Ok(Told { items, warnings: notes.warnings, held: None })
    }
}

/// Labels of a set as ours; what is no label set is empty.
pub fn labels_of(set: Option<&pb::ZLabelSet>) -> Labels {
    let pairs = set.map_or(&[][..], |set| &set.labels);
    Labels::from_pairs(pairs.iter().map(|l| (&l.name, &l.value))).unwrap_or_default()
}

/// Removes labels from a set.
pub fn remove(set: &mut Option<pb::ZLabelSet>, names: &[String]) {
    if let Some(set) = set {
        set.labels.retain(|label| !names.contains(&label.name));
    }
}

/// Whether a set carries what it must.
pub fn carries(set: Option<&pb::ZLabelSet>, only: Option<(&str, &str)>) -> bool {
    let Some((name, value)) = only else { return true };
    set.is_some_and(|set| set.labels.iter().any(|l| l.name == name && l.value == value))
}
