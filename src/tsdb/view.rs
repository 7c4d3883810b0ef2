//! One tenant's samples, head and local blocks as one.
//!
//! The head is pinned before the list of blocks is looked at, and a cut lists its block before it lets those go who
//! pinned before and drops from the head: so a sample is seen in the one, the other or both, and both merge exactly.
//! What the head showed is handed out once the log is durable up to it.

use std::sync::Arc;

use model::{Kind, Matcher, TenantId, TimeRange};
use storage::{
    Context, Exemplars, LabelNeed, LabelRequest, Listed, Merge, Need, Notes, Select, SelectRequest,
    SeriesEntry, SeriesExemplars, SeriesSet,
};

use crate::Engine;
use crate::blocks::{OpenBlock, labels_of};
use crate::firsts::Firsts;
use crate::head::ShardSet;
use crate::tenants::Tenant;

/// All samples of one tenant, head and local blocks as one.
pub struct TenantView {
    pub(crate) engine: Arc<Engine>,
    pub(crate) tenant: Arc<Tenant>,
}

impl TenantView {
    pub fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// Bounds of the times that it may hold (whole windows for the head); none while it holds nothing.
    pub fn time_range(&self) -> Option<TimeRange> {
        let head = self.engine.head.window_range(self.tenant.index);
        let all = self.tenant.blocks.read().iter().fold(head, |range, b| range.cover(&b.range()));
        (!all.is_empty()).then_some(all)
    }

    fn blocks(&self, range: TimeRange) -> Vec<Arc<OpenBlock>> {
        self.tenant.blocks.read().iter().filter(|b| b.range().overlaps(&range)).cloned().collect()
    }

    fn list(
        &self,
        name: Option<&str>,
        request: &LabelRequest,
        context: &Context,
    ) -> Result<Listed, storage::Error> {
        let mut firsts = Firsts::new(request.limit);
        let head = &self.engine.head;
        let position = head.list(self.tenant.index, name, &request.matchers, request.range, &mut firsts);
        for block in self.blocks(request.range) {
            self.check(context)?;
            block.list(name, request, firsts.wanted())?.iter().for_each(|text| firsts.offer(text));
        }
        self.engine.wait_read(position)?;
        let mut notes = Notes::default();
        let (values, cut) = firsts.finish();
        if cut {
            notes.warn("results truncated due to limit");
        }
        Ok(Listed { values, notes })
    }

    fn check(&self, context: &Context) -> Result<(), storage::Error> {
        context.cancel.check(self.engine.world.clock.monotonic())
    }
}

impl Select for TenantView {
    fn select(
        &self,
        request: &SelectRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        self.scan(request, &Need::everything(), context)
    }

    fn scan(
        &self,
        request: &SelectRequest,
        need: &Need,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        let pin = Arc::new(self.tenant.pins.pin());
        let blocks = self.blocks(request.range);
        // A series that lies in several places is put together by its labels.
        let sorted;
        let need = match blocks.is_empty() {
            true => need,
            false => {
                sorted = Need { labels: LabelNeed::All, sorted: true, ..need.clone() };
                &sorted
            }
        };
        let mut sources: Vec<Box<dyn SeriesSet>> = Vec::new();
        for shard in 0..self.engine.head.shards.len() {
            self.check(context)?;
            let set = ShardSet::open(&self.engine, &self.tenant, shard, &pin, request, need, context)?;
            sources.extend(set.map(|set| Box::new(set) as Box<dyn SeriesSet>));
        }
        if request.skip_chunks {
            sources.extend(labels_of(&blocks, request, context)?);
        } else {
            for block in blocks {
                sources.push(block.select(request, context)?);
            }
        }
        let set: Box<dyn SeriesSet> = match sources.len() {
            1 => sources.remove(0),
            _ if !need.sorted => Box::new(Chain { sources: sources.into_iter() }),
            _ => Box::new(Merge::new(sources)),
        };
        if request.limit == 0 {
            return Ok(set);
        }
        Ok(Box::new(Limited { set, left: request.limit, cut: false }))
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, storage::Error> {
        self.list(None, request, context)
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest,
        context: &Context,
    ) -> Result<Listed, storage::Error> {
        if name.is_empty() {
            return Err(storage::Error::new(Kind::Invalid, "a label name is wanted, not an empty one"));
        }
        self.list(Some(name), request, context)
    }
}

impl Exemplars for TenantView {
    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        context: &Context,
    ) -> Result<Vec<SeriesExemplars>, storage::Error> {
        self.check(context)?;
        let found = self.tenant.exemplars.lock().select(selectors, range);
        let bytes = |e: &storage::Exemplar| size_of_val(e) + e.labels.as_bytes().len();
        let bytes: usize = found.iter().flat_map(|s| &s.exemplars).map(bytes).sum();
        let _held = context.budget.reserve(bytes as u64)?;
        // But for one that is being taken this very moment, and is not acknowledged yet.
        self.engine.wait_read(self.engine.log.tail())?;
        Ok(found)
    }
}

/// One set after the other: no series is in two of them.
struct Chain {
    sources: std::vec::IntoIter<Box<dyn SeriesSet>>,
}

impl SeriesSet for Chain {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        while let Some(set) = self.sources.as_mut_slice().first_mut() {
            if let Some(entry) = set.next()? {
                return Ok(Some(entry));
            }
            self.sources.next();
        }
        Ok(None)
    }
}

/// At most so many series.
struct Limited {
    set: Box<dyn SeriesSet>,
    left: usize,
    cut: bool,
}

impl SeriesSet for Limited {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        if self.left == 0 {
            self.cut = self.cut || self.set.next()?.is_some();
            return Ok(None);
        }
        self.left -= 1;
        self.set.next()
    }

    fn notes(&mut self) -> Notes {
        let mut notes = self.set.notes();
        if self.cut {
            notes.warn("results truncated due to limit");
        }
        notes
    }
}
