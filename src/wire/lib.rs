//! Protobuf to values and back, and the compression around it; nothing else.
//!
//! `pb` holds the messages and services generated from `proto/`, for doors and clients. Remote write is hot,
//! so its bytes are walked by hand in [`remote_write`], into flat columns that are reused. The crate opens no
//! socket and knows no role; what a sample's fate is, and who may send it, is decided elsewhere.

mod error;
pub mod otlp;
pub mod remote_write;
mod walk;

pub use error::WireError;

/// Messages and services of `proto/`, one module per package.
#[allow(clippy::all, missing_docs, unreachable_pub, rustdoc::all)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

/// All of `proto/` as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
