//! The notation of series in scripts: `metric{a="b"} 1+2x3 _ stale`.

use std::sync::Arc;

use model::{FloatHistogram, Labels, stale_nan};

use super::histogram::histogram;
use crate::parse::parse_series_labels;

/// One written value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Missing,
    Float(f64),
    Histogram {
        histogram: Arc<FloatHistogram>,
        /// Whether something was written of resets.
        hinted: bool,
    },
}

/// A line of a `load` block.
pub(super) enum Line {
    Samples(Labels, Vec<Item>),
    /// When the samples of the next line began, as offsets from their times.
    Starts(Labels, Vec<Option<i64>>),
}

/// Labels and what belongs to them.
pub(super) fn parse_load_line(line: &str) -> Result<Line, String> {
    let (labels, rest) = split_labels(line)?;
    // Without braces the marker is part of the name.
    let (labels, starts) = match (labels.strip_suffix("@st"), rest.strip_prefix("@st")) {
        (Some(labels), _) => (labels, Some(rest)),
        (_, starts) => (labels, starts),
    };
    let parsed = parse_series_labels(labels).map_err(|e| e.to_string())?;
    Ok(match starts {
        Some(starts) => Line::Starts(parsed, parse_starts(starts)?),
        None => Line::Samples(parsed, parse_items(rest)?),
    })
}

/// `_`, `_x3`, `-1m`, `-1mx3`, `-30s-1mx2`.
fn parse_starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let (value, times) = repeated(word)?;
        if value == "_" {
            out.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        let sign = value[1..].find(['+', '-']).map(|at| at + 1);
        let (first, step) = match sign {
            Some(at) => (offset(&value[..at])?, offset(&value[at..])?),
            None => (offset(value)?, 0),
        };
        out.extend((0..=times.unwrap_or(0) as i64).map(|n| Some(first + n * step)));
    }
    Ok(out)
}

/// A duration with a sign, in milliseconds.
fn offset(text: &str) -> Result<i64, String> {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (-1, plain),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    model::parse_duration(plain).map(|ms| sign * ms).map_err(|e| e.to_string())
}

/// A word without its `x<n>`.
fn repeated(text: &str) -> Result<(&str, Option<usize>), String> {
    Ok(match text.rsplit_once('x') {
        Some((value, times)) if !times.is_empty() && times.bytes().all(|b| b.is_ascii_digit()) => {
            (value, Some(times.parse::<usize>().map_err(|e| format!("{text:?}: {e}"))?))
        }
        _ => (text, None),
    })
}

/// Labels and values of one line.
pub(super) fn parse_line(line: &str) -> Result<(Labels, Vec<Item>), String> {
    let (labels, rest) = split_labels(line)?;
    let labels = parse_series_labels(labels).map_err(|e| e.to_string())?;
    Ok((labels, parse_items(rest)?))
}

/// The part of a line that names the series, and the rest.
fn split_labels(line: &str) -> Result<(&str, &str), String> {
    let mut quote = None;
    let mut escaped = false;
    let mut in_braces = false;
    for (at, c) in line.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => in_braces = true,
                '}' => return Ok((&line[..=at], &line[at + 1..])),
                ' ' | '\t' if !in_braces && !line[at..].trim_start().starts_with("{") => {
                    return Ok((&line[..at], &line[at..]));
                }
                ' ' | '\t' if !in_braces && line[at..].trim_start().starts_with("{{") => {
                    return Ok((&line[..at], &line[at..]));
                }
                _ => {}
            },
        }
    }
    if quote.is_some() || in_braces { Err(format!("series is not ended: {line}")) } else { Ok((line, "")) }
}

fn parse_items(text: &str) -> Result<Vec<Item>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        if rest.starts_with("{{") {
            rest = histogram(rest, &mut out)?;
        } else {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            item(&rest[..end], &mut out)?;
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

fn item(text: &str, out: &mut Vec<Item>) -> Result<(), String> {
    let (value, times) = repeated(text)?;
    if value == "_" {
        out.extend(std::iter::repeat_n(Item::Missing, times.unwrap_or(1)));
        return Ok(());
    }
    let count = times.map_or(1, |n| n + 1);
    if value == "stale" {
        out.extend(std::iter::repeat_n(Item::Float(stale_nan()), count));
        return Ok(());
    }
    // A sign that is neither the first byte nor an exponent's divides start and step.
    let bytes = value.as_bytes();
    let sign = (1..bytes.len())
        .find(|&i| matches!(bytes[i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E' | b'+' | b'-'));
    let (mut current, step) = match (sign, times) {
        (Some(at), Some(_)) => {
            let step = number(&value[at + 1..])?;
            (number(&value[..at])?, if bytes[at] == b'-' { -step } else { step })
        }
        _ => (number(value)?, 0.0),
    };
    for at in 0..count {
        if at > 0 && sign.is_some() {
            // Repeated addition, not multiplication: the rounding is part of the data.
            current += step;
        }
        out.push(Item::Float(current));
    }
    Ok(())
}

/// A number or a duration in seconds; there is no hexadecimal here.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Ok(value) = text.parse::<f64>() {
        return Ok(value);
    }
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (-1.0, plain),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match model::parse_duration(plain) {
        Ok(ms) => Ok(sign * ms as f64 / 1000.0),
        Err(_) => Err(format!("not a number: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<f64> {
        let float = |item: &Item| match item {
            Item::Float(v) => *v,
            _ => -99.0,
        };
        parse_line(text).unwrap().1.iter().map(float).collect()
    }

    #[test]
    fn notation() {
        assert_eq!(values("m 1+2x3 5x1 _ _x2"), [1.0, 3.0, 5.0, 7.0, 5.0, 5.0, -99.0, -99.0, -99.0]);
        assert_eq!(values("m{a=\"}\"} 3-1x2 -Inf 1e3 5m"), [3.0, 2.0, 1.0, f64::NEG_INFINITY, 1000.0, 300.0]);
        assert_eq!(values("m 0x8").len(), 9);
        assert!(model::is_stale(values("m stale")[0]));
        let (labels, items) = parse_line("{\"a.b\", c=\"d\"} {{sum:1 buckets:[1 2]}}x2 4").unwrap();
        assert_eq!(labels.metric_name(), "a.b");
        assert_eq!(items.len(), 4);
        let Item::Histogram { histogram, hinted } = &parse_line("m {{}}").unwrap().1[0] else { panic!() };
        assert_eq!((&**histogram, *hinted), (&FloatHistogram::default(), false));
        let starts = |line| match parse_load_line(line) {
            Ok(Line::Starts(labels, starts)) => (labels.to_string(), starts),
            _ => panic!("{line}"),
        };
        assert_eq!(
            starts("m@st _x2 -30s-1mx1"),
            ("m".into(), vec![None, None, Some(-30_000), Some(-90_000)])
        );
        assert_eq!(starts("m{a=\"b\"}@st -0msx1 1ms").1, [Some(0), Some(0), Some(1)]);
    }
}
