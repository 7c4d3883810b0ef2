//! An append-only log of records: group commit, torn tails healed, corruption refused.
//!
//! In a write it stands between the head, which enqueues records under its shard locks, and the disk: one
//! thread writes what has gathered and syncs it, and [`Log::wait`] answers when a position is durable. On
//! start [`Log::open`] hands every record back in order. The log knows kinds and bytes; what they mean is its
//! caller's business. Format: `FORMAT.md`.

mod checkpoint;
pub mod error;
mod inspect;
mod log;
mod mend;
mod reader;
mod record;
mod salvage;
mod segment;
mod spool;
mod staging;
mod writer;

pub use checkpoint::CheckpointWriter;
pub use inspect::{SegmentSummary, inspect};
pub use log::{Entry, Log, Mode, Permit, Report, Settings};
pub use mend::{Damage, mend};
pub use model::Error;
pub use record::{FIRST_SKIPPABLE_KIND, HEADER_BYTES, framed_len};
pub use salvage::{Losses, LostBytes, NewLog, Readable, read_damaged};
pub use spool::{Place, Spool, SpoolSegment};

#[doc = include_str!("FORMAT.md")]
#[cfg(doctest)]
struct Format;
