//! Deleting on this node: series, and tenants that leave.
//!
//! A receiver holds copies of its own only. In a ring a deletion has to be made on every member, so a call that does
//! not say that it knows (`scope=node`) is refused with the list of them.

use std::sync::Arc;

use api::{Admin, Problem, Warnings};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Matcher, TenantId, TimeRange};
use tsdb::Tsdb;

use crate::Error;
use crate::ship::Ship;
use crate::write::Writer;

/// Deletes what this node holds.
pub struct OwnAdmin {
    pub writer: Arc<Writer>,
    pub ship: Arc<Ship>,
    pub tenant_label: String,
}

impl OwnAdmin {
    fn engine(&self) -> Result<Arc<Tsdb>, Problem> {
        let engine = self.writer.local().engine().cloned();
        engine.ok_or_else(|| Problem::unavailable("this receiver is starting, or stores nothing"))
    }

    fn alone_or_here(&self, here: bool) -> Result<(), Problem> {
        let current = self.writer.ring().current();
        let members: Vec<&str> = current.members().into_iter().collect();
        if here || members.len() < 2 {
            return Ok(());
        }
        Err(Problem::bad_data(format!(
            "this receiver is one of {} of a ring and deletes only what it holds itself; send the call with \
             scope=node to the HTTP listener of each of them: {}",
            members.len(),
            members.join(", ")
        )))
    }
}

fn tenant_id(tenant: &str) -> Result<TenantId, Problem> {
    TenantId::new(tenant).map_err(|error| Problem::bad_data(error.to_string()))
}

fn failed(error: Error) -> Problem {
    Problem::of_kind(error.kind, error.message)
}

impl Admin for OwnAdmin {
    fn delete_series(
        &self,
        tenant: String,
        sets: Vec<Vec<Matcher>>,
        range: TimeRange,
        here: bool,
    ) -> BoxFuture<'_, Result<Warnings, Problem>> {
        async move {
            let tenant = tenant_id(&tenant)?;
            self.alone_or_here(here)?;
            self.ship.delete_series(&self.engine()?, tenant, sets, range).await.map_err(failed)
        }
        .boxed()
    }

    fn clean_tombstones(&self) -> BoxFuture<'_, Result<Warnings, Problem>> {
        async move { self.ship.clean_tombstones(&self.engine()?).await.map_err(failed) }.boxed()
    }

    fn remove_tenant(
        &self,
        tenant: String,
        bucket: bool,
        here: bool,
    ) -> BoxFuture<'_, Result<Warnings, Problem>> {
        async move {
            let tenant = tenant_id(&tenant)?;
            self.alone_or_here(here)?;
            let label = bucket.then_some(self.tenant_label.as_str());
            self.ship.remove_tenant(&self.engine()?, tenant, label).await.map_err(failed)
        }
        .boxed()
    }
}
