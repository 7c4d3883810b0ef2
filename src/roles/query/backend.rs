//! The querier as a StoreAPI of its own, so that queriers stack.

use std::sync::Arc;

use api::Readiness;
use model::{Labels, Matcher, TimeRange};
use rpc::{Advertised, Apis, StoreBackend, StoreView, component};

use crate::facts::Everyone;
use crate::fanout::{Fanout, Reading};

/// Everybody behind this querier as one store.
pub struct Backend {
    pub everyone: Everyone,
    pub readiness: Readiness,
}

impl StoreBackend for Backend {
    fn advertised(&self) -> Advertised {
        let list = self.everyone.endpoints.list();
        let mut own: Vec<String> = self.everyone.queries.drop_labels();
        let mut range = TimeRange::EMPTY;
        let (mut label_sets, mut tsdb_infos) = (Vec::<Labels>::new(), Vec::new());
        let states: Vec<_> = list.iter().map(|endpoint| endpoint.state()).collect();
        for state in &states {
            own.extend(state.own_replica_labels().iter().cloned());
        }
        let shown = |labels: &Labels| labels.filter(|name| !own.iter().any(|o| o == name));
        let mut any_unlabelled = false;
        // Asked by queriers above, who would else not ask at all what somebody behind us may tell.
        let mut apis =
            Apis { rules: true, targets: true, metadata: true, query: true, status: true, exemplars: None };
        for state in states.iter().filter(|state| state.missing().is_none()) {
            let Some(info) = &state.info else { continue };
            apis = apis.or(info.apis);
            let Some(store) = &info.store else { continue };
            range = range.cover(&store.range);
            any_unlabelled |= info.label_sets.is_empty();
            label_sets.extend(info.label_sets.iter().map(shown));
            tsdb_infos.extend(
                store.tsdb_infos.iter().map(|t| rpc::TsdbInfo { labels: shown(&t.labels), range: t.range }),
            );
        }
        label_sets.sort();
        label_sets.dedup();
        if any_unlabelled {
            // Somebody may have anything: whoever asks must not leave us out by labels.
            label_sets.clear();
        }
        Advertised {
            component: component::QUERY,
            label_sets,
            range,
            tsdb_infos,
            node: None,
            apis,
            ready: self.readiness.is_ready(),
        }
    }

    fn views(&self, range: TimeRange, matchers: &[Matcher]) -> Result<Vec<StoreView>, storage::Error> {
        self.views_for(None, range, matchers)
    }

    fn views_for(
        &self,
        tenant: Option<&str>,
        _: TimeRange,
        _: &[Matcher],
    ) -> Result<Vec<StoreView>, storage::Error> {
        let Everyone { endpoints, queries, world } = &self.everyone;
        let tenant = self.everyone.enforced(tenant)?;
        let also = tenant.iter().map(|t| Matcher::equal(&queries.tenant_label, t.as_str())).collect();
        let reading = Reading {
            drop_labels: queries.drop_labels(),
            also,
            partial_by_context: true,
            ..Reading::default()
        };
        let select = Arc::new(Fanout::new(endpoints.clone(), reading, world.clone()));
        Ok(vec![StoreView { labels: Labels::empty(), range: TimeRange::ALL, select }])
    }
}
