//! A disk in memory that can stop, fill up and lose at a crash what was not synced.
//!
//! What survives a crash: content up to the last `sync_data` of the file, and names up to the last `sync_dir` of
//! their folder. Of the rest, [`MemDisk::crash`] keeps what its seed decides: each written sector by itself, now and
//! then only a first part of it, and of each folder's changes a first part, with every fourth seed any of them. With
//! seed 0 it keeps nothing of the rest. Syncing a folder also makes its own name and its parents' durable, as the usual
//! file systems do for a folder that is new.
//!
//! A disk that records ([`MemDisk::record`]) can be cut afterwards at every operation of one run: see [`crate::Replay`].

mod content;
mod disk;
mod file;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use runtime::{Chance, Disk, File};

pub use self::content::SECTOR;

use self::content::Content;
use self::file::MemFile;
use self::names::{Change, Node};
use crate::SeededChance;
use crate::replay::Op;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Names as a running process sees them.
    names: BTreeMap<PathBuf, Node>,
    /// Names as they are after a crash that loses all it may.
    durable: BTreeMap<PathBuf, Node>,
    /// Changes of names that no `sync_dir` covers yet, oldest first.
    pending: Vec<Change>,
    contents: HashMap<u64, Content>,
    next_inode: u64,
    used: u64,
    capacity: Option<u64>,
    /// Changing operations that may still happen.
    left: Option<u64>,
    /// An operation has failed because `left` ran out.
    stopped: bool,
    /// Changes so far, once they are recorded.
    journal: Option<Vec<Op>>,
    /// Syncs that still succeed, after which one fails and loses what it should have kept.
    syncs_left: Option<u64>,
    ops: u64,
    writes: u64,
    syncs: u64,
}

impl MemDisk {
    /// An empty disk with only a root folder.
    pub fn new() -> MemDisk {
        let disk = MemDisk::default();
        for root in ["/", ""] {
            disk.lock().names.insert(PathBuf::from(root), Node::Dir);
            disk.lock().durable.insert(PathBuf::from(root), Node::Dir);
        }
        disk
    }

    /// Files may take this many bytes together; what would exceed it fails as a full disk does.
    pub fn with_capacity_limit(self, bytes: u64) -> MemDisk {
        self.set_capacity_limit(Some(bytes));
        self
    }

