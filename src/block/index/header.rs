//! What is kept in memory of an index: symbols and postings offsets, sparsely, over the bytes of two ranges.

use std::ops::Range;

use bytes::Bytes;

use crate::Error;
use crate::index::{PostingOffsets, Symbols, Toc, check_head};

/// The part of an index that answers "which bytes do I need?". Cheap to clone.
///
/// To build it over object storage: fetch [`Toc::range`], decode it, fetch [`Toc::symbols_range`] and
/// [`Toc::table_range`], and hand both to [`IndexHeader::new`].
#[derive(Clone, Debug)]
pub struct IndexHeader {
    pub toc: Toc,
    /// Size of the index file in bytes.
    pub size: u64,
    pub symbols: Symbols,
    pub offsets: PostingOffsets,
}

impl IndexHeader {
    /// Verifies and reads the two ranges, `front` = [`Toc::symbols_range`] and `table` = [`Toc::table_range`].
    pub fn new(toc: Toc, size: u64, front: &Bytes, table: &Bytes) -> Result<IndexHeader, Error> {
        check_head(front)?;
        let (want_front, want_table) = (toc.symbols_range(), toc.table_range(size));
        if front.len() as u64 != want_front.end || table.len() as u64 != want_table.end - want_table.start {
            return Err(Error::corrupt(format!(
                "index header: got {} and {} bytes for the ranges {want_front:?} and {want_table:?}",
                front.len(),
                table.len()
            )));
        }
        let symbols = Symbols::parse(&front.slice(toc.symbols as usize..))?;
        let offsets = PostingOffsets::parse(table, toc.postings_table)?;
        Ok(IndexHeader { toc, size, symbols, offsets })
    }

    /// Where the list of a pair lies in the file; none if no series has it.
    pub fn posting_range(&self, name: &str, value: &str) -> Result<Option<Range<u64>>, Error> {
        self.offsets.posting_range(name, value)
    }

    /// Values of a label name, sorted.
    pub fn values(&self, name: &str) -> Result<Vec<String>, Error> {
        self.offsets.values(name)
    }

    /// Label names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.offsets.names()
    }

    /// The text of a symbol.
    pub fn symbol(&self, number: u32) -> Result<&str, Error> {
        self.symbols.get(number)
    }

    /// Bytes held in memory besides those of the two ranges.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.symbols.memory() + self.offsets.memory()
    }
}
