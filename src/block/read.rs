//! Opens a block folder: verifies what can be verified at once, and finds series and chunks.
//!
//! # Cost
//! Files are mapped. Opening reads `meta.json`, the symbols and the postings offset table; series, postings and
//! chunks are checked against their sums when they are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chunk::Encoding;
use chunk::histogram::{FloatIter, IntIter};
use model::{Kind, Labels, TimeRange, Timestamp};
use runtime::World;

use crate::error;
use crate::index::series::{self, ChunkMeta, Decoder};
use crate::index::{IndexHeader, Plan, Toc};
use crate::meta::Meta;
use crate::mmap::map;
use crate::tombstones::Tombstones;
use crate::{Error, chunks, meta, tombstones};

/// An open block. Cheap to clone; files stay open, and readable even after the folder was removed, until the last
/// clone and the last chunk read from it are gone.
#[derive(Clone)]
pub struct Block {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    dir: PathBuf,
    meta: Meta,
    index: Bytes,
    pub(crate) header: IndexHeader,
    segments: Vec<Bytes>,
    pub(crate) tombstones: Tombstones,
}

impl Block {
    /// Opens and verifies a block's folder. An error names the file and what to do.
    pub fn open(world: &World, dir: &Path) -> Result<Block, Error> {
        let advice = |e: Error| match e.kind {
            Kind::Corrupt => Error {
                message: format!("{}; restore the block from a copy or move its folder away", e.message),
                ..e
            },
            _ => e,
        };
        let inner = Inner::open(world, dir).map_err(advice)?;
        Ok(Block { inner: Arc::new(inner) })
    }

    pub fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Closed range of the times it may hold, from its `meta.json`.
    pub fn time_range(&self) -> TimeRange {
        self.inner.meta.range()
    }

    /// What is kept in memory of its index.
    pub fn header(&self) -> &IndexHeader {
        &self.inner.header
    }

    /// Bytes of index and chunks on disk.
    pub fn size_bytes(&self) -> u64 {
        (self.inner.index.len() + self.inner.segments.iter().map(Bytes::len).sum::<usize>()) as u64
    }

    /// Numbers of all series.
    pub fn all_series(&self) -> Result<Vec<u32>, Error> {
        self.inner.series_of(&Plan::new(&[], &self.inner.header)?)
    }

    /// Reads every series and every chunk against its sum and decodes the samples of chunks that are not aggregates; the first fault
    /// is the error.
    pub fn verify(&self) -> Result<(), Error> {
        let mut decoder = Decoder::default();
        let mut last: Option<Labels> = None;
        for number in self.all_series()? {
            let labels = self.inner.decode(number, &mut decoder, last.as_ref())?;
            for at in &decoder.chunks {
                let (encoding, payload) = self.inner.chunk(number, at)?;
                self.inner.verify_samples(number, at, encoding, &payload)?;
            }
            last = Some(labels);
        }
        Ok(())
    }
}

impl Inner {
    fn open(world: &World, dir: &Path) -> Result<Inner, Error> {
        let meta_path = dir.join(meta::FILE);
        let text = world.disk.read(&meta_path).map_err(|e| error::io("read", &meta_path, e))?;
        let meta = Meta::parse(&text).map_err(|e| e.within(meta_path.display()))?;
        let name = dir.file_name().and_then(|name| name.to_str()).and_then(crate::BlockId::parse);
        if name.is_some_and(|name| name != meta.ulid) {
            let message = format!("{}: says it belongs to block {}", meta_path.display(), meta.ulid);
            return Err(Error::corrupt(message));
        }
        let index_path = dir.join("index");
        let index = map(world, &index_path)?;
        let header = read_header(&index).map_err(|e| e.within(index_path.display()))?;
        let segments = open_segments(world, &dir.join(chunks::DIR))?;
        check_sizes(dir, &meta, &index, &segments)?;
        let tombstones_path = dir.join(tombstones::FILE);
        let tombstones = if world.disk.exists(&tombstones_path) {
            let bytes =
                world.disk.read(&tombstones_path).map_err(|e| error::io("read", &tombstones_path, e))?;
            Tombstones::parse(&bytes).map_err(|e| e.within(tombstones_path.display()))?
        } else {
            Tombstones::default()
        };
        Ok(Inner { dir: dir.to_owned(), meta, index, header, segments, tombstones })
    }

    pub(crate) fn within(&self, what: impl std::fmt::Display, error: Error) -> Error {
        error.within(format_args!("block {}: {what}", self.dir.display()))
    }

    /// The series of a plan, before its `check`.
    pub(crate) fn series_of(&self, plan: &Plan) -> Result<Vec<u32>, Error> {
        plan.apply(&mut |range| Ok(self.index.slice(range.start as usize..range.end as usize)))
            .map_err(|e| self.within("index", e))
    }

    /// Postings of one range.
    pub(crate) fn postings(&self, range: &std::ops::Range<u64>) -> Result<crate::index::Postings, Error> {
        crate::index::decode_postings(&self.index.slice(range.start as usize..range.end as usize))
            .map_err(|e| self.within(format_args!("index at offset {}", range.start), e))
    }

    /// The series section from where an entry begins.
    fn entry_bytes(&self, number: u32) -> Result<&[u8], Error> {
        let at = series::offset(number);
        let section = self.header.toc.series_range();
        if !section.contains(&at) {
            return Err(Error::corrupt("postings name a series outside of the series section"));
        }
        Ok(&self.index[at as usize..section.end as usize])
    }

    /// An entry from its labels on; its sum is not looked at.
    pub(crate) fn entry(&self, number: u32) -> Result<&[u8], Error> {
        self.entry_bytes(number).and_then(series::unchecked_body).map_err(|e| self.at_series(number, e))
    }

