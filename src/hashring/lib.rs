//! Which endpoints hold a series: pure, reproducible placement, equal to Thanos's for the same file.
//!
//! A ring file becomes a [`Document`]; document and replication factor become [`Rings`]. A write resolves
//! its tenant to one [`Ring`] and asks it, per series, for the replicas of the series' placement hash
//! (`model::Labels::placement_hash`). The crate knows no network, no clock and no file.

mod document;
mod error;
mod glob;
mod gorand;
mod ketama;
mod rings;
mod shuffle;

pub use document::{Algorithm, Document, Endpoint, RingSpec, ShuffleSharding, TenantMatch};
pub use error::Error;
pub use glob::{BadPattern, Glob};
pub use ketama::SECTIONS_PER_NODE;
pub use rings::{EndpointIndex, Ring, Rings};
