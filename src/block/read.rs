//! Opens a block folder and answers selects from it.

use std::path::{Path, PathBuf};

use model::{Kind, TimeRange};
use runtime::World;
use storage::{Context, LabelRequest, Listed, Select, SelectRequest, SeriesSet};

use crate::{Error, Meta};

/// An open block. Cheap to clone.
#[derive(Clone)]
pub struct Block {
    dir: PathBuf,
    meta: Meta,
}

impl Block {
    /// Opens and verifies a block's folder.
    pub fn open(_world: &World, dir: &Path) -> Result<Block, Error> {
        Err(Error::new(Kind::Internal, format!("not yet: {}", dir.display())))
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Closed range of the times it may hold.
    pub fn time_range(&self) -> TimeRange {
        self.meta.range()
    }
}

impl Select for Block {
    fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, storage::Error> {
        Err(storage::Error::new(Kind::Internal, "not yet"))
    }

    fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Err(storage::Error::new(Kind::Internal, "not yet"))
    }

    fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Err(storage::Error::new(Kind::Internal, "not yet"))
    }
}
