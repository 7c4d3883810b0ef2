//! Answers selects from an open block: matchers to series by postings, series to chunks by reference.

use std::collections::BTreeSet;

use bytes::Bytes;
use chunk::Encoding;
use model::{Kind, Labels, Matcher, TimeRange};
use storage::{
    ChunkData, Context, LabelRequest, Listed, Notes, Reservation, Select, SelectRequest, SeriesEntry,
    SeriesSet,
};

use crate::Error;
use crate::index::Plan;
use crate::index::postings::retain;
use crate::index::series::{ChunkMeta, Decoder};
use crate::read::{Block, Inner};
use crate::tombstones::{self, Effect};

/// Series between two looks at the query's cancellation.
const MORSEL: usize = 256;

impl Select for Block {
    fn select(
        &self,
        request: &SelectRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        if request.range.is_empty() {
            return Ok(storage::from_entries(Vec::new()));
        }
        let walk = Walk::new(self, &request.matchers, context)?;
        Ok(Box::new(Selected {
            walk,
            range: request.range,
            left: if request.limit == 0 { usize::MAX } else { request.limit },
            skip_chunks: request.skip_chunks,
            notes: Notes::default(),
        }))
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, storage::Error> {
        if !self.time_range().overlaps(&request.range) {
            return Ok(Listed::default());
        }
        if request.matchers.is_empty() {
            let names = self.inner.header.names().map(str::to_owned).collect();
            return Ok(listed(names, request.limit));
        }
        let mut names = BTreeSet::new();
        let mut walk = Walk::new(self, &request.matchers, context)?;
        while let Some((_, labels)) = walk.next()? {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(listed(names.into_iter().collect(), request.limit))
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest,
        context: &Context,
    ) -> Result<Listed, storage::Error> {
        if name.is_empty() || !self.time_range().overlaps(&request.range) {
            return Ok(Listed::default());
        }
        if request.matchers.is_empty() {
            let mut values = self.inner.header.values(name)?;
            values.retain(|value| !value.is_empty());
            return Ok(listed(values, request.limit));
        }
        let mut walk = Walk::new(self, &request.matchers, context)?;
        let values = if walk.plan.check.is_empty() && walk.numbers.len() > MORSEL {
            self.inner.values_among(name, &walk.numbers)?
        } else {
            let mut values = BTreeSet::new();
            while let Some((_, labels)) = walk.next()? {
                if let Some(value) = labels.get(name)
                    && !values.contains(value)
                {
                    values.insert(value.to_owned());
                }
            }
            values.into_iter().collect()
        };
        Ok(listed(values, request.limit))
    }
}

fn listed(mut values: Vec<String>, limit: usize) -> Listed {
    let mut notes = Notes::default();
    if limit > 0 && values.len() > limit {
        values.truncate(limit);
        notes.warn("results truncated due to limit");
    }
    Listed { values, notes }
}

impl Inner {
    /// Values of `name` that some of `numbers` (ascending) have: by their postings, without reading series.
    fn values_among(&self, name: &str, numbers: &[u32]) -> Result<Vec<String>, Error> {
        let mut lists = Vec::new();
        self.header.offsets.each_value(name, "", &mut |value, range| {
            lists.push((value, range));
            true
        })?;
        let mut out = Vec::new();
        for (value, range) in lists {
            let postings = self.postings(&range)?;
            let hit = if postings.len() < numbers.len() {
                postings.iter().any(|n| numbers.binary_search(&n).is_ok())
            } else {
                let mut some = numbers.to_vec();
                retain(&mut some, &postings, true);
                !some.is_empty()
            };
            if hit && !value.is_empty() {
                out.push(value.to_owned());
            }
        }
        Ok(out)
    }
}

/// The series that pass all matchers, one by one.
struct Walk {
    block: Block,
    plan: Plan,
    numbers: Vec<u32>,
    at: usize,
    decoder: Decoder,
    last: Option<Labels>,
    context: Context,
    _held: Reservation,
}

impl Walk {
    fn new(block: &Block, matchers: &[Matcher], context: &Context) -> Result<Walk, storage::Error> {
        let inner = &block.inner;
        context.cancel.check(inner.world.clock.monotonic())?;
        let plan = Plan::new(matchers, &inner.header)?;
        // The first group is unfolded as it is; all later steps only shorten it.
        let held = context.budget.reserve(plan.add.first().map_or(0, crate::index::plan::Group::bytes))?;
        let numbers = inner.series_of(&plan)?;
        Ok(Walk {
            block: block.clone(),
            plan,
            numbers,
            at: 0,
            decoder: Decoder::default(),
            last: None,
            context: context.clone(),
            _held: held,
        })
    }

    /// Number and labels of the next series; its chunks are in the decoder.
    fn next(&mut self) -> Result<Option<(u32, Labels)>, storage::Error> {
        let inner = &self.block.inner;
        while let Some(&number) = self.numbers.get(self.at) {
            if self.at.is_multiple_of(MORSEL) {
                self.context.cancel.check(inner.world.clock.monotonic())?;
            }
            self.at += 1;
            let labels = inner.decode(number, &mut self.decoder, self.last.as_ref())?;
            self.last = Some(labels.clone());
            if Matcher::all_match(&self.plan.check, &labels) {
                return Ok(Some((number, labels)));
            }
        }
        Ok(None)
    }
}

struct Selected {
    walk: Walk,
    range: TimeRange,
    /// Series that may still be given.
    left: usize,
    skip_chunks: bool,
    notes: Notes,
}

impl SeriesSet for Selected {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        while self.left > 0 {
            let Some((number, labels)) = self.walk.next()? else { return Ok(None) };
            let Some(chunks) = self.chunks(number, &labels)? else { continue };
            self.left -= 1;
            return Ok(Some(SeriesEntry { labels, chunks }));
        }
        Ok(None)
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

impl Selected {
    /// The chunks of the series just decoded that lie in the range; none if there are none.
    fn chunks(&mut self, number: u32, labels: &Labels) -> Result<Option<Vec<ChunkData>>, Error> {
        let inner = &self.walk.block.inner;
        let deleted = inner.tombstones.of(number);
        let wanted = |at: &&ChunkMeta| {
            at.range.overlaps(&self.range)
                && (deleted.is_empty() || tombstones::effect(deleted, &at.range) != Effect::Gone)
        };
        let mut found = self.walk.decoder.chunks.iter().filter(wanted).peekable();
        if found.peek().is_none() {
            return Ok(None);
        }
        if self.skip_chunks {
            return Ok(Some(Vec::new()));
        }
        let mut out = Vec::with_capacity(self.walk.decoder.chunks.len());
        for at in found {
            let (encoding, bytes) = inner.chunk(number, at)?;
            let chunk = ChunkData { range: at.range, encoding, bytes };
            if deleted.is_empty() || tombstones::effect(deleted, &at.range) == Effect::Untouched {
                out.push(chunk);
            } else if encoding == Encoding::Xor {
                out.extend(cut_out(&chunk, deleted)?);
            } else {
                self.notes
                    .warn(format!("{labels}: a deletion inside of a {encoding:?} chunk is not applied"));
                out.push(chunk);
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

/// A float chunk without its deleted samples; none if nothing is left.
fn cut_out(chunk: &ChunkData, deleted: &[TimeRange]) -> Result<Option<ChunkData>, Error> {
    let corrupt = |e: chunk::Error| Error {
        source: Some(Box::new(e.clone())),
        ..Error::corrupt(format!("chunk: {e}"))
    };
    let mut kept = Vec::new();
    for sample in chunk::xor::Iter::new(&chunk.bytes).map_err(corrupt)? {
        let sample = sample.map_err(corrupt)?;
        if !tombstones::is_deleted(deleted, sample.timestamp) {
            kept.push(sample);
        }
    }
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else { return Ok(None) };
    let range = TimeRange::new(first.timestamp, last.timestamp);
    let bytes = chunk::xor::encode(kept)
        .map_err(|e| Error::new(Kind::Internal, format!("chunk cannot be written again: {e}")))?;
    Ok(Some(ChunkData { range, encoding: chunk.encoding, bytes: Bytes::from(bytes) }))
}
