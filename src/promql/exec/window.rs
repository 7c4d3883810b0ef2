//! The functions of a window: one result per step from the samples in it.
//!
//! # Cost
//! Windows only move forward. Rates, extremes and counts cost O(samples + steps) however much windows overlap;
//! sums, means, deviations, regressions and quantiles look at each window's samples anew, because compensated
//! sums over a sliding window would not give Prometheus's bits.

use std::collections::VecDeque;

use model::Timestamp;

use super::number::{Kahan, Mean, quantile};
use super::stretch::{Stretch, overlaps, started_anew};
use crate::Error;
use crate::plan::{Extend, RangeFn};

/// The samples `low..high` of a series, and the window's borders (start excluded).
pub(crate) struct Window<'w> {
    pub(crate) timestamps: &'w [Timestamp],
    pub(crate) values: &'w [f64],
    /// When the samples' counters began; empty where nothing is known of it.
    pub(crate) starts: &'w [Timestamp],
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// The evaluation time and its index.
    pub(crate) time: Timestamp,
    pub(crate) step: usize,
}

impl Window<'_> {
    fn values(&self) -> &[f64] {
        &self.values[self.low..self.high]
    }

    fn len(&self) -> usize {
        self.high - self.low
    }
}

/// A function with what it keeps while windows move over one series.
#[derive(Clone)]
pub(crate) struct Kernel {
    function: RangeFn,
    extend: Extend,
    /// Scalar arguments, per step.
    params: Vec<Vec<f64>>,
    /// Window length in seconds.
    seconds: f64,
    /// Indices at which a counter fell, or is said to have begun anew.
    falls: Vec<usize>,
    first_fall: usize,
    /// Indices of samples that are said to have begun before the one before them was taken.
    overlaps: Vec<usize>,
    /// Whether such a one has been met.
    overlap: bool,
    /// Number of changes (or falls) before each index.
    counts: Vec<u32>,
    /// Indices of candidates for the extreme, best first.
    extremes: VecDeque<usize>,
    fed: usize,
    scratch: Vec<f64>,
}

impl Kernel {
    pub(crate) fn new(
        function: RangeFn,
        params: Vec<Vec<f64>>,
        window: i64,
        extend: Extend,
    ) -> Result<Kernel, Error> {
        if function == RangeFn::DoubleExponentialSmoothing {
            for (values, what, letters) in [(&params[0], "smoothing", "sf"), (&params[1], "trend", "tf")] {
                if let Some(bad) = values.iter().find(|v| !(**v > 0.0 && **v < 1.0)) {
                    return Err(Error::execution(format!(
                        "invalid {what} factor. Expected: 0 < {letters} < 1, got: {bad:.6}"
                    )));
                }
            }
        }
        Ok(Kernel {
            function,
            extend,
            params,
            seconds: window as f64 / 1000.0,
            falls: Vec::new(),
            first_fall: 0,
            overlaps: Vec::new(),
            overlap: false,
            counts: Vec::new(),
            extremes: VecDeque::new(),
            fed: 0,
            scratch: Vec::new(),
        })
    }

    pub(crate) fn function(&self) -> RangeFn {
        self.function
    }

    pub(crate) fn extend(&self) -> Extend {
        self.extend
    }

    /// Length of the window.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Whether a sample was met that is said to have begun before the one before it was taken; tells it once.
    pub(crate) fn take_overlap(&mut self) -> bool {
        std::mem::take(&mut self.overlap)
    }

