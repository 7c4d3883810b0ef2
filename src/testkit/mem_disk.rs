//! A disk in memory that can stop, fill up and lose at a crash what was not synced.
//!
//! What survives a crash: content up to the last `sync_data` of the file, and names up to the last `sync_dir` of
//! their folder. Of the rest, [`MemDisk::crash`] keeps what its seed decides: each written sector by itself, now and
//! then only a first part of it, and of each folder's changes a first part, with every fourth seed any of them. With
//! seed 0 it keeps nothing of the rest. Syncing a folder also makes its own name and its parents' durable, as the usual
//! file systems do for a folder that is new.
//!
//! A disk that records ([`MemDisk::record`]) can be cut afterwards at every operation of one run: see [`crate::Replay`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use runtime::{Chance, Disk, File};

use crate::SeededChance;
use crate::replay::Op;

/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    /// Length at the last sync.
    synced_len: usize,
    /// Sectors as they were at the last sync, of those changed since (within the synced length).
    before: BTreeMap<usize, Vec<u8>>,
    /// Sectors beyond the synced length that were written since, in order of place.
    fresh: BTreeMap<usize, ()>,
    /// Sectors whose sync failed, as the disk has them; until they are written anew.
    lost: BTreeMap<usize, Vec<u8>>,
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

impl Content {
    /// To be called before bytes at `start..end` change.
    fn remember(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let at = sector * SECTOR;
            if let Some(old) = self.lost.remove(&sector) {
                // Dirty again: this time it may reach the disk.
                self.before.entry(sector).or_insert(old);
            }
            if at < self.synced_len {
                let bytes = &self.bytes;
                let stop = (at + SECTOR).min(self.synced_len).min(bytes.len());
                self.before.entry(sector).or_insert_with(|| bytes.get(at..stop).unwrap_or_default().to_vec());
            }
            if at + SECTOR > self.synced_len {
                self.fresh.insert(sector, ());
            }
        }
    }

    fn resize(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.remember(len, self.bytes.len());
        }
        self.bytes.resize(len, 0);
    }

    /// What is not durable now never will be: the cache holds it as clean, the disk does not have it.
    fn forsake(&mut self) {
        let lost = std::mem::take(&mut self.before);
        self.lost.extend(lost.into_iter().filter(|(at, _)| !self.lost.contains_key(at)).collect::<Vec<_>>());
        let fresh = std::mem::take(&mut self.fresh);
        self.lost.extend(fresh.into_keys().map(|at| (at, vec![0; SECTOR])));
    }

    fn synced(&mut self) {
        self.synced_len = self.bytes.len();
        self.before.clear();
        self.fresh.clear();
    }

    fn after_crash(&self, keep: &dyn Fn(u64) -> bool, chance: &SeededChance, seed: u64) -> Vec<u8> {
        let (old, new) = (self.synced_len, self.bytes.len());
        // A length between the two, at a sector's edge or at either end.
        let len = match seed {
            0 => old,
            _ if old == new => old,
            _ => match chance.below(4) {
                0 => old,
                1 => new,
                _ => {
                    let (low, high) = (old.min(new), old.max(new));
                    let sectors = ((high - low) / SECTOR) as u64;
                    (low.next_multiple_of(SECTOR) + chance.below(sectors + 1) as usize * SECTOR).min(high)
                }
            },
        };
        let mut out = self.bytes.clone();
        out.resize(old.max(new).max(len), 0);
        for sector in self.fresh.keys() {
            let (start, end) = ((sector * SECTOR).max(old), ((sector + 1) * SECTOR).min(out.len()));
            if start < end && !keep(3) {
                out[start..end].fill(0);
            }
        }
        for (sector, before) in &self.before {
            // What lies behind the new end was cut off, not overwritten: where the cut is lost, it is all there.
            if !keep(2) || sector * SECTOR + before.len() > new {
                out[sector * SECTOR..][..before.len()].copy_from_slice(before);
            } else if seed != 0 && chance.below(8) == 0 {
                // Only its first part was written.
                let torn = (chance.below((SECTOR / 8) as u64) as usize * 8).min(before.len());
                out[sector * SECTOR + torn..][..before.len() - torn].copy_from_slice(&before[torn..]);
            }
        }
        for (sector, lost) in &self.lost {
            let (start, end) = (sector * SECTOR, (sector * SECTOR + lost.len()).min(out.len()));
            if start < end {
                out[start..end].copy_from_slice(&lost[..end - start]);
            }
        }
        out.truncate(len);
        out
    }
}

impl Change {
    fn folders(&self) -> Vec<&Path> {
        match self {
            Change::Create(path, _) | Change::Remove(path) => path.parent().into_iter().collect(),
            Change::Rename(from, to) => from.parent().into_iter().chain(to.parent()).collect(),
        }
    }

