//! An open file of a disk in memory.

use std::io;

use runtime::File;

use super::{Content, MemDisk};
use crate::replay::Op;

pub(super) struct MemFile {
    pub(super) disk: MemDisk,
    pub(super) inode: u64,
    pub(super) writable: bool,
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
