//! The name of a log's life: what is known to be on this disk, and what went with one before it.

use std::path::Path;

use model::Kind;
use runtime::World;

use crate::Error;

/// Whether there is a log in the folder, before it is opened.
pub fn has_log(world: &World, dir: &Path) -> Result<bool, Error> {
    let wal = dir.join("wal");
    let names = if world.disk.exists(&wal) { world.disk.list(&wal) } else { Ok(Vec::new()) };
    let names = names.map_err(|error| {
        Error::with_source(Kind::Unavailable, format!("{}: {error}", wal.display()), error)
    })?;
    Ok(!names.is_empty())
}

/// Where the log is gone and the rest of the folder is not, what was acknowledged with this node's help is gone as well: it
/// must not pass for the one that had it.
pub fn begin_anew(world: &World, dir: &Path) -> Result<(), Error> {
    let path = dir.join("incarnation");
    if !world.disk.exists(&path) {
        return Ok(());
    }
    tracing::warn!(dir = %dir.display(), "the log is gone: this node begins anew and counts as a new disk");
    world
        .disk
        .remove_file(&path)
        .map_err(|error| Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error))
}

/// The name of this log's life: kept in the data folder, new where the folder is.
pub fn read(world: &World, dir: &Path) -> Result<String, Error> {
    let path = dir.join("incarnation");
    let failed = |error: std::io::Error| {
        Error::with_source(Kind::Unavailable, format!("{}: {error}", path.display()), error)
    };
    if world.disk.exists(&path) {
        let text = String::from_utf8_lossy(&world.disk.read(&path).map_err(failed)?).trim().to_owned();
        if !text.is_empty() {
            return Ok(text);
        }
    }
    let name = format!("{:016x}{:016x}", world.chance.next_u64(), world.chance.next_u64());
    world.disk.write_atomic(&path, name.as_bytes()).map_err(failed)?;
    Ok(name)
}
