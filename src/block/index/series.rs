//! One series entry: label numbers, and where its chunks lie.
//!
//! Entries start at multiples of 16 bytes; a series is referred to by that multiple.

use std::ops::Range;

use model::{Labels, TimeRange};

use crate::Error;
use crate::index::Symbols;
use crate::index::cursor::{Cursor, put_uvarint, put_varint};

/// Entries start at multiples of this.
pub const ALIGN: u64 = 16;
/// Bytes that hold the length of any entry.
pub const LEN_BYTES: usize = 5;

/// Where a chunk lies and what time it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Segment number from 0 (file `000001`) in the high 32 bits, byte offset in that file in the low ones.
    pub reference: u64,
    /// Times of the first and the last sample.
    pub range: TimeRange,
}

impl ChunkMeta {
    /// Number of the segment from 0; its file is named by one more.
    pub fn segment(&self) -> usize {
        (self.reference >> 32) as usize
    }

    /// Where the chunk begins in the segment's file.
    pub fn offset(&self) -> u64 {
        self.reference & 0xffff_ffff
    }
}

/// File offset of a series.
pub fn offset(series: u32) -> u64 {
    u64::from(series) * ALIGN
}

/// Bytes the whole entry takes, from its first [`LEN_BYTES`] (or up to the end of the file).
pub fn entry_len(head: &[u8]) -> Result<usize, Error> {
    let mut cursor = Cursor::new(&head[..head.len().min(LEN_BYTES)]);
    let body = cursor.uvarint()? as usize;
    let prefix = head.len().min(LEN_BYTES) - cursor.rest().len();
    Ok(prefix + body + 4)
}

/// The checked body of the entry that starts at `bytes[0]`; more bytes may follow it.
fn body(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut cursor = Cursor::new(bytes);
    let body = cursor.bytes()?;
    if cursor.u32()? != crc32c::crc32c(body) {
        return Err(Error::corrupt("series entry: checksum does not match"));
    }
    Ok(body)
}

/// The body of the entry that starts at `bytes[0]`, from its labels on; its sum is not looked at.
#[inline]
pub(crate) fn unchecked_body(bytes: &[u8]) -> Result<&[u8], Error> {
    Cursor::new(bytes).bytes()
}

/// Goes behind the labels of an entry's body.
pub(crate) fn skip_labels(cursor: &mut Cursor<'_>) -> Result<(), Error> {
    let count = cursor.uvarint()?;
    cursor.skip_varints(usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2))
}

/// Reads the entry that starts at `bytes[0]`; more bytes may follow it. Chunks come in order of time.
pub fn decode_series(bytes: &[u8], symbols: &Symbols) -> Result<(Labels, Vec<ChunkMeta>), Error> {
    let mut decoder = Decoder::default();
    let labels = decoder.decode(bytes, symbols)?;
    Ok((labels, decoder.chunks))
}

/// Reads many entries of one index with buffers of its own: never hand it two symbol tables.
///
/// # Cost
/// One allocation per series, for its labels. Places of symbols are remembered in a small direct-mapped cache,
/// because neighbouring series share most of theirs.
#[derive(Default)]
pub struct Decoder {
    /// Chunks of the entry decoded last, in order of time.
    pub chunks: Vec<ChunkMeta>,
    canonical: Vec<u8>,
    known: Vec<Known>,
}

/// A symbol's text as it stands in canonical label bytes, with its length before it.
#[derive(Clone, Default)]
struct Known {
    number: Option<u32>,
    text: Vec<u8>,
}

const KNOWN: usize = 1024;

