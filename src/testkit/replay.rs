//! One recorded run, stopped at each of its operations in turn.

use std::io;
use std::path::PathBuf;

use crate::MemDisk;

/// A change of a disk.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(PathBuf),
    CreateDirs(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFile(PathBuf),
    RemoveDirs(PathBuf),
    SyncDir(PathBuf),
    Write(u64, u64, Box<[u8]>),
    Sync(u64),
    Allocate(u64, u64),
    SetLen(u64, u64),
}

/// Does again, one by one, what a disk recorded from its beginning; between any two steps the machine may stop.
pub struct Replay {
    ops: Vec<Op>,
    at: usize,
    disk: MemDisk,
}

impl Replay {
    /// Of a disk that recorded from its first change on.
    pub fn of(disk: &MemDisk) -> Replay {
        Replay { ops: disk.journal(), at: 0, disk: MemDisk::new() }
    }

    /// Operations done so far.
    pub fn done(&self) -> usize {
        self.at
    }

    /// Operations in all.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Does the next operation; false at the end.
    pub fn step(&mut self) -> io::Result<bool> {
        let Some(op) = self.ops.get(self.at) else { return Ok(false) };
        self.disk.apply(op)?;
        self.at += 1;
        Ok(true)
    }

    /// What the next operation is, for messages.
    pub fn next(&self) -> String {
        match self.ops.get(self.at) {
            Some(Op::Write(inode, offset, bytes)) => {
                format!("write of {} bytes at {offset} of file {inode}", bytes.len())
            }
            Some(op) => format!("{op:?}"),
            None => "the end".to_owned(),
        }
    }

    /// The disk as a reboot finds it if the machine stops here.
    pub fn crash(&self, seed: u64) -> MemDisk {
        self.disk.crash(seed)
    }
}
