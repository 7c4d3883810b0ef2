//! What the engine writes into the log: the payloads of its records, as bytes and back.
//!
//! Little endian; `v` is an unsigned LEB128, `z` a zigzag one. Every payload begins with the shard (2 bytes), but
//! for [`CUT`].
//!
//! ```text
//! SERIES  shard | v len, tenant | repeated: v id, z newest time, v len, label bytes
//! FLOATS  shard | v n | n × z id delta | n × z time delta | n × 8 value bits
//! FREEZE  shard | v len, tenant | v len, block | z start, z end | v n | n × z id delta
//! CUT     v len, tenant | v len, block
//! SHARD   shard | v next id                        (checkpoints only)
//! DELETE  shard | z start, z end | v n | n × z id delta
//! HISTOGRAMS  shard | v n | n × (z id delta, z time delta, histogram)
//! EXEMPLARS   shard | v n | n × (z id delta, z time delta, 8 value bits, v len, label bytes)
//!
//! histogram   flags: 1 float counts, 2 stale (nothing follows), 4 and 8 the hint of resets
//!             | z schema | 8 zero threshold | 8 sum | spans of the positive, the negative side: v n | n × (z offset, v length)
//!             | count | zero count | buckets of both sides                 (v, v, z deltas; or 8 bytes each)
//!             | with schema -53: v n | n × 8 bounds
//! ```
//! Deltas start from 0. The newest time is `i64::MIN` for a new series. FREEZE says which series had their
//! samples of a window set aside for a block; CUT, that the block is durable and they are dropped.
//! DELETE takes the samples of a closed range out of some series; its ids begin anew like those of FREEZE.

use model::{Kind, Sample, TenantId, TimeRange, Timestamp};

use crate::Error;

pub(crate) const SERIES: u8 = 1;
pub(crate) const FLOATS: u8 = 2;
pub(crate) const FREEZE: u8 = 3;
pub(crate) const CUT: u8 = 4;
pub(crate) const SHARD: u8 = 5;
pub(crate) const DELETE: u8 = 16;
pub(crate) const HISTOGRAMS: u8 = 6;
pub(crate) const EXEMPLARS: u8 = 7;
pub(crate) const KINDS: &[u8] = &[SERIES, FLOATS, FREEZE, CUT, SHARD, HISTOGRAMS, EXEMPLARS, DELETE];

/// Most bytes that one sample takes in a FLOATS payload.
pub(crate) const SAMPLE_BYTES: usize = 28;
/// Most bytes of a payload besides its repeated parts.
pub(crate) const FIXED_BYTES: usize = 256;
/// Most bytes of one series in a SERIES payload besides its labels.
pub(crate) const SERIES_BYTES: usize = 32;

