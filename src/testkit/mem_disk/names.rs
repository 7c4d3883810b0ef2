//! The names of files and folders, and changes of them that a crash may lose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    pub(super) fn folders(&self) -> Vec<&Path> {
        match self {
            Change::Create(path, _) | Change::Remove(path) => path.parent().into_iter().collect(),
            Change::Rename(from, to) => from.parent().into_iter().chain(to.parent()).collect(),
        }
    }

    pub(super) fn names(&self) -> Vec<&Path> {
        match self {
            Change::Create(path, _) | Change::Remove(path) => vec![path],
            Change::Rename(from, to) => vec![from, to],
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
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

pub(super) fn rename(names: &mut BTreeMap<PathBuf, Node>, from: &Path, to: &Path) {
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
