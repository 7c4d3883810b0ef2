//! A parse error with its place in the text.

use std::fmt;
use std::ops::Range;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub message: String,
    /// Byte range in the query text.
    pub range: Range<usize>,
    /// Line of the start of the range, from 1.
    pub line: usize,
    /// Column (in bytes) of the start of the range, from 1.
    pub column: usize,
}

impl ParseError {
    pub fn new(text: &str, range: Range<usize>, message: impl Into<String>) -> ParseError {
        let (line, column) = line_column(text, range.start);
        ParseError { message: message.into(), range, line, column }
    }
}

/// Line and column, from 1, of a byte offset.
pub fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1) + 1;
    (line, column)
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}
