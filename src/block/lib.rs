//! The Prometheus block: an immutable folder of samples, written once, opened many times.
//!
//! A block is made by [`BlockWriter`] when a head is cut or blocks are merged, and read by [`Block`] (a folder on
//! this machine) or through [`index`] and [`chunks`] from byte ranges of a bucket. It knows neither tenants nor
//! buckets nor when to cut. Formats: `FORMAT.md`.

/// The examples of the format page are run as tests.
#[cfg(doctest)]
#[doc = include_str!("FORMAT.md")]
pub struct FormatPage;

pub mod chunks;
mod delete;
mod dir;
mod error;
mod id;
pub mod index;
mod label_sets;
pub mod merge;
pub mod meta;
mod mmap;
mod read;
mod select;
pub mod tombstones;
mod writer;

pub use dir::{leftovers, list, remove, remove_leftovers};
pub use id::BlockId;
pub use label_sets::LabelSets;
pub use meta::Meta;
pub use model::Error;
pub use read::Block;
pub use select::{BlockSeries, without};
pub use writer::{BlockWriter, MetaSpec, ThanosSpec};
