//! Which series of one tenant in one shard have a label pair, and which pass a set of matchers.
//!
//! # Cost
//! A new series costs one map walk per label. Matchers are resolved from the smallest list on; a pattern over
//! more values than there are candidates left is tested on the candidates' labels instead.

use std::collections::BTreeMap;
use std::ops::Bound;

use hashbrown::HashMap;
use model::{Labels, MatchOp, Matcher};

/// Slots by label pair, all lists ascending.
#[derive(Default)]
pub(crate) struct Postings {
    pub all: Vec<u32>,
    names: HashMap<Box<str>, BTreeMap<Box<str>, Slots>>,
}

/// Most pairs belong to one series: those lists take no allocation.
enum Slots {
    One(u32),
    Many(Vec<u32>),
}

impl Slots {
    fn as_slice(&self) -> &[u32] {
        match self {
            Slots::One(slot) => std::slice::from_ref(slot),
            Slots::Many(slots) => slots,
        }
    }
}

fn add_value(values: &mut BTreeMap<Box<str>, Slots>, value: &str, slot: u32) {
    match values.get_mut(value) {
        None => {
            values.insert(value.into(), Slots::One(slot));
        }
        Some(Slots::Many(slots)) => insert_sorted(slots, slot),
        Some(one) => {
            let mut slots = one.as_slice().to_vec();
            insert_sorted(&mut slots, slot);
            *one = Slots::Many(slots);
        }
    }
}

fn insert_sorted(slots: &mut Vec<u32>, slot: u32) {
    match slots.last() {
        Some(last) if *last >= slot => {
            if let Err(at) = slots.binary_search(&slot) {
                slots.insert(at, slot);
            }
        }
        _ => slots.push(slot),
    }
}

impl Postings {
    pub(crate) fn add(&mut self, slot: u32, labels: &Labels) {
        insert_sorted(&mut self.all, slot);
        for (name, value) in labels.iter() {
            match self.names.get_mut(name) {
                Some(values) => add_value(values, value, slot),
                None => {
                    let values = BTreeMap::from([(value.into(), Slots::One(slot))]);
                    self.names.insert(name.into(), values);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: u32, labels: &Labels) {
        remove_sorted(&mut self.all, slot);
        for (name, value) in labels.iter() {
            let Some(values) = self.names.get_mut(name) else { continue };
            let empty = match values.get_mut(value) {
                Some(Slots::Many(slots)) => {
                    remove_sorted(slots, slot);
                    slots.is_empty()
                }
                Some(Slots::One(only)) => *only == slot,
                None => false,
            };
            if empty {
                values.remove(value);
                if values.is_empty() {
                    self.names.remove(name);
                }
            }
        }
    }

    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    pub(crate) fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.names.get(name).into_iter().flat_map(|values| values.keys().map(|value| &**value))
    }

    /// Values of a label that come after `after`, in order, each with the number of its series.
    pub(crate) fn value_counts(
        &self,
        name: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&str, usize)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let values = self.names.get(name).map(|values| values.range::<str, _>((start, Bound::Unbounded)));
        values.into_iter().flatten().map(|(value, slots)| (&**value, slots.as_slice().len()))
    }

    /// Slots of the series that pass all `matchers`, ascending. `labels` gives the labels of a slot.
    pub(crate) fn resolve<'a>(
        &self,
        matchers: &[Matcher],
        labels: impl Fn(u32) -> Option<&'a Labels>,
    ) -> Vec<u32> {
        let empty = BTreeMap::new();
        let values_of = |m: &Matcher| self.names.get(&*m.name).unwrap_or(&empty);
        // The lists of matchers that need the label, smallest first; patterns without a finite set wait.
        let mut lists: Vec<Vec<&[u32]>> = Vec::new();
        let mut patterns: Vec<&Matcher> = Vec::new();
        let mut excluding: Vec<&Matcher> = Vec::new();
        for m in matchers {
            if m.matches_empty() {
                excluding.push(m);
            } else if let Some(set) = m.set_matches() {
                let values = values_of(m);
                lists.push(set.iter().filter_map(|v| values.get(*v)).map(Slots::as_slice).collect());
            } else {
                patterns.push(m);
            }
        }
        lists.sort_by_key(|l| l.iter().map(|s| s.len()).sum::<usize>());
        let mut candidates: Option<Vec<u32>> = None;
        for list in lists {
            intersect(&mut candidates, union(list));
        }
        patterns.sort_by_key(|m| values_of(m).len());
        for m in patterns {
            let values = values_of(m);
            match &mut candidates {
                Some(slots) if slots.len() <= values.len() => {
                    slots.retain(|&s| labels(s).is_some_and(|l| m.matches(l.value(&m.name))));
                }
                _ => {
                    let hits = matching(values, m).map(|(_, slots)| slots.as_slice()).collect();
                    intersect(&mut candidates, union(hits));
                }
            }
        }
        let mut slots = candidates.unwrap_or_else(|| self.all.clone());
        for m in excluding {
            let values = values_of(m);
            if m.op == MatchOp::NotEqual {
                if let Some(out) = values.get(&*m.value) {
                    subtract(&mut slots, out.as_slice());
                }
            } else if slots.len() <= values.len() {
                slots.retain(|&s| labels(s).is_some_and(|l| m.matches(l.value(&m.name))));
            } else {
                let out = values.iter().filter(|(v, _)| !m.matches(v)).map(|(_, s)| s.as_slice()).collect();
                subtract(&mut slots, &union(out));
            }
        }
        slots
    }
}

