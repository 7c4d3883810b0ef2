//! The series of a shard by slot: what an append needs in one cache line each, the rest apart; chunks in slabs.
//!
//! ```text
//! slot ─► Hot, 64 bytes: newest sample, state of the open chunk ──► its last 60 bytes ──► the 60 before ──► ...
//!     └─► Cold, 16 bytes: ──► pairs of its labels (head/postings.rs)
//!                         ──► newest sealed chunk ──► the one before ──► ..., pieces of a slab with a header each
//!                         ──► Rare, boxed: samples that came out of order
//! ```
//! What only some series need has its place in [`Rare`], so that the others do not pay for it; a kind of sample
//! other than floats keeps the state of its own open chunk there, and its sealed chunks in the same chain, told apart
//! by their encoding.
//!
//! # Cost
//! A sample in order reads and writes two cache lines: the hot one, and the last piece of the open chunk. One that is
//! not newer than the newest looks for its time: in the chunks that cover it, decoded, and in the out-of-order buffer.

use bytes::Bytes;
use chunk::{Encoding, cut, xor};
use model::{Native, Sample, TimeRange, Timestamp, is_stale};
use storage::{ChunkData, Refusal, Verdict};

use super::judge::Bounds;
use super::native::{self, Natives, Row};
use super::pages::Pages;
use super::slab::Slab;
use crate::Error;
use crate::blocks::from_block;

/// Out-of-order samples that are kept as such before they become chunks.
const OUT_OF_ORDER_SAMPLES: usize = 240;
/// An open chunk lies in pieces of one cache line each: the name of the piece before, and bytes. A chunk that grew as
/// one piece would go through many sizes, and leave behind pages half full of what grows more slowly.
const PIECE: usize = 64;
const LINK: usize = 4;
const PIECE_BYTES: usize = PIECE - LINK;
/// Most bytes of an open chunk.
const OPEN_MOST: usize = cut::MOST as usize * xor::MOST_BYTES;
/// No sealed chunk.
const NO_CHUNK: u32 = u32::MAX;
/// Mark of chunks that were cut while their times could still be written: asked for values, so that an
/// acknowledged one stays, and never read otherwise, since a block has them.
const REMEMBERED: u32 = u32::MAX;

/// No sample yet.
pub(crate) const NEVER: Timestamp = i64::MIN;

/// All series of a shard.
#[derive(Default)]
pub(crate) struct Store {
    hot: Pages<Hot>,
    cold: Pages<Cold>,
    free: Vec<u32>,
    open: Slab,
    sealed: Slab,
    /// Pairs of labels, one list per series.
    lists: Slab,
}

/// What an append needs of a series.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Hot {
    /// [`model::Labels::placement_hash`].
    pub hash: u64,
    /// Its number in the log, unique in the shard for the log's life; 0: nobody has the slot.
    pub id: u64,
    /// Newest time ever taken, cut or not; that of the open chunk's last sample, if there is one.
    pub newest: Timestamp,
    appender: xor::Packed,
    /// Index of the tenant in this process.
    pub tenant: u32,
    /// Last piece of the open chunk; worth something only while the appender has samples.
    open: u32,
    /// From the open chunk's first sample to its newest.
    span: u32,
    /// From the newest to the first time that the open chunk must not hold, as far as it is known: 0 after its first
    /// sample.
    left: u32,
    /// Pieces of the open chunk, and bytes in the last one.
    pieces: u8,
    tail: u8,
}

impl Default for Hot {
    fn default() -> Hot {
        Hot {
            hash: 0,
            id: 0,
            newest: NEVER,
            appender: xor::Packed::default(),
            tenant: 0,
            open: 0,
            span: 0,
            left: 0,
            pieces: 0,
            tail: 0,
        }
    }
}

/// What it needs else.
struct Cold {
    /// List of its pairs.
    list: u32,
    /// The chunk that was sealed last.
    sealed: u32,
    rare: Option<Box<Rare>>,
}

impl Default for Cold {
    fn default() -> Cold {
        Cold { list: 0, sealed: NO_CHUNK, rare: None }
    }
}

/// What only some series have.
#[derive(Default)]
struct Rare {
    /// Sorted by time, each time once.
    out_of_order: Vec<Sample>,
    /// Histograms that are in no sealed chunk.
    natives: Natives,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.out_of_order.is_empty() && self.natives.is_empty()
    }
}

/// A series to look at.
#[derive(Clone, Copy)]
pub(crate) struct Series<'a> {
    pub hot: &'a Hot,
    cold: &'a Cold,
    open: &'a Slab,
    sealed: &'a Slab,
}

/// A series to change.
pub(crate) struct SeriesMut<'a> {
    pub hot: &'a mut Hot,
    cold: &'a mut Cold,
    open: &'a mut Slab,
    sealed: &'a mut Slab,
}

