//! What a receiver hands to listeners, and to the other roles of its process.

use std::sync::Arc;

use api::Heads;
use axum::Router;
use rpc::facts::{Exemplars, Statistics};
use rpc::{FactServer, StoreBackend, WriteBackend};
use storage::{Budget, MetadataSource};
use tsdb::Tsdb;

use crate::admin::OwnAdmin;
use crate::exemplars::OwnExemplars;
use crate::heads::OwnHead;
use crate::{Receive, http, lifecycle};

impl Receive {
    /// `POST` of remote write at its three paths, and the answer for OTLP.
    pub fn write_router(&self) -> Router {
        http::router(Arc::clone(&self.write_door))
    }

    /// `POST /-/cut`, `POST /-/reload`, `GET /-/drained`.
    pub fn lifecycle_router(&self) -> Router {
        lifecycle::router(Arc::clone(&self.lifecycle))
    }

    /// The admin calls, where the settings allow them.
    pub fn admin_router(&self, tenant_headers: Vec<String>) -> Router {
        let tenancy = &self.settings.tenancy;
        let admin = OwnAdmin {
            writer: Arc::clone(&self.writer),
            ship: Arc::clone(&self.ship),
            tenant_label: tenancy.label.clone(),
        };
        api::admin_router(api::AdminPage {
            admin: Arc::new(admin),
            enabled: self.settings.enable_admin_api,
            tenant_headers,
            default_tenant: tenancy.default_id.clone(),
        })
    }

    /// Blocks beyond the retention stay here until `visible` says that they can be read from the bucket in this
    /// process, so that no query meets a gap.
    pub fn keep_until(&self, visible: Arc<dyn Fn(block::BlockId) -> bool + Send + Sync>) {
        self.ship.keep_until(visible);
    }

    /// What this node has, for the StoreAPI and for queries in the same process.
    pub fn store_backend(&self) -> Arc<dyn StoreBackend> {
        self.store_door.clone()
    }

    /// Takes writes of peers.
    pub fn write_backend(&self) -> Arc<dyn WriteBackend> {
        self.peer_door.clone()
    }

    /// Figures about the head, for the status page.
    pub fn heads(&self) -> Arc<dyn Heads> {
        Arc::new(OwnHead(Arc::clone(&self.writer)))
    }

    /// Exemplars of the head for queriers; a router has none.
    pub fn exemplars(&self) -> FactServer<Exemplars> {
        let own = Arc::new(OwnExemplars(self.store_door.clone()));
        FactServer::new(own, Budget::unlimited(), self.world.clone())
    }

    /// Figures of the head for queriers; a router has none.
    pub fn statistics(&self) -> FactServer<Statistics> {
        let head = Arc::new(OwnHead(Arc::clone(&self.writer)));
        FactServer::new(head, Budget::unlimited(), self.world.clone())
    }

    /// What metrics mean, as far as it is kept here.
    pub fn metadata(&self) -> Arc<dyn MetadataSource> {
        self.metadata.clone()
    }

    /// The same over gRPC.
    pub fn metadata_service(&self) -> FactServer<rpc::facts::Metadata> {
        let told = rpc::facts::Meaningful(self.metadata());
        FactServer::new(Arc::new(told), Budget::unlimited(), self.world.clone())
    }

    /// The engine, once its log has been replayed; never for a router.
    pub fn tsdb(&self) -> Option<Arc<Tsdb>> {
        self.writer.local().engine().cloned()
    }
}
