//! Which blocks of one folder are in the bucket, remembered across restarts.
//!
//! It has two homes. Of a node's own blocks: the catalog. Of a folder that is Thanos's or Prometheus's: Thanos's
//! `thanos.shipper.json`, so that either program can take over the other's folder. It saves requests and says which blocks
//! were uploaded; the bucket stays the truth. Both name the bucket, the file in a key that Thanos passes over: what lies
//! in one bucket is not in another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use block::BlockId;
use catalog::{Catalog, LedgerEntry, LedgerState};
use model::Kind;
use runtime::World;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Name of the file in a folder.
pub const FILE: &str = "thanos.shipper.json";

/// The blocks known to be uploaded from one folder. Its calls block on the disk.
pub struct Ledger {
    world: World,
    home: Home,
    uploaded: BTreeSet<BlockId>,
    /// [`crate::Bucket::identity`]; none where Thanos wrote the file.
    bucket: Option<String>,
}

enum Home {
    File(PathBuf),
    /// The catalog, and whose blocks they are there.
    Catalog(Catalog, String),
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(default)]
    uploaded: Option<Vec<BlockId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
}

impl Ledger {
    /// Reads the folder's file; one that is missing or unreadable counts as empty, since everything in it can
    /// be asked of the bucket again.
    pub fn open(world: &World, folder: &Path) -> Result<Ledger, Error> {
        let path = folder.join(FILE);
        let mut ledger = Ledger {
            world: world.clone(),
            home: Home::File(path.clone()),
            uploaded: BTreeSet::new(),
            bucket: None,
        };
        if !world.disk.exists(&path) {
            return Ok(ledger);
        }
        let bytes = world.disk.read(&path).map_err(|e| failed("read", &path, e))?;
        match serde_json::from_slice::<Content>(&bytes) {
            Ok(Content { version: 1, uploaded, bucket }) => {
                ledger.uploaded.extend(uploaded.unwrap_or_default());
                ledger.bucket = bucket;
            }
            Ok(Content { version, .. }) => {
                let message = format!(
                    "{} has version {version}, only 1 is known; remove it to start a new one",
                    path.display()
                );
                return Err(Error::new(Kind::Refused, message));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "upload ledger is unreadable and starts empty");
            }
        }
        Ok(ledger)
    }

    /// The ledger of a tenant's blocks in the bucket of this identity, kept in the catalog. A file of before, in
    /// `folder`, is taken over and removed.
    pub fn in_catalog(
        catalog: &Catalog,
        world: &World,
        tenant: &str,
        folder: &Path,
        identity: &str,
    ) -> Result<Ledger, Error> {
        let mut ledger = Ledger {
            world: world.clone(),
            home: Home::Catalog(catalog.clone(), tenant.to_owned()),
            uploaded: BTreeSet::new(),
            bucket: Some(identity.to_owned()),
        };
        for (block, entry) in catalog.ledger(tenant).map_err(of_catalog)? {
            if entry.bucket == identity {
                ledger.uploaded.extend(BlockId::parse(&block));
            }
        }
        let path = folder.join(FILE);
        if world.disk.exists(&path) {
            let before = Ledger::open(world, folder)?.of_bucket(identity);
            tracing::info!(path = %path.display(), blocks = before.uploaded.len(), "upload ledger moves into the catalog");
            let new: Vec<BlockId> = before.uploaded.difference(&ledger.uploaded).copied().collect();
            ledger.put(&new, LedgerState::Uploaded, 0)?;
            ledger.uploaded.extend(new);
            world.disk.remove_file(&path).map_err(|e| failed("remove", &path, e))?;
        }
        Ok(ledger)
    }

    /// The same for the bucket of this identity: a ledger of another bucket says nothing of it.
    pub fn of_bucket(mut self, identity: &str) -> Ledger {
        if let Some(before) = self.bucket.as_deref().filter(|before| *before != identity) {
            tracing::warn!(
                before,
                now = identity,
                blocks = self.uploaded.len(),
                "upload ledger is of another bucket: this one is asked for every block"
            );
            self.uploaded.clear();
        }
        self.bucket = Some(identity.to_owned());
        self
    }

    pub fn contains(&self, id: BlockId) -> bool {
        self.uploaded.contains(&id)
    }

    pub fn uploaded(&self) -> &BTreeSet<BlockId> {
        &self.uploaded
    }

    /// Notes an uploaded block, of which `bytes` were sent, and makes that safe.
    pub fn record(&mut self, id: BlockId, bytes: u64) -> Result<(), Error> {
        if !self.uploaded.insert(id) {
            return Ok(());
        }
        match &self.home {
            Home::File(path) => self.write(path),
            Home::Catalog(..) => self.put(&[id], LedgerState::Uploaded, bytes),
        }
    }

    /// Notes blocks that were given up in the bucket on purpose: they are not uploaded again.
    pub fn retire(&mut self, ids: &[BlockId]) -> Result<(), Error> {
        self.uploaded.extend(ids);
        match &self.home {
            Home::File(path) => self.write(path),
            Home::Catalog(..) => self.put(ids, LedgerState::Retired, 0),
        }
    }

    /// Takes blocks out that are not in the bucket any more: they are uploaded again.
    pub fn forget(&mut self, ids: &[BlockId]) -> Result<(), Error> {
        let before = self.uploaded.len();
        self.uploaded.retain(|id| !ids.contains(id));
        if self.uploaded.len() == before {
            return Ok(());
        }
        match &self.home {
            Home::File(path) => self.write(path),
            Home::Catalog(catalog, tenant) => remove(catalog, tenant, ids),
        }
    }

    /// Forgets blocks that are no longer in the folder; writes only where that changes something.
    pub fn keep_only(&mut self, present: &BTreeSet<BlockId>) -> Result<(), Error> {
        let gone: Vec<BlockId> = self.uploaded.difference(present).copied().collect();
        self.forget(&gone)
    }

    fn put(&self, ids: &[BlockId], state: LedgerState, size: u64) -> Result<(), Error> {
        let Home::Catalog(catalog, tenant) = &self.home else { return Ok(()) };
        let (bucket, time) = (self.bucket.clone().unwrap_or_default(), self.world.clock.now_ms());
        let entry = LedgerEntry { state, bucket, size, time };
        let entries: BTreeMap<String, &LedgerEntry> = ids.iter().map(|id| (id.to_string(), &entry)).collect();
        catalog
            .ledger_put(tenant, entries.iter().map(|(id, entry)| (id.as_str(), *entry)))
            .map_err(of_catalog)
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        let content = Content {
            version: 1,
            uploaded: Some(self.uploaded.iter().copied().collect()),
            bucket: self.bucket.clone(),
        };
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        content
            .serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))
            .map_err(|e| Error::new(Kind::Internal, format!("upload ledger cannot be written: {e}")))?;
        self.world.disk.write_atomic(path, &text).map_err(|e| failed("write", path, e))
    }
}

