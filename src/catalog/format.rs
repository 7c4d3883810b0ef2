//! Which version of the layout a catalog folder has, and whether this build may open it.

use std::path::{Path, PathBuf};

use model::Kind;
use runtime::World;
use serde_json::{Value, json};

use crate::Error;
use crate::error;

/// The layout written by this build; `FORMAT.md` describes it.
pub(crate) const VERSION: u64 = 1;
const FILE: &str = "tributary-catalog.json";

/// Brings a folder of version `n` (its index here, from 1) to `n + 1`, before the database is opened.
type Step = fn(&World, &Path) -> Result<(), Error>;
const STEPS: [Step; (VERSION - 1) as usize] = [];

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Makes a new folder ours, or sees that it is, bringing an older layout up to date.
pub(crate) fn claim(world: &World, dir: &Path) -> Result<(), Error> {
    let disk = &*world.disk;
    disk.create_dir_all(dir).map_err(|e| error::io("create", dir, e))?;
    if !disk.exists(&path(dir)) {
        let names = disk.list(dir).map_err(|e| error::io("list", dir, e))?;
        // A first start that was broken off leaves the unfinished file.
        if let Some(name) = names.iter().find(|name| !name.starts_with(FILE)) {
            return Err(error::damaged(dir, format!("{FILE} is missing beside {name:?}")));
        }
        return write(world, dir, VERSION);
    }
    migrate(world, dir, read(world, dir)?, &STEPS)
}

/// The version of the folder.
pub(crate) fn read(world: &World, dir: &Path) -> Result<u64, Error> {
    let content = world.disk.read(&path(dir)).map_err(|e| error::io("read", &path(dir), e))?;
    let value: Option<Value> = serde_json::from_slice(&content).ok();
    let version = value.as_ref().and_then(|v| v.get("version")).and_then(Value::as_u64);
    version.filter(|v| *v > 0).ok_or_else(|| error::damaged(dir, format!("{FILE} is unreadable")))
}

fn migrate(world: &World, dir: &Path, from: u64, steps: &[Step]) -> Result<(), Error> {
    let newest = steps.len() as u64 + 1;
    if from > newest {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "catalog {} has layout version {from}, this build knows up to {newest}; start the newer version \
                 again, or move the folder away: which blocks are uploaded is then asked of the bucket, and metric \
                 metadata comes again with the next writes",
                dir.display()
            ),
        ));
    }
    for (at, step) in steps.iter().enumerate().skip(from as usize - 1) {
        let to = at as u64 + 2;
        tracing::info!(dir = %dir.display(), from = to - 1, to, "catalog is brought to a newer layout");
        step(world, dir)?;
        // Each step is noted when it is done: one that is broken off is done again.
        write(world, dir, to)?;
    }
    Ok(())
}

fn write(world: &World, dir: &Path, version: u64) -> Result<(), Error> {
    let content = json!({ "version": version }).to_string();
    world.disk.write_atomic(&path(dir), content.as_bytes()).map_err(|e| error::io("write", &path(dir), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_is_migrated_step_by_step_and_newer_refused() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        claim(&world, dir.path()).unwrap();
        assert_eq!(read(&world, dir.path()).unwrap(), VERSION);
        let note = |world: &World, dir: &Path, name: &str| {
            world.disk.write_atomic(&dir.join(name), b"").map_err(|e| error::io("write", dir, e))
        };
        let steps: [Step; 2] = [
            |world, dir| world.disk.write_atomic(&dir.join("one"), b"").map_err(|e| error::io("", dir, e)),
            |world, dir| {
                assert_eq!(read(world, dir).unwrap(), 2);
                world.disk.write_atomic(&dir.join("two"), b"").map_err(|e| error::io("", dir, e))
            },
        ];
        migrate(&world, dir.path(), 1, &steps).unwrap();
        assert_eq!(read(&world, dir.path()).unwrap(), 3);
        assert!(world.disk.exists(&dir.path().join("one")) && world.disk.exists(&dir.path().join("two")));
        note(&world, dir.path(), "one").unwrap();
        migrate(&world, dir.path(), 3, &steps).unwrap();
        let refused = claim(&world, dir.path()).unwrap_err();
        assert_eq!(refused.kind, Kind::Refused);
        assert!(refused.message.contains("version 3") && refused.message.contains("start the newer"));
    }

    #[test]
    fn a_folder_without_its_file_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        world.disk.write_atomic(&dir.path().join("CURRENT"), b"x").unwrap();
        let error = claim(&world, dir.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains("move this folder away"), "{error}");
        for content in ["", "{", "{\"version\": \"1\"}", "{\"version\": 0}"] {
            world.disk.write_atomic(&path(dir.path()), content.as_bytes()).unwrap();
            assert_eq!(claim(&world, dir.path()).unwrap_err().kind, Kind::Corrupt, "{content}");
        }
    }
}
