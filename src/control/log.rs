//! The shared log and the vote, kept in the catalog.
//!
//! Every call is done when it returns: the log is small and slow, a confirmed write costs two fdatasyncs.

// openraft's errors are as large as they are.
#![allow(clippy::result_large_err)]

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use catalog::Catalog;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Entry, LogId, StorageError, Types, Vote};

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// The log of a voter. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    catalog: Catalog,
}

/// Runs what waits for the disk where it holds nobody up.
pub(crate) async fn blocking<R: Send + 'static>(
    catalog: &Catalog,
    work: impl FnOnce(&Catalog) -> Result<R, catalog::Error> + Send + 'static,
) -> Result<R, AnyError> {
    let catalog = catalog.clone();
    let done = tokio::task::spawn_blocking(move || work(&catalog)).await;
    done.map_err(|e| AnyError::new(&e))?.map_err(|e| AnyError::new(&e))
}

pub(crate) fn encode(what: &impl Serialize) -> Result<Vec<u8>, AnyError> {
    serde_json::to_vec(what).map_err(|e| AnyError::new(&e))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnyError> {
    serde_json::from_slice(bytes).map_err(|e| AnyError::new(&e))
}

impl Log {
    pub fn new(catalog: Catalog) -> Log {
        Log { catalog }
    }

    async fn remembered<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, AnyError> {
        let bytes = blocking(&self.catalog, move |c| c.raft_get(name)).await?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => Some(at + 1),
            Bound::Excluded(at) => Some(*at),
            Bound::Unbounded => None,
        };
        let found = blocking(&self.catalog, move |c| c.raft_entries(start, end)).await;
        let found = found.map_err(StorageIOError::read_logs)?;
        let entry = |(at, bytes): (u64, Vec<u8>)| {
            decode::<Entry>(&bytes).map_err(|e| StorageIOError::read_log_at_index(at, e).into())
        };
        found.into_iter().map(entry).collect()
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let purged: Option<LogId> = self.remembered(PURGED).await.map_err(StorageIOError::read_logs)?;
        let last = blocking(&self.catalog, |c| c.raft_last()).await.map_err(StorageIOError::read_logs)?;
        let last = match last {
            Some((at, bytes)) => {
                Some(decode::<Entry>(&bytes).map_err(|e| StorageIOError::read_log_at_index(at, e))?.log_id)
            }
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = encode(vote).map_err(StorageIOError::write_vote)?;
        let put = blocking(&self.catalog, move |c| c.raft_put(VOTE, &bytes)).await;
        Ok(put.map_err(StorageIOError::write_vote)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.remembered(VOTE).await.map_err(StorageIOError::read_vote)?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let bytes = encode(&committed).map_err(StorageIOError::write_logs)?;
        // A hint for the next start, so that it knows its last ring before it has met anybody. The log has it all.
        if let Err(error) = blocking(&self.catalog, move |c| c.raft_put_soon(COMMITTED, &bytes)).await {
            tracing::debug!(%error, "how far the shared log is committed was not noted");
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed: Option<Option<LogId>> =
            self.remembered(COMMITTED).await.map_err(StorageIOError::read_logs)?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            let bytes = encode(&entry).map_err(|e| StorageIOError::write_log_entry(entry.log_id, e))?;
            encoded.push((entry.log_id.index, bytes));
        }
        blocking(&self.catalog, move |c| c.raft_append(encoded)).await.map_err(StorageIOError::write_logs)?;
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let done = blocking(&self.catalog, move |c| c.raft_truncate(log_id.index)).await;
        Ok(done.map_err(StorageIOError::write_logs)?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let bytes = encode(&log_id).map_err(StorageIOError::write_logs)?;
        let done = blocking(&self.catalog, move |c| c.raft_purge(log_id.index, PURGED, &bytes)).await;
        Ok(done.map_err(StorageIOError::write_logs)?)
    }
}
