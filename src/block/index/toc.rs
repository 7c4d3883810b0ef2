//! The table of contents: the last 52 bytes of an index, six offsets and a checksum.

use std::ops::Range;

use crate::Error;
use crate::index::HEAD_LEN;
use crate::index::cursor::Cursor;

/// Bytes of the table at the end of the file.
pub const LEN: u64 = 52;

/// File offsets of the sections; 0 for one that is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toc {
    pub symbols: u64,
    pub series: u64,
    pub label_indices: u64,
    pub label_indices_table: u64,
    pub postings: u64,
    pub postings_table: u64,
}

impl Toc {
    /// Where the table lies in an index of `size` bytes.
    pub fn range(size: u64) -> Result<Range<u64>, Error> {
        let start = size.checked_sub(LEN).filter(|&start| start >= HEAD_LEN);
        start
            .map(|start| start..size)
            .ok_or_else(|| Error::corrupt(format!("index has only {size} bytes; its end is missing")))
    }

    /// Reads the last 52 of `tail`, the end of an index of `size` bytes, and checks that the sections lie in order.
    pub fn decode(tail: &[u8], size: u64) -> Result<Toc, Error> {
        let bytes = tail.last_chunk::<{ LEN as usize }>();
        let bytes = bytes.ok_or_else(|| Error::corrupt("index ends within its table of contents"))?;
        let mut cursor = Cursor::new(bytes);
        let toc = Toc {
            symbols: cursor.u64()?,
            series: cursor.u64()?,
            label_indices: cursor.u64()?,
            label_indices_table: cursor.u64()?,
            postings: cursor.u64()?,
            postings_table: cursor.u64()?,
        };
        if cursor.u32()? != crc32c::crc32c(&bytes[..48]) {
            return Err(Error::corrupt(
                "index: checksum of the table of contents does not match; the file is cut short or damaged",
            ));
        }
        let in_order = HEAD_LEN <= toc.symbols
            && toc.symbols < toc.series
            && toc.series <= toc.postings
            && toc.postings < toc.postings_table
            && toc.postings_table < size.saturating_sub(LEN);
        if !in_order {
            return Err(Error::corrupt(format!(
                "index: sections are missing or out of order: {toc:?} in {size} bytes"
            )));
        }
        Ok(toc)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN as usize);
        for at in [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_indices_table,
            self.postings,
            self.postings_table,
        ] {
            out.extend_from_slice(&at.to_be_bytes());
        }
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_be_bytes());
        out
    }

    /// The head of the file and the symbols: all bytes before the series.
    pub fn symbols_range(&self) -> Range<u64> {
        0..self.series
    }

    /// All series entries; may end with other sections of old writers and padding.
    pub fn series_range(&self) -> Range<u64> {
        let end = [self.label_indices, self.postings].into_iter().filter(|&at| at >= self.series).min();
        self.series..end.unwrap_or(self.postings)
    }

    /// The postings offset table to the end of the file.
    pub fn table_range(&self, size: u64) -> Range<u64> {
        self.postings_table..size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let toc = Toc {
            symbols: 5,
            series: 32,
            label_indices: 64,
            label_indices_table: 100,
            postings: 64,
            postings_table: 100,
        };
        let bytes = toc.encode();
        assert_eq!(bytes.len() as u64, LEN);
        assert_eq!(Toc::decode(&bytes, 200).unwrap(), toc);
        assert!(Toc::decode(&bytes[1..], 200).is_err());
        assert!(Toc::decode(&bytes, 120).is_err(), "table beyond the end");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Toc::decode(&bad, 200).is_err());
        }
        assert!(Toc::range(56).is_err());
        assert_eq!(Toc::range(57).unwrap(), 5..57);
    }
}
