//! Element-wise work: functions of one value, negation, and operators between a vector and a scalar.

use std::ops::Range;
use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::ResetHint;

use super::calendar;
use super::number::{arithmetic, compare, max, min};
use super::{ABSENT, Cell, CellRef, Grid, Native, Op, Operator, Row, Run, present};
use crate::parse::BinaryOp;
use crate::plan::MapFn;
use crate::{Error, native};

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
            self.natives(row);
            row.drop_name = true;
            if !row.is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl MapOp<'_> {
    /// Most functions know floats only; of histograms nothing is left.
    fn natives(&self, row: &mut Row) {
        for (step, h) in std::mem::take(&mut row.natives).into_iter().enumerate() {
            let Some(h) = h else { continue };
            row.values[step] = match self.function {
                MapFn::Timestamp => self.grid.time(step) as f64 / 1000.0,
                MapFn::HistogramCount => h.count,
                MapFn::HistogramSum => h.sum,
                MapFn::HistogramAvg => h.sum / h.count,
                MapFn::HistogramStddev => native::variance(&h).sqrt(),
                MapFn::HistogramStdvar => native::variance(&h),
                _ => ABSENT,
            };
        }
    }

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
            HistogramAvg | HistogramCount | HistogramStddev | HistogramStdvar | HistogramSum => ABSENT,
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
            StartTimestamp => ABSENT,
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
        row.natives.iter_mut().flatten().for_each(|h| native::scale(Arc::make_mut(h), -1.0));
        row.drop_name = true;
        Ok(true)
    }
}

/// `vector op scalar` and `scalar op vector`.
pub(crate) struct VectorScalarOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) input: Op<'a>,
    pub(crate) op: BinaryOp,
    pub(crate) returns_bool: bool,
    pub(crate) scalar: Vec<f64>,
    pub(crate) scalar_left: bool,
    /// Where the whole expression stands.
    pub(crate) range: Range<usize>,
}

impl Operator for VectorScalarOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        while self.input.next(row)? {
            if self.op.is_trim() {
                self.only_natives(row);
            }
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
            if !row.natives.is_empty() {
                self.natives(row);
            }
            if self.returns_bool || self.op.is_arithmetic() {
                row.drop_name = true;
            }
            if !row.is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl VectorScalarOp<'_> {
    fn natives(&self, row: &mut Row) {
        for step in 0..row.natives.len() {
            let Some(h) = row.natives[step].take() else { continue };
            let (vector, scalar) = (CellRef::Native(&h), CellRef::Float(self.scalar[step]));
            let (a, b) = if self.scalar_left { (scalar, vector) } else { (vector, scalar) };
            if let Ok(Some(cell)) = binary(self.run, self.op, a, b, &self.range) {
                row.put(step, cell);
            }
        }
    }

    /// Floats are no operands of this operator.
    fn only_natives(&self, row: &mut Row) {
        for step in 0..row.values.len() {
            if present(row.values[step]) {
                let (vector, scalar) = (CellRef::Float(row.values[step]), CellRef::Float(self.scalar[step]));
                // There is a note of it, and no value.
                let _ = binary(self.run, self.op, vector, scalar, &self.range);
                row.values[step] = ABSENT;
            }
        }
    }
}

/// The two have no such operator, which has been noted.
pub(crate) struct Refused;

/// `a op b` where at least one is a histogram, or a filter drops it.
pub(crate) fn binary(
    run: &Run<'_>,
    op: BinaryOp,
    a: CellRef<'_>,
    b: CellRef<'_>,
    range: &Range<usize>,
) -> Result<Option<Cell>, Refused> {
    let refuse = || {
        let name = |cell| if let CellRef::Native(_) = cell { "histogram" } else { "float" };
        run.info(
            range,
            format_args!(
                "incompatible sample types encountered for binary operator \"{op}\": {} {op} {}",
                name(a),
                name(b),
                op = op.as_str()
            ),
        );
        Err(Refused)
    };
    let scaled = |h: &Native, change: &dyn Fn(&mut FloatHistogram)| {
        let mut out = (**h).clone();
        change(&mut out);
        native::compact(&mut out);
        Ok(Some(Cell::Native(Arc::new(out))))
    };
    match (a, b) {
        (CellRef::Float(a), CellRef::Native(b)) => match op {
            BinaryOp::Mul => scaled(b, &|h| native::scale(h, a)),
            _ => refuse(),
        },
        (CellRef::Native(a), CellRef::Float(b)) => match op {
            BinaryOp::Mul => scaled(a, &|h| native::scale(h, b)),
            BinaryOp::Div => scaled(a, &|h| native::divide(h, b)),
            BinaryOp::TrimUpper => scaled(a, &|h| *h = native::trim(h, b, true)),
            BinaryOp::TrimLower => scaled(a, &|h| *h = native::trim(h, b, false)),
            _ => refuse(),
        },
        (CellRef::Native(a), CellRef::Native(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => sum(run, op, a, b, range),
            BinaryOp::Eq => Ok(native::equal(a, b).then(|| Cell::Native(a.clone()))),
            BinaryOp::Ne => Ok((!native::equal(a, b)).then(|| Cell::Native(a.clone()))),
            _ => refuse(),
        },
        _ => refuse(),
    }
}

fn sum(
    run: &Run<'_>,
    op: BinaryOp,
    a: &Native,
    b: &Native,
    range: &Range<usize>,
) -> Result<Option<Cell>, Refused> {
    let mut out = (**a).clone();
    let (met, name) = match op {
        BinaryOp::Add => (native::add(&mut out, b), "addition"),
        _ => (native::subtract(&mut out, b), "subtraction"),
    };
    let Ok(met) = met else {
        let what = "incompatible bucket layout encountered for binary operator";
        run.warn(range, format_args!("{what} {}", op.as_str()));
        return Err(Refused);
    };
    if met.collision {
        run.warn(range, format_args!("conflicting counter resets during histogram {name}"));
    }
    if met.reconciled {
        run.info(range, format_args!("mismatched custom buckets were reconciled during {name}"));
    }
    if op == BinaryOp::Sub {
        out.hint = ResetHint::Gauge;
    }
    native::compact(&mut out);
    Ok(Some(Cell::Native(Arc::new(out))))
}
