//! Remote write bodies: bounded decompression, hand-walked decoders of versions 1.0 and 2.0, and an encoder.
//!
//! Step one of every write: `body -> decompress -> decode_v1 or decode_v2 -> columns`. Labels stay where they are in the
//! decompressed body; columns hold ranges into it, so nothing is allocated once the buffers have grown.

mod columns;
mod decode;
mod divide;
mod encode;
mod encode_v2;
mod extras;
mod packed;
mod peer;
mod sender;
mod snappy;
mod stream;
mod v2;
mod zstd;

pub use columns::{DecodedV1, LabelFault, LabelPair, Series, SeriesFault};
pub use decode::decode_v1;
pub use divide::{divide_v1, divide_v2};
pub use encode::{compress, encode_v1, put_histogram};
pub use encode_v2::RequestV2;
pub use extras::{Exemplar, HistogramSample, Metadata};
pub use packed::{Packed, Packing};
pub use peer::{PeerEncoder, PeerEnvelope, PeerWrite, decode_peer, peer_envelope};
pub use sender::{PairLabels, Sent, sent_v1, sent_v2};
pub use snappy::decompress;
pub use stream::{RequestWalk, SeriesAt, canonical_labels};
pub use v2::{DecodedV2, decode_v2};
pub use zstd::decompress_zstd;

/// How much one request may be and hold; beyond them it is refused before memory is spent on it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after decompression.
    pub max_bytes: usize,
    /// Decompressed bytes per compressed byte, judged above 1 MiB only: small repetitive requests compress well.
    pub max_ratio: usize,
    /// Series in a request, empty ones included.
    pub max_series: usize,
    /// Labels of a series; one with more is marked, the others are read.
    pub max_labels: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_bytes: 32 << 20, max_ratio: 64, max_series: 100_000, max_labels: 1024 }
    }
}
