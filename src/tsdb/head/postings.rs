//! The label pairs of one tenant in one shard, each once: its text, and which series have it.
//!
//! A series is a list of pairs by number; its canonical label bytes are the pairs' texts, one behind the other. A
//! pair lives as long as a series has it.
//!
//! # Cost
//! A new series costs one look-up per label, reading its labels one copy per label. Matchers are resolved from the
//! smallest list on; a pattern over more values than there are candidates left is tested on the candidates' labels
//! instead.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{MatchOp, Matcher, label_parts, label_spans};

use super::slab::Slab;
use super::slots::{Slots, subtract};

/// Label pairs and their series.
#[derive(Default)]
pub(crate) struct Postings {
    pub all: Slots,
    pairs: Vec<Pair>,
    free: Vec<u32>,
    /// Pairs by text.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    names: HashMap<Box<str>, u32>,
    /// The pairs of each name, in no order.
    values: Vec<Vec<u32>>,
    free_names: Vec<u32>,
    /// Pairs that were ever removed: as long as this stays, a number means the same pair.
    pub removals: u64,
}

/// A label pair.
struct Pair {
    /// Piece of the slab with its canonical bytes: both lengths, name and value.
    text: u32,
    len: u32,
    name: u32,
    /// Where it is among the values of its name.
    at: u32,
    slots: Slots,
}

impl Pair {
    fn text<'a>(&self, texts: &'a Slab) -> &'a [u8] {
        texts.get(self.text).get(..self.len as usize).unwrap_or_default()
    }

    /// Its name and value.
    fn parts<'a>(&self, texts: &'a Slab) -> (&'a str, &'a str) {
        label_parts(self.text(texts)).next().map_or(("", ""), |(_, name, value)| (name, value))
    }
}

/// Reads a list of pairs, as [`Postings::add`] makes it.
pub(crate) fn pairs_of(list: &[u8]) -> impl Iterator<Item = u32> + Clone {
    let (count, pairs) = list.as_chunks::<4>().0.split_first().unwrap_or((&[0; 4], &[]));
    pairs.iter().take(u32::from_le_bytes(*count) as usize).map(|pair| u32::from_le_bytes(*pair))
}

impl Postings {
    /// Adds a series with canonical label bytes, and returns the list of its pairs, a piece of `lists`.
    pub(crate) fn add(&mut self, slot: u32, labels: &[u8], texts: &mut Slab, lists: &mut Slab) -> u32 {
        self.all.insert(slot);
        let count = label_spans(labels).count();
        let list = lists.alloc(4 * (count + 1));
        let places = lists.get_mut(list).as_chunks_mut::<4>().0;
        if let Some(place) = places.first_mut() {
            *place = (count as u32).to_le_bytes();
        }
        for ((text, name, _), place) in label_spans(labels).zip(places.iter_mut().skip(1)) {
            let pair = self.pair(text, name, texts);
            self.pairs[pair as usize].slots.insert(slot);
            *place = pair.to_le_bytes();
        }
        list
    }

    /// The pair with this text, which is made if it is not there.
    fn pair(&mut self, text: &[u8], name: &[u8], texts: &mut Slab) -> u32 {
        let hash = self.hasher.hash_one(text);
        let pairs = &self.pairs;
        if let Some(pair) = self.table.find(hash, |pair| pairs[*pair as usize].text(texts) == text) {
            return *pair;
        }
        // Labels were checked before.
        let name = std::str::from_utf8(name).unwrap_or_default();
        let name = match self.names.get(name) {
            Some(name) => *name,
            None => {
                let at = self.free_names.pop().unwrap_or(self.values.len() as u32);
                if at as usize == self.values.len() {
                    self.values.push(Vec::new());
                }
                self.names.insert(name.into(), at);
                at
            }
        };
        let piece = texts.alloc(text.len());
        if let Some(place) = texts.get_mut(piece).get_mut(..text.len()) {
            place.copy_from_slice(text);
        }
        let index = self.free.pop().unwrap_or(self.pairs.len() as u32);
        let values = &mut self.values[name as usize];
        let pair =
            Pair { text: piece, len: text.len() as u32, name, at: values.len() as u32, slots: Slots::None };
        values.push(index);
        match self.pairs.get_mut(index as usize) {
            Some(place) => *place = pair,
            None => {
                if self.pairs.len() == self.pairs.capacity() {
                    self.pairs.reserve_exact((self.pairs.len() / 8).max(16));
                }
                self.pairs.push(pair);
            }
        }
        let (pairs, hasher) = (&self.pairs, &self.hasher);
        self.table.insert_unique(hash, index, |pair| hasher.hash_one(pairs[*pair as usize].text(texts)));
        index
    }

