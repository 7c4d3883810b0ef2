//! The symbol table: every label name and value once, sorted, referred to by number.
//!
//! # Cost
//! Opening walks the table once and keeps four bytes for every 32 symbols; the text stays where it is (fetched or
//! mapped). A lookup skips at most 31 texts. Two tables are compared by a digest that is taken at opening.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::Error;
use crate::index::SPARSE;
use crate::index::cursor::{Cursor, checked_section};

/// A table over its own bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Symbols {
    /// Behind the count: texts one after the other.
    texts: Bytes,
    count: u32,
    /// Position of every 32nd text.
    sparse: std::sync::Arc<[u32]>,
    /// Of all texts with their lengths.
    digest: u128,
}

impl Symbols {
    /// Reads the section that starts at `section[0]`; more bytes may follow it.
    pub fn parse(section: &Bytes) -> Result<Symbols, Error> {
        let body = checked_section(section, "symbols")?;
        let mut cursor = Cursor::new(body);
        let count = cursor.u32().map_err(|e| e.within("symbols"))?;
        let texts = section.slice_ref(cursor.rest());
        let mut sparse = Vec::with_capacity(texts.len() / 256);
        for at in 0..count as usize {
            if at % SPARSE == 0 {
                sparse.push((texts.len() - cursor.rest().len()) as u32);
            }
            cursor.bytes().map_err(|e| e.within(format_args!("symbol {at} of {count}")))?;
        }
        if !cursor.is_empty() {
            return Err(Error::corrupt("symbols: bytes are left behind the last one"));
        }
        let digest = xxh3_128(&texts);
        Ok(Symbols { texts, count, sparse: sparse.into(), digest })
    }

    /// Whether a number stands for the same text in both tables.
    pub fn same(&self, other: &Symbols) -> bool {
        (self.digest, self.count, self.texts.len()) == (other.digest, other.count, other.texts.len())
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The text of a number.
    pub fn get(&self, number: u32) -> Result<&str, Error> {
        if number >= self.count {
            return Err(Error::corrupt(format!("symbol {number} does not exist; there are {}", self.count)));
        }
        let start = self.sparse.get(number as usize / SPARSE).copied().unwrap_or(0);
        let mut cursor = Cursor::new(&self.texts[start as usize..]);
        for _ in 0..number as usize % SPARSE {
            cursor.bytes()?;
        }
        std::str::from_utf8(cursor.bytes()?)
            .map_err(|_| Error::corrupt(format!("symbol {number} is not valid UTF-8")))
    }

    /// All texts in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<&str, Error>> {
        let mut cursor = Cursor::new(&self.texts);
        (0..self.count).map(move |number| {
            std::str::from_utf8(cursor.bytes()?)
                .map_err(|_| Error::corrupt(format!("symbol {number} is not valid UTF-8")))
        })
    }

    /// Bytes held in memory besides the table's own.
    pub fn memory(&self) -> usize {
        self.sparse.len() * 4
    }
}
