//! Selector merging: selectors that ask for the same are told so, and what one reads the others read with it.
//!
//! Whether they really ask for the same, at the same times too, shows when they are opened.

use model::Matcher;
use storage::{LabelNeed, Need};

use crate::plan::{Node, Select, Source};

pub(in crate::plan) fn run(node: &mut Node) {
    // Per kind of selector: how many there are, and what any of them needs.
    let mut kinds: Vec<(Select, usize, Need)> = Vec::new();
    each_select(node, &mut |select| match kinds.iter_mut().find(|(kind, ..)| same(kind, select)) {
        Some((_, count, need)) => {
            *count += 1;
            *need = both(need, &select.need);
        }
        None => kinds.push((select.clone(), 1, select.need.clone())),
    });
    each_select(node, &mut |select| {
        let found = kinds.iter().enumerate().find(|(_, (kind, ..))| same(kind, select));
        if let Some((number, (_, readers @ 2.., need))) = found {
            select.shared = Some(Shared { number, readers: *readers });
            select.need = need.clone();
        }
    });
}

/// What a selector shares with others like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    pub number: usize,
    pub readers: usize,
}

fn same(a: &Select, b: &Select) -> bool {
    let what = |s: &Select| (s.offset, s.at, s.window, s.extend, s.stats);
    let (x, y) = (&a.hints, &b.hints);
    // Of downsampled data a function decides what is read.
    let alike = x.max_resolution == y.max_resolution && (x.max_resolution == 0 || x.function == y.function);
    what(a) == what(b) && same_matchers(&a.matchers, &b.matchers) && alike
}

fn same_matchers(a: &[Matcher], b: &[Matcher]) -> bool {
    let what = |m: &Matcher| (m.name.clone(), m.op, m.value.clone());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| what(a) == what(b))
}

fn both(a: &Need, b: &Need) -> Need {
    let labels = if a.labels == b.labels { a.labels.clone() } else { LabelNeed::All };
    Need { labels, sorted: a.sorted || b.sorted, all_samples: a.all_samples || b.all_samples }
}

fn each_select(node: &mut Node, visit: &mut dyn FnMut(&mut Select)) {
    match node {
        Node::Select(select)
        | Node::SelectTimes(select)
        | Node::SelectStarts(select)
        | Node::Range { source: Source::Selector(select), .. } => visit(select),
        _ => {}
    }
    node.each_child(&mut |child| each_select(child, visit));
}
