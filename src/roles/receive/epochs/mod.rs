//! A receiver's part in changes of the agreed ring: which epochs it takes writes of, what it promises, and when what it took
//! is in the bucket for every reader to see.
//!
//! [`gate`] lets writes in by their epoch; [`told`] is what a stale router is answered; [`follow`] takes epochs over for
//! placing; [`member`] registers this node, warms up, promises and reports; [`drain`] knows when everything of an epoch is in
//! the bucket, and [`readers`] whether the stores show it. The rules are `agreed`'s.

pub mod drain;
pub mod follow;
pub mod gate;
pub mod member;
pub mod readers;
pub mod told;
