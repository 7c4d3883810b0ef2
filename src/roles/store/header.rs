//! Index headers of remote blocks: read by three ranged requests at first use, kept on disk and, while used, in
//! memory.
//!
//! The file is Thanos's `<data-dir>/<ULID>/index-header`: symbols and postings offset table copied from the index,
//! between a head of 14 bytes and a table of contents of 20. Either program can use what the other left.
//! Memory: the headers used last, up to a limit; a header alone that is larger than the limit is still used.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::BlockId;
use block::index::{self, IndexHeader, Toc, toc};
use bucket::{Bucket, layout};
use bytes::Bytes;
use model::Kind;
use parking_lot::Mutex;
use runtime::World;

use crate::Error;

const MAGIC: u32 = 0xbaaa_d792;
const VERSION: u8 = 1;
const HEAD_LEN: usize = 14;
const TAIL_LEN: usize = 20;
const FILE: &str = "index-header";
/// Zeroes that a writer may have put between the head of an index and its symbols.
const PADDING: u64 = 4096;
/// The end of an index is fetched in this many bytes at first: small blocks need no second request for their table.
const FIRST_TAIL: u64 = 64 << 10;

/// All index headers of a store.
pub(crate) struct Headers {
    bucket: Bucket,
    world: World,
    dir: PathBuf,
    limit: usize,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    held: HashMap<BlockId, Held>,
    bytes: usize,
    /// Counts uses; the least recently used has the smallest.
    clock: u64,
    /// One loads, the others wait.
    loading: HashMap<BlockId, Arc<tokio::sync::Mutex<()>>>,
}

struct Held {
    header: Arc<IndexHeader>,
    bytes: usize,
    used: u64,
}

impl Headers {
    pub(crate) fn new(bucket: Bucket, world: &World, dir: PathBuf, limit: u64) -> Headers {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Headers { bucket, world: world.clone(), dir, limit, memory: Mutex::default() }
    }

    /// The header of a block; `size` is that of its index, where it is known.
    pub(crate) async fn get(&self, id: BlockId, size: Option<u64>) -> Result<Arc<IndexHeader>, Error> {
        if let Some(header) = self.held(id) {
            return Ok(header);
        }
        let loading = self.memory.lock().loading.entry(id).or_default().clone();
        let _one = loading.lock().await;
        if let Some(header) = self.held(id) {
            return Ok(header);
        }
        let loaded = self.load(id, size).await;
        let mut memory = self.memory.lock();
        memory.loading.remove(&id);
        let (header, bytes) = loaded?;
        let header = Arc::new(header);
        memory.keep(id, header.clone(), bytes, self.limit);
        metrics::gauge!("tributary_store_index_header_bytes").set(memory.bytes as f64);
        Ok(header)
    }

    /// Forgets blocks that are gone, in memory and on disk. Blocks on the disk.
    pub(crate) fn keep_only(&self, present: &BTreeSet<BlockId>) {
        {
            let mut memory = self.memory.lock();
            let gone: Vec<BlockId> = memory.held.keys().filter(|id| !present.contains(id)).copied().collect();
            gone.into_iter().for_each(|id| memory.drop_one(id));
        }
        let disk = &self.world.disk;
        if !disk.is_dir(&self.dir) {
            return;
        }
        let swept = disk.list(&self.dir).and_then(|names| {
            for name in names {
                if BlockId::parse(&name).is_some_and(|id| !present.contains(&id)) {
                    disk.remove_dir_all(&self.dir.join(name))?;
                }
            }
            Ok(())
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "index headers of deleted blocks stay on disk");
        }
    }

    fn held(&self, id: BlockId) -> Option<Arc<IndexHeader>> {
        let mut memory = self.memory.lock();
        memory.clock += 1;
        let now = memory.clock;
        let held = memory.held.get_mut(&id)?;
        held.used = now;
        Some(held.header.clone())
    }

    async fn load(&self, id: BlockId, size: Option<u64>) -> Result<(IndexHeader, usize), Error> {
        metrics::counter!("thanos_bucket_store_indexheader_lazy_load_total").increment(1);
        let path = self.dir.join(id.to_string()).join(FILE);
        let (disk, at) = (self.world.disk.clone(), path.clone());
        let cached = off_thread(move || if disk.exists(&at) { disk.read(&at).map(Some) } else { Ok(None) });
        match cached.await {
            Ok(Some(bytes)) => match unpack(&Bytes::from(bytes), size) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => {
                    tracing::warn!(block = %id, %error, "index header on disk is read again from the bucket")
                }
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(block = %id, %error, "index header on disk cannot be read"),
        }
        let (toc, size, front, table) = self.fetch(id, size).await?;
        let header = IndexHeader::new(toc, size, &front, &table)
            .map_err(|e| e.within(format_args!("index of block {id}")))?;
        let bytes = header.memory() + front.len() + table.len();
        let (disk, packed) = (self.world.disk.clone(), pack(&toc, &front, &table));
        let written = off_thread(move || {
            disk.create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            disk.write_atomic(&path, &packed)
        });
        if let Err(error) = written.await {
            tracing::warn!(block = %id, %error, "index header is not kept on disk");
        }
        Ok((header, bytes))
    }

