//! What is the same at every step: computed at the first and repeated.

use super::{Grid, Op, Operator, Row};
use crate::Error;

pub(crate) struct InvariantOp<'a> {
    /// Evaluates the first step alone.
    pub(crate) input: Op<'a>,
    pub(crate) grid: Grid,
}

impl Operator for InvariantOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if self.grid.len == 0 || !self.input.next(row)? {
            return Ok(false);
        }
        if let Some(value) = row.values.first().copied() {
            row.values.resize(self.grid.len, value);
        }
        if let Some(native) = row.natives.first().cloned() {
            row.natives.resize(self.grid.len, native);
        }
        Ok(true)
    }
}
