//! Arithmetic and comparison between two vectors, series matched by their labels.

use std::ops::Range;

use hashbrown::HashMap;
use model::Labels;

use super::distinct::unite;
use super::group::{Groups, Members};
use super::map::{Refused, binary};
use super::number::{arithmetic, compare};
use super::run::{Held, Ready, Rows};
use super::{ABSENT, Cell, CellRef, Grid, Op, Operator, Row, Run, is_metadata, present};
use crate::Error;
use crate::parse::{BinaryOp, Card, Matching};

pub(crate) struct JoinOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) op: BinaryOp,
    pub(crate) returns_bool: bool,
    pub(crate) matching: Matching,
    pub(crate) sides: Option<(Op<'a>, Op<'a>)>,
    /// Where the whole expression stands.
    pub(crate) range: Range<usize>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for JoinOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some((lhs, rhs)) = self.sides.take() {
            let lhs = self.run.collect(lhs)?;
            let rhs = self.run.collect(rhs)?;
            self.ready = Some(Ready::new(self.join(lhs, rhs)?));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

/// The labels by which series meet.
pub(crate) fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|l| l == name);
    if matching.on { labels.filter(listed) } else { labels.filter(|n| n != model::METRIC_NAME && !listed(n)) }
}

/// Which rows of both sides meet: groups of equal signatures.
struct Meeting<'r> {
    groups: Groups,
    many: Members,
    one: Members,
    _held: Held<'r>,
}

impl<'r> Meeting<'r> {
    fn new(run: &'r Run<'_>, matching: &Matching, many: &[Row], one: &[Row]) -> Result<Meeting<'r>, Error> {
        // A number for each row, and its place in the list by groups.
        let lists = 2 * size_of::<u32>() * (many.len() + one.len());
        let mut held = run.hold(0, lists)?;
        let mut groups = Groups::default();
        let [of_many, of_one] = [many, one].map(|rows| {
            let group_of = rows.iter().map(|row| {
                let (group, new) = groups.id(signature(matching, &row.labels));
                if new {
                    held.cover(run, 0, lists + groups.bytes())?;
                }
                Ok(group as u32)
            });
            group_of.collect::<Result<Vec<u32>, Error>>()
        });
        let len = groups.labels.len();
        let (many, one) = (Members::new(&of_many?, len), Members::new(&of_one?, len));
        Ok(Meeting { groups, many, one, _held: held })
    }
}

/// One group on its way to the result.
struct Group<'g> {
    key: &'g Labels,
    of_many: &'g [u32],
    one: &'g [Row],
    of_one: &'g [u32],
    /// Steps that are looked at.
    live: &'g [bool],
    /// Steps as the group meets at them; not set where no row is joined step by step.
    steps: Vec<Met>,
}

/// How the rows of a group meet at a step.
#[derive(Clone, Copy, Default)]
struct Met {
    /// Which row stands for the "one" side.
    holder: Option<usize>,
    /// A row of the "many" side has been matched.
    matched: bool,
}

/// Result rows of one group.
#[derive(Default)]
struct Results {
    rows: Vec<Made>,
    /// Which row has which labels; left out where there is one row only.
    index: HashMap<Labels, usize>,
}

struct Made {
    row: Row,
    /// Its values are where those of the "many" side were.
    reused: bool,
}

