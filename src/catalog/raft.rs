//! The log that voters share, and what each has to remember of it: bytes by number and by name, confirmed when a call
//! returns.
//!
//! Unlike the rest of the catalog this cannot be had again: a voter that loses it comes back as another voter.

use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::database::{Confirm, Inner};
use crate::family::{RAFT_LOG, RAFT_STATE};
use crate::{Catalog, Error, keys};

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().map(u64::from_be_bytes).ok()
}

impl Catalog {
    /// Adds entries to the log; one that is there under the same number is replaced.
    pub fn raft_append(&self, entries: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, _| {
            let family = Inner::family(db, RAFT_LOG)?;
            for (number, bytes) in entries {
                batch.put_cf(family, number.to_be_bytes(), bytes);
            }
            Ok(())
        })
    }

    /// Entries from `start` to before `end`, in order, as far as they are there.
    pub fn raft_entries(&self, start: u64, end: Option<u64>) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut out = Vec::new();
        let (start, end) = (start.to_be_bytes(), end.map(u64::to_be_bytes));
        self.inner.scan(RAFT_LOG, (&start, end.as_ref().map(|e| e.as_slice())), |key, value| {
            let number = number(key).ok_or_else(|| keys::strange(&self.inner.dir, RAFT_LOG, key))?;
            out.push((number, value.to_vec()));
            Ok(true)
        })?;
        Ok(out)
    }

    /// The last entry.
    pub fn raft_last(&self) -> Result<Option<(u64, Vec<u8>)>, Error> {
        self.inner.read("read", |db| {
            let from = IteratorMode::From(&[0xff; 9], Direction::Reverse);
            let Some(entry) = db.iterator_cf(Inner::family(db, RAFT_LOG)?, from).next() else {
                return Ok(None);
            };
            let (key, value) = entry?;
            let number = number(&key).ok_or_else(|| keys::strange(&self.inner.dir, RAFT_LOG, &key))?;
            Ok(Some((number, value.into_vec())))
        })
    }

    /// Removes the entries from `start` on.
    pub fn raft_truncate(&self, start: u64) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, _| {
            let family = Inner::family(db, RAFT_LOG)?;
            batch.delete_range_cf(family, start.to_be_bytes(), u64::MAX.to_be_bytes());
            Ok(())
        })
    }

    /// Removes the entries up to `end`, and remembers something with it.
    pub fn raft_purge(&self, end: u64, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, _| {
            let family = Inner::family(db, RAFT_LOG)?;
            batch.delete_range_cf(family, 0u64.to_be_bytes(), end.saturating_add(1).to_be_bytes());
            batch.put_cf(Inner::family(db, RAFT_STATE)?, name, bytes);
            Ok(())
        })
    }

    /// What is remembered under a name.
    pub fn raft_get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.inner.read("read", |db| Ok(db.get_cf(Inner::family(db, RAFT_STATE)?, name)?))
    }

    /// Remembers something under a name.
    pub fn raft_put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put(Confirm::Yes, name, bytes)
    }

    /// As [`Catalog::raft_put`], for what may be forgotten by a crash: it is on disk soon.
    pub fn raft_put_soon(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put(Confirm::No, name, bytes)
    }

    fn put(&self, confirm: Confirm, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write(confirm, |db, batch: &mut WriteBatch, _| {
            batch.put_cf(Inner::family(db, RAFT_STATE)?, name, bytes);
            Ok(())
        })
    }
}