/// A chunk that takes no more samples, in its piece of the slab.
///
/// ```text
/// next u32 | length u24, encoding u8 | start i64 | start to end u32 | tag u32 | bytes
/// ```
struct Sealed<'a> {
    name: u32,
    next: u32,
    range: TimeRange,
    encoding: Encoding,
    /// The freeze that this chunk belongs to; 0 for none, or [`REMEMBERED`].
    tag: u32,
    bytes: &'a [u8],
}

const HEADER: usize = 24;
const TAG_AT: usize = 20;

impl Store {
    /// Slots ever used.
    pub(crate) fn len(&self) -> usize {
        self.hot.len()
    }

    #[inline]
    pub(crate) fn hot(&self, slot: u32) -> Option<&Hot> {
        self.hot.get(slot).filter(|hot| hot.id != 0)
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<Series<'_>> {
        let Store { open, sealed, .. } = self;
        Some(Series { hot: self.hot(slot)?, cold: self.cold.get(slot)?, open, sealed })
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<SeriesMut<'_>> {
        let Store { open, sealed, .. } = self;
        let hot = self.hot.get_mut(slot).filter(|hot| hot.id != 0)?;
        Some(SeriesMut { hot, cold: self.cold.get_mut(slot)?, open, sealed })
    }

    /// Reads a little of everything that a sample needs, of several series before any of them takes one: so their
    /// cache misses overlap instead of following one another. First all that no other read leads to, then where
    /// those lead.
    #[inline]
    pub(crate) fn touch(&self, slots: impl Iterator<Item = u32> + Clone) {
        let hot = |slot: u32| self.hot.get(slot);
        let sum = slots.clone().filter_map(hot).fold(0, |sum, hot| sum ^ hot.id);
        std::hint::black_box(sum);
        let last = |hot: &Hot| self.open.get(hot.open).first().copied();
        let sum = slots.filter_map(hot).filter_map(last).fold(0, |sum, byte| sum ^ byte);
        std::hint::black_box(sum);
    }

    /// The pairs of a series' labels, as [`super::postings::pairs_of`] reads them.
    #[inline]
    pub(crate) fn list(&self, slot: u32) -> Option<&[u8]> {
        self.hot(slot)?;
        self.cold.get(slot).map(|cold| self.lists.get(cold.list))
    }

    /// Chunks, samples (of chunks: from their heads), time range and bytes of a series' own.
    pub(crate) fn measure(&self, slot: u32) -> Option<Measure> {
        let mut measure = self.get(slot)?.measure();
        measure.bytes += self.list(slot).unwrap_or_default().len();
        Some(measure)
    }

    /// The slot that the next series gets.
    pub(crate) fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.hot.len() as u32)
    }

    /// Puts a series into [`Store::next_slot`]; `list` is a piece of [`Store::lists`].
    pub(crate) fn insert(&mut self, tenant: u32, hash: u64, id: u64, list: u32) {
        let hot = Hot { hash, id, tenant, ..Hot::default() };
        let cold = Cold { list, ..Cold::default() };
        match self.free.pop() {
            Some(slot) => {
                if let (Some(a), Some(b)) = (self.hot.get_mut(slot), self.cold.get_mut(slot)) {
                    (*a, *b) = (hot, cold);
                }
            }
            None => {
                self.hot.push(hot);
                self.cold.push(cold);
            }
        }
    }

    /// Where the pairs of labels lie.
    pub(crate) fn lists(&mut self) -> &mut Slab {
        &mut self.lists
    }

    /// Empties a slot. The caller has taken what the series' list says.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(mut series) = self.get_mut(slot) else { return };
        series.retain_sealed(|_| false);
        series.free_open();
        let list = series.cold.list;
        (*series.hot, *series.cold) = (Hot::default(), Cold::default());
        self.lists.free(list);
        self.free.push(slot);
    }

    /// Bytes of memory by part; of slabs those in use and those taken.
    pub(crate) fn parts(&self) -> [(&'static str, usize); 8] {
        let (open, sealed, lists) = (self.open.bytes(), self.sealed.bytes(), self.lists.bytes());
        [
            ("hot", self.hot.bytes()),
            ("cold", self.cold.bytes() + self.free.capacity() * 4),
            ("open chunks", open.1),
            ("open chunks, idle", open.0 - open.1),
            ("sealed chunks", sealed.1),
            ("sealed chunks, idle", sealed.0 - sealed.1),
            ("label lists", lists.1),
            ("label lists, idle", lists.0 - lists.1),
        ]
    }
}

impl<'a> Series<'a> {
    fn open_range(&self) -> Option<TimeRange> {
        open_range(self.hot)
    }

