//! Why chunk bytes do not decode.

/// Bytes that are not a chunk of the encoding they claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("chunk ends before its last sample")]
    Truncated,
    #[error("chunk header is malformed: {0}")]
    Header(&'static str),
    #[error("chunk holds 65535 samples already")]
    Full,
    #[error("the place of the chunk has no room for another sample")]
    NoRoom,
    #[error("sample bits are malformed: {0}")]
    Malformed(&'static str),
}
