//! Tree to plan: what is to be computed, with all times resolved, ready to be turned into operators.
//!
//! Stands between [`crate::parse`] and the operators. [`build`] resolves `@`, `offset` and durations against
//! the query's start, end and step; the passes then rewrite the plan, one per file. Plans are plain data: no
//! sample is read here.

mod build;
mod function;
mod node;
mod passes;
mod title;

pub use build::{PlanContext, build, build_source};
pub use function::{InfoLabels, LabelFn, MapFn, RangeFn, SortFn};
pub use node::{Extend, Node, Select, Source, Subquery};
pub use passes::merge::Shared;
pub use title::{Explained, title};

use crate::{Error, Expr};

/// Builds the plan of `expr` and runs every pass over it.
pub fn plan(expr: &Expr, context: &PlanContext) -> Result<Node, Error> {
    let mut node = build(expr, context)?;
    rewrite(&mut node, context);
    Ok(node)
}

/// The plan of a range vector that is itself the query.
pub fn plan_source(expr: &Expr, context: &PlanContext) -> Result<Source, Error> {
    let mut source = build_source(expr, context)?;
    if let Source::Subquery(subquery) = &mut source {
        rewrite(&mut subquery.input, context);
    }
    Ok(source)
}

fn rewrite(node: &mut Node, context: &PlanContext) {
    passes::fold::run(node);
    passes::invariant::run(node);
    passes::hints::run(node, context.step);
    passes::stats::run(node);
    passes::propagate::run(node);
    // The series of a range query are sorted at its end.
    passes::needs::run(node, context.step == 0);
    passes::merge::run(node);
}
