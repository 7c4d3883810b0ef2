//! The doors over HTTP: a server kit for every role, and the Prometheus query API over anything that selects.
//!
//! `Server` binds a port and serves an `axum::Router`; `Door` gives every listener its health, readiness and
//! metrics pages. `v1` is the Prometheus HTTP API: parameters come in, a `promql::Engine` evaluates over what a
//! `Queryable` hands out, JSON goes out in pieces. Statuses are decided in `problem` only. The crate knows neither
//! where series live nor how they are written.

mod active;
mod cors;
mod door;
mod gzip;
pub mod json;
mod near;
pub mod number;
mod pace;
mod params;
mod pool;
mod problem;
mod readiness;
pub mod reply;
mod server;
pub mod v1;

pub use active::ActiveQueries;
pub use cors::Cors;
pub use door::{Door, MetricsPage};
pub use model::Error;
pub use params::Params;
pub use pool::{QueryPool, Ran};
pub use problem::{ErrorType, Problem};
pub use readiness::Readiness;
pub use server::{Security, Server, ServerSettings};
pub use v1::rfc3339;
pub use v1::{ADMIN_PATHS, Admin, AdminPage, Warnings, admin_router};
pub use v1::{
    ApiSettings, ApiState, Evaluated, Evaluation, Facts, NoFacts, Queryable, ReadParams, Times, Told, router,
};
pub use v1::{Counts, HeadFigures, HeadPage, Heads, TSDB_PATHS, tsdb_router};
