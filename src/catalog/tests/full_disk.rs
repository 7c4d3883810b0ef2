//! The disk is full at one write after another: the catalog says so, forgets nothing that it confirmed, reads on as long as
//! it is open, and writes again by itself once there is room.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use catalog::{Catalog, LedgerEntry, LedgerState};
use model::Kind;
use runtime::{Clock, World};
use testkit::SmallDisk;

/// A clock whose steady time can be moved on.
struct Ahead(Instant, AtomicU64);

impl Clock for Ahead {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Instant {
        self.0 + Duration::from_secs(self.1.load(SeqCst))
    }
}

struct Rig {
    catalog: Catalog,
    clock: Arc<Ahead>,
    confirmed: BTreeSet<String>,
    next: u64,
}

impl Rig {
    fn open(dir: &Path) -> Rig {
        let clock = Arc::new(Ahead(Instant::now(), AtomicU64::new(0)));
        let world = World { clock: clock.clone(), ..World::real() };
        Rig { catalog: Catalog::open(&world, dir).unwrap(), clock, confirmed: BTreeSet::new(), next: 0 }
    }

    /// Writes an entry of about a page.
    fn put(&mut self) -> Result<(), catalog::Error> {
        let entry =
            LedgerEntry { state: LedgerState::Uploaded, bucket: "b".repeat(3000), size: self.next, time: 5 };
        let key = format!("{:06}", self.next);
        self.next += 1;
        self.catalog.ledger_put("t", [(key.as_str(), &entry)])?;
        self.confirmed.insert(key);
        Ok(())
    }

    /// Everything confirmed is there, and of what was refused at most what was tried.
    fn check(&self, context: &str) {
        let found = self.catalog.ledger("t").unwrap_or_else(|error| panic!("{context}: {error}"));
        let lost: Vec<_> = self.confirmed.iter().filter(|key| !found.contains_key(*key)).collect();
        assert!(lost.is_empty(), "{context}: confirmed {lost:?} are lost");
        assert!(found.len() as u64 <= self.next, "{context}");
    }
}

#[test]
fn full_at_one_write_after_another_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 48) else { return };
    let folder = disk.path().join("catalog");
    let mut rig = Rig::open(&folder);
    rig.put().unwrap();
    let mut refused = 0;
    for round in 0..12u64 {
        let ballast = disk.fill(round % 12 * 4096);
        let error = (0..4000).find_map(|_| rig.put().err()).expect("a disk that is full");
        refused += 1;
        let context = format!("round {round}: {error}");
        assert_eq!(error.kind, Kind::Exhausted, "{context}");
        assert!(error.message.contains("disk"), "{context}");
        rig.check(&context);
        // At once nothing changes; after a while it is tried anew, in vain.
        assert!(rig.put().is_err(), "{context}");
        rig.clock.1.fetch_add(6, SeqCst);
        let again = rig.put().err();
        if round % 3 == 0 {
            assert!(again.is_none_or(|e| matches!(e.kind, Kind::Exhausted | Kind::Unavailable)), "{context}");
        }
        if round % 4 == 3 {
            // A process that is killed meanwhile, and starts once there is room.
            let (confirmed, next) = (rig.confirmed.clone(), rig.next);
            drop(rig);
            std::fs::remove_file(&ballast).unwrap();
            rig = Rig { confirmed, next, ..Rig::open(&folder) };
        } else {
            std::fs::remove_file(&ballast).unwrap();
            rig.clock.1.fetch_add(6, SeqCst);
        }
        rig.put().unwrap_or_else(|error| panic!("{context}; with room: {error}"));
        rig.check(&context);
        // Not all of the small disk is to be the catalog's.
        let old: Vec<String> = rig.confirmed.iter().rev().skip(20).cloned().collect();
        if old.len() > 300 {
            rig.catalog.ledger_remove("t", old.iter().map(String::as_str)).unwrap();
            rig.confirmed.retain(|key| !old.contains(key));
        }
    }
    println!("{refused} times full, {} entries confirmed", rig.confirmed.len());
    drop(rig.catalog);
    let (confirmed, next) = (rig.confirmed, rig.next);
    Rig { confirmed, next, ..Rig::open(&folder) }.check("at last");
}
