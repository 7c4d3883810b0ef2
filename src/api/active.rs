//! Which queries were running when the process died: a small file with one slot for each that may run at once.
//!
//! Written without sync: what the kernel has survives the process, which is what dies of a query. The format is
//! that of Prometheus's `queries.active`: a JSON array whose entries have a fixed width.

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::Timestamp;
use parking_lot::Mutex;
use runtime::{Disk, File};
use serde::{Deserialize, Serialize};

/// Bytes of a slot; longer queries are cut.
const SLOT: usize = 1000;
const NAME: &str = "queries.active";

/// The log. Clones are the same log.
#[derive(Clone)]
pub struct ActiveQueries {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<dyn File>,
    free: Mutex<Vec<usize>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    query: String,
    timestamp_sec: i64,
}

impl ActiveQueries {
    /// Opens the log in the folder `dir` for `slots` queries at once. The queries that a run before did not finish
    /// are logged and returned.
    pub fn open(disk: &dyn Disk, dir: &Path, slots: usize) -> io::Result<(ActiveQueries, Vec<String>)> {
        disk.create_dir_all(dir)?;
        let path = dir.join(NAME);
        let (file, unfinished) = match disk.exists(&path) {
            true => (disk.open(&path)?, read(&disk.read(&path)?)),
            false => (disk.create(&path)?, Vec::new()),
        };
        if !unfinished.is_empty() {
            tracing::warn!(queries = ?unfinished, "these queries were running when the last run ended");
        }
        file.set_len(0)?;
        file.write_all_at(b"[", 0)?;
        let inner = Inner { file, free: Mutex::new((0..slots.max(1)).rev().collect()) };
        let log = ActiveQueries { inner: Arc::new(inner) };
        (0..slots.max(1)).try_for_each(|slot| log.write(slot, b""))?;
        Ok((log, unfinished))
    }

    /// Writes a query down until the entry is dropped. Where there is no slot, or no disk, it is not written.
    pub fn enter(&self, query: &str, now: Timestamp) -> Option<Running> {
        let slot = self.inner.free.lock().pop()?;
        let running = Running { log: self.clone(), slot };
        match self.write(slot, &entry(query, now)) {
            Ok(()) => Some(running),
            Err(error) => {
                tracing::debug!(%error, "a query could not be written to the log of active queries");
                None
            }
        }
    }

    fn write(&self, slot: usize, entry: &[u8]) -> io::Result<()> {
        let mut bytes = [0; SLOT];
        bytes[..entry.len()].copy_from_slice(entry);
        bytes[SLOT - 1] = b',';
        self.inner.file.write_all_at(&bytes, (1 + slot * SLOT) as u64)
    }
}

/// A query that runs; dropping it frees its slot.
pub struct Running {
    log: ActiveQueries,
    slot: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.log.write(self.slot, b"") {
            tracing::debug!(%error, "the log of active queries keeps an entry that has ended");
        }
        self.log.inner.free.lock().push(self.slot);
    }
}

/// An entry that fits a slot: escapes take up to six bytes for one.
fn entry(query: &str, now: Timestamp) -> Vec<u8> {
    let mut query = query;
    loop {
        let entry = Entry { query: query.to_owned(), timestamp_sec: now.div_euclid(1000) };
        let bytes = serde_json::to_vec(&entry).unwrap_or_default();
        if bytes.len() < SLOT {
            return bytes;
        }
        let shorter = query.len().saturating_sub((bytes.len() - SLOT).div_ceil(6).max(1));
        let end = (0..=shorter).rev().find(|at| query.is_char_boundary(*at)).unwrap_or(0);
        query = &query[..end];
    }
}

/// Queries in a file that may be of any content.
fn read(bytes: &[u8]) -> Vec<String> {
    let slots = bytes.get(1..).unwrap_or_default().chunks(SLOT);
    let texts = slots.filter_map(|slot| {
        let text = slot.split(|b| *b == 0).next().unwrap_or_default();
        let text = text.strip_suffix(b",").unwrap_or(text);
        serde_json::from_slice::<Entry>(text).ok()
    });
    texts.map(|entry| entry.query).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runtime::RealDisk;

    use super::*;

    #[test]
    fn what_was_running_is_told_once() {
        let folder = std::env::temp_dir().join(format!("active-{}", std::process::id()));
        let open = || ActiveQueries::open(&RealDisk, &folder, 2).unwrap();
        let (log, before) = open();
        assert!(before.is_empty());
        let first = log.enter("up{job=\"a\"}", 5_000);
        let second = log.enter(&"é".repeat(4000), 5_000).unwrap();
        assert!(log.enter("no room", 0).is_none());
        drop(first);
        let third = log.enter("sum(up)", 6_000).unwrap();
        // The process dies here: nothing is taken out.
        std::mem::forget((second, third, log));
        let (log, before) = open();
        assert_eq!(before.len(), 2);
        assert_eq!(before[0], "sum(up)");
        assert!(before[1].starts_with("ééé") && before[1].len() > 400, "{}", before[1].len());
        drop(log);
        assert!(open().1.is_empty());
        RealDisk.remove_dir_all(&folder).unwrap();
    }

    proptest! {
        #[test]
        fn any_query_fits_and_any_file_reads(query in any::<String>(), junk in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let long = query.repeat(40);
            let bytes = entry(&long, 1);
            prop_assert!(bytes.len() < SLOT);
            let entry: Entry = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(long.starts_with(&entry.query));
            let _ = read(&junk);
        }
    }
}
