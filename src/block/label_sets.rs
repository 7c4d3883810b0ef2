//! Label sets of several blocks as one sorted stream, each once: for those who ask what series there are.
//!
//! Blocks that follow one another mostly hold the same series. Where their tables of symbols are equal, so are the
//! entries of a series up to its chunks: they are compared as they lie in the files, and one of them is decoded.
//!
//! # Cost
//! One comparison of some 30 bytes per series and block, and a decoding per series. Chunks are looked at in blocks
//! that reach beyond the range, or have deletions. Numbers of matching series are held, four bytes each.

use std::cmp::Ordering;

use model::{Labels, Matcher, TimeRange};

use crate::Error;
use crate::index::cursor::Cursor;
use crate::index::series::{self, Decoder};
use crate::index::{Plan, Symbols};
use crate::read::Block;
use crate::tombstones::{self, Effect};

/// Label sets of the matching series of blocks with equal symbols that have a chunk in the range. Ends after an error.
pub struct LabelSets {
    sources: Vec<Source>,
    /// What is still to be tested on labels.
    check: Vec<Matcher>,
    range: TimeRange,
    /// The symbol that is no text at all; a label with it as its value is absent.
    empty: Option<u64>,
    decoder: Decoder,
    last: Option<Labels>,
    /// Sources that stand at the series to be given.
    same: Vec<usize>,
    failed: bool,
}

/// One block.
struct Source {
    block: Block,
    numbers: Vec<u32>,
    at: usize,
    /// No series need be asked for its chunks.
    whole: bool,
    decoder: Decoder,
}

impl LabelSets {
    /// As few streams as the blocks' symbols allow; the same series may stand in several of them.
    pub fn of(blocks: &[Block], matchers: &[Matcher], range: TimeRange) -> Result<Vec<LabelSets>, Error> {
        let mut out: Vec<LabelSets> = Vec::new();
        for block in blocks {
            let inner = &block.inner;
            let plan = Plan::new(matchers, &inner.header)?;
            let numbers = if range.is_empty() { Vec::new() } else { inner.series_of(&plan)? };
            if numbers.is_empty() {
                continue;
            }
            let all = block.time_range();
            let whole = range.start <= all.start && all.end <= range.end && inner.tombstones.is_empty();
            let symbols = &inner.header.symbols;
            let known = out.iter_mut().find(|set| set.symbols().is_some_and(|other| other.same(symbols)));
            let set = match known {
                Some(set) => set,
                None => {
                    out.push(LabelSets::new(range, symbols));
                    let Some(set) = out.last_mut() else { continue };
                    set
                }
            };
            // A series that is in a block whose plan left no such check passes it anyway.
            for matcher in plan.check {
                let alike =
                    |m: &Matcher| (m.op, &m.name, &m.value) == (matcher.op, &matcher.name, &matcher.value);
                if !set.check.iter().any(alike) {
                    set.check.push(matcher);
                }
            }
            let mut source =
                Source { block: block.clone(), numbers, at: 0, whole, decoder: Decoder::default() };
            source.settle(range)?;
            set.sources.push(source);
        }
        Ok(out)
    }

    fn new(range: TimeRange, symbols: &Symbols) -> LabelSets {
        LabelSets {
            sources: Vec::new(),
            check: Vec::new(),
            range,
            empty: symbols.get(0).is_ok_and(str::is_empty).then_some(0),
            decoder: Decoder::default(),
            last: None,
            same: Vec::new(),
            failed: false,
        }
    }

    fn symbols(&self) -> Option<&Symbols> {
        Some(&self.sources.first()?.block.inner.header.symbols)
    }

    /// Bytes held besides the blocks: for a query's budget.
    pub fn memory(&self) -> usize {
        self.sources.iter().map(|source| source.numbers.capacity() * size_of::<u32>()).sum()
    }

