//! Runs `.test` scripts in the format of Prometheus's promqltest over an in-memory store.
//!
//! A script loads series and evaluates queries, each with its expected result. The runner is part of the crate
//! so that tests, benches and the `promqltest` tool share it. It knows no file: callers hand in the text.

mod compare;
mod histogram;
mod memory;
mod nhcb;
mod pin;
mod runner;
mod script;
mod series;

pub use memory::{MemoryStore, Stored};
pub use runner::{Failure, Report, run_script};
