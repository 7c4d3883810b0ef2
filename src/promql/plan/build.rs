//! Tree to nodes, with `@`, `offset` and every duration resolved.

use std::ops::Range;

use model::{METRIC_NAME, MatchOp, Matcher, Timestamp};
use storage::{Hints, Need};

use super::function::*;
use super::node::*;
use crate::Error;
use crate::parse::{self, AggregateOp, At, Expr, ExprKind, Modifiers, Type, UnaryOp};

/// The times of a query; all in milliseconds.
#[derive(Clone, Debug)]
pub struct PlanContext {
    pub start: Timestamp,
    pub end: Timestamp,
    /// 0 for an instant query.
    pub step: i64,
    pub default_subquery_step: i64,
    /// Coarsest resolution to be asked for.
    pub max_resolution: i64,
}

/// Builds the plan of an expression whose types have been checked.
pub fn build(expr: &Expr, context: &PlanContext) -> Result<Node, Error> {
    context.node(expr)
}

/// The source of a range vector that is itself the query.
pub fn build_source(expr: &Expr, context: &PlanContext) -> Result<Source, Error> {
    context
        .source(expr.bare(), "a query for a range vector")?
        .ok_or_else(|| Error::execution("a range vector is expected here"))
}

impl PlanContext {
    fn boxed(&self, expr: &Expr) -> Result<Box<Node>, Error> {
        self.node(expr).map(Box::new)
    }

    fn node(&self, expr: &Expr) -> Result<Node, Error> {
        Ok(match &expr.kind {
            ExprKind::Paren(inner) => self.node(inner)?,
            ExprKind::Number { value, .. } => Node::Number(*value),
            ExprKind::String(text) => Node::Text(text.clone()),
            ExprKind::NotText(literal) => return Err(not_text(literal)),
            ExprKind::Selector(selector) => Node::Select(self.select(selector, 0, expr)?),
            ExprKind::Matrix { .. } | ExprKind::Subquery(_) => {
                return Err(Error::unsupported("a range vector outside a function"));
            }
            ExprKind::Unary { op, expr: inner } => {
                let node = self.boxed(inner)?;
                match (op, inner.type_of()) {
                    (UnaryOp::Plus, _) => *node,
                    (UnaryOp::Minus, Type::Scalar) => Node::ScalarNegate(node),
                    (UnaryOp::Minus, _) => Node::Negate(node),
                }
            }
            ExprKind::Binary(binary) => self.binary(binary, expr.range.clone())?,
            ExprKind::Aggregate(aggregate) => {
                let (param, param_range) = match &aggregate.param {
                    Some(Expr { kind: ExprKind::NotText(literal), .. }) => {
                        return Err(Error::execution(format!("invalid label name {literal}")));
                    }
                    Some(param) => (Some(self.boxed(param)?), param.range.clone()),
                    None => (None, expr.range.clone()),
                };
                let chooses = matches!(aggregate.op, AggregateOp::TopK | AggregateOp::BottomK);
                Node::Aggregate {
                    op: aggregate.op,
                    param,
                    param_range,
                    grouping: sorted(&aggregate.grouping),
                    without: aggregate.without,
                    input: self.boxed(&aggregate.expr)?,
                    range: if chooses { expr.range.clone() } else { aggregate.expr.range.clone() },
                }
            }
            ExprKind::Call { function, args } => self.call(function.name, args, expr)?,
        })
    }

    fn binary(&self, binary: &parse::Binary, range: Range<usize>) -> Result<Node, Error> {
        let op = binary.op;
        let (lhs, rhs) = (self.boxed(&binary.lhs)?, self.boxed(&binary.rhs)?);
        let matching = binary.matching.clone();
        let returns_bool = binary.returns_bool;
        Ok(match (binary.lhs.type_of(), binary.rhs.type_of()) {
            (Type::Scalar, Type::Scalar) => Node::ScalarBinary { op, lhs, rhs },
            (Type::Scalar, _) => {
                Node::VectorScalar { op, returns_bool, vector: rhs, scalar: lhs, scalar_left: true, range }
            }
            (_, Type::Scalar) => {
                Node::VectorScalar { op, returns_bool, vector: lhs, scalar: rhs, scalar_left: false, range }
            }
            _ if op.is_set() => Node::Set { op, matching, lhs, rhs },
            _ => Node::Join { op, returns_bool, matching, lhs, rhs, range },
        })
    }

