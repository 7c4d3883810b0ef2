//! What a process does with the folders of a disk in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::{Disk, File};

use super::names::{Change, Node};
use super::{Content, MemDisk, missing};
use crate::replay::Op;

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
