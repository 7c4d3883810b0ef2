//! Compensated sums and means of many histograms.

use std::cmp::Ordering;
use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{ResetHint, spans_of};

use super::arith::{
    Incompatible, Met, coarse_index, common_bounds, hint_of_both, rebound_index, same_bounds,
};
use super::bounds::exponential;
use super::buckets::counts;
use super::{arith, is_custom};
use crate::exec::Kahan;

type Side = Vec<(i32, Kahan)>;

/// A sum in the making: a compensated one of each count.
#[derive(Clone, Debug)]
pub(crate) struct Total {
    schema: i32,
    zero_threshold: f64,
    hint: ResetHint,
    custom: Arc<[f64]>,
    zero: Kahan,
    count: Kahan,
    sum: Kahan,
    up: Side,
    down: Side,
}

impl Total {
    pub(crate) fn new(h: &FloatHistogram) -> Total {
        let side = |spans, buckets| counts(spans, buckets).map(|(i, n)| (i, Kahan::new(n))).collect();
        Total {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            hint: h.hint,
            custom: h.custom_values.clone(),
            zero: Kahan::new(h.zero_count),
            count: Kahan::new(h.count),
            sum: Kahan::new(h.sum),
            up: side(&h.positive_spans, &h.positive_counts),
            down: side(&h.negative_spans, &h.negative_counts),
        }
    }

    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<Met, Incompatible> {
        if (self.schema == model::histogram::CUSTOM_BUCKETS) != is_custom(h) {
            return Err(Incompatible);
        }
        let (hint, collision) = hint_of_both(self.hint, h.hint);
        self.hint = hint;
        let mut met = Met { collision, reconciled: false };
        let custom = is_custom(h);
        if custom {
            if !same_bounds(&self.custom, &h.custom_values) {
                met.reconciled = true;
                let common = common_bounds(&self.custom, &h.custom_values);
                self.up.iter_mut().for_each(|(i, _)| *i = rebound_index(*i, &self.custom, &common));
                join(&mut self.up);
                self.custom = common;
            }
            let map = |i| rebound_index(i, &h.custom_values, &self.custom);
            put(&mut self.up, counts(&h.positive_spans, &h.positive_counts).map(|(i, n)| (map(i), n)));
        } else {
            let zero = self.reconcile_zero(h);
            self.zero.add(zero);
            let schema = self.schema.min(h.schema);
            for side in [&mut self.up, &mut self.down] {
                if self.schema > schema {
                    side.iter_mut().for_each(|(i, _)| *i = coarse_index(*i, self.schema, schema));
                    join(side);
                }
            }
            self.schema = schema;
            let threshold = self.zero_threshold;
            let outside = |(i, n): (i32, f64)| {
                let index = coarse_index(i, h.schema, schema);
                (threshold == 0.0 || exponential(index, schema) > threshold).then_some((index, n))
            };
            put(&mut self.up, counts(&h.positive_spans, &h.positive_counts).filter_map(outside));
            put(&mut self.down, counts(&h.negative_spans, &h.negative_counts).filter_map(outside));
        }
        self.count.add(h.count);
        self.sum.add(h.sum);
        Ok(met)
    }

    /// Brings both to one zero bucket; the other's count of it.
    fn reconcile_zero(&mut self, h: &FloatHistogram) -> f64 {
        let (mut count, mut threshold) = (h.zero_count, h.zero_threshold);
        while threshold.partial_cmp(&self.zero_threshold).is_some_and(Ordering::is_ne) {
            if self.zero_threshold > threshold {
                (count, threshold) = arith::zero_count_up_to(h, self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (_, wider) = arith::zero_count_up_to(&self.value(), threshold);
                self.zero_threshold = wider;
                let (zero, schema) = (&mut self.zero, self.schema);
                for side in [&mut self.up, &mut self.down] {
                    side.retain(|(index, n)| {
                        let inside = exponential(index - 1, schema) < wider;
                        if inside {
                            zero.absorb(*n);
                        }
                        !inside
                    });
                }
            }
        }
        count
    }

    fn each(&mut self, f: impl Fn(&mut Kahan)) {
        [&mut self.zero, &mut self.count, &mut self.sum].into_iter().for_each(&f);
        self.up.iter_mut().chain(&mut self.down).for_each(|(_, n)| f(n));
    }

    fn overflows(&self) -> bool {
        [&self.zero, &self.count, &self.sum].into_iter().any(|k| k.sum.is_infinite())
            || self.up.iter().chain(&self.down).any(|(_, n)| n.sum.is_infinite())
    }

    fn value(&self) -> FloatHistogram {
        self.map(|k| k.total())
    }

    fn map(&self, f: impl Fn(Kahan) -> f64) -> FloatHistogram {
        let spans = |side: &Side| spans_of(side.iter().map(|(i, _)| *i));
        let buckets = |side: &Side| side.iter().map(|(_, n)| f(*n)).collect();
        FloatHistogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: f(self.zero),
            count: f(self.count),
            sum: f(self.sum),
            hint: self.hint,
            positive_spans: spans(&self.up),
            negative_spans: spans(&self.down),
            positive_counts: buckets(&self.up),
            negative_counts: buckets(&self.down),
            custom_values: self.custom.clone(),
        }
    }

    /// The sum.
    pub(crate) fn finish(&self) -> FloatHistogram {
        self.value()
    }
}

/// Adds buckets of ascending indices (equal ones next to one another).
fn put(side: &mut Side, buckets: impl Iterator<Item = (i32, f64)>) {
    let mut at = 0;
    for (index, n) in buckets {
        while side.get(at).is_some_and(|s| s.0 < index) {
            at += 1;
        }
        match side.get_mut(at) {
            Some((found, sum)) if *found == index => sum.add(n),
            _ => side.insert(at, (index, Kahan::new(n))),
        }
    }
}

fn join(side: &mut Side) {
    side.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1.absorb(next.1);
        }
        same
    });
}

/// A mean that is a sum until that overflows, and incremental from there on.
#[derive(Clone, Debug)]
pub(crate) struct NativeMean {
    total: Total,
    count: f64,
    incremental: bool,
}

impl NativeMean {
    pub(crate) fn new(h: &FloatHistogram) -> NativeMean {
        NativeMean { total: Total::new(h), count: 1.0, incremental: false }
    }

    pub(crate) fn add(&mut self, h: &FloatHistogram) -> Result<Met, Incompatible> {
        self.count += 1.0;
        let count = self.count;
        if !self.incremental {
            let mut next = self.total.clone();
            let met = next.add(h)?;
            if !next.overflows() {
                self.total = next;
                return Ok(met);
            }
            self.incremental = true;
            self.total.each(|k| *k = Kahan { sum: k.sum / (count - 1.0), c: k.c / (count - 1.0) });
        }
        let q = (count - 1.0) / count;
        self.total.each(|k| *k = Kahan { sum: k.sum * q, c: k.c * q });
        let mut part = h.clone();
        arith::divide(&mut part, count);
        self.total.add(&part)
    }

    pub(crate) fn finish(&self) -> FloatHistogram {
        match self.incremental {
            true => self.total.map(|k| k.sum + k.c),
            false => self.total.map(|k| k.sum / self.count + k.c / self.count),
        }
    }
}
