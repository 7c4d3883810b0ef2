//! Where a chunk ends: at the edge of its window, and within it at equal parts of the window, told by the first step.
//!
//! A window is divided into as many equal parts as make [`WANTED`] samples each at the step of the chunk's first two
//! samples. A chunk ends where its part ends, so that a sample that one replica never gets changes one chunk there, and
//! not all of those that follow in the window, as it does where samples are counted.
//!
//! ```text
//! window of 2 h, a sample every 15 s: |── 120 ──|── 120 ──|── 120 ──|── 120 ──|
//! one lost in the first part:         |── 119 ──|── 120 ──|── 120 ──|── 120 ──|
//! ```
//! A first step need not be that of the others: a chunk that reaches its end with fewer than [`FEW`] samples is given
//! another by the steps that it has had, and none ever holds more than [`MOST`]. All of this is told by the samples of
//! the chunk alone: the same samples make the same chunks, wherever, whenever and in whatever pieces they came.

use model::{Sample, Timestamp};

/// Samples of a chunk, if its steps are those of its first two.
pub const WANTED: u16 = 120;
/// Most samples of a chunk whatever its steps, as in Prometheus. A step that does not change makes 180 at most.
pub const MOST: u16 = 2 * WANTED;
/// A chunk of fewer samples goes on beyond its part, if its steps turned out to be longer than the first.
pub const FEW: u16 = 30;

/// Start of the window that holds `t`.
#[inline]
pub fn window_start(t: Timestamp, window: i64) -> Timestamp {
    t.saturating_sub(t.rem_euclid(window.max(1)))
}

/// First time that a chunk must not hold which begins at `first` and has a sample every `step` ms: after `first`, and not
/// after the end of its window.
pub fn part_end(first: Timestamp, step: i64, window: i64) -> Timestamp {
    // Wide: whoever wrote the times, their products must not overflow.
    let (window, step) = (i128::from(window.max(1)), i128::from(step.max(1)));
    let start = i128::from(first) - i128::from(first).rem_euclid(window);
    let wanted = i128::from(WANTED) * step;
    let parts = ((window + wanted / 2) / wanted).max(1);
    let part = (i128::from(first) - start) * parts / window;
    let end = start + ((part + 1) * window + parts - 1) / parts;
    i64::try_from(end).unwrap_or(Timestamp::MAX)
}

/// The end of a chunk that holds `count` samples from `first` on, once `t`, newer than those, is not before the
/// end that it had, or it had none yet. None where the chunk ends before `t`.
#[cold]
pub fn end(first: Timestamp, count: u16, t: Timestamp, window: i64) -> Option<Timestamp> {
    if !(1..FEW).contains(&count) {
        return None;
    }
    // Of all steps so far, with that to `t`: where the first was none of the others' length, the next is.
    let step = t.saturating_sub(first) / i64::from(count);
    Some(part_end(first, step, window)).filter(|end| t < *end)
}

/// A chunk that grows.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    window: i64,
    first: Timestamp,
    count: u16,
    /// First time that it must not hold; its first one as long as it is the only one.
    end: Timestamp,
}

impl Cut {
    /// A chunk that begins with a sample at `first`, in windows of `window` ms.
    pub fn begin(first: Timestamp, window: i64) -> Cut {
        Cut { window, first, count: 1, end: first }
    }

    /// Whether the chunk holds the sample at `t`, newer than all that it holds, which is counted then; if not, another
    /// begins with it.
    pub fn takes(&mut self, t: Timestamp) -> bool {
        if self.count >= MOST {
            return false;
        }
        if t >= self.end {
            let Some(end) = end(self.first, self.count, t, self.window) else { return false };
            self.end = end;
        }
        self.count += 1;
        true
    }
}

