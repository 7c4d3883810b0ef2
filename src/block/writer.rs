//! Writes a block in one pass over sorted series.
//!
//! Last step of a cut (head to block) and of a merge (blocks to block). Knows nothing of where samples come from.
//!
//! # Cost
//! Chunks go straight to their segment. Kept until [`BlockWriter::finish`]: each symbol and label pair once, and per
//! series one encoded row: a pair number (1 to 4 bytes) per label and 8 to 20 bytes per chunk. While the index is
//! written, 4 bytes more per label of every series (the postings), and the offsets table. Measured with 10 labels, one
//! of them with a value of its own, and 1 chunk: 113 bytes a series are kept, about 170 at the peak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk::ChunkData;
use model::{Kind, Labels, TimeRange, Timestamp};
use runtime::{File, PIECE, Pace, World};

use crate::chunks::{self, SEGMENT_SIZE};
use crate::error;
use crate::index::series::{ChunkMeta, encode_chunks};
use crate::index::writer::IndexRows;
use crate::meta::{self, BlockFile, Compaction, IndexStats, Meta, Parent, Stats, Thanos};
use crate::{BlockId, Error, dir};

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

/// Writes one block; see [`BlockWriter::finish`]. Dropped before that, it removes what it wrote.
pub struct BlockWriter {
    world: World,
    parent: PathBuf,
    id: BlockId,
    /// `parent/<id>.tmp-for-creation`.
    temporary: PathBuf,
    segments: Segments,
    rows: IndexRows,
    last_labels: Option<Labels>,
    metas: Vec<ChunkMeta>,
    range: TimeRange,
    stats: Stats,
    chunk_max_size: u64,
    done: bool,
}

impl BlockWriter {
    /// Starts the block `parent/id` in a temporary folder beside it.
    pub fn create(world: &World, parent: &Path, id: BlockId) -> Result<BlockWriter, Error> {
        let temporary = parent.join(format!("{id}{}", dir::CREATING));
        let chunks_dir = temporary.join(chunks::DIR);
        world.disk.create_dir_all(&chunks_dir).map_err(|e| error::io("create", &chunks_dir, e))?;
        Ok(BlockWriter {
            world: world.clone(),
            parent: parent.to_owned(),
            id,
            temporary,
            segments: Segments { dir: chunks_dir, limit: SEGMENT_SIZE, files: Vec::new(), open: None },
            rows: IndexRows::default(),
            last_labels: None,
            metas: Vec::new(),
            range: TimeRange::EMPTY,
            stats: Stats::default(),
            chunk_max_size: 0,
            done: false,
        })
    }

    /// Makes segments roll at `bytes` instead of 512 MiB: for tests.
    pub fn with_segment_size(mut self, bytes: u64) -> BlockWriter {
        self.segments.limit = bytes;
        self
    }

    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Series added so far.
    pub fn series(&self) -> u64 {
        self.stats.num_series
    }

    /// Bytes held in memory until [`BlockWriter::finish`].
    pub fn memory(&self) -> usize {
        self.rows.memory()
    }