    /// A new series begins. `starts` is empty where nothing is known of it.
    pub(crate) fn begin(&mut self, timestamps: &[Timestamp], values: &[f64], starts: &[Timestamp]) {
        let anew = |i: usize| {
            i < starts.len() && started_anew(starts[i - 1], timestamps[i - 1], starts[i], timestamps[i])
        };
        match self.function {
            RangeFn::Rate | RangeFn::Increase => {
                self.falls.clear();
                self.first_fall = 0;
                self.overlaps.clear();
                if starts.is_empty() || self.extend != Extend::No {
                    self.falls.extend((1..values.len()).filter(|&i| values[i] < values[i - 1]));
                } else {
                    self.falls.extend((1..values.len()).filter(|&i| values[i] < values[i - 1] || anew(i)));
                    let overlap = |i: &usize| overlaps(starts[i - 1], timestamps[i - 1], starts[*i]);
                    self.overlaps.extend((1..values.len()).filter(overlap));
                }
            }
            RangeFn::Resets => self.count(values, |i| values[i] < values[i - 1] || anew(i)),
            RangeFn::Changes => self.count(values, |i| {
                let (before, now) = (values[i - 1], values[i]);
                now != before && !(now.is_nan() && before.is_nan())
            }),
            RangeFn::Min | RangeFn::Max => {
                self.extremes.clear();
                self.fed = 0;
            }
            _ => {}
        }
    }

    fn count(&mut self, values: &[f64], hit: impl Fn(usize) -> bool) {
        self.counts.clear();
        let mut total = 0;
        for at in 0..values.len() {
            total += u32::from(at > 0 && hit(at));
            self.counts.push(total);
        }
    }

    /// All results of a series at once, absent where a window is empty, for functions that gain from it; false for
    /// others.
    pub(crate) fn eval_all(&self, values: &[f64], windows: &[(usize, usize)], out: &mut Vec<f64>) -> bool {
        let mean = self.function == RangeFn::Avg;
        if !(mean || self.function == RangeFn::Sum) || self.extend != Extend::No {
            return false;
        }
        for some in windows.chunks(LANES) {
            let sums = kahan_of_each(values, some, mean);
            for ((low, high), sum) in some.iter().zip(sums) {
                let values = &values[*low..*high];
                out.push(match values.split_first() {
                    None => super::ABSENT,
                    // Sums that overflow on their way go another one.
                    Some((first, rest)) if !sum.is_finite() => one_total(*first, rest, mean),
                    Some(_) if mean => sum.mean_of(values.len()),
                    Some(_) => sum.total(),
                });
            }
        }
        true
    }

    /// The result for a window that is not empty; windows come in order.
    pub(crate) fn eval(&mut self, w: &Window<'_>) -> Option<f64> {
        use RangeFn::*;
        if self.extend != Extend::No {
            return self.extended(w);
        }
        let values = w.values();
        Some(match self.function {
            Rate => return self.extrapolated(w, true, true),
            Increase => return self.extrapolated(w, true, false),
            Delta => return self.extrapolated(w, false, false),
            Irate => return instant(w, true),
            Idelta => return instant(w, false),
            Deriv if w.len() < 2 => return None,
            Deriv => regression(w, w.timestamps[w.low]).0,
            PredictLinear if w.len() < 2 => return None,
            PredictLinear => {
                let (slope, intercept) = regression(w, w.time);
                slope * self.params[0][w.step] + intercept
            }
            Resets | Changes => f64::from(self.counts[w.high - 1] - self.counts[w.low]),
            DoubleExponentialSmoothing => return self.smoothing(w),
            Sum => one_total(values[0], &values[1..], false),
            Avg => one_total(values[0], &values[1..], true),
            Min => self.extreme(w, |new, old| new < old),
            Max => self.extreme(w, |new, old| new > old),
            Count => w.len() as f64,
            Stddev => variance(values).sqrt(),
            Stdvar => variance(values),
            Quantile => {
                self.scratch.clear();
                self.scratch.extend_from_slice(values);
                quantile(self.params[0][w.step], &mut self.scratch)
            }
            Mad if values.iter().any(|v| v.is_nan()) => f64::NAN,
            Mad => {
                self.scratch.clear();
                self.scratch.extend_from_slice(values);
                let median = quantile(0.5, &mut self.scratch);
                self.scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
                quantile(0.5, &mut self.scratch)
            }
            First => values[0],
            Last => values[values.len() - 1],
            Present => 1.0,
            TsOfFirst => w.timestamps[w.low] as f64 / 1000.0,
            TsOfLast => w.timestamps[w.high - 1] as f64 / 1000.0,
            TsOfMin => time_of(w, |new, old| new <= old),
            TsOfMax => time_of(w, |new, old| new >= old),
        })
    }