    /// Changes the limit; none lifts it.
    pub fn set_capacity_limit(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Lets `n_ops` more changing operations happen; all later ones fail. A write that fails first may still have
    /// happened in part: [`MemDisk::crash`] decides.
    pub fn fail_after(&self, n_ops: u64) {
        let mut state = self.lock();
        state.left = Some(n_ops);
        state.stopped = false;
    }

    /// Lifts [`MemDisk::fail_after`].
    pub fn heal(&self) {
        let mut state = self.lock();
        state.left = None;
        state.stopped = false;
    }

    /// Changing operations so far: creations, writes, syncs, renames, removals.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Syncs of files and folders so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Keeps every change from here on, for [`MemDisk::recorded`] and [`crate::Replay`].
    pub fn record(&self) {
        self.lock().journal = Some(Vec::new());
    }

    /// How many changes were recorded.
    pub fn recorded(&self) -> usize {
        self.lock().journal.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn journal(&self) -> Vec<Op> {
        self.lock().journal.clone().unwrap_or_default()
    }

    /// Applies a change that another disk recorded.
    pub(crate) fn apply(&self, op: &Op) -> io::Result<()> {
        let file = |inode: u64| MemFile { disk: self.clone(), inode, writable: true };
        match op {
            Op::Create(path) => self.create(path).map(|_| ()),
            Op::CreateDirs(path) => self.create_dir_all(path),
            Op::Rename(from, to) => Disk::rename(self, from, to),
            Op::RemoveFile(path) => self.remove_file(path),
            Op::RemoveDirs(path) => self.remove_dir_all(path),
            Op::SyncDir(path) => self.sync_dir(path),
            Op::Write(inode, offset, bytes) => file(*inode).write_all_at(bytes, *offset),
            Op::Sync(inode) => file(*inode).sync_data(),
            Op::Allocate(inode, len) => file(*inode).allocate(*len),
            Op::SetLen(inode, len) => file(*inode).set_len(*len),
        }
    }

    /// Lets `n` more syncs of files succeed; the next one fails, once, and what it should have made durable is as if it
    /// had never been written once the machine stops, although a running process reads it.
    pub fn fail_sync_after(&self, n: u64) {
        self.lock().syncs_left = Some(n);
    }

    /// Bytes in files.
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// The disk as a reboot would find it, without limits. This one is left as it is.
    pub fn crash(&self, seed: u64) -> MemDisk {
        let state = self.lock();
        let chance = SeededChance::new(seed);
        let keep = |share: u64| seed != 0 && chance.below(4) < share;
        let mut names = state.durable.clone();
        // Of each folder's changes a first part survives: the first that is lost takes the later ones along. Some file
        // systems promise less: there it takes along only those of the same name.
        let loose = seed % 4 == 3;
        let mut lost: Vec<&Path> = Vec::new();
        for change in &state.pending {
            let touched = if loose { change.names() } else { change.folders() };
            if touched.iter().any(|path| lost.contains(path)) || !keep(2) {
                lost.extend(touched);
            } else {
                change.apply(&mut names);
            }
        }
        let mut after = State::default();
        for (path, node) in &names {
            let reachable = path.ancestors().skip(1).all(|dir| names.get(dir) == Some(&Node::Dir));
            if reachable {
                after.names.insert(path.clone(), *node);
            }
        }
        for node in after.names.values() {
            if let Node::File(inode) = node
                && let Some(content) = state.contents.get(inode)
            {
                let bytes = content.after_crash(&keep, &chance, seed);
                after.used += bytes.len() as u64;
                let synced_len = bytes.len();
                after.contents.insert(*inode, Content { bytes, synced_len, ..Content::default() });
            }
        }
        after.durable = after.names.clone();
        after.next_inode = state.next_inode;
        drop(state);
        MemDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Changes a file's bytes behind everybody's back, as a failing medium would.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.file(path)?;
        let content = state.contents.entry(inode).or_default();
        change(&mut content.bytes);
        content.synced();
        Ok(())
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.lock();
        state
            .names
            .iter()
            .filter(|(_, node)| matches!(node, Node::File(_)))
            .map(|(path, _)| path.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn handle(&self, inode: u64, writable: bool) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.clone(), inode, writable })
    }
}

pub(super) fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl State {
    /// Counts a changing operation; an error from the one on at which the disk stops.
    fn step(&mut self) -> io::Result<()> {
        self.ops += 1;
        match &mut self.left {
            Some(0) => {
                self.stopped = true;
                Err(io::Error::other("the disk has stopped"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{} is a folder", path.display())))
            }
            None => Err(missing(path)),
        }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.names.get(parent) != Some(&Node::Dir) => Err(missing(parent)),
            _ => Ok(()),
        }
    }

    fn note(&mut self, op: impl FnOnce() -> Op) {
        if let Some(journal) = &mut self.journal {
            journal.push(op());
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn reserve(&self, by: u64) -> io::Result<()> {
        if self.capacity.is_some_and(|limit| self.used + by > limit) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    /// Takes the files at and below `path` out of the account; open handles keep their content.
    fn drop_file(&mut self, path: &Path) {
        let gone: Vec<u64> = self
            .names
            .iter()
            .filter_map(|(name, node)| match node {
                Node::File(inode) if name.starts_with(path) => Some(*inode),
                _ => None,
            })
            .collect();
        for inode in gone {
            self.used -= self.contents.get(&inode).map_or(0, |c| c.bytes.len() as u64);
        }
    }
}
