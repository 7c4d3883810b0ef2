//! What a node is called where a plan is shown, and the plan as a tree of such names.

use std::fmt::Write;

use super::{Node, Select, Source};

/// A plan as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub name: String,
    pub children: Vec<Explained>,
}

impl Explained {
    /// A node and everything below it.
    pub fn of(node: &mut Node) -> Explained {
        let name = title(node);
        let mut children = Vec::new();
        node.each_child(&mut |child| children.push(Explained::of(child)));
        Explained { name, children }
    }

    /// A range vector that is itself the query.
    pub fn of_source(source: &mut Source) -> Explained {
        let name = format!("[matrix] {}", source_title(source));
        let children = match source {
            Source::Selector(_) => Vec::new(),
            Source::Subquery(subquery) => vec![Explained::of(&mut subquery.input)],
        };
        Explained { name, children }
    }
}

/// The node without what is below it.
pub fn title(node: &Node) -> String {
    match node {
        Node::Number(value) => format!("[number] {value}"),
        Node::Text(text) => format!("[text] {text:?}"),
        Node::Time => "[time]".to_owned(),
        Node::ScalarOf(_) => "[scalar]".to_owned(),
        Node::ScalarNegate(_) | Node::Negate(_) => "[negate]".to_owned(),
        Node::ScalarExtreme { greatest: true, .. } => "[scalar] max_of".to_owned(),
        Node::ScalarExtreme { greatest: false, .. } => "[scalar] min_of".to_owned(),
        Node::ScalarBinary { op, .. } => format!("[scalar] {}", op.as_str()),
        Node::Select(select) => format!("[select] {}", selector(select)),
        Node::SelectTimes(select) => format!("[select] timestamp of {}", selector(select)),
        Node::SelectStarts(select) => format!("[select] start_timestamp of {}", selector(select)),
        Node::Range { function, source, .. } => {
            format!("[window] {} of {}", snake(&format!("{function:?}")), source_title(source))
        }
        Node::Map { function, .. } => format!("[map] {}", snake(&format!("{function:?}"))),
        Node::VectorOf(_) => "[vector]".to_owned(),
        Node::Absent { .. } => "[absent]".to_owned(),
        Node::Label { .. } => "[label]".to_owned(),
        Node::Info { .. } => "[info]".to_owned(),
        Node::Sort { .. } => "[sort]".to_owned(),
        Node::HistogramQuantile { .. } => "[histogram] quantile".to_owned(),
        Node::HistogramQuantiles { .. } => "[histogram] quantiles".to_owned(),
        Node::HistogramFraction { .. } => "[histogram] fraction".to_owned(),
        Node::Aggregate { op, grouping, without, .. } => {
            let word = if *without { "without" } else { "by" };
            format!("[aggregate] {} {word} ({})", op.as_str(), grouping.join(", "))
        }
        Node::VectorScalar { op, .. } => format!("[vector and scalar] {}", op.as_str()),
        Node::Join { op, .. } => format!("[join] {}", op.as_str()),
        Node::Set { op, .. } => format!("[set] {}", op.as_str()),
        Node::Invariant(_) => "[once for all steps]".to_owned(),
    }
}

fn selector(select: &Select) -> String {
    let matchers: Vec<String> = select.matchers.iter().map(ToString::to_string).collect();
    let mut out = format!("{{{}}}", matchers.join(","));
    times(&mut out, select.window, None, select.offset, select.at);
    out
}

fn source_title(source: &Source) -> String {
    match source {
        Source::Selector(select) => selector(select),
        Source::Subquery(subquery) => {
            let mut out = "a subquery".to_owned();
            times(&mut out, subquery.window, Some(subquery.step), subquery.offset, subquery.at);
            out
        }
    }
}

/// Milliseconds throughout, as the plan has them. Writing into a String cannot fail.
fn times(out: &mut String, window: i64, step: Option<i64>, offset: i64, at: Option<i64>) {
    match step {
        Some(step) => _ = write!(out, "[{window}ms:{step}ms]"),
        None if window > 0 => _ = write!(out, "[{window}ms]"),
        None => {}
    }
    if let Some(at) = at {
        let _ = write!(out, " @ {}", at as f64 / 1000.0);
    }
    if offset != 0 {
        let _ = write!(out, " offset {offset}ms");
    }
}

/// `PredictLinear` as `predict_linear`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, character) in name.chars().enumerate() {
        if character.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}
