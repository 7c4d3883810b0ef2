//! What the disk says of a block's files, as an error.

use std::io::ErrorKind;
use std::path::Path;

use model::{Error, Kind};

/// A file operation that failed; a full disk is `Exhausted`, anything else may pass.
pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (Kind::Exhausted, "; free space on this file system")
        }
        ErrorKind::NotFound => (Kind::Corrupt, "; the block is incomplete"),
        ErrorKind::PermissionDenied => {
            (Kind::Unavailable, "; give this process access to the data directory")
        }
        _ => (Kind::Unavailable, ""),
    };
    Error::with_source(kind, format!("cannot {doing} {}: {error}{advice}", path.display()), error)
}
