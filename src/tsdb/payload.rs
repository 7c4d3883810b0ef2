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
//! ZEROS   shard | v n | n × (z id delta, z time delta)
//! SAMPLES shard | v n | n × (control, value, z id delta - 1 if 16, z time delta if 32)
//!
//! control     0 to 8: that many bytes of the value's bits, the highest, the others are zero
//!             9 to 15: 1 to 7 bytes, hundredths: the value is this number / 100
//!             + 16: the id is not that of the sample before + 1
//!             + 32: the time is not that of the sample before
//! histogram   flags: 1 float counts, 2 stale (nothing follows), 4 and 8 the hint of resets
//!             | z schema | 8 zero threshold | 8 sum | spans of the positive, the negative side: v n | n × (z offset, v length)
//!             | count | zero count | buckets of both sides                 (v, v, z deltas; or 8 bytes each)
//!             | with schema -53: v n | n × 8 bounds
//! ```
//! Deltas start from 0. The newest time is `i64::MIN` for a new series. FREEZE says which series had their
//! samples of a window set aside for a block; CUT, that the block is durable and they are dropped.
//! DELETE takes the samples of a closed range out of some series; its ids begin anew like those of FREEZE.
//! ZEROS says which samples were made up, and give way to one that is sent for their time; builds before it pass it over.
//! FLOATS is read, SAMPLES is what is written in its place: most values are whole numbers or have two decimals, and
//! most samples of a record are of neighbouring series at one time.

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
pub(crate) const SAMPLES: u8 = 8;
pub(crate) const ZEROS: u8 = 128;
pub(crate) const KINDS: &[u8] =
    &[SERIES, FLOATS, FREEZE, CUT, SHARD, HISTOGRAMS, EXEMPLARS, SAMPLES, DELETE, ZEROS];

/// Most bytes that one sample takes in a SAMPLES payload.
pub(crate) const SAMPLE_BYTES: usize = 29;
/// Most bytes of one series in a ZEROS payload.
pub(crate) const ZERO_BYTES: usize = 20;
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

/// In a control byte: an id delta follows.
const OTHER_ID: u8 = 16;
/// In a control byte: a time delta follows.
const OTHER_TIME: u8 = 32;
/// In a control byte: what stands for the value.
const VALUE: u8 = 15;

/// What stands for a value in a control byte, and its bytes, the lowest first.
#[inline]
fn short(value: f64) -> (u8, u64) {
    let bits = value.to_bits();
    let len = 8 - bits.trailing_zeros() / 8;
    // Many digits: perhaps because its few decimals are endless in binary.
    if len > 5 {
        let hundredths = (value * 100.0 + 0.5) as i64;
        let fewer = 8 - (hundredths as u64).leading_zeros() / 8;
        if fewer < len && (hundredths as f64 / 100.0).to_bits() == bits {
            return (8 + fewer as u8, hundredths as u64);
        }
    }
    // In two steps, because a shift by 64 is none.
    let half = 32 - 4 * len;
    (len as u8, bits >> half >> half)
}

/// A SAMPLES payload while it grows; reused without allocation.
#[derive(Default)]
pub(crate) struct Floats {
    head: Vec<u8>,
    body: Vec<u8>,
    count: u64,
    last_id: u64,
    last_time: Timestamp,
}

