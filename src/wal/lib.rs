//! An append-only log of records: group commit, torn tails healed, corruption refused.

mod error;

pub use error::Error;