    fn call(&self, name: &str, args: &[Expr], expr: &Expr) -> Result<Node, Error> {
        if let Some(function) = RangeFn::from_name(name) {
            return self.range_function(function, name, args);
        }
        if let Some(function) = MapFn::from_name(name) {
            return self.map_function(function, args);
        }
        let text = |at: usize| match args.get(at).map(|a| &a.bare().kind) {
            Some(ExprKind::String(text)) => Ok(text.clone()),
            Some(ExprKind::NotText(literal)) => Err(not_text(literal)),
            _ => Err(Error::execution(format!("argument {} of {name} must be a string literal", at + 1))),
        };
        let arg = |at: usize| match args.get(at) {
            Some(arg) => Ok(arg),
            None => Err(Error::execution(format!("argument {} of {name} is missing", at + 1))),
        };
        Ok(match name {
            "time" => Node::Time,
            "pi" => Node::Number(std::f64::consts::PI),
            "start" => Node::Number(self.start as f64 / 1000.0),
            "end" => Node::Number(self.end as f64 / 1000.0),
            "step" => Node::Number(self.step as f64 / 1000.0),
            "range" => Node::Number((self.end - self.start) as f64 / 1000.0),
            "min_of" | "max_of" => Node::ScalarExtreme {
                greatest: name == "max_of",
                lhs: self.boxed(arg(0)?)?,
                rhs: self.boxed(arg(1)?)?,
            },
            "scalar" => Node::ScalarOf(self.boxed(arg(0)?)?),
            "vector" => Node::VectorOf(self.boxed(arg(0)?)?),
            "absent" => {
                Node::Absent { input: self.boxed(arg(0)?)?, labels: labels_of_matchers(arg(0)?.bare()) }
            }
            "absent_over_time" => {
                let labels = match &arg(0)?.bare().kind {
                    ExprKind::Matrix { .. } => labels_of_matchers(arg(0)?.bare()),
                    _ => Vec::new(),
                };
                // Of what is only asked whether it is there, names stay: series need not differ without them.
                let input = Box::new(self.range_function(RangeFn::Last, name, args)?);
                Node::Absent { input, labels }
            }
            "label_replace" => {
                let function =
                    LabelFn::Replace { dst: text(1)?, replacement: text(2)?, src: text(3)?, regex: text(4)? };
                Node::Label { function, input: self.boxed(arg(0)?)? }
            }
            "label_join" => {
                let src = (3..args.len()).map(text).collect::<Result<_, _>>()?;
                let function = LabelFn::Join { dst: text(1)?, separator: text(2)?, src };
                Node::Label { function, input: self.boxed(arg(0)?)? }
            }
            "sort" | "sort_desc" => {
                let function = SortFn::Value { descending: name == "sort_desc", range: expr.range.clone() };
                Node::Sort { function, input: self.boxed(arg(0)?)? }
            }
            "sort_by_label" | "sort_by_label_desc" => {
                let labels = (1..args.len()).map(text).collect::<Result<_, _>>()?;
                let descending = name == "sort_by_label_desc";
                let function = SortFn::Label { labels, descending, range: expr.range.clone() };
                Node::Sort { function, input: self.boxed(arg(0)?)? }
            }
            "info" => self.info(arg(0)?, args.get(1))?,
            "histogram_quantile" => Node::HistogramQuantile {
                q: self.boxed(arg(0)?)?,
                input: self.boxed(arg(1)?)?,
                q_range: arg(0)?.range.clone(),
                range: arg(1)?.range.clone(),
            },
            "histogram_quantiles" => Node::HistogramQuantiles {
                label: text(1)?,
                qs: args[2..]
                    .iter()
                    .map(|q| Ok((self.node(q)?, q.range.clone())))
                    .collect::<Result<_, Error>>()?,
                input: self.boxed(arg(0)?)?,
                range: arg(0)?.range.clone(),
            },
            "histogram_fraction" => Node::HistogramFraction {
                lower: self.boxed(arg(0)?)?,
                upper: self.boxed(arg(1)?)?,
                input: self.boxed(arg(2)?)?,
                range: arg(2)?.range.clone(),
            },
            _ => Err(Error::unsupported(format!("function {name}")))?,
        })
    }