/// The values that pass a pattern, starting at its prefix.
fn matching<'a>(
    values: &'a BTreeMap<Box<str>, Slots>,
    m: &'a Matcher,
) -> impl Iterator<Item = (&'a Box<str>, &'a Slots)> {
    let prefix = match m.op {
        MatchOp::Regex => m.pattern().map_or("", |p| p.prefix()),
        _ => "",
    };
    values
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(v, _)| v.starts_with(prefix))
        .filter(|(v, _)| m.matches(v))
}

fn union(lists: Vec<&[u32]>) -> Vec<u32> {
    match lists.as_slice() {
        [] => Vec::new(),
        [one] => one.to_vec(),
        _ => {
            let mut out = lists.concat();
            out.sort_unstable();
            out.dedup();
            out
        }
    }
}

fn intersect(candidates: &mut Option<Vec<u32>>, list: Vec<u32>) {
    match candidates {
        None => *candidates = Some(list),
        Some(slots) => {
            let mut at = 0;
            slots.retain(|slot| {
                at += list[at..].partition_point(|other| other < slot);
                list.get(at) == Some(slot)
            });
        }
    }
}

fn subtract(slots: &mut Vec<u32>, out: &[u32]) {
    let mut at = 0;
    slots.retain(|slot| {
        at += out[at..].partition_point(|other| other < slot);
        out.get(at) != Some(slot)
    });
}

fn remove_sorted(slots: &mut Vec<u32>, slot: u32) {
    if let Ok(at) = slots.binary_search(&slot) {
        slots.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matcher_agrees_with_a_walk_over_all_labels() {
        let mut postings = Postings::default();
        let mut all = Vec::new();
        for i in 0..200u32 {
            let mut pairs = vec![
                ("__name__", format!("m{}", i % 3)),
                ("job", format!("job-{}", i % 7)),
                ("id", format!("id{i}")),
            ];
            if i % 5 == 0 {
                pairs.push(("extra", format!("{}", i % 10)));
            }
            let labels = Labels::from_pairs(pairs).unwrap();
            postings.add(i, &labels);
            all.push(Some(labels));
        }
        for gone in [0u32, 17, 199] {
            let labels = all[gone as usize].take().unwrap();
            postings.remove(gone, &labels);
        }
        use MatchOp::*;
        let m = |op, name, value| Matcher::new(op, name, value).unwrap();
        let sets = [
            vec![m(Equal, "job", "job-3")],
            vec![m(Regex, "job", "job-(1|2)"), m(Equal, "__name__", "m1")],
            vec![m(Regex, "id", "id1.*"), m(NotEqual, "extra", "5")],
            vec![m(Regex, "id", ".*9")],
            vec![m(Equal, "extra", "")],
            vec![m(NotEqual, "extra", "")],
            vec![m(NotRegex, "job", "job-[0-4]")],
            vec![m(NotRegex, "extra", ".+"), m(Regex, "job", ".+")],
            vec![m(Regex, "extra", "0|"), m(Equal, "__name__", "m0")],
            vec![m(Equal, "nothing", "x")],
            vec![m(NotEqual, "nothing", "x"), m(Regex, "id", "id5.")],
            vec![],
        ];
        for set in sets {
            let expected: Vec<u32> = (0..200u32)
                .filter(|i| all[*i as usize].as_ref().is_some_and(|l| Matcher::all_match(&set, l)))
                .collect();
            let got = postings.resolve(&set, |slot| all[slot as usize].as_ref());
            assert_eq!(got, expected, "{set:?}");
        }
    }
}
