//! Blocks as folders: which there are, how one is removed, and what an interrupted run left behind.

use std::path::{Path, PathBuf};

use runtime::World;

use crate::error;
use crate::{BlockId, Error};

/// Suffix of a folder that is being written.
pub(crate) const CREATING: &str = ".tmp-for-creation";
/// Suffix of a folder that is being removed.
pub(crate) const DELETING: &str = ".tmp-for-deletion";

/// The blocks in a folder, oldest first by creation: sub-folders named by a ULID that hold a `meta.json`.
pub fn list(world: &World, parent: &Path) -> Result<Vec<BlockId>, Error> {
    if !world.disk.exists(parent) {
        return Ok(Vec::new());
    }
    let names = world.disk.list(parent).map_err(|e| error::io("list", parent, e))?;
    Ok(names
        .iter()
        .filter_map(|name| BlockId::parse(name))
        .filter(|id| world.disk.exists(&parent.join(id.to_string()).join(crate::meta::FILE)))
        .collect())
}

/// Removes a block so that no half of it can be taken for a block after a crash: rename first, then delete.
pub fn remove(world: &World, parent: &Path, id: BlockId) -> Result<(), Error> {
    let from = parent.join(id.to_string());
    let doomed = parent.join(format!("{id}{DELETING}"));
    world.disk.rename(&from, &doomed).map_err(|e| error::io("rename", &from, e))?;
    world.disk.sync_dir(parent).map_err(|e| error::io("sync", parent, e))?;
    world.disk.remove_dir_all(&doomed).map_err(|e| error::io("remove", &doomed, e))
}

/// Folders that an interrupted write or removal left in `parent`.
pub fn leftovers(world: &World, parent: &Path) -> Result<Vec<PathBuf>, Error> {
    if !world.disk.exists(parent) {
        return Ok(Vec::new());
    }
    let names = world.disk.list(parent).map_err(|e| error::io("list", parent, e))?;
    let ours = |name: &&String| {
        [CREATING, DELETING]
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(|id| BlockId::parse(id).is_some()))
    };
    Ok(names.iter().filter(ours).map(|name| parent.join(name)).collect())
}

/// Removes what [`leftovers`] finds and returns how many there were. Only for the owner of the folder, at start.
pub fn remove_leftovers(world: &World, parent: &Path) -> Result<usize, Error> {
    let found = leftovers(world, parent)?;
    for dir in &found {
        world.disk.remove_dir_all(dir).map_err(|e| error::io("remove", dir, e))?;
    }
    Ok(found.len())
}
