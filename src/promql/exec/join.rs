//! Arithmetic and comparison between two vectors, series matched by their labels.

use std::ops::Range;

use hashbrown::HashMap;
use model::Labels;

use super::distinct::unite;
use super::group::Groups;
use super::map::{Refused, binary};
use super::number::{arithmetic, compare};
use super::run::{Ready, Rows};
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

impl<'a> JoinOp<'a> {
    fn join(&self, lhs: Rows<'a>, rhs: Rows<'a>) -> Result<Rows<'a>, Error> {
        let len = self.grid.len;
        let swapped = self.matching.card == Card::OneToMany;
        let (many, one) = if swapped { (&rhs.rows, &lhs.rows) } else { (&lhs.rows, &rhs.rows) };
        // As in Prometheus, the names of the fills follow the sides after the swap.
        let (fill_many, fill_one) = (self.matching.fill_left, self.matching.fill_right);
        let mut groups = Groups::default();
        // Rows of each group, by index: those of the "many" side, those of the "one" side.
        let mut members: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
        for (side, rows) in [many, one].into_iter().enumerate() {
            for (at, row) in rows.iter().enumerate() {
                let (group, new) = groups.id(signature(&self.matching, &row.labels));
                if new {
                    members.push(Default::default());
                }
                let (of_many, of_one) = &mut members[group];
                if side == 0 { of_many.push(at) } else { of_one.push(at) }
            }
        }
        let any = |rows: &[Row]| {
            let mut any = vec![false; len];
            for row in rows {
                any.iter_mut().enumerate().for_each(|(step, any)| *any |= row.has(step));
            }
            any
        };
        let (any_many, any_one) = (any(many), any(one));
        // A step at which a side has nothing at all is skipped, unless it is filled in.
        let live: Vec<bool> = (0..len)
            .map(|s| (any_many[s] || fill_many.is_some()) && (any_one[s] || fill_one.is_some()))
            .collect();

        let mut out = Rows::empty(self.run)?;
        let mut holder: Vec<Option<usize>> = vec![None; len];
        let mut matched: Vec<bool> = vec![false; len];
        for (group, (of_many, of_one)) in members.iter().enumerate() {
            self.run.check()?;
            // Which row stands for the "one" side at each step.
            holder.fill(None);
            for &at in of_one {
                for step in (0..len).filter(|s| live[*s] && one[at].has(*s)) {
                    if let Some(other) = holder[step] {
                        return Err(self.duplicate(&groups.labels[group], &one[other], &one[at]));
                    }
                    holder[step] = Some(at);
                }
            }
            matched.fill(false);
            let mut results: HashMap<Labels, usize> = HashMap::new();
            let mut rows: Vec<Row> = Vec::new();
            let alone = (of_one.len() == 1 && (of_many.len() == 1 || self.matching.card != Card::OneToOne))
                .then(|| &one[of_one[0]]);
            for &left in of_many {
                if let Some(other) = alone
                    && self.is_plain(&many[left], other)
                {
                    let labels = self.result_labels(&many[left].labels, &other.labels)?;
                    if let hashbrown::hash_map::Entry::Vacant(place) = results.entry(labels.clone()) {
                        place.insert(rows.len());
                        let values = self.plain(swapped, &many[left].values, &other.values);
                        rows.push(Row::floats(labels, self.returns_bool, values));
                        continue;
                    }
                }
                // Consecutive steps mostly meet the same row: its result labels are computed once.
                let mut current: Option<(Option<usize>, usize)> = None;
                for step in 0..len {
                    let Some(value) = many[left].get(step).filter(|_| live[step]) else { continue };
                    let other = match (holder[step].and_then(|at| one[at].get(step)), fill_one) {
                        (Some(cell), _) => cell,
                        (None, Some(fill)) => CellRef::Float(fill),
                        (None, None) => continue,
                    };
                    let Ok(result) = self.apply(swapped, value, other) else { continue };
                    // Counted before any filter: a match must be unique even where nothing of it is kept.
                    if self.matching.card == Card::OneToOne && std::mem::replace(&mut matched[step], true) {
                        return Err(Error::execution(
                            "multiple matches for labels: many-to-one matching must be explicit \
                             (group_left/group_right)",
                        ));
                    }
                    let Some(result) = result else { continue };
                    let at = match current {
                        Some((holder_at, at)) if holder_at == holder[step] => at,
                        _ => {
                            let other_labels =
                                holder[step].map_or(&groups.labels[group], |at| &one[at].labels);
                            let labels = self.result_labels(&many[left].labels, other_labels)?;
                            let at = *results.entry(labels.clone()).or_insert_with(|| {
                                let drop_name = self.returns_bool;
                                rows.push(Row::absent(labels, drop_name, len));
                                rows.len() - 1
                            });
                            current = Some((holder[step], at));
                            at
                        }
                    };
                    if rows[at].has(step) {
                        return Err(Error::execution(
                            "multiple matches for labels: grouping labels must ensure unique matches",
                        ));
                    }
                    rows[at].put(step, result);
                }
            }
            if let Some(fill) = fill_many {
                self.fill_many(
                    fill,
                    swapped,
                    &groups.labels[group],
                    many,
                    of_many,
                    one,
                    &holder,
                    &live,
                    &mut rows,
                )?;
            }
            for row in rows {
                out.push(self.run, row)?;
            }
        }
        unite(&mut out, !self.run.settings.delayed_name_removal)?;
        Ok(out)
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

    /// The results of two such rows.
    fn plain(&self, swapped: bool, many: &[f64], one: &[f64]) -> Vec<f64> {
        let (op, returns_bool) = (self.op, self.returns_bool);
        let both = many.iter().zip(one);
        let each = |many: f64, one: f64| {
            let (a, b) = if swapped { (one, many) } else { (many, one) };
            match compare(op, a, b) {
                _ if !present(many) || !present(one) => ABSENT,
                None => arithmetic(op, a, b),
                Some(hit) if returns_bool => f64::from(u8::from(hit)),
                Some(true) => a,
                Some(false) => ABSENT,
            }
        };
        both.map(|(many, one)| each(*many, *one)).collect()
    }

    /// Results for steps at which the "one" side stands alone.
    fn fill_many(
        &self,
        fill: f64,
        swapped: bool,
        key: &Labels,
        many: &[Row],
        of_many: &[usize],
        one: &[Row],
        holder: &[Option<usize>],
        live: &[bool],
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        for (step, at) in holder.iter().enumerate().filter_map(|(s, h)| h.map(|at| (s, at))) {
            if !live[step] || of_many.iter().any(|m| many[*m].has(step)) {
                continue;
            }
            let Some(value) = one[at].get(step) else { continue };
            let Ok(Some(result)) = self.apply(swapped, CellRef::Float(fill), value) else { continue };
            let labels = self.result_labels(key, &one[at].labels)?;
            let found = rows.iter().position(|row| row.labels == labels);
            let at = found.unwrap_or_else(|| {
                rows.push(Row::absent(labels, self.returns_bool, self.grid.len));
                rows.len() - 1
            });
            rows[at].put(step, result);
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
        let drops = self.op.is_arithmetic() || (self.returns_bool && !self.run.settings.delayed_name_removal);
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
