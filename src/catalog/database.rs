//! The open database: one way to read, one way to write, and the way back after a disk was full.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Kind;
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch, WriteOptions};
use runtime::World;

use crate::error;
use crate::error::Fault;
use crate::family::{self, Memory};
use crate::mark::Mark;
use crate::metadata::Counts;
use crate::{Error, format, keys};

/// How long a database that failed to write is left alone before it is opened anew.
const REVIVE_AFTER: Duration = Duration::from_secs(5);

/// The catalog of a node. Cheap to clone. Its calls block on the disk.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub world: World,
    pub dir: PathBuf,
    memory: Memory,
    database: RwLock<Database>,
    /// Held by whoever writes: sequence numbers and what is confirmed stay in step.
    writing: Mutex<Writing>,
}

struct Writing {
    mark: Mark,
    counts: Counts,
}

/// Open, or why not since when.
enum Database {
    Open { db: DB, failed: Option<Instant> },
    Closed { why: String, since: Instant },
}

/// Bytes that the catalog holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Blocks, indexes and filters of files.
    pub cache: u64,
    /// What is written and not yet in files.
    pub buffers: u64,
    /// What open files hold beside the cache.
    pub readers: u64,
}

impl MemoryUse {
    pub fn total(&self) -> u64 {
        self.cache + self.buffers + self.readers
    }
}

/// Whether a write is confirmed once it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// On disk, and remembered to be.
    Yes,
    /// Soon; what a crash takes is had again. Fails at once where it would have to wait for a flush.
    No,
}

impl Catalog {
    /// Opens or makes the catalog in `dir`, a folder of its own on a real disk. One process at a time.
    pub fn open(world: &World, dir: &Path) -> Result<Catalog, Error> {
        format::claim(world, dir)?;
        let memory = Memory::new();
        let has_database = world.disk.exists(&database_dir(dir).join("CURRENT"));
        let mark = Mark::open(world, dir, has_database)?;
        let db = open(dir, &memory, &mark, has_database)?;
        let inner = Inner {
            world: world.clone(),
            dir: dir.to_owned(),
            memory,
            database: RwLock::new(Database::Open { db, failed: None }),
            writing: Mutex::new(Writing { mark, counts: Counts::default() }),
        };
        Ok(Catalog { inner: Arc::new(inner) })
    }

    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Makes everything written safe, confirmed or not. The files close when the last clone is dropped.
    pub fn close(&self) -> Result<(), Error> {
        let _one = self.inner.writing.lock();
        match &*self.inner.database.read() {
            Database::Open { db, .. } => {
                db.flush_wal(true).map_err(|e| error::rocks("sync the log", &self.inner.dir, e))
            }
            Database::Closed { .. } => Ok(()),
        }
    }

    /// Bytes held now; at most [`crate::MEMORY_LIMIT`].
    pub fn memory(&self) -> MemoryUse {
        let buffers = self.inner.memory.buffers.get_usage() as u64;
        let readers = self.inner.read("measure", |db| {
            let mut sum = 0;
            for name in family::ALL {
                let cf = Inner::family(db, name)?;
                sum += db.property_int_value_cf(cf, "rocksdb.estimate-table-readers-mem")?.unwrap_or(0);
            }
            Ok(sum)
        });
        // The cache counts the buffers as its own.
        let cache = (self.inner.memory.cache.get_usage() as u64).saturating_sub(buffers);
        MemoryUse { cache, buffers, readers: readers.unwrap_or(0) }
    }

    /// Shows its memory as gauges.
    pub fn measure(&self) {
        let held = self.memory();
        for (part, bytes) in [("cache", held.cache), ("buffers", held.buffers), ("readers", held.readers)] {
            metrics::gauge!("tributary_catalog_memory_bytes", "part" => part).set(bytes as f64);
        }
        metrics::gauge!("tributary_catalog_memory_limit_bytes").set(family::MEMORY_LIMIT as f64);
        let open = matches!(&*self.inner.database.read(), Database::Open { failed: None, .. });
        metrics::gauge!("tributary_catalog_healthy").set(if open { 1.0 } else { 0.0 });
    }
}

pub(crate) fn database_dir(dir: &Path) -> PathBuf {
    dir.join("db")
}

fn open(dir: &Path, memory: &Memory, mark: &Mark, has_database: bool) -> Result<DB, Error> {
    if !has_database && mark.sequence > 0 {
        return Err(error::damaged(dir, "its database is missing"));
    }
    let path = database_dir(dir);
    let rocks = |e| error::rocks("open the database", dir, e);
    let options = family::database(memory, !has_database);
    if has_database {
        let present = DB::list_cf(&options, &path).map_err(rocks)?;
        if let Some(other) =
            present.iter().find(|f| f.as_str() != "default" && !family::ALL.contains(&f.as_str()))
        {
            return Err(error::damaged(dir, format!("family {other:?} is unknown to this build")));
        }
    }
    let db = DB::open_cf_descriptors(&options, &path, family::descriptors(memory)).map_err(rocks)?;
    let last = db.latest_sequence_number();
    if last < mark.sequence {
        return Err(error::damaged(
            dir,
            format!(
                "of {} writes that were confirmed the last {} are missing",
                mark.sequence,
                mark.sequence - last
            ),
        ));
    }
    Ok(db)
}