    /// Adds a series. Series come in the order of their labels, chunks in the order of time and disjoint: anything
    /// else is refused and leaves the writer as it was. A series without chunks is left out.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkData]) -> Result<(), Error> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.check(labels, chunks)?;
        self.metas.clear();
        for chunk in chunks {
            let count = chunks::sample_count(chunk.encoding, &chunk.bytes)?;
            let (reference, size) = self.segments.put(&self.world, chunk)?;
            self.metas.push(ChunkMeta { reference, range: chunk.range });
            self.chunk_max_size = self.chunk_max_size.max(size);
            self.range = self.range.cover(&chunk.range);
            self.stats.num_chunks += 1;
            self.stats.num_samples += count;
            match chunk.encoding {
                chunk::Encoding::Xor | chunk::Encoding::Xor2 => self.stats.num_float_samples += count,
                chunk::Encoding::Histogram
                | chunk::Encoding::FloatHistogram
                | chunk::Encoding::HistogramStart
                | chunk::Encoding::FloatHistogramStart => {
                    self.stats.num_histogram_samples += count;
                }
                chunk::Encoding::Aggregate => {}
            }
        }
        self.rows.add(labels, |out| encode_chunks(out, &self.metas))?;
        self.stats.num_series += 1;
        self.last_labels = Some(labels.clone());
        Ok(())
    }

    fn check(&self, labels: &Labels, chunks: &[ChunkData]) -> Result<(), Error> {
        if labels.is_empty() {
            return Err(Error::invalid("a series of a block needs at least one label"));
        }
        if let Some(last) = &self.last_labels
            && last >= labels
        {
            return Err(Error::invalid(format!(
                "series {labels} comes after {last}; series must ascend, each once"
            )));
        }
        let mut before: Option<Timestamp> = None;
        for chunk in chunks {
            let range = chunk.range;
            if range.is_empty() || before.is_some_and(|end| end >= range.start) {
                return Err(Error::invalid(format!(
                    "series {labels}: chunk {}..={} is empty or does not come after the one before",
                    range.start, range.end
                )));
            }
            if chunk.bytes.len() as u64 > u64::from(u32::MAX) {
                return Err(Error::invalid(format!(
                    "series {labels}: a chunk has {} bytes",
                    chunk.bytes.len()
                )));
            }
            if chunks::sample_count(chunk.encoding, &chunk.bytes)? == 0 {
                return Err(Error::invalid(format!("series {labels}: a chunk is without samples")));
            }
            before = Some(range.end);
        }
        Ok(())
    }

    /// Completes the block: index, syncs, `meta.json` last, rename into place. None if there was no series: then
    /// no block is written.
    pub fn finish(mut self, spec: MetaSpec) -> Result<Option<Meta>, Error> {
        if self.stats.num_series == 0 {
            return Ok(None);
        }
        let range = self.settle_range(&spec)?;
        let disk = self.world.disk.clone();
        let mut files = self.segments.finish()?;
        let index_path = self.temporary.join("index");
        let mut index = Sink::create(&self.world, index_path)?;
        let series_max_size = std::mem::take(&mut self.rows).write(&mut index)?;
        files.push(("index".to_owned(), index.finish()?));
        let meta = self.meta(spec, range, files, series_max_size);
        let meta_path = self.temporary.join(meta::FILE);
        let mut out = Sink::create(&self.world, meta_path)?;
        out.put(&meta.to_json()?)?;
        out.finish()?;
        let sync = |path: &Path| disk.sync_dir(path).map_err(|e| error::io("sync", path, e));
        sync(&self.segments.dir)?;
        sync(&self.temporary)?;
        let place = self.parent.join(self.id.to_string());
        disk.rename(&self.temporary, &place).map_err(|e| error::io("rename into place", &place, e))?;
        // From here on the folder is a block, whatever follows.
        self.done = true;
        sync(&self.parent)?;
        Ok(Some(meta))
    }

    fn settle_range(&self, spec: &MetaSpec) -> Result<(Timestamp, Timestamp), Error> {
        let TimeRange { start, end } = self.range;
        let after = end.checked_add(1).ok_or_else(|| Error::invalid("a sample lies at the end of time"))?;
        match spec.range {
            None => Ok((start, after)),
            Some((min, max)) if min <= start && after <= max => Ok((min, max)),
            Some((min, max)) => Err(Error::invalid(format!(
                "block {}: samples {start}..={end} lie outside of its range {min}..{max}",
                self.id
            ))),
        }
    }

    fn meta(
        &self,
        spec: MetaSpec,
        (min_time, max_time): (Timestamp, Timestamp),
        files: Vec<(String, u64)>,
        series_max_size: u64,
    ) -> Meta {
        let section = |thanos: ThanosSpec| {
            let mut listed: Vec<BlockFile> = files
                .iter()
                .map(|(path, size)| BlockFile {
                    rel_path: path.clone(),
                    size_bytes: *size,
                    ..BlockFile::default()
                })
                .collect();
            listed.push(BlockFile { rel_path: meta::FILE.to_owned(), ..BlockFile::default() });
            listed.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
            Thanos {
                labels: thanos.labels,
                downsample: meta::Downsample { resolution: thanos.resolution },
                source: thanos.source,
                segment_files: (0..self.segments.files.len()).map(chunks::file_name).collect(),
                files: listed,
                index_stats: IndexStats { series_max_size, chunk_max_size: self.chunk_max_size },
                ..Thanos::default()
            }
        };
        Meta {
            ulid: self.id,
            min_time,
            max_time,
            stats: self.stats,
            compaction: Compaction {
                level: spec.level.max(1),
                sources: if spec.sources.is_empty() { vec![self.id] } else { spec.sources },
                parents: spec.parents,
                hints: spec.hints,
                ..Compaction::default()
            },
            version: 1,
            thanos: spec.thanos.map(section),
            other: serde_json::Map::new(),
        }
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Only tidying: what stays is removed at the next start, see `dir::remove_leftovers`.
        if let Err(error) = self.world.disk.remove_dir_all(&self.temporary) {
            tracing::warn!(dir = %self.temporary.display(), %error, "cannot remove an unfinished block");
        }
    }
}