fn remove(catalog: &Catalog, tenant: &str, ids: &[BlockId]) -> Result<(), Error> {
    let ids: Vec<String> = ids.iter().map(BlockId::to_string).collect();
    catalog.ledger_remove(tenant, ids.iter().map(String::as_str)).map_err(of_catalog)
}

fn of_catalog(error: catalog::Error) -> Error {
    Error::with_source(error.kind, error.message.clone(), error)
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Exhausted,
        _ => Kind::Unavailable,
    };
    Error::with_source(kind, format!("cannot {doing} {}: {error}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_another_bucket_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let (one, two) = (BlockId::from_parts(1, 0), BlockId::from_parts(2, 0));
        let open = |bucket: &str| Ledger::open(&world, dir.path()).unwrap().of_bucket(bucket);
        // As Thanos wrote it: of an unknown bucket, and believed.
        Ledger::open(&world, dir.path()).unwrap().record(one, 0).unwrap();
        let mut ledger = open("a");
        assert!(ledger.contains(one));
        ledger.record(two, 0).unwrap();
        assert!(open("a").contains(one) && open("a").contains(two));
        assert!(open("b").uploaded().is_empty());
        let mut ledger = open("b");
        ledger.record(two, 0).unwrap();
        assert!(!open("b").contains(one) && open("b").contains(two) && open("a").uploaded().is_empty());
    }

    #[test]
    fn it_is_thanos_file_and_survives_damage() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let id = |n| BlockId::from_parts(n, 0);
        let mut ledger = Ledger::open(&world, dir.path()).unwrap();
        ledger.record(id(2), 0).unwrap();
        ledger.record(id(1), 0).unwrap();
        let text = String::from_utf8(world.disk.read(&dir.path().join(FILE)).unwrap()).unwrap();
        let want = format!(
            "{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{}\",\n\t\t\"{}\"\n\t]\n}}",
            id(1),
            id(2)
        );
        assert_eq!(text, want);
        let mut again = Ledger::open(&world, dir.path()).unwrap();
        assert!(again.contains(id(1)) && again.contains(id(2)));
        again.keep_only(&BTreeSet::from([id(2)])).unwrap();
        assert!(!Ledger::open(&world, dir.path()).unwrap().contains(id(1)));
        let put = |text: &[u8]| world.disk.write_atomic(&dir.path().join(FILE), text).unwrap();
        put(b"{\"version\": 1, \"uploa");
        assert!(Ledger::open(&world, dir.path()).unwrap().uploaded().is_empty());
        put(b"{\"version\": 1, \"uploaded\": null}");
        assert!(Ledger::open(&world, dir.path()).unwrap().uploaded().is_empty());
        put(b"{\"version\": 2, \"uploaded\": []}");
        assert_eq!(Ledger::open(&world, dir.path()).err().unwrap().kind, Kind::Refused);
    }

    #[test]
    fn a_file_moves_into_the_catalog_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        let world = World::real();
        world.disk.create_dir_all(&folder).unwrap();
        let id = |n| BlockId::from_parts(n, 0);
        let mut file = Ledger::open(&world, &folder).unwrap().of_bucket("a");
        file.record(id(1), 0).unwrap();
        file.record(id(2), 0).unwrap();
        let open =
            |catalog: &Catalog, bucket| Ledger::in_catalog(catalog, &world, "t", &folder, bucket).unwrap();
        {
            let catalog = Catalog::open(&world, &dir.path().join("catalog")).unwrap();
            let mut ledger = open(&catalog, "a");
            assert!(ledger.contains(id(1)) && ledger.contains(id(2)));
            assert!(!world.disk.exists(&folder.join(FILE)));
            ledger.record(id(3), 77).unwrap();
            ledger.retire(&[id(4)]).unwrap();
        }
        let catalog = Catalog::open(&world, &dir.path().join("catalog")).unwrap();
        let mut ledger = open(&catalog, "a");
        assert_eq!(ledger.uploaded().len(), 4);
        let kept = catalog.ledger("t").unwrap();
        assert_eq!(kept[&id(3).to_string()].size, 77);
        assert_eq!(kept[&id(4).to_string()].state, LedgerState::Retired);
        ledger.forget(&[id(2)]).unwrap();
        ledger.keep_only(&BTreeSet::from([id(1), id(3)])).unwrap();
        assert_eq!(*open(&catalog, "a").uploaded(), BTreeSet::from([id(1), id(3)]));
        assert!(open(&catalog, "b").uploaded().is_empty());
        assert!(Ledger::in_catalog(&catalog, &world, "u", &folder, "a").unwrap().uploaded().is_empty());
        // A file of another bucket says nothing of this one.
        Ledger::open(&world, &folder).unwrap().of_bucket("b").record(id(9), 0).unwrap();
        assert!(!open(&catalog, "a").contains(id(9)));
    }
}