    fn info(&self, base: &Expr, data: Option<&Expr>) -> Result<Node, Error> {
        let mut input = self.boxed(base)?;
        let matchers = match data.map(|data| &data.bare().kind) {
            Some(ExprKind::Selector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let (mut names, mut data): (Vec<Matcher>, Vec<Matcher>) =
            matchers.into_iter().partition(|m| *m.name == *METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        }
        let named = names.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex));
        let wanted = InfoLabels {
            names: names.clone(),
            named,
            data: (!data.is_empty()).then(|| data.iter().map(|m| m.name.to_string()).collect()),
            optional: data.iter().all(Matcher::matches_empty),
        };
        if !named {
            // Names are only excluded: what is left must still be the name of an info metric.
            let info = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
            names.push(info.map_err(|e| Error::execution(e.to_string()))?);
        }
        // Info series are looked up at the time at which the series themselves are.
        let (offset, at) = input.times().unwrap_or((0, None));
        names.append(&mut data);
        let hints = Hints { max_resolution: self.max_resolution, ..Hints::default() };
        let range = base.range.clone();
        let (window, extend, stats) = (0, Extend::No, false);
        let need = Need::everything();
        let select =
            Select { matchers: names, offset, at, window, extend, stats, hints, need, shared: None, range };
        Ok(Node::Info { input, select, wanted })
    }

    fn range_function(&self, function: RangeFn, name: &str, args: &[Expr]) -> Result<Node, Error> {
        let mut source = None;
        let mut params = Vec::new();
        let (mut range, mut param_range) = (0..0, 0..0);
        for arg in args {
            match self.source(arg.bare(), name)? {
                Some(found) => {
                    // As Prometheus, which tells notes about a subquery at the start of the query, and those of a
                    // quantile at its first argument.
                    range = match found {
                        Source::Subquery(_) => 0..0,
                        Source::Selector(_) => arg.range.clone(),
                    };
                    source = Some(found);
                }
                None => {
                    param_range = arg.range.clone();
                    params.push(self.node(arg)?);
                }
            }
        }
        let source = source.ok_or_else(|| Error::execution(format!("{name} needs a range vector")))?;
        if function == RangeFn::Quantile {
            range = param_range.clone();
        }
        Ok(Node::Range { function, source, params, range, param_range })
    }

    /// The source that a bare expression is, if it is a range vector.
    fn source(&self, bare: &Expr, name: &str) -> Result<Option<Source>, Error> {
        Ok(match &bare.kind {
            ExprKind::Matrix { selector, window } => {
                check_extended(&selector.modifiers, name)?;
                Some(Source::Selector(self.select(selector, self.ms(window, "range")?, bare)?))
            }
            ExprKind::Subquery(subquery) => Some(Source::Subquery(Box::new(self.subquery(subquery)?))),
            _ => None,
        })
    }

    fn map_function(&self, function: MapFn, args: &[Expr]) -> Result<Node, Error> {
        let Some((first, rest)) = args.split_first() else {
            let input = Box::new(Node::VectorOf(Box::new(Node::Time)));
            return Ok(Node::Map { function, input, params: Vec::new() });
        };
        if function == MapFn::Timestamp
            && let ExprKind::Selector(selector) = &first.bare().kind
        {
            return Ok(Node::SelectTimes(self.select(selector, 0, first.bare())?));
        }
        if function == MapFn::StartTimestamp
            && let ExprKind::Selector(selector) = &first.bare().kind
        {
            return Ok(Node::SelectStarts(self.select(selector, 0, first.bare())?));
        }
        let params = rest.iter().map(|arg| self.node(arg)).collect::<Result<_, _>>()?;
        Ok(Node::Map { function, input: self.boxed(first)?, params })
    }