/// The segment files, one after the other.
struct Segments {
    dir: PathBuf,
    limit: u64,
    /// Sizes of the files, the open one included.
    files: Vec<u64>,
    open: Option<Sink>,
}

impl Segments {
    /// Writes a chunk; returns its reference and its size on disk.
    fn put(&mut self, world: &World, chunk: &ChunkData) -> Result<(u64, u64), Error> {
        let worst = chunk.bytes.len() as u64 + chunks::MAX_FRAME;
        if let Some(open) = self.open.as_ref()
            && open.written > chunks::HEAD.len() as u64
            && open.written + worst > self.limit
        {
            self.close()?;
        }
        let sink = match &mut self.open {
            Some(sink) => sink,
            None => {
                let path = self.dir.join(chunks::file_name(self.files.len()));
                let mut sink = Sink::create(world, path)?;
                sink.put(&chunks::HEAD)?;
                self.files.push(0);
                self.open.insert(sink)
            }
        };
        let offset = sink.written;
        let reference = (self.files.len() as u64 - 1) << 32 | offset;
        sink.put_with(|out| chunks::encode_chunk(out, chunk.encoding, &chunk.bytes))?;
        Ok((reference, sink.written - offset))
    }

    fn close(&mut self) -> Result<(), Error> {
        if let Some(sink) = self.open.take() {
            let size = sink.finish()?;
            if let Some(last) = self.files.last_mut() {
                *last = size;
            }
        }
        Ok(())
    }

    /// Path within the block and size of each segment.
    fn finish(&mut self) -> Result<Vec<(String, u64)>, Error> {
        if self.files.is_empty() {
            return Err(Error::new(Kind::Internal, format!("no segment in {}", self.dir.display())));
        }
        self.close()?;
        let name = |(at, size): (usize, &u64)| (format!("{}/{}", chunks::DIR, chunks::file_name(at)), *size);
        Ok(self.files.iter().enumerate().map(name).collect())
    }
}

/// A file that grows at its end through a buffer.
pub(crate) struct Sink {
    path: PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Bytes put so far.
    pub(crate) written: u64,
    world: World,
    pace: Pace,
}

impl Sink {
    fn create(world: &World, path: PathBuf) -> Result<Sink, Error> {
        let file = world.disk.create(&path).map_err(|e| error::io("create", &path, e))?;
        Ok(Sink { path, file, buffer: Vec::new(), written: 0, world: world.clone(), pace: Pace::default() })
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.put_with(|out| out.extend_from_slice(bytes))
    }

    /// Lets `write` append to the buffer.
    pub(crate) fn put_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let before = self.buffer.len();
        write(&mut self.buffer);
        self.written += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Zeroes up to a multiple of `align`.
    pub(crate) fn pad(&mut self, align: u64) -> Result<(), Error> {
        let zeroes = [0; 16];
        let missing = self.written.next_multiple_of(align) - self.written;
        self.put(&zeroes[..missing as usize])
    }

    /// In pieces with rests between them: a log that syncs beside us waits for one, and not for a whole block.
    fn flush(&mut self) -> Result<(), Error> {
        let Sink { path, file, buffer, written, world, pace } = self;
        let at = *written - buffer.len() as u64;
        pace.after(world, || {
            file.write_all_at(buffer, at).map_err(|e| error::io("write", path, e))?;
            file.sync_data().map_err(|e| error::io("sync", path, e))
        })?;
        buffer.clear();
        Ok(())
    }

    /// Flushes, syncs and returns the size.
    fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        Ok(self.written)
    }
}
