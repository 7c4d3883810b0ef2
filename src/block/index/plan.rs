//! Which postings lists answer a set of matchers, decided before any of them is read.
//!
//! The same decision serves a block on this machine and one in a bucket; only the fetching differs.
//! Rules are Prometheus's: an absent label has the empty value, so a matcher that the empty value passes *removes*
//! the series whose value fails, and any other *adds* those whose value passes.

use std::ops::Range;

use bytes::Bytes;
use model::{MatchOp, Matcher};

use crate::Error;
use crate::index::postings::{Postings, decode_postings, retain, retain_sorted, union};
use crate::index::{IndexHeader, PostingOffsets};

/// A list this many times longer than the shortest group is not read: its matcher is checked on the labels of the
/// few series that are left.
const LAZY_FACTOR: u64 = 32;
/// Groups smaller than this many bytes are always read.
const LAZY_FLOOR: u64 = 64 * 1024;

/// The lists to read and how to combine them: the intersection of all `add`, without any of `remove`, and of those
/// the series whose labels pass `check`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Smallest first.
    pub add: Vec<Group>,
    pub remove: Vec<Group>,
    /// To be tested on the labels of the series found.
    pub check: Vec<Matcher>,
    /// Some matcher can be passed by no series at all.
    pub nothing: bool,
}

/// The lists of one matcher; a series is in the group if it is in any of them.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// File ranges of the lists, ascending.
    pub ranges: Vec<Range<u64>>,
}

impl Group {
    /// Bytes of all lists.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
}

impl Plan {
    /// Decides for `matchers`.
    pub fn new(matchers: &[Matcher], header: &IndexHeader) -> Result<Plan, Error> {
        let offsets = &header.offsets;
        let (mut adders, mut removers) = (Vec::new(), Vec::new());
        for matcher in matchers {
            let group = group(matcher, offsets)?;
            match (matcher.matches_empty(), group.ranges.is_empty()) {
                (false, false) => adders.push((group, matcher)),
                (false, true) => return Ok(Plan { nothing: true, ..Plan::default() }),
                (true, false) => removers.push((group, matcher)),
                (true, true) => {}
            }
        }
        let mut plan = Plan::default();
        adders.sort_by_key(|(group, _)| group.bytes());
        if adders.is_empty() {
            match offsets.all_range()? {
                Some(all) => plan.add.push(Group { ranges: vec![all] }),
                None => return Ok(Plan { nothing: true, ..Plan::default() }),
            }
        }
        let least = adders.first().map(|(group, _)| group).or(plan.add.first()).map_or(0, Group::bytes);
        let dear = |group: &Group| group.bytes() > LAZY_FLOOR.max(least.saturating_mul(LAZY_FACTOR));
        for (group, matcher) in adders {
            if dear(&group) { plan.check.push(matcher.clone()) } else { plan.add.push(group) }
        }
        for (group, matcher) in removers {
            if dear(&group) { plan.check.push(matcher.clone()) } else { plan.remove.push(group) }
        }
        Ok(plan)
    }

    /// All ranges that [`Plan::apply`] will ask for.
    pub fn ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.add.iter().chain(&self.remove).flat_map(|group| &group.ranges)
    }

    /// The series (ascending) that pass all but `check`; `fetch` gives the bytes of a range.
    pub fn apply(
        &self,
        fetch: &mut dyn FnMut(&Range<u64>) -> Result<Bytes, Error>,
    ) -> Result<Vec<u32>, Error> {
        let mut out: Option<Vec<u32>> = None;
        if self.nothing {
            return Ok(Vec::new());
        }
        for group in &self.add {
            let lists = read(group, fetch)?;
            match &mut out {
                None => out = Some(union(&lists)),
                Some(out) => combine(out, &lists, true),
            }
            if out.as_ref().is_some_and(Vec::is_empty) {
                return Ok(Vec::new());
            }
        }
        let mut out = out.unwrap_or_default();
        for group in &self.remove {
            combine(&mut out, &read(group, fetch)?, false);
        }
        Ok(out)
    }
}

fn read(
    group: &Group,
    fetch: &mut dyn FnMut(&Range<u64>) -> Result<Bytes, Error>,
) -> Result<Vec<Postings>, Error> {
    let list = |range: &Range<u64>| {
        decode_postings(&fetch(range)?).map_err(|e| e.within(format_args!("index at offset {}", range.start)))
    };
    group.ranges.iter().map(list).collect()
}

fn combine(numbers: &mut Vec<u32>, lists: &[Postings], present: bool) {
    match lists {
        [one] => retain(numbers, one, present),
        lists if !present => lists.iter().for_each(|list| retain(numbers, list, false)),
        lists => retain_sorted(numbers, &union(lists), true),
    }
}

/// The lists that a matcher adds, or removes if the empty value passes it.
fn group(matcher: &Matcher, offsets: &PostingOffsets) -> Result<Group, Error> {
    let mut ranges = Vec::new();
    let removes = matcher.matches_empty();
    match (matcher.op, matcher.set_matches()) {
        (MatchOp::Equal | MatchOp::Regex, Some(set)) if !removes => {
            for value in set {
                ranges.extend(offsets.posting_range(&matcher.name, value)?);
            }
        }
        // `!=` alone removes a single list.
        (MatchOp::NotEqual, _) if removes => {
            ranges.extend(offsets.posting_range(&matcher.name, &matcher.value)?)
        }
        _ => {
            // Only a positive pattern promises that all it passes begin with its prefix.
            let prefix = match (matcher.op, matcher.pattern()) {
                (MatchOp::Regex, Some(pattern)) if !removes => pattern.prefix(),
                (MatchOp::NotRegex, Some(pattern)) if removes => pattern.prefix(),
                _ => "",
            };
            offsets.each_value(&matcher.name, prefix, &mut |value, range| {
                if !value.starts_with(prefix) {
                    return false;
                }
                // An empty value in the table means an absent label, which `removes` has judged already.
                if !value.is_empty() && matcher.matches(value) != removes {
                    ranges.push(range);
                }
                true
            })?;
        }
    }
    Ok(Group { ranges })
}
