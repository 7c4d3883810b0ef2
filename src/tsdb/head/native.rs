//! The native histograms of one series: the chunk that grows, and those that came out of order.
//!
//! Chunks that are full are handed to whoever keeps the series, as float chunks are kept; so is the question of what
//! is in order. A chunk ends where Prometheus ends it: at a counter reset, another schema, zero threshold or bounds,
//! between counters and gauges, between whole and float counts; beside that where `chunk::cut` says, as float chunks do, and
//! where it grows large. New buckets alone make it be written anew, wider.
//!
//! # Cost
//! Only series with histograms have one of these, in a box. A sample in order is one push into its chunk. The chunk is
//! decoded to find a time in it, which only samples that are not newer than the newest ask for.

use bytes::Bytes;
use chunk::cut::Cut;
use chunk::histogram::{At, FloatAppender, FloatIter, IntAppender, IntIter, Pushed, cut_floats, cut_ints};
use chunk::{ChunkData, Encoding};
use model::histogram::ResetHint;
use model::{Native, TimeRange, Timestamp};

/// Out-of-order histograms that are kept as such before they become chunks.
const OUT_OF_ORDER: usize = 120;
/// A chunk of so many bytes takes no more samples, once it has [`FEW`].
const LARGE: usize = 32 << 10;
const FEW: u16 = 10;
/// A chunk of so many bytes takes no more at all.
const HUGE: usize = 1 << 20;

/// A histogram and its time.
pub(crate) type Row = At<Native>;

/// The state of a series' histograms.
#[derive(Default)]
pub(crate) struct Natives {
    open: Option<Open>,
    /// Sorted by time, each time once.
    out_of_order: Vec<Row>,
}

struct Open {
    appender: Appender,
    bytes: Vec<u8>,
    start: Timestamp,
    cut: Cut,
}

enum Appender {
    Whole(IntAppender),
    Float(FloatAppender),
}

impl Appender {
    fn new(kind: &Native, header: ResetHint) -> Appender {
        match kind {
            Native::Whole(_) => Appender::Whole(IntAppender::new(header)),
            Native::Float(_) => Appender::Float(FloatAppender::new(header)),
        }
    }

    fn count(&self) -> u16 {
        match self {
            Appender::Whole(a) => a.count(),
            Appender::Float(a) => a.count(),
        }
    }

    fn last(&self) -> Timestamp {
        match self {
            Appender::Whole(a) => a.last_timestamp(),
            Appender::Float(a) => a.last_timestamp(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Appender::Whole(_) => Encoding::Histogram,
            Appender::Float(_) => Encoding::FloatHistogram,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Appender::Whole(a) => a.heap_bytes(),
            Appender::Float(a) => a.heap_bytes(),
        }
    }

    /// Header of the chunk that begins with `next`, after what is here.
    fn header_for_next(&self, next: &Native) -> ResetHint {
        match (self, next) {
            (Appender::Whole(a), Native::Whole(h)) => a.header_for_next(h),
            (Appender::Float(a), Native::Float(h)) => a.header_for_next(h),
            // Counts of another kind are not compared.
            _ => ResetHint::Unknown,
        }
    }

    /// None where the sample is of the other kind.
    fn push(&mut self, out: &mut Vec<u8>, t: Timestamp, h: &Native) -> Option<Result<Pushed, chunk::Error>> {
        match (self, h) {
            (Appender::Whole(a), Native::Whole(h)) => Some(a.push(out, t, h)),
            (Appender::Float(a), Native::Float(h)) => Some(a.push(out, t, h)),
            _ => None,
        }
    }
}

impl Open {
    fn range(&self) -> TimeRange {
        TimeRange::new(self.start, self.appender.last())
    }

    fn is_full(&self) -> bool {
        let (count, len) = (self.appender.count(), self.bytes.len());
        len >= HUGE || len >= LARGE && count >= FEW
    }