pub(crate) fn put_v(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_z(out: &mut Vec<u8>, value: i64) {
    put_v(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_v(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Begins a SERIES payload; [`put_series`] adds to it.
pub(crate) fn begin_series(out: &mut Vec<u8>, shard: u16, tenant: &TenantId) {
    out.extend_from_slice(&shard.to_le_bytes());
    put_text(out, tenant.as_str().as_bytes());
}

pub(crate) fn put_series(out: &mut Vec<u8>, id: u64, newest: Timestamp, labels: &[u8]) {
    put_v(out, id);
    put_z(out, newest);
    put_text(out, labels);
}

/// The columns of a FLOATS payload while they grow; reused without allocation.
#[derive(Default)]
pub(crate) struct Floats {
    head: Vec<u8>,
    ids: Vec<u8>,
    times: Vec<u8>,
    values: Vec<u8>,
    count: u64,
    last_id: u64,
    last_time: Timestamp,
}

impl Floats {
    #[inline]
    pub(crate) fn push(&mut self, id: u64, sample: Sample) {
        put_z(&mut self.ids, id.wrapping_sub(self.last_id) as i64);
        put_z(&mut self.times, sample.timestamp.wrapping_sub(self.last_time));
        self.values.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        self.last_id = id;
        self.last_time = sample.timestamp;
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.head.capacity() + self.ids.capacity() + self.times.capacity() + self.values.capacity()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The payload in parts.
    pub(crate) fn parts(&mut self, shard: u16) -> [&[u8]; 4] {
        self.head.clear();
        self.head.extend_from_slice(&shard.to_le_bytes());
        put_v(&mut self.head, self.count);
        [&self.head, &self.ids, &self.times, &self.values]
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.times.clear();
        self.values.clear();
        (self.count, self.last_id, self.last_time) = (0, 0, 0);
    }
}

pub(crate) fn freeze(shard: u16, tenant: &TenantId, block: &str, window: TimeRange, ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + ids.len() * 3);
    out.extend_from_slice(&shard.to_le_bytes());
    put_text(&mut out, tenant.as_str().as_bytes());
    put_text(&mut out, block.as_bytes());
    put_z(&mut out, window.start);
    put_z(&mut out, window.end);
    put_ids(&mut out, ids);
    out
}

pub(crate) fn delete(shard: u16, range: TimeRange, ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + ids.len() * 3);
    out.extend_from_slice(&shard.to_le_bytes());
    put_z(&mut out, range.start);
    put_z(&mut out, range.end);
    put_ids(&mut out, ids);
    out
}

fn put_ids(out: &mut Vec<u8>, ids: &[u64]) {
    put_v(out, ids.len() as u64);
    let mut last = 0;
    for &id in ids {
        put_z(out, id.wrapping_sub(last) as i64);
        last = id;
    }
}

pub(crate) fn cut(tenant: &TenantId, block: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES);
    put_text(&mut out, tenant.as_str().as_bytes());
    put_text(&mut out, block.as_bytes());
    out
}

pub(crate) fn shard(shard: u16, next_id: u64) -> Vec<u8> {
    let mut out = shard.to_le_bytes().to_vec();
    put_v(&mut out, next_id);
    out
}

/// Reads a payload from its front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Reader<'a> {
        Reader { rest: payload }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, tail) = self.rest.split_first().ok_or_else(broken)?;
        self.rest = tail;
        Ok(byte)
    }

    pub(crate) fn float(&mut self) -> Result<f64, Error> {
        let (bits, tail) = self.rest.split_first_chunk::<8>().ok_or_else(broken)?;
        self.rest = tail;
        Ok(f64::from_bits(u64::from_le_bytes(*bits)))
    }

    pub(crate) fn shard(&mut self) -> Result<u16, Error> {
        let (head, tail) = self.rest.split_first_chunk::<2>().ok_or_else(broken)?;
        self.rest = tail;
        Ok(u16::from_le_bytes(*head))
    }

    #[inline]
    pub(crate) fn v(&mut self) -> Result<u64, Error> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (&byte, tail) = self.rest.split_first().ok_or_else(broken)?;
            self.rest = tail;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(broken());
            }
        }
    }

    #[inline]
    pub(crate) fn z(&mut self) -> Result<i64, Error> {
        let raw = self.v()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.v()?;
        if len > self.rest.len() as u64 {
            return Err(broken());
        }
        let (head, tail) = self.rest.split_at(len as usize);
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|_| broken())
    }

    pub(crate) fn tenant(&mut self) -> Result<TenantId, Error> {
        TenantId::new(self.text()?).map_err(|_| broken())
    }

    /// Ids as [`freeze`] and [`delete`] write them.
    pub(crate) fn ids(&mut self) -> Result<Vec<u64>, Error> {
        let n = self.v()?;
        if n > self.rest.len() as u64 {
            return Err(broken());
        }
        let mut last = 0u64;
        (0..n)
            .map(|_| {
                last = last.wrapping_add(self.z()? as u64);
                Ok(last)
            })
            .collect()
    }

    /// Walks the rest of a FLOATS payload.
    pub(crate) fn floats(
        mut self,
        mut each: impl FnMut(u64, Sample) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let n = self.v()?;
        if n.saturating_mul(8) > self.rest.len() as u64 {
            return Err(broken());
        }
        let (columns, values) = self.rest.split_at(self.rest.len() - n as usize * 8);
        // Two readers over the varint columns: the second starts where the n-th varint ends.
        let mut ids = Reader::new(columns);
        let mut times = Reader::new(columns);
        let skip = end_of_varints(columns, n).ok_or_else(broken)?;
        times.rest = &columns[skip..];
        ids.rest = &columns[..skip];
        let (mut id, mut timestamp) = (0u64, 0i64);
        for value in values.as_chunks::<8>().0 {
            id = id.wrapping_add(ids.z()? as u64);
            timestamp = timestamp.wrapping_add(times.z()?);
            each(id, Sample { timestamp, value: f64::from_bits(u64::from_le_bytes(*value)) })?;
        }
        if !times.is_empty() || !ids.is_empty() {
            return Err(broken());
        }
        Ok(n)
    }
}

fn end_of_varints(bytes: &[u8], n: u64) -> Option<usize> {
    if n == 0 {
        return Some(0);
    }
    let mut left = n;
    for (at, byte) in bytes.iter().enumerate() {
        if byte & 0x80 == 0 {
            left -= 1;
            if left == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

pub(crate) fn broken() -> Error {
    Error::new(Kind::Corrupt, "log record has the right checksum but a malformed payload")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floats_round_trip(rows in prop::collection::vec((any::<u64>(), any::<i64>(), any::<u64>()), 0..50)) {
            let mut floats = Floats::default();
            for &(id, timestamp, bits) in &rows {
                floats.push(id, Sample { timestamp, value: f64::from_bits(bits) });
            }
            let payload = floats.parts(7).concat();
            let mut reader = Reader::new(&payload);
            prop_assert_eq!(reader.shard().unwrap(), 7);
            let mut back = Vec::new();
            reader.floats(|id, s| { back.push((id, s.timestamp, s.value.to_bits())); Ok(()) }).unwrap();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.shard();
            let _ = Reader { rest: reader.rest }.ids();
            let _ = Reader { rest: reader.rest }.tenant();
            let _ = reader.floats(|_, _| Ok(()));
        }
    }
}
