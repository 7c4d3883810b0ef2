//! `info(v, {...})`: the labels of info series laid beside those of the series that they describe.
//!
//! Info series are found by the identifying labels that they share with a series, at each step anew; where an
//! info metric has changed its labels, the newer sample counts.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME, Matcher};

use super::distinct::unite;
use super::group::{Groups, Members};
use super::run::{Ready, Rows};
use super::select::{SelectOp, Yield};
use super::{Grid, Op, Operator, Row, Run, present};
use crate::Error;
use crate::plan::{InfoLabels, Select};

/// The labels by which a series and its info series know one another.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

pub(crate) struct InfoOp<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) grid: Grid,
    pub(crate) select: Select,
    pub(crate) wanted: InfoLabels,
    pub(crate) input: Option<Op<'a>>,
    pub(crate) ready: Option<Ready<'a>>,
}

impl Operator for InfoOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if let Some(input) = self.input.take() {
            let rows = self.run.collect(input)?;
            self.ready = Some(Ready::new(self.enrich(rows)?));
        }
        match &mut self.ready {
            Some(ready) => ready.next(row),
            None => Ok(false),
        }
    }
}

impl<'a> InfoOp<'a> {
    fn enrich(&self, mut base: Rows<'a>) -> Result<Rows<'a>, Error> {
        let infos = self.infos(&base)?;
        let mut groups = Groups::default();
        let group_of: Vec<u32> =
            infos.rows.iter().map(|info| groups.id(identity(&info.labels)).0 as u32).collect();
        let members = Members::new(&group_of, groups.labels.len());
        let mut out = Rows::empty(self.run)?;
        for row in std::mem::take(&mut base.rows) {
            self.run.check()?;
            if self.is_info(&row.labels) {
                out.push(self.run, row)?;
                continue;
            }
            let identity = identity(&row.labels);
            let found = if identity.is_empty() { None } else { groups.find(&identity) };
            let candidates = found.map_or(&[][..], |group| members.of(group));
            for enriched in self.rows_of(&row, candidates, &infos.rows)? {
                out.push(self.run, enriched)?;
            }
        }
        unite(self.run, &mut out, false)?;
        Ok(out)
    }

    /// The info series, with the times of their samples as values.
    fn infos(&self, base: &Rows<'_>) -> Result<Rows<'a>, Error> {
        let mut select = self.select.clone();
        for name in IDENTIFYING {
            // Where all series agree, only their info series are read.
            let mut values = base.rows.iter().map(|row| row.labels.value(name));
            if let Some(first) = values.next()
                && !first.is_empty()
                && values.all(|value| value == first)
            {
                select.matchers.push(Matcher::equal(name, first));
            }
        }
        let op = SelectOp::open(self.run, self.grid, &select, Yield::InfoTimes)?;
        self.run.collect(Box::new(op))
    }

    /// Info series themselves are not enriched.
    fn is_info(&self, labels: &Labels) -> bool {
        self.wanted.named && self.wanted.names.iter().all(|m| m.matches(labels.metric_name()))
    }

    /// A series, cut into as many as it has different info labels over time.
    fn rows_of(&self, row: &Row, candidates: &[u32], infos: &[Row]) -> Result<Vec<Row>, Error> {
        let mut out: Vec<Row> = Vec::new();
        let mut known: HashMap<Vec<usize>, Option<usize>> = HashMap::new();
        for step in 0..row.values.len() {
            let Some(cell) = row.get(step) else { continue };
            let chosen = self.choose(candidates, infos, step)?;
            let at = match known.get(&chosen) {
                Some(at) => *at,
                None => {
                    let labels = self.labels(&row.labels, &chosen, infos)?;
                    let at = labels.map(|labels| {
                        out.push(Row::absent(labels, row.drop_name, self.grid.len));
                        out.len() - 1
                    });
                    known.insert(chosen, at);
                    at
                }
            };
            if let Some(at) = at {
                out[at].put(step, cell.to_cell());
            }
        }
        Ok(out)
    }

    /// Of each info metric the series with the newest sample.
    fn choose(&self, candidates: &[u32], infos: &[Row], step: usize) -> Result<Vec<usize>, Error> {
        let mut chosen: Vec<usize> = Vec::new();
        for at in candidates.iter().map(|at| *at as usize).filter(|at| present(infos[*at].values[step])) {
            let name = infos[at].labels.metric_name();
            match chosen.iter_mut().find(|other| infos[**other].labels.metric_name() == name) {
                None => chosen.push(at),
                Some(other) => {
                    let (old, new) = (infos[*other].values[step], infos[at].values[step]);
                    if old == new {
                        return Err(Error::execution(format!(
                            "found duplicate series for info metric: existing {} @ {old}, new {} @ {new}",
                            infos[*other].labels, infos[at].labels
                        )));
                    }
                    if new > old {
                        *other = at;
                    }
                }
            }
        }
        Ok(chosen)
    }

    /// The labels of an enriched series; none where it is dropped for want of what was asked for.
    fn labels(&self, base: &Labels, chosen: &[usize], infos: &[Row]) -> Result<Option<Labels>, Error> {
        if chosen.is_empty() {
            return Ok(self.wanted.optional.then(|| base.clone()));
        }
        let mut builder = base.to_builder();
        for &at in chosen {
            for (name, value) in infos[at].labels.iter() {
                let asked = self.wanted.data.as_ref().is_none_or(|data| data.iter().any(|d| d == name));
                let skipped = name == METRIC_NAME || IDENTIFYING.contains(&name);
                if skipped || !asked || base.get(name).is_some() {
                    continue;
                }
                match builder.get(name) {
                    Some(other) if other != value => {
                        return Err(Error::execution(format!("conflicting label: {name}")));
                    }
                    Some(_) => {}
                    None => builder.push(name, value),
                }
            }
        }
        let labels = builder.finish().map_err(|e| Error::execution(format!("labels of info(): {e}")))?;
        Ok(Some(labels))
    }
}

fn identity(labels: &Labels) -> Labels {
    labels.filter(|name| IDENTIFYING.contains(&name))
}
