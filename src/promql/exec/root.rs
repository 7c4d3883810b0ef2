//! The whole query: its plan by type, its evaluation, and the shape of its answer.

use model::{Labels, Timestamp};

use super::build::{build, scalar};
use super::distinct::unite;
use super::run::Rows;
use super::select::window_end;
use super::subquery::Samples;
use super::track::Track;
use super::{CellRef, Grid, Native, Row, Run, present};
use crate::Error;
use crate::parse::{Expr, ExprKind, Type};
use crate::plan::{self, Explained, Node, PlanContext, Source};
use crate::value::{NativePoint, Point, Series, Value, VectorSample};

/// What is to be evaluated.
pub(crate) enum Root {
    Text(String),
    Scalar(Node),
    Vector(Node),
    Matrix(Source),
}

/// What came out.
pub(crate) enum Answer<'r> {
    Text(String),
    Scalar(Vec<f64>),
    Rows(Rows<'r>),
    Series(Vec<Series>),
}

impl Root {
    pub(crate) fn plan(expr: &Expr, context: &PlanContext) -> Result<Root, Error> {
        Ok(match expr.type_of() {
            Type::String => match &expr.bare().kind {
                ExprKind::String(text) => Root::Text(text.clone()),
                ExprKind::NotText(literal) => {
                    return Err(Error::execution(format!("string literal {literal} is not valid UTF-8")));
                }
                _ => return Err(Error::execution("a string literal is expected here")),
            },
            Type::Scalar => Root::Scalar(plan::plan(expr, context)?),
            Type::Vector => Root::Vector(plan::plan(expr, context)?),
            Type::Matrix => Root::Matrix(plan::plan_source(expr, context)?),
        })
    }

    pub(crate) fn evaluate<'r>(&self, grid: Grid, run: &'r Run<'r>) -> Result<Answer<'r>, Error> {
        run.check()?;
        if grid.len > run.settings.max_samples {
            return Err(Error::exhausted(format!(
                "query has {} steps, more than the limit of {} samples; use a longer step or a shorter range",
                grid.len, run.settings.max_samples
            )));
        }
        Ok(match self {
            Root::Text(text) => Answer::Text(text.clone()),
            Root::Scalar(node) => Answer::Scalar(scalar(node, grid, run)?),
            Root::Vector(node) => {
                let mut rows = run.collect(build(node, grid, run)?)?;
                unite(run, &mut rows, true)?;
                Answer::Rows(rows)
            }
            Root::Matrix(source) => Answer::Series(matrix(source, grid, run)?),
        })
    }
}

/// The samples of a range vector at one time, as they are.
fn matrix(source: &Source, grid: Grid, run: &Run<'_>) -> Result<Vec<Series>, Error> {
    let (window, at, offset) = source.window();
    let end = window_end(at, offset, grid.start);
    let start = end.saturating_sub(window);
    let mut samples = Samples::open(run, &grid, source)?;
    let mut track = Track::default();
    let mut held = run.hold(0, 0)?;
    let mut out: Vec<Series> = Vec::new();
    while let Some((labels, drop_name)) = samples.next(&mut track)? {
        let within = |t: &Timestamp| *t > start && *t <= end;
        let floats = track.floats.timestamps.iter().zip(&track.floats.values);
        let mut points: Vec<Point> =
            Vec::with_capacity(track.floats.timestamps.iter().filter(|t| within(t)).count());
        points.extend(floats.filter(|(t, _)| within(t)).map(|(&t, &v)| Point { t, v }));
        let natives = track.natives.timestamps.iter().zip(&track.natives.values);
        let histograms: Vec<NativePoint> =
            natives.filter(|(t, _)| within(t)).map(|(&t, h)| NativePoint { t, h: h.clone() }).collect();
        let count = points.len() + histograms.len();
        if count == 0 {
            continue;
        }
        // The track goes on to the next series; its histograms are shared with the result.
        let natives = track.bytes().saturating_sub(track.floats.len() * size_of::<Point>());
        held.grow(run, count, points.len() * size_of::<Point>() + natives)?;
        let meter = run.trace.meter();
        run.count(meter, count as u64);
        run.trace.count_steps(meter, std::iter::once(count as u64));
        let labels = if drop_name { super::without_name(&labels) } else { labels };
        out.push(Series { labels, points, histograms });
    }
    Ok(out)
}

impl Root {
    /// The plan as it is shown.
    pub(crate) fn explain(mut self) -> Explained {
        match &mut self {
            Root::Text(text) => Explained { name: format!("[text] {text:?}"), children: Vec::new() },
            Root::Scalar(node) | Root::Vector(node) => Explained::of(node),
            Root::Matrix(source) => Explained::of_source(source),
        }
    }
}

impl Answer<'_> {
    pub(crate) fn into_value(self, run: &Run<'_>, grid: Grid, instant: bool) -> Result<Value, Error> {
        let time = grid.start;
        Ok(match self {
            Answer::Text(text) => Value::String(time, text),
            Answer::Scalar(values) if instant => {
                Value::Scalar(time, values.first().copied().unwrap_or(f64::NAN))
            }
            Answer::Scalar(values) => {
                let points: Vec<Point> =
                    values.into_iter().enumerate().map(|(at, v)| Point { t: grid.time(at), v }).collect();
                let series = Series { labels: Labels::empty(), points, histograms: Vec::new() };
                Value::Matrix(if series.points.is_empty() { Vec::new() } else { vec![series] })
            }
            Answer::Rows(rows) if instant => Value::Vector(
                rows.rows
                    .into_iter()
                    .filter_map(|row| {
                        let (v, histogram) = match row.get(0)? {
                            CellRef::Float(v) => (v, None),
                            CellRef::Native(h) => (f64::NAN, Some(h.clone())),
                        };
                        Some(VectorSample { labels: row.labels, point: Point { t: time, v }, histogram })
                    })
                    .collect(),
            ),
            Answer::Rows(rows) => {
                // A row is let go once its points are there, which have their times besides.
                let more = |row: &Row| {
                    (floats_of(row) * size_of::<Point>()).saturating_sub(size_of_val(&*row.values))
                        + row
                            .natives
                            .len()
                            .saturating_mul(size_of::<NativePoint>() - size_of::<Option<Native>>())
                };
                let _held = run.hold(0, rows.rows.iter().map(more).sum())?;
                let series = rows.rows.into_iter().filter_map(|row| {
                    let there = row.values.iter().enumerate().filter(|(_, v)| present(**v));
                    let mut points = Vec::with_capacity(floats_of(&row));
                    points.extend(there.map(|(at, v)| Point { t: grid.time(at), v: *v }));
                    let natives = row.natives.into_iter().enumerate();
                    let histograms: Vec<NativePoint> =
                        natives.filter_map(|(at, h)| Some(NativePoint { t: grid.time(at), h: h? })).collect();
                    let empty = points.is_empty() && histograms.is_empty();
                    (!empty).then_some(Series { labels: row.labels, points, histograms })
                });
                let mut series: Vec<Series> = series.collect();
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                Value::Matrix(series)
            }
            Answer::Series(mut series) => {
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                Value::Matrix(series)
            }
        })
    }
}

/// How many of a row's values are there.
fn floats_of(row: &Row) -> usize {
    row.values.iter().filter(|v| present(**v)).count()
}
