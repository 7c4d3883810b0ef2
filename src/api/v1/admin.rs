//! The admin calls of a role with a head: deleting series and tenants. Off unless the operator turns them on.
//!
//! `POST|PUT /api/v1/admin/tsdb/delete_series` and `clean_tombstones` are Prometheus's; `DELETE
//! /api/v1/admin/tenants/{tenant}` is ours. All answer 204; what the caller has to know besides (blocks that were
//! not reached) stands in a `Warning` header for each.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::{Matcher, TimeRange};

use super::series::matcher_sets;
use crate::params::Params;
use crate::problem::ErrorType;
use crate::{Problem, json};

/// Paths of the admin calls, for listeners that help those who missed one.
pub const ADMIN_PATHS: [&str; 3] = [DELETE_SERIES, CLEAN_TOMBSTONES, TENANTS];
const DELETE_SERIES: &str = "/api/v1/admin/tsdb/delete_series";
const CLEAN_TOMBSTONES: &str = "/api/v1/admin/tsdb/clean_tombstones";
const TENANTS: &str = "/api/v1/admin/tenants/{tenant}";

/// What the caller has to know besides that it is done.
pub type Warnings = Vec<String>;

/// Somebody whose data can be deleted.
pub trait Admin: Send + Sync {
    /// Deletes samples in a closed range of the series that pass one of `sets`. `here`: the caller knows that
    /// others hold copies and asks them itself.
    fn delete_series(
        &self,
        tenant: String,
        sets: Vec<Vec<Matcher>>,
        range: TimeRange,
        here: bool,
    ) -> BoxFuture<'_, Result<Warnings, Problem>>;

    /// Takes what is deleted out of the blocks.
    fn clean_tombstones(&self) -> BoxFuture<'_, Result<Warnings, Problem>>;

    /// Removes a tenant; with `bucket` its blocks there are marked for deletion, too.
    fn remove_tenant(
        &self,
        tenant: String,
        bucket: bool,
        here: bool,
    ) -> BoxFuture<'_, Result<Warnings, Problem>>;
}

/// How the calls are asked and answered.
#[derive(Clone)]
pub struct AdminPage {
    pub admin: Arc<dyn Admin>,
    pub enabled: bool,
    /// Headers that may name the tenant, in this order.
    pub tenant_headers: Vec<String>,
    pub default_tenant: String,
}

/// The routes of the calls.
pub fn admin_router(page: AdminPage) -> Router {
    Router::new()
        .route(DELETE_SERIES, post(delete_series).put(delete_series))
        .route(CLEAN_TOMBSTONES, post(clean_tombstones).put(clean_tombstones))
        .route(TENANTS, delete(remove_tenant))
        .with_state(Arc::new(page))
}

async fn delete_series(
    State(page): State<Arc<AdminPage>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    page.check()?;
    let sets = matcher_sets(&params)?;
    if sets.is_empty() {
        return Err(Problem::bad_data("no match[] parameter provided"));
    }
    let start = params.optional_time("start")?.unwrap_or(i64::MIN);
    let end = params.optional_time("end")?.unwrap_or(i64::MAX);
    if end < start {
        return Err(Problem::bad_data("end time must not be before start time"));
    }
    let header = |name: &String| headers.get(name.as_str())?.to_str().ok().filter(|t| !t.is_empty());
    let tenant = page.tenant_headers.iter().find_map(header).unwrap_or(&page.default_tenant).to_owned();
    let here = here(&params)?;
    page.admin.delete_series(tenant, sets, TimeRange::new(start, end), here).await.map(done)
}

async fn clean_tombstones(State(page): State<Arc<AdminPage>>) -> Result<Response, Problem> {
    page.check()?;
    page.admin.clean_tombstones().await.map(done)
}

async fn remove_tenant(
    State(page): State<Arc<AdminPage>>,
    Path(tenant): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    page.check()?;
    let bucket = params.optional_bool("bucket")?.unwrap_or(false);
    let here = here(&params)?;
    page.admin.remove_tenant(tenant, bucket, here).await.map(done)
}

fn here(params: &Params) -> Result<bool, Problem> {
    match params.get("scope") {
        "" => Ok(false),
        "node" => Ok(true),
        other => Err(Problem::parameter("scope", format!("{other:?} is not a scope; only node is"))),
    }
}

impl AdminPage {
    fn check(&self) -> Result<(), Problem> {
        match self.enabled {
            true => Ok(()),
            false => Err(Problem::new(
                ErrorType::Disabled,
                "admin APIs disabled; start with --web.enable-admin-api to allow them",
            )),
        }
    }
}

fn done(warnings: Warnings) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    for text in warnings {
        let mut quoted = b"299 - ".to_vec();
        json::text(&mut quoted, &text);
        if let Ok(value) = HeaderValue::from_bytes(&quoted) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
    response
}
