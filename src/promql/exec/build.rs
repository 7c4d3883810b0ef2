//! Node to operator. Selectors are asked for their series here, before anything is computed.

use model::Labels;

use super::aggregate::AggregateAll;
use super::distinct::{Distinct, DropName};
use super::group::Grouping;
use super::histogram::{HistogramOp, Question};
use super::info::InfoOp;
use super::invariant::InvariantOp;
use super::join::JoinOp;
use super::label::LabelOp;
use super::map::{MapOp, NegateOp, VectorScalarOp};
use super::range::RangeOp;
use super::rank::{CountValuesOp, RankOp};
pub(crate) use super::scalar::scalar;
use super::scalar::{AbsentOp, VectorOf};
use super::select::{SelectOp, Yield};
use super::set::SetOp;
use super::sort::SortOp;
use super::trace::traced;
use super::{Grid, Op, Run};
use crate::Error;
use crate::parse::AggregateOp;
use crate::plan::{Node, title};

/// The operator that computes `node` at the steps of `grid`.
pub(crate) fn build<'a>(node: &Node, grid: Grid, run: &'a Run<'a>) -> Result<Op<'a>, Error> {
    traced(run, || title(node), || operator(node, grid, run))
}

fn operator<'a>(node: &Node, grid: Grid, run: &'a Run<'a>) -> Result<Op<'a>, Error> {
    let values = |node: &Node| scalar(node, grid, run);
    Ok(match node {
        Node::Number(_)
        | Node::Time
        | Node::ScalarOf(_)
        | Node::ScalarNegate(_)
        | Node::ScalarBinary { .. }
        | Node::ScalarExtreme { .. } => Box::new(VectorOf(Some(values(node)?))),
        Node::Text(_) => return Err(Error::execution("a vector is expected here, got a string")),
        Node::Select(select) => Box::new(SelectOp::open(run, grid, select, Yield::Values)?),
        Node::SelectTimes(select) => {
            named(run, node, Box::new(SelectOp::open(run, grid, select, Yield::Times)?))
        }
        Node::SelectStarts(_) if !run.settings.use_start_timestamps => Box::new(VectorOf(None)),
        Node::SelectStarts(select) => {
            named(run, node, Box::new(SelectOp::open(run, grid, select, Yield::Starts)?))
        }
        Node::Range { function, source, params, range, param_range } => {
            let params = params.iter().map(values).collect::<Result<Vec<_>, _>>()?;
            let op = RangeOp::open(run, grid, *function, source, params, range, param_range)?;
            if function.keeps_name() { Box::new(op) } else { named(run, node, Box::new(op)) }
        }
        Node::Map { function, input, params } => {
            let params = params.iter().map(values).collect::<Result<_, _>>()?;
            let input = build(input, grid, run)?;
            named(run, node, Box::new(MapOp { input, grid, function: *function, params }))
        }
        Node::Negate(input) => named(run, node, Box::new(NegateOp(build(input, grid, run)?))),
        Node::VectorOf(inner) => Box::new(VectorOf(Some(values(inner)?))),
        Node::Absent { input, labels } => {
            let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n, v)))
                .map_err(|e| Error::execution(format!("labels of absent(): {e}")))?;
            Box::new(AbsentOp { input: Some(build(input, grid, run)?), labels, grid })
        }
        Node::Label { function, input } => {
            let op = LabelOp::new(build(input, grid, run)?, function)?;
            Box::new(Distinct::new(run, Box::new(op), false))
        }
        Node::Sort { function, input } => {
            let input = Some(build(input, grid, run)?);
            Box::new(SortOp { run, function: function.clone(), input, ready: None })
        }
        Node::Info { input, select, wanted } => {
            let input = Some(build(input, grid, run)?);
            let (select, wanted) = (select.clone(), wanted.clone());
            Box::new(InfoOp { run, grid, select, wanted, input, ready: None })
        }
        Node::HistogramQuantile { q, input, q_range, range } => {
            let question = Question::Quantile { q: values(q)?, range: q_range.clone() };
            histogram(run, grid, question, input, range.clone())?
        }
        Node::HistogramQuantiles { label, qs, input, range } => {
            let qs =
                qs.iter().map(|(q, range)| Ok((values(q)?, range.clone()))).collect::<Result<_, Error>>()?;
            histogram(run, grid, Question::Quantiles { label: label.clone(), qs }, input, range.clone())?
        }
        Node::HistogramFraction { lower, upper, input, range } => {
            let question = Question::Fraction { lower: values(lower)?, upper: values(upper)? };
            histogram(run, grid, question, input, range.clone())?
        }
        Node::Aggregate { .. } => aggregate(node, grid, run)?,
        Node::VectorScalar { op, returns_bool, vector, scalar, scalar_left, range } => {
            let scalar = values(scalar)?;
            let input = build(vector, grid, run)?;
            let built = VectorScalarOp {
                run,
                input,
                range: range.clone(),
                op: *op,
                returns_bool: *returns_bool,
                scalar,
                scalar_left: *scalar_left,
            };
            named(run, node, Box::new(built))
        }
        Node::Join { op, returns_bool, matching, lhs, rhs, range } => {
            let sides = Some((build(lhs, grid, run)?, build(rhs, grid, run)?));
            let (op, returns_bool, matching) = (*op, *returns_bool, matching.clone());
            let range = range.clone();
            Box::new(JoinOp { run, grid, op, returns_bool, matching, sides, range, ready: None })
        }
        Node::Set { op, matching, lhs, rhs } => {
            let sides = Some((build(lhs, grid, run)?, build(rhs, grid, run)?));
            Box::new(SetOp { run, grid, op: *op, matching: matching.clone(), sides, ready: None })
        }
        Node::Invariant(inner) if inner.is_scalar() => Box::new(VectorOf(Some(values(node)?))),
        Node::Invariant(inner) => {
            let input = run.trace.repeated(grid.len, || build(inner, grid.first(), run))?;
            Box::new(InvariantOp { input, grid })
        }
    })
}

