//! Which blocks of one folder are in the bucket, remembered across restarts.
//!
//! The file is Thanos's `thanos.shipper.json`, so that either program can take over the other's folder. It
//! saves requests and decides which blocks may be deleted here; the bucket stays the truth. It also names the
//! bucket, in a key that Thanos passes over: what lies in one bucket is not in another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use block::BlockId;
use model::Kind;
use runtime::World;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Name of the file in a tenant's folder.
pub const FILE: &str = "thanos.shipper.json";

/// The blocks known to be uploaded from one folder. Its calls block on the disk.
pub struct Ledger {
    path: PathBuf,
    world: World,
    uploaded: BTreeSet<BlockId>,
    /// [`crate::Bucket::identity`]; none where Thanos wrote the file.
    bucket: Option<String>,
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
    /// Reads the folder's ledger; one that is missing or unreadable counts as empty, since everything in it can
    /// be asked of the bucket again.
    pub fn open(world: &World, folder: &Path) -> Result<Ledger, Error> {
        let path = folder.join(FILE);
        let mut ledger = Ledger { path, world: world.clone(), uploaded: BTreeSet::new(), bucket: None };
        if !world.disk.exists(&ledger.path) {
            return Ok(ledger);
        }
        let bytes = world.disk.read(&ledger.path).map_err(|e| ledger.failed("read", e))?;
        match serde_json::from_slice::<Content>(&bytes) {
            Ok(Content { version: 1, uploaded, bucket }) => {
                ledger.uploaded.extend(uploaded.unwrap_or_default());
                ledger.bucket = bucket;
            }
            Ok(Content { version, .. }) => {
                let message = format!(
                    "{} has version {version}, only 1 is known; remove it to start a new one",
                    ledger.path.display()
                );
                return Err(Error::new(Kind::Refused, message));
            }
            Err(error) => {
                tracing::warn!(path = %ledger.path.display(), %error, "upload ledger is unreadable and starts empty");
            }
        }
        Ok(ledger)
    }

    /// The same for the bucket of this identity: a ledger of another bucket says nothing of it.
    pub fn of_bucket(mut self, identity: &str) -> Ledger {
        if let Some(before) = self.bucket.as_deref().filter(|before| *before != identity) {
            tracing::warn!(
                path = %self.path.display(), before, now = identity, blocks = self.uploaded.len(),
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

    /// Notes an uploaded block and writes the file.
    pub fn record(&mut self, id: BlockId) -> Result<(), Error> {
        if self.uploaded.insert(id) { self.write() } else { Ok(()) }
    }

    /// Forgets blocks that are no longer in the folder; writes the file only where that changes it.
    pub fn keep_only(&mut self, present: &BTreeSet<BlockId>) -> Result<(), Error> {
        let before = self.uploaded.len();
        self.uploaded.retain(|id| present.contains(id));
        if self.uploaded.len() < before { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<(), Error> {
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
        self.world.disk.write_atomic(&self.path, &text).map_err(|e| self.failed("write", e))
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Exhausted,
            _ => Kind::Unavailable,
        };
        Error::with_source(kind, format!("cannot {doing} {}: {error}", self.path.display()), error)
    }
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
        Ledger::open(&world, dir.path()).unwrap().record(one).unwrap();
        let mut ledger = open("a");
        assert!(ledger.contains(one));
        ledger.record(two).unwrap();
        assert!(open("a").contains(one) && open("a").contains(two));
        assert!(open("b").uploaded().is_empty());
        let mut ledger = open("b");
        ledger.record(two).unwrap();
        assert!(!open("b").contains(one) && open("b").contains(two) && open("a").uploaded().is_empty());
    }

    #[test]
    fn it_is_thanos_file_and_survives_damage() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let id = |n| BlockId::from_parts(n, 0);
        let mut ledger = Ledger::open(&world, dir.path()).unwrap();
        ledger.record(id(2)).unwrap();
        ledger.record(id(1)).unwrap();
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
}
