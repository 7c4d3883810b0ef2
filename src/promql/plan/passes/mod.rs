//! Rewrites of a plan, one per file; each leaves its value unchanged.

pub(super) mod fold;
pub(super) mod hints;
pub(super) mod invariant;
pub(in crate::plan) mod merge;
pub(super) mod needs;
pub(super) mod propagate;
pub(super) mod stats;