impl Inner {
    pub fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, Fault> {
        let missing = || Error::new(Kind::Internal, format!("family {name} of the catalog is not open"));
        db.cf_handle(name).ok_or_else(|| Fault::Ours(missing()))
    }

    /// Runs `work` on the open database.
    pub fn read<R>(&self, doing: &str, work: impl FnOnce(&DB) -> Result<R, Fault>) -> Result<R, Error> {
        match &*self.database.read() {
            Database::Open { db, .. } => work(db).map_err(|fault| fault.told(doing, &self.dir)),
            Database::Closed { why, .. } => Err(Error::new(Kind::Unavailable, why.clone())),
        }
    }

    /// Every entry of a family between two keys, in order, until `take` answers false or fails.
    pub fn scan(
        &self,
        name: &str,
        (start, end): (&[u8], Option<&[u8]>),
        mut take: impl FnMut(&[u8], &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.read("read", |db| {
            let mut options = ReadOptions::default();
            // Once over everything is no reason to forget what is asked often.
            options.fill_cache(false);
            if let Some(end) = end {
                options.set_iterate_upper_bound(end);
            }
            let from = IteratorMode::From(start, rocksdb::Direction::Forward);
            for entry in db.iterator_cf_opt(Inner::family(db, name)?, options, from) {
                let (key, value) = entry?;
                if !take(&key, &value)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Every entry of a tenant.
    pub fn scan_tenant(
        &self,
        name: &str,
        tenant: &str,
        mut take: impl FnMut(&str, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (start, end) = keys::range(tenant);
        self.scan(name, (&start, Some(&end)), |key, value| match keys::split(key) {
            Some((_, rest)) => take(rest, value),
            None => Err(keys::strange(&self.dir, name, key)),
        })
    }

    /// Writes what `fill` puts into a batch; nothing where that is nothing. One writer at a time.
    pub fn write<R>(
        &self,
        confirm: Confirm,
        fill: impl FnOnce(&DB, &mut WriteBatch, &mut Counts) -> Result<R, Fault>,
    ) -> Result<R, Error> {
        let mut writing = self.writing.lock();
        self.revive(&writing.mark)?;
        let outcome = match &*self.database.read() {
            Database::Closed { why, .. } => return Err(Error::new(Kind::Unavailable, why.clone())),
            Database::Open { db, .. } => {
                let mut batch = WriteBatch::default();
                let filled = fill(db, &mut batch, &mut writing.counts)
                    .map_err(|fault| fault.told("read", &self.dir))?;
                if batch.is_empty() {
                    return Ok(filled);
                }
                let mut options = WriteOptions::default();
                options.set_sync(confirm == Confirm::Yes);
                options.set_no_slowdown(confirm == Confirm::No);
                db.write_opt(batch, &options).map(|()| (filled, db.latest_sequence_number()))
            }
        };
        match outcome {
            Ok((filled, sequence)) => {
                if confirm == Confirm::Yes {
                    writing.mark.advance(sequence)?;
                }
                Ok(filled)
            }
            Err(error) => {
                // What was counted may not be there.
                writing.counts = Counts::default();
                metrics::counter!("tributary_catalog_write_failures_total").increment(1);
                if error.kind() != rocksdb::ErrorKind::Incomplete {
                    self.note_failure();
                }
                Err(error::rocks("write", &self.dir, error))
            }
        }
    }

    fn note_failure(&self) {
        if let Database::Open { failed, .. } = &mut *self.database.write() {
            failed.get_or_insert(self.world.clock.monotonic());
        }
    }

    /// After a failed write RocksDB takes no more: it is closed and opened anew, now and then, until it writes.
    fn revive(&self, mark: &Mark) -> Result<(), Error> {
        let now = self.world.clock.monotonic();
        let since = match &*self.database.read() {
            Database::Open { failed, .. } => *failed,
            Database::Closed { since, .. } => Some(*since),
        };
        let Some(since) = since else { return Ok(()) };
        if now.saturating_duration_since(since) < REVIVE_AFTER {
            return Ok(());
        }
        let mut database = self.database.write();
        // The old one first: it holds the folder's lock.
        *database = Database::Closed { why: String::new(), since: now };
        match open(&self.dir, &self.memory, mark, true) {
            Ok(db) => {
                tracing::info!(dir = %self.dir.display(), "catalog is open again after a failed write");
                *database = Database::Open { db, failed: None };
                Ok(())
            }
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "catalog stays closed; it is tried again");
                *database = Database::Closed { why: error.message.clone(), since: now };
                Err(error)
            }
        }
    }
}
