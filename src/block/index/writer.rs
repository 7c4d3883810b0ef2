//! Collects series as compact rows and writes the index from them: symbols, series, postings, offsets, contents.
//!
//! Symbols come first in the file but are known last, so rows hold numbers that are given out as symbols appear and
//! are replaced by places in the sorted table when the index is written.

use std::collections::HashMap;

use model::{Kind, Labels};

use crate::Error;
use crate::index::cursor::{Cursor, put_uvarint};
use crate::index::{ALL_POSTINGS, MAGIC, Toc, VERSION, postings, series};
use crate::writer::Sink;

type Hash = foldhash::fast::RandomState;

/// Series rows in memory.
#[derive(Default)]
pub(crate) struct IndexRows {
    symbols: HashMap<Box<str>, u32, Hash>,
    /// Bytes of all symbols with their lengths.
    symbol_bytes: usize,
    pairs: HashMap<(u32, u32), u32, Hash>,
    /// By pair number: name and value symbols, and how many series have the pair.
    pair_rows: Vec<(u32, u32, u32)>,
    /// Per series: `uvarint labels | uvarint pair number.. | uvarint bytes | chunk part of its entry`.
    rows: Vec<u8>,
    count: u32,
    scratch: Vec<u8>,
    /// The series before and its pairs: neighbours share most of theirs.
    last: Option<Labels>,
    last_pairs: Vec<u32>,
}

impl IndexRows {
    /// Adds a series behind the last; `chunks` appends the chunk part of its entry.
    pub(crate) fn add(&mut self, labels: &Labels, chunks: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let full = |what| {
            Error::new(Kind::Refused, format!("a block cannot hold more {what}; cut it into smaller ones"))
        };
        self.count = self.count.checked_add(1).ok_or_else(|| full("series"))?;
        put_uvarint(&mut self.rows, labels.len() as u64);
        let last = self.last.replace(labels.clone()).unwrap_or_default();
        let mut before = last.iter();
        for (at, label) in labels.iter().enumerate() {
            let pair = match self.last_pairs.get(at) {
                Some(&pair) if before.next() == Some(label) => pair,
                _ => self.pair(label),
            };
            match self.last_pairs.get_mut(at) {
                Some(known) => *known = pair,
                None => self.last_pairs.push(pair),
            }
            self.pair_rows[pair as usize].2 += 1;
            put_uvarint(&mut self.rows, u64::from(pair));
        }
        if self.symbol_bytes > u32::MAX as usize - 1024 {
            return Err(full("symbols"));
        }
        self.scratch.clear();
        chunks(&mut self.scratch);
        put_uvarint(&mut self.rows, self.scratch.len() as u64);
        self.rows.extend_from_slice(&self.scratch);
        Ok(())
    }

    fn pair(&mut self, (name, value): (&str, &str)) -> u32 {
        let (name, value) = (self.symbol(name), self.symbol(value));
        let next = self.pair_rows.len() as u32;
        let pair = *self.pairs.entry((name, value)).or_insert(next);
        if pair == next {
            self.pair_rows.push((name, value, 0));
        }
        pair
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.symbols.get(text) {
            return number;
        }
        let number = self.symbols.len() as u32;
        self.symbols.insert(text.into(), number);
        self.symbol_bytes += text.len() + 5;
        number
    }