    /// `rate`, `increase` and `delta`: the difference between the last and the first sample, corrected for
    /// counter resets and extrapolated to the window's borders.
    fn extrapolated(&mut self, w: &Window<'_>, counter: bool, rate: bool) -> Option<f64> {
        if w.len() < 2 && w.starts.is_empty() {
            return None;
        }
        let (first, last) = (w.values[w.low], w.values[w.high - 1]);
        let mut result = last - first;
        if counter {
            while self.first_fall < self.falls.len() && self.falls[self.first_fall] <= w.low {
                self.first_fall += 1;
            }
            for &at in self.falls[self.first_fall..].iter().take_while(|at| **at < w.high) {
                result += w.values[at - 1];
            }
        }
        let mut stretch = Stretch::new(w, w.timestamps[w.low], w.timestamps[w.high - 1], w.len() - 1);
        if counter && !w.starts.is_empty() {
            self.overlap |= self.overlaps.iter().any(|at| (w.low + 1..w.high).contains(at));
            stretch.begin_at(w.starts[w.low]);
            if stretch.begins() {
                result += first;
            }
        }
        let mut factor = stretch.factor(counter.then_some((first, result)))?;
        if rate {
            factor /= self.seconds;
        }
        Some(result * factor)
    }

    /// Functions of a window that is extended over its borders: nothing is extrapolated.
    fn extended(&self, w: &Window<'_>) -> Option<f64> {
        let timestamps = &w.timestamps[w.low..w.high];
        let values = w.values();
        let mut last = timestamps.len() - 1;
        // The last sample at or before the start, or the first one.
        let mut first = timestamps[..last].partition_point(|t| *t <= w.start).saturating_sub(1);
        let smoothed = self.extend == Extend::Smoothed;
        if smoothed {
            last = timestamps[..last].partition_point(|t| *t < w.end);
        }
        if timestamps[last] <= w.start || timestamps[first] > w.end {
            return None;
        }
        if matches!(self.function, RangeFn::Changes | RangeFn::Resets) {
            return Some(f64::from(self.counts[w.high - 1] - self.counts[w.low + first]));
        }
        let counter = self.function != RangeFn::Delta;
        let between = |a: usize, time: Timestamp, left_border: bool| {
            let (mut before, mut after) = (values[a], values[a + 1]);
            // A counter that fell between the two began again from 0.
            if counter && after < before {
                if left_border { before = 0.0 } else { after += before }
            }
            let part = (time - timestamps[a]) as f64;
            before + (after - before) * part / (timestamps[a + 1] - timestamps[a]) as f64
        };
        let left = if smoothed && timestamps[first] < w.start && first < timestamps.len() - 1 {
            between(first, w.start, true)
        } else {
            values[first]
        };
        let right = if smoothed && last > 0 && timestamps[last] > w.end {
            // Where both borders lie between the same two samples, both see the counter begin again from 0.
            between(last - 1, w.end, timestamps[last - 1] <= w.start)
        } else {
            values[last]
        };
        let mut result = right - left;
        if counter {
            // Resets within the window; those at its borders are in the interpolation.
            if timestamps[first] <= w.start {
                first += 1;
            }
            let inside = if timestamps[last] >= w.end { last } else { last + 1 };
            let mut before = left;
            for value in values.get(first..inside).unwrap_or_default().iter().chain([&right]) {
                if *value < before {
                    result += before;
                }
                before = *value;
            }
        }
        if self.function == RangeFn::Rate {
            result /= self.seconds;
        }
        Some(result)
    }

