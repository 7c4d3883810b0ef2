//! What the stories of this crate share: series in the field's notation, made into chunks and blocks.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use block::{Block, BlockId, BlockWriter, MetaSpec, ThanosSpec};
use bytes::Bytes;
use chunk::{ChunkData, Encoding};
use model::{Labels, Matcher, Sample, TimeRange};
use runtime::World;
use testkit::MemDisk;

pub type Series = Vec<(Labels, Vec<Sample>)>;

pub const ID: &str = "01HQ3ZK8G0000000000000000A";

pub fn id() -> BlockId {
    BlockId::parse(ID).unwrap()
}

pub fn memory() -> (World, MemDisk) {
    let disk = MemDisk::new();
    (testkit::world(Arc::new(disk.clone()), 1_709_000_000_000, 1).0, disk)
}

pub fn chunk_of(samples: &[Sample]) -> ChunkData {
    ChunkData {
        range: TimeRange::new(samples[0].timestamp, samples[samples.len() - 1].timestamp),
        encoding: Encoding::Xor,
        bytes: Bytes::from(chunk::xor::encode(samples.iter().copied()).unwrap()),
    }
}

pub fn spec() -> MetaSpec {
    let thanos = ThanosSpec {
        labels: [("replica".to_owned(), "a".to_owned())].into(),
        source: "receive".to_owned(),
        resolution: 0,
    };
    MetaSpec { level: 1, thanos: Some(thanos), ..MetaSpec::default() }
}

/// Writes sorted series, `per_chunk` samples to a chunk.
pub fn write_with(mut writer: BlockWriter, series: &Series, per_chunk: usize) -> Option<block::Meta> {
    for (labels, samples) in series {
        let chunks: Vec<_> = samples.chunks(per_chunk).map(chunk_of).collect();
        writer.add_series(labels, &chunks).unwrap();
    }
    writer.finish(spec()).unwrap()
}

pub fn write(world: &World, parent: &Path, series: &Series, per_chunk: usize) -> Option<block::Meta> {
    write_with(BlockWriter::create(world, parent, id()).unwrap(), series, per_chunk)
}

pub fn open(world: &World, parent: &Path) -> Block {
    Block::open(world, &parent.join(ID)).unwrap()
}

pub type Entry = (Labels, Vec<ChunkData>);

pub fn try_select(block: &Block, matchers: &[Matcher]) -> Result<Vec<Entry>, block::Error> {
    block.series(matchers, TimeRange::ALL, 0, false)?.collect()
}

pub fn try_samples(chunks: &[ChunkData]) -> Result<Vec<Sample>, chunk::Error> {
    let mut out = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk.encoding, Encoding::Xor);
        for sample in chunk::xor::Iter::new(&chunk.bytes)? {
            out.push(sample?);
        }
    }
    Ok(out)
}

pub fn read(block: &Block) -> Series {
    let entries = try_select(block, &[]).unwrap();
    entries.into_iter().map(|(labels, chunks)| (labels, try_samples(&chunks).unwrap())).collect()
}
