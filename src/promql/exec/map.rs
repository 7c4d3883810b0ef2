//! Element-wise work: functions of one value, negation, and operators between a vector and a scalar.

use super::calendar;
use super::number::{arithmetic, compare, max, min};
use super::{ABSENT, Grid, Op, Operator, Row, present};
use crate::Error;
use crate::parse::BinaryOp;
use crate::plan::MapFn;

/// `abs(v)`, `clamp(v, a, b)`, `hour(v)` ...
pub(crate) struct MapOp<'a> {
    pub(crate) input: Op<'a>,
    pub(crate) grid: Grid,
    pub(crate) function: MapFn,
    /// Scalar arguments, per step.
    pub(crate) params: Vec<Vec<f64>>,
}

impl Operator for MapOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        while self.input.next(row)? {
            for (step, value) in row.values.iter_mut().enumerate() {
                if present(*value) {
                    *value = self.apply(step, *value);
                }
            }
            row.drop_name = true;
            if !row.is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl MapOp<'_> {
    fn apply(&self, step: usize, v: f64) -> f64 {
        use MapFn::*;
        let param = |at: usize| self.params.get(at).map(|values| values[step]);
        let or_nan = |at: usize| param(at).unwrap_or(f64::NAN);
        match self.function {
            Abs => v.abs(),
            Acos => v.acos(),
            Acosh => v.acosh(),
            Asin => v.asin(),
            Asinh => v.asinh(),
            Atan => v.atan(),
            Atanh => v.atanh(),
            Ceil => v.ceil(),
            Clamp => {
                let (low, high) = (or_nan(0), or_nan(1));
                if high < low { ABSENT } else { max(low, min(high, v)) }
            }
            ClampMax => min(or_nan(0), v),
            ClampMin => max(or_nan(0), v),
            Cos => v.cos(),
            Cosh => v.cosh(),
            Deg => v * 180.0 / std::f64::consts::PI,
            Exp => v.exp(),
            Floor => v.floor(),
            HistogramOnly => ABSENT,
            Ln => v.ln(),
            Log10 => v.log10(),
            Log2 => v.log2(),
            Rad => v * std::f64::consts::PI / 180.0,
            Round => {
                // As Prometheus: by the inverse, which keeps more digits than a division.
                let inverse = 1.0 / param(0).unwrap_or(1.0);
                (v * inverse + 0.5).floor() / inverse
            }
            Sgn if v < 0.0 => -1.0,
            Sgn if v > 0.0 => 1.0,
            Sgn => v,
            Sin => v.sin(),
            Sinh => v.sinh(),
            Sqrt => v.sqrt(),
            Tan => v.tan(),
            Tanh => v.tanh(),
            Timestamp => self.grid.time(step) as f64 / 1000.0,
            DayOfMonth | DayOfWeek | DayOfYear | DaysInMonth | Hour | Minute | Month | Year => {
                calendar::field(self.function, v)
            }
        }
    }
}

/// `-v`.
pub(crate) struct NegateOp<'a>(pub(crate) Op<'a>);

impl Operator for NegateOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if !self.0.next(row)? {
            return Ok(false);
        }
        for value in row.values.iter_mut().filter(|v| present(**v)) {
            *value = -*value;
        }
        row.drop_name = true;
        Ok(true)
    }
}

/// `vector op scalar` and `scalar op vector`.
pub(crate) struct VectorScalarOp<'a> {
    pub(crate) input: Op<'a>,
    pub(crate) op: BinaryOp,
    pub(crate) returns_bool: bool,
    pub(crate) scalar: Vec<f64>,
    pub(crate) scalar_left: bool,
}

impl Operator for VectorScalarOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        while self.input.next(row)? {
            for (value, scalar) in row.values.iter_mut().zip(&self.scalar) {
                if present(*value) {
                    let (a, b) = if self.scalar_left { (*scalar, *value) } else { (*value, *scalar) };
                    *value = match compare(self.op, a, b) {
                        None => arithmetic(self.op, a, b),
                        Some(hit) if self.returns_bool => f64::from(u8::from(hit)),
                        // A filter keeps the vector's value, on whichever side it stands.
                        Some(true) => *value,
                        Some(false) => ABSENT,
                    };
                }
            }
            if self.returns_bool || !self.op.is_comparison() {
                row.drop_name = true;
            }
            if !row.is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
