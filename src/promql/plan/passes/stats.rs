//! Selectors of which only count and sum of histograms are wanted are told so: buckets are the greater part of them.

use crate::plan::{MapFn, Node, Source};

pub(in crate::plan) fn run(node: &mut Node) {
    walk(node, false, false);
}

/// `wanted`: a function of count and sum stands around; `whole`: buckets are needed further up.
fn walk(node: &mut Node, wanted: bool, whole: bool) {
    let (mut wanted, mut whole) = (wanted, whole);
    match node {
        Node::Select(select) => select.stats = wanted && !whole,
        Node::Range { source: Source::Selector(select), .. } => select.stats = wanted && !whole,
        // A subquery looks for resets by itself, and needs buckets for that.
        Node::Range { source: Source::Subquery(_), .. } => whole = true,
        Node::Map { function, .. } => {
            wanted |= matches!(function, MapFn::HistogramAvg | MapFn::HistogramCount | MapFn::HistogramSum);
        }
        Node::HistogramQuantile { .. } | Node::HistogramQuantiles { .. } | Node::HistogramFraction { .. } => {
            whole = true;
        }
        Node::VectorScalar { op, .. } | Node::Join { op, .. } => whole |= op.is_trim(),
        _ => {}
    }
    node.each_child(&mut |child| walk(child, wanted, whole));
}
