//! Answers selections from an open block: matchers to series by postings, series to chunks by reference.
//!
//! Rules are Prometheus's. The contract of selects stands one room away, so those who hold local blocks adapt these
//! methods to it; they also watch a query's cancellation and bytes between two series.

use std::collections::BTreeSet;

use bytes::Bytes;
use chunk::histogram::{FloatIter, IntIter, encode_floats, encode_ints};
use chunk::{ChunkData, Encoding};
use model::{Kind, Labels, Matcher, TimeRange};

use crate::Error;
use crate::index::Plan;
use crate::index::postings::retain;
use crate::index::series::{ChunkMeta, Decoder};
use crate::read::{Block, Inner};
use crate::tombstones::{self, Effect};

/// Below this many series, values are read from the series themselves.
const FEW: usize = 256;

impl Block {
    /// Series whose labels pass all matchers and that have a chunk in `range`, by labels, each with the chunks that
    /// overlap the range. At most `limit` series, 0 means all; with `skip_chunks`, labels alone.
    pub fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        skip_chunks: bool,
    ) -> Result<BlockSeries, Error> {
        let walk = if range.is_empty() { Walk::nothing(self) } else { Walk::new(self, matchers)? };
        let left = if limit == 0 { usize::MAX } else { limit };
        Ok(BlockSeries { walk, range, left, skip_chunks })
    }

    /// Numbers of the series that pass all matchers and have chunks in `range`.
    pub(crate) fn numbers_in(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<u32>, Error> {
        let mut numbers = Vec::new();
        let mut walk = Walk::new(self, matchers)?;
        while let Some((number, _)) = walk.next()? {
            if walk.decoder.chunks.iter().any(|chunk| chunk.range.overlaps(&range)) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// Names of the labels of all matching series, sorted; at most `limit`, 0 means all. A block outside of `range`
    /// has none; series are not looked at one by one.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        if !self.time_range().overlaps(&range) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return Ok(cut(self.inner.header.names().map(str::to_owned).collect(), limit));
        }
        let mut names = BTreeSet::new();
        let mut walk = Walk::new(self, matchers)?;
        while let Some((_, labels)) = walk.next()? {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(cut(names.into_iter().collect(), limit))
    }

    /// Values of a label over all matching series, sorted; `range` and `limit` as in [`Block::label_names`].
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        if name.is_empty() || !self.time_range().overlaps(&range) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            let mut values = self.inner.header.values(name)?;
            values.retain(|value| !value.is_empty());
            return Ok(cut(values, limit));
        }
        let mut walk = Walk::new(self, matchers)?;
        if walk.plan.check.is_empty() && walk.numbers.len() > FEW {
            return Ok(cut(self.inner.values_among(name, &walk.numbers)?, limit));
        }
        let mut values = BTreeSet::new();
        while let Some((_, labels)) = walk.next()? {
            if let Some(value) = labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        }
        Ok(cut(values.into_iter().collect(), limit))
    }
}

