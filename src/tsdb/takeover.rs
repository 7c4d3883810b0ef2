//! The blocks of a Thanos Receive's data folder become ours, shipped or not; what it keeps in logs does not.
//!
//! ```text
//! <tenant>/<ULID>   ->  blocks/<tenant>/<ULID>
//! <tenant>/...      ->  taken-over/<tenant>/...      its list of uploads among them
//! ```
//! Only folders are renamed, block by block, and our mark is written when that is done: a start that is broken off is
//! taken up by the next one. Which blocks are in the bucket is asked of the bucket.

use std::path::{Path, PathBuf};

use block::BlockId;
use model::{Kind, TenantId};
use runtime::World;

use crate::{Error, dir};
use wal::error;

/// Beside blocks: what was taken over and is of no use any more.
pub(crate) const REST: &str = "taken-over";
/// What Thanos keeps of samples that are in no block yet.
const LOGS: [&str; 3] = ["wal", "wbl", "chunks_head"];
const UPLOADS: &str = "thanos.shipper.json";

/// A tenant's folder in Thanos's layout.
pub(crate) struct Found {
    tenant: TenantId,
    path: PathBuf,
    blocks: Vec<BlockId>,
    has_log: bool,
}

/// The tenants of a Thanos Receive in `dir`, if every name in it is one; `is_ours` are names that may be there beside.
/// None where anything else lies there, or nothing.
pub(crate) fn find(world: &World, dir: &Path, is_ours: impl Fn(&str) -> bool) -> Option<Vec<Found>> {
    let disk = &*world.disk;
    let mut found = Vec::new();
    let mut begun = false;
    for name in disk.list(dir).ok()? {
        let path = dir.join(&name);
        if name == REST || (name == "blocks" && path_is_ours(world, dir)) {
            begun = true;
            continue;
        }
        if is_ours(&name) {
            continue;
        }
        let tenant = TenantId::new(&name).ok().filter(|_| disk.is_dir(&path))?;
        let inside = disk.list(&path).ok()?;
        let blocks: Vec<BlockId> = inside
            .iter()
            .filter(|name| disk.exists(&path.join(name).join(block::meta::FILE)))
            .filter_map(|name| BlockId::parse(name))
            .collect();
        let log = |name: &&str| disk.list(&path.join(name)).is_ok_and(|files| !files.is_empty());
        let has_log = LOGS.iter().any(log);
        if blocks.is_empty() && !has_log && !inside.iter().any(|name| name == UPLOADS) {
            return None;
        }
        found.push(Found { tenant, path, blocks, has_log });
    }
    (begun || !found.is_empty()).then_some(found)
}

/// Whether `blocks` is what an earlier attempt has begun to fill, and no tenant's name.
fn path_is_ours(world: &World, dir: &Path) -> bool {
    world.disk.exists(&dir.join(REST))
}

/// Refuses where samples lie in logs: they would be lost without a word.
pub(crate) fn check(found: &[Found], dir: &Path) -> Result<(), Error> {
    let Some(one) = found.iter().find(|one| one.has_log) else { return Ok(()) };
    let text = format!(
        "data folder {} was written by Thanos Receive, and {} has samples that are in no block yet; nothing in it was \
         touched. Its blocks are taken over, its logs are not: stop that Thanos by SIGTERM, upon which it cuts them into \
         blocks, see that it ended well, delete the folders {} of each tenant and start this again. Or: Use another \
         folder, and let Thanos ship its blocks",
        dir.display(),
        one.path.display(),
        LOGS.join(", "),
    );
    Err(Error::new(Kind::Refused, text))
}

/// Takes the blocks over. What is there is the same after any number of attempts.
pub(crate) fn take(world: &World, dir: &Path, found: &[Found]) -> Result<(), Error> {
    let disk = &*world.disk;
    let rest = dir.join(REST);
    disk.create_dir_all(&rest).map_err(|e| error::io("create", &rest, e))?;
    disk.sync_dir(dir).map_err(|e| error::io("sync", dir, e))?;
    for one in found {
        let to = dir::blocks_dir(dir).join(one.tenant.as_str());
        disk.create_dir_all(&to).map_err(|e| error::io("create", &to, e))?;
        for block in &one.blocks {
            let (from, to) = (one.path.join(block.to_string()), to.join(block.to_string()));
            disk.rename(&from, &to).map_err(|e| error::io("take over", &from, e))?;
        }
        disk.sync_dir(&to).map_err(|e| error::io("sync", &to, e))?;
        disk.sync_dir(&dir::blocks_dir(dir)).map_err(|e| error::io("sync", &to, e))?;
        disk.sync_dir(&one.path).map_err(|e| error::io("sync", &one.path, e))?;
        let aside = rest.join(one.tenant.as_str());
        disk.rename(&one.path, &aside).map_err(|e| error::io("put aside", &one.path, e))?;
        disk.sync_dir(&rest).map_err(|e| error::io("sync", &rest, e))?;
        disk.sync_dir(dir).map_err(|e| error::io("sync", dir, e))?;
        tracing::info!(tenant = %one.tenant, blocks = one.blocks.len(), "blocks of a Thanos Receive are taken over");
    }
    Ok(())
}
