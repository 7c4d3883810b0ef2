//! Writes between our own receivers: one stream of frames for each pair, on which a series is named once by its
//! labels and afterwards by a number.
//!
//! `frame` is the outermost layer, `request` and `reply` what is in it, `columns` and `bytes` what these are made of;
//! the page for all of them is `FORMAT.md`. `names` is the sender's dictionary, `slots` the receiver's; `session` drives
//! the sender's end of a stream, `door` the receiver's. Streams are calls of gRPC, on the port and within the TLS of
//! the other services; who does not serve them is written to by `WriteableStore`.

mod bytes;
mod columns;
mod door;
mod frame;
mod names;
#[cfg(any(test, feature = "proof"))]
pub mod proof;
mod reply;
mod request;
mod session;
mod slots;

pub use door::PeerServer;
pub use frame::{FrameError, Hello, Welcome};
pub(crate) use session::{Failed, Opened, Session};

/// The one method.
pub(crate) const PATH: &str = "/tributary.v1.Peer/Write";
pub(crate) const SERVICE: &str = "tributary.v1.Peer";

/// Limits of the streams of one end.
#[derive(Clone, Copy, Debug)]
pub struct PeerOptions {
    /// Names of one stream.
    pub names: u32,
    /// Memory for the names of all streams that come in, bytes.
    pub names_bytes: u64,
    /// Bytes of requests of one stream that are under way at once.
    pub inflight_bytes: u32,
}

impl Default for PeerOptions {
    fn default() -> PeerOptions {
        PeerOptions { names: 4 << 20, names_bytes: 512 << 20, inflight_bytes: 16 << 20 }
    }
}
