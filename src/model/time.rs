//! Timestamps, closed time ranges, and durations as Prometheus writes them.

/// Milliseconds since the Unix epoch; negative before it.
pub type Timestamp = i64;

/// A closed range of time: both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl TimeRange {
    /// Every time there is.
    pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };
    /// Contains nothing; the neutral element of [`TimeRange::cover`].
    pub const EMPTY: TimeRange = TimeRange { start: i64::MAX, end: i64::MIN };

    pub fn new(start: Timestamp, end: Timestamp) -> TimeRange {
        TimeRange { start, end }
    }

    pub fn is_empty(&self) -> bool {
        self.start > self.end
    }

    pub fn contains(&self, t: Timestamp) -> bool {
        self.start <= t && t <= self.end
    }

    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The smallest range that holds both.
    pub fn cover(&self, other: &TimeRange) -> TimeRange {
        TimeRange { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// What lies in both; empty if nothing does.
    pub fn intersect(&self, other: &TimeRange) -> TimeRange {
        TimeRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("empty duration string")]
    Empty,
    #[error("not a valid duration string: {0:?}")]
    Syntax(String),
    #[error("duration out of range: {0:?}")]
    Range(String),
}

/// Units in the order in which they must appear, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a Prometheus duration (`1h30m`, `15s`, `100ms`, `0`) as milliseconds. Units go from large to small,
/// each at most once.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let syntax = || DurationError::Syntax(text.to_owned());
    let range = || DurationError::Range(text.to_owned());
    let (mut rest, mut total, mut next_unit) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if digits == 0 || letters == 0 {
            return Err(syntax());
        }
        let unit = &rest[digits..digits + letters];
        let at = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(syntax)?;
        if at < next_unit {
            return Err(syntax());
        }
        next_unit = at + 1;
        let count: u64 = rest[..digits].parse().map_err(|_| range())?;
        total = count.checked_mul(UNITS[at].1).and_then(|ms| total.checked_add(ms)).ok_or_else(range)?;
        rest = &rest[digits + letters..];
    }
    // Prometheus keeps durations as 63 bits of nanoseconds; the same texts must be refused here.
    if total > (i64::MAX / 1_000_000) as u64 {
        return Err(range());
    }
    Ok(total as i64)
}

/// Writes milliseconds as Prometheus does: `1h30m`, `2w`, `0s`; weeks and years only when they fit exactly.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (at, (name, unit)) in UNITS.iter().enumerate() {
        let exact_only = at < 2;
        if rest == 0 || (exact_only && !rest.is_multiple_of(*unit)) {
            continue;
        }
        let count = rest / unit;
        if count > 0 {
            out.push_str(&format!("{count}{name}"));
            rest -= count * unit;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [
            ("0", 0),
            ("1ms", 1),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            ("1y", 31_536_000_000),
            ("1m30s5ms", 90_005),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
            if ms > 0 {
                assert_eq!(format_duration(ms), text);
            }
        }
        for bad in ["", "1", "m", "1.5h", "1m1h", "1h1h", "1ns", "-1m", "1 m", "99999999999999y"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(format_duration(0), "0s");
        assert_eq!(format_duration(-90_000), "-1m30s");
    }
}