    fn chain(&self) -> Chain<'a> {
        Chain { slab: self.sealed, next: self.cold.sealed }
    }

    /// Sealed chunks that are not only remembered.
    fn readable(&self) -> impl Iterator<Item = Sealed<'a>> {
        self.chain().filter(|c| c.tag != REMEMBERED)
    }

    fn out_of_order(&self) -> &'a [Sample] {
        self.cold.rare.as_ref().map(|rare| rare.out_of_order.as_slice()).unwrap_or_default()
    }

    /// Bits of the value at `t`, wherever it lies.
    fn value_at(&self, t: Timestamp) -> Option<u64> {
        if let Some(open) = self.open_range()
            && t >= open.start
        {
            if t == open.end {
                return Some(self.hot.appender.last_value().to_bits());
            }
            if t < open.end {
                let mut bytes = [0; OPEN_MOST];
                if let Some(bits) = find(self.open_bytes(&mut bytes), t) {
                    return Some(bits);
                }
            }
        }
        let buffer = self.out_of_order();
        if let Ok(at) = buffer.binary_search_by_key(&t, |s| s.timestamp) {
            return Some(buffer[at].value.to_bits());
        }
        let floats = |c: &Sealed<'_>| c.encoding == Encoding::Xor && c.range.contains(t);
        self.chain().filter(floats).find_map(|c| find(c.bytes, t))
    }

    /// The histogram at `t`, wherever it lies.
    fn native_at(&self, t: Timestamp) -> Option<Native> {
        if let Some(rare) = &self.cold.rare
            && let Some(found) = rare.natives.find(t)
        {
            return Some(found);
        }
        let natives = |c: &Sealed<'_>| c.encoding != Encoding::Xor && c.range.contains(t);
        self.chain().filter(natives).find_map(|c| native::find(c.encoding, c.bytes, t))
    }

    /// The open chunk, put together in `room`.
    fn open_bytes<'b>(&self, room: &'b mut [u8; OPEN_MOST]) -> &'b [u8] {
        let (pieces, tail) = (usize::from(self.hot.pieces), usize::from(self.hot.tail));
        let mut end = pieces.saturating_sub(1) * PIECE_BYTES + tail;
        let chunk = room.get_mut(..end).unwrap_or_default();
        let mut name = self.hot.open;
        for at in (0..pieces).rev() {
            let (link, bytes) = self.open.get(name).split_first_chunk::<LINK>().unwrap_or((&[0; 4], &[]));
            let start = at * PIECE_BYTES;
            if let (Some(to), Some(from)) = (chunk.get_mut(start..end), bytes.get(..end - start)) {
                to.copy_from_slice(from);
            }
            (end, name) = (start, u32::from_le_bytes(*link));
        }
        if let Some(count) = chunk.first_chunk_mut::<2>() {
            *count = u16::from(self.hot.appender.count()).to_be_bytes();
        }
        chunk
    }

    /// The chunks of a freeze, by time.
    pub(crate) fn frozen(&self, tag: u32) -> Vec<ChunkData> {
        let mut chunks: Vec<ChunkData> =
            self.chain().filter(|c| c.tag == tag).map(|c| c.data(Bytes::copy_from_slice(c.bytes))).collect();
        chunks.sort_by_key(|c| (c.range.start, c.range.end));
        chunks
    }

    /// Whether anything came since `since` that was not its end.
    pub(crate) fn is_active(&self, since: Timestamp) -> bool {
        let ended = self.open_range().is_some() && model::is_stale(self.hot.appender.last_value());
        self.hot.newest >= since && !ended
    }

    /// Whether it holds no samples, nor remembers any of a cut.
    pub(crate) fn is_empty(&self) -> bool {
        self.hot.appender.count() == 0 && self.cold.sealed == NO_CHUNK && self.cold.rare.is_none()
    }

    /// Whether any sample may lie in `range`.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        self.open_range().is_some_and(|open| open.overlaps(&range))
            || self.readable().any(|c| c.range.overlaps(&range))
            || self.out_of_order().iter().any(|s| range.contains(s.timestamp))
            || self.cold.rare.as_ref().is_some_and(|rare| rare.natives.overlaps(range))
    }

    /// All chunks that overlap `range`, as they are now, by time. Their bytes are added to `bytes`, where they
    /// begin at the offsets given.
    pub(crate) fn chunks(&self, range: TimeRange, bytes: &mut Vec<u8>, out: &mut Vec<Copied>) {
        let first = out.len();
        let mut put = |range, encoding, chunk: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(chunk);
            out.push(Copied { range, encoding, start, end: bytes.len() });
        };
        for c in self.readable().filter(|c| c.range.overlaps(&range)) {
            put(c.range, c.encoding, c.bytes);
        }
        if let Some(open) = self.open_range().filter(|open| open.overlaps(&range)) {
            put(open, Encoding::Xor, self.open_bytes(&mut [0; OPEN_MOST]));
        }
        let buffer = self.out_of_order();
        let start = buffer.partition_point(|s| s.timestamp < range.start);
        let end = buffer.partition_point(|s| s.timestamp <= range.end);
        if let Some(chunk) = encode(&buffer[start.min(end)..end]) {
            put(chunk.range, chunk.encoding, &chunk.bytes);
        }
        if let Some(rare) = &self.cold.rare {
            rare.natives.chunks(range, put);
        }
        out[first..].sort_by_key(|c| (c.range.start, c.range.end));
    }

    fn measure(&self) -> Measure {
        let bytes = size_of::<Hot>() + size_of::<Cold>();
        let mut m = Measure { bytes, ..Measure::default() };
        for chunk in self.chain() {
            m.bytes += self.sealed.get(chunk.name).len();
            if chunk.tag != REMEMBERED {
                m.chunks += 1;
                m.samples += u64::from(xor::count(chunk.bytes).unwrap_or(0));
                m.range = m.range.cover(&chunk.range);
            }
        }
        if let Some(open) = self.open_range() {
            m.chunks += 1;
            m.samples += u64::from(self.hot.appender.count());
            m.bytes += usize::from(self.hot.pieces) * PIECE;
            m.range = m.range.cover(&open);
        }
        if let Some(rare) = &self.cold.rare {
            let buffer = &rare.out_of_order;
            m.samples += buffer.len() as u64;
            m.bytes += buffer.capacity() * size_of::<Sample>() + size_of::<Rare>();
            if let (Some(first), Some(last)) = (buffer.first(), buffer.last()) {
                m.range = m.range.cover(&TimeRange::new(first.timestamp, last.timestamp));
            }
            let (chunks, samples, range, bytes) = rare.natives.measure();
            m.chunks += chunks;
            m.samples += samples;
            m.bytes += bytes;
            m.range = m.range.cover(&range);
        }
        m
    }
}

