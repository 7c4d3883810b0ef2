//! Whether a result is what a script expects.

use model::{FloatHistogram, Labels};

use super::script::{Eval, Text};
use super::series::Item;
use crate::exec::almost_equal;
use crate::{QueryResult, Series, Value, native};

const EPSILON: f64 = 1e-6;

fn same(a: f64, b: f64) -> bool {
    almost_equal(a, b, EPSILON)
}

/// Checks notes and value of an instant result.
pub(super) fn instant(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    notes(eval, result)?;
    if let Some(wanted) = &eval.string {
        return match &result.value {
            Value::String(_, got) if got == wanted => Ok(()),
            other => Err(format!("wanted string {wanted:?}, got {other:?}")),
        };
    }
    if let Some((start, _, step)) = eval.matrix {
        return matrix(eval, &result.value, start, step);
    }
    if let Some(wanted) = eval.scalar {
        return match &result.value {
            Value::Scalar(_, got) if same(wanted, *got) => Ok(()),
            other => Err(format!("wanted scalar {wanted}, got {other:?}")),
        };
    }
    match &result.value {
        Value::Vector(samples) => {
            for (position, sample) in samples.iter().enumerate() {
                let (at, wanted) = find(eval, &sample.labels)?;
                if eval.ordered && at != position {
                    return Err(format!("{} is number {position}, wanted number {at}", sample.labels));
                }
                let got = match &sample.histogram {
                    Some(h) => Err(&**h),
                    None => Ok(sample.point.v),
                };
                value(wanted, 0, got).map_err(|e| format!("{}: {e}", sample.labels))?;
            }
            missing(eval, samples.iter().map(|s| &s.labels))
        }
        Value::Matrix(series) if eval.series.is_empty() && series.is_empty() => Ok(()),
        other => Err(format!("wanted a vector, got {}: {other:?}", other.type_name())),
    }
}

/// Checks notes and value of a range result.
pub(super) fn range(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    notes(eval, result)?;
    matrix(eval, &result.value, eval.start, eval.step)
}

/// Checks the value that a range result has at the eval's own time; its notes are of other times too.
pub(super) fn middle(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    let Value::Matrix(all) = &result.value else { return Err("wanted a matrix".to_owned()) };
    let there: Vec<(&Labels, Got<'_>)> = all
        .iter()
        .filter_map(|s| {
            let float = s.points.iter().find(|p| p.t == eval.start).map(|p| Ok(p.v));
            let native = || s.histograms.iter().find(|p| p.t == eval.start).map(|p| Err(&*p.h));
            float.or_else(native).map(|got| (&s.labels, got))
        })
        .collect();
    if let Some(wanted) = eval.scalar {
        return match there[..] {
            [(_, Ok(got))] if same(wanted, got) => Ok(()),
            _ => Err(format!("wanted scalar {wanted} at the middle step, got {there:?}")),
        };
    }
    for (labels, got) in &there {
        let (_, wanted) = find(eval, labels)?;
        value(wanted, 0, *got).map_err(|e| format!("middle step of {labels}: {e}"))?;
    }
    missing(eval, there.iter().map(|(labels, _)| *labels)).map_err(|e| format!("middle step: {e}"))
}

fn matrix(eval: &Eval, got: &Value, start: i64, step: i64) -> Result<(), String> {
    let Value::Matrix(all) = got else {
        return Err(format!("wanted a matrix, got {}", got.type_name()));
    };
    if eval.ordered {
        return Err("a matrix has no order to expect".to_owned());
    }
    if !all.is_sorted_by(|a, b| a.labels <= b.labels) {
        return Err("matrix is not sorted by labels".to_owned());
    }
    for Series { labels, points, histograms } in all {
        let (_, wanted) = find(eval, labels)?;
        let there = wanted.iter().filter(|i| **i != Item::Missing).count();
        if there != points.len() + histograms.len() {
            return Err(format!("{labels}: wanted {there} points, got {points:?} {histograms:?}"));
        }
        let floats = points.iter().map(|p| (p.t, Ok(p.v)));
        for (t, got) in floats.chain(histograms.iter().map(|p| (p.t, Err(&*p.h)))) {
            let at = (t - start) / step.max(1);
            if at < 0 || start + at * step != t {
                return Err(format!("{labels}: unexpected time {t}"));
            }
            value(wanted, at as usize, got).map_err(|e| format!("{labels} at {t}: {e}"))?;
        }
    }
    missing(eval, all.iter().map(|s| &s.labels))
}

fn find<'e>(eval: &'e Eval, labels: &Labels) -> Result<(usize, &'e [Item]), String> {
    let at = eval.series.iter().position(|(wanted, _)| wanted == labels);
    at.map(|at| (at, &eval.series[at].1[..])).ok_or_else(|| format!("unexpected series {labels}"))
}

