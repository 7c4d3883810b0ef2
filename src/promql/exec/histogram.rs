//! Quantiles and fractions of histograms: of classic ones from their cumulative buckets, of native ones by themselves.

use std::ops::Range;

use hashbrown::HashMap;
use model::Labels;

use super::aggregate::warn_quantile;
use super::group::Groups;
use super::number::{almost_equal, format_label_float};
use super::run::{Ready, Rows};
use super::{ABSENT, Grid, Native, Op, Operator, Row, Run, present, without_name};
use crate::native::Skew;
use crate::{Error, native};

/// Differences between neighbouring buckets below this fraction are floating point noise.
const TOLERANCE: f64 = 1e-12;

/// An upper bound and the observations up to it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// What is asked of the buckets; values per step.
pub(crate) enum Question {
    Quantile {
        q: Vec<f64>,
        range: Range<usize>,
    },
    /// Several quantiles, each result marked by a label.
    Quantiles {
        label: String,
        qs: Vec<(Vec<f64>, Range<usize>)>,
    },
    Fraction {
        lower: Vec<f64>,
        upper: Vec<f64>,
    },
}

pub(crate) struct HistogramOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) question: Question,
    /// Where the vector stands.
    pub(crate) range: Range<usize>,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for HistogramOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            self.ready = Some(self.answer(input)?);
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> HistogramOp<'a> {
    fn answer(&self, input: Op<'a>) -> Result<Ready<'a>, Error> {
        let rows = self.run.collect(input)?;
        let mut groups = Groups::default();
        // Bounds and rows of each histogram.
        let mut members: Vec<Vec<(f64, usize)>> = Vec::new();
        let mut native_rows: Vec<usize> = Vec::new();
        for (at, row) in rows.rows.iter().enumerate() {
            if !row.natives.is_empty() {
                native_rows.push(at);
                if !row.values.iter().any(|v| present(*v)) {
                    continue;
                }
            }
            let le = row.labels.value("le");
            let Some(upper) = parse_bound(le) else {
                let name = row.labels.metric_name();
                let of_metric = of_metric(name);
                self.run.warn(
                    &self.range,
                    format_args!(
                        "bucket label \"le\" is missing or has a malformed value of {le:?}{of_metric}"
                    ),
                );
                continue;
            };
            let (group, new) = groups.id(row.labels.filter(|name| name != "le"));
            if new {
                members.push(Vec::new());
            }
            members[group].push((upper, at));
        }
        let mut out = Rows::empty(self.run)?;
        let mut buckets = Vec::new();
        // Groups that are a native histogram too are not evaluated at those steps.
        let mut both: HashMap<usize, Vec<usize>> = HashMap::new();
        for at in &native_rows {
            if let Some(group) = groups.find(&rows.rows[*at].labels) {
                both.entry(group).or_default().push(*at);
            }
        }
        match &self.question {
            Question::Quantile { q, range } => q.iter().for_each(|q| warn_quantile(self.run, *q, range)),
            Question::Quantiles { qs, .. } => {
                qs.iter().for_each(|(q, range)| q.iter().for_each(|q| warn_quantile(self.run, *q, range)))
            }
            Question::Fraction { .. } => {}
        }
        for (group, bounds) in members.iter_mut().enumerate() {
            self.run.check()?;
            bounds.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
            let labels = &groups.labels[group];
            let dropped = rows.rows[bounds[0].1].drop_name;
            let answers = match &self.question {
                Question::Quantiles { qs, .. } => qs.len(),
                _ => 1,
            };
            let mut values = vec![vec![ABSENT; self.grid.len]; answers];
            for step in 0..self.grid.len {
                buckets.clear();
                buckets.extend(
                    bounds
                        .iter()
                        .map(|&(upper, at)| Bucket { upper, count: rows.rows[at].values[step] })
                        .filter(|b| present(b.count)),
                );
                if buckets.is_empty() {
                    continue;
                }
                let natives = both.get(&group).map_or(&[][..], |rows| &rows[..]);
                if natives.iter().any(|at| rows.rows[*at].native(step).is_some()) {
                    continue;
                }
                coalesce(&mut buckets);
                for (at, values) in values.iter_mut().enumerate() {
                    values[step] = match &self.question {
                        Question::Quantile { q, .. } => self.quantile(q[step], &mut buckets, labels),
                        Question::Quantiles { qs, .. } => self.quantile(qs[at].0[step], &mut buckets, labels),
                        Question::Fraction { lower, upper } => fraction(lower[step], upper[step], &buckets),
                    };
                }
            }
            for (at, values) in values.into_iter().enumerate() {
                let (labels, drop_name) = self.labels(labels, dropped, at)?;
                out.push(self.run, Row::floats(labels, drop_name, values))?;
            }
        }
        for at in native_rows {
            self.run.check()?;
            let classic = groups.find(&rows.rows[at].labels);
            let members = classic.map_or(&[][..], |group| &members[group][..]);
            self.natives(&rows.rows, at, members, &mut out)?;
        }
        Ok(Ready::new(out))
    }

    /// Labels of the answer number `at`, and whether its name is to be dropped.
    fn labels(&self, labels: &Labels, dropped: bool, at: usize) -> Result<(Labels, bool), Error> {
        let Question::Quantiles { label, qs } = &self.question else { return Ok((labels.clone(), true)) };
        let q = qs[at].0.first().copied().unwrap_or(f64::NAN);
        let mut builder = without_name(labels).to_builder();
        builder.set(label, &format_label_float(q));
        let labels = builder.finish().map_err(|e| Error::execution(format!("labels of a quantile: {e}")))?;
        Ok((labels, dropped))
    }

    /// The answers for the native histograms of one row.
    fn natives(
        &self,
        rows: &[Row],
        at: usize,
        classic: &[(f64, usize)],
        out: &mut Rows<'a>,
    ) -> Result<(), Error> {
        let row = &rows[at];
        let answers = match &self.question {
            Question::Quantiles { qs, .. } => qs.len(),
            _ => 1,
        };
        let mut values = vec![vec![ABSENT; self.grid.len]; answers];
        for (step, h) in row.natives.iter().enumerate() {
            let Some(h) = h else { continue };
            if classic.iter().any(|(_, at)| present(rows[*at].values[step])) {
                let of_metric = of_metric(row.labels.metric_name());
                self.run.warn(
                    &self.range,
                    format_args!("vector contains a mix of classic and native histograms{of_metric}"),
                );
                continue;
            }
            for (at, values) in values.iter_mut().enumerate() {
                values[step] = self.native(h, at, step, row.labels.metric_name());
            }
        }
        for (at, values) in values.into_iter().enumerate() {
            let (labels, drop_name) = self.labels(&row.labels, row.drop_name, at)?;
            out.push(self.run, Row::floats(labels, drop_name, values))?;
        }
        Ok(())
    }

    fn native(&self, h: &Native, at: usize, step: usize, name: &str) -> f64 {
        let (value, skew) = match &self.question {
            Question::Quantile { q, .. } => native::quantile(q[step], h),
            Question::Quantiles { qs, .. } => native::quantile(qs[at].0[step], h),
            Question::Fraction { lower, upper } => native::fraction(lower[step], upper[step], h),
        };
        let fraction = matches!(self.question, Question::Fraction { .. });
        let what = match skew {
            Skew::None => return value,
            _ if fraction => "histogram_fraction has NaN observations, which are excluded from all fractions",
            Skew::Result => "histogram_quantile has NaN observations, result is NaN",
            Skew::Skewed => "histogram_quantile has NaN observations, result is skewed higher",
        };
        self.run.info(&self.range, format_args!("input to {what}{}", of_metric(name)));
        value
    }

    fn quantile(&self, q: f64, buckets: &mut [Bucket], labels: &Labels) -> f64 {
        let (value, forced) = quantile(q, buckets);
        if forced {
            let of_metric = of_metric(labels.metric_name());
            self.run.info(
                &self.range,
                format_args!(
                    "input to histogram_quantile needed to be fixed for monotonicity (see \
                     https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)\
                     {of_metric}"
                ),
            );
        }
        value
    }
}

