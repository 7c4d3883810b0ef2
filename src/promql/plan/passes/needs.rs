//! Needs: labels that nobody looks at are not put together, and series come in any order where that is all the same.
//!
//! An aggregation looks at the labels that it groups by. What stands between it and a selector must not look at others:
//! functions do where they drop names and series could become equal by that, which cannot be among series of one name.
//! (But for those that differ in type or unit only, which are aggregated here and an error in Prometheus.)

use model::METRIC_NAME;
use storage::{LabelNeed, Need};

use crate::parse::AggregateOp;
use crate::plan::{Node, Select, Source};

/// `sorted`: the order of the result's series is seen.
pub(in crate::plan) fn run(node: &mut Node, sorted: bool) {
    walk(node, &Wanted { labels: LabelNeed::All, name: true, sorted });
}

/// What those around a node look at.
#[derive(Clone)]
struct Wanted {
    labels: LabelNeed,
    /// The metric's name is told in notes.
    name: bool,
    sorted: bool,
}

impl Wanted {
    /// Any order, all labels.
    fn unsorted(&self) -> Wanted {
        Wanted { labels: LabelNeed::All, name: true, sorted: false }
    }

    fn all(&self) -> Wanted {
        Wanted { labels: LabelNeed::All, name: true, sorted: self.sorted }
    }

    fn named(&self) -> Wanted {
        Wanted { name: true, ..self.clone() }
    }

    fn tell(&self, select: &mut Select) {
        let labels = match &self.labels {
            LabelNeed::Only(names) if self.name => {
                let mut names = names.clone();
                names.push(METRIC_NAME.to_owned());
                names.sort_unstable();
                names.dedup();
                LabelNeed::Only(names)
            }
            LabelNeed::Except(names) if self.name => {
                LabelNeed::Except(names.iter().filter(|name| **name != METRIC_NAME).cloned().collect())
            }
            labels => labels.clone(),
        };
        select.need = Need { labels, sorted: self.sorted, all_samples: true };
    }
}

/// What an aggregation looks at in its input.
fn of_aggregation(op: AggregateOp, grouping: &[String], without: bool) -> Wanted {
    let metadata = [METRIC_NAME, "__type__", "__unit__"];
    let labels = if without {
        let all = grouping.iter().map(String::as_str).chain(metadata);
        let mut names: Vec<String> = all.map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        LabelNeed::Except(names)
    } else if grouping.iter().any(|name| metadata[1..].contains(&name.as_str())) {
        LabelNeed::All
    } else {
        LabelNeed::Only(grouping.to_vec())
    };
    Wanted { labels, name: matches!(op, AggregateOp::Sum | AggregateOp::Avg), sorted: false }
}

fn walk(node: &mut Node, wanted: &Wanted) {
    let one_name = node.one_name();
    // What a function passes on of its input's labels.
    let through = || if one_name { wanted.named() } else { wanted.all() };
    match node {
        Node::Select(select) => wanted.tell(select),
        Node::SelectTimes(select) | Node::SelectStarts(select) => through().tell(select),
        Node::Range { function, source, params, .. } => {
            let inner = if one_name || function.keeps_name() { wanted.named() } else { wanted.all() };
            match source {
                Source::Selector(select) => inner.tell(select),
                Source::Subquery(subquery) => walk(&mut subquery.input, &inner),
            }
            params.iter_mut().for_each(|param| walk(param, &wanted.unsorted()));
        }
        Node::Map { input, params, .. } => {
            walk(input, &through());
            params.iter_mut().for_each(|param| walk(param, &wanted.unsorted()));
        }
        Node::Negate(input) => walk(input, &through()),
        Node::VectorScalar { vector, scalar, .. } => {
            walk(vector, &through());
            walk(scalar, &wanted.unsorted());
        }
        Node::Invariant(inner) => walk(inner, wanted),
        // Whether there is anything, and whether there is one.
        Node::Absent { input, .. } | Node::ScalarOf(input) => {
            walk(input, &Wanted { labels: LabelNeed::Only(Vec::new()), name: false, sorted: false });
        }
        Node::Aggregate { op, param, grouping, without, input, .. } => {
            use AggregateOp::{BottomK, CountValues, LimitK, LimitRatio, TopK};
            if let Some(param) = param {
                walk(param, &wanted.unsorted());
            }
            match op {
                // Among equals the order decides.
                TopK | BottomK | LimitK => walk(input, &Wanted { sorted: true, ..wanted.all() }),
                LimitRatio | CountValues => walk(input, &wanted.all()),
                op => walk(input, &of_aggregation(*op, grouping, *without)),
            }
        }
        Node::Sort { .. } | Node::Info { .. } => {
            let sorted = Wanted { sorted: true, ..wanted.all() };
            node.each_child(&mut |child| walk(child, &sorted));
        }
        _ => {
            let all = wanted.all();
            node.each_child(&mut |child| walk(child, &all));
        }
    }
}
