//! From samples to a window's borders: how a rate is extrapolated, and where a counter is known to have begun.

use model::Timestamp;

use super::window::Window;

/// How a difference between the samples of a window is extrapolated to the window's borders. Times in seconds.
pub(crate) struct Stretch {
    to_start: f64,
    to_end: f64,
    sampled: f64,
    average: f64,
    /// The window's start and the time of the first sample.
    edge: (Timestamp, Timestamp),
    gaps: usize,
    begins: bool,
}

impl Stretch {
    /// From the first to the last sample, between which there are `gaps` distances.
    #[inline]
    pub(crate) fn new(w: &Window<'_>, first: Timestamp, last: Timestamp, gaps: usize) -> Stretch {
        let sampled = (last - first) as f64 / 1000.0;
        Stretch {
            to_start: (first - w.start) as f64 / 1000.0,
            to_end: (w.end - last) as f64 / 1000.0,
            sampled,
            average: if gaps > 0 { sampled / gaps as f64 } else { 0.0 },
            edge: (w.start, first),
            gaps,
            begins: false,
        }
    }

    /// The first sample's counter began at `start`: if that is within the window, it was 0 there.
    #[inline]
    pub(crate) fn begin_at(&mut self, start: Timestamp) {
        let (window, first) = self.edge;
        if start != 0 && start > window && start < first {
            self.begins = true;
            self.to_start = 0.0;
            self.sampled += (first - start) as f64 / 1000.0;
        }
    }

    /// Whether it begins with a counter's own start.
    pub(crate) fn begins(&self) -> bool {
        self.begins
    }

    /// By what the difference is multiplied; `counted`: of a counter, the first value and the difference.
    #[inline]
    pub(crate) fn factor(mut self, counted: Option<(f64, f64)>) -> Option<f64> {
        if self.gaps == 0 && !self.begins {
            return None;
        }
        // Up to 10 % more than the usual distance counts as the series going on to the border.
        let threshold = self.average * 1.1;
        if !self.begins {
            if self.to_start >= threshold {
                self.to_start = self.average / 2.0;
            }
            if let Some((first, result)) = counted {
                // A counter cannot have been below zero: the line is not drawn beyond there.
                let mut to_zero = self.to_start;
                if result > 0.0 && first >= 0.0 {
                    to_zero = self.sampled * (first / result);
                }
                if to_zero < self.to_start {
                    self.to_start = to_zero;
                }
            }
        }
        if self.to_end >= threshold {
            self.to_end = self.average / 2.0;
        }
        Some(match self.sampled {
            0.0 => 1.0,
            sampled => (sampled + self.to_start + self.to_end) / sampled,
        })
    }
}

/// Whether a counter began anew between two samples, by what they say of their beginnings. What is said to begin at
/// the sample before is a series of differences, unless that one knew nothing of its beginning.
#[inline]
pub(crate) fn started_anew(
    start_before: Timestamp,
    before: Timestamp,
    start: Timestamp,
    now: Timestamp,
) -> bool {
    if start == 0 || start >= now || start < before {
        return false;
    }
    start > before || (start_before < before && start_before != 0)
}

/// Whether a sample is said to have begun before the one before it was taken, but not where that one began.
pub(crate) fn overlaps(start_before: Timestamp, before: Timestamp, start: Timestamp) -> bool {
    start != 0 && start < before && start != start_before
}
