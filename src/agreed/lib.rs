//! What the nodes of a cluster have agreed on: which ring, who has to be asked for what was acked, who does what only
//! one may do.
//!
//! [`State`] is a pure function of the [`Command`]s before it, equal on every voter. The data plane obeys three rules
//! taken from it: a write carries the number of its epoch and is acked by [`epoch::acked`]; a receiver refuses writes of
//! epochs before the least that it promised; a read is complete by [`State::complete`].
//!
//! A change of the ring goes `Stable(old)` -> pending (new members warm up) -> `Joint(old, new)` -> `Stable(new)`. The
//! joint epoch ends when of every old replica set so many have promised to refuse the old epoch that nobody who believes
//! in it can be acked. Nothing is moved: an epoch stays readable where it was written, and is retired once so many of
//! its members have everything in the bucket that nothing acked can be missing there.

mod apply;
mod check;
pub mod command;
mod elections;
pub mod epoch;
mod error;
mod leases;
mod node;
mod plan;
mod reads;
mod state;

pub use command::{Command, Outcome, Proposal};
pub use elections::{Elected, Elections};
pub use epoch::{Epoch, EpochNumber, View};
pub use error::Error;
pub use leases::{Lease, Leases};
pub use node::{Node, Registration};
pub use plan::{Placed, RingPlan};
pub use reads::{Missing, Needed};
pub use state::{Limits, Pending, State};
