//! The control plane over gRPC: every node's door for it, and the way to the others.

mod client;
mod server;

pub use client::GrpcTransport;
pub use server::ControlServer;

/// Largest request and answer: what is agreed, as a whole, with room to spare.
const MAX_BYTES: usize = 256 << 20;
