//! Keeps label sets unique where names are dropped or labels rewritten.
//!
//! Series that become equal are one series if they never have a value at the same step; else the query fails,
//! as in Prometheus.

use hashbrown::{HashMap, HashSet};
use model::Labels;

use super::group::Memo;
use super::run::{Ready, Rows, table_bytes};
use super::{Op, Operator, Row, Run, is_metadata, without_name};
use crate::Error;

/// What Prometheus says when two series become one.
pub(crate) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Drops the names of rows that ask for it, where all rows are known to have the same name.
pub(crate) struct DropName<'a> {
    input: Op<'a>,
    /// Label sets so far of rows that lost more than the name.
    seen: HashSet<Labels>,
    /// Labels without the name, and how many labels went with it.
    memo: Memo<(Labels, usize)>,
}

impl<'a> DropName<'a> {
    pub(crate) fn new(input: Op<'a>) -> DropName<'a> {
        DropName { input, seen: HashSet::new(), memo: Memo::new() }
    }
}

impl Operator for DropName<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if !self.input.next(row)? {
            return Ok(false);
        }
        if row.drop_name {
            let (labels, dropped) = self.memo.get(&row.labels, |labels| {
                let mut dropped = 0;
                let kept = labels.filter(|name| {
                    let drops = is_metadata(name);
                    dropped += usize::from(drops);
                    !drops
                });
                (kept, dropped)
            });
            row.labels = labels;
            if dropped > 1 && !self.seen.insert(row.labels.clone()) {
                return Err(Error::execution(SAME_LABELS));
            }
            row.drop_name = false;
        }
        Ok(true)
    }
}

/// Collects its input, drops names where asked for, and unites rows of equal labels.
pub(crate) struct Distinct<'a> {
    run: &'a Run<'a>,
    input: Option<Op<'a>>,
    drop_names: bool,
    ready: Option<Ready<'a>>,
}

impl<'a> Distinct<'a> {
    pub(crate) fn new(run: &'a Run<'a>, input: Op<'a>, drop_names: bool) -> Distinct<'a> {
        Distinct { run, input: Some(input), drop_names, ready: None }
    }
}

impl Operator for Distinct<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            let mut rows = self.run.collect(input)?;
            unite(self.run, &mut rows, self.drop_names)?;
            self.ready = Some(Ready::new(rows));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

/// Unites rows of equal labels, in the order of their first appearance.
pub(crate) fn unite(run: &Run<'_>, rows: &mut Rows<'_>, drop_names: bool) -> Result<(), Error> {
    let each = size_of::<Row>() * rows.rows.len();
    let _index = run.hold(0, table_bytes::<(Labels, usize)>(rows.rows.len()) + each)?;
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(rows.rows.len());
    let mut out: Vec<Row> = Vec::with_capacity(rows.rows.len());
    for mut row in std::mem::take(&mut rows.rows) {
        if row.drop_name && drop_names {
            row.labels = without_name(&row.labels);
            row.drop_name = false;
        }
        match index.get(&row.labels) {
            None => {
                index.insert(row.labels.clone(), out.len());
                out.push(row);
            }
            Some(&at) => {
                out[at].drop_name |= row.drop_name;
                for step in 0..row.values.len() {
                    let Some(cell) = row.get(step) else { continue };
                    if out[at].has(step) {
                        return Err(Error::execution(SAME_LABELS));
                    }
                    out[at].put(step, cell.to_cell());
                }
            }
        }
    }
    rows.rows = out;
    Ok(())
}
