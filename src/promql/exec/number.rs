//! Arithmetic on floats exactly as Prometheus does it.

use crate::parse::BinaryOp;

/// Kahan's compensated sum in Neumaier's variant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kahan {
    pub(crate) sum: f64,
    pub(crate) c: f64,
}

impl Kahan {
    pub(crate) fn new(sum: f64) -> Kahan {
        Kahan { sum, c: 0.0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.c = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.c += (self.sum - total) + value;
        } else {
            self.c += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// As [`Kahan::add`], without a branch: the rounding error is the same to the bit as long as the sum is finite.
    /// Where it is not, neither is what comes of it.
    #[inline]
    pub(crate) fn add_finite(&mut self, value: f64) {
        let total = self.sum + value;
        let added = total - self.sum;
        self.c += (self.sum - (total - added)) + (value - added);
        self.sum = total;
    }

    pub(crate) fn is_finite(self) -> bool {
        self.sum.is_finite() && self.c.is_finite()
    }

    /// The mean of so many values of which this is the sum.
    pub(crate) fn mean_of(self, count: usize) -> f64 {
        let count = count as f64;
        self.sum / count + self.c / count
    }

    /// Adds another sum with what it has compensated.
    pub(crate) fn absorb(&mut self, other: Kahan) {
        self.add(other.sum);
        self.c += other.c;
    }

    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.c }
    }
}

/// A mean that is a plain compensated sum until that overflows, and incremental from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    kahan: Kahan,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub(crate) fn new(first: f64) -> Mean {
        Mean { kahan: Kahan::new(first), count: 1.0, incremental: false }
    }

    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let count = self.count;
        if !self.incremental {
            let mut next = self.kahan;
            next.add(value);
            if !next.sum.is_infinite() {
                self.kahan = next;
                return;
            }
            self.incremental = true;
            self.kahan.sum /= count - 1.0;
            self.kahan.c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        self.kahan = Kahan { sum: q * self.kahan.sum, c: q * self.kahan.c };
        self.kahan.add(value / count);
    }

    pub(crate) fn value(&self) -> f64 {
        if self.incremental {
            self.kahan.sum + self.kahan.c
        } else {
            self.kahan.sum / self.count + self.kahan.c / self.count
        }
    }
}

/// Arithmetic, or comparison as 0 and 1.
pub(crate) fn scalar_op(op: BinaryOp, a: f64, b: f64) -> f64 {
    match compare(op, a, b) {
        Some(hit) => f64::from(u8::from(hit)),
        None => arithmetic(op, a, b),
    }
}

/// The value of an arithmetic operator.
#[inline]
pub(crate) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => pow(a, b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => f64::NAN,
    }
}

/// Go's Pow: 1 to any power and anything to the power of 0 are 1, as in IEEE 754.
fn pow(a: f64, b: f64) -> f64 {
    a.powf(b)
}

/// Whether a comparison holds; none for other operators.
#[inline]
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> Option<bool> {
    Some(match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Lt => a < b,
        BinaryOp::Le => a <= b,
        BinaryOp::Gt => a > b,
        BinaryOp::Ge => a >= b,
        _ => return None,
    })
}

/// The lesser; NaN if either is, but -Inf is less than that, as Go has it.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The greater; NaN if either is, but +Inf is greater than that.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}

/// The q-quantile of `values`, which are sorted here, NaN first.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
    });
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// Whether two floats are equal within a relative tolerance, as Prometheus's `almost.Equal`.
pub(crate) fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    const MIN_NORMAL: f64 = f64::MIN_POSITIVE;
    match (model::is_stale(a), model::is_stale(b)) {
        (true, true) => return true,
        (true, false) | (false, true) => return false,
        _ => {}
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < MIN_NORMAL {
        return diff < epsilon * MIN_NORMAL;
    }
    diff / sum.min(f64::MAX) < epsilon
}

/// A float as Go's `FormatFloat(v, 'f', -1, 64)` writes it.
pub(crate) fn format_float(v: f64) -> String {
    match v {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => format!("{v}"),
    }
}

/// A float as Go's `%g` writes it: with an exponent below 10^-4 and from 10^6 on.
pub(crate) fn format_general(v: f64) -> String {
    if v == 0.0 || !v.is_finite() || (1e-4..1e6).contains(&v.abs()) {
        return format_float(v);
    }
    let text = format!("{v:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, number) = match exponent.strip_prefix('-') {
                Some(number) => ('-', number),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{number:0>2}")
        }
        None => text,
    }
}

/// A float as a label value, as OpenMetrics writes it: integers end in `.0`.
pub(crate) fn format_label_float(v: f64) -> String {
    let text = format_general(v);
    if v.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compensated() {
        let mut sum = Kahan::default();
        for v in [1e100, 1.0, -1e100, 1.0] {
            sum.add(v);
        }
        assert_eq!(sum.total(), 2.0);
        let mut mean = Mean::new(f64::MAX);
        mean.add(f64::MAX);
        assert_eq!(mean.value(), f64::MAX);
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(0.25, &mut [1.0, 2.0]), 1.25);
        assert_eq!(quantile(1.5, &mut [1.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }

    #[test]
    fn extremes_of_nan() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        assert_eq!((max(inf, nan), min(nan, -inf), max(1.0, 2.0), min(1.0, 2.0)), (inf, -inf, 2.0, 1.0));
        assert!(max(nan, -inf).is_nan() && min(1.0, nan).is_nan());
    }

    #[test]
    fn tolerance() {
        assert!(almost_equal(1.0, 1.0 + 1e-9, 1e-6));
        assert!(!almost_equal(0.0, 1e-9, 1e-6));
        assert!(almost_equal(f64::NAN, f64::NAN, 1e-6));
    }
}
