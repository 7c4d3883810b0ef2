//! Matcher propagation: what a label must be on one side of a match it must be on the other side as well.
//!
//! `a{zone="x"} / b` reads no series of `b` in other zones. Rows that could match nothing are left out, but never where the
//! query would have failed or noted something of them: that several rows of the "one" side are alike is an error as soon
//! as the other side has any row, matched or not; and what is computed of a selector's rows before they are matched
//! may say something of each. So the "one" side must be such that no two rows can be alike, and only rows that are matched as
//! they were read are left out.

use model::{METRIC_NAME, Matcher};

use crate::parse::{AggregateOp, BinaryOp, Card, Matching};
use crate::plan::{Node, Select, Source};

pub(in crate::plan) fn run(node: &mut Node) {
    node.each_child(&mut run);
    match node {
        Node::Join { matching, lhs, rhs, .. }
            if matching.fill_left.is_none() && matching.fill_right.is_none() =>
        {
            let (many, one) = match matching.card {
                Card::OneToMany => (&mut **rhs, &mut **lhs),
                _ => (&mut **lhs, &mut **rhs),
            };
            if is_unique(one, matching) {
                let (from_one, from_many) = (matchers(one, matching), matchers(many, matching));
                from_one.iter().for_each(|m| narrow(many, m));
                from_many.iter().for_each(|m| narrow(one, m));
            }
        }
        Node::Set { op: op @ (BinaryOp::And | BinaryOp::Unless), matching, lhs, rhs } => {
            let (from_left, from_right) = (matchers(lhs, matching), matchers(rhs, matching));
            from_left.iter().for_each(|m| narrow(rhs, m));
            if *op == BinaryOp::And {
                from_right.iter().for_each(|m| narrow(lhs, m));
            }
        }
        _ => {}
    }
}

/// Whether no two rows can have the same labels of those that are matched.
fn is_unique(node: &Node, matching: &Matching) -> bool {
    if !matching.on {
        return matching.labels.is_empty() && node.one_name();
    }
    match node {
        Node::Aggregate { grouping, without: false, op, .. } if is_dense(*op) => {
            grouping.iter().all(|name| matching.labels.contains(name))
        }
        _ => false,
    }
}

/// What the matched labels of a side's rows are known to be.
fn matchers(node: &mut Node, matching: &Matching) -> Vec<Matcher> {
    let is_matched =
        |name: &str| *name != *METRIC_NAME && matching.labels.iter().any(|l| l == name) == matching.on;
    let mut found = Vec::new();
    if let Some(select) = selector(node, None) {
        found.extend(select.matchers.iter().filter(|m| !m.matches_empty() && is_matched(&m.name)).cloned());
    }
    found.retain(|m| selector(node, Some(&m.name)).is_some());
    found
}

fn narrow(node: &mut Node, matcher: &Matcher) {
    let select = match node {
        Node::Select(select) | Node::SelectTimes(select) | Node::SelectStarts(select) => select,
        Node::Invariant(input) => return narrow(input, matcher),
        _ => return,
    };
    let same = |m: &Matcher| m.name == matcher.name && m.op == matcher.op && m.value == matcher.value;
    if !select.matchers.iter().any(same) {
        select.matchers.push(matcher.clone());
    }
}

/// The selector of whose series the rows are made, where a label of theirs is the same in both.
fn selector<'n>(node: &'n mut Node, label: Option<&str>) -> Option<&'n mut Select> {
    match node {
        Node::Select(select)
        | Node::SelectTimes(select)
        | Node::SelectStarts(select)
        | Node::Range { source: Source::Selector(select), .. } => Some(select),
        Node::Map { input, .. } | Node::Negate(input) | Node::Invariant(input) => selector(input, label),
        Node::VectorScalar { vector, .. } => selector(vector, label),
        Node::Aggregate { op, grouping, without, input, .. } if is_dense(*op) => {
            let listed = |label: &str| grouping.iter().any(|name| name == label);
            let kept = label.is_none_or(|label| listed(label) != *without);
            if kept { selector(input, label) } else { None }
        }
        _ => None,
    }
}

/// Whether every series of a group enters its result.
fn is_dense(op: AggregateOp) -> bool {
    use AggregateOp::{BottomK, CountValues, LimitK, LimitRatio, TopK};
    !matches!(op, TopK | BottomK | LimitK | LimitRatio | CountValues)
}
