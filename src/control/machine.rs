//! The agreed state behind the log: applies entries, keeps a snapshot in the catalog, and tells who watches.

use std::sync::Arc;

use agreed::{Outcome, State};
use catalog::Catalog;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::log::{blocking, decode, encode};
use crate::message::Seen;
use crate::types::{Entry, LogId, Membership, Reply, SnapshotMeta, StorageError, Types};

const SNAPSHOT: &str = "snapshot";

/// What is agreed, and after which entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: Membership,
    state: Arc<State>,
}

/// The state machine of a voter. Clones build snapshots.
#[derive(Clone)]
pub(crate) struct Machine {
    catalog: Catalog,
    applied: Applied,
    told: watch::Sender<Seen>,
}

impl Machine {
    /// From the snapshot in the catalog, if there is one; entries behind it are applied by openraft.
    pub fn open(catalog: Catalog, told: watch::Sender<Seen>) -> Result<Machine, crate::Error> {
        let applied = match catalog.raft_get(SNAPSHOT)? {
            None => Applied::default(),
            Some(bytes) => decode(&bytes).map_err(|e| {
                let message = format!("the snapshot of what was agreed on cannot be read: {e}");
                crate::Error::new(model::Kind::Corrupt, message)
            })?,
        };
        let machine = Machine { catalog, applied, told };
        machine.tell(true);
        Ok(machine)
    }

    /// Who watches is woken only where there is something new: whoever proposes upon it would else never rest.
    fn tell(&self, changed: bool) {
        let revision = self.applied.last.map_or(0, |id| id.index);
        self.told.send_if_modified(|seen| {
            // A voter that takes part again begins at its snapshot.
            if seen.revision > revision {
                return false;
            }
            *seen = Seen { revision, state: Arc::clone(&self.applied.state) };
            changed
        });
    }

    async fn save(&self, bytes: Vec<u8>) -> Result<(), StorageError> {
        let put = blocking(&self.catalog, move |c| c.raft_put(SNAPSHOT, &bytes)).await;
        Ok(put.map_err(|e| StorageIOError::write_snapshot(None, e))?)
    }

    fn meta(applied: &Applied) -> SnapshotMeta {
        // The same state has the same name; another one never does.
        let snapshot_id = match applied.last {
            Some(id) => format!("{}-{}", id.leader_id, id.index),
            None => "empty".to_owned(),
        };
        SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone(), snapshot_id }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let bytes = encode(&self.applied).map_err(|e| StorageIOError::write_snapshot(None, e))?;
        self.save(bytes.clone()).await?;
        Ok(Snapshot { meta: Machine::meta(&self.applied), snapshot: Box::new(bytes) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        let mut changed = false;
        for entry in entries {
            self.applied.last = Some(entry.log_id);
            replies.push(match entry.payload {
                EntryPayload::Blank => Reply::Nothing,
                EntryPayload::Membership(membership) => {
                    self.applied.membership = Membership::new(Some(entry.log_id), membership);
                    Reply::Nothing
                }
                EntryPayload::Normal(command) => {
                    let applied = Arc::make_mut(&mut self.applied.state).apply(command);
                    changed |= applied.as_ref().is_ok_and(|outcome| *outcome != Outcome::Already);
                    applied.into()
                }
            });
        }
        self.tell(changed);
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        bytes: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let applied: Applied =
            decode(&bytes).map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), e))?;
        self.save(*bytes).await?;
        self.applied = applied;
        self.tell(true);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let bytes = blocking(&self.catalog, |c| c.raft_get(SNAPSHOT)).await;
        let Some(bytes) = bytes.map_err(|e| StorageIOError::read_snapshot(None, e))? else { return Ok(None) };
        let applied: Applied = decode(&bytes).map_err(|e| StorageIOError::read_snapshot(None, e))?;
        Ok(Some(Snapshot { meta: Machine::meta(&applied), snapshot: Box::new(bytes) }))
    }
}
