//! Object storage: a bucket of blocks, how blocks come into it whole, and which of them are to be read.
//!
//! A cut block goes through [`Shipper`] (what is not yet up, in order) and [`upload_block`] (data first,
//! `meta.json` last) into a [`Bucket`]. A store gateway asks a [`Fetcher`] for the [`Catalogue`] of blocks
//! worth reading and fetches their bytes by ranges. The crate does not know what is inside an index or a
//! chunk, nor who serves it.

mod bounds;
mod bucket;
mod catalogue;
pub mod config;
mod connect;
mod error;
mod fetch;
mod holdings;
pub mod layout;
pub mod ledger;
mod marks;
mod parts;
mod retry;
mod ship;
pub mod table;
mod upload;

pub use bounds::TimeBound;
pub use bucket::{Bucket, Level, Object};
pub use catalogue::{Catalogue, State, parse_rfc3339};
pub use error::{Error, Operation, Provider};
pub use fetch::{FetchSettings, Fetcher};
pub use holdings::{Holdings, Whereabouts};
pub use ledger::Ledger;
pub use marks::DeletionMark;
pub use retry::RetryPolicy;
pub use ship::{ShipReport, ShipSettings, Shipper};
pub use upload::{Uploaded, upload_block};
