//! One series: its labels once, the chunk that grows, sealed chunks, and samples that came out of order.
//!
//! # Cost
//! A sample in order writes one to three bit fields. One that is not newer than the newest looks for its time:
//! in the chunks that cover it, decoded, and in the out-of-order buffer.

use bytes::Bytes;
use chunk::Encoding;
use chunk::xor;
use model::{Labels, Sample, TimeRange, Timestamp};
use storage::{ChunkData, Refusal, Verdict};

use super::judge::Bounds;

/// Most samples of a chunk.
pub(crate) const CHUNK_SAMPLES: u16 = 120;
/// Out-of-order samples that are kept as such before they become chunks.
const OUT_OF_ORDER_SAMPLES: usize = 240;
/// Room made in a chunk at once; one sample takes less than a third of it.
const CHUNK_GROWTH: usize = 64;

/// A series of the head.
pub(crate) struct Series {
    pub labels: Labels,
    /// Index of the tenant in this process.
    pub tenant: u32,
    /// [`Labels::placement_hash`].
    pub hash: u64,
    /// Its number in the log, unique in the shard for the log's life.
    pub id: u64,
    /// Newest time ever taken, cut or not; none before the first sample.
    pub newest: Timestamp,
    appender: xor::Appender,
    open: Vec<u8>,
    open_start: Timestamp,
    /// First time that the open chunk must not hold.
    open_edge: Timestamp,
    sealed: Vec<Sealed>,
    /// Sorted by time, each time once. Boxed: most series have none, and 16 bytes a series count.
    #[allow(clippy::box_collection)]
    out_of_order: Option<Box<Vec<Sample>>>,
    /// What was cut while its times could still be written: asked for values, so that an acknowledged one stays,
    /// and never read otherwise, since a block has it. Boxed as above.
    #[allow(clippy::box_collection)]
    cut: Option<Box<Vec<Sealed>>>,
}

/// A chunk that takes no more samples.
struct Sealed {
    range: TimeRange,
    bytes: Bytes,
    /// The freeze that this chunk belongs to; 0 for none.
    tag: u32,
}

/// No sample yet.
pub(crate) const NEVER: Timestamp = i64::MIN;

impl Series {
    pub(crate) fn new(labels: Labels, tenant: u32, hash: u64, id: u64) -> Series {
        Series {
            labels,
            tenant,
            hash,
            id,
            newest: NEVER,
            appender: xor::Appender::default(),
            open: Vec::new(),
            open_start: 0,
            open_edge: NEVER,
            sealed: Vec::new(),
            out_of_order: None,
            cut: None,
        }
    }

