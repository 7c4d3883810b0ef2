//! Whether a file's content changed, found by reading it: works on every file system, symlink swaps included.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Disk;

/// The content of one file as last seen.
pub struct FileWatch {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    last: Option<Vec<u8>>,
}

impl FileWatch {
    /// Nothing has been seen yet: the first look reports the file as it is.
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> FileWatch {
        FileWatch { disk, path: path.into(), last: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content if it differs from the last one seen. Blocking. A file that cannot be read is an error
    /// each time, and the content seen before stays the one to compare with.
    pub fn look(&mut self) -> io::Result<Option<Vec<u8>>> {
        let content = self.disk.read(&self.path)?;
        if self.last.as_ref() == Some(&content) {
            return Ok(None);
        }
        self.last = Some(content.clone());
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RealDisk;

    #[test]
    fn reports_each_content_once() {
        let dir = std::env::temp_dir().join(format!("tributary-watch-{}", std::process::id()));
        let disk = Arc::new(RealDisk);
        disk.create_dir_all(&dir).unwrap();
        let path = dir.join("ring.json");
        let mut watch = FileWatch::new(disk.clone(), &path);
        assert!(watch.look().is_err());
        disk.write_atomic(&path, b"a").unwrap();
        assert_eq!(watch.look().unwrap(), Some(b"a".to_vec()));
        assert_eq!(watch.look().unwrap(), None);
        disk.write_atomic(&path, b"b").unwrap();
        assert_eq!(watch.look().unwrap(), Some(b"b".to_vec()));
        disk.remove_dir_all(&dir).unwrap();
        assert!(watch.look().is_err());
    }
}
