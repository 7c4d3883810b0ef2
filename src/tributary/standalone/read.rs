//! What a single node reads: its head and local blocks, and those blocks of the bucket that are not local.
//!
//! For the API, which names a tenant and gets series with the sender's labels only; and for the StoreAPI, which
//! gets the same series under their external labels. The local side is always asked first: a block that is
//! deleted here between the two is then read from both, never from neither.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Facts, Problem, Queryable, ReadParams};
use model::{Kind, Labels, Matcher, TenantId, TimeRange};
use receive::Receive;
use rpc::{Advertised, StoreBackend, StoreView};
use storage::{
    Context, Error, Exemplars as _, LabelRequest, Listed, Meanings, Merge, MetadataRequest, Need, Notes,
    Select, SelectRequest, SeriesEntry, SeriesSet,
};
use store::Blocks;
use wire::pb::thanos as pb;

/// Reads by tenant.
pub struct Reader {
    pub receive: Arc<Receive>,
    pub blocks: Blocks,
    pub default_tenant: TenantId,
    pub tenant_label: String,
}

/// Exemplars of the node's head and metadata, by tenant; exemplars with the sender's labels only.
struct OwnFacts {
    receive: Arc<Receive>,
    default_tenant: TenantId,
}

impl Facts for OwnFacts {
    fn exemplars(
        &self,
        request: &pb::ExemplarsRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<api::Told<pb::ExemplarData>, Error> {
        let tenant = tenant_of(read, &self.default_tenant)?;
        let starting = || Error::new(Kind::Unavailable, "the log is being replayed");
        let Some(view) = self.receive.tsdb().ok_or_else(starting)?.tenant(&tenant) else {
            return Ok(api::Told::default());
        };
        let expr = promql::parse(&request.query).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        let range = TimeRange::new(request.start, request.end);
        let found = view.exemplars(&promql::selectors(&expr), range, context)?;
        let set = |labels: &Labels| Some(pb::ZLabelSet { labels: rpc::query::labels_to_pb(labels) });
        let of = |one: storage::SeriesExemplars| pb::ExemplarData {
            series_labels: set(&one.labels),
            exemplars: one
                .exemplars
                .iter()
                .map(|e| pb::Exemplar { labels: set(&e.labels), value: e.value, ts: e.timestamp })
                .collect(),
        };
        Ok((found.into_iter().map(of).collect(), Notes::default()))
    }

    fn metadata(
        &self,
        request: &MetadataRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<Meanings, Error> {
        let tenant = tenant_of(read, &self.default_tenant)?;
        let request = MetadataRequest { tenant: Some(tenant), ..request.clone() };
        self.receive.metadata().metadata(&request, context)
    }
}

fn tenant_of(read: &ReadParams, default_tenant: &TenantId) -> Result<TenantId, Error> {
    match &read.tenant {
        Some(name) => TenantId::new(name).map_err(|e| Error::new(Kind::Invalid, e.to_string())),
        None => Ok(default_tenant.clone()),
    }
}

impl Queryable for Reader {
    fn facts(&self) -> Arc<dyn Facts> {
        let (receive, default_tenant) = (self.receive.clone(), self.default_tenant.clone());
        Arc::new(OwnFacts { receive, default_tenant })
    }

    fn select_for(&self, params: &ReadParams) -> Result<Arc<dyn Select>, Problem> {
        let tenant = tenant_of(params, &self.default_tenant)?;
        let engine = self.receive.tsdb().ok_or_else(|| Problem::unavailable("the log is being replayed"))?;
        let view = engine.tenant(&tenant);
        let local_range = view.as_ref().and_then(|view| view.time_range()).unwrap_or(TimeRange::EMPTY);
        let remote = self.blocks.select(vec![Matcher::equal(&self.tenant_label, tenant.as_str())]);
        Ok(Arc::new(Both {
            local: view.map(|view| view as Arc<dyn Select>),
            local_range,
            remote,
            blocks: self.blocks.clone(),
        }))
    }
}

/// The StoreAPI of the node.
pub struct Backend {
    pub receive: Arc<dyn StoreBackend>,
    pub blocks: Blocks,
}

impl StoreBackend for Backend {
    fn advertised(&self) -> Advertised {
        let mut all = self.receive.advertised();
        let remote = self.blocks.advertised();
        all.range = all.range.cover(&remote.range);
        for labels in remote.label_sets {
            if !all.label_sets.contains(&labels) {
                all.label_sets.push(labels);
            }
        }
        for info in remote.tsdb_infos {
            match all.tsdb_infos.iter_mut().find(|known| known.labels == info.labels) {
                Some(known) => known.range = known.range.cover(&info.range),
                None => all.tsdb_infos.push(info),
            }
        }
        all
    }

    fn views(&self, range: TimeRange, matchers: &[Matcher]) -> Result<Vec<StoreView>, Error> {
        // All local views, whatever the range: their times are needed to know what is only in the bucket.
        let local = self.receive.views(TimeRange::ALL, matchers)?;
        let known: BTreeSet<Labels> = local.iter().map(|view| view.labels.clone()).collect();
        let mut views: Vec<StoreView> = local
            .into_iter()
            .map(|view| {
                let exactly = view.labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
                let both = Both {
                    local: Some(view.select),
                    local_range: view.range,
                    remote: self.blocks.select(exactly),
                    blocks: self.blocks.clone(),
                };
                StoreView { labels: view.labels, range: TimeRange::ALL, select: Arc::new(both) }
            })
            .collect();
        // Tenants that are in the bucket only.
        views.extend(
            self.blocks.views(range, matchers).into_iter().filter(|view| !known.contains(&view.labels)),
        );
        Ok(views)
    }
}

/// Local and bucket as one.
struct Both {
    local: Option<Arc<dyn Select>>,
    local_range: TimeRange,
    remote: Arc<dyn Select>,
    blocks: Blocks,
}

impl Both {
    /// The bucket may hold what is asked for and nobody knows yet: an answer without it could lack samples.
    fn require_known(&self, range: TimeRange) -> Result<(), Error> {
        if self.blocks.is_ready() || (!self.local_range.is_empty() && range.start >= self.local_range.start) {
            return Ok(());
        }
        let text = "the bucket has not been searched yet, and the range may reach into its blocks; \
                    see the log if this lasts";
        Err(Error::new(Kind::Unavailable, text))
    }

    fn listed(
        &self,
        request: &LabelRequest,
        ask: impl Fn(&dyn Select) -> Result<Listed, Error>,
    ) -> Result<Listed, Error> {
        self.require_known(request.range)?;
        let mut all = Listed::default();
        for part in self.local.iter().chain([&self.remote]) {
            let listed = ask(&**part)?;
            all.values.extend(listed.values);
            all.notes.absorb(listed.notes);
        }
        all.values.sort_unstable();
        all.values.dedup();
        if request.limit > 0 && all.values.len() > request.limit {
            all.values.truncate(request.limit);
            all.notes.warn("results truncated due to limit");
        }
        Ok(all)
    }
}

impl Select for Both {
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        self.scan(request, &Need::everything(), context)
    }

    fn scan(
        &self,
        request: &SelectRequest,
        need: &Need,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, Error> {
        self.require_known(request.range)?;
        if let Some(local) = &self.local
            && !self.blocks.reach(request.range)
        {
            let set = local.scan(request, need, context)?;
            // A block may have left the local disk only just now.
            if !self.blocks.reach(request.range) {
                return Ok(set);
            }
        }
        let mut sets = Vec::new();
        for part in self.local.iter().chain([&self.remote]) {
            sets.push(part.select(request, context)?);
        }
        let merged = Box::new(Merge::new(sets));
        match request.limit {
            0 => Ok(merged),
            left => Ok(Box::new(Limited { merged, left })),
        }
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.listed(request, |part| part.label_names(request, context))
    }

    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.listed(request, |part| part.label_values(name, request, context))
    }
}

/// The first series of a set.
struct Limited {
    merged: Box<dyn SeriesSet>,
    left: usize,
}

impl SeriesSet for Limited {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.merged.next()
    }

    fn notes(&mut self) -> Notes {
        self.merged.notes()
    }
}