    /// Bytes held, as far as they grow with the block.
    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity()
            + self.symbol_bytes
            + self.symbols.capacity() * (size_of::<(Box<str>, u32)>() + 1)
            + self.pairs.capacity() * (size_of::<((u32, u32), u32)>() + 1)
            + self.pair_rows.capacity() * size_of::<(u32, u32, u32)>()
    }

    /// Writes the whole index; returns the size of the largest series entry, padding included.
    pub(crate) fn write(self, out: &mut Sink) -> Result<u64, Error> {
        let IndexRows { symbols, pairs, pair_rows, rows, count, .. } = self;
        drop(pairs);
        out.put(&MAGIC)?;
        out.put(&[VERSION])?;
        let symbols_at = out.written;
        let (texts, places) = write_symbols(out, symbols)?;
        out.pad(series::ALIGN)?;
        let series_at = out.written;

        // Postings as one flat table: the series of pair p stand at starts[p]..starts[p + 1].
        let mut starts: Vec<u64> = Vec::with_capacity(pair_rows.len());
        let mut total = 0u64;
        for (_, _, series) in &pair_rows {
            starts.push(total);
            total += u64::from(*series);
        }
        let mut fill = starts.clone();
        let mut flat = vec![0u32; total as usize];
        let mut all = Vec::with_capacity(count as usize);
        let (mut cursor, mut body, mut max_size) = (Cursor::new(&rows), Vec::new(), 0);
        while !cursor.is_empty() {
            let labels = cursor.uvarint()?;
            let number = u32::try_from(out.written / series::ALIGN).map_err(|_| {
                Error::new(Kind::Refused, "an index cannot exceed 64 GiB; cut smaller blocks")
            })?;
            all.push(number);
            body.clear();
            put_uvarint(&mut body, labels);
            for _ in 0..labels {
                let pair = cursor.uvarint()? as usize;
                let (name, value, _) = pair_rows[pair];
                put_uvarint(&mut body, u64::from(places[name as usize]));
                put_uvarint(&mut body, u64::from(places[value as usize]));
                flat[fill[pair] as usize] = number;
                fill[pair] += 1;
            }
            body.extend_from_slice(cursor.bytes()?);
            let start = out.written;
            out.put_with(|out| {
                put_uvarint(out, body.len() as u64);
                out.extend_from_slice(&body);
                out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
            })?;
            out.pad(series::ALIGN)?;
            max_size = max_size.max(out.written - start);
        }
        drop(rows);
        let label_indices_at = out.written;

        // By name, then value: places in the sorted symbol table sort as the texts do.
        let mut order: Vec<u32> = (0..pair_rows.len() as u32).collect();
        let place = |pair: u32| {
            let (name, value, _) = pair_rows[pair as usize];
            (places[name as usize], places[value as usize])
        };
        order.sort_unstable_by_key(|&pair| place(pair));
        let postings_at = out.written;
        let mut table = Vec::new();
        table.extend_from_slice(&(order.len() as u32 + 1).to_be_bytes());
        let line = |table: &mut Vec<u8>, (name, value): (&str, &str), at: u64| {
            put_uvarint(table, 2);
            for text in [name, value] {
                put_uvarint(table, text.len() as u64);
                table.extend_from_slice(text.as_bytes());
            }
            put_uvarint(table, at);
        };
        line(&mut table, ALL_POSTINGS, out.written);
        out.put_with(|out| postings::encode(out, all.iter().copied()))?;
        for pair in order {
            let (name, value) = place(pair);
            let at = starts[pair as usize] as usize;
            let numbers = &flat[at..at + pair_rows[pair as usize].2 as usize];
            line(&mut table, (&texts[name as usize], &texts[value as usize]), out.written);
            out.put_with(|out| postings::encode(out, numbers.iter().copied()))?;
        }
        let table_at = out.written;
        let len = u32::try_from(table.len()).map_err(|_| {
            Error::new(Kind::Refused, "a postings offset table cannot exceed 4 GiB; cut smaller blocks")
        })?;
        out.put(&len.to_be_bytes())?;
        out.put(&table)?;
        out.put(&crc32c::crc32c(&table).to_be_bytes())?;
        let toc = Toc {
            symbols: symbols_at,
            series: series_at,
            label_indices: label_indices_at,
            label_indices_table: table_at,
            postings: postings_at,
            postings_table: table_at,
        };
        out.put(&toc.encode())?;
        Ok(max_size)
    }
}

/// Writes the symbol section; returns the texts in order, and the place of each number.
fn write_symbols(
    out: &mut Sink,
    symbols: HashMap<Box<str>, u32, Hash>,
) -> Result<(Vec<Box<str>>, Vec<u32>), Error> {
    let mut sorted: Vec<(Box<str>, u32)> = symbols.into_iter().collect();
    sorted.sort_unstable();
    let mut places = vec![0u32; sorted.len()];
    let mut section = Vec::new();
    section.extend_from_slice(&(sorted.len() as u32).to_be_bytes());
    for (place, (text, number)) in sorted.iter().enumerate() {
        places[*number as usize] = place as u32;
        put_uvarint(&mut section, text.len() as u64);
        section.extend_from_slice(text.as_bytes());
    }
    let len = u32::try_from(section.len())
        .map_err(|_| Error::new(Kind::Refused, "symbols cannot exceed 4 GiB; cut smaller blocks"))?;
    out.put(&len.to_be_bytes())?;
    out.put(&section)?;
    out.put(&crc32c::crc32c(&section).to_be_bytes())?;
    Ok((sorted.into_iter().map(|(text, _)| text).collect(), places))
}