    /// The extreme by a monotone queue: each sample enters and leaves it once. NaN only where all are NaN.
    fn extreme(&mut self, w: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> f64 {
        while self.fed < w.high {
            let value = w.values[self.fed];
            if !value.is_nan() {
                while self.extremes.back().is_some_and(|at| better(value, w.values[*at])) {
                    self.extremes.pop_back();
                }
                self.extremes.push_back(self.fed);
            }
            self.fed += 1;
        }
        while self.extremes.front().is_some_and(|at| *at < w.low) {
            self.extremes.pop_front();
        }
        self.extremes.front().map_or(f64::NAN, |at| w.values[*at])
    }

    fn smoothing(&self, w: &Window<'_>) -> Option<f64> {
        let values = w.values();
        if values.len() < 2 {
            return None;
        }
        let (sf, tf) = (self.params[0][w.step], self.params[1][w.step]);
        let (mut before, mut level, mut trend) = (0.0, values[0], values[1] - values[0]);
        for (at, value) in values[1..].iter().enumerate() {
            if at > 0 {
                trend = tf * (level - before) + (1.0 - tf) * trend;
            }
            let next = sf * value + (1.0 - sf) * (level + trend);
            (before, level) = (level, next);
        }
        Some(level)
    }
}

/// Windows that are summed side by side: each sum waits for itself, not for the others.
const LANES: usize = 8;

/// Compensated sums of windows, without what is to be done when they overflow.
fn kahan_of_each(values: &[f64], windows: &[(usize, usize)], mean: bool) -> [Kahan; LANES] {
    let mut sums = [Kahan::default(); LANES];
    let mut lanes: [&[f64]; LANES] = [&[]; LANES];
    for ((lane, sum), (low, high)) in lanes.iter_mut().zip(&mut sums).zip(windows) {
        *lane = &values[*low..*high];
        // A mean begins with its first value, a sum with 0.
        if let (true, Some((first, rest))) = (mean, lane.split_first()) {
            (*sum, *lane) = (Kahan::new(*first), rest);
        }
    }
    let common = lanes[..windows.len()].iter().map(|lane| lane.len()).min().unwrap_or(0);
    if windows.len() == LANES {
        for at in 0..common {
            for (sum, lane) in sums.iter_mut().zip(&lanes) {
                sum.add_finite(lane[at]);
            }
        }
        lanes.iter_mut().for_each(|lane| *lane = &lane[common..]);
    }
    for (sum, lane) in sums.iter_mut().zip(lanes) {
        lane.iter().for_each(|v| sum.add_finite(*v));
    }
    sums
}

/// The sum or the mean of a window's values.
fn one_total(first: f64, rest: &[f64], mean: bool) -> f64 {
    if mean {
        let mut mean = Mean::new(first);
        rest.iter().for_each(|v| mean.add(*v));
        return mean.value();
    }
    let mut sum = Kahan::default();
    sum.add(first);
    rest.iter().for_each(|v| sum.add(*v));
    sum.total()
}

/// `irate` and `idelta`: from the last two samples.
fn instant(w: &Window<'_>, rate: bool) -> Option<f64> {
    if w.len() < 2 {
        return None;
    }
    let (before, last) = (w.values[w.high - 2], w.values[w.high - 1]);
    let interval = w.timestamps[w.high - 1] - w.timestamps[w.high - 2];
    if interval == 0 {
        return None;
    }
    let start = |at: usize| w.starts.get(at).copied().unwrap_or(0);
    let (a, b) = (w.high - 2, w.high - 1);
    let anew = rate && started_anew(start(a), w.timestamps[a], start(b), w.timestamps[b]);
    let mut result = if rate && (last < before || anew) { last } else { last - before };
    if rate {
        result /= interval as f64 / 1000.0;
    }
    Some(result)
}

/// Slope per second and value at `origin` of the least-squares line.
fn regression(w: &Window<'_>, origin: Timestamp) -> (f64, f64) {
    let values = w.values();
    let first = values[0];
    if values.iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut sx, mut sy, mut sxy, mut sxx) =
        (Kahan::default(), Kahan::default(), Kahan::default(), Kahan::default());
    for (time, y) in w.timestamps[w.low..w.high].iter().zip(values) {
        let x = (time - origin) as f64 / 1e3;
        sx.add(x);
        sy.add(*y);
        sxy.add(x * y);
        sxx.add(x * x);
    }
    let n = values.len() as f64;
    let [sx, sy, sxy, sxx] = [sx, sy, sxy, sxx].map(|k| k.sum + k.c);
    let covariance = sxy - sx * sy / n;
    let variance = sxx - sx * sx / n;
    let slope = covariance / variance;
    (slope, sy / n - slope * sx / n)
}

