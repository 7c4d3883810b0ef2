//! One block in the bucket: from matchers to series and chunks, every byte fetched by ranges.
//!
//! Stands under [`crate::group`], which asks many blocks at once. Calls block their thread; a query that was given up
//! ends them. Header, postings, series and chunks are verified by their checksums as they are read. It does not know
//! external labels.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use block::index::series::{self, ChunkMeta, Decoder};
use block::index::{IndexHeader, Plan, decode_postings};
use block::{BlockId, Meta, chunks};
use bytes::Bytes;
use chunk::Encoding;
use model::{Kind, Labels, Matcher, TimeRange};
use storage::{ChunkData, Context, Reservation, SeriesEntry};

use crate::Error;
use crate::header::Headers;
use crate::pages::{FileKind, Purpose, SharedPages, Spent};
use crate::wait::Waiter;

/// Series decoded at once: few at first, so that the answer begins soon.
const FIRST_SERIES: usize = 128;
const MOST_SERIES: usize = 2048;
/// Bytes of a series entry to fetch where the block does not say how large they are.
const SERIES_GUESS: u64 = 4096;
/// Likewise of a chunk; those that are longer are fetched again.
const CHUNK_GUESS: u64 = 4096;
/// Blocks say how large their largest entry and chunk are. Where that is more, one giant does not set the measure for
/// all: it is fetched again by itself.
const GIANT: u64 = 16 << 10;

/// Below this many series, values are read from the series themselves.
const FEW: usize = 256;
/// Bytes of postings lists that are held at once while values are listed.
const LISTS_AT_ONCE: u64 = 8 << 20;
/// No series entry or chunk is larger; a length that says so is damage.
const MOST_BYTES: u64 = 64 << 20;

/// What all blocks of a store share.
pub(crate) struct Shared {
    pub headers: Headers,
    pub pages: SharedPages,
    pub waiter: Waiter,
}

/// A block that is not on this machine.
pub(crate) struct RemoteBlock {
    pub id: BlockId,
    pub meta: Arc<Meta>,
    shared: Arc<Shared>,
    /// Sizes of its files, where meta.json has them.
    sizes: BTreeMap<String, u64>,
}

/// What one call asks of each block.
#[derive(Clone)]
pub(crate) struct Ask {
    pub range: TimeRange,
    pub matchers: Arc<[Matcher]>,
    /// 0 means all.
    pub limit: usize,
    pub skip_chunks: bool,
    pub context: Context,
    pub spent: Arc<Spent>,
    /// Bytes of chunks in one batch.
    pub batch_bytes: u64,
}

impl RemoteBlock {
    pub(crate) fn new(meta: Arc<Meta>, shared: Arc<Shared>) -> RemoteBlock {
        let files = meta.thanos.iter().flat_map(|t| &t.files);
        let sizes = files.filter(|f| f.size_bytes > 0).map(|f| (f.rel_path.clone(), f.size_bytes)).collect();
        RemoteBlock { id: meta.ulid, meta, shared, sizes }
    }

    pub(crate) fn range(&self) -> TimeRange {
        self.meta.range()
    }

    /// The series that pass, still to be read.
    pub(crate) fn scan(self: &Arc<RemoteBlock>, ask: &Ask) -> Result<Scan, Error> {
        let header = self.header(ask)?;
        let plan = Plan::new(&ask.matchers, &header)?;
        let numbers = self.numbers(&plan, ask)?;
        Ok(Scan {
            block: self.clone(),
            header,
            check: plan.check,
            numbers,
            at: 0,
            step: FIRST_SERIES,
            pending: VecDeque::new(),
            given: 0,
            decoder: Decoder::default(),
            last: None,
        })
    }

    /// Names of the labels of all matching series.
    pub(crate) fn label_names(self: &Arc<RemoteBlock>, ask: &Ask) -> Result<BTreeSet<String>, Error> {
        if ask.matchers.is_empty() {
            let header = self.header(ask)?;
            return Ok(header.names().filter(|n| !n.is_empty()).map(str::to_owned).collect());
        }
        let mut names = BTreeSet::new();
        self.each_labels(ask, |labels| {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        })?;
        Ok(names)
    }

    /// Values of a label over all matching series.
    pub(crate) fn label_values(
        self: &Arc<RemoteBlock>,
        name: &str,
        ask: &Ask,
    ) -> Result<BTreeSet<String>, Error> {
        if name.is_empty() {
            return Ok(BTreeSet::new());
        }
        if ask.matchers.is_empty() {
            let values = self.header(ask)?.values(name)?;
            return Ok(values.into_iter().filter(|v| !v.is_empty()).collect());
        }
        let header = self.header(ask)?;
        let plan = Plan::new(&ask.matchers, &header)?;
        let numbers = self.numbers(&plan, ask)?;
        if plan.check.is_empty() && numbers.len() > FEW {
            return self.values_among(name, &header, &numbers, ask);
        }
        let mut values = BTreeSet::new();
        self.each_labels(ask, |labels| {
            if let Some(value) = labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        })?;
        Ok(values)
    }

