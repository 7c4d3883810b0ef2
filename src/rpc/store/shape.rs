//! From a view's series to the series that are sent: external labels laid over, replica labels removed, order
//! restored, shard chosen.

use std::collections::BTreeSet;

use model::{Kind, Labels, Matcher};
use storage::{Budget, Error, Notes, Reservation, SeriesEntry, SeriesSet};
use wire::pb::thanos::ShardInfo;
use xxhash_rust::xxh64::Xxh64;

/// The matchers that are left for a view once its external labels have answered theirs; none if they
/// contradict.
pub(crate) fn strip_external(external: &Labels, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
    let mut left = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        match external.get(&matcher.name) {
            Some(value) if !matcher.matches(value) => return None,
            Some(_) => {}
            None => left.push(matcher.clone()),
        }
    }
    Some(left)
}

/// What becomes of each series of a view.
#[derive(Clone)]
pub(crate) struct Shape {
    /// External labels without the removed ones.
    add: Labels,
    /// Names that do not survive from the series itself: removed ones, and those that external labels replace.
    drop: BTreeSet<String>,
    shard: Option<ShardInfo>,
}

impl Shape {
    pub(crate) fn new(external: &Labels, without: &[String], shard: Option<&ShardInfo>) -> Shape {
        let mut drop: BTreeSet<String> = without.iter().cloned().collect();
        let add = external.filter(|name| !drop.contains(name));
        drop.extend(external.iter().map(|(name, _)| name.to_owned()));
        Shape { add, drop, shard: shard.filter(|s| s.total_shards >= 1).cloned() }
    }

    /// Names whose presence on a series of the view makes the order of its series unpredictable.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = &str> {
        self.drop.iter().map(String::as_str)
    }

    /// The labels to send, or none where another shard sends them. `dropping` says whether the view has
    /// series with labels that go.
    fn apply(&self, labels: &Labels, dropping: bool) -> Option<Labels> {
        let shaped = if dropping {
            labels.filter(|name| !self.drop.contains(name)).overlay(&self.add)
        } else {
            labels.overlay(&self.add)
        };
        match &self.shard {
            Some(shard) if !in_shard(shard, &shaped) => None,
            _ => Some(shaped),
        }
    }
}

/// Thanos's choice of shard: xxhash64 over the labels that count, name and value each followed by 0xFF.
pub fn in_shard(shard: &ShardInfo, labels: &Labels) -> bool {
    let mut hasher = Xxh64::new(0);
    for (name, value) in labels.iter() {
        if shard.labels.iter().any(|l| l == name) == shard.by {
            hasher.update(name.as_bytes());
            hasher.update(&[0xff]);
            hasher.update(value.as_bytes());
            hasher.update(&[0xff]);
        }
    }
    hasher.digest() % (shard.total_shards.max(1) as u64) == shard.shard_index as u64
}

/// Shapes a set whose series have none of the dropped labels, keeping it a stream.
///
/// Adding labels keeps the order but for one case: a series of which another is a longer version
/// (`{a}` before `{a, b}`) falls behind it when an added label sorts after the addition (`{a, z}` after
/// `{a, b, z}`). All longer versions follow at once, so the shorter one is held back while they pass.
pub(crate) struct Streamed {
    source: Box<dyn SeriesSet>,
    shape: Shape,
    next: Option<SeriesEntry>,
    started: bool,
    /// Held back, nested: each longer version on top of its shorter one; with shaped labels.
    held: Vec<SeriesEntry>,
}

impl Streamed {
    pub(crate) fn new(source: Box<dyn SeriesSet>, shape: Shape) -> Streamed {
        Streamed { source, shape, next: None, started: false, held: Vec::new() }
    }

    fn pop_held(&mut self, before: Option<&Labels>) -> Option<SeriesEntry> {
        let least = (0..self.held.len()).min_by(|&a, &b| self.held[a].labels.cmp(&self.held[b].labels))?;
        match before {
            Some(labels) if self.held[least].labels > *labels => None,
            _ => Some(self.held.remove(least)),
        }
    }
}

impl SeriesSet for Streamed {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if !self.started {
            self.started = true;
            self.next = self.source.next()?;
        }
        loop {
            let Some(entry) = &self.next else { return Ok(self.pop_held(None)) };
            let Some(labels) = self.shape.apply(&entry.labels, false) else {
                self.next = self.source.next()?;
                continue;
            };
            if let Some(held) = self.pop_held(Some(&labels)) {
                return Ok(Some(held));
            }
            let following = self.source.next()?;
            let Some(entry) = std::mem::replace(&mut self.next, following) else { continue };
            let longer_follows = !self.shape.add.is_empty()
                && self.next.as_ref().is_some_and(|next| is_prefix(&entry.labels, &next.labels));
            let shaped = SeriesEntry { labels, chunks: entry.chunks };
            if !longer_follows {
                return Ok(Some(shaped));
            }
            self.held.push(shaped);
        }
    }

    fn notes(&mut self) -> Notes {
        self.source.notes()
    }
}