    fn names(&self) -> Vec<&Path> {
        match self {
            Change::Create(path, _) | Change::Remove(path) => vec![path],
            Change::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Create(path, node) => {
                names.insert(path.clone(), *node);
            }
            Change::Remove(path) => {
                names.retain(|name, _| !name.starts_with(path));
            }
            Change::Rename(from, to) => rename(names, from, to),
        }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, Node>, from: &Path, to: &Path) {
    let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
    if moved.is_empty() {
        return;
    }
    names.retain(|name, _| !name.starts_with(to));
    for old in moved {
        if let Some(node) = names.remove(&old)
            && let Ok(tail) = old.strip_prefix(from)
        {
            let new = if tail.as_os_str().is_empty() { to.to_owned() } else { to.join(tail) };
            names.insert(new, node);
        }
    }
}

fn missing(path: &Path) -> io::Error {
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

impl Disk for MemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.step()?;
        state.parent_exists(path)?;
        if state.names.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.contents.insert(inode, Content::default());
        state.change(Change::Create(path.to_owned(), Node::File(inode)));
        state.note(|| Op::Create(path.to_owned()));
        drop(state);
        Ok(self.handle(inode, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.lock().file(path)?;
        Ok(self.handle(inode, true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.lock().file(path)?;
        Ok(self.handle(inode, false))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let inode = state.file(path)?;
        Ok(state.contents.get(&inode).map(|c| c.bytes.clone()).unwrap_or_default())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(missing(dir));
        }
        let inside = state.names.keys().filter(|name| name.parent() == Some(dir));
        let mut names: Vec<String> =
            inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let mut missing: Vec<&Path> = Vec::new();
        for path in dir.ancestors() {
            match state.names.get(path) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => {
                    let text = format!("{} is a file", path.display());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
                }
                None => missing.push(path),
            }
        }
        for path in missing.into_iter().rev() {
            state.change(Change::Create(path.to_owned(), Node::Dir));
        }
        state.note(|| Op::CreateDirs(dir.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let node = *state.names.get(from).ok_or_else(|| missing(from))?;
        state.parent_exists(to)?;
        match (node, state.names.get(to)) {
            (_, None) => {}
            (Node::File(_), Some(Node::File(_))) => state.drop_file(to),
            // As on a real disk, a folder replaces only an empty one.
            (Node::Dir, Some(Node::Dir)) if !state.names.keys().any(|n| n.parent() == Some(to)) => {}
            _ => {
                let text = format!("{} is in the way", to.display());
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
            }
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        state.note(|| Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.file(path)?;
        state.drop_file(path);
        state.change(Change::Remove(path.to_owned()));
        state.note(|| Op::RemoveFile(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(missing(dir));
        }
        state.drop_file(dir);
        // File by file, as a real removal is: a crash may leave a part of the folder.
        let inside: Vec<PathBuf> = state.names.keys().rev().filter(|n| n.starts_with(dir)).cloned().collect();
        for path in inside {
            state.change(Change::Remove(path));
        }
        state.note(|| Op::RemoveDirs(dir.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.syncs += 1;
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(missing(dir));
        }
        let pending = std::mem::take(&mut state.pending);
        for change in pending {
            let own_name = matches!(&change, Change::Create(path, Node::Dir) if dir.starts_with(path));
            if own_name || change.folders().contains(&dir) {
                change.apply(&mut state.durable);
            } else {
                state.pending.push(change);
            }
        }
        state.note(|| Op::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.lock().names.contains_key(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.lock().names.get(path) == Some(&Node::Dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = self.lock();
        let inode = state.file(path)?;
        Ok(state.contents.get(&inode).map_or(0, |c| c.bytes.len() as u64))
    }
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
    writable: bool,
}

impl MemFile {
    fn change(&self, len: usize, op: impl FnOnce() -> Op, act: impl FnOnce(&mut Content)) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "file is open for reading only"));
        }
        let mut state = self.disk.lock();
        let stopped_before = state.stopped;
        let stop = state.step();
        if stopped_before {
            return stop;
        }
        let have = state.contents.get(&self.inode).map_or(0, |c| c.bytes.len());
        if len > have {
            state.reserve((len - have) as u64)?;
        }
        let content = state.contents.entry(self.inode).or_default();
        act(content);
        let now = content.bytes.len();
        state.used = (state.used + now as u64).saturating_sub(have as u64);
        state.note(op);
        stop
    }
}

impl File for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.lock();
        let bytes = state.contents.get(&self.inode).map(|c| &c.bytes[..]).unwrap_or_default();
        let range = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..buf.len()));
        match range {
            Some(range) => {
                buf.copy_from_slice(range);
                Ok(())
            }
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file ends before the range")),
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (start, end) = (offset as usize, offset as usize + buf.len());
        self.disk.lock().writes += 1;
        self.change(
            end,
            || Op::Write(self.inode, offset, buf.into()),
            |content| {
                content.remember(start.min(content.bytes.len()), end);
                if content.bytes.len() < end {
                    content.bytes.resize(end, 0);
                }
                content.bytes[start..end].copy_from_slice(buf);
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.step()?;
        let left = state.syncs_left;
        state.syncs_left = left.and_then(|left| left.checked_sub(1));
        state.syncs += 1;
        let content = state.contents.entry(self.inode).or_default();
        match left {
            Some(0) => {
                content.forsake();
                return Err(io::Error::other("the disk reports that a write failed"));
            }
            _ => content.synced(),
        }
        state.note(|| Op::Sync(self.inode));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // The real one writes zeroes and syncs.
        self.change(
            len as usize,
            || Op::Allocate(self.inode, len),
            |content| {
                let len = content.bytes.len().max(len as usize);
                content.resize(len);
                content.synced();
            },
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(len as usize, || Op::SetLen(self.inode, len), |content| content.resize(len as usize))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        Ok(state.contents.get(&self.inode).map_or(0, |c| c.bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathBuf {
        PathBuf::from(text)
    }

    #[test]
    fn unsynced_names_and_bytes_are_lost() {
        let disk = MemDisk::new();
        disk.create_dir_all(&path("/data")).unwrap();
        disk.sync_dir(&path("/data")).unwrap();
        let file = disk.create(&path("/data/a")).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        assert!(!disk.crash(0).exists(&path("/data/a")), "the name was not synced");
        disk.sync_dir(&path("/data")).unwrap();
        file.write_all_at(b"two three", 0).unwrap();
        assert_eq!(disk.crash(0).read(&path("/data/a")).unwrap(), b"one");
        let mut seen: Vec<Vec<u8>> =
            (1..200).map(|s| disk.crash(s).read(&path("/data/a")).unwrap()).collect();
        seen.sort();
        seen.dedup();
        assert!(seen.contains(&b"one".to_vec()) && seen.contains(&b"two three".to_vec()), "{seen:?}");
        disk.rename(&path("/data/a"), &path("/data/b")).unwrap();
        let after = |seed| disk.crash(seed).list(&path("/data")).unwrap();
        assert_eq!(after(0), ["a"]);
        assert!((1..50).any(|s| after(s) == ["b"]));
    }

    #[test]
    fn sectors_tear_apart() {
        let disk = MemDisk::new();
        let file = disk.create(&path("/a")).unwrap();
        file.allocate(4096).unwrap();
        disk.sync_dir(&path("/")).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        let torn = (1..50).map(|seed| disk.crash(seed).read(&path("/a")).unwrap());
        assert!(torn.into_iter().any(|b| b.contains(&1) && b.contains(&0) && b.len() == 4096));
        assert_eq!(disk.crash(0).read(&path("/a")).unwrap(), [0; 4096]);
        file.set_len(10).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.crash(0).read(&path("/a")).unwrap(), [1; 10]);
    }

    #[test]
    fn stops_and_fills_up() {
        let disk = MemDisk::new().with_capacity_limit(10);
        let file = disk.create(&path("/a")).unwrap();
        file.write_all_at(&[0; 10], 0).unwrap();
        assert_eq!(file.write_all_at(&[0; 1], 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_all_at(&[1; 10], 0).unwrap();
        disk.remove_file(&path("/a")).unwrap();
        assert_eq!(disk.used(), 0);
        disk.fail_after(1);
        let file = disk.create(&path("/b")).unwrap();
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.write_all_at(b"y", 0).is_err() && disk.sync_dir(&path("/")).is_err());
        disk.heal();
        file.sync_data().unwrap();
        assert_eq!(disk.read(&path("/b")).unwrap(), b"x", "the write that was cut down may have happened");
    }

    #[test]
    fn a_failed_sync_loses_what_is_read_back_all_the_same() {
        let disk = MemDisk::new();
        let file = disk.create(&path("/a")).unwrap();
        file.allocate(2048).unwrap();
        disk.sync_dir(&path("/")).unwrap();
        disk.fail_sync_after(0);
        file.write_all_at(&[7; 100], 0).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.read(&path("/a")).unwrap()[..100], [7; 100]);
        for seed in 0..20 {
            assert_eq!(disk.crash(seed).read(&path("/a")).unwrap(), [0; 2048], "seed {seed}");
        }
        file.write_all_at(&[8; 10], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.crash(0).read(&path("/a")).unwrap()[..100], [&[8; 10][..], &[7; 90]].concat());
    }

    #[test]
    fn folders_move_and_go() {
        let disk = MemDisk::new();
        disk.create_dir_all(&path("/d/x/y")).unwrap();
        disk.create(&path("/d/x/y/f")).unwrap();
        disk.rename(&path("/d/x"), &path("/d/z")).unwrap();
        assert!(disk.exists(&path("/d/z/y/f")) && !disk.exists(&path("/d/x")));
        disk.remove_dir_all(&path("/d/z")).unwrap();
        assert_eq!(disk.list(&path("/d")).unwrap(), Vec::<String>::new());
        assert!(disk.create(&path("/nowhere/f")).is_err());
    }
}
