//! `and`, `or`, `unless`: series of one vector kept by the presence of series in the other.

use super::distinct::unite;
use super::group::Groups;
use super::join::signature;
use super::run::{Ready, Rows};
use super::{Grid, Op, Operator, Row, Run};
use crate::Error;
use crate::parse::{BinaryOp, Matching};

pub(crate) struct SetOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) op: BinaryOp,
    pub(crate) matching: Matching,
    pub(crate) sides: Option<(Op<'a>, Op<'a>)>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for SetOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some((lhs, rhs)) = self.sides.take() {
            let lhs = self.run.collect(lhs)?;
            let rhs = self.run.collect(rhs)?;
            self.ready = Some(Ready::new(self.combine(lhs, rhs)?));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> SetOp<'a> {
    fn combine(&self, mut lhs: Rows<'a>, mut rhs: Rows<'a>) -> Result<Rows<'a>, Error> {
        match self.op {
            BinaryOp::And => self.mask(&mut lhs, &rhs, true)?,
            BinaryOp::Unless => self.mask(&mut lhs, &rhs, false)?,
            _ => {
                self.mask(&mut rhs, &lhs, false)?;
                let (mut rest, mut row) = (Ready::new(rhs), Row::default());
                while rest.next(&mut row)? {
                    lhs.push(self.run, std::mem::take(&mut row))?;
                }
                unite(self.run, &mut lhs, false)?;
            }
        }
        Ok(lhs)
    }

    /// Keeps the values of `rows` where a series of `by` with the same signature is there, or is not.
    fn mask(&self, rows: &mut Rows<'_>, by: &Rows<'_>, wanted: bool) -> Result<(), Error> {
        let len = self.grid.len;
        let mut held = self.run.hold(0, 0)?;
        let mut groups = Groups::default();
        let mut there: Vec<bool> = Vec::new();
        for row in &by.rows {
            let (group, new) = groups.id(signature(&self.matching, &row.labels));
            if new {
                there.resize(there.len() + len, false);
                held.cover(self.run, 0, groups.bytes() + there.capacity())?;
            }
            there[group * len..][..len].iter_mut().enumerate().for_each(|(step, t)| *t |= row.has(step));
        }
        for row in &mut rows.rows {
            match groups.find(&signature(&self.matching, &row.labels)) {
                Some(group) => {
                    for (step, there) in there[group * len..][..len].iter().enumerate() {
                        if *there != wanted {
                            row.clear(step);
                        }
                    }
                }
                None if wanted => (0..len).for_each(|step| row.clear(step)),
                None => {}
            }
        }
        rows.rows.retain(|row| !row.is_blank());
        Ok(())
    }
}
