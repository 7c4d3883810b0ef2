//! Step-invariant hoisting: what gives the same value at every step is computed once.

use crate::plan::{MapFn, Node, Source};

pub(in crate::plan) fn run(node: &mut Node) {
    if wrap(node) {
        hoist(node);
    }
}

/// Whether `node` is invariant as a whole; if not, its invariant children are wrapped.
fn wrap(node: &mut Node) -> bool {
    let mut invariant = Vec::new();
    // A subquery evaluates its input on steps of its own: the input's hoisting is its own affair.
    let own_steps = matches!(node, Node::Range { source: Source::Subquery(_), .. });
    let mut first = true;
    node.each_child(&mut |child| {
        let hoistable = wrap(child);
        if own_steps && first {
            if hoistable {
                hoist(child);
            }
        } else {
            invariant.push(hoistable);
        }
        first = false;
    });
    let itself = match node {
        Node::Number(_) | Node::Text(_) => true,
        Node::Time => false,
        Node::Select(select)
        | Node::SelectTimes(select)
        | Node::SelectStarts(select)
        | Node::Info { select, .. } => select.at.is_some(),
        Node::Range { function, source, .. } => {
            let fixed = match source {
                Source::Selector(select) => select.at.is_some(),
                Source::Subquery(subquery) => subquery.at.is_some(),
            };
            fixed && !function.reads_time()
        }
        Node::Map { function: MapFn::Timestamp, .. } => false,
        // They look at the step themselves: whether the query has steps at all.
        Node::Sort { .. } => false,
        _ => true,
    };
    if itself && invariant.iter().all(|i| *i) {
        return true;
    }
    let mut flags = invariant.into_iter();
    let mut first = true;
    node.each_child(&mut |child| {
        if !(own_steps && first) && flags.next().unwrap_or(false) {
            hoist(child);
        }
        first = false;
    });
    false
}

fn hoist(node: &mut Node) {
    if !matches!(node, Node::Number(_) | Node::Text(_) | Node::Invariant(_)) {
        let inner = std::mem::replace(node, Node::Number(0.0));
        *node = Node::Invariant(Box::new(inner));
    }
}