    /// Reads a little of everything that a sample needs. Done for several series before any of them takes one,
    /// this lets their cache misses overlap instead of following one another; the result is of no use.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        let last = self.open.last().copied().unwrap_or(0);
        self.newest as u64 ^ u64::from(self.appender.count()) ^ u64::from(last)
    }

    /// As [`Series::touch`], for those who compare labels first.
    #[inline]
    pub(crate) fn touch_labels(&self) -> u64 {
        self.labels.as_bytes().iter().step_by(64).fold(self.hash, |sum, byte| sum ^ u64::from(*byte))
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
        if sample.timestamp <= self.newest {
            if let Some(refusal) = bounds.ahead(sample.timestamp, judged_at) {
                return Verdict::Refused(refusal);
            }
            // What is there already is a success however old it is.
            if let Some(bits) = self.value_at(sample.timestamp) {
                return match bits == sample.value.to_bits() {
                    true => Verdict::Duplicate,
                    false => Verdict::Refused(Refusal::Conflict),
                };
            }
        }
        let newest = (self.newest != NEVER).then_some(self.newest);
        if let Err(refusal) = bounds.judge(sample.timestamp, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        self.take(sample, block_range);
        Verdict::Stored
    }

    /// Takes a sample whose time is not there yet.
    pub(crate) fn take(&mut self, sample: Sample, block_range: i64) {
        let t = sample.timestamp;
        if t <= self.newest {
            self.take_out_of_order(sample, block_range);
            return;
        }
        self.newest = t;
        if self.appender.count() >= CHUNK_SAMPLES || t >= self.open_edge {
            self.seal(0);
            self.open_edge = window_start(t, block_range) + block_range;
        }
        if self.appender.count() == 0 {
            self.open_start = t;
        }
        if self.open.capacity() - self.open.len() < CHUNK_GROWTH / 2 {
            self.open.reserve_exact(CHUNK_GROWTH);
        }
        if self.appender.push(&mut self.open, sample).is_err() {
            // Only a full chunk refuses, and chunks are sealed long before.
            self.seal(0);
        }
    }

    fn take_out_of_order(&mut self, sample: Sample, block_range: i64) {
        let buffer = self.out_of_order.get_or_insert_default();
        let at = buffer.partition_point(|s| s.timestamp < sample.timestamp);
        buffer.insert(at, sample);
        if buffer.len() >= OUT_OF_ORDER_SAMPLES {
            let all = std::mem::take(&mut **buffer);
            self.out_of_order = None;
            self.seal_out_of_order(&all, block_range, 0);
        }
    }

    /// Bits of the value at `t`, wherever it lies.
    fn value_at(&self, t: Timestamp) -> Option<u64> {
        if self.appender.count() > 0 && t >= self.open_start {
            let last = self.appender.last_timestamp();
            if t == last {
                return Some(self.appender.last_value().to_bits());
            }
            if t < last
                && let Some(bits) = find(&self.open, t)
            {
                return Some(bits);
            }
        }
        if let Some(buffer) = &self.out_of_order
            && let Ok(at) = buffer.binary_search_by_key(&t, |s| s.timestamp)
        {
            return Some(buffer[at].value.to_bits());
        }
        let cut = self.cut.iter().flat_map(|cut| cut.iter());
        let mut chunks = self.sealed.iter().chain(cut).rev().filter(|c| c.range.contains(t));
        chunks.find_map(|c| find(&c.bytes, t))
    }

    /// Seals the open chunk, if it holds anything.
    fn seal(&mut self, tag: u32) {
        if self.appender.count() > 0 {
            let range = TimeRange::new(self.open_start, self.appender.last_timestamp());
            // Gives back what was not used: sealed chunks are most of the memory.
            let bytes = std::mem::take(&mut self.open).into_boxed_slice().into();
            self.sealed.reserve_exact(1);
            self.sealed.push(Sealed { range, bytes, tag });
            self.appender = xor::Appender::default();
        }
    }

    /// Makes chunks of sorted samples, none across a window's edge.
    fn seal_out_of_order(&mut self, samples: &[Sample], block_range: i64, tag: u32) {
        let window = |s: &Sample| window_start(s.timestamp, block_range);
        for in_window in samples.chunk_by(|a, b| window(a) == window(b)) {
            for part in in_window.chunks(usize::from(CHUNK_SAMPLES)) {
                if let Some(chunk) = encode(part) {
                    self.sealed.push(Sealed { range: chunk.range, bytes: chunk.bytes, tag });
                }
            }
        }
    }

    /// Seals all samples of `window` and marks them with `tag`, taking over those of other marks; later samples
    /// go into new chunks.
    pub(crate) fn freeze(&mut self, window: TimeRange, block_range: i64, tag: u32) -> bool {
        if self.appender.count() > 0 && window.contains(self.open_start) {
            self.seal(tag);
        }
        if let Some(buffer) = &mut self.out_of_order {
            let start = buffer.partition_point(|s| s.timestamp < window.start);
            let end = buffer.partition_point(|s| s.timestamp <= window.end);
            let taken: Vec<Sample> = buffer.drain(start..end).collect();
            if buffer.is_empty() {
                self.out_of_order = None;
            }
            self.seal_out_of_order(&taken, block_range, tag);
        }
        let mut any = false;
        for chunk in &mut self.sealed {
            if window.contains(chunk.range.start) {
                chunk.tag = tag;
                any = true;
            }
        }
        any
    }

    /// The chunks of a freeze, by time.
    pub(crate) fn frozen(&self, tag: u32) -> Vec<ChunkData> {
        let mut chunks: Vec<ChunkData> =
            self.sealed.iter().filter(|c| c.tag == tag).map(Sealed::data).collect();
        chunks.sort_by_key(|c| (c.range.start, c.range.end));
        chunks
    }

    /// Forgets a freeze: its chunks are ordinary ones again.
    pub(crate) fn thaw(&mut self, tag: u32) {
        for chunk in &mut self.sealed {
            if chunk.tag == tag {
                chunk.tag = 0;
            }
        }
    }

    /// Drops the chunks of a freeze; with `remember` their values are still known, until
    /// [`Series::forget_cut`].
    pub(crate) fn drop_frozen(&mut self, tag: u32, remember: bool) {
        let dropped = self.sealed.extract_if(.., |c| c.tag == tag);
        match remember {
            true => {
                let dropped: Vec<Sealed> = dropped.collect();
                if !dropped.is_empty() {
                    self.cut.get_or_insert_default().extend(dropped);
                }
            }
            false => dropped.for_each(drop),
        }
        self.sealed.shrink_to_fit();
    }

    /// Forgets the values of cut samples before `edge`, the start of a window.
    pub(crate) fn forget_cut(&mut self, edge: Timestamp) {
        if let Some(cut) = &mut self.cut {
            cut.retain(|c| c.range.start >= edge);
            match cut.is_empty() {
                true => self.cut = None,
                false => cut.shrink_to_fit(),
            }
        }
    }

    /// Whether it holds no samples, nor knows of any by [`Series::drop_frozen`].
    pub(crate) fn is_empty(&self) -> bool {
        self.appender.count() == 0
            && self.sealed.is_empty()
            && self.out_of_order.is_none()
            && self.cut.is_none()
    }

    /// Whether any sample may lie in `range`.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        let open = TimeRange::new(self.open_start, self.appender.last_timestamp());
        (self.appender.count() > 0 && open.overlaps(&range))
            || self.sealed.iter().any(|c| c.range.overlaps(&range))
            || self.out_of_order.as_ref().is_some_and(|b| b.iter().any(|s| range.contains(s.timestamp)))
    }

    /// All chunks that overlap `range`, as they are now.
    pub(crate) fn chunks(&self, range: TimeRange, out: &mut Vec<ChunkData>) {
        out.extend(self.sealed.iter().filter(|c| c.range.overlaps(&range)).map(Sealed::data));
        if self.appender.count() > 0 {
            let open = TimeRange::new(self.open_start, self.appender.last_timestamp());
            if open.overlaps(&range) {
                let bytes = Bytes::copy_from_slice(&self.open);
                out.push(ChunkData { range: open, encoding: Encoding::Xor, bytes });
            }
        }
        if let Some(buffer) = &self.out_of_order {
            let start = buffer.partition_point(|s| s.timestamp < range.start);
            let end = buffer.partition_point(|s| s.timestamp <= range.end);
            out.extend(encode(&buffer[start.min(end)..end]));
        }
        out.sort_by_key(|c| (c.range.start, c.range.end));
    }

    /// Chunks, samples (of chunks: from their heads), time range and estimated bytes.
    pub(crate) fn measure(&self) -> Measure {
        let mut m = Measure { range: TimeRange::EMPTY, ..Measure::default() };
        m.bytes = size_of::<Series>() + self.labels.as_bytes().len() + 16 + self.open.capacity();
        m.bytes += self.sealed.capacity() * size_of::<Sealed>();
        for chunk in &self.sealed {
            m.chunks += 1;
            m.samples += u64::from(xor::count(&chunk.bytes).unwrap_or(0));
            m.bytes += chunk.bytes.len();
            m.range = m.range.cover(&chunk.range);
        }
        if self.appender.count() > 0 {
            m.chunks += 1;
            m.samples += u64::from(self.appender.count());
            m.range = m.range.cover(&TimeRange::new(self.open_start, self.appender.last_timestamp()));
        }
        if let Some(buffer) = &self.out_of_order {
            m.samples += buffer.len() as u64;
            m.bytes += buffer.capacity() * size_of::<Sample>() + size_of::<Vec<Sample>>();
            if let (Some(first), Some(last)) = (buffer.first(), buffer.last()) {
                m.range = m.range.cover(&TimeRange::new(first.timestamp, last.timestamp));
            }
        }
        if let Some(cut) = &self.cut {
            m.bytes += cut.capacity() * size_of::<Sealed>() + size_of::<Vec<Sealed>>();
            m.bytes += cut.iter().map(|c| c.bytes.len()).sum::<usize>();
        }
        m
    }
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

impl Sealed {
    fn data(&self) -> ChunkData {
        ChunkData { range: self.range, encoding: Encoding::Xor, bytes: self.bytes.clone() }
    }
}

/// Start of the window that holds `t`.
pub(crate) fn window_start(t: Timestamp, block_range: i64) -> Timestamp {
    t - t.rem_euclid(block_range)
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

    fn series() -> Series {
        Series::new(Labels::empty(), 0, 0, 1)
    }

    fn s(timestamp: i64, value: f64) -> Sample {
        Sample { timestamp, value }
    }

    #[test]
    fn chunks_end_at_the_edge_and_at_120_samples() {
        let mut series = series();
        for i in 0..300 {
            let sample = s(RANGE - 150 * 1000 + i * 1000, i as f64);
            assert_eq!(series.offer(sample, RANGE, &BOUNDS, RANGE), Verdict::Stored);
        }
        let mut chunks = Vec::new();
        series.chunks(TimeRange::ALL, &mut chunks);
        let counts: Vec<u16> = chunks.iter().map(|c| xor::count(&c.bytes).unwrap()).collect();
        assert_eq!(counts, [120, 30, 120, 30]);
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