impl Floats {
    #[inline]
    pub(crate) fn push(&mut self, id: u64, sample: Sample) {
        let step = id.wrapping_sub(self.last_id).wrapping_sub(1) as i64;
        let after = sample.timestamp.wrapping_sub(self.last_time);
        let (kind, bytes) = short(sample.value);
        let len = if kind > 8 { kind - 8 } else { kind };
        let control = kind | if step == 0 { 0 } else { OTHER_ID } | if after == 0 { 0 } else { OTHER_TIME };
        // Written whole and cut, which is cheaper than a copy of a length that varies.
        let end = self.body.len() + 1 + usize::from(len);
        self.body.extend_from_slice(&(u128::from(control) | u128::from(bytes) << 8).to_le_bytes());
        self.body.truncate(end);
        if control > VALUE {
            if step != 0 {
                put_z(&mut self.body, step);
            }
            if after != 0 {
                put_z(&mut self.body, after);
            }
        }
        self.last_id = id;
        self.last_time = sample.timestamp;
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.head.capacity() + self.body.capacity()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The payload in parts.
    pub(crate) fn parts(&mut self, shard: u16) -> [&[u8]; 2] {
        self.head.clear();
        self.head.extend_from_slice(&shard.to_le_bytes());
        put_v(&mut self.head, self.count);
        [&self.head, &self.body]
    }

    pub(crate) fn clear(&mut self) {
        self.body.clear();
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

/// Appends a ZEROS payload to `out`.
pub(crate) fn zeros(shard: u16, zeros: &[(u64, Timestamp)], out: &mut Vec<u8>) {
    out.extend_from_slice(&shard.to_le_bytes());
    put_v(out, zeros.len() as u64);
    let mut last = (0, 0);
    for &(id, t) in zeros {
        put_z(out, id.wrapping_sub(last.0) as i64);
        put_z(out, t.wrapping_sub(last.1));
        last = (id, t);
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

    /// What [`zeros`] wrote, after the shard.
    pub(crate) fn zeros(&mut self) -> Result<Vec<(u64, Timestamp)>, Error> {
        let n = self.v()?;
        if n > self.rest.len() as u64 {
            return Err(broken());
        }
        let mut last = (0u64, 0i64);
        (0..n)
            .map(|_| {
                last = (last.0.wrapping_add(self.z()? as u64), last.1.wrapping_add(self.z()?));
                Ok(last)
            })
            .collect()
    }

    /// The next `len` bytes, at most eight, as a number.
    #[inline]
    fn few(&mut self, len: usize) -> Result<u64, Error> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or_else(broken)?;
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(head);
        self.rest = tail;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A value of a SAMPLES payload, by its control byte.
    #[inline]
    fn short(&mut self, control: u8) -> Result<f64, Error> {
        match control & VALUE {
            len @ 0..=8 => {
                let half = 32 - 4 * u32::from(len);
                Ok(f64::from_bits(self.few(usize::from(len))? << half << half))
            }
            more => Ok(self.few(usize::from(more - 8))? as i64 as f64 / 100.0),
        }
    }

    /// Walks the rest of a SAMPLES or a FLOATS payload.
    pub(crate) fn floats(
        self,
        kind: u8,
        each: impl FnMut(u64, Sample) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        if kind == FLOATS { self.columns(each) } else { self.samples(each) }
    }

    fn samples(mut self, mut each: impl FnMut(u64, Sample) -> Result<(), Error>) -> Result<u64, Error> {
        let n = self.v()?;
        let (mut id, mut timestamp) = (0u64, 0i64);
        for _ in 0..n {
            let control = self.byte()?;
            if control > VALUE | OTHER_ID | OTHER_TIME {
                return Err(broken());
            }
            let value = self.short(control)?;
            id = id.wrapping_add(1);
            if control & OTHER_ID != 0 {
                id = id.wrapping_add(self.z()? as u64);
            }
            if control & OTHER_TIME != 0 {
                timestamp = timestamp.wrapping_add(self.z()?);
            }
            each(id, Sample { timestamp, value })?;
        }
        if self.is_empty() { Ok(n) } else { Err(broken()) }
    }

    /// As logs of earlier builds have it.
    fn columns(mut self, mut each: impl FnMut(u64, Sample) -> Result<(), Error>) -> Result<u64, Error> {
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

    /// A FLOATS payload behind its shard.
    fn columns(rows: &[(u64, i64, u64)]) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), (0, 0));
        put_v(&mut out, rows.len() as u64);
        for row in rows {
            put_z(&mut out, row.0.wrapping_sub(last.0) as i64);
            last.0 = row.0;
        }
        for row in rows {
            put_z(&mut out, row.1.wrapping_sub(last.1));
            last.1 = row.1;
        }
        rows.iter().for_each(|row| out.extend_from_slice(&row.2.to_le_bytes()));
        out
    }

    fn samples(rows: &[(u64, i64, u64)]) -> Vec<u8> {
        let mut floats = Floats::default();
        for &(id, timestamp, bits) in rows {
            let before = floats.body.len();
            floats.push(id, Sample { timestamp, value: f64::from_bits(bits) });
            assert!(floats.body.len() - before <= SAMPLE_BYTES);
        }
        floats.parts(7).concat()
    }

    fn read(kind: u8, reader: Reader<'_>) -> Result<Vec<(u64, i64, u64)>, Error> {
        let mut back = Vec::new();
        reader.floats(kind, |id, s| {
            back.push((id, s.timestamp, s.value.to_bits()));
            Ok(())
        })?;
        Ok(back)
    }

    fn any_bits() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            any::<i32>().prop_map(|whole| f64::from(whole).to_bits()),
            (any::<i64>(), 0..64u32).prop_map(|(n, by)| ((n >> by) as f64 / 100.0).to_bits()),
            (any::<u64>(), 0..64u32).prop_map(|(bits, by)| bits << by),
            any::<f64>().prop_map(|value| value.to_bits()),
            Just((-0.0f64).to_bits()),
        ]
    }

    #[test]
    fn usual_values_are_short() {
        let len = |value: f64| {
            let start = samples(&[(1, 0, 0)]).len();
            samples(&[(1, 0, 0), (2, 0, value.to_bits())]).len() - start
        };
        assert_eq!(len(0.0), 1);
        assert_eq!(len(1.0), 3);
        assert_eq!(len(4095.0), 4);
        assert_eq!(len(123_456.78), 4);
        assert_eq!(len(0.1), 2);
        assert_eq!(len(std::f64::consts::PI), 9);
        assert_eq!(len(-0.1), 9);
        assert_eq!(len(model::stale_nan()), 9);
    }

    proptest! {
        #[test]
        fn floats_round_trip(rows in prop::collection::vec((any::<u64>(), any::<i64>(), any_bits()), 0..50)) {
            let payload = samples(&rows);
            let mut reader = Reader::new(&payload);
            prop_assert_eq!(reader.shard().unwrap(), 7);
            prop_assert_eq!(&read(SAMPLES, reader).unwrap(), &rows);
            prop_assert!(rows.is_empty() || read(SAMPLES, Reader::new(&payload[2..payload.len() - 1])).is_err());
            prop_assert_eq!(read(FLOATS, Reader::new(&columns(&rows))).unwrap(), rows);
        }

        #[test]
        fn a_value_never_takes_more_than_nine_bytes(bits in prop::collection::vec(any_bits(), 1..50)) {
            let rows: Vec<_> = bits.iter().enumerate().map(|(at, bits)| (at as u64 + 1, 0, *bits)).collect();
            prop_assert!(samples(&rows).len() <= 3 + 9 * rows.len());
            prop_assert_eq!(&read(SAMPLES, Reader::new(&samples(&rows)[2..])).unwrap(), &rows);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.shard();
            let _ = Reader { rest: reader.rest }.ids();
            let _ = Reader { rest: reader.rest }.tenant();
            for kind in [FLOATS, SAMPLES] {
                let _ = read(kind, Reader { rest: reader.rest });
            }
        }
    }
}
