//! Exemplars of the node's own head, as `thanos.Exemplars` has them: by query, under the labels of the tenant.

use std::sync::Arc;

use model::{Kind, Labels, Matcher, TimeRange};
use rpc::facts::Exemplars as Subject;
use rpc::{Tell, Told};
use storage::{Context, Error, Exemplars as _, SeriesExemplars};
use tsdb::TenantView;
use wire::pb::thanos as pb;

use crate::store::StoreDoor;

/// Exemplars of every tenant.
pub struct OwnExemplars(pub Arc<StoreDoor>);

impl Tell<Subject> for OwnExemplars {
    fn tell(
        &self,
        request: &pb::ExemplarsRequest,
        _: Option<&str>,
        context: &Context,
    ) -> Result<Told<pb::ExemplarData>, Error> {
        let expr = promql::parse(&request.query).map_err(|why| {
            Error::new(Kind::Invalid, format!("exemplars of a query that does not parse: {why}"))
        })?;
        let selectors = promql::selectors(&expr);
        let range = TimeRange::new(request.start, request.end);
        let mut told = Told { held: Some(context.budget.reserve(0)?), ..Told::default() };
        for (external, view) in self.0.views_by_labels()? {
            let found = of_view(&view, &external, &selectors, range, context)?;
            let items = found.into_iter().map(|one| to_pb(one, &external));
            told.items.extend(items);
        }
        Ok(told)
    }
}

/// Exemplars of one tenant for selectors that may name external labels: those are answered here.
fn of_view(
    view: &TenantView,
    external: &Labels,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    context: &Context,
) -> Result<Vec<SeriesExemplars>, Error> {
    let inside = |set: &Vec<Matcher>| -> Option<Vec<Matcher>> {
        let contradicts = |m: &Matcher| external.get(&m.name).is_some_and(|value| !m.matches(value));
        let left = set.iter().filter(|m| external.get(&m.name).is_none()).cloned().collect();
        (!set.iter().any(contradicts)).then_some(left)
    };
    let left: Vec<Vec<Matcher>> = selectors.iter().filter_map(inside).collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    view.exemplars(&left, range, context)
}

fn to_pb(found: SeriesExemplars, external: &Labels) -> pb::ExemplarData {
    let set = |labels: &Labels| pb::ZLabelSet { labels: rpc::query::labels_to_pb(labels) };
    pb::ExemplarData {
        series_labels: Some(set(&found.labels.overlay(external))),
        exemplars: found
            .exemplars
            .iter()
            .map(|one| pb::Exemplar { labels: Some(set(&one.labels)), value: one.value, ts: one.timestamp })
            .collect(),
    }
}