    /// Values of `name` that some of `numbers` (ascending) have, by their postings: four bytes a series instead of its
    /// whole entry.
    fn values_among(
        &self,
        name: &str,
        header: &IndexHeader,
        numbers: &[u32],
        ask: &Ask,
    ) -> Result<BTreeSet<String>, Error> {
        let mut lists: Vec<(&str, Range<u64>)> = Vec::new();
        header.offsets.each_value(name, "", &mut |value, range| {
            lists.push((value, range));
            true
        })?;
        let mut out = BTreeSet::new();
        let mut rest = lists.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, range)| {
                bytes += range.end - range.start;
                bytes <= LISTS_AT_ONCE
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let ranges: Vec<Range<u64>> = now.iter().map(|(_, range)| range.clone()).collect();
            let _held = ask.context.budget.reserve(ranges.iter().map(|r| r.end - r.start).sum())?;
            let read = self.read(FileKind::Index, &ranges, Purpose::Postings, ask)?;
            for ((value, range), bytes) in now.iter().zip(read) {
                let list = decode_postings(&bytes)
                    .map_err(|e| e.within(format_args!("index at offset {}", range.start)))?;
                if !value.is_empty() && list.iter().any(|n| numbers.binary_search(&n).is_ok()) {
                    out.insert((*value).to_owned());
                }
            }
        }
        Ok(out)
    }

    /// Labels of all matching series, whatever their times: listings are judged by whole blocks.
    fn each_labels(self: &Arc<RemoteBlock>, ask: &Ask, mut visit: impl FnMut(&Labels)) -> Result<(), Error> {
        let ask = Ask { range: TimeRange::ALL, skip_chunks: true, limit: 0, ..ask.clone() };
        let mut scan = self.scan(&ask)?;
        loop {
            let batch = scan.batch(&ask)?;
            if batch.entries.is_empty() {
                return Ok(());
            }
            batch.entries.iter().for_each(|entry| visit(&entry.labels));
        }
    }

    fn header(&self, ask: &Ask) -> Result<Arc<IndexHeader>, Error> {
        let size = self.sizes.get("index").copied();
        self.shared.waiter.wait(&ask.context, self.shared.headers.get(self.id, size))
    }

    /// Fetches all lists of a plan at once, then combines them.
    fn numbers(&self, plan: &Plan, ask: &Ask) -> Result<Vec<u32>, Error> {
        if plan.nothing {
            return Ok(Vec::new());
        }
        let mut ranges: Vec<Range<u64>> = plan.ranges().cloned().collect();
        ranges.sort_by_key(|range| range.start);
        ranges.dedup();
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // The lists, and the numbers made of them.
        let _held = ask.context.budget.reserve(total.saturating_mul(2))?;
        let lists = self.read(FileKind::Index, &ranges, Purpose::Postings, ask)?;
        let by_start: HashMap<u64, Bytes> = ranges.iter().map(|range| range.start).zip(lists).collect();
        let numbers = plan.apply(&mut |range| {
            by_start
                .get(&range.start)
                .cloned()
                .ok_or_else(|| block::Error::new(Kind::Internal, "a postings list was not fetched"))
        })?;
        Ok(numbers)
    }

    fn read(
        &self,
        file: FileKind,
        ranges: &[Range<u64>],
        purpose: Purpose,
        ask: &Ask,
    ) -> Result<Vec<Bytes>, Error> {
        let rel_path = match file {
            FileKind::Index => "index".to_owned(),
            FileKind::Segment(n) => format!("{}/{}", chunks::DIR, chunks::file_name(n as usize)),
        };
        let size = self.sizes.get(&rel_path).copied().unwrap_or(u64::MAX);
        // A reference beyond the end of a file is the block's fault, not the bucket's.
        if let Some(last) = ranges.iter().map(|r| r.start).max()
            && last >= size
        {
            return Err(Error::corrupt(format!("{rel_path} has {size} bytes; offset {last} is referred to")));
        }
        // Ends are guesses.
        let ranges: Vec<Range<u64>> = ranges.iter().map(|r| r.start..r.end.min(size)).collect();
        let reading = self.shared.pages.read(self.id, file, &ranges, purpose, &ask.spent);
        self.shared.waiter.wait(&ask.context, reading)
    }

    fn series_len(&self) -> u64 {
        let told = self.meta.thanos.as_ref().map_or(0, |t| t.index_stats.series_max_size);
        if told == 0 || told > GIANT { SERIES_GUESS } else { told }
    }

    fn chunk_len(&self) -> u64 {
        let told = self.meta.thanos.as_ref().map_or(0, |t| t.index_stats.chunk_max_size);
        if told == 0 || told > GIANT { CHUNK_GUESS } else { told }
    }
}

