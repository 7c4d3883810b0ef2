//! Writes a block in one pass over sorted series.
//!
//! Last step of a cut (head to block) and of a merge (blocks to block). Knows nothing of where samples come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Kind, Labels, Timestamp};
use runtime::World;
use storage::ChunkData;

use crate::meta::{Meta, Parent};
use crate::{BlockId, Error};

/// What the caller knows of a block and the writer cannot count.
#[derive(Clone, Debug, Default)]
pub struct MetaSpec {
    /// Milliseconds, minimum inclusive, maximum exclusive; every sample must lie within. None: exactly the samples.
    pub range: Option<(Timestamp, Timestamp)>,
    /// 1 for a cut (also taken for 0).
    pub level: u32,
    /// Blocks of level 1 that went in; empty means the block itself.
    pub sources: Vec<BlockId>,
    /// Blocks that were merged.
    pub parents: Vec<Parent>,
    pub hints: Vec<String>,
    /// Thanos's section; none for a plain Prometheus block.
    pub thanos: Option<ThanosSpec>,
}

/// The part of Thanos's section that the writer cannot count.
#[derive(Clone, Debug, Default)]
pub struct ThanosSpec {
    /// External labels.
    pub labels: BTreeMap<String, String>,
    /// `receive`, `compactor`, ...
    pub source: String,
    /// Milliseconds; 0 for raw samples.
    pub resolution: i64,
}

/// Writes one block; see [`BlockWriter::finish`].
pub struct BlockWriter {
    dir: PathBuf,
}

impl BlockWriter {
    /// Starts the block `parent/id` in a temporary folder beside it.
    pub fn create(_world: &World, parent: &Path, id: BlockId) -> Result<BlockWriter, Error> {
        Ok(BlockWriter { dir: parent.join(id.to_string()) })
    }

    /// Adds a series. Series come in the order of their labels, chunks in the order of time and disjoint: anything
    /// else is refused and leaves the writer as it was. A series without chunks is left out.
    pub fn add_series(&mut self, _labels: &Labels, _chunks: &[ChunkData]) -> Result<(), Error> {
        Err(Error::new(Kind::Internal, "not yet"))
    }

    /// Completes the block: index, syncs, `meta.json` last, rename into place. None if there was no series: then
    /// no block is written.
    pub fn finish(self, _spec: MetaSpec) -> Result<Option<Meta>, Error> {
        Err(Error::new(Kind::Internal, format!("not yet: {}", self.dir.display())))
    }
}
