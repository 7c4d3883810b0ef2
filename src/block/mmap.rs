//! A whole file as bytes: mapped into memory where the disk is real, read otherwise.
//!
//! One of the few modules that allow `unsafe`. The argument: mapping is unsound where the file changes or shrinks
//! while it is mapped. Files of a block are complete before their folder gets its name, no code of ours opens them
//! for writing after that, and they are removed by unlinking, never truncated: a mapping keeps an unlinked file's
//! pages. What is left is somebody else who truncates a file in our data directory; then the process is ended by
//! SIGBUS, as every database that maps its files is. Only files of finished blocks may be passed here.
#![allow(unsafe_code)]

use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;
use runtime::World;

use crate::Error;
use crate::error;

/// The content of a file of a finished block. Pages are loaded when touched.
pub(crate) fn map(world: &World, path: &Path) -> Result<Bytes, Error> {
    let file = world.disk.open_read(path).map_err(|e| error::io("open", path, e))?;
    let Some(file) = file.as_std() else {
        return world.disk.read(path).map(Bytes::from).map_err(|e| error::io("read", path, e));
    };
    if file.metadata().map_err(|e| error::io("read the size of", path, e))?.len() == 0 {
        // An empty file cannot be mapped.
        return Ok(Bytes::new());
    }
    // SAFETY: the file is immutable and not truncated while mapped, see the head of this module.
    let map = unsafe { Mmap::map(file) }.map_err(|e| error::io("map", path, e))?;
    Ok(Bytes::from_owner(map))
}