fn of_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") }
}

/// The value of `le`, as Go's ParseFloat reads it.
fn parse_bound(text: &str) -> Option<f64> {
    let plain = text.trim_start_matches(['+', '-']);
    match plain.to_ascii_lowercase().as_str() {
        "inf" | "infinity" if text.len() - plain.len() <= 1 => {
            Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        _ => text.parse().ok(),
    }
}

/// Unites neighbours of equal bounds.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Makes counts rise; whether a drop beyond noise had to be removed.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        if almost_equal(before, bucket.count, TOLERANCE) {
            bucket.count = before;
        } else if bucket.count < before {
            bucket.count = before;
            forced = true;
        } else {
            before = bucket.count;
        }
    }
    forced
}

/// The quantile by linear interpolation within its bucket, and whether the buckets had to be forced.
fn quantile(q: f64, buckets: &mut [Bucket]) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    let last = buckets.len() - 1;
    if buckets[last].upper != f64::INFINITY {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    if last == 0 || buckets[last].count == 0.0 {
        return (f64::NAN, false);
    }
    let mut rank = q * buckets[last].count;
    // Where a count is NaN no bucket reaches the rank, or the halves decide which does.
    let at = first_of(last, |at| buckets[at].count >= rank);
    if at == last {
        return (buckets[last - 1].upper, forced);
    }
    let Bucket { upper, mut count } = buckets[at];
    let mut lower = 0.0;
    if at == 0 {
        if upper <= 0.0 {
            return (upper, forced);
        }
    } else {
        let below = buckets[at - 1];
        lower = below.upper;
        count -= below.count;
        rank -= below.count;
    }
    (lower + (upper - lower) * (rank / count), forced)
}

