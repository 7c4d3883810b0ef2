//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`: the order of an instant vector.

use std::cmp::Ordering;

use super::run::Ready;
use super::{Op, Operator, Row, Run};
use crate::Error;
use crate::plan::SortFn;

pub(crate) struct SortOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) function: SortFn,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for SortOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            let (SortFn::Value { range, .. } | SortFn::Label { range, .. }) = &self.function;
            if !self.run.instant {
                self.run.warn(
                    range,
                    "sort is ineffective for range queries since results are always ordered by labels",
                );
            }
            let mut rows = self.run.collect(input)?;
            if let SortFn::Value { .. } = self.function {
                // Histograms have no order.
                rows.rows.iter_mut().for_each(|row| row.natives.clear());
            }
            if self.run.instant {
                rows.rows.sort_by(|a, b| compare(&self.function, a, b));
            }
            self.ready = Some(Ready::new(rows));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

fn compare(function: &SortFn, a: &Row, b: &Row) -> Ordering {
    match function {
        SortFn::Value { descending, .. } => {
            let value = |row: &Row| row.values.first().copied().unwrap_or(f64::NAN);
            let (a, b) = (value(a), value(b));
            // NaN last, whichever the direction.
            match (a.is_nan(), b.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ if *descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
                _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            }
        }
        SortFn::Label { labels, descending, .. } => {
            let by_label = labels
                .iter()
                .map(|name| natural(a.labels.value(name), b.labels.value(name)))
                .find(|order| order.is_ne());
            let order = by_label.unwrap_or_else(|| a.labels.cmp(&b.labels));
            if *descending { order.reverse() } else { order }
        }
    }
}

/// Compares texts with the numbers in them as numbers: `a2` before `a10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (Some(x), Some(y)) = (a.first(), b.first()) else { return a.len().cmp(&b.len()) };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
            let (n, m) = (digits(a), digits(b));
            let significant = |s: &'_ [u8]| s.iter().take_while(|c| **c == b'0').count();
            let (left, right) = (&a[significant(&a[..n])..n], &b[significant(&b[..m])..m]);
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right)).then_with(|| n.cmp(&m));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[n..], &b[m..]);
        } else {
            match x.cmp(y) {
                Ordering::Equal => (a, b) = (&a[1..], &b[1..]),
                order => return order,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        let mut names = ["a10", "a2", "b", "a", "a02"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "a2", "a02", "a10", "b"]);
    }
}
