//! Why the catalog did not do what it was asked.

use std::path::Path;

use model::{Error, Kind};

pub(crate) fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Exhausted,
        _ => Kind::Unavailable,
    };
    Error::with_source(kind, format!("cannot {doing} {}: {error}", path.display()), error)
}

/// What the folder holds contradicts itself. Says the way out.
pub(crate) fn damaged(dir: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "catalog {} is damaged: {what}. Stop the node, move this folder away and start again: which blocks are \
             uploaded is then asked of the bucket, and metric metadata comes again with the next writes; no \
             sample is in it",
            dir.display()
        ),
    )
}

/// An error of RocksDB, told apart by its kind.
pub(crate) fn rocks(doing: &str, dir: &Path, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    if text.contains("lock file") || text.contains("lock hold by current process") {
        return Error::with_source(
            Kind::Refused,
            format!("catalog {} is in use by another process; stop it first", dir.display()),
            error,
        );
    }
    if text.contains("No space left") || text.contains("quota exceeded") {
        let message = format!(
            "cannot {doing} in catalog {}: {text}; free disk space, and it goes on by itself",
            dir.display()
        );
        return Error::with_source(Kind::Exhausted, message, error);
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            let damaged = damaged(dir, &text);
            Error { source: Some(error.into()), ..damaged }
        }
        // A file that should be there is not; a read ends too soon.
        rocksdb::ErrorKind::IOError | rocksdb::ErrorKind::NotFound | rocksdb::ErrorKind::InvalidArgument
            if text.contains("No such file") || text.contains("does not exist") =>
        {
            let damaged = damaged(dir, &text);
            Error { source: Some(error.into()), ..damaged }
        }
        _ => Error::with_source(
            Kind::Unavailable,
            format!("cannot {doing} in catalog {}: {text}", dir.display()),
            error,
        ),
    }
}

/// What goes wrong within one use of the database: an error of RocksDB, not yet in our words, or one of ours.
pub(crate) enum Fault {
    Rocks(rocksdb::Error),
    Ours(Error),
}

impl Fault {
    /// In our words.
    pub fn told(self, doing: &str, dir: &Path) -> Error {
        match self {
            Fault::Rocks(error) => rocks(doing, dir, error),
            Fault::Ours(error) => error,
        }
    }
}

impl From<rocksdb::Error> for Fault {
    fn from(error: rocksdb::Error) -> Fault {
        Fault::Rocks(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Ours(error)
    }
}
