//! One tenant's samples, head and local blocks as one.
//!
//! The head is read before the list of blocks, and a cut lists its block before it drops from the head: so a
//! sample is seen in the one, the other or both, and both merge exactly. What the head showed is handed out once
//! the log is durable up to it.

use std::sync::Arc;

use model::{Kind, Matcher, TenantId, TimeRange};
use storage::{
    Context, Exemplars, LabelRequest, Listed, Merge, Notes, Reservation, Select, SelectRequest, SeriesEntry,
    SeriesExemplars, SeriesSet,
};

use crate::Engine;
use crate::blocks::OpenBlock;
use crate::firsts::Firsts;
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
        let head = &self.engine.head;
        let mut held = context.budget.reserve(0)?;
        let mut sources: Vec<Box<dyn SeriesSet>> = Vec::new();
        let mut position = 0;
        for shard in &head.shards {
            self.check(context)?;
            let gathered = head.gather(
                shard,
                self.tenant.index,
                &request.matchers,
                request.range,
                !request.skip_chunks,
                context,
                &mut held,
            )?;
            position = position.max(gathered.position);
            if !gathered.entries.is_empty() {
                sources.push(storage::from_entries(gathered.entries));
            }
        }
        for block in self.blocks(request.range) {
            sources.push(block.select(request, context)?);
        }
        self.engine.wait_read(position)?;
        let set: Box<dyn SeriesSet> = match sources.len() {
            1 => sources.remove(0),
            _ => Box::new(Merge::new(sources)),
        };
        let left = if request.limit == 0 { usize::MAX } else { request.limit };
        Ok(Box::new(Limited { set, left, _held: held, cut: false }))
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

/// At most so many series; holds the budget of what the head gave.
struct Limited {
    set: Box<dyn SeriesSet>,
    left: usize,
    _held: Reservation,
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
