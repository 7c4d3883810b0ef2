//! The ends of the time of which blocks are loaded, as `--min-time` and `--max-time` write them.

use model::{TimeRange, Timestamp};
use settings::Scalar;

use crate::parse_rfc3339;

/// An end of the time of which blocks are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeBound {
    #[default]
    None,
    /// Milliseconds since the epoch.
    At(Timestamp),
    /// Milliseconds from now, negative before it.
    FromNow(i64),
}

impl Scalar for TimeBound {
    const PLACEHOLDER: &'static str = "TIME";

    fn parse(text: &str) -> Result<TimeBound, String> {
        if text.is_empty() {
            return Ok(TimeBound::None);
        }
        let (sign, duration) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        if let Ok(ms) = model::parse_duration(duration) {
            return Ok(TimeBound::FromNow(sign * ms));
        }
        match parse_rfc3339(text) {
            Some(ms) => Ok(TimeBound::At(ms)),
            None => Err(format!(
                "{text:?} is neither a time such as 2026-01-02T03:04:05Z nor a duration such as -6w"
            )),
        }
    }

    fn show(&self) -> String {
        match self {
            TimeBound::None => String::new(),
            TimeBound::At(ms) => block::meta::rfc3339(*ms),
            TimeBound::FromNow(ms) => model::format_duration(*ms),
        }
    }
}

impl TimeBound {
    fn at(self, now_ms: Timestamp) -> Option<Timestamp> {
        match self {
            TimeBound::None => None,
            TimeBound::At(ms) => Some(ms),
            TimeBound::FromNow(ms) => Some(now_ms.saturating_add(ms)),
        }
    }

    /// The closed range between two bounds, as of now.
    pub fn range(min: TimeBound, max: TimeBound, now_ms: Timestamp) -> TimeRange {
        TimeRange::new(min.at(now_ms).unwrap_or(i64::MIN), max.at(now_ms).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_read() {
        assert_eq!(TimeBound::parse("-6w"), Ok(TimeBound::FromNow(-6 * 7 * 86_400_000)));
        assert_eq!(TimeBound::parse("1970-01-01T00:00:01Z"), Ok(TimeBound::At(1000)));
        assert!(TimeBound::parse("yesterday").is_err());
        let range = TimeBound::range(TimeBound::FromNow(-10), TimeBound::None, 100);
        assert_eq!(range, TimeRange::new(90, i64::MAX));
    }
}