/// Population variance by Welford's method, compensated.
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut aux, mut count) = (Kahan::default(), Kahan::default(), 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean.sum + mean.c);
        mean.add(delta / count);
        aux.add(delta * (value - (mean.sum + mean.c)));
    }
    (aux.sum + aux.c) / count
}

/// Time in seconds of the last best value.
fn time_of(w: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = w.low;
    for at in w.low + 1..w.high {
        if better(w.values[at], w.values[best]) || w.values[best].is_nan() {
            best = at;
        }
    }
    w.timestamps[best] as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(function: RangeFn, samples: &[(i64, f64)], ends: &[i64], window: i64) -> Vec<Option<f64>> {
        let timestamps: Vec<_> = samples.iter().map(|s| s.0).collect();
        let values: Vec<_> = samples.iter().map(|s| s.1).collect();
        let mut kernel = Kernel::new(function, vec![vec![0.5; ends.len()]; 2], window, Extend::No).unwrap();
        kernel.begin(&timestamps, &values, &[]);
        let window_at = |(step, &end): (usize, &i64)| {
            let low = timestamps.partition_point(|t| *t <= end - window);
            let high = timestamps.partition_point(|t| *t <= end);
            Window {
                timestamps: &timestamps,
                values: &values,
                starts: &[],
                low,
                high,
                start: end - window,
                end,
                time: end,
                step,
            }
        };
        ends.iter().enumerate().map(window_at).map(|w| kernel.eval(&w)).collect()
    }

    #[test]
    fn rate_over_a_reset() {
        let samples = [(10_000, 10.0), (20_000, 20.0), (30_000, 5.0), (40_000, 15.0)];
        assert_eq!(eval(RangeFn::Increase, &samples, &[40_000], 40_000), [Some(25.0 * (40.0 / 30.0))]);
        assert_eq!(eval(RangeFn::Irate, &samples, &[30_000, 40_000], 40_000), [Some(0.5), Some(1.0)]);
        assert_eq!(eval(RangeFn::Resets, &samples, &[20_000, 40_000], 40_000), [Some(0.0), Some(1.0)]);
    }

    #[test]
    fn sums_side_by_side_have_the_bits_of_sums_one_by_one() {
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 20
        };
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 0.0, -0.0, 5e-324];
        for round in 0..200 {
            let mut value = || match random() % 40 {
                at @ 0..8 if round % 2 == 0 => odd[at as usize],
                exponent => (random() as f64 - 8e12) * 10f64.powi(exponent as i32 - 20),
            };
            let values: Vec<f64> = (0..60).map(|_| value()).collect();
            let windows: Vec<(usize, usize)> = (0..33)
                .map(|_| {
                    let (a, b) = (random() as usize % 61, random() as usize % 61);
                    (a.min(b), a.max(b))
                })
                .collect();
            for function in [RangeFn::Sum, RangeFn::Avg] {
                let kernel = Kernel::new(function, vec![], 1, Extend::No).unwrap();
                let mut got = Vec::new();
                assert!(kernel.eval_all(&values, &windows, &mut got));
                for ((low, high), got) in windows.iter().zip(got) {
                    let mean = function == RangeFn::Avg;
                    let wanted = match values[*low..*high].split_first() {
                        None => super::super::ABSENT,
                        Some((first, rest)) => one_total(*first, rest, mean),
                    };
                    let same = got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
                    assert!(same, "{got} {wanted} of {:?}", &values[*low..*high]);
                }
            }
        }
    }

    #[test]
    fn extremes_equal_a_rescan() {
        let values = [3.0, f64::NAN, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        let samples: Vec<_> = values.iter().enumerate().map(|(i, v)| (i as i64, *v)).collect();
        let ends: Vec<i64> = (0..9).collect();
        for (end, got) in ends.iter().zip(eval(RangeFn::Max, &samples, &ends, 3)) {
            let low = (end - 2).max(0) as usize;
            let want = values[low..=*end as usize].iter().copied().fold(f64::NAN, f64::max);
            assert_eq!(got, Some(want));
        }
    }
}
