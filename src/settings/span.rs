//! A length of time as operators write it on a command line.
//!
//! Thanos reads some of its flags as Go durations (`1h30m0s`, `1.5h`) and others as Prometheus durations
//! (`15d`, `2w`). A setting takes both, so that nobody has to know which one it is; that is why the units stand
//! here once more instead of being the strict Prometheus ones of the query language.

use std::fmt;
use std::time::Duration;

use crate::Scalar;

/// A length of time, zero or more, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Units in milliseconds, from large to small.
const UNITS: [(&str, f64); 11] = [
    ("y", 31_536_000_000.0),
    ("w", 604_800_000.0),
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1000.0),
    ("ms", 1.0),
    ("us", 1e-3),
    ("µs", 1e-3),
    ("μs", 1e-3),
    ("ns", 1e-6),
];

/// Go and Prometheus both keep 63 bits of nanoseconds.
const MAX_MS: f64 = (i64::MAX / 1_000_000) as f64;

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_ms(ms: u64) -> Span {
        Span(ms)
    }

    pub const fn from_secs(secs: u64) -> Span {
        Span(secs * 1000)
    }

    pub const fn from_mins(mins: u64) -> Span {
        Span(mins * 60_000)
    }

    pub const fn from_hours(hours: u64) -> Span {
        Span(hours * 3_600_000)
    }

    pub const fn from_days(days: u64) -> Span {
        Span(days * 86_400_000)
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Milliseconds, as timestamps count.
    pub const fn ms(self) -> i64 {
        // The parser keeps it within 44 bits; a constant that is not would be a slip of ours.
        if self.0 > i64::MAX as u64 { i64::MAX } else { self.0 as i64 }
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Scalar for Span {
    const PLACEHOLDER: &'static str = "DURATION";

    fn parse(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is not a duration such as 30s, 1h30m or 15d");
        if text == "0" {
            return Ok(Span::ZERO);
        }
        let (mut rest, mut total) = (text, 0f64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (digits, tail) = rest.split_at(number);
            let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let count: f64 = digits.parse().map_err(|_| wrong())?;
            let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            total += count * ms;
            rest = tail;
        }
        if total > MAX_MS {
            return Err(format!("{text:?} is longer than 292 years"));
        }
        if total > 0.0 && total < 1.0 {
            return Err(format!("{text:?} is shorter than one millisecond, the smallest step"));
        }
        Ok(Span(total.round() as u64))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Span {
    /// The shortest Prometheus text: `1h30m`, `15d`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, unit) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("0d", 0, "0s"),
            ("0ms", 0, "0s"),
            ("5s", 5000, "5s"),
            ("1h30m0s", 5_400_000, "1h30m"),
            ("1.5h", 5_400_000, "1h30m"),
            ("15d", 1_296_000_000, "15d"),
            ("2w", 1_209_600_000, "14d"),
            ("250ms", 250, "250ms"),
            ("1500us", 2, "2ms"),
        ] {
            assert_eq!(Span::parse(text), Ok(Span(ms)), "{text}");
            assert_eq!(Span(ms).to_string(), shown);
            assert_eq!(Span::parse(shown), Ok(Span(ms)));
        }
        for bad in ["", "5", "s", "-5s", "5 s", "1e9s", "5x", "1..5h", "1ns", "9999999999y", "٣s"] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }
}
