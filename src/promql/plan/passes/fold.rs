//! Constant folding: scalar expressions of numbers become numbers.

use crate::exec::scalar_op;
use crate::plan::Node;

pub(in crate::plan) fn run(node: &mut Node) {
    node.each_child(&mut run);
    let folded = match node {
        Node::ScalarNegate(inner) => match **inner {
            Node::Number(v) => Some(-v),
            _ => None,
        },
        Node::ScalarBinary { op, lhs, rhs } => match (&**lhs, &**rhs) {
            (Node::Number(a), Node::Number(b)) => Some(scalar_op(*op, *a, *b)),
            _ => None,
        },
        _ => None,
    };
    if let Some(value) = folded {
        *node = Node::Number(value);
    }
}
