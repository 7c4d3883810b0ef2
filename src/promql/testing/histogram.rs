//! The notation of native histograms in scripts: `{{schema:1 count:3 buckets:[1 2]}}+{{count:1}}x3`.

use std::sync::Arc;

use model::FloatHistogram;
use model::histogram::{CUSTOM_BUCKETS, ResetHint, Span};

use super::series::{Item, number};
use crate::native;

/// Reads the histograms at the start of `text` and what is added to them; what follows is the rest.
pub(super) fn histogram<'t>(text: &'t str, out: &mut Vec<Item>) -> Result<&'t str, String> {
    let (first, mut hinted, mut rest) = literal(text)?;
    let mut step = None;
    if let Some(sign @ ('+' | '-')) = rest.chars().next()
        && rest[1..].starts_with("{{")
    {
        let (by, by_hinted, after) = literal(&rest[1..])?;
        if first.schema > by.schema {
            return Err(format!("{text}: a histogram of a finer schema than what is added to it"));
        }
        // Of a sequence the last one that was written decides what is compared.
        hinted = by_hinted;
        step = Some((sign, by));
        rest = after;
    }
    let end = rest.find([' ', '\t']).unwrap_or(rest.len());
    let count = match rest[..end].strip_prefix('x') {
        Some(digits) => digits.parse::<usize>().map_err(|e| format!("{digits:?}: {e}"))? + 1,
        None => 1,
    };
    let mut current = first;
    for at in 0..count {
        if let (true, Some((sign, by))) = (at > 0, &step) {
            let result = match sign {
                '+' => native::add(&mut current, by),
                _ => native::subtract(&mut current, by),
            };
            result.map_err(|_| format!("{text}: exponential and custom buckets do not meet"))?;
        }
        out.push(Item::Histogram { histogram: Arc::new(current.clone()), hinted });
    }
    Ok(&rest[end..])
}

/// One `{{...}}`, and whether something was written of resets.
fn literal(text: &str) -> Result<(FloatHistogram, bool, &str), String> {
    let end = text.find("}}").ok_or_else(|| format!("histogram is not ended: {text}"))?;
    let (mut h, mut hinted) = (FloatHistogram::default(), false);
    let (mut offset, mut n_offset) = (0, 0);
    let mut rest = text[2..end].trim();
    let mut seen: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| format!("no value: {rest:?}"))?;
        if seen.contains(&key) {
            return Err(format!("{key} is written twice: {text}"));
        }
        seen.push(key);
        let cut = match after.starts_with('[') {
            true => after.find(']').ok_or_else(|| format!("list is not ended: {after}"))? + 1,
            false => after.find(char::is_whitespace).unwrap_or(after.len()),
        };
        let value = &after[..cut];
        let whole = || value.parse::<i32>().map_err(|e| format!("{key}:{value}: {e}"));
        match key {
            "schema" => h.schema = whole()?,
            "sum" => h.sum = number(value)?,
            "count" => h.count = number(value)?,
            "z_bucket" => h.zero_count = number(value)?,
            "z_bucket_w" => h.zero_threshold = number(value)?,
            "buckets" => h.positive_counts = list(value)?,
            "n_buckets" => h.negative_counts = list(value)?,
            "offset" => offset = whole()?,
            "n_offset" => n_offset = whole()?,
            "custom_values" => h.custom_values = list(value)?.into(),
            "counter_reset_hint" => {
                hinted = true;
                h.hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    other => return Err(format!("unknown hint {other:?}")),
                };
            }
            other => return Err(format!("unknown key {other:?} in a histogram")),
        }
        rest = after[cut..].trim_start();
    }
    if h.schema != CUSTOM_BUCKETS && !(-4..=8).contains(&h.schema) {
        return Err(format!("schema {} is not known", h.schema));
    }
    let spans = |offset, counts: &[f64]| match counts.len() {
        0 => Vec::new(),
        length => vec![Span { offset, length: length as u32 }],
    };
    h.positive_spans = spans(offset, &h.positive_counts);
    h.negative_spans = spans(n_offset, &h.negative_counts);
    Ok((h, hinted, &text[end + 2..]))
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let inner = inner.ok_or_else(|| format!("a list is expected: {text:?}"))?;
    inner.split_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<FloatHistogram> {
        let mut out = Vec::new();
        assert_eq!(histogram(text, &mut out).unwrap(), "");
        let inner = |item| match item {
            Item::Histogram { histogram, .. } => (*histogram).clone(),
            _ => panic!("{item:?}"),
        };
        out.into_iter().map(inner).collect()
    }

    #[test]
    fn notation() {
        let all = items(
            "{{schema:1 sum:-.5 count:4 z_bucket:1 z_bucket_w:.01 buckets:[1 2] offset:-3 n_buckets:[1]}}",
        );
        let h = &all[0];
        assert_eq!((h.schema, h.sum, h.count, h.zero_count, h.zero_threshold), (1, -0.5, 4.0, 1.0, 0.01));
        assert_eq!(h.positive_spans, [Span { offset: -3, length: 2 }]);
        assert_eq!(h.negative_counts, [1.0]);
        let all = items("{{count:1 buckets:[1]}}+{{count:2 buckets:[0 2]}}x2");
        assert_eq!(all.iter().map(|h| h.count).collect::<Vec<_>>(), [1.0, 3.0, 5.0]);
        assert_eq!(all[2].positive_counts, [1.0, 4.0]);
        assert_eq!(items("{{schema:-53 custom_values:[-2 3]}}x1").len(), 2);
        for bad in
            ["{{schema:9}}", "{{count:1 count:2}}", "{{what:1}}", "{{buckets:[1 2}}", "{{schema:1}}+{{}}x1"]
        {
            assert!(histogram(bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }
}
