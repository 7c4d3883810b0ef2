//! The store gateway: serves the blocks of a bucket without downloading them.
//!
//! [`Blocks`] is the engine: which blocks there are, and series out of them by ranged requests; `standalone` embeds
//! it. [`Store`] puts it behind the StoreAPI with health, readiness and metrics beside it.

mod blocks;
mod cache;
mod group;
mod header;
mod pages;
mod remote;
mod role;
mod settings;
mod wait;

pub use blocks::{Blocks, BlocksSettings, LeaveOut};
pub use model::Error;
pub use role::Store;
pub use settings::{Discovery, Limits, Settings};
