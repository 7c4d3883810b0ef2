//! The postings offset table: for each label name and value, where the list of its series lies.
//!
//! # Cost
//! Opening walks the table once. Memory: each name, and four bytes for every 32nd value and the last of each name;
//! the table's own bytes stay where they are (fetched or mapped). A lookup is a binary search and at most 32 steps.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::index::SPARSE;
use crate::index::cursor::{Cursor, checked_section};

/// A table over its own bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PostingOffsets {
    /// Behind the count: entries one after the other.
    entries: Bytes,
    names: Arc<[Name]>,
    /// End of the last list: the offset of the table itself.
    end: u64,
}

#[derive(Debug)]
struct Name {
    name: Box<str>,
    /// Positions in `entries` of the first value, every 32nd and the last.
    sparse: Vec<u32>,
    /// Number of values.
    count: usize,
    /// Position behind the last value.
    stop: u32,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    name: &'a [u8],
    value: &'a [u8],
    offset: u64,
}

impl<'a> Line<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Line<'a>, Error> {
        if cursor.uvarint()? != 2 {
            return Err(Error::corrupt("an entry is not a label pair"));
        }
        Ok(Line { name: cursor.bytes()?, value: cursor.bytes()?, offset: cursor.uvarint()? })
    }
}

impl PostingOffsets {
    /// Reads the table that starts at `section[0]`, which lies in the file at `file_offset`; bytes may follow it.
    pub fn parse(section: &Bytes, file_offset: u64) -> Result<PostingOffsets, Error> {
        let what = "postings offset table";
        let body = checked_section(section, what)?;
        let mut cursor = Cursor::new(body);
        let count = cursor.u32().map_err(|e| e.within(what))?;
        let entries = section.slice_ref(cursor.rest());
        let place = |cursor: &Cursor<'_>| (entries.len() - cursor.rest().len()) as u32;
        let mut names: Vec<Name> = Vec::new();
        let mut last: Option<(Line<'_>, u32)> = None;
        for _ in 0..count {
            let at = place(&cursor);
            let line = Line::read(&mut cursor).map_err(|e| e.within(what))?;
            if line.offset >= file_offset {
                return Err(Error::corrupt(format!(
                    "{what}: a list lies at {}, behind the lists",
                    line.offset
                )));
            }
            let same_name = match &last {
                Some((before, _)) if (before.name, before.value) >= (line.name, line.value) => {
                    return Err(Error::corrupt(format!("{what}: entries do not ascend")));
                }
                Some((before, _)) => before.name == line.name,
                None => false,
            };
            if !same_name {
                close(&mut names, last.map(|(_, at)| at), at);
                let name = std::str::from_utf8(line.name)
                    .map_err(|_| Error::corrupt(format!("{what}: a label name is not valid UTF-8")))?;
                names.push(Name { name: name.into(), sparse: Vec::new(), count: 0, stop: 0 });
            }
            if let Some(name) = names.last_mut() {
                if name.count % SPARSE == 0 {
                    name.sparse.push(at);
                }
                name.count += 1;
            }
            last = Some((line, at));
        }
        if !cursor.is_empty() {
            return Err(Error::corrupt(format!("{what}: bytes are left behind the last entry")));
        }
        close(&mut names, last.map(|(_, at)| at), entries.len() as u32);
        Ok(PostingOffsets { entries: entries.clone(), names: names.into(), end: file_offset })
    }

    /// Label names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|n| &*n.name).filter(|name| !name.is_empty())
    }

    /// Number of values of a name.
    pub fn count(&self, name: &str) -> usize {
        self.find(name).map_or(0, |n| n.count)
    }

    /// Values of a name, sorted.
    pub fn values(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut out = Vec::with_capacity(self.count(name));
        self.each_value(name, "", &mut |value, _| {
            out.push(value.to_owned());
            true
        })?;
        Ok(out)
    }

    /// Where the list of a pair lies in the file; none if no series has it. The end may reach into padding.
    pub fn posting_range(&self, name: &str, value: &str) -> Result<Option<Range<u64>>, Error> {
        let mut found = None;
        self.each_value(name, value, &mut |v, range| {
            if v == value {
                found = Some(range);
            }
            false
        })?;
        Ok(found)
    }

    /// The list of all series.
    pub fn all_range(&self) -> Result<Option<Range<u64>>, Error> {
        let (name, value) = crate::index::ALL_POSTINGS;
        self.posting_range(name, value)
    }

    /// Calls `visit` with each value of `name` from `from` on and where its list lies, until it answers false.
    pub fn each_value<'a>(
        &'a self,
        name: &str,
        from: &str,
        visit: &mut dyn FnMut(&'a str, Range<u64>) -> bool,
    ) -> Result<(), Error> {
        let Some(name) = self.find(name) else { return Ok(()) };
        let mut error = None;
        let after = name.sparse.partition_point(|&at| match Line::read(&mut self.cursor(at)) {
            Ok(line) => line.value <= from.as_bytes(),
            Err(e) => {
                error.get_or_insert(e);
                false
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        let Some(&start) = name.sparse.get(after.saturating_sub(1)) else { return Ok(()) };
        let mut cursor = self.cursor(start);
        while self.entries.len() - cursor.rest().len() < name.stop as usize {
            let line = Line::read(&mut cursor)?;
            if line.value < from.as_bytes() {
                continue;
            }
            // The list ends where the next one begins: lists lie in the order of the table.
            let next = if cursor.is_empty() { self.end } else { Line::read(&mut cursor.clone())?.offset };
            let end = if next > line.offset { next } else { self.end };
            let value = std::str::from_utf8(line.value)
                .map_err(|_| Error::corrupt("postings offset table: a label value is not valid UTF-8"))?;
            if !visit(value, line.offset..end) {
                break;
            }
        }
        Ok(())
    }

    /// Bytes held in memory besides the table's own.
    pub fn memory(&self) -> usize {
        self.names.iter().map(|n| size_of::<Name>() + n.name.len() + n.sparse.capacity() * 4).sum()
    }

    fn cursor(&self, at: u32) -> Cursor<'_> {
        Cursor::new(self.entries.get(at as usize..).unwrap_or_default())
    }

    fn find(&self, name: &str) -> Option<&Name> {
        let at = self.names.binary_search_by(|n| (*n.name).cmp(name)).ok()?;
        self.names.get(at)
    }
}

/// Completes the name that was read last: `last` is the position of its last value, `stop` the one behind it.
fn close(names: &mut [Name], last: Option<u32>, stop: u32) {
    if let (Some(name), Some(last)) = (names.last_mut(), last) {
        if name.sparse.last() != Some(&last) {
            name.sparse.push(last);
        }
        name.sparse.shrink_to_fit();
        name.stop = stop;
    }
}