fn open_range(hot: &Hot) -> Option<TimeRange> {
    (hot.appender.count() > 0).then(|| TimeRange::new(hot.newest - i64::from(hot.span), hot.newest))
}

/// Gives the open chunk the end that it has once a sample at `t` comes, if it goes on until then.
#[cold]
fn lengthen(hot: &mut Hot, t: Timestamp, block_range: i64) {
    let Some(open) = open_range(hot) else { return };
    if let Some(end) = cut::end(open.start, hot.appender.count().into(), t, block_range) {
        hot.left = u32::try_from(end.saturating_sub(open.end)).unwrap_or(u32::MAX);
    }
}

impl SeriesMut<'_> {
    fn view(&self) -> Series<'_> {
        Series { hot: self.hot, cold: self.cold, open: self.open, sealed: self.sealed }
    }

    /// Judges a sample and takes it if it may be taken.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        sample: Sample,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Verdict {
        if sample.timestamp <= self.hot.newest {
            if let Some(refusal) = bounds.ahead(sample.timestamp, judged_at) {
                return Verdict::Refused(refusal);
            }
            // What is there already is a success however old it is.
            if let Some(bits) = self.view().value_at(sample.timestamp) {
                return match bits == sample.value.to_bits() {
                    true => Verdict::Duplicate,
                    false => Verdict::Refused(Refusal::Conflict),
                };
            }
            if let Some(found) = self.view().native_at(sample.timestamp) {
                return one_or_the_other(found.is_stale() && is_stale(sample.value));
            }
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        if let Err(refusal) = bounds.judge(sample.timestamp, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        self.take(sample, block_range);
        Verdict::Stored
    }

    /// As [`SeriesMut::offer`], for a histogram that has passed its check.
    pub(crate) fn offer_native(
        &mut self,
        t: Timestamp,
        histogram: &Native,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Verdict {
        if t <= self.hot.newest {
            if let Some(refusal) = bounds.ahead(t, judged_at) {
                return Verdict::Refused(refusal);
            }
            if let Some(found) = self.view().native_at(t) {
                return one_or_the_other(found.is_same(histogram));
            }
            if let Some(bits) = self.view().value_at(t) {
                return one_or_the_other(histogram.is_stale() && is_stale(f64::from_bits(bits)));
            }
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        if let Err(refusal) = bounds.judge(t, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        match self.take_native(Row { timestamp: t, histogram: histogram.clone() }, block_range) {
            true => Verdict::Stored,
            false => Verdict::Refused(Refusal::InvalidHistogram),
        }
    }

    /// Takes a histogram whose time is not there yet. False where it is none.
    pub(crate) fn take_native(&mut self, row: Row, block_range: i64) -> bool {
        let t = row.timestamp;
        let in_order = t > self.hot.newest;
        if in_order {
            // Chunks of one series do not overlap unless samples came late.
            self.seal(0);
        }
        let mut rare = self.cold.rare.take().unwrap_or_default();
        let (cold, slab) = (&mut *self.cold, &mut *self.sealed);
        let mut sealed = |c: ChunkData| push_sealed(cold, slab, c.range, c.encoding, 0, &c.bytes);
        let taken = match in_order {
            true => rare.natives.take(&row, block_range, &mut sealed),
            false => {
                rare.natives.take_out_of_order(row, block_range, &mut sealed);
                true
            }
        };
        if in_order && taken {
            self.hot.newest = t;
        }
        self.cold.rare = Some(rare);
        self.tidy_rare();
        taken
    }

    /// Notes that counting began anew at `start`, by a sample of zero there, if the sample at `t` that says so will
    /// be taken and nothing as new is there, or was before the series was forgotten. Gives whether it did.
    pub(crate) fn start(
        &mut self,
        start: Timestamp,
        t: Timestamp,
        histogram: Option<&Native>,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Option<Option<Native>> {
        if start == 0 || start >= t || start <= self.hot.newest || histogram.is_some_and(Native::is_stale) {
            return None;
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        let judged = bounds.judge(start, judged_at, newest).and(bounds.judge(t, judged_at, newest));
        if judged.is_err() || !bounds.is_known_since(start, judged_at) {
            return None;
        }
        match histogram {
            None => {
                self.take(Sample { timestamp: start, value: 0.0 }, block_range);
                Some(None)
            }
            Some(histogram) => {
                let zero = histogram.zeroed();
                let row = Row { timestamp: start, histogram: zero.clone() };
                self.take_native(row, block_range).then_some(Some(zero))
            }
        }
    }

    /// Takes a sample whose time is not there yet.
    #[inline]
    pub(crate) fn take(&mut self, sample: Sample, block_range: i64) {
        let t = sample.timestamp;
        if t <= self.hot.newest {
            self.take_out_of_order(sample, block_range);
            return;
        }
        let hot = &mut *self.hot;
        let count = u16::from(hot.appender.count());
        let step = t.wrapping_sub(hot.newest) as u64;
        let is_over = |left: u32| count == 0 || count >= cut::MOST || step >= u64::from(left);
        if is_over(hot.left) {
            lengthen(hot, t, block_range);
            if is_over(hot.left) {
                self.begin(sample, block_range);
                return;
            }
        }
        let mut appender = hot.appender.unpack(hot.newest);
        let tail = usize::from(hot.tail);
        let bytes = self.open.get_mut(hot.open).get_mut(LINK..).unwrap_or_default();
        match appender.push_tail(bytes, tail, sample) {
            Ok(longer) => hot.tail = longer as u8,
            Err(_) => {
                let aside = appender.push_aside(bytes.get(tail - 1).copied().unwrap_or(0), sample);
                let (here, rest) = aside.bytes().split_at((PIECE_BYTES + 1 - tail).min(aside.bytes().len()));
                if let Some(place) = bytes.get_mut(tail - 1..tail - 1 + here.len()) {
                    place.copy_from_slice(here);
                }
                let name = self.open.alloc(PIECE);
                let piece = self.open.get_mut(name);
                piece[..LINK].copy_from_slice(&hot.open.to_le_bytes());
                piece[LINK..LINK + rest.len()].copy_from_slice(rest);
                (hot.open, hot.tail) = (name, rest.len() as u8);
                hot.pieces += 1;
            }
        }
        // It packs: there are 240 samples at most, less than 2^32 ms apart.
        hot.appender = appender.pack().unwrap_or_default();
        hot.newest = t;
        hot.span += step as u32;
        hot.left -= step as u32;
    }

    /// Seals the open chunk and begins another with a sample that is newer than all.
    #[cold]
    fn begin(&mut self, sample: Sample, block_range: i64) {
        let t = sample.timestamp;
        if let Some(rare) = &mut self.cold.rare {
            // What ends a series of histograms is one of them, as Prometheus has it.
            if is_stale(sample.value)
                && let Some(histogram) = rare.natives.stale_marker()
            {
                self.take_native(Row { timestamp: t, histogram }, block_range);
                return;
            }
            self.seal_natives(|natives, sealed| natives.seal(&mut |c| sealed(c)), 0);
        }
        self.seal(0);
        let hot = &mut *self.hot;
        hot.open = self.open.alloc(PIECE);
        let mut appender = xor::Appender::default();
        // A first sample fits and its state packs.
        let bytes = self.open.get_mut(hot.open).get_mut(LINK..).unwrap_or_default();
        hot.tail = appender.push_tail(bytes, 0, sample).unwrap_or(0) as u8;
        hot.pieces = 1;
        hot.appender = appender.pack().unwrap_or_default();
        hot.newest = t;
        hot.span = 0;
        hot.left = 0;
    }

    fn take_out_of_order(&mut self, sample: Sample, block_range: i64) {
        let rare = self.cold.rare.get_or_insert_default();
        let buffer = &mut rare.out_of_order;
        let at = buffer.partition_point(|s| s.timestamp < sample.timestamp);
        buffer.insert(at, sample);
        if buffer.len() >= OUT_OF_ORDER_SAMPLES {
            let all = std::mem::take(buffer);
            self.tidy_rare();
            self.seal_out_of_order(&all, block_range, 0);
        }
    }

    /// Has the histograms seal some chunks, which get the tag.
    fn seal_natives(&mut self, which: impl FnOnce(&mut Natives, &mut dyn FnMut(ChunkData)), tag: u32) {
        let Some(mut rare) = self.cold.rare.take() else { return };
        let (cold, slab) = (&mut *self.cold, &mut *self.sealed);
        which(&mut rare.natives, &mut |c| push_sealed(cold, slab, c.range, c.encoding, tag, &c.bytes));
        self.cold.rare = Some(rare);
        self.tidy_rare();
    }

    fn tidy_rare(&mut self) {
        if self.cold.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.cold.rare = None;
        }
    }

    /// Takes out all samples in `range`, also remembered ones; whether there were any.
    pub(crate) fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        if open_range(self.hot).is_some_and(|open| open.overlaps(&range)) {
            self.seal(0);
        }
        let mut any = false;
        if let Some(rare) = &mut self.cold.rare {
            let before = rare.out_of_order.len();
            rare.out_of_order.retain(|s| !range.contains(s.timestamp));
            any = rare.out_of_order.len() < before;
            any |= rare.natives.delete(range);
        }
        // What is left of the open chunk is found among the sealed ones.
        self.seal_natives(
            |natives, sealed| {
                if natives.overlaps(range) {
                    natives.seal(&mut |c| sealed(c));
                }
            },
            0,
        );
        self.tidy_rare();
        let in_part = |c: &Sealed<'_>| c.range.overlaps(&range);
        let touched: Vec<(ChunkData, u32)> = self
            .view()
            .chain()
            .filter(in_part)
            .map(|c| (c.data(Bytes::copy_from_slice(c.bytes)), c.tag))
            .collect();
        let mut rest = Vec::with_capacity(touched.len());
        for (chunk, tag) in &touched {
            // One that does not decode goes whole only if all of it is to go.
            let whole = range.start <= chunk.range.start && chunk.range.end <= range.end;
            if !whole {
                let left = block::without(chunk, &[range]).map_err(from_block)?;
                rest.extend(left.into_iter().map(|chunk| (chunk, *tag)));
            }
        }
        self.retain_sealed(|c| !in_part(c));
        for (chunk, tag) in rest {
            push_sealed(self.cold, self.sealed, chunk.range, chunk.encoding, tag, &chunk.bytes);
        }
        Ok(any || !touched.is_empty())
    }

    /// Seals the open chunk, if it holds anything.
    fn seal(&mut self, tag: u32) {
        let Some(range) = open_range(self.hot) else { return };
        let mut room = [0; OPEN_MOST];
        let chunk = self.view().open_bytes(&mut room);
        push_sealed(self.cold, self.sealed, range, Encoding::Xor, tag, chunk);
        self.free_open();
    }

    fn free_open(&mut self) {
        if self.hot.appender.count() > 0 {
            for _ in 0..self.hot.pieces {
                let link = self.open.get(self.hot.open).first_chunk::<LINK>().copied().unwrap_or_default();
                self.open.free(self.hot.open);
                self.hot.open = u32::from_le_bytes(link);
            }
        }
        self.hot.appender = xor::Packed::default();
    }

    /// Makes chunks of sorted samples, none across a window's edge.
    fn seal_out_of_order(&mut self, samples: &[Sample], block_range: i64, tag: u32) {
        for chunk in cut::split(samples, block_range).filter_map(encode) {
            push_sealed(self.cold, self.sealed, chunk.range, chunk.encoding, tag, &chunk.bytes);
        }
    }

    /// Seals all samples of `window` and marks them with `tag`, taking over those of other marks; later samples
    /// go into new chunks.
    pub(crate) fn freeze(&mut self, window: TimeRange, block_range: i64, tag: u32) -> bool {
        if open_range(self.hot).is_some_and(|open| window.contains(open.start)) {
            self.seal(tag);
        }
        if let Some(rare) = &mut self.cold.rare {
            let buffer = &mut rare.out_of_order;
            let start = buffer.partition_point(|s| s.timestamp < window.start);
            let end = buffer.partition_point(|s| s.timestamp <= window.end);
            let taken: Vec<Sample> = buffer.drain(start..end).collect();
            self.seal_out_of_order(&taken, block_range, tag);
            self.seal_natives(
                |natives, sealed| natives.seal_window(window, block_range, &mut |c| sealed(c)),
                tag,
            );
        }
        self.mark(tag, |c| c.tag != REMEMBERED && window.contains(c.range.start))
    }

    /// Gives chunks another tag; whether there were any.
    fn mark(&mut self, tag: u32, which: impl Fn(&Sealed<'_>) -> bool) -> bool {
        let (mut next, mut any) = (self.cold.sealed, false);
        while let Some(chunk) = Sealed::read(self.sealed, next) {
            next = chunk.next;
            if which(&chunk) {
                let name = chunk.name;
                self.sealed.get_mut(name)[TAG_AT..HEADER].copy_from_slice(&tag.to_le_bytes());
                any = true;
            }
        }
        any
    }

    /// Drops all chunks that are not to be kept.
    fn retain_sealed(&mut self, keep: impl Fn(&Sealed<'_>) -> bool) {
        let (mut next, mut before) = (self.cold.sealed, NO_CHUNK);
        while let Some(chunk) = Sealed::read(self.sealed, next) {
            next = chunk.next;
            let name = chunk.name;
            if keep(&chunk) {
                before = name;
                continue;
            }
            match before {
                NO_CHUNK => self.cold.sealed = next,
                before => self.sealed.get_mut(before)[..4].copy_from_slice(&next.to_le_bytes()),
            }
            self.sealed.free(name);
        }
    }

    /// Forgets a freeze: its chunks are ordinary ones again.
    pub(crate) fn thaw(&mut self, tag: u32) {
        self.mark(0, |c| c.tag == tag);
    }

    /// Drops the chunks of a freeze; with `remember` their values are still known, until
    /// [`SeriesMut::forget_cut`].
    pub(crate) fn drop_frozen(&mut self, tag: u32, remember: bool) {
        match remember {
            true => {
                self.mark(REMEMBERED, |c| c.tag == tag);
            }
            false => self.retain_sealed(|c| c.tag != tag),
        }
    }

    /// Forgets the values of cut samples before `edge`, the start of a window.
    pub(crate) fn forget_cut(&mut self, edge: Timestamp) {
        self.retain_sealed(|c| c.tag != REMEMBERED || c.range.start >= edge);
    }

    /// Notes that its newest sample, in no chunk here, is no older than `newest`.
    pub(crate) fn raise_newest(&mut self, newest: Timestamp) {
        if newest > self.hot.newest {
            // The open chunk's last time is its newest: what comes next begins another.
            self.seal(0);
            self.hot.newest = newest;
        }
    }
}

fn push_sealed(
    cold: &mut Cold,
    slab: &mut Slab,
    range: TimeRange,
    encoding: Encoding,
    tag: u32,
    bytes: &[u8],
) {
    let name = slab.alloc(HEADER + bytes.len());
    let piece = slab.get_mut(name);
    let len = bytes.len() as u32 & 0xff_ffff;
    piece[..4].copy_from_slice(&cold.sealed.to_le_bytes());
    piece[4..8].copy_from_slice(&(len | u32::from(encoding as u8) << 24).to_le_bytes());
    piece[8..16].copy_from_slice(&range.start.to_le_bytes());
    let span = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
    piece[16..TAG_AT].copy_from_slice(&span.to_le_bytes());
    piece[TAG_AT..HEADER].copy_from_slice(&tag.to_le_bytes());
    piece[HEADER..HEADER + bytes.len()].copy_from_slice(bytes);
    cold.sealed = name;
}

/// Sealed chunks, the one that was sealed last first.
struct Chain<'a> {
    slab: &'a Slab,
    next: u32,
}

impl<'a> Iterator for Chain<'a> {
    type Item = Sealed<'a>;

    fn next(&mut self) -> Option<Sealed<'a>> {
        let chunk = Sealed::read(self.slab, self.next)?;
        self.next = chunk.next;
        Some(chunk)
    }
}

impl<'a> Sealed<'a> {
    fn read(slab: &'a Slab, name: u32) -> Option<Sealed<'a>> {
        if name == NO_CHUNK {
            return None;
        }
        let piece = slab.get(name);
        let u32_at = |at: usize| piece.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        let start = piece.get(8..16)?.first_chunk::<8>().map(|b| i64::from_le_bytes(*b))?;
        let head = u32_at(4)?;
        Some(Sealed {
            name,
            next: u32_at(0)?,
            range: TimeRange::new(start, start + i64::from(u32_at(16)?)),
            encoding: Encoding::from_byte((head >> 24) as u8)?,
            tag: u32_at(TAG_AT)?,
            bytes: piece.get(HEADER..HEADER + (head & 0xff_ffff) as usize)?,
        })
    }

    fn data(&self, bytes: Bytes) -> ChunkData {
        ChunkData { range: self.range, encoding: self.encoding, bytes }
    }
}

/// A chunk whose bytes were copied into a buffer with others'.
pub(crate) struct Copied {
    pub range: TimeRange,
    pub encoding: Encoding,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub chunks: u64,
    pub samples: u64,
    pub range: TimeRange,
    pub bytes: usize,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure { chunks: 0, samples: 0, range: TimeRange::EMPTY, bytes: 0 }
    }
}

/// The verdict on a sample where there is one already.
fn one_or_the_other(same: bool) -> Verdict {
    if same { Verdict::Duplicate } else { Verdict::Refused(Refusal::Conflict) }
}

/// A chunk of sorted samples; none of none.
pub(crate) fn encode(samples: &[Sample]) -> Option<ChunkData> {
    let (first, last) = (samples.first()?, samples.last()?);
    let bytes = xor::encode(samples.iter().copied()).ok()?;
    let range = TimeRange::new(first.timestamp, last.timestamp);
    Some(ChunkData { range, encoding: Encoding::Xor, bytes: bytes.into() })
}

fn find(chunk: &[u8], t: Timestamp) -> Option<u64> {
    let mut samples = xor::Iter::new(chunk).ok()?.map_while(Result::ok);
    samples.find(|s| s.timestamp >= t).filter(|s| s.timestamp == t).map(|s| s.value.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: i64 = 7_200_000;
    const BOUNDS: Bounds =
        Bounds { out_of_order_window: RANGE, future_tolerance: 600_000, max_sample_age: 24 * RANGE };

    struct One(Store);

    fn series() -> One {
        let mut store = Store::default();
        let list = store.lists().alloc(4);
        store.insert(0, 0, 1, list);
        One(store)
    }

    impl One {
        fn offer(&mut self, sample: Sample, judged_at: i64, bounds: &Bounds, range: i64) -> Verdict {
            self.0.get_mut(0).unwrap().offer(sample, judged_at, bounds, range)
        }
    }

    fn s(timestamp: i64, value: f64) -> Sample {
        Sample { timestamp, value }
    }

    #[test]
    fn chunks_end_at_the_edge_and_at_parts_of_the_window() {
        let mut series = series();
        for i in 0..300 {
            let sample = s(RANGE - 150 * 1000 + i * 1000, i as f64);
            assert_eq!(series.offer(sample, RANGE, &BOUNDS, RANGE), Verdict::Stored);
        }
        let (mut chunks, mut bytes) = (Vec::new(), Vec::new());
        series.0.get(0).unwrap().chunks(TimeRange::ALL, &mut bytes, &mut chunks);
        let counts: Vec<u16> = chunks.iter().map(|c| xor::count(&bytes[c.start..c.end]).unwrap()).collect();
        assert_eq!(counts, [30, 120, 120, 30]);
        assert_eq!(chunks[2].range.start, RANGE);
    }

    #[test]
    fn the_same_again_is_a_duplicate_wherever_it_lies_and_another_value_a_conflict() {
        let mut series = series();
        let now = 100 * RANGE;
        // In order every other second, then out of order in between, enough to make chunks of them.
        for i in 0..600 {
            assert_eq!(series.offer(s(now + i * 2, i as f64), now, &BOUNDS, RANGE), Verdict::Stored);
        }
        for i in (0..500).rev() {
            assert_eq!(series.offer(s(now + i * 2 + 1, -1.0), now, &BOUNDS, RANGE), Verdict::Stored);
        }
        let much_later = now + 20 * RANGE;
        for i in 0..600 {
            let again = s(now + i * 2, i as f64);
            assert_eq!(series.offer(again, much_later, &BOUNDS, RANGE), Verdict::Duplicate, "{i}");
            let other = s(now + i * 2, 0.5);
            assert_eq!(series.offer(other, now, &BOUNDS, RANGE), Verdict::Refused(Refusal::Conflict), "{i}");
        }
        for i in 0..500 {
            assert_eq!(series.offer(s(now + i * 2 + 1, -1.0), now, &BOUNDS, RANGE), Verdict::Duplicate);
        }
        let stale = s(now + 5000, model::stale_nan());
        assert_eq!(series.offer(stale, now, &BOUNDS, RANGE), Verdict::Stored);
        assert_eq!(series.offer(stale, now, &BOUNDS, RANGE), Verdict::Duplicate);
        let nan = s(now + 5000, f64::NAN);
        assert_eq!(series.offer(nan, now, &BOUNDS, RANGE), Verdict::Refused(Refusal::Conflict));
    }
}