/// A walk over the series of one block.
pub(crate) struct Scan {
    block: Arc<RemoteBlock>,
    header: Arc<IndexHeader>,
    check: Vec<Matcher>,
    /// Ascending, which is the order of labels.
    numbers: Vec<u32>,
    at: usize,
    step: usize,
    /// Decoded, their chunks not yet fetched.
    pending: VecDeque<(Labels, Vec<ChunkMeta>)>,
    given: usize,
    decoder: Decoder,
    last: Option<Labels>,
}

/// Some series of one block, in order, and the memory they take.
pub(crate) struct Batch {
    pub entries: Vec<SeriesEntry>,
    pub held: Option<Reservation>,
}

impl Scan {
    pub(crate) fn id(&self) -> BlockId {
        self.block.id
    }

    /// The next series with their chunks; no entries at the end.
    pub(crate) fn batch(&mut self, ask: &Ask) -> Result<Batch, Error> {
        let id = self.block.id;
        self.next_batch(ask).map_err(|e| e.within(format_args!("block {id}")))
    }

    fn next_batch(&mut self, ask: &Ask) -> Result<Batch, Error> {
        while self.pending.is_empty() && self.at < self.numbers.len() {
            if ask.limit > 0 && self.given >= ask.limit {
                break;
            }
            self.decode_some(ask)?;
        }
        let mut series = Vec::new();
        let mut bytes = 0;
        while let Some((_, chunks)) = self.pending.front() {
            let more = chunks.len() as u64 * self.block.chunk_len();
            let full = ask.limit > 0 && self.given >= ask.limit;
            if full || (!series.is_empty() && bytes + more > ask.batch_bytes) {
                break;
            }
            bytes += more;
            self.given += 1;
            series.extend(self.pending.pop_front());
        }
        if ask.skip_chunks || series.is_empty() {
            let entries = series.into_iter().map(|(labels, _)| SeriesEntry { labels, chunks: Vec::new() });
            return Ok(Batch { entries: entries.collect(), held: None });
        }
        self.with_chunks(series, ask)
    }

    /// Reads the entries of the next series and keeps those that pass and have chunks in the range.
    fn decode_some(&mut self, ask: &Ask) -> Result<(), Error> {
        let upto = (self.at + self.step).min(self.numbers.len());
        self.step = (self.step * 4).min(MOST_SERIES);
        let numbers = &self.numbers[self.at..upto];
        self.at = upto;
        let section = self.header.toc.series_range();
        let ranges = numbers
            .iter()
            .map(|&n| series::estimated_range(n, self.block.series_len(), &section))
            .collect::<Result<Vec<_>, _>>()?;
        let _held = ask.context.budget.reserve(ranges.len() as u64 * self.block.series_len())?;
        let mut entries = self.block.read(FileKind::Index, &ranges, Purpose::Series, ask)?;
        let longer = longer_than_read(&ranges, &entries, series::entry_len)?;
        if !longer.is_empty() {
            let ranges: Vec<Range<u64>> = longer.iter().map(|(_, range)| range.clone()).collect();
            let again = self.block.read(FileKind::Index, &ranges, Purpose::Series, ask)?;
            longer.iter().zip(again).for_each(|((at, _), bytes)| entries[*at] = bytes);
        }
        for (bytes, number) in entries.iter().zip(numbers) {
            let labels = self
                .decoder
                .decode(bytes, &self.header.symbols)
                .map_err(|e| e.within(format_args!("index at offset {}", series::offset(*number))))?;
            // The order is what makes a merge right; a block that breaks it is not to be trusted.
            if self.last.as_ref().is_some_and(|last| *last >= labels) {
                return Err(Error::corrupt(format!(
                    "index at offset {}: series are not in the order of their labels",
                    series::offset(*number)
                )));
            }
            let mut chunks: Vec<ChunkMeta> = Vec::new();
            chunks.extend(self.decoder.chunks.iter().filter(|c| c.range.overlaps(&ask.range)));
            let wanted = !chunks.is_empty() && Matcher::all_match(&self.check, &labels);
            self.last = Some(labels.clone());
            if wanted {
                self.pending.push_back((labels, chunks));
            }
        }
        Ok(())
    }