    /// Removes series, ascending by slot, each with the list of its pairs. What no series has any more is gone.
    pub(crate) fn remove(&mut self, gone: &[(u32, Vec<u32>)], texts: &mut Slab) {
        let slots: Vec<u32> = gone.iter().map(|(slot, _)| *slot).collect();
        self.all.remove(&slots);
        let mut by_pair: Vec<(u32, u32)> =
            gone.iter().flat_map(|(slot, pairs)| pairs.iter().map(|pair| (*pair, *slot))).collect();
        by_pair.sort_unstable();
        let mut of_pair = Vec::new();
        for one in by_pair.chunk_by(|a, b| a.0 == b.0) {
            of_pair.clear();
            of_pair.extend(one.iter().map(|(_, slot)| *slot));
            let Some(pair) = self.pairs.get_mut(one[0].0 as usize) else { continue };
            pair.slots.remove(&of_pair);
            if pair.slots.is_empty() {
                self.remove_pair(one[0].0, texts);
            }
        }
    }

    fn remove_pair(&mut self, index: u32, texts: &mut Slab) {
        let pair = &self.pairs[index as usize];
        let (piece, name, at) = (pair.text, pair.name, pair.at as usize);
        let hash = self.hasher.hash_one(pair.text(texts));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        let values = &mut self.values[name as usize];
        values.swap_remove(at);
        match values.get(at) {
            Some(moved) => self.pairs[*moved as usize].at = at as u32,
            None if values.is_empty() => {
                *values = Vec::new();
                self.free_names.push(name);
                self.names.remove(self.pairs[index as usize].parts(texts).0);
            }
            None => {}
        }
        texts.free(piece);
        self.free.push(index);
        self.removals += 1;
    }

    /// Adds the canonical label bytes of a series to `out`.
    #[inline]
    pub(crate) fn write_labels(&self, list: &[u8], texts: &Slab, out: &mut Vec<u8>) {
        for pair in pairs_of(list) {
            out.extend_from_slice(self.pairs.get(pair as usize).map(|p| p.text(texts)).unwrap_or_default());
        }
    }