    /// Table of contents, size of the index, and its two ranges.
    async fn fetch(&self, id: BlockId, size: Option<u64>) -> Result<(Toc, u64, Bytes, Bytes), Error> {
        let path = layout::of(id, layout::INDEX);
        let size = match size {
            Some(size) => size,
            None => self.bucket.size(&path).await?.ok_or_else(|| {
                Error::corrupt(format!("block {id} has no index in bucket {:?}", self.bucket.name()))
            })?,
        };
        let within = |e: block::Error| e.within(format_args!("index of block {id}"));
        let least = Toc::range(size).map_err(within)?;
        let tail_range = size.saturating_sub(FIRST_TAIL).min(least.start)..size;
        let tail = self.bucket.get_range(&path, tail_range.clone()).await?;
        if tail.len() as u64 != size - tail_range.start {
            return Err(Error::corrupt(format!("index of block {id} is shorter than its meta.json says")));
        }
        let toc = Toc::decode(&tail, size).map_err(within)?;
        let table_range = toc.table_range(size);
        let (front, table) = tokio::join!(self.bucket.get_range(&path, toc.symbols_range()), async {
            match table_range.start.checked_sub(tail_range.start) {
                Some(at) => Ok(tail.slice(at as usize..)),
                None => self.bucket.get_range(&path, table_range).await,
            }
        });
        Ok((toc, size, front?, table?))
    }
}

impl Memory {
    fn keep(&mut self, id: BlockId, header: Arc<IndexHeader>, bytes: usize, limit: usize) {
        while self.bytes + bytes > limit {
            let Some(oldest) = self.held.iter().min_by_key(|(_, held)| held.used).map(|(id, _)| *id) else {
                break;
            };
            self.drop_one(oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.held.insert(id, Held { header, bytes, used: self.clock });
    }

    fn drop_one(&mut self, id: BlockId) {
        if let Some(held) = self.held.remove(&id) {
            self.bytes -= held.bytes;
        }
    }
}

fn pack(toc: &Toc, front: &[u8], table: &[u8]) -> Vec<u8> {
    let symbols = &front[(toc.symbols as usize).min(front.len())..];
    let mut out = Vec::with_capacity(HEAD_LEN + symbols.len() + table.len() + TAIL_LEN);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&[VERSION, index::VERSION]);
    out.extend_from_slice(&toc.postings_table.to_be_bytes());
    out.extend_from_slice(symbols);
    let table_at = out.len() as u64;
    out.extend_from_slice(table);
    let tail_at = out.len();
    out.extend_from_slice(&(HEAD_LEN as u64).to_be_bytes());
    out.extend_from_slice(&table_at.to_be_bytes());
    let sum = crc32c::crc32c(&out[tail_at..]);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

/// Reads what [`pack`] or Thanos wrote, and the bytes it takes in memory.
fn unpack(bytes: &Bytes, size: Option<u64>) -> Result<(IndexHeader, usize), Error> {
    let bad = |what: &str| Error::corrupt(format!("index header file: {what}"));
    let u64_at =
        |at: usize| -> Option<u64> { Some(u64::from_be_bytes(*bytes.get(at..at + 8)?.first_chunk::<8>()?)) };
    if bytes.len() < HEAD_LEN + TAIL_LEN || bytes[..4] != MAGIC.to_be_bytes() {
        return Err(bad("it is cut short or something else"));
    }
    if bytes[4] != VERSION || bytes[5] != index::VERSION {
        return Err(bad("it has another version"));
    }
    let tail = bytes.len() - TAIL_LEN;
    let sum = bytes[tail + 16..].first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
    if sum != Some(crc32c::crc32c(&bytes[tail..tail + 16])) {
        return Err(bad("checksum of its table of contents does not match"));
    }
    let (Some(table_offset), Some(symbols_at), Some(table_at)) = (u64_at(6), u64_at(tail), u64_at(tail + 8))
    else {
        return Err(bad("it is cut short"));
    };
    let (symbols_at, table_at) = (symbols_at as usize, table_at as usize);
    if symbols_at != HEAD_LEN || table_at < symbols_at || table_at > tail {
        return Err(bad("its sections are out of order"));
    }
    let table = bytes.slice(table_at..tail);
    let index_size = table_offset.saturating_add(table.len() as u64);
    if size.is_some_and(|size| size != index_size) || (table.len() as u64) < toc::LEN {
        return Err(bad("it belongs to an index of another size"));
    }
    let toc = Toc::decode(&table, index_size)?;
    let symbols = &bytes[symbols_at..table_at];
    let fits = toc.postings_table == table_offset
        && toc.symbols >= index::HEAD_LEN
        && toc.symbols <= index::HEAD_LEN + PADDING
        && toc.symbols + symbols.len() as u64 == toc.series;
    if !fits {
        return Err(bad("its parts do not fit one another"));
    }
    // What lies before the symbols is five bytes of head, which the file does not have.
    let mut front = Vec::with_capacity(toc.series as usize);
    front.extend_from_slice(&index::MAGIC);
    front.push(index::VERSION);
    front.resize(toc.symbols as usize, 0);
    front.extend_from_slice(symbols);
    let header = IndexHeader::new(toc, index_size, &Bytes::from(front), &table)?;
    let held = header.memory() + toc.series as usize + bytes.len();
    Ok((header, held))
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::Unavailable, e.to_string());
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|e| failed(&e)),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), valid_tail: bool) {
            if valid_tail && bytes.len() >= HEAD_LEN + TAIL_LEN {
                bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                bytes[4] = VERSION;
                bytes[5] = index::VERSION;
                let tail = bytes.len() - TAIL_LEN;
                let sum = crc32c::crc32c(&bytes[tail..tail + 16]);
                bytes[tail + 16..].copy_from_slice(&sum.to_be_bytes());
            }
            prop_assert!(unpack(&bytes.into(), None).is_err());
        }
    }
}