    fn data(self) -> ChunkData {
        ChunkData {
            range: self.range(),
            encoding: self.appender.encoding(),
            bytes: Bytes::from(self.bytes.into_boxed_slice()),
        }
    }
}

impl Natives {
    /// Takes a histogram that is newer than all of the series. False where it is none, which a check would have found.
    pub(crate) fn take(&mut self, row: &Row, block_range: i64, sealed: &mut impl FnMut(ChunkData)) -> bool {
        let (t, h) = (row.timestamp, &row.histogram);
        let mut header = ResetHint::Unknown;
        if let Some(open) = &mut self.open {
            let fits = !open.is_full() && open.cut.takes(t);
            match fits.then(|| open.appender.push(&mut open.bytes, t, h)).flatten() {
                Some(Ok(Pushed::Appended)) => return true,
                Some(Ok(Pushed::NewChunk(next))) => header = next,
                Some(Err(_)) => return false,
                None => header = open.appender.header_for_next(h),
            }
            self.seal(sealed);
        }
        let (mut appender, mut bytes) = (Appender::new(h, header), Vec::new());
        if !matches!(appender.push(&mut bytes, t, h), Some(Ok(Pushed::Appended))) {
            return false;
        }
        self.open = Some(Open { appender, bytes, start: t, cut: Cut::begin(t, block_range) });
        true
    }

    /// Takes a histogram whose time is not there yet, and not newer than all.
    pub(crate) fn take_out_of_order(
        &mut self,
        row: Row,
        block_range: i64,
        sealed: &mut impl FnMut(ChunkData),
    ) {
        let at = self.out_of_order.partition_point(|r| r.timestamp < row.timestamp);
        self.out_of_order.insert(at, row);
        let bytes = || self.out_of_order.iter().map(|row| row.histogram.bytes()).sum::<usize>();
        if self.out_of_order.len() >= OUT_OF_ORDER || bytes() >= HUGE {
            for chunk in chunks_of(std::mem::take(&mut self.out_of_order), block_range) {
                sealed(chunk);
            }
        }
    }

    /// Takes out what came out of order in `range`; whether there was any. The open chunk is left as it is.
    pub(crate) fn delete(&mut self, range: TimeRange) -> bool {
        let before = self.out_of_order.len();
        self.out_of_order.retain(|row| !range.contains(row.timestamp));
        self.out_of_order.len() < before
    }

    /// Seals the open chunk, if there is one.
    pub(crate) fn seal(&mut self, sealed: &mut impl FnMut(ChunkData)) {
        if let Some(open) = self.open.take() {
            sealed(open.data());
        }
    }

    /// Seals everything of a window.
    pub(crate) fn seal_window(
        &mut self,
        window: TimeRange,
        block_range: i64,
        sealed: &mut impl FnMut(ChunkData),
    ) {
        if self.open.as_ref().is_some_and(|open| window.contains(open.start)) {
            self.seal(sealed);
        }
        let start = self.out_of_order.partition_point(|r| r.timestamp < window.start);
        let end = self.out_of_order.partition_point(|r| r.timestamp <= window.end);
        let taken: Vec<Row> = self.out_of_order.drain(start..end).collect();
        self.out_of_order.shrink_to_fit();
        chunks_of(taken, block_range).into_iter().for_each(sealed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.out_of_order.is_empty()
    }

    /// The stale marker that ends the series, if its newest sample is a histogram.
    pub(crate) fn stale_marker(&self) -> Option<Native> {
        let kind = match &self.open.as_ref()?.appender {
            Appender::Whole(_) => Native::Whole(Default::default()),
            Appender::Float(_) => Native::Float(Default::default()),
        };
        Some(kind.stale())
    }

    /// The histogram at `t`, unless it lies in a sealed chunk.
    pub(crate) fn find(&self, t: Timestamp) -> Option<Native> {
        if let Some(open) = self.open.as_ref().filter(|open| open.range().contains(t))
            && let Some(found) = find(open.appender.encoding(), &open.bytes, t)
        {
            return Some(found);
        }
        let at = self.out_of_order.binary_search_by_key(&t, |r| r.timestamp).ok()?;
        Some(self.out_of_order[at].histogram.clone())
    }

    /// Shows `see` the times of histograms that are in no sealed chunk, those far from `t` as far as their ends.
    pub(crate) fn times(&self, t: Timestamp, see: &mut dyn FnMut(Timestamp)) {
        if let Some(open) = &self.open {
            times(open.appender.encoding(), &open.bytes, open.range(), t, see);
        }
        self.out_of_order.iter().for_each(|row| see(row.timestamp));
    }

    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        self.open.as_ref().is_some_and(|open| open.range().overlaps(&range))
            || self.out_of_order.iter().any(|r| range.contains(r.timestamp))
    }

