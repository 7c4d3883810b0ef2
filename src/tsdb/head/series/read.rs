//! Looking at a series: the value at a time, the chunks of a range, what it takes.

use chunk::{Encoding, xor};
use model::{Native, Sample, TimeRange, Timestamp};

use super::open::{OPEN_MOST, PIECE};
use super::sealed::{NO_CHUNK, REMEMBERED, Sealed, encode};
use super::{Cold, Hot, Rare, Series};
use crate::head::native;

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

impl<'a> Series<'a> {
    pub(super) fn out_of_order(&self) -> &'a [Sample] {
        self.cold.rare.as_ref().map(|rare| rare.out_of_order.as_slice()).unwrap_or_default()
    }

    /// Bits of the value at `t`, wherever it lies.
    pub(super) fn value_at(&self, t: Timestamp) -> Option<u64> {
        // First what came later: after a restart a zero that was made up, and gave way, lies beside it.
        let buffer = self.out_of_order();
        if let Ok(at) = buffer.binary_search_by_key(&t, |s| s.timestamp) {
            return Some(buffer[at].value.to_bits());
        }
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
        let floats = |c: &Sealed<'_>| c.encoding == Encoding::Xor && c.range.contains(t);
        self.chain().filter(floats).find_map(|c| find(c.bytes, t))
    }

    /// The histogram at `t`, wherever it lies.
    pub(super) fn native_at(&self, t: Timestamp) -> Option<Native> {
        if let Some(rare) = &self.cold.rare
            && let Some(found) = rare.natives.find(t)
        {
            return Some(found);
        }
        let natives = |c: &Sealed<'_>| c.encoding != Encoding::Xor && c.range.contains(t);
        self.chain().filter(natives).find_map(|c| native::find(c.encoding, c.bytes, t))
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

    /// The newest sample, where that can be told without a look into chunks and lies in `range`.
    #[inline]
    pub(crate) fn newest_in(&self, range: TimeRange) -> Option<Sample> {
        if self.cold.rare.is_some() || self.hot.appender.count() == 0 || !range.contains(self.hot.newest) {
            return None;
        }
        Some(Sample { timestamp: self.hot.newest, value: self.hot.appender.last_value() })
    }

    /// All chunks that overlap `range`, as they are now, by time. Their bytes are added to `bytes`, where they
    /// begin at the offsets given.
    pub(crate) fn chunks(&self, range: TimeRange, bytes: &mut Vec<u8>, out: &mut Vec<Copied>) {
        let first = out.len();
        let open = self.open_range().filter(|open| open.overlaps(&range));
        if let Some(range) = open {
            let start = bytes.len();
            bytes.resize(start + self.open_len(), 0);
            self.copy_open(bytes.get_mut(start..).unwrap_or_default());
            out.push(Copied { range, encoding: Encoding::Xor, start, end: bytes.len() });
        }
        let mut put = |range, encoding, chunk: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(chunk);
            out.push(Copied { range, encoding, start, end: bytes.len() });
        };
        for c in self.readable().filter(|c| c.range.overlaps(&range)) {
            put(c.range, c.encoding, c.bytes);
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

    pub(super) fn measure(&self) -> Measure {
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

fn find(chunk: &[u8], t: Timestamp) -> Option<u64> {
    let mut samples = xor::Iter::new(chunk).ok()?.map_while(Result::ok);
    samples.find(|s| s.timestamp >= t).filter(|s| s.timestamp == t).map(|s| s.value.to_bits())
}