impl<'a> JoinOp<'a> {
    fn join(&self, lhs: Rows<'a>, rhs: Rows<'a>) -> Result<Rows<'a>, Error> {
        let swapped = self.matching.card == Card::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let (mut many, mut out) = many.apart();
        let meeting = Meeting::new(self.run, &self.matching, &many, &one.rows)?;
        let live = self.live(&many, &one.rows);
        let mut steps = Vec::new();
        let mut results = Results::default();
        let mut single = true;
        for (at, key) in meeting.groups.labels.iter().enumerate() {
            self.run.check()?;
            let (of_many, of_one) = (meeting.many.of(at), meeting.one.of(at));
            let mut group = Group { key, of_many, one: &one.rows, of_one, live: &live, steps };
            self.join_group(swapped, &mut many, &mut group, &mut results)?;
            steps = group.steps;
            single &= results.rows.len() < 2;
            results.index.clear();
            for Made { row, reused } in results.rows.drain(..) {
                if reused { out.push_reused(self.run, row)? } else { out.push(self.run, row)? }
            }
        }
        if !(single && self.keeps_signatures(&meeting.groups)) {
            unite(self.run, &mut out, false)?;
        }
        Ok(out)
    }

    /// Steps to be looked at: one at which a side has nothing at all is skipped, unless it is filled in.
    fn live(&self, many: &[Row], one: &[Row]) -> Vec<bool> {
        let any = |rows: &[Row], filled: bool| {
            let mut any = vec![filled; self.grid.len];
            for row in rows {
                // Mostly the first row has them all.
                if any.iter().all(|any| *any) {
                    break;
                }
                any.iter_mut().enumerate().for_each(|(step, any)| *any |= row.has(step));
            }
            any
        };
        // As in Prometheus, the names of the fills follow the sides after the swap.
        let many = any(many, self.matching.fill_left.is_some());
        let one = any(one, self.matching.fill_right.is_some());
        many.into_iter().zip(one).map(|(many, one)| many && one).collect()
    }

    /// Whether the labels of results hold the whole signature: one row a group is then one row for its labels.
    fn keeps_signatures(&self, groups: &Groups) -> bool {
        let plain = |labels: &Labels| !labels.iter().any(|(name, _)| is_metadata(name));
        self.matching.card == Card::OneToOne
            && self.matching.include.is_empty()
            && (!self.drops_name() || groups.labels.iter().all(plain))
    }

    fn drops_name(&self) -> bool {
        self.op.is_arithmetic() || (self.returns_bool && !self.run.settings.delayed_name_removal)
    }

    /// Whether rows of the result have a name that is to go at the end.
    fn marks_name(&self) -> bool {
        self.returns_bool && self.run.settings.delayed_name_removal
    }

    fn join_group(
        &self,
        swapped: bool,
        many: &mut [Row],
        group: &mut Group<'_>,
        results: &mut Results,
    ) -> Result<(), Error> {
        let alone = match group.of_one {
            [only] if group.of_many.len() == 1 || self.matching.card != Card::OneToOne => {
                Some(&group.one[*only as usize])
            }
            _ => None,
        };
        let is_plain = |left: &u32| alone.is_some_and(|other| self.is_plain(&many[*left as usize], other));
        // Where not, nothing is filled in, the "one" side has no two rows for a step, and two rows of the "many" side
        // may have a step in common.
        let mut by_steps =
            alone.is_none() || self.matching.fill_left.is_some() || !group.of_many.iter().all(is_plain);
        if by_steps {
            self.find_holders(group)?;
        }
        for left in group.of_many.iter().map(|left| *left as usize) {
            if let Some(other) = alone
                && self.is_plain(&many[left], other)
            {
                let labels = self.result_labels(&many[left].labels, &other.labels)?;
                let free = group.of_many.len() == 1
                    || results.index.try_insert(labels.clone(), results.rows.len()).is_ok();
                if free {
                    let mut values = std::mem::take(&mut many[left].values);
                    self.plain(swapped, &mut values, &other.values);
                    let row = Row::floats(labels, self.marks_name(), values);
                    results.rows.push(Made { row, reused: true });
                    continue;
                }
            }
            if !by_steps {
                self.find_holders(group)?;
                by_steps = true;
            }
            self.join_row(swapped, &many[left], group, results)?;
        }
        match self.matching.fill_left {
            Some(fill) => self.fill_many(fill, swapped, many, group, results),
            None => Ok(()),
        }
    }

    fn find_holders(&self, group: &mut Group<'_>) -> Result<(), Error> {
        group.steps.clear();
        group.steps.resize(self.grid.len, Met::default());
        for at in group.of_one.iter().map(|at| *at as usize) {
            for step in (0..self.grid.len).filter(|s| group.live[*s] && group.one[at].has(*s)) {
                if let Some(other) = group.steps[step].holder.replace(at) {
                    return Err(self.duplicate(group.key, &group.one[other], &group.one[at]));
                }
            }
        }
        Ok(())
    }

    /// Joins a row of the "many" side step by step.
    fn join_row(
        &self,
        swapped: bool,
        left: &Row,
        group: &mut Group<'_>,
        results: &mut Results,
    ) -> Result<(), Error> {
        // Consecutive steps mostly meet the same row: its result labels are computed once.
        let mut current: Option<(Option<usize>, usize)> = None;
        for step in 0..self.grid.len {
            let Some(value) = left.get(step).filter(|_| group.live[step]) else { continue };
            let holder = group.steps[step].holder;
            let other = match (holder.and_then(|at| group.one[at].get(step)), self.matching.fill_right) {
                (Some(cell), _) => cell,
                (None, Some(fill)) => CellRef::Float(fill),
                (None, None) => continue,
            };
            let Ok(result) = self.apply(swapped, value, other) else { continue };
            // Counted before any filter: a match must be unique even where nothing of it is kept.
            let matched = &mut group.steps[step].matched;
            if self.matching.card == Card::OneToOne && std::mem::replace(matched, true) {
                return Err(Error::execution(
                    "multiple matches for labels: many-to-one matching must be explicit \
                     (group_left/group_right)",
                ));
            }
            let Some(result) = result else { continue };
            let at = match current {
                Some((of, at)) if of == holder => at,
                _ => {
                    let other_labels = holder.map_or(group.key, |at| &group.one[at].labels);
                    let labels = self.result_labels(&left.labels, other_labels)?;
                    let at = self.row_of(labels, results);
                    current = Some((holder, at));
                    at
                }
            };
            let row = &mut results.rows[at].row;
            if row.has(step) {
                return Err(Error::execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                ));
            }
            row.put(step, result);
        }
        Ok(())
    }

    /// The place of the result row with these labels.
    fn row_of(&self, labels: Labels, results: &mut Results) -> usize {
        *results.index.entry(labels.clone()).or_insert_with(|| {
            let row = Row::absent(labels, self.marks_name(), self.grid.len);
            results.rows.push(Made { row, reused: false });
            results.rows.len() - 1
        })
    }

    /// Whether two rows are matched step by step without anything else to be looked at.
    fn is_plain(&self, many: &Row, one: &Row) -> bool {
        let matching = &self.matching;
        many.natives.is_empty()
            && one.natives.is_empty()
            && matching.fill_left.is_none()
            && matching.fill_right.is_none()
            && !self.op.is_trim()
    }

    /// Puts the results of two such rows where the values of the "many" side are.
    fn plain(&self, swapped: bool, many: &mut [f64], one: &[f64]) {
        let (op, returns_bool) = (self.op, self.returns_bool);
        for (many, &one) in many.iter_mut().zip(one) {
            let (a, b) = if swapped { (one, *many) } else { (*many, one) };
            *many = match compare(op, a, b) {
                _ if !present(*many) || !present(one) => ABSENT,
                None => arithmetic(op, a, b),
                Some(hit) if returns_bool => f64::from(u8::from(hit)),
                Some(true) => a,
                Some(false) => ABSENT,
            };
        }
    }

    /// Results for steps at which the "one" side stands alone.
    fn fill_many(
        &self,
        fill: f64,
        swapped: bool,
        many: &[Row],
        group: &Group<'_>,
        results: &mut Results,
    ) -> Result<(), Error> {
        for (step, at) in group.steps.iter().enumerate().filter_map(|(s, m)| m.holder.map(|at| (s, at))) {
            if !group.live[step] || group.of_many.iter().any(|m| many[*m as usize].has(step)) {
                continue;
            }
            let Some(value) = group.one[at].get(step) else { continue };
            let Ok(Some(result)) = self.apply(swapped, CellRef::Float(fill), value) else { continue };
            let labels = self.result_labels(group.key, &group.one[at].labels)?;
            let at = self.row_of(labels, results);
            results.rows[at].row.put(step, result);
        }
        Ok(())
    }

    /// The result for a value of the "many" side and one of the "one" side, or none where a filter drops it.
    fn apply(&self, swapped: bool, many: CellRef<'_>, one: CellRef<'_>) -> Result<Option<Cell>, Refused> {
        let (left, right) = if swapped { (one, many) } else { (many, one) };
        let (CellRef::Float(a), CellRef::Float(b), false) = (left, right, self.op.is_trim()) else {
            return self.apply_native(left, right);
        };
        Ok(match compare(self.op, a, b) {
            None => Some(Cell::Float(arithmetic(self.op, a, b))),
            Some(hit) if self.returns_bool => Some(Cell::Float(f64::from(u8::from(hit)))),
            Some(true) => Some(Cell::Float(a)),
            Some(false) => None,
        })
    }

    fn apply_native(&self, left: CellRef<'_>, right: CellRef<'_>) -> Result<Option<Cell>, Refused> {
        let result = binary(self.run, self.op, left, right, &self.range)?;
        Ok(match self.returns_bool {
            true => Some(Cell::Float(f64::from(u8::from(result.is_some())))),
            false => result,
        })
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Result<Labels, Error> {
        let matching = &self.matching;
        let listed = |name: &str| matching.labels.iter().any(|l| l == name);
        let drops = self.drops_name();
        let kept = many.filter(|name| {
            !(drops && is_metadata(name)) && (matching.card != Card::OneToOne || listed(name) == matching.on)
        });
        if matching.include.is_empty() {
            return Ok(kept);
        }
        let included = |name: &str| matching.include.iter().any(|l| l == name);
        Ok(kept.filter(|name| !included(name)).overlay(&one.filter(included)))
    }

    fn duplicate(&self, key: &Labels, a: &Row, b: &Row) -> Error {
        let side = if self.matching.card == Card::OneToMany { "left" } else { "right" };
        Error::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
             many-to-many matching not allowed: matching labels must be unique on one side",
            show(key),
            show(&a.labels),
            show(&b.labels)
        ))
    }
}

/// Labels as Prometheus shows them in such errors: the name like any other label.
fn show(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}
