//! Blocks in a bucket, and two ways to read them: from the folder they were written to, and through the store.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Block, BlockId, BlockWriter, Meta, MetaSpec, ThanosSpec};
use bucket::{Bucket, upload_block};
use chunk::{ChunkData, Encoding};
use model::{Labels, Matcher, Sample, TimeRange};
use runtime::World;
use storage::{Context, Notes, PartialResponse, Select, SelectRequest, SeriesEntry, collect};
use store::{Blocks, BlocksSettings};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub type Series = Vec<(Labels, Vec<Sample>)>;
pub type Entry = (Labels, Vec<ChunkData>);

/// A bucket in memory, blocks beside it on disk, and a runtime for those who wait.
pub struct House {
    pub rt: Runtime,
    pub world: World,
    pub bucket: Bucket,
    pub home: TempDir,
    pub written: Vec<(PathBuf, Meta)>,
}

pub fn id(n: i64) -> BlockId {
    BlockId::from_parts(n, 7)
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub fn chunk_of(samples: &[Sample]) -> ChunkData {
    ChunkData {
        range: TimeRange::new(samples[0].timestamp, samples[samples.len() - 1].timestamp),
        encoding: Encoding::Xor,
        bytes: chunk::xor::encode(samples.iter().copied()).unwrap().into(),
    }
}

impl House {
    pub fn new() -> House {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let world = World::real();
        let bucket = Bucket::in_memory(&world);
        House { rt, world, bucket, home: tempfile::tempdir().unwrap(), written: Vec::new() }
    }

    /// Writes a block and uploads it; `change` may falsify its meta.json before.
    pub fn block_with(
        &mut self,
        n: i64,
        external: &[(&str, &str)],
        series: &Series,
        per_chunk: usize,
        change: impl FnOnce(&mut Meta),
    ) -> PathBuf {
        let parent = self.home.path().join("local");
        self.world.disk.create_dir_all(&parent).unwrap();
        let mut writer = BlockWriter::create(&self.world, &parent, id(n)).unwrap().with_segment_size(40_000);
        for (labels, samples) in series {
            let chunks: Vec<_> = samples.chunks(per_chunk).map(chunk_of).collect();
            writer.add_series(labels, &chunks).unwrap();
        }
        let own = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        let thanos = ThanosSpec {
            labels: external.iter().map(own).collect(),
            source: "receive".to_owned(),
            resolution: 0,
        };
        let spec = MetaSpec { level: 1, thanos: Some(thanos), ..MetaSpec::default() };
        let mut meta = writer.finish(spec).unwrap().unwrap();
        change(&mut meta);
        let dir = parent.join(id(n).to_string());
        self.rt.block_on(upload_block(&self.bucket, &self.world, &dir, &meta)).unwrap();
        self.written.push((dir.clone(), meta));
        dir
    }

    pub fn block(&mut self, n: i64, external: &[(&str, &str)], series: &Series) -> PathBuf {
        self.block_with(n, external, series, 50, |_| ())
    }

    pub fn settings(&self) -> BlocksSettings {
        BlocksSettings { data_dir: self.home.path().join("store"), ..BlocksSettings::default() }
    }

    /// A store over the bucket that has searched it.
    pub fn blocks(&self, settings: BlocksSettings) -> Blocks {
        let _in = self.rt.enter();
        let blocks = Blocks::new(self.bucket.clone(), &self.world, settings, Arc::new(|_| false));
        self.rt.block_on(blocks.sync()).unwrap();
        blocks
    }

    /// Falsifies a file in the bucket.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.rt.block_on(self.bucket.get(path)).unwrap().to_vec();
        change(&mut bytes);
        self.rt.block_on(self.bucket.put(path, bytes.into())).unwrap();
    }
}

pub fn local(world: &World, dir: &Path, matchers: &[Matcher], range: TimeRange) -> Vec<Entry> {
    let block = Block::open(world, dir).unwrap();
    block.series(matchers, range, 0, false).unwrap().map(Result::unwrap).collect()
}

pub fn remote(
    select: &dyn Select,
    matchers: &[Matcher],
    range: TimeRange,
    partial: PartialResponse,
) -> Result<(Vec<Entry>, Notes), storage::Error> {
    let context = Context { partial, ..Context::background() };
    let (entries, notes) = collect(select.select(&SelectRequest::new(range, matchers.to_vec()), &context)?)?;
    assert_eq!(context.budget.used(), 0, "all memory is given back");
    Ok((entries.into_iter().map(|SeriesEntry { labels, chunks }| (labels, chunks)).collect(), notes))
}

pub fn all(select: &dyn Select) -> Vec<Entry> {
    remote(select, &[], TimeRange::ALL, PartialResponse::Abort).unwrap().0
}

/// Series `m{i="0"..}` with `samples` values each, from `start` on, ten seconds apart, that do not compress well.
pub fn noisy(count: usize, samples: usize, start: i64) -> Series {
    let mut series: Series = (0..count)
        .map(|i| {
            let value = |n: usize| {
                f64::from_bits(
                    0x3ff0_0000_0000_0000 | ((i * 7919 + n) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12,
                )
            };
            let sample = |n: usize| Sample { timestamp: start + n as i64 * 10_000, value: value(n) };
            let pairs = [("__name__".to_owned(), "m".to_owned()), ("i".to_owned(), i.to_string())];
            (Labels::from_pairs(pairs).unwrap(), (0..samples).map(sample).collect())
        })
        .collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series
}
