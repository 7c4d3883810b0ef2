//! The data folder: whose it is, in which version, and who holds it.
//!
//! ```text
//! tributary-tsdb.json    version of the layout and number of shards, written first
//! lock                   held by the process that has the folder open
//! wal/                   the log
//! blocks/<tenant>/<ULID> blocks
//! quarantine/            what could not be written into a block
//! taken-over/            what a Thanos Receive had beside its blocks
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use runtime::{File, World};
use serde_json::{Value, json};

use crate::{Error, takeover};
use wal::error;

const VERSION: u64 = 1;
const FILE: &str = "tributary-tsdb.json";

pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("wal")
}

pub(crate) fn blocks_dir(dir: &Path) -> PathBuf {
    dir.join("blocks")
}

pub(crate) fn quarantine_dir(dir: &Path) -> PathBuf {
    dir.join("quarantine")
}

/// A folder that is ours, and nobody else's as long as this lives.
pub(crate) struct Claim {
    pub shards: usize,
    _lock: Arc<dyn File>,
}

/// Recognises or makes the data folder and locks it. `shards` counts for a new folder only.
pub(crate) fn claim(world: &World, dir: &Path, shards: usize) -> Result<Claim, Error> {
    let disk = &*world.disk;
    disk.create_dir_all(dir).map_err(|e| error::io("create data folder", dir, e))?;
    let path = dir.join(FILE);
    let ours = disk.exists(&path);
    if !ours {
        refuse_foreign(world, dir)?;
    }
    let lock = lock(world, dir)?;
    if !ours {
        if let Some(found) = takeover::find(world, dir, is_harmless) {
            takeover::take(world, dir, &found)?;
        }
        let content = json!({ "version": VERSION, "shards": shards }).to_string();
        disk.write_atomic(&path, content.as_bytes()).map_err(|e| error::io("write", &path, e))?;
        return Ok(Claim { shards, _lock: lock });
    }
    Ok(Claim { shards: read_layout(world, dir)?, _lock: lock })
}

/// Whether `dir` may be used as a data folder: new, or ours in a version that this build knows. Changes nothing;
/// for those who put more into it than the engine does, before they do.
pub fn recognise(world: &World, dir: &Path) -> Result<(), Error> {
    if !world.disk.exists(dir) {
        return Ok(());
    }
    if world.disk.exists(&dir.join(FILE)) {
        return read_layout(world, dir).map(|_| ());
    }
    refuse_foreign(world, dir)
}

/// Checks the version and returns the number of shards.
fn read_layout(world: &World, dir: &Path) -> Result<usize, Error> {
    let path = dir.join(FILE);
    let content = world.disk.read(&path).map_err(|e| error::io("read", &path, e))?;
    let corrupt = || {
        let text = format!("{} is damaged; restore it or move the data folder away", path.display());
        Error::new(Kind::Corrupt, text)
    };
    let value: Value = serde_json::from_slice(&content).map_err(|_| corrupt())?;
    let version = value.get("version").and_then(Value::as_u64).ok_or_else(corrupt)?;
    if version > VERSION {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "data folder {} has layout version {version}, this build knows up to {VERSION}; start the newer \
                 version again, or use another folder",
                dir.display()
            ),
        ));
    }
    let shards = value.get("shards").and_then(Value::as_u64).ok_or_else(corrupt)?;
    if !shards.is_power_of_two() || shards > 1024 {
        return Err(corrupt());
    }
    Ok(shards as usize)
}

/// Refuses what another program's samples live in, but for blocks of a Thanos Receive that is done with them.
fn refuse_foreign(world: &World, dir: &Path) -> Result<(), Error> {
    let disk = &*world.disk;
    if let Some(found) = takeover::find(world, dir, is_harmless) {
        return takeover::check(&found, dir);
    }
    let names = disk.list(dir).map_err(|e| error::io("list", dir, e))?;
    let is_segment = |name: &String| name.len() == 8 && name.bytes().all(|b| b.is_ascii_digit());
    let is_wal = |wal: &Path| -> bool {
        disk.is_dir(wal)
            && disk.list(wal).is_ok_and(|names| {
                names.iter().any(|name| is_segment(name) || name.starts_with("checkpoint."))
            })
    };
    let has = |name: &str| names.iter().any(|n| n == name);
    let is_block = |name: &String| {
        block::BlockId::parse(name).is_some() && disk.exists(&dir.join(name).join(block::meta::FILE))
    };
    let owner = if has("thanos.shipper.json") {
        Some("Thanos")
    } else if is_wal(&dir.join("wal")) || has("chunks_head") || names.iter().any(is_block) {
        Some("Prometheus")
    } else if names.iter().any(|tenant| is_wal(&dir.join(tenant).join("wal"))) {
        Some("Thanos Receive")
    } else {
        None
    };
    match owner {
        None => refuse_unknown(&names, dir),
        Some(owner) => Err(Error::new(
            Kind::Refused,
            format!(
                "data folder {} was written by {owner}; nothing in it was touched. Use another folder: its blocks \
                 can be shipped to the bucket by the program that wrote them, and are then served from there",
                dir.display()
            ),
        )),
    }
}

/// What may lie in a folder that is not ours yet: what a file system and a mount put there, what a start that was
/// broken off leaves, and what the bucket of `standalone`, a store beside us and hints for peers keep there.
fn is_harmless(name: &str) -> bool {
    const HARMLESS: [&str; 10] = [
        "lost+found",
        "lock",
        "incarnation",
        "quarantine",
        "catalog",
        "bucket",
        "store",
        "meta-syncer",
        "hints",
        "queries.active",
    ];
    // A store keeps the headers of blocks by their names.
    let is_header = || block::BlockId::parse(name).is_some();
    HARMLESS.contains(&name) || name.starts_with('.') || name.starts_with(FILE) || is_header()
}

fn refuse_unknown(names: &[String], dir: &Path) -> Result<(), Error> {
    let Some(first) = names.iter().filter(|name| !is_harmless(name)).min() else { return Ok(()) };
    Err(Error::new(
        Kind::Refused,
        format!(
            "data folder {} is not empty and not ours (it holds {first:?}, and no {FILE}); nothing in it was \
             touched. Use another folder, or an empty one",
            dir.display()
        ),
    ))
}

/// Takes the folder's lock; a disk of tests has no other processes to guard against.
#[allow(clippy::disallowed_types)]
fn lock(world: &World, dir: &Path) -> Result<Arc<dyn File>, Error> {
    let disk = &*world.disk;
    let path = dir.join("lock");
    let file = match disk.exists(&path) {
        true => disk.open(&path),
        false => disk.create(&path),
    }
    .map_err(|e| error::io("open lock file", &path, e))?;
    if let Some(real) = file.as_std() {
        match real.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("data folder {} is in use by another process; stop it first", dir.display()),
                ));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error::io("lock", &path, error)),
        }
    }
    Ok(file)
}