    /// The numbers of names that there are.
    pub(crate) fn numbers<'a>(&self, names: impl Iterator<Item = &'a String>) -> Vec<u32> {
        names.filter_map(|name| self.names.get(name.as_str()).copied()).collect()
    }

    /// Adds those pairs of a series whose names are among `names`, or are not, to `out`.
    #[inline]
    pub(crate) fn pairs_among(&self, list: &[u8], names: &[u32], among: bool, out: &mut Vec<u32>) {
        let has =
            |pair: &u32| self.pairs.get(*pair as usize).is_some_and(|p| names.contains(&p.name) == among);
        out.extend(pairs_of(list).filter(has));
    }

    /// Adds the canonical label bytes of pairs to `out`.
    pub(crate) fn write_pairs(&self, pairs: &[u32], texts: &Slab, out: &mut Vec<u8>) {
        for pair in pairs {
            out.extend_from_slice(self.pairs.get(*pair as usize).map(|p| p.text(texts)).unwrap_or_default());
        }
    }

    /// Whether a series has these canonical label bytes.
    #[inline]
    pub(crate) fn is(&self, list: &[u8], texts: &Slab, labels: &[u8]) -> bool {
        let mut rest = labels;
        for pair in pairs_of(list) {
            let text = self.pairs.get(pair as usize).map(|p| p.text(texts)).unwrap_or_default();
            match rest.strip_prefix(text) {
                Some(tail) => rest = tail,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// Name and value of a pair.
    pub(crate) fn name_and_value<'a>(&self, pair: u32, texts: &'a Slab) -> (&'a str, &'a str) {
        self.pairs.get(pair as usize).map_or(("", ""), |pair| pair.parts(texts))
    }

    /// The value of a label of a series; empty if it has none.
    fn value<'a>(&self, list: &[u8], name: u32, texts: &'a Slab) -> &'a str {
        let mut pairs = pairs_of(list).filter_map(|pair| self.pairs.get(pair as usize));
        pairs.find(|pair| pair.name == name).map_or("", |pair| pair.parts(texts).1)
    }

    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    pub(crate) fn label_values<'a>(&'a self, name: &str, texts: &'a Slab) -> impl Iterator<Item = &'a str> {
        self.pairs_with(name).iter().map(|pair| self.name_and_value(*pair, texts).1)
    }

    /// Values of a label from the `from`-th on, in an order that holds until series come or go.
    pub(crate) fn some_values<'a>(
        &'a self,
        name: &str,
        from: usize,
        texts: &'a Slab,
    ) -> impl Iterator<Item = (&'a str, usize)> {
        let pairs = self.pairs_with(name).get(from..).unwrap_or_default().iter();
        pairs.filter_map(|pair| self.pairs.get(*pair as usize)).map(|p| (p.parts(texts).1, p.slots.len()))
    }

    /// How many series have a pair, given as canonical bytes.
    pub(crate) fn count(&self, text: &[u8], texts: &Slab) -> usize {
        self.find(text, texts).map_or(0, |pair| pair.slots.len())
    }

    fn find(&self, text: &[u8], texts: &Slab) -> Option<&Pair> {
        let is = |pair: &u32| self.pairs.get(*pair as usize).is_some_and(|p| p.text(texts) == text);
        let pair = self.table.find(self.hasher.hash_one(text), is)?;
        self.pairs.get(*pair as usize)
    }

    fn pairs_with(&self, name: &str) -> &[u32] {
        let values = self.names.get(name).and_then(|name| self.values.get(*name as usize));
        values.map(Vec::as_slice).unwrap_or_default()
    }

    /// Pairs from the `from`-th on, each with the number of its name and its value; some may have no series.
    pub(crate) fn some_pairs<'a>(
        &'a self,
        from: usize,
        texts: &'a Slab,
    ) -> impl Iterator<Item = (u32, u32, &'a str)> {
        let pairs = self.pairs.iter().zip(0..).skip(from);
        pairs.map(|(pair, at)| {
            let value = if pair.slots.is_empty() { "" } else { pair.parts(texts).1 };
            (at, pair.name, value)
        })
    }

    /// All names with their numbers.
    pub(crate) fn names(&self) -> Vec<(Box<str>, u32)> {
        self.names.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }

    /// Bytes of memory, without texts: of pairs, and of lists of slots.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let names: usize = self.names.keys().map(|name| name.len() + 24).sum();
        let values: usize = self.values.iter().map(|v| v.capacity() * 4 + size_of::<Vec<u32>>()).sum();
        let pairs = self.pairs.capacity() * size_of::<Pair>() + self.table.capacity() * 5;
        let slots: usize = self.pairs.iter().map(|pair| pair.slots.bytes()).sum();
        (names + values + pairs, slots + self.all.bytes())
    }

    /// Slots of the series that pass all `matchers`, ascending. `list` gives the pairs of a slot.
    pub(crate) fn resolve<'a>(
        &self,
        matchers: &[Matcher],
        texts: &Slab,
        list: impl Fn(u32) -> Option<&'a [u8]>,
    ) -> Vec<u32> {
        // The lists of matchers that need the label, smallest first; patterns without a finite set wait.
        let mut lists: Vec<Vec<&Slots>> = Vec::new();
        let mut patterns: Vec<&Matcher> = Vec::new();
        let mut excluding: Vec<&Matcher> = Vec::new();
        let mut text = Vec::new();
        let mut find = |name: &str, value: &str| {
            text.clear();
            model::put_label(&mut text, name, value);
            self.find(&text, texts).map(|pair| &pair.slots)
        };
        for m in matchers {
            if m.matches_empty() {
                excluding.push(m);
            } else if let Some(set) = m.set_matches() {
                lists.push(set.iter().filter_map(|value| find(&m.name, value)).collect());
            } else {
                patterns.push(m);
            }
        }
        lists.sort_by_key(|l| l.iter().map(|s| s.len()).sum::<usize>());
        let mut candidates: Option<Vec<u32>> = None;
        for list in lists {
            self.narrow(&mut candidates, &list);
        }
        let passes = |slot: u32, m: &Matcher| {
            let name = self.names.get(&*m.name).copied();
            let value = name.map_or(Some(""), |name| list(slot).map(|list| self.value(list, name, texts)));
            value.is_some_and(|value| m.matches(value))
        };
        patterns.sort_by_key(|m| self.pairs_with(&m.name).len());
        for m in patterns {
            match &mut candidates {
                Some(slots) if slots.len() <= self.pairs_with(&m.name).len() => {
                    slots.retain(|slot| passes(*slot, m));
                }
                _ => self.narrow(&mut candidates, &self.matching(m, true, texts)),
            }
        }
        let mut slots = candidates.unwrap_or_else(|| self.all.to_vec());
        for m in excluding {
            if m.op == MatchOp::NotEqual {
                if let Some(out) = find(&m.name, &m.value) {
                    out.filter(&mut slots, false);
                }
            } else if slots.len() <= self.pairs_with(&m.name).len() {
                slots.retain(|slot| passes(*slot, m));
            } else {
                subtract(&mut slots, &union(&self.matching(m, false, texts)));
            }
        }
        slots
    }

    /// As [`intersect`]. A series is in one list of a name at most, so that lists as long as all series are all of them.
    fn narrow(&self, candidates: &mut Option<Vec<u32>>, lists: &[&Slots]) {
        if lists.iter().map(|list| list.len()).sum::<usize>() == self.all.len() {
            if candidates.is_none() {
                *candidates = Some(self.all.to_vec());
            }
            return;
        }
        intersect(candidates, lists);
    }

    /// Lists of the values that pass a matcher, or of those that do not.
    fn matching(&self, m: &Matcher, pass: bool, texts: &Slab) -> Vec<&Slots> {
        let prefix = match m.op {
            MatchOp::Regex => m.pattern().map_or("", |p| p.prefix()),
            _ => "",
        };
        let pairs = self.pairs_with(&m.name).iter().filter_map(|pair| self.pairs.get(*pair as usize));
        let passing = pairs.filter(|pair| {
            let (_, value) = pair.parts(texts);
            (value.starts_with(prefix) && m.matches(value)) == pass
        });
        passing.map(|pair| &pair.slots).collect()
    }
}