    fn step(&mut self) -> Result<Option<Labels>, Error> {
        loop {
            let Some(first) = self.least()? else { return Ok(None) };
            let source = &self.sources[first];
            let number = source.numbers[source.at];
            let labels = source.block.inner.decode(number, &mut self.decoder, self.last.as_ref())?;
            for &at in &self.same {
                let source = &mut self.sources[at];
                source.at += 1;
                source.settle(self.range)?;
            }
            self.last = Some(labels.clone());
            if Matcher::all_match(&self.check, &labels) {
                return Ok(Some(labels));
            }
        }
    }

    /// The source that stands at the least label set; `same` are all that stand there.
    fn least(&mut self) -> Result<Option<usize>, Error> {
        let mut least: Option<(usize, &[u8])> = None;
        self.same.clear();
        for (at, source) in self.sources.iter().enumerate() {
            let Some(entry) = source.entry()? else { continue };
            let order = match least {
                None => Ordering::Less,
                Some((_, labels)) if entry.starts_with(labels) => Ordering::Equal,
                Some((_, labels)) => order(entry, labels, self.empty)?,
            };
            if order == Ordering::Less {
                least = Some((at, labels_of(entry)?));
                self.same.clear();
            }
            if order != Ordering::Greater {
                self.same.push(at);
            }
        }
        Ok(least.map(|(at, _)| at))
    }
}

impl Iterator for LabelSets {
    type Item = Result<Labels, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

impl Source {
    /// The entry at which it stands, from its labels on; none at the end. Its sum is checked when it is decoded.
    fn entry(&self) -> Result<Option<&[u8]>, Error> {
        let Some(&number) = self.numbers.get(self.at) else { return Ok(None) };
        self.block.inner.entry(number).map(Some)
    }

    /// Goes on to a series that has chunks in the range.
    fn settle(&mut self, range: TimeRange) -> Result<(), Error> {
        if self.whole {
            return Ok(());
        }
        while let Some(&number) = self.numbers.get(self.at) {
            self.block.inner.decode_chunks(number, &mut self.decoder)?;
            let deleted = self.block.inner.tombstones.of(number);
            let here = self.decoder.chunks.iter().any(|chunk| {
                chunk.range.overlaps(&range) && tombstones::effect(deleted, &chunk.range) != Effect::Gone
            });
            if here {
                break;
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// The part of an entry that says the labels: a count, and two symbols for each.
fn labels_of(entry: &[u8]) -> Result<&[u8], Error> {
    let mut cursor = Cursor::new(entry);
    series::skip_labels(&mut cursor)?;
    Ok(&entry[..entry.len() - cursor.rest().len()])
}

/// How two entries of equal symbols stand to each other: symbols are numbered in the order of their texts.
fn order(a: &[u8], b: &[u8], empty: Option<u64>) -> Result<Ordering, Error> {
    let (mut a, mut b) = (Pairs::new(a, empty)?, Pairs::new(b, empty)?);
    loop {
        let (x, y) = (a.next()?, b.next()?);
        match x.cmp(&y) {
            Ordering::Equal if x.is_none() => return Ok(Ordering::Equal),
            Ordering::Equal => {}
            other => return Ok(other),
        }
    }
}

/// Symbols of an entry's labels, without those that are absent.
struct Pairs<'a> {
    cursor: Cursor<'a>,
    left: u64,
    empty: Option<u64>,
}

impl<'a> Pairs<'a> {
    fn new(entry: &'a [u8], empty: Option<u64>) -> Result<Pairs<'a>, Error> {
        let mut cursor = Cursor::new(entry);
        let left = cursor.uvarint()?;
        Ok(Pairs { cursor, left, empty })
    }

    fn next(&mut self) -> Result<Option<(u64, u64)>, Error> {
        while self.left > 0 {
            self.left -= 1;
            let pair = (self.cursor.uvarint()?, self.cursor.uvarint()?);
            if Some(pair.1) != self.empty {
                return Ok(Some(pair));
            }
        }
        Ok(None)
    }
}
