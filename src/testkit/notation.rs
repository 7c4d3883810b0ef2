//! Series as a person writes them: `up{job="a"} 1 2 _ stale 4+1x3`.
//!
//! One series per line; values follow at equal steps: a number, `_` for no sample, `stale` for the stale marker,
//! `A+BxN` or `A-BxN` for A and N more values each B further, `AxN` for A and N repetitions of it.

use model::{Labels, Sample, Timestamp, stale_nan};

/// A line that does not read; the text says which and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotationError(pub String);

/// Reads lines of series whose first value stands at `start` and the next ones `step` milliseconds apart.
/// Sorted by labels.
pub fn parse_load(
    text: &str,
    start: Timestamp,
    step: i64,
) -> Result<Vec<(Labels, Vec<Sample>)>, NotationError> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fail = |why: &str| NotationError(format!("{line}: {why}"));
        let (labels, values) = read_labels(line).map_err(|why| fail(&why))?;
        let mut samples = Vec::new();
        let mut at = start;
        for word in values.split_whitespace() {
            for value in read_values(word).ok_or_else(|| fail(&format!("{word:?} is no value")))? {
                samples.extend(value.map(|value| Sample { timestamp: at, value }));
                at += step;
            }
        }
        out.push((labels, samples));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

fn read_labels(line: &str) -> Result<(Labels, &str), String> {
    let end_of_name = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    let mut pairs = Vec::new();
    if end_of_name > 0 {
        pairs.push((model::METRIC_NAME.to_owned(), line[..end_of_name].to_owned()));
    }
    let mut rest = &line[end_of_name..];
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            inner = inner.trim_start_matches([',', ' ']);
            if let Some(tail) = inner.strip_prefix('}') {
                rest = tail;
                break;
            }
            let (name, tail) = inner.split_once("=\"").ok_or("label without =\"")?;
            let (value, tail) = read_quoted(tail).ok_or("label value without closing quote")?;
            pairs.push((name.trim().to_owned(), value));
            inner = tail;
        }
    }
    Ok((Labels::from_pairs(pairs).map_err(|e| e.to_string())?, rest))
}

fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                c => c,
            }),
            c => out.push(c),
        }
    }
    None
}

fn read_values(word: &str) -> Option<Vec<Option<f64>>> {
    match word {
        "_" => return Some(vec![None]),
        "stale" => return Some(vec![Some(stale_nan())]),
        _ => {}
    }
    if let Ok(value) = word.parse::<f64>() {
        return Some(vec![Some(value)]);
    }
    let (head, times) = word.rsplit_once('x')?;
    let times: u32 = times.parse().ok()?;
    if head == "_" {
        return Some(vec![None; times as usize]);
    }
    // The sign of the increment is the last one that does not belong to an exponent.
    let split = head
        .char_indices()
        .rev()
        .find(|&(at, c)| matches!(c, '+' | '-') && at > 0 && !matches!(head.as_bytes()[at - 1], b'e' | b'E'));
    let (first, by) = match split {
        Some((at, _)) => (head[..at].parse::<f64>().ok()?, head[at..].parse::<f64>().ok()?),
        None => (head.parse::<f64>().ok()?, 0.0),
    };
    Some((0..=times).map(|n| Some(first + by * f64::from(n))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_written() {
        let text = r#"
            up{job="a", q="x\"y"} 1 2 _ 4
            temp 10-2x2 stale 1e3x1 _x2 7
        "#;
        let load = parse_load(text, 0, 15).unwrap();
        assert_eq!(load[0].0.to_string(), "temp");
        let shown: Vec<_> = load[0].1.iter().map(|s| (s.timestamp, s.value)).collect();
        assert_eq!(shown[..3], [(0, 10.0), (15, 8.0), (30, 6.0)]);
        assert!(model::is_stale(shown[3].1));
        assert_eq!(shown[4..], [(60, 1000.0), (75, 1000.0), (120, 7.0)]);
        assert_eq!(load[1].0.value("q"), "x\"y");
        assert_eq!(load[1].1.iter().map(|s| s.timestamp).collect::<Vec<_>>(), [0, 15, 45]);
        assert!(parse_load("up{a=\"b} 1", 0, 1).is_err());
        assert!(parse_load("up 1 x", 0, 1).is_err());
    }
}