fn cut(mut values: Vec<String>, limit: usize) -> Vec<String> {
    if limit > 0 {
        values.truncate(limit);
    }
    values
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
        let mut some = Vec::new();
        for (value, range) in lists {
            let postings = self.postings(&range)?;
            let hit = if postings.len() < numbers.len() {
                postings.iter().any(|n| numbers.binary_search(&n).is_ok())
            } else {
                some.clear();
                some.extend_from_slice(numbers);
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
}

impl Walk {
    fn nothing(block: &Block) -> Walk {
        let (plan, decoder) = (Plan::default(), Decoder::default());
        Walk { block: block.clone(), plan, numbers: Vec::new(), at: 0, decoder, last: None }
    }

    fn new(block: &Block, matchers: &[Matcher]) -> Result<Walk, Error> {
        let plan = Plan::new(matchers, &block.inner.header)?;
        let numbers = block.inner.series_of(&plan)?;
        Ok(Walk { plan, numbers, ..Walk::nothing(block) })
    }

    /// Number and labels of the next series; its chunks are in the decoder.
    fn next(&mut self) -> Result<Option<(u32, Labels)>, Error> {
        while let Some(&number) = self.numbers.get(self.at) {
            self.at += 1;
            let labels = self.block.inner.decode(number, &mut self.decoder, self.last.as_ref())?;
            self.last = Some(labels.clone());
            if Matcher::all_match(&self.plan.check, &labels) {
                return Ok(Some((number, labels)));
            }
        }
        Ok(None)
    }
}

/// The answer to [`Block::series`]: labels and chunks, in the order of labels. Ends after an error.
pub struct BlockSeries {
    walk: Walk,
    range: TimeRange,
    /// Series that may still be given.
    left: usize,
    skip_chunks: bool,
}

impl BlockSeries {
    /// Series that are still to be looked at: an upper bound of those to come.
    pub fn candidates(&self) -> usize {
        self.walk.numbers.len() - self.walk.at
    }

    /// Bytes held besides the block: for a query's budget.
    pub fn memory(&self) -> usize {
        self.walk.numbers.capacity() * size_of::<u32>()
    }

    fn step(&mut self) -> Result<Option<(Labels, Vec<ChunkData>)>, Error> {
        while self.left > 0 {
            let Some((number, labels)) = self.walk.next()? else { break };
            if let Some(chunks) = self.chunks(number)? {
                self.left -= 1;
                return Ok(Some((labels, chunks)));
            }
        }
        Ok(None)
    }

    /// The chunks of the series just decoded that lie in the range; none if there are none.
    fn chunks(&self, number: u32) -> Result<Option<Vec<ChunkData>>, Error> {
        let inner = &self.walk.block.inner;
        let deleted = inner.tombstones.of(number);
        let wanted = |at: &&ChunkMeta| {
            at.range.overlaps(&self.range) && tombstones::effect(deleted, &at.range) != Effect::Gone
        };
        let mut found = self.walk.decoder.chunks.iter().filter(wanted).peekable();
        if found.peek().is_none() {
            return Ok(None);
        }
        if self.skip_chunks {
            return Ok(Some(Vec::new()));
        }
        let mut out = Vec::with_capacity(found.size_hint().1.unwrap_or(0));
        for at in found {
            let (encoding, bytes) = inner.chunk(number, at)?;
            let chunk = ChunkData { range: at.range, encoding, bytes };
            if tombstones::effect(deleted, &at.range) == Effect::Untouched {
                out.push(chunk);
            } else {
                out.extend(
                    without(&chunk, deleted).map_err(|e| inner.within(format_args!("series {number}"), e))?,
                );
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

impl Iterator for BlockSeries {
    type Item = Result<(Labels, Vec<ChunkData>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        step.transpose()
    }
}

/// A chunk without its deleted samples: none if nothing is left. Of an aggregate no part can be taken out.
pub fn without(chunk: &ChunkData, deleted: &[TimeRange]) -> Result<Vec<ChunkData>, Error> {
    let corrupt = |e: chunk::Error| Error {
        source: Some(Box::new(e.clone())),
        ..Error::corrupt(format!("chunk: {e}"))
    };
    let again = |e: chunk::Error| Error::new(Kind::Internal, format!("chunk cannot be written again: {e}"));
    let kept = |timestamp| !tombstones::is_deleted(deleted, timestamp);
    match chunk.encoding {
        Encoding::Xor => {
            let samples: Result<Vec<_>, _> = chunk::xor::Iter::new(&chunk.bytes).map_err(corrupt)?.collect();
            let mut samples = samples.map_err(corrupt)?;
            samples.retain(|s| kept(s.timestamp));
            let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(Vec::new()) };
            let range = TimeRange::new(first.timestamp, last.timestamp);
            let bytes = Bytes::from(chunk::xor::encode(samples).map_err(again)?);
            Ok(vec![ChunkData { range, encoding: chunk.encoding, bytes }])
        }
        Encoding::Histogram => {
            let samples: Result<Vec<_>, _> = IntIter::new(&chunk.bytes).map_err(corrupt)?.collect();
            let samples = samples.map_err(corrupt)?.into_iter().filter(|s| kept(s.timestamp));
            encode_ints(samples, u16::MAX).map_err(again)
        }
        Encoding::FloatHistogram => {
            let samples: Result<Vec<_>, _> = FloatIter::new(&chunk.bytes).map_err(corrupt)?.collect();
            let samples = samples.map_err(corrupt)?.into_iter().filter(|s| kept(s.timestamp));
            encode_floats(samples, u16::MAX).map_err(again)
        }
        Encoding::Xor2 | Encoding::HistogramStart | Encoding::FloatHistogramStart => {
            // What is left is written without start times.
            let mut out = Vec::new();
            for plain in chunk::plain(chunk.clone()).map_err(corrupt)? {
                out.extend(without(&plain, deleted)?);
            }
            Ok(out)
        }
        Encoding::Aggregate => Err(Error::new(
            Kind::Refused,
            "a part of a downsampled chunk is deleted, which this version cannot apply; compact the block with Thanos",
        )),
    }
}
