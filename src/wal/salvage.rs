//! What can still be read of a damaged log, before and after the damage, and a new log made of it.
//!
//! A reader takes every record that checks out and whose number is above those before it; bytes in between are
//! lost and named, and so are the numbers that are missing. The damaged log is never changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use runtime::{File, World};

use crate::Error;
use crate::checkpoint::{self, CheckpointWriter};
use crate::error;
use crate::reader::Scan;
use crate::record::{self, HEADER_BYTES, framed_len};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

/// Size from which the new log begins its next segment.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A record that could be read.
#[derive(Clone, Copy, Debug)]
pub struct Readable<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
    pub from_checkpoint: bool,
}

/// Bytes of a file that hold no record that checks out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBytes {
    pub file: String,
    /// From here, up to and without `until`.
    pub from: u64,
    pub until: u64,
}

/// What reading a damaged log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records read, those of the checkpoint included.
    pub records: u64,
    pub bytes: Vec<LostBytes>,
    /// Numbers of records that are gone, as first and last.
    pub numbers: Vec<(u64, u64)>,
    /// Files that are not there.
    pub missing: Vec<String>,
}

impl Losses {
    /// How many records are known to be gone.
    pub fn lost_records(&self) -> u64 {
        self.numbers.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many bytes hold nothing readable.
    pub fn lost_bytes(&self) -> u64 {
        self.bytes.iter().map(|lost| lost.until - lost.from).sum()
    }
}

/// Hands every readable record of the log in `dir` to `sink`, in order: the newest checkpoint, then the segments.
pub fn read_damaged<E: From<Error>>(
    world: &World,
    dir: &Path,
    sink: &mut dyn FnMut(Readable<'_>) -> Result<(), E>,
) -> Result<Losses, E> {
    let names = world.disk.list(dir).map_err(|e| error::io("list log folder", dir, e))?;
    let checkpoint = names.iter().filter_map(|name| segment::index_of(name, checkpoint::PREFIX)).max();
    let mut segments: Vec<u64> = names.iter().filter_map(|n| segment::index_of(n, "segment-")).collect();
    segments.sort_unstable();
    segments.retain(|index| checkpoint.is_none_or(|c| *index >= c));
    if segments.is_empty() && checkpoint.is_none() {
        return Err(Error::new(Kind::Invalid, format!("{} holds no log", dir.display())).into());
    }
    let mut losses = Losses::default();
    let mut next = None;
    if let Some(index) = checkpoint {
        let name = format!("{}{index:012}", checkpoint::PREFIX);
        let mut first = None;
        let mut numbers = 1;
        walk::<E>(world, dir, &name, index, &mut numbers, &mut losses, &mut |header, payload| {
            if header.kind == checkpoint::END && payload.len() == 8 {
                first = Some(record::u64_at(payload, 0));
                return Ok(());
            }
            sink(Readable { kind: header.kind, payload, from_checkpoint: true })
        })?;
        next = first;
    }
    let mut expected = checkpoint.unwrap_or(1);
    // Only a log without a checkpoint is known to begin with record 1.
    let mut number = next.or(checkpoint.is_none().then_some(1)).unwrap_or(0);
    for index in segments {
        losses.missing.extend((expected..index).map(segment::segment_name));
        expected = index + 1;
        let name = segment::segment_name(index);
        walk(world, dir, &name, index, &mut number, &mut losses, &mut |header, payload| {
            if header.kind == record::JUMP {
                return Ok(());
            }
            sink(Readable { kind: header.kind, payload, from_checkpoint: false })
        })?;
    }
    Ok(losses)
}

/// Reads one file. `next`: the number that the next record should have; 0 where nobody knows.
fn walk<E: From<Error>>(
    world: &World,
    dir: &Path,
    name: &str,
    index: u64,
    next: &mut u64,
    losses: &mut Losses,
    sink: &mut dyn FnMut(record::Header, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let path = dir.join(name);
    let file = world.disk.open_read(&path).map_err(|e| error::io("open log file", &path, e))?;
    let len = file.len().map_err(|e| error::io("size of log file", &path, e))?;
    let mut head = vec![0; len.min(SEGMENT_HEADER_BYTES) as usize];
    file.read_exact_at(&mut head, 0).map_err(|e| error::io("read log file", &path, e))?;
    if head != segment::encode_header(index) {
        losses.bytes.push(LostBytes { file: name.to_owned(), from: 0, until: head.len() as u64 });
    }
    let segment = Segment { index, path, file, len };
    let mut scan = Scan::new(&segment);
    loop {
        let (bad, header) = scan.seek(|seq, _| seq >= *next)?;
        let lost = bad.map(|(from, until)| LostBytes { file: name.to_owned(), from, until });
        losses.bytes.extend(lost);
        let Some(header) = header else { return Ok(()) };
        if *next > 0 && header.seq > *next {
            losses.numbers.push((*next, header.seq - 1));
        }
        *next = header.seq.saturating_add(1);
        if let Some((header, payload)) = scan.next(header.seq)? {
            losses.records += 1;
            sink(header, payload)?;
        }
    }
}

/// Makes a new log in a folder of its own: first what its checkpoint holds, then its records.
pub struct NewLog {
    world: World,
    dir: PathBuf,
    checkpoint: Option<CheckpointWriter>,
    file: Option<Arc<dyn File>>,
    index: u64,
    offset: u64,
    seq: u64,
    buf: Vec<u8>,
}

impl NewLog {
    /// Begins a log in `dir`, which must be new or empty.
    pub fn create(world: &World, dir: &Path) -> Result<NewLog, Error> {
        let disk = &*world.disk;
        let full =
            disk.exists(dir) && !disk.list(dir).map_err(|e| error::io("list folder", dir, e))?.is_empty();
        if full {
            let text = format!("{} is not empty; name a new folder for the salvaged log", dir.display());
            return Err(Error::new(Kind::Refused, text));
        }
        disk.create_dir_all(dir).map_err(|e| error::io("create log folder", dir, e))?;
        Ok(NewLog {
            world: world.clone(),
            dir: dir.to_owned(),
            checkpoint: Some(CheckpointWriter::create(world, dir, 1)?),
            file: None,
            index: 0,
            offset: 0,
            seq: 1,
            buf: Vec::new(),
        })
    }

    /// Adds a record to the checkpoint; none after the first [`NewLog::put`].
    pub fn put_checkpoint(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error> {
        match &mut self.checkpoint {
            Some(checkpoint) => checkpoint.put(kind, &[payload]),
            None => Err(Error::new(Kind::Internal, "a checkpoint's record came after the log's first")),
        }
    }

    /// Adds a record to the log.
    pub fn put(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error> {
        self.end_checkpoint()?;
        let used = self.offset + self.buf.len() as u64;
        let full = used + framed_len(payload.len()) as u64 > SEGMENT_BYTES && used > SEGMENT_HEADER_BYTES;
        if self.file.is_none() || full {
            self.end_segment()?;
            self.index += 1;
            let path = segment::segment_path(&self.dir, self.index);
            let file =
                self.world.disk.create(&path).map_err(|e| error::io("create log segment", &path, e))?;
            file.write_all_at(&segment::encode_header(self.index), 0)
                .map_err(|e| error::io("write log segment", &path, e))?;
            self.file = Some(file);
            self.offset = SEGMENT_HEADER_BYTES;
        }
        record::put(&mut self.buf, kind, self.seq, &[payload]);
        self.seq += 1;
        if self.buf.len() >= 4 << 20 { self.flush() } else { Ok(()) }
    }

    /// Ends the log, durable.
    pub fn finish(mut self) -> Result<(), Error> {
        self.end_checkpoint()?;
        self.end_segment()?;
        self.world.disk.sync_dir(&self.dir).map_err(|e| error::io("sync log folder", &self.dir, e))?;
        if let Some(parent) = self.dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.world.disk.sync_dir(parent).map_err(|e| error::io("sync folder", parent, e))?;
        }
        Ok(())
    }

    fn end_checkpoint(&mut self) -> Result<(), Error> {
        match self.checkpoint.take() {
            Some(checkpoint) => checkpoint.finish(&self.world, 1),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = segment::segment_path(&self.dir, self.index);
        // All before it is durable as far as any reader will ever know.
        record::seal(&mut self.buf, self.seq - 1);
        file.write_all_at(&self.buf, self.offset).map_err(|e| error::io("write log segment", &path, e))?;
        self.offset += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), Error> {
        self.flush()?;
        let Some(file) = self.file.take() else { return Ok(()) };
        let path = segment::segment_path(&self.dir, self.index);
        let room = [0; HEADER_BYTES];
        file.write_all_at(&room, self.offset).map_err(|e| error::io("write log segment", &path, e))?;
        file.sync_data().map_err(|e| error::io("sync log segment", &path, e))
    }
}