fn histogram<'a>(
    run: &'a Run<'a>,
    grid: Grid,
    question: Question,
    input: &Node,
    range: std::ops::Range<usize>,
) -> Result<Op<'a>, Error> {
    let input = Some(build(input, grid, run)?);
    let op = Box::new(HistogramOp { run, grid, question, range, input, ready: None });
    if run.settings.delayed_name_removal {
        return Ok(op);
    }
    Ok(Box::new(Distinct::new(run, op, true)))
}

fn aggregate<'a>(node: &Node, grid: Grid, run: &'a Run<'a>) -> Result<Op<'a>, Error> {
    let Node::Aggregate { op, param, param_range, grouping, without, input, range } = node else {
        return Err(Error::execution("an aggregation is expected here"));
    };
    let param_range = param_range.clone();
    if *op == AggregateOp::CountValues {
        let Some(Node::Text(label)) = param.as_deref() else {
            return Err(Error::execution("count_values needs a string literal for its label"));
        };
        let mut labels = grouping.clone();
        if !*without {
            labels.push(label.clone());
        }
        let grouping = Grouping::new(&labels, *without);
        let input = Some(build(input, grid, run)?);
        return Ok(Box::new(CountValuesOp { run, grid, label: label.clone(), grouping, input, ready: None }));
    }
    let grouping = Grouping::new(grouping, *without);
    let param = match param {
        Some(param) => scalar(param, grid, run)?,
        None => Vec::new(),
    };
    let input = Some(build(input, grid, run)?);
    let op = *op;
    use AggregateOp::{BottomK, LimitK, LimitRatio, TopK};
    Ok(match op {
        TopK | BottomK | LimitK | LimitRatio => {
            let range = range.clone();
            Box::new(RankOp { run, grid, op, grouping, param, param_range, range, input, ready: None })
        }
        _ => {
            let range = range.clone();
            Box::new(AggregateAll { run, grid, op, grouping, param, param_range, range, input, ready: None })
        }
    })
}

/// Has names dropped now, unless they are dropped once at the end.
fn named<'a>(run: &'a Run<'a>, node: &Node, op: Op<'a>) -> Op<'a> {
    if run.settings.delayed_name_removal {
        op
    } else if node.one_name() {
        Box::new(DropName::new(op))
    } else {
        Box::new(Distinct::new(run, op, true))
    }
}
