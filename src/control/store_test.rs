//! openraft's own tests of a store, against the log and the state in a catalog.

use openraft::testing::{StoreBuilder, Suite};
use tokio::sync::watch;

use crate::log::Log;
use crate::machine::Machine;
use crate::message::Seen;
use crate::types::{StorageError, Types};

struct InCatalog;

impl StoreBuilder<Types, Log, Machine, tempfile::TempDir> for InCatalog {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog::Catalog::open(&runtime::World::real(), &dir.path().join("catalog")).unwrap();
        let (told, _) = watch::channel(Seen::default());
        let machine = Machine::open(catalog.clone(), told).unwrap();
        Ok((dir, Log::new(catalog), machine))
    }
}

#[test]
fn the_store_keeps_to_the_contract() {
    Suite::test_all(InCatalog).unwrap();
}
