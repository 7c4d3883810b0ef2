//! Deletions: noted beside the block at once, taken out of its data when it is written anew.

use std::path::Path;

use model::{Kind, Matcher, TimeRange};
use runtime::World;

use crate::error;
use crate::{Block, BlockId, BlockWriter, Error, MetaSpec, ThanosSpec, tombstones};

impl Block {
    /// Notes, durable, that all samples in `range` of the series that pass all matchers are deleted, and opens the
    /// block as it is then; none where it holds nothing of them. Who has the block open still sees it as it was.
    pub fn delete(
        &self,
        world: &World,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Option<Block>, Error> {
        let numbers = self.numbers_in(matchers, range)?;
        if numbers.is_empty() {
            return Ok(None);
        }
        let mut deleted = self.inner.tombstones.clone();
        for number in numbers {
            deleted.add(number, range);
        }
        let path = self.dir().join(tombstones::FILE);
        world.disk.write_atomic(&path, &deleted.encode()).map_err(|e| error::io("write", &path, e))?;
        Block::open(world, self.dir()).map(Some)
    }

    /// Whether anything of it is deleted.
    pub fn has_deletions(&self) -> bool {
        !self.inner.tombstones.is_empty()
    }

    /// Writes what is not deleted as a new block beside this one; none where nothing is left. What other
    /// programs put into `meta.json` is not taken over.
    pub fn rewrite(&self, world: &World, parent: &Path) -> Result<Option<BlockId>, Error> {
        let meta = self.meta();
        if meta.thanos.as_ref().is_some_and(|thanos| thanos.downsample.resolution > 0) {
            return Err(Error::new(Kind::Refused, "a downsampled block is not written anew"));
        }
        let id = BlockId::new(world);
        let mut writer = BlockWriter::create(world, parent, id)?;
        for series in self.series(&[], TimeRange::ALL, 0, false)? {
            let (labels, chunks) = series?;
            writer.add_series(&labels, &chunks)?;
        }
        let spec = MetaSpec {
            range: Some((meta.min_time, meta.max_time)),
            level: meta.compaction.level,
            hints: meta.compaction.hints.clone(),
            thanos: meta.thanos.as_ref().map(|thanos| ThanosSpec {
                labels: thanos.labels.clone(),
                source: thanos.source.clone(),
                resolution: 0,
            }),
            ..MetaSpec::default()
        };
        Ok(writer.finish(spec)?.map(|_| id))
    }
}
