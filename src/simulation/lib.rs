//! A whole cluster in one seeded thread: what can go wrong goes wrong, and what is promised is checked on every path.
//!
//! A run ([`run`]) is decided by its seed alone. The receivers are the production role on a disk in memory that forgets
//! what was not synced; network, clocks, bucket, senders and troubles are simulated. What is real and what is not:
//! `README.md`.

mod actors;
mod breaks;
mod control;
mod disk;
mod invariants;
mod ledger;
mod network;
mod oracle;
mod plan;
mod steps;
mod store;
mod trace;
mod universe;

pub use breaks::Break;
pub use invariants::{ALL as RULES, Violation};
pub use universe::{Options, Report, run};

/// The command that runs a seed again.
pub fn replay(seed: u64, broken: Option<Break>) -> String {
    let broken = broken.map_or_else(String::new, |rule| format!(" --break {}", rule.name()));
    format!("cargo run -p tributary-simulation -- --seed {seed}{broken} --aloud")
}