    /// Fetches the chunks of some series, segment by segment, and gives each series its own.
    fn with_chunks(&self, series: Vec<(Labels, Vec<ChunkMeta>)>, ask: &Ask) -> Result<Batch, Error> {
        let mut by_segment: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for chunk in series.iter().flat_map(|(_, chunks)| chunks) {
            by_segment.entry(segment(chunk)?).or_default().insert(chunk.offset());
        }
        let mut read: HashMap<(u32, u64), (Encoding, Bytes)> = HashMap::new();
        let guess = self.block.chunk_len();
        let count: usize = by_segment.values().map(BTreeSet::len).sum();
        let mut held = ask.context.budget.reserve(count as u64 * guess)?;
        for (segment, offsets) in &by_segment {
            let offsets: Vec<u64> = offsets.iter().copied().collect();
            let file = FileKind::Segment(*segment);
            // A chunk ends at the latest where the next one wanted begins.
            let ranges: Vec<Range<u64>> = offsets
                .iter()
                .enumerate()
                .map(|(at, &start)| {
                    let next = offsets.get(at + 1).copied().unwrap_or(u64::MAX);
                    start..(start + guess).min(next)
                })
                .collect();
            let mut found = self.block.read(file, &ranges, Purpose::Chunks, ask)?;
            let longer = longer_than_read(&ranges, &found, chunks::chunk_len)?;
            if !longer.is_empty() {
                let ranges: Vec<Range<u64>> = longer.iter().map(|(_, range)| range.clone()).collect();
                held.grow(ranges.iter().map(|range| range.end - range.start).sum())?;
                let again = self.block.read(file, &ranges, Purpose::Chunks, ask)?;
                longer.iter().zip(again).for_each(|((at, _), bytes)| found[*at] = bytes);
            }
            for (start, bytes) in offsets.iter().zip(&found) {
                let chunk = chunks::decode_chunk(bytes).map_err(|e| {
                    let name = chunks::file_name(*segment as usize);
                    e.within(format_args!("{}/{name} at offset {start}", chunks::DIR))
                })?;
                read.insert((*segment, *start), chunk);
            }
        }
        let entries = series
            .into_iter()
            .map(|(labels, metas)| Ok(SeriesEntry { labels, chunks: gather(&metas, &read)? }))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Batch { entries, held: Some(held) })
    }
}

/// Those of which fewer bytes were read than they say they have, with the range they need.
fn longer_than_read(
    ranges: &[Range<u64>],
    read: &[Bytes],
    len: impl Fn(&[u8]) -> Result<usize, block::Error>,
) -> Result<Vec<(usize, Range<u64>)>, Error> {
    let mut out = Vec::new();
    for (at, (range, bytes)) in ranges.iter().zip(read).enumerate() {
        let len = len(bytes)? as u64;
        // What ends with its file is cut short; decoding says so.
        let whole_read = bytes.len() as u64 == range.end - range.start;
        if len > bytes.len() as u64 && whole_read {
            if len > MOST_BYTES {
                return Err(Error::corrupt(format!("an entry at offset {} claims {len} bytes", range.start)));
            }
            out.push((at, range.start..range.start + len));
        }
    }
    Ok(out)
}

/// The chunks of one series in one allocation of their own, so that none holds on to a page.
fn gather(
    metas: &[ChunkMeta],
    read: &HashMap<(u32, u64), (Encoding, Bytes)>,
) -> Result<Vec<ChunkData>, Error> {
    let mut parts = Vec::with_capacity(metas.len());
    for meta in metas {
        let found = read.get(&(segment(meta)?, meta.offset()));
        let (encoding, bytes) =
            found.ok_or_else(|| Error::new(Kind::Internal, "a chunk that was fetched is not there"))?;
        parts.push((meta.range, *encoding, bytes));
    }
    let mut all = Vec::with_capacity(parts.iter().map(|(_, _, bytes)| bytes.len()).sum());
    parts.iter().for_each(|(_, _, bytes)| all.extend_from_slice(bytes));
    let all = Bytes::from(all);
    let mut at = 0;
    let cut = |(range, encoding, bytes): (TimeRange, Encoding, &Bytes)| {
        let start = at;
        at += bytes.len();
        ChunkData { range, encoding, bytes: all.slice(start..at) }
    };
    Ok(parts.into_iter().map(cut).collect())
}

fn segment(chunk: &ChunkMeta) -> Result<u32, Error> {
    u32::try_from(chunk.segment()).map_err(|_| Error::corrupt("a chunk's segment number overflows"))
}