/// Sorted samples by the chunk that they belong to.
pub fn split(samples: &[Sample], window: i64) -> impl Iterator<Item = &[Sample]> {
    let mut rest = samples;
    std::iter::from_fn(move || {
        let (first, others) = rest.split_first()?;
        let mut cut = Cut::begin(first.timestamp, window);
        let more = others.iter().take_while(|s| cut.takes(s.timestamp)).count();
        let (chunk, tail) = rest.split_at(1 + more);
        rest = tail;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: i64 = 7_200_000;

    fn samples(times: impl IntoIterator<Item = i64>) -> Vec<Sample> {
        times.into_iter().map(|timestamp| Sample { timestamp, value: 0.0 }).collect()
    }

    /// First time and samples of each chunk.
    fn chunks(times: impl IntoIterator<Item = i64>) -> Vec<(i64, usize)> {
        split(&samples(times), WINDOW).map(|c| (c[0].timestamp, c.len())).collect()
    }

    fn every(step: i64, from: i64, to: i64) -> impl Iterator<Item = i64> {
        (from..to).step_by(step as usize)
    }

    #[test]
    fn steps_make_equal_parts() {
        let counts = |step| chunks(every(step, 0, WINDOW)).iter().map(|c| c.1).collect::<Vec<_>>();
        assert_eq!(counts(15_000), [120; 4]);
        assert_eq!(counts(10_000), [120; 6]);
        assert_eq!(counts(1000), [120; 60]);
        assert_eq!(counts(60_000), [120]);
        assert_eq!(counts(300_000), [24]);
        // Most and least that steps make which do not change.
        assert_eq!(counts(40_000), [90, 90]);
        assert_eq!(counts(40_001), [180]);
        let over = chunks(every(3_000_000, 0, 3 * WINDOW));
        assert_eq!(over, [(0, 3), (9_000_000, 2), (15_000_000, 3)]);
        // Steps longer than the window: one sample each.
        assert!(chunks(every(2 * WINDOW, 5, 40 * WINDOW)).iter().all(|c| c.1 == 1));
    }

    #[test]
    fn one_and_none() {
        assert_eq!(chunks([]), []);
        assert_eq!(chunks([7]), [(7, 1)]);
        assert_eq!(chunks([i64::MIN, i64::MAX]), [(i64::MIN, 1), (i64::MAX, 1)]);
        assert_eq!(chunks([WINDOW - 1, WINDOW]), [(WINDOW - 1, 1), (WINDOW, 1)]);
        assert_eq!(chunks([-WINDOW, -1, 0]), [(-WINDOW, 2), (0, 1)]);
    }

    #[test]
    fn a_lost_sample_changes_its_part_and_no_later_one() {
        let whole = chunks(every(15_000, 3000, WINDOW));
        for lost in 0..480 {
            let others = every(15_000, 3000, WINDOW).enumerate().filter(|(n, _)| *n != lost).map(|(_, t)| t);
            let others = chunks(others);
            let same = whole.iter().filter(|c| others.contains(c)).count();
            // The second of a chunk gives the step: without it, two parts may be one.
            let least = if lost % 120 == 1 { 2 } else { 3 };
            assert!(same >= least, "{lost}: {others:?}");
        }
    }

    #[test]
    fn a_first_step_that_is_no_measure_does_not_make_short_chunks() {
        // The zero at which counting began comes 1 ms before the first sample.
        let began = chunks(std::iter::once(3049).chain(every(15_000, 3050, WINDOW)));
        assert_eq!(began.iter().map(|c| c.1).collect::<Vec<_>>(), [61, 60, 120, 120, 120]);
        // Two scrapers into one series.
        let two = chunks(every(15_000, 0, WINDOW).flat_map(|t| [t, t + 1000]));
        assert!(two.len() <= 10, "{two:?}");
        // A gap behind the first sample.
        let gap = chunks(std::iter::once(0).chain(every(15_000, 1_000_000, WINDOW)));
        assert!(gap.len() <= 5 && gap.iter().all(|c| c.1 <= usize::from(MOST)), "{gap:?}");
    }

    #[test]
    fn jitter_makes_few_chunks_more() {
        let made = |seed: u64, most: u64| {
            let random = |n: u64| (n ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let times = every(15_000, 0, 20 * WINDOW).zip(0..);
            chunks(times.map(|(t, n)| t + (random(n) % most) as i64)).len()
        };
        for seed in 0..50 {
            assert_eq!(made(seed, 1000), 80);
            // A third of the step, where it misleads most.
            assert!(made(seed, 5000) <= 104, "{}", made(seed, 5000));
        }
    }

    proptest! {
        /// Whatever the times: each is in one chunk, none in two windows, none in more than [`MOST`], and
        /// a chunk's end is told by its own samples.
        #[test]
        fn chunks_are_whole_and_bounded(
            start in -3 * WINDOW..3 * WINDOW,
            scale in prop::sample::select(vec![2i64, 1000, 30_000, 400_000, 20_000_000]),
            steps in prop::collection::vec(any::<u32>(), 0..1500),
        ) {
            let mut t = start;
            let all = samples(steps.iter().map(|step| {
                t += 1 + i64::from(*step) % scale;
                t
            }));
            let parts: Vec<&[Sample]> = split(&all, WINDOW).collect();
            prop_assert_eq!(&parts.concat(), &all);
            for part in &parts {
                prop_assert!(part.len() <= usize::from(MOST));
                let windows = [part[0], part[part.len() - 1]].map(|s| window_start(s.timestamp, WINDOW));
                prop_assert_eq!(windows[0], windows[1]);
                prop_assert_eq!(split(part, WINDOW).count(), 1);
            }
        }

        #[test]
        fn ends_lie_behind_the_start_and_within_the_window(
            first in any::<i64>(), step in any::<i64>(), window in 1..=i64::MAX,
        ) {
            let end = part_end(first, step, window);
            prop_assert!(end > first || end == i64::MAX);
            prop_assert!(i128::from(end) <= i128::from(first) - i128::from(first.rem_euclid(window)) + i128::from(window));
        }
    }
}
