//! What this node has, over the StoreAPI: one view per tenant, under the external labels of its blocks.

use std::sync::{Arc, OnceLock};

use model::{Labels, Matcher, TenantId, TimeRange};
use rpc::{Advertised, Apis, NodeInfo, StoreBackend, StoreView, TsdbInfo, component};
use storage::{Error, Select};
use tsdb::{TenantView, Tsdb};

use crate::settings::{Mode, Settings};
use crate::write::Writer;

/// The StoreAPI's view of a receiver.
pub struct StoreDoor {
    writer: Arc<Writer>,
    settings: Settings,
    external_labels: Labels,
    incarnation: OnceLock<String>,
}

impl StoreDoor {
    pub fn new(settings: &Settings, external_labels: Labels, writer: Arc<Writer>) -> StoreDoor {
        StoreDoor { writer, settings: settings.clone(), external_labels, incarnation: OnceLock::new() }
    }

    /// The name of this log's life, known once it is open; set once.
    pub fn set_incarnation(&self, incarnation: String) {
        self.incarnation.get_or_init(|| incarnation);
    }

    /// External labels of a tenant's series, as its blocks have them.
    fn labels_of(&self, tenant: &str) -> Labels {
        let mut labels = self.writer.ring_labels(tenant).overlay(&self.external_labels).to_builder();
        labels.set(&self.settings.tenancy.label, tenant);
        // Both inputs are label sets, and the tenant is a valid value.
        labels.finish().unwrap_or_else(|_| self.external_labels.clone())
    }

    fn tenants(&self, engine: &Tsdb) -> Vec<(TenantId, Arc<TenantView>, TimeRange)> {
        let with_range = |tenant: TenantId| {
            let view = engine.tenant(&tenant)?;
            let range = view.time_range()?;
            Some((tenant, view, range))
        };
        engine.tenants().into_iter().filter_map(with_range).collect()
    }
}

impl StoreDoor {
    /// Every tenant's view, with the labels laid over its series; an error while the log is being replayed.
    pub fn views_by_labels(&self) -> Result<Vec<(Labels, Arc<TenantView>)>, Error> {
        let Some(engine) = self.writer.local().engine() else {
            let text = "this receiver is starting: its log is being replayed";
            return Err(Error::new(model::Kind::Unavailable, text));
        };
        // Exemplars may be there before there is a block or a sample to give the tenant a range.
        let view = |tenant: TenantId| Some((self.labels_of(tenant.as_str()), engine.tenant(&tenant)?));
        Ok(engine.tenants().into_iter().filter_map(view).collect())
    }
}

impl StoreBackend for StoreDoor {
    fn advertised(&self) -> Advertised {
        let stores = self.settings.mode().stores();
        let engine = self.writer.local().engine();
        let mut label_sets = Vec::new();
        let mut tsdb_infos = Vec::new();
        let mut range = TimeRange::EMPTY;
        for (tenant, _, held) in engine.map(|e| self.tenants(e)).unwrap_or_default() {
            // The head goes on taking samples: what is asked for up to now may be here in a moment.
            let open = TimeRange::new(held.start, i64::MAX);
            range = range.cover(&open);
            let labels = self.labels_of(tenant.as_str());
            tsdb_infos.push(TsdbInfo { labels: labels.clone(), range: open });
            label_sets.push(labels);
        }
        if label_sets.is_empty() && stores {
            // Labels are shown before there is data, so that peers can tell that theirs differ.
            label_sets.push(self.labels_of(&self.settings.tenancy.default_id));
        }
        if range.is_empty() {
            // Nothing yet: whatever comes will be about now, and nobody needs to be kept away.
            range = TimeRange::new(0, i64::MAX);
        }
        // Until the incarnation is known nobody may count on an answer.
        let ready = engine.is_some() && self.incarnation.get().is_some();
        let (copies, needed) = self.writer.copies();
        let current = self.writer.ring().current();
        let node = NodeInfo {
            // A router holds no copy: nobody must wait for its answer.
            replication_factor: if stores { copies as u32 } else { 0 },
            write_quorum: if stores { needed as u32 } else { 0 },
            own_replica_labels: self.settings.own_replica_label().into_iter().collect(),
            incarnation: self.incarnation.get().cloned().unwrap_or_default(),
            ready,
            roles: vec![component::RECEIVE.to_owned()],
            uploaded_before: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring_members: current.members().into_iter().map(str::to_owned).collect(),
            ring_address: match stores {
                true => self.settings.replication.local_endpoint.clone().unwrap_or_default(),
                false => String::new(),
            },
            ring_epoch: self.writer.local().gate().least(),
        };
        let exemplars = stores.then_some(range);
        let apis = Apis { status: stores, metadata: stores, exemplars, ..Apis::default() };
        Advertised {
            component: component::RECEIVE,
            label_sets,
            range,
            tsdb_infos,
            node: Some(node),
            apis,
            ready,
        }
    }

    fn views(&self, range: TimeRange, _: &[Matcher]) -> Result<Vec<StoreView>, Error> {
        if self.settings.mode() == Mode::RouterOnly {
            return Ok(Vec::new());
        }
        let Some(engine) = self.writer.local().engine() else {
            let text = "this receiver is starting: its log is being replayed";
            return Err(Error::new(model::Kind::Unavailable, text));
        };
        let views = self.tenants(engine).into_iter().filter(|(_, _, held)| held.overlaps(&range));
        Ok(views
            .map(|(tenant, view, held)| StoreView {
                labels: self.labels_of(tenant.as_str()),
                range: held,
                select: view as Arc<dyn Select>,
            })
            .collect())
    }
}