    fn select(&self, selector: &parse::Selector, window: i64, expr: &Expr) -> Result<Select, Error> {
        let extend = extend_of(&selector.modifiers);
        if window == 0 && extend == Extend::Anchored {
            return Err(Error::execution("anchored modifier can only be used with a range vector"));
        }
        let (offset, at) = self.times(&selector.modifiers)?;
        let hints = Hints { max_resolution: self.max_resolution, range: window, ..Hints::default() };
        Ok(Select {
            matchers: selector.matchers.clone(),
            offset,
            at,
            window,
            extend,
            stats: false,
            hints,
            need: Need::everything(),
            shared: None,
            range: expr.range.clone(),
        })
    }

    fn subquery(&self, subquery: &parse::Subquery) -> Result<Subquery, Error> {
        let (offset, at) = self.times(&subquery.modifiers)?;
        let step = match &subquery.step {
            Some(step) => self.ms(step, "step")?,
            None => self.default_subquery_step,
        };
        let window = self.ms(&subquery.window, "range")?;
        Ok(Subquery { input: self.node(&subquery.expr)?, window, step, offset, at })
    }

    fn times(&self, modifiers: &Modifiers) -> Result<(i64, Option<Timestamp>), Error> {
        let at = match modifiers.at {
            None => None,
            Some(At::Start) => Some(self.start),
            Some(At::End) => Some(self.end),
            Some(At::Time(ms)) => Some(ms),
        };
        let offset = match &modifiers.offset {
            None => 0,
            Some(offset) => self.duration(offset)?,
        };
        Ok((offset, at))
    }

    /// A window or a step: greater than 0.
    fn ms(&self, duration: &parse::Duration, what: &str) -> Result<i64, Error> {
        match self.duration(duration)? {
            ms if ms > 0 => Ok(ms),
            ms => Err(Error::execution(format!("{what} {duration} is {ms} ms; it must be greater than 0"))),
        }
    }

    fn duration(&self, duration: &parse::Duration) -> Result<i64, Error> {
        let range = (self.end - self.start) as f64 / 1000.0;
        let ms = (duration.seconds(self.step as f64 / 1000.0, range) * 1000.0).round();
        // Far below what would overflow when it is added to a timestamp.
        if ms.is_nan() || ms.abs() > 9.2e15 {
            return Err(Error::execution(format!("duration {duration} is out of range")));
        }
        Ok(ms as i64)
    }
}

fn not_text(literal: &str) -> Error {
    Error::execution(format!("string literal {literal} is not valid UTF-8"))
}

fn extend_of(modifiers: &Modifiers) -> Extend {
    match modifiers {
        Modifiers { anchored: true, .. } => Extend::Anchored,
        Modifiers { smoothed: true, .. } => Extend::Smoothed,
        _ => Extend::No,
    }
}

/// Only some functions know what to do with samples beyond the window.
fn check_extended(modifiers: &Modifiers, function: &str) -> Result<(), Error> {
    let extend = extend_of(modifiers);
    let mut names: Vec<&str> = RangeFn::extends(extend).iter().map(|(_, name)| *name).collect();
    if extend == Extend::No || names.contains(&function) {
        return Ok(());
    }
    names.sort_unstable();
    let word = if extend == Extend::Anchored { "anchored" } else { "smoothed" };
    let names = names.join(", ");
    Err(Error::execution(format!("{word} modifier can only be used with: {names} - not with {function}")))
}

fn sorted(labels: &[String]) -> Vec<String> {
    let mut labels = labels.to_vec();
    labels.sort();
    labels.dedup();
    labels
}

/// The labels that an absent series would have had: of `=` matchers whose label appears once.
fn labels_of_matchers(expr: &Expr) -> Vec<(String, String)> {
    let selector = match &expr.kind {
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => selector,
        _ => return Vec::new(),
    };
    let mut out: Vec<(String, String)> = Vec::new();
    for matcher in selector.matchers.iter().filter(|m| *m.name != *METRIC_NAME) {
        let twice = selector.matchers.iter().filter(|m| m.name == matcher.name).count() > 1;
        if matcher.op == MatchOp::Equal && !twice {
            out.push((matcher.name.to_string(), matcher.value.to_string()));
        }
    }
    out
}