fn union(lists: &[&Slots]) -> Vec<u32> {
    let mut out = Vec::with_capacity(lists.iter().map(|list| list.len()).sum());
    lists.iter().for_each(|list| list.extend(&mut out));
    if lists.len() > 1 {
        out.sort_unstable();
        out.dedup();
    }
    out
}

fn intersect(candidates: &mut Option<Vec<u32>>, lists: &[&Slots]) {
    match (candidates, lists) {
        (Some(slots), [one]) => one.filter(slots, true),
        (Some(slots), _) => {
            let list = union(lists);
            let mut rest = list.as_slice();
            slots.retain(|slot| {
                rest = &rest[rest.partition_point(|other| other < slot)..];
                rest.first() == Some(slot)
            });
        }
        (none, _) => *none = Some(union(lists)),
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    #[test]
    fn every_matcher_agrees_with_a_walk_over_all_labels() {
        let (mut postings, mut texts, mut lists) = (Postings::default(), Slab::default(), Slab::default());
        let mut of_slot = Vec::new();
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
            of_slot.push(postings.add(i, labels.as_bytes(), &mut texts, &mut lists));
            all.push(Some(labels));
        }
        for gone in [0u32, 17, 199] {
            all[gone as usize].take().unwrap();
            let pairs = pairs_of(lists.get(of_slot[gone as usize])).collect();
            postings.remove(&[(gone, pairs)], &mut texts);
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
            let got = postings.resolve(&set, &texts, |slot| Some(lists.get(of_slot[slot as usize])));
            assert_eq!(got, expected, "{set:?}");
        }
    }

    #[test]
    fn pairs_live_as_long_as_a_series_has_them() {
        let (mut postings, mut texts, mut lists) = (Postings::default(), Slab::default(), Slab::default());
        let mut live: Vec<(u32, Labels, u32)> = Vec::new();
        let mut most = (0, 0);
        // Pods come and go: ten of them with fifty series each, and never the same again.
        for round in 0..200 {
            for n in 0..50 {
                let pairs = [
                    ("__name__", format!("m{n}")),
                    ("pod", format!("pod-{round}")),
                    (if round % 2 == 0 { "even" } else { "odd" }, format!("{n}-{round}")),
                ];
                let labels = Labels::from_pairs(pairs).unwrap();
                let slot = (round % 11) * 50 + n;
                live.push((
                    slot,
                    labels.clone(),
                    postings.add(slot, labels.as_bytes(), &mut texts, &mut lists),
                ));
            }
            if live.len() > 500 {
                let mut gone: Vec<_> = live.drain(..50).collect();
                gone.sort_by_key(|(slot, ..)| *slot);
                let with_pairs: Vec<(u32, Vec<u32>)> = gone
                    .iter()
                    .map(|(slot, _, list)| (*slot, pairs_of(lists.get(*list)).collect()))
                    .collect();
                postings.remove(&with_pairs, &mut texts);
                gone.iter().for_each(|(.., list)| lists.free(*list));
            }
            for (_, labels, list) in &live {
                let mut bytes = Vec::new();
                postings.write_labels(lists.get(*list), &texts, &mut bytes);
                assert_eq!(bytes, labels.as_bytes());
                assert!(postings.is(lists.get(*list), &texts, labels.as_bytes()));
                assert!(!postings.is(lists.get(*list), &texts, &bytes[..bytes.len() - 1]));
            }
            let now = (postings.pairs.len() + postings.values.len(), texts.bytes().1 + lists.bytes().1);
            match round {
                20 => most = now,
                21.. => assert!(now.0 <= most.0 && now.1 <= most.1, "{round}: {now:?} after {most:?}"),
                _ => {}
            }
        }
        let rest: Vec<(u32, Vec<u32>)> = {
            live.sort_by_key(|(slot, ..)| *slot);
            live.iter().map(|(slot, _, list)| (*slot, pairs_of(lists.get(*list)).collect())).collect()
        };
        postings.remove(&rest, &mut texts);
        assert_eq!((postings.table.len(), postings.names.len(), postings.all.len()), (0, 0, 0));
        assert_eq!(postings.free.len(), postings.pairs.len());
    }
}
