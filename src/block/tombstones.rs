//! Deletions that a block carries beside its data, in Prometheus's format.
//!
//! `01 30 BA 30` | version 1 | entries (uvarint series, varint first, varint last time, both inclusive) | CRC32C of
//! the entries.

use std::collections::HashMap;

use model::{TimeRange, Timestamp};

use crate::Error;
use crate::index::cursor::{Cursor, put_uvarint, put_varint};

/// Name of the file in a block's folder.
pub const FILE: &str = "tombstones";
const MAGIC: [u8; 4] = [0x01, 0x30, 0xba, 0x30];

/// Deleted times by series number.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    deleted: HashMap<u32, Vec<TimeRange>>,
}

impl Tombstones {
    /// Reads the file's content.
    pub fn parse(bytes: &[u8]) -> Result<Tombstones, Error> {
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
            return Err(Error::corrupt("tombstones: file is shorter than its checksum"));
        };
        let Some(([a, b, c, d, version], entries)) = body.split_first_chunk::<5>() else {
            return Err(Error::corrupt("tombstones: file is shorter than its head"));
        };
        if [*a, *b, *c, *d] != MAGIC {
            return Err(Error::corrupt("tombstones: magic number is missing"));
        }
        if *version != 1 {
            let message = format!("tombstones: version {version} is not known, only 1 is");
            return Err(Error::new(model::Kind::Refused, message));
        }
        if crc32c::crc32c(entries) != u32::from_be_bytes(*sum) {
            return Err(Error::corrupt("tombstones: checksum does not match"));
        }
        let mut deleted: HashMap<u32, Vec<TimeRange>> = HashMap::new();
        let mut cursor = Cursor::new(entries);
        while !cursor.is_empty() {
            let series = u32::try_from(cursor.uvarint()?)
                .map_err(|_| Error::corrupt("tombstones: a series number is out of range"))?;
            let range = TimeRange::new(cursor.varint()?, cursor.varint()?);
            deleted.entry(series).or_default().push(range);
        }
        Ok(Tombstones { deleted })
    }

    /// Adds a deletion; ranges that meet become one.
    pub fn add(&mut self, series: u32, mut range: TimeRange) {
        let ranges = self.deleted.entry(series).or_default();
        ranges.retain(|old| {
            let meets = old.start <= range.end.saturating_add(1) && range.start <= old.end.saturating_add(1);
            if meets {
                range = TimeRange::new(range.start.min(old.start), range.end.max(old.end));
            }
            !meets
        });
        ranges.push(range);
    }

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut series: Vec<(&u32, &Vec<TimeRange>)> = self.deleted.iter().collect();
        series.sort_by_key(|(number, _)| **number);
        let mut entries = Vec::new();
        for (number, ranges) in series {
            for range in ranges {
                put_uvarint(&mut entries, u64::from(*number));
                put_varint(&mut entries, range.start);
                put_varint(&mut entries, range.end);
            }
        }
        let sum = crc32c::crc32c(&entries);
        [&MAGIC[..], &[1], &entries, &sum.to_be_bytes()].concat()
    }

    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty()
    }

    /// Deleted ranges of a series.
    pub fn of(&self, series: u32) -> &[TimeRange] {
        self.deleted.get(&series).map_or(&[], Vec::as_slice)
    }
}

/// What deletions do to a chunk of this range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Untouched,
    Gone,
    Partial,
}

pub(crate) fn effect(deleted: &[TimeRange], range: &TimeRange) -> Effect {
    if deleted.iter().any(|d| d.start <= range.start && range.end <= d.end) {
        Effect::Gone
    } else if deleted.iter().any(|d| d.overlaps(range)) {
        Effect::Partial
    } else {
        Effect::Untouched
    }
}

pub(crate) fn is_deleted(deleted: &[TimeRange], t: Timestamp) -> bool {
    deleted.iter().any(|range| range.contains(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(entries: &[(u64, i64, i64)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(series, first, last) in entries {
            put_uvarint(&mut body, series);
            put_varint(&mut body, first);
            put_varint(&mut body, last);
        }
        let sum = crc32c::crc32c(&body);
        [&MAGIC[..], &[1], &body, &sum.to_be_bytes()].concat()
    }

    #[test]
    fn reads_what_prometheus_writes_and_sees_damage() {
        assert!(Tombstones::parse(b"\x01\x30\xba\x30\x01\0\0\0\0").unwrap().is_empty(), "the empty file");
        let bytes = file(&[(3, i64::MIN, 10), (3, 20, 30), (4, 0, 1)]);
        let read = Tombstones::parse(&bytes).unwrap();
        assert_eq!(read.of(3), [TimeRange::new(i64::MIN, 10), TimeRange::new(20, 30)]);
        assert_eq!(read.of(5), []);
        assert_eq!(read.encode(), bytes);
        let mut more = read.clone();
        more.add(3, TimeRange::new(11, 19));
        more.add(9, TimeRange::new(i64::MIN, i64::MAX));
        assert_eq!(more.of(3), [TimeRange::new(i64::MIN, 30)]);
        let again = Tombstones::parse(&more.encode()).unwrap();
        assert_eq!((again.of(3), again.of(9)), (more.of(3), more.of(9)));
        for end in 0..bytes.len() {
            assert!(Tombstones::parse(&bytes[..end]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Tombstones::parse(&bad).is_err());
        }
        let deleted = read.of(3);
        assert_eq!(effect(deleted, &TimeRange::new(5, 10)), Effect::Gone);
        assert_eq!(effect(deleted, &TimeRange::new(5, 11)), Effect::Partial);
        assert_eq!(effect(deleted, &TimeRange::new(11, 19)), Effect::Untouched);
    }
}
