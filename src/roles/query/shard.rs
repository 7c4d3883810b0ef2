//! A part of an answer: the series of one shard, as a query frontend asks for them.

use storage::{Error, Notes, SeriesEntry, SeriesSet};
use wire::pb::thanos::ShardInfo;

/// Leaves the other shards' series out.
pub struct Sharded {
    pub inner: Box<dyn SeriesSet>,
    pub shard: ShardInfo,
    /// Series that may still be shown; none means all.
    pub left: Option<usize>,
}

impl SeriesSet for Sharded {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        if self.left == Some(0) {
            return Ok(None);
        }
        while let Some(entry) = self.inner.next()? {
            if rpc::in_shard(&self.shard, &entry.labels) {
                self.left = self.left.map(|left| left - 1);
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn notes(&mut self) -> Notes {
        self.inner.notes()
    }
}
