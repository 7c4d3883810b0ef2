//! Scalars: one value per step, and vectors made of one.

use super::number::{max, min, scalar_op};
use super::{ABSENT, Grid, Op, Operator, Row, Run, build, present};
use crate::Error;
use crate::plan::Node;

/// The values of a scalar node at each step.
pub(crate) fn scalar(node: &Node, grid: Grid, run: &Run<'_>) -> Result<Vec<f64>, Error> {
    Ok(match node {
        Node::Number(v) => vec![*v; grid.len],
        Node::Time => (0..grid.len).map(|at| grid.time(at) as f64 / 1000.0).collect(),
        Node::ScalarNegate(inner) => {
            let mut values = scalar(inner, grid, run)?;
            values.iter_mut().for_each(|v| *v = -*v);
            values
        }
        Node::ScalarBinary { op, lhs, rhs } => {
            let mut left = scalar(lhs, grid, run)?;
            let right = scalar(rhs, grid, run)?;
            left.iter_mut().zip(right).for_each(|(a, b)| *a = scalar_op(*op, *a, b));
            left
        }
        Node::ScalarExtreme { greatest, lhs, rhs } => {
            let mut left = scalar(lhs, grid, run)?;
            let right = scalar(rhs, grid, run)?;
            let pick = if *greatest { max } else { min };
            left.iter_mut().zip(right).for_each(|(a, b)| *a = pick(*a, b));
            left
        }
        Node::Invariant(inner) => {
            let once = run.trace.repeated(grid.len, || scalar(inner, grid.first(), run))?;
            vec![once.first().copied().unwrap_or(f64::NAN); grid.len]
        }
        Node::ScalarOf(inner) => {
            let mut op = build(inner, grid, run)?;
            let mut values = vec![ABSENT; grid.len];
            let mut several = vec![false; grid.len];
            let mut row = Row::default();
            while op.next(&mut row)? {
                for (at, v) in row.values.iter().enumerate().filter(|(_, v)| present(**v)) {
                    several[at] |= present(values[at]);
                    values[at] = *v;
                }
            }
            for (value, several) in values.iter_mut().zip(several) {
                if several || !present(*value) {
                    *value = f64::NAN;
                }
            }
            values
        }
        _ => return Err(Error::execution("a scalar is expected here")),
    })
}

/// `vector(scalar)`: one series without labels.
pub(crate) struct VectorOf(pub(crate) Option<Vec<f64>>);

impl Operator for VectorOf {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        match self.0.take() {
            Some(values) if !values.is_empty() => {
                *row = Row::floats(model::Labels::empty(), false, values);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// `absent(...)`: 1 at the steps at which no series of the input has a value.
pub(crate) struct AbsentOp<'a> {
    pub(crate) input: Option<Op<'a>>,
    pub(crate) labels: model::Labels,
    pub(crate) grid: Grid,
}

impl Operator for AbsentOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        let Some(mut input) = self.input.take() else { return Ok(false) };
        let mut values = vec![1.0; self.grid.len];
        while input.next(row)? {
            for (_, out) in values.iter_mut().enumerate().filter(|(step, _)| row.has(*step)) {
                *out = ABSENT;
            }
        }
        *row = Row::floats(self.labels.clone(), false, values);
        Ok(!row.is_blank())
    }
}
