//! The node's small durable state: which blocks are uploaded, what metrics mean, which hints wait for whom, and later the
//! control plane's log.
//!
//! One RocksDB database in a folder of its own (`FORMAT.md`), in column families with typed keys. Samples are not in it and
//! nothing here is asked for a series that is known. What is in it today can be had again: the ledger from the
//! bucket, metadata from the next writes; therefore damage is refused with one way out, and never guessed around.
//!
//! RocksDB touches files by itself, not through [`runtime::Disk`]; `src/decisions/0011-catalog.md` says why, and
//! `tests/crash.rs` cuts its files instead of a simulated disk.
//!
//! # Cost
//! At most [`MEMORY_LIMIT`] bytes, whatever it holds; nothing per tenant. A confirmed write costs two fdatasyncs.

mod database;
mod error;
mod family;
mod format;
mod hints;
mod inspect;
mod keys;
mod ledger;
mod mark;
mod metadata;
mod raft;

pub use database::{Catalog, MemoryUse};
pub use family::MEMORY_LIMIT;
pub use hints::{HintCursor, HintFile, HintIndex};
pub use inspect::{Family, Inspection, inspect};
pub use ledger::{LedgerEntry, LedgerState};
pub use metadata::{MAX_TEXT, Put};
pub use model::Error;