    /// Reads a series' chunks into the decoder.
    pub(crate) fn decode_chunks(&self, number: u32, decoder: &mut Decoder) -> Result<(), Error> {
        self.entry_bytes(number)
            .and_then(|bytes| decoder.decode_chunks(bytes))
            .map_err(|e| self.at_series(number, e))
    }

    fn at_series(&self, number: u32, error: Error) -> Error {
        let at = series::offset(number);
        self.within(format_args!("series {number} at index offset {at}"), error)
    }

    /// Labels of a series; its chunks are in the decoder. `last` is the series before, to check the order.
    pub(crate) fn decode(
        &self,
        number: u32,
        decoder: &mut Decoder,
        last: Option<&Labels>,
    ) -> Result<Labels, Error> {
        let labels = self
            .entry_bytes(number)
            .and_then(|bytes| decoder.decode(bytes, &self.header.symbols))
            .map_err(|e| self.at_series(number, e))?;
        if last.is_some_and(|last| *last >= labels) {
            let error = Error::corrupt(format!("{labels} is not in order"));
            return Err(self.at_series(number, error));
        }
        Ok(labels)
    }

    /// Encoding and payload of a chunk, checked against its sum.
    pub(crate) fn chunk(&self, number: u32, at: &ChunkMeta) -> Result<(Encoding, Bytes), Error> {
        let place = || {
            let file = chunks::file_name(at.segment());
            format!("series {number}, chunk at offset {} of {}/{file}", at.offset(), chunks::DIR)
        };
        let segment = self.segments.get(at.segment());
        let bytes =
            segment.filter(|s| (at.offset() as usize) < s.len()).map(|s| s.slice(at.offset() as usize..));
        let bytes =
            bytes.ok_or_else(|| self.within(place(), Error::corrupt("lies behind the end of the file")))?;
        chunks::decode_chunk(&bytes).map_err(|e| self.within(place(), e))
    }

    fn verify_samples(
        &self,
        number: u32,
        at: &ChunkMeta,
        encoding: Encoding,
        payload: &[u8],
    ) -> Result<(), Error> {
        let times: Result<(), String> = match encoding {
            Encoding::Xor => chunk::xor::Iter::new(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.timestamp)))),
            Encoding::Histogram => IntIter::new(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.timestamp)))),
            Encoding::FloatHistogram => FloatIter::new(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.timestamp)))),
            Encoding::Xor2 => chunk::xor2::Iter::new(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.0.timestamp)))),
            Encoding::HistogramStart => IntIter::started(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.timestamp)))),
            Encoding::FloatHistogramStart => FloatIter::started(payload)
                .map_err(|e| e.to_string())
                .and_then(|samples| check_times(at, samples.map(|s| s.map(|s| s.timestamp)))),
            Encoding::Aggregate => Ok(()),
        };
        times.map_err(|text| {
            self.within(format_args!("series {number}, chunk {:#x}", at.reference), Error::corrupt(text))
        })
    }
}

/// Whether all samples decode, in order and within the chunk's range.
fn check_times(
    at: &ChunkMeta,
    times: impl Iterator<Item = Result<Timestamp, chunk::Error>>,
) -> Result<(), String> {
    let mut last = None;
    for time in times {
        let time = time.map_err(|e| e.to_string())?;
        if !at.range.contains(time) || last.is_some_and(|t| t >= time) {
            return Err(format!("a sample at {time} is out of order or of range"));
        }
        last = Some(time);
    }
    Ok(())
}

fn read_header(index: &Bytes) -> Result<IndexHeader, Error> {
    let size = index.len() as u64;
    crate::index::check_head(index)?;
    let tail = Toc::range(size)?;
    let toc = Toc::decode(&index[tail.start as usize..], size)?;
    let part = |range: std::ops::Range<u64>| index.slice(range.start as usize..range.end as usize);
    IndexHeader::new(toc, size, &part(toc.symbols_range()), &part(toc.table_range(size)))
}

/// Maps `000001`, `000002`, ... which must follow one another.
fn open_segments(world: &World, dir: &Path) -> Result<Vec<Bytes>, Error> {
    let names = world.disk.list(dir).map_err(|e| error::io("list", dir, e))?;
    let mut segments = Vec::new();
    for name in names.iter().filter(|name| name.len() == 6 && name.bytes().all(|b| b.is_ascii_digit())) {
        let path = dir.join(name);
        if *name != chunks::file_name(segments.len()) {
            let message =
                format!("{}: segment {} is missing", dir.display(), chunks::file_name(segments.len()));
            return Err(Error::corrupt(message));
        }
        let segment = map(world, &path)?;
        chunks::check_head(&segment).map_err(|e| e.within(path.display()))?;
        segments.push(segment);
    }
    Ok(segments)
}

/// Where `meta.json` lists the files' sizes, they must be so: finds truncation before a query does.
fn check_sizes(dir: &Path, meta: &Meta, index: &Bytes, segments: &[Bytes]) -> Result<(), Error> {
    for file in meta.thanos.iter().flat_map(|t| &t.files).filter(|file| file.size_bytes > 0) {
        let actual = match file.rel_path.strip_prefix("chunks/") {
            Some(name) => {
                (0..segments.len()).find(|&at| chunks::file_name(at) == name).map(|at| segments[at].len())
            }
            None if file.rel_path == "index" => Some(index.len()),
            None => continue,
        };
        if actual.map(|size| size as u64) != Some(file.size_bytes) {
            let found = actual.map_or("is missing".to_owned(), |size| format!("has {size} bytes"));
            return Err(Error::corrupt(format!(
                "{}: {found}, but meta.json says {}",
                dir.join(&file.rel_path).display(),
                file.size_bytes
            )));
        }
    }
    Ok(())
}