fn is_prefix(shorter: &Labels, longer: &Labels) -> bool {
    // Canonical bytes are the labels one after the other.
    longer.as_bytes().len() > shorter.as_bytes().len() && longer.as_bytes().starts_with(shorter.as_bytes())
}

/// Shapes a set of which series lose labels: all of it is read and sorted anew, within `budget`.
pub(crate) fn sorted(
    mut source: Box<dyn SeriesSet>,
    shape: &Shape,
    budget: &Budget,
    mut check: impl FnMut() -> Result<(), Error>,
) -> Result<Box<dyn SeriesSet>, Error> {
    let mut held = budget.reserve(0)?;
    let mut entries = Vec::new();
    while let Some(entry) = source.next()? {
        check()?;
        if let Some(labels) = shape.apply(&entry.labels, true) {
            held.grow(weight(&labels, &entry))?;
            entries.push(SeriesEntry { labels, chunks: entry.chunks });
        }
    }
    entries.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Box::new(Sorted { entries: entries.into_iter(), notes: source.notes(), _held: held }))
}

fn weight(labels: &Labels, entry: &SeriesEntry) -> u64 {
    let chunks: usize = entry.chunks.iter().map(|c| c.bytes.len() + size_of_val(c)).sum();
    (labels.as_bytes().len() + size_of::<SeriesEntry>() + chunks) as u64
}

struct Sorted {
    entries: std::vec::IntoIter<SeriesEntry>,
    notes: Notes,
    _held: Reservation,
}

impl SeriesSet for Sorted {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        Ok(self.entries.next())
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

/// Refuses a request of which a view would have to give everything.
pub(crate) fn require_matchers(left: &[Matcher]) -> Result<(), Error> {
    if left.is_empty() {
        return Err(Error::new(Kind::Invalid, "no matchers specified (excluding external labels)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::{collect, from_entries};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn set(of: &[Labels]) -> Box<dyn SeriesSet> {
        let mut sorted = of.to_vec();
        sorted.sort();
        sorted.dedup();
        from_entries(sorted.into_iter().map(|labels| SeriesEntry { labels, chunks: Vec::new() }).collect())
    }

    #[test]
    fn longer_series_overtake_their_shorter_version() {
        let shape = Shape::new(&labels(&[("z", "1")]), &[], None);
        let source = set(&[
            labels(&[("a", "1")]),
            labels(&[("a", "1"), ("b", "1")]),
            labels(&[("a", "1"), ("b", "1"), ("c", "1")]),
            labels(&[("a", "2")]),
        ]);
        let (out, _) = collect(Box::new(Streamed::new(source, shape))).unwrap();
        let shown: Vec<_> = out.iter().map(|e| e.labels.to_string()).collect();
        assert_eq!(
            shown,
            [
                r#"{a="1", b="1", c="1", z="1"}"#,
                r#"{a="1", b="1", z="1"}"#,
                r#"{a="1", z="1"}"#,
                r#"{a="2", z="1"}"#
            ]
        );
    }

    fn any_labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[abcdfg]", "[12]", 1..5)
            .prop_map(|pairs| Labels::from_pairs(pairs).unwrap())
    }

    proptest! {
        #[test]
        fn streaming_equals_sorting(all in proptest::collection::vec(any_labels(), 0..40), ext in "[abz]?e[a-z]?") {
            // External names of two letters or `e` never occur on a series.
            let external = labels(&[(&format!("{ext}_"), "x"), ("e", "y")]);
            let shape = Shape::new(&external, &[], None);
            let (streamed, _) = collect(Box::new(Streamed::new(set(&all), shape.clone()))).unwrap();
            let (sorted, _) = collect(sorted(set(&all), &shape, &Budget::unlimited(), || Ok(())).unwrap()).unwrap();
            let names = |set: Vec<SeriesEntry>| set.into_iter().map(|e| e.labels).collect::<Vec<_>>();
            prop_assert_eq!(names(streamed), names(sorted));
        }
    }

    #[test]
    fn each_series_is_in_one_shard() {
        for by in [true, false] {
            for n in 0..50 {
                let l = labels(&[("a", &n.to_string()), ("b", "x")]);
                let shards = (0..4).filter(|&shard_index| {
                    let labels = vec!["a".to_owned()];
                    in_shard(&ShardInfo { shard_index, total_shards: 4, by, labels }, &l)
                });
                assert_eq!(shards.count(), 1);
            }
        }
    }

    #[test]
    fn external_labels_answer_their_matchers() {
        let external = labels(&[("tenant_id", "a")]);
        let m = |name: &str, value: &str| Matcher::equal(name, value);
        assert!(strip_external(&external, &[m("tenant_id", "b")]).is_none());
        assert_eq!(strip_external(&external, &[m("tenant_id", "a"), m("x", "1")]).unwrap(), [m("x", "1")]);
        assert!(require_matchers(&strip_external(&external, &[m("tenant_id", "a")]).unwrap()).is_err());
    }
}
