//! A small file system in memory, for what a full disk does to those who write through the operating system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, with a word about it, where this process may not mount.
    ///
    /// # Panics
    /// Where there is no folder to mount on and none can be made.
    pub fn mount(at: &Path, mib: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a folder to mount on");
        let size = format!("size={mib}m");
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match out {
            Ok(out) if out.status.success() => Some(SmallDisk(at.to_owned())),
            Ok(out) => {
                eprintln!("SKIPPED: no tmpfs can be mounted here: {}", String::from_utf8_lossy(&out.stderr));
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: mount does not run: {error}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that leaves `free` bytes, or what of them there is. Its removal gives the room back.
    ///
    /// # Panics
    /// Where the file cannot be made.
    pub fn fill(&self, free: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file that takes all room");
        let mut block = vec![0u8; 1 << 16];
        while !block.is_empty() {
            if file.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
        let len = file.metadata().map_or(0, |meta| meta.len());
        file.set_len(len.saturating_sub(free)).expect("a file that shrinks");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
