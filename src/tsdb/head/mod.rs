//! The head: all recent samples of all tenants, in shards.
//!
//! A series lives in the shard that its hash names. Everything about a shard happens under its one lock, held
//! once per group of a batch; a record goes into the log before the lock is let go, so the log has the order in
//! which things became visible.

mod append;
mod delete;
mod freeze;
mod judge;
mod native;
mod of_tenant;
mod order;
mod pages;
mod postings;
mod read;
mod replay;
mod series;
mod shard;
mod slab;
mod slots;

pub(crate) use append::{Notes, Rows};
pub(crate) use chunk::cut::window_start;
pub(crate) use judge::{Bounds, IDLE};
pub(crate) use of_tenant::Window;
pub(crate) use read::ShardSet;
pub(crate) use replay::replay;
#[cfg(test)]
pub(crate) use series::encode;
pub(crate) use shard::{BITE, Head, HeadSettings};