/// The first place below `end` that is `there`, else `end`: by halves, as Go's `sort.Search` looks for it even where
/// what lies behind the first is not all there.
fn first_of(end: usize, there: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = (low + high) / 2;
        if there(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The fraction of observations between two values.
fn fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    let last = buckets[buckets.len() - 1];
    if last.upper != f64::INFINITY || last.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let total = last.count;
    let below = |value: f64| {
        let mut rank = 0.0;
        let mut from = f64::NEG_INFINITY;
        for bucket in buckets {
            if from >= value {
                return rank;
            }
            if bucket.upper > value {
                // Within an infinitely wide bucket there is nothing to interpolate by.
                return if from == f64::NEG_INFINITY {
                    // The lowest bucket begins at 0 where its bound is positive.
                    if bucket.upper > 0.0 && value >= 0.0 {
                        bucket.count * (value / bucket.upper)
                    } else if bucket.upper > 0.0 {
                        0.0
                    } else {
                        bucket.count
                    }
                } else {
                    rank + (bucket.count - rank) * (value - from) / (bucket.upper - from)
                };
            }
            rank = bucket.count;
            from = bucket.upper;
        }
        total
    };
    (below(upper).min(total) - below(lower).min(total)) / total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[f64]) -> Vec<Bucket> {
        let uppers = [1.0, 2.0, 4.0, f64::INFINITY];
        uppers.iter().zip(counts).map(|(&upper, &count)| Bucket { upper, count }).collect()
    }

    #[test]
    fn interpolates() {
        assert_eq!(quantile(0.5, &mut buckets(&[0.0, 10.0, 20.0, 20.0])), (2.0, false));
        assert_eq!(quantile(0.75, &mut buckets(&[0.0, 10.0, 20.0, 20.0])), (3.0, false));
        assert_eq!(quantile(1.0, &mut buckets(&[0.0, 10.0, 20.0, 30.0])), (4.0, false));
        assert_eq!(quantile(0.5, &mut buckets(&[10.0, 5.0, 20.0, 20.0])), (1.0, true));
        assert!(quantile(0.5, &mut buckets(&[1.0, 2.0])).0.is_nan());
    }

    #[test]
    fn nan_counts_reach_no_rank() {
        const NAN: f64 = f64::NAN;
        assert_eq!(quantile(0.5, &mut buckets(&[NAN; 4])), (4.0, false), "the highest finite bound");
        assert_eq!(quantile(0.5, &mut buckets(&[1.0, 2.0, 3.0, NAN])), (4.0, false));
        // The middle one is asked first, and does not reach the rank.
        assert!(quantile(0.1, &mut buckets(&[10.0, NAN, 20.0, 20.0])).0.is_nan());
        assert_eq!(quantile(0.5, &mut buckets(&[2.0, 1.0, 0.0, 0.0])), (0.5, true), "fixed before");
        let (none, forced) = quantile(0.5, &mut buckets(&[0.0, -1.0, 0.0, 0.0]));
        assert!(none.is_nan() && !forced, "nothing is said of an answer that is none");
    }

    #[test]
    fn fractions() {
        let b = buckets(&[0.0, 10.0, 20.0, 20.0]);
        assert_eq!(fraction(1.0, 2.0, &b), 0.5);
        assert_eq!(fraction(f64::NEG_INFINITY, 3.0, &b), 0.75);
        assert_eq!(fraction(3.0, f64::INFINITY, &b), 0.25);
    }
}
