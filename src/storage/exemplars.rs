//! The read contract of exemplars: traces that stand for samples of a series.

use model::{Labels, Matcher, TimeRange, Timestamp};

use crate::{Context, Error};

/// Most characters of all names and values of an exemplar's labels, as OpenMetrics has it.
pub const MAX_EXEMPLAR_RUNES: usize = 128;

/// One exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels, such as `trace_id`; possibly none.
    pub labels: Labels,
    pub value: f64,
    /// Milliseconds.
    pub timestamp: Timestamp,
}

/// The exemplars of one series, by time.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    pub labels: Labels,
    pub exemplars: Vec<Exemplar>,
}

/// Somebody who keeps exemplars.
pub trait Exemplars: Send + Sync {
    /// Exemplars in `range` of the series that pass all matchers of at least one of the `selectors`, by labels;
    /// series without any are left out.
    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        context: &Context,
    ) -> Result<Vec<SeriesExemplars>, Error>;
}