fn missing<'l>(eval: &Eval, mut got: impl Iterator<Item = &'l Labels> + Clone) -> Result<(), String> {
    let wanted = eval.series.iter().filter(|(_, items)| items.iter().any(|i| *i != Item::Missing));
    for (labels, _) in wanted {
        if !got.clone().any(|l| l == labels) {
            let got: Vec<String> = got.by_ref().map(ToString::to_string).collect();
            return Err(format!("missing series {labels}; got {got:?}"));
        }
    }
    Ok(())
}

/// A float, or else a histogram.
type Got<'g> = Result<f64, &'g FloatHistogram>;

fn value(wanted: &[Item], at: usize, got: Got<'_>) -> Result<(), String> {
    match (wanted.get(at), got) {
        (Some(Item::Float(wanted)), Ok(got)) if same(*wanted, got) => Ok(()),
        (Some(Item::Float(wanted)), got) => Err(format!("wanted {wanted}, got {got:?}")),
        (Some(Item::Histogram { histogram, hinted }), Err(got)) => same_histogram(histogram, got, *hinted)
            .map_err(|e| format!("{e}: wanted {histogram:?}, got {got:?}")),
        (Some(Item::Histogram { .. }), Ok(got)) => Err(format!("wanted a histogram, got {got}")),
        (Some(Item::Missing) | None, got) => Err(format!("wanted nothing, got {got:?}")),
    }
}

/// Histograms without their empty buckets, counts within the tolerance.
fn same_histogram(a: &FloatHistogram, b: &FloatHistogram, hinted: bool) -> Result<(), &'static str> {
    let (mut a, mut b) = (a.clone(), b.clone());
    native::compact(&mut a);
    native::compact(&mut b);
    let all = |x: &[f64], y: &[f64]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(*x, *y));
    for (equal, what) in [
        (a.schema == b.schema, "another schema"),
        (same(a.count, b.count), "another count"),
        (same(a.sum, b.sum), "another sum"),
        (same(a.zero_count, b.zero_count), "another zero bucket"),
        (a.zero_threshold == b.zero_threshold, "another zero threshold"),
        (a.custom_values == b.custom_values, "other bounds"),
        (a.positive_spans == b.positive_spans && a.negative_spans == b.negative_spans, "other buckets"),
        (all(&a.positive_counts, &b.positive_counts), "other positive counts"),
        (all(&a.negative_counts, &b.negative_counts), "other negative counts"),
        (!hinted || a.hint == b.hint, "another counter reset hint"),
    ] {
        if !equal {
            return Err(what);
        }
    }
    Ok(())
}

fn notes(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    class("warnings", &eval.warnings, eval.no_warnings, &result.notes.warnings)?;
    class("infos", &eval.infos, eval.no_infos, &result.notes.infos)
}

fn class(what: &str, wanted: &Option<Vec<Text>>, none: bool, got: &[String]) -> Result<(), String> {
    if none && !got.is_empty() {
        return Err(format!("wanted no {what}, got {got:?}"));
    }
    let Some(wanted) = wanted else { return Ok(()) };
    if got.is_empty() || wanted.iter().any(|w| !got.iter().any(|g| w.matches(g))) {
        return Err(format!("{what} are missing; got {got:?}"));
    }
    match got.iter().find(|g| !wanted.iter().any(|w| w.matches(g))) {
        Some(odd) => Err(format!("unexpected among the {what}: {odd:?}")),
        None => Ok(()),
    }
}
