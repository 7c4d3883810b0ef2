//! What the disk says of files, as an error.

use std::path::Path;

use model::{Error, Kind};

/// A file operation that failed; a full disk is `Unavailable`, everything else `Internal`.
pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::with_source(kind, format!("{doing} {}: {error}", path.display()), error)
}