    /// What is not sealed and overlaps `range`, as chunks.
    pub(crate) fn chunks(&self, range: TimeRange, mut put: impl FnMut(TimeRange, Encoding, &[u8])) {
        if let Some(open) = self.open.as_ref().filter(|open| open.range().overlaps(&range)) {
            put(open.range(), open.appender.encoding(), &open.bytes);
        }
        let start = self.out_of_order.partition_point(|r| r.timestamp < range.start);
        let end = self.out_of_order.partition_point(|r| r.timestamp <= range.end);
        if start < end {
            // Edges of windows do not matter to who reads.
            for chunk in chunks_of(self.out_of_order[start..end].to_vec(), i64::MAX) {
                put(chunk.range, chunk.encoding, &chunk.bytes);
            }
        }
    }

    /// Chunks, samples, their times and bytes of memory.
    pub(crate) fn measure(&self) -> (u64, u64, TimeRange, usize) {
        let mut range = TimeRange::EMPTY;
        let mut bytes = size_of::<Natives>();
        let mut samples = self.out_of_order.len() as u64;
        if let Some(open) = &self.open {
            range = range.cover(&open.range());
            samples += u64::from(open.appender.count());
            bytes += open.bytes.capacity() + open.appender.heap_bytes();
        }
        bytes += self.out_of_order.iter().map(|r| 8 + r.histogram.bytes()).sum::<usize>();
        if let (Some(first), Some(last)) = (self.out_of_order.first(), self.out_of_order.last()) {
            range = range.cover(&TimeRange::new(first.timestamp, last.timestamp));
        }
        (u64::from(self.open.is_some()), samples, range, bytes)
    }
}

/// Chunks of sorted histograms, none across a window's edge, each of one kind of counts, and none much larger than
/// [`HUGE`]: what a sealed chunk can hold is bounded.
fn chunks_of(rows: Vec<Row>, block_range: i64) -> Vec<ChunkData> {
    let mut out = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while let Some(first) = rows.peek() {
        let whole = matches!(first.histogram, Native::Whole(_));
        let mut bytes = 0;
        let mut next = || {
            let row = rows.next_if(|r| bytes < HUGE && matches!(r.histogram, Native::Whole(_)) == whole)?;
            bytes += row.histogram.bytes();
            Some(row)
        };
        // Histograms were checked when they were taken: they encode.
        let chunks = match whole {
            true => cut_ints(std::iter::from_fn(|| next().and_then(whole_of)), block_range),
            false => cut_floats(std::iter::from_fn(|| next().and_then(float_of)), block_range),
        };
        out.extend(chunks.unwrap_or_default());
    }
    out
}

fn whole_of(row: Row) -> Option<At<model::Histogram>> {
    match row.histogram {
        Native::Whole(histogram) => Some(At { timestamp: row.timestamp, histogram }),
        Native::Float(_) => None,
    }
}

fn float_of(row: Row) -> Option<At<model::FloatHistogram>> {
    match row.histogram {
        Native::Float(histogram) => Some(At { timestamp: row.timestamp, histogram }),
        Native::Whole(_) => None,
    }
}

/// Shows `see` the times of a chunk of histograms: all of them where it covers `t`, else its ends.
pub(crate) fn times(
    encoding: Encoding,
    chunk: &[u8],
    range: TimeRange,
    t: Timestamp,
    see: &mut dyn FnMut(Timestamp),
) {
    see(range.start);
    see(range.end);
    if !range.contains(t) {
        return;
    }
    match encoding {
        Encoding::Histogram => IntIter::new(chunk)
            .into_iter()
            .flat_map(|rows| rows.map_while(Result::ok))
            .for_each(|row| see(row.timestamp)),
        Encoding::FloatHistogram => FloatIter::new(chunk)
            .into_iter()
            .flat_map(|rows| rows.map_while(Result::ok))
            .for_each(|row| see(row.timestamp)),
        // Others are no histograms.
        _ => {}
    }
}

/// The histogram at `t` in a chunk of this encoding.
pub(crate) fn find(encoding: Encoding, chunk: &[u8], t: Timestamp) -> Option<Native> {
    match encoding {
        Encoding::Histogram => {
            let mut rows = IntIter::new(chunk).ok()?.map_while(Result::ok);
            rows.find(|r| r.timestamp >= t).filter(|r| r.timestamp == t).map(|r| Native::Whole(r.histogram))
        }
        Encoding::FloatHistogram => {
            let mut rows = FloatIter::new(chunk).ok()?.map_while(Result::ok);
            rows.find(|r| r.timestamp >= t).filter(|r| r.timestamp == t).map(|r| Native::Float(r.histogram))
        }
        // Others are no histograms, or nothing that the head makes.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use model::histogram::{CUSTOM_BUCKETS, FloatHistogram, Histogram, Span, differences};
    use proptest::prelude::*;

    use super::*;

    const RANGE: i64 = 7_200_000;

    pub(crate) fn whole(first: i32, counts: &[i64]) -> Native {
        let mut positive_deltas = counts.to_vec();
        differences(&mut positive_deltas);
        Native::Whole(Histogram {
            count: counts.iter().sum::<i64>() as u64,
            sum: counts.iter().sum::<i64>() as f64 / 2.0,
            positive_spans: vec![Span { offset: first, length: counts.len() as u32 }],
            positive_deltas,
            ..Histogram::default()
        })
    }

    fn with(mut h: Native, change: impl FnOnce(&mut Histogram)) -> Native {
        if let Native::Whole(h) = &mut h {
            change(h);
        }
        h
    }

    /// Takes rows in order, and gives sealed chunks and the open one.
    fn run(rows: impl IntoIterator<Item = (i64, Native)>) -> Vec<ChunkData> {
        let (mut natives, mut out) = (Natives::default(), Vec::new());
        for (timestamp, histogram) in rows {
            assert!(natives.take(&Row { timestamp, histogram }, RANGE, &mut |c| out.push(c)));
        }
        natives.seal(&mut |c| out.push(c));
        assert!(natives.is_empty());
        out
    }

    fn headers(chunks: &[ChunkData]) -> Vec<(i64, ResetHint)> {
        chunks.iter().map(|c| (c.start(), chunk::histogram::header(&c.bytes).unwrap())).collect()
    }

    fn read(chunks: &[ChunkData]) -> Vec<(i64, Native)> {
        let of = |c: &ChunkData| -> Vec<(i64, Native)> {
            let times: Vec<i64> = match c.encoding {
                Encoding::Histogram => {
                    IntIter::new(&c.bytes).unwrap().map(|r| r.unwrap().timestamp).collect()
                }
                _ => FloatIter::new(&c.bytes).unwrap().map(|r| r.unwrap().timestamp).collect(),
            };
            times.into_iter().map(|t| (t, find(c.encoding, &c.bytes, t).unwrap())).collect()
        };
        chunks.iter().flat_map(of).collect()
    }

    #[test]
    fn chunks_end_where_prometheus_ends_them() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let gauge = |h: Native| with(h, |h| h.hint = Gauge);
        let bounds = |bounds: &[f64]| {
            let custom_values = bounds.into();
            with(whole(0, &[1, 1]), |h| (h.schema, h.custom_values) = (CUSTOM_BUCKETS, custom_values))
        };
        let stale = whole(0, &[]).stale();
        let Native::Whole(one) = whole(0, &[1, 1]) else { unreachable!() };
        let chunks = run([
            (1, whole(0, &[1, 1])),
            (2, whole(0, &[2, 1, 4])), // wider
            (3, whole(1, &[1, 4])),    // a bucket is gone: a reset
            (4, with(whole(1, &[1, 4]), |h| h.schema = 3)),
            (5, with(whole(1, &[1, 4]), |h| (h.schema, h.zero_threshold) = (3, 0.5))),
            (6, gauge(whole(0, &[5]))),
            (7, gauge(whole(0, &[3]))), // a gauge may fall
            (8, whole(0, &[9])),
            (9, stale.clone()),
            (10, whole(0, &[9])),
            (11, Native::Float(one.to_float())),
            (12, bounds(&[1.0, 2.0])),
            (13, bounds(&[1.0, 3.0])),
        ]);
        let expected = [
            (1, Unknown),
            (3, Reset),
            (4, Reset),
            (5, Reset),
            (6, Gauge),
            (8, Unknown),
            (10, Unknown),
            (11, Unknown),
            (12, Unknown),
            (13, Reset),
        ];
        assert_eq!(headers(&chunks), expected);
        let many = run((0..300).map(|i| (RANGE - 150 * 1000 + i * 1000, whole(0, &[i, 1]))));
        let sizes: Vec<u16> = many.iter().map(|c| chunk::xor::count(&c.bytes).unwrap()).collect();
        assert_eq!(sizes, [30, 120, 120, 30]);
        assert!(headers(&many)[1..].iter().all(|(_, header)| *header == NotReset));
        assert_eq!(many[2].start(), RANGE);
    }

    #[test]
    fn large_histograms_make_short_chunks() {
        let chunks = run((0..40).map(|i| {
            let counts: Vec<i64> = (0..3000).map(|n| i * i * (n * 7919 % 1000)).collect();
            (i, whole(0, &counts))
        }));
        assert!(chunks.len() > 1, "{}", chunks.len());
        assert!(chunks.iter().all(|c| c.bytes.len() < 4 * LARGE));
    }

    fn any_native() -> impl Strategy<Value = Native> {
        let counts = (-3..3i32, proptest::collection::vec(0..5i64, 0..5));
        (counts, 0..10u8, 0..3i32).prop_map(|((first, counts), kind, schema)| {
            let h = with(whole(first, &counts), |h| {
                h.schema = schema / 2;
                h.hint = if kind == 3 { ResetHint::Gauge } else { ResetHint::Unknown };
            });
            match kind {
                0 => h.stale(),
                1 => Native::Float(FloatHistogram::default()).stale(),
                2 => Native::Float(h.into_float()),
                _ => h,
            }
        })
    }

    proptest! {
        /// Whatever order they come in, every histogram is found and read as it was sent, before and after sealing.
        #[test]
        fn nothing_is_lost(
            rows in proptest::collection::btree_map(0..4 * RANGE, any_native(), 0..60),
            late in proptest::collection::btree_map(0..4 * RANGE, any_native(), 0..200),
            window in 0..5i64,
        ) {
            let (mut natives, mut sealed) = (Natives::default(), Vec::new());
            for (&timestamp, h) in &rows {
                let row = Row { timestamp, histogram: h.clone() };
                let taken = natives.take(&row, RANGE, &mut |c| sealed.push(c));
                prop_assert!(taken);
            }
            let late: Vec<_> = late.into_iter().filter(|(t, _)| !rows.contains_key(t)).rev().collect();
            for (timestamp, h) in &late {
                let row = Row { timestamp: *timestamp, histogram: h.clone() };
                natives.take_out_of_order(row, RANGE, &mut |c| sealed.push(c));
            }
            let mut all: Vec<(i64, Native)> = rows.into_iter().chain(late).collect();
            all.sort_by_key(|(t, _)| *t);
            for (t, h) in &all {
                let inside = |c: &&ChunkData| c.range.contains(*t);
                let found = natives.find(*t).or_else(|| {
                    sealed.iter().filter(inside).find_map(|c| find(c.encoding, &c.bytes, *t))
                });
                prop_assert!(found.is_some_and(|found| found.is_same(h)), "{t}");
            }
            let check = |chunks: &[ChunkData]| {
                let mut read = read(chunks);
                read.sort_by_key(|(t, _)| *t);
                assert_eq!(read.len(), all.len());
                for (a, b) in read.iter().zip(&all) {
                    assert!(a.0 == b.0 && a.1.is_same(&b.1), "{a:?} {b:?}");
                }
            };
            let mut shown = sealed.clone();
            natives.chunks(TimeRange::ALL, |range, encoding, bytes| {
                shown.push(ChunkData { range, encoding, bytes: Bytes::copy_from_slice(bytes) });
            });
            check(&shown);
            let before = sealed.len();
            let window = TimeRange::new(window * RANGE, (window + 1) * RANGE - 1);
            natives.seal_window(window, RANGE, &mut |c| sealed.push(c));
            prop_assert!(sealed[before..].iter().all(|c| window.contains(c.start()) && window.contains(c.end())));
            prop_assert!(!natives.overlaps(window));
            natives.seal_window(TimeRange::ALL, RANGE, &mut |c| sealed.push(c));
            prop_assert!(natives.is_empty());
            check(&sealed);
        }
    }
}
