//! What a catalog folder holds, read beside a running node or without one.

use std::collections::BTreeMap;
use std::path::Path;

use model::Kind;
use rocksdb::{DB, IteratorMode, ReadOptions};
use runtime::World;

use crate::database::{Inner, database_dir};
use crate::error;
use crate::family::{self, Memory};
use crate::hints::HintIndex;
use crate::mark::Mark;
use crate::{Error, format, hints, keys};

/// A folder's content in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Version of the layout.
    pub version: u64,
    /// Writes so far.
    pub sequence: u64,
    /// How many of them were confirmed; never more than there are.
    pub confirmed: u64,
    pub families: Vec<Family>,
    /// Hints that wait, by peer; as of the last time that the node noted it.
    pub hints: BTreeMap<String, HintIndex>,
}

/// A column family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    /// Entries, counted one by one, which checks them too.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Files of RocksDB, and their bytes on disk.
    pub files: u64,
    pub file_bytes: u64,
    /// Distinct first parts of keys: tenants.
    pub tenants: u64,
}

/// Reads all of a catalog without changing it. A node that runs may write meanwhile: what it has not yet written
/// to files or log is missing.
pub fn inspect(world: &World, dir: &Path) -> Result<Inspection, Error> {
    let path = database_dir(dir);
    if !world.disk.exists(&path) {
        let message =
            format!("{} holds no catalog; name a data folder, or the folder catalog in it", dir.display());
        return Err(Error::new(Kind::Invalid, message));
    }
    let version = format::read(world, dir)?;
    if version > format::VERSION {
        let message = format!(
            "catalog {} has layout version {version}, this build reads up to {}; use the newer version's tools",
            dir.display(),
            format::VERSION
        );
        return Err(Error::new(Kind::Refused, message));
    }
    let mark = Mark::open(world, dir, true)?;
    let memory = Memory::new();
    let options = family::database(&memory, false);
    let rocks = |e| error::rocks("open the database for reading", dir, e);
    let db = DB::open_cf_descriptors_read_only(&options, &path, family::descriptors(&memory), false)
        .map_err(rocks)?;
    let files = db.live_files().map_err(rocks)?;
    let mut families = Vec::with_capacity(family::ALL.len());
    for name in family::ALL {
        let of = files.iter().filter(|file| file.column_family_name == name);
        let mut family = Family {
            name,
            entries: 0,
            bytes: 0,
            files: of.clone().count() as u64,
            file_bytes: of.map(|file| file.size as u64).sum(),
            tenants: 0,
        };
        count(&db, &mut family).map_err(|fault| fault.told("read", dir))?;
        families.push(family);
    }
    let mut waiting = BTreeMap::new();
    let handle = Inner::family(&db, family::HINTS).map_err(|fault| fault.told("read", dir))?;
    for entry in db.iterator_cf(handle, IteratorMode::Start) {
        let (key, value) = entry.map_err(rocks)?;
        if !hints::take(&key, &value, &mut waiting) {
            return Err(keys::strange(dir, family::HINTS, &key));
        }
    }
    let sequence = db.latest_sequence_number();
    Ok(Inspection { version, sequence, confirmed: mark.sequence, families, hints: waiting })
}

fn count(db: &DB, family: &mut Family) -> Result<(), crate::error::Fault> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let mut last: Option<Vec<u8>> = None;
    for entry in db.iterator_cf_opt(Inner::family(db, family.name)?, options, IteratorMode::Start) {
        let (key, value) = entry?;
        family.entries += 1;
        family.bytes += (key.len() + value.len()) as u64;
        let tenant = key.split(|b| *b == 0).next().unwrap_or_default();
        if last.as_deref() != Some(tenant) {
            family.tenants += 1;
            last = Some(tenant.to_vec());
        }
    }
    Ok(())
}