impl Decoder {
    /// Reads the entry that starts at `bytes[0]`: labels are returned, chunks are in `self.chunks`.
    pub fn decode(&mut self, bytes: &[u8], symbols: &Symbols) -> Result<Labels, Error> {
        let mut cursor = Cursor::new(body(bytes)?);
        self.canonical.clear();
        for _ in 0..cursor.uvarint()? {
            let (name, value) = (cursor.uvarint()?, cursor.uvarint()?);
            let start = self.canonical.len();
            self.put_symbol(name, symbols)?;
            // A label with an empty value is absent; some writers store it all the same.
            if self.put_symbol(value, symbols)? == 0 {
                self.canonical.truncate(start);
            }
        }
        let labels =
            Labels::from_bytes(&self.canonical).map_err(|e| Error::corrupt(format!("series entry: {e}")))?;
        read_chunks(&mut cursor, &mut self.chunks)?;
        Ok(labels)
    }

    /// As [`Decoder::decode`], but for the labels.
    pub(crate) fn decode_chunks(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut cursor = Cursor::new(body(bytes)?);
        skip_labels(&mut cursor)?;
        read_chunks(&mut cursor, &mut self.chunks)
    }

    /// Appends a symbol with its length; returns its length.
    fn put_symbol(&mut self, number: u64, symbols: &Symbols) -> Result<usize, Error> {
        let number = u32::try_from(number)
            .map_err(|_| Error::corrupt(format!("series entry: symbol {number} does not exist")))?;
        if self.known.is_empty() {
            self.known.resize(KNOWN, Known::default());
        }
        let slot = &mut self.known[number as usize % KNOWN];
        if slot.number != Some(number) {
            let text = symbols.get(number)?;
            slot.text.clear();
            put_uvarint(&mut slot.text, text.len() as u64);
            slot.text.extend_from_slice(text.as_bytes());
            slot.number = Some(number);
        }
        self.canonical.extend_from_slice(&slot.text);
        // An empty text is its length byte alone.
        Ok(slot.text.len().saturating_sub(1))
    }
}

fn read_chunks(cursor: &mut Cursor<'_>, out: &mut Vec<ChunkMeta>) -> Result<(), Error> {
    out.clear();
    let overflow = || Error::corrupt("series entry: a chunk's time or place overflows");
    let count = cursor.uvarint()?;
    let (mut last_end, mut reference) = (0i64, 0u64);
    for at in 0..count {
        let start = if at == 0 {
            cursor.varint()?
        } else {
            last_end.checked_add_unsigned(cursor.uvarint()?).ok_or_else(overflow)?
        };
        let end = start.checked_add_unsigned(cursor.uvarint()?).ok_or_else(overflow)?;
        reference = if at == 0 {
            cursor.uvarint()?
        } else {
            reference.checked_add_signed(cursor.varint()?).ok_or_else(overflow)?
        };
        last_end = end;
        out.push(ChunkMeta { reference, range: TimeRange::new(start, end) });
    }
    if !cursor.is_empty() {
        return Err(Error::corrupt("series entry: bytes are left behind the last chunk"));
    }
    Ok(())
}

/// Appends the chunk part of an entry.
pub(crate) fn encode_chunks(out: &mut Vec<u8>, chunks: &[ChunkMeta]) {
    put_uvarint(out, chunks.len() as u64);
    let mut last: Option<&ChunkMeta> = None;
    for chunk in chunks {
        match last {
            None => put_varint(out, chunk.range.start),
            Some(last) => put_uvarint(out, chunk.range.start.wrapping_sub(last.range.end) as u64),
        }
        put_uvarint(out, chunk.range.end.wrapping_sub(chunk.range.start) as u64);
        match last {
            None => put_uvarint(out, chunk.reference),
            Some(last) => put_varint(out, chunk.reference.wrapping_sub(last.reference) as i64),
        }
        last = Some(chunk);
    }
}

/// The file range to fetch for a series when its length is not known: `estimate` bytes, within the section.
pub fn estimated_range(series: u32, estimate: u64, section: &Range<u64>) -> Result<Range<u64>, Error> {
    let start = offset(series);
    if !section.contains(&start) {
        return Err(Error::corrupt(format!(
            "series {series} lies outside of the series section {section:?}"
        )));
    }
    Ok(start..start.saturating_add(estimate).min(section.end))
}
