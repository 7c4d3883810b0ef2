//! A log that is read while it is written and shortened from its front: what waits for somebody who is away.
//!
//! Segments and records are those of `FORMAT.md`, with two differences: a segment is as long as what is in it, and the
//! first one kept may have any index and begin with any record, because nothing needs to be known of those before it. One
//! user at a time; its calls block on the disk. Damage is judged as in [`crate::Log`]: a torn tail is cut off, a proven
//! loss is refused; [`crate::mend`] takes it out and leaves a record in its place that says how the numbers go on.
//!
//! # Cost
//! An append is one write; a sync covers all appends before it. A read is two. Nothing is held in memory but the list of
//! segments.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use runtime::{File, World};

use crate::Error;
use crate::error;
use crate::reader::Scan;
use crate::record::{self, HEADER_BYTES, JUMP, Parsed, framed_len, number_behind, parse_header, verify};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

/// Where a record lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of its segment.
    pub segment: u64,
    /// Byte of its segment at which it begins.
    pub offset: u64,
    pub seq: u64,
}

/// A segment in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolSegment {
    pub index: u64,
    /// Its first record's number, or the next one's where it has none yet.
    pub first_seq: u64,
    pub records: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// The open spool.
pub struct Spool {
    world: World,
    dir: PathBuf,
    segment_bytes: u64,
    segments: VecDeque<SpoolSegment>,
    /// The newest segment, if records are still added to it.
    file: Option<Arc<dyn File>>,
    next_seq: u64,
    /// Everything up to here is synced.
    synced: u64,
    healed: u64,
    failed: Option<Arc<str>>,
}

impl Spool {
    /// Opens or makes the spool in `dir`, cuts off a torn tail, and shows every record to `seen`. A new segment begins
    /// where `segment_bytes` would be exceeded.
    pub fn open<E: From<Error>>(
        world: &World,
        dir: &Path,
        segment_bytes: u64,
        seen: &mut dyn FnMut(u8, Place, &[u8]) -> Result<(), E>,
    ) -> Result<Spool, E> {
        let disk = &*world.disk;
        disk.create_dir_all(dir).map_err(|e| error::io("create spool folder", dir, e))?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(|e| error::io("sync folder", parent, e))?;
        }
        let mut spool = Spool {
            world: world.clone(),
            dir: dir.to_owned(),
            segment_bytes: segment_bytes.max(4096),
            segments: VecDeque::new(),
            file: None,
            next_seq: 1,
            synced: 0,
            healed: 0,
            failed: None,
        };
        let segments = spool.listed()?;
        for (at, segment) in segments.iter().enumerate() {
            spool.take(segment, &segments[at + 1..], seen)?;
        }
        spool.synced = spool.next_seq - 1;
        Ok(spool)
    }

    /// Every segment of the folder, in order; unfinished files are removed. The last one, where it holds nothing and its
    /// header is not whole, is what a crash left of its making, and begins anew.
    fn listed(&mut self) -> Result<Vec<Segment>, Error> {
        let (disk, dir) = (&*self.world.disk, self.dir.as_path());
        let names = disk.list(dir).map_err(|e| error::io("list spool folder", dir, e))?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            let path = dir.join(name);
            disk.remove_file(&path).map_err(|e| error::io("remove", &path, e))?;
        }
        let indices: Vec<u64> = names.iter().filter_map(|n| segment::index_of(n, "segment-")).collect();
        let mut segments: Vec<Segment> = Vec::with_capacity(indices.len());
        for (at, index) in indices.iter().enumerate() {
            let opened = segment::open(disk, dir, *index);
            let segment = match opened {
                Err(error) if error.kind == Kind::Corrupt && at + 1 == indices.len() => {
                    let torn = segment::open_any(disk, dir, *index)?;
                    if torn.len > SEGMENT_HEADER_BYTES {
                        return Err(error);
                    }
                    tracing::warn!(segment = %torn.path.display(), bytes = torn.len, "spool segment was torn when it was made; it begins anew");
                    disk.write_atomic(&torn.path, &segment::encode_header(*index))
                        .map_err(|e| error::io("begin", &torn.path, e))?;
                    self.healed += torn.len;
                    segment::open(disk, dir, *index)?
                }
                opened => opened?,
            };
            segments.push(segment);
        }
        Ok(segments)
    }

    /// Walks one segment; `later` are those behind it.
    fn take<E: From<Error>>(
        &mut self,
        segment: &Segment,
        later: &[Segment],
        seen: &mut dyn FnMut(u8, Place, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scan = Scan::new(segment);
        let first = scan.peek_any()?.map(|header| header.seq);
        if self.segments.iter().all(|known| known.records == 0) {
            // Nobody knows what the first record kept should be.
            self.next_seq = first.unwrap_or(self.next_seq);
        }
        let (first_seq, mut records) = (self.next_seq, 0);
        loop {
            let (segment, offset, seq) = (segment.index, scan.offset(), self.next_seq);
            let Some((header, payload)) = scan.next(seq)? else { break };
            self.next_seq = number_behind(&header, payload);
            if header.kind != JUMP {
                records += 1;
                seen(header.kind, Place { segment, offset, seq }, payload)?;
            }
        }
        let end = scan.offset();
        if end < segment.len {
            let dirty = scan.dirty_until()?;
            let proof = match dirty {
                // A segment is synced before the next one is begun.
                Some(dirty) => !later.is_empty() || scan.find_proof(self.next_seq, dirty)?.is_some(),
                None => false,
            };
            if proof {
                return Err(damaged(
                    segment,
                    &format!("is damaged at byte {end}: record {} was durable", self.next_seq),
                )
                .into());
            }
            self.healed += segment.len - end;
            segment.file.set_len(end).map_err(|e| error::io("cut off a torn tail of", &segment.path, e))?;
            segment.file.sync_data().map_err(|e| error::io("sync", &segment.path, e))?;
        }
        if let Some(next) = later.iter().find_map(|next| first_of(next).transpose()) {
            let next = next?;
            if next != self.next_seq {
                let what = format!("ends with record {}, the next one begins with {next}", self.next_seq - 1);
                return Err(damaged(segment, &what).into());
            }
        }
        self.segments.push_back(SpoolSegment { index: segment.index, first_seq, records, bytes: end });
        Ok(())
    }

    /// Bytes of torn tails that were cut off.
    pub fn healed(&self) -> u64 {
        self.healed
    }

    /// Segments, oldest first.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SpoolSegment> + '_ {
        self.segments.iter().copied()
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether a record with so many bytes of payload would begin a new segment.
    pub fn would_switch(&self, payload: usize) -> bool {
        let Some(current) = self.file.as_ref().and(self.segments.back()) else { return true };
        current.records > 0 && current.bytes + framed_len(payload) as u64 > self.segment_bytes
    }

    /// Writes one record of a kind that is not 0; [`Spool::sync`] makes it durable. After a full disk the spool is as it was before.
    pub fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Place, Error> {
        if let Some(why) = &self.failed {
            return Err(Error::new(Kind::Unavailable, format!("the spool has failed: {why}")));
        }
        if kind == JUMP {
            return Err(Error::new(Kind::Internal, "kind 0 is the spool's own"));
        }
        let payload = parts.iter().map(|part| part.len()).sum();
        if self.would_switch(payload) {
            self.begin_segment()?;
        }
        let (Some(file), Some(current)) = (&self.file, self.segments.back_mut()) else {
            return Err(Error::new(Kind::Internal, "a spool without a segment to write to"));
        };
        let mut bytes = Vec::with_capacity(framed_len(payload));
        record::put(&mut bytes, kind, self.next_seq, parts);
        record::seal(&mut bytes, self.synced);
        let place = Place { segment: current.index, offset: current.bytes, seq: self.next_seq };
        if let Err(error) = file.write_all_at(&bytes, place.offset) {
            let path = segment::segment_path(&self.dir, place.segment);
            // A part of it may be there; only where it is gone for sure can the next one follow.
            let undo = || file.set_len(place.offset).and_then(|()| file.sync_data());
            if error.kind() != std::io::ErrorKind::StorageFull || undo().is_err() {
                self.failed = Some(error.to_string().into());
            }
            return Err(error::io("write", &path, error));
        }
        current.bytes += bytes.len() as u64;
        current.records += 1;
        self.next_seq += 1;
        Ok(place)
    }

    fn begin_segment(&mut self) -> Result<(), Error> {
        // A segment is durable before the next one is begun: what follows it then proves that.
        self.sync()?;
        let index = self.segments.back().map_or(1, |last| last.index + 1);
        let path = segment::segment_path(&self.dir, index);
        let temporary = path.with_extension("tmp");
        let disk = &*self.world.disk;
        let attempt = || -> std::io::Result<Arc<dyn File>> {
            if disk.exists(&temporary) {
                disk.remove_file(&temporary)?;
            }
            let file = disk.create(&temporary)?;
            file.write_all_at(&segment::encode_header(index), 0)?;
            file.sync_data()?;
            disk.rename(&temporary, &path)?;
            disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        self.file = Some(attempt().map_err(|e| error::io("begin", &path, e))?);
        let first_seq = self.next_seq;
        self.segments.push_back(SpoolSegment { index, first_seq, records: 0, bytes: SEGMENT_HEADER_BYTES });
        Ok(())
    }

    /// Makes every append so far durable. An error is for good: nothing more is taken.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.synced + 1 == self.next_seq {
            return Ok(());
        }
        if let Some(why) = &self.failed {
            return Err(Error::new(Kind::Unavailable, format!("the spool has failed: {why}")));
        }
        if let Some(file) = &self.file
            && let Err(error) = file.sync_data()
        {
            self.failed = Some(error.to_string().into());
            return Err(error::io("sync spool in", &self.dir, error));
        }
        self.synced = self.next_seq - 1;
        Ok(())
    }

    /// Syncs what was appended and takes nothing more, whether that succeeds or not: what is done to its files then is not undone
    /// by whoever still has it.
    pub fn end(&mut self) -> Result<(), Error> {
        let synced = self.sync();
        self.failed.get_or_insert_with(|| "its files are opened anew".into());
        synced
    }

    /// Reads the record at `place` and moves on to the next; none at the end. A place before the first record kept
    /// moves to that.
    pub fn read(&self, place: &mut Place) -> Result<Option<(u8, Vec<u8>)>, Error> {
        for known in &self.segments {
            if known.index < place.segment {
                continue;
            }
            if known.index > place.segment {
                *place = Place { segment: known.index, offset: SEGMENT_HEADER_BYTES, seq: known.first_seq };
            }
            while place.offset < known.bytes {
                let (kind, payload) = self.read_at(known, place)?;
                if kind != JUMP {
                    return Ok(Some((kind, payload)));
                }
            }
        }
        Ok(None)
    }

    fn read_at(&self, known: &SpoolSegment, place: &mut Place) -> Result<(u8, Vec<u8>), Error> {
        let path = segment::segment_path(&self.dir, known.index);
        let file = self.world.disk.open_read(&path).map_err(|e| error::io("open spool segment", &path, e))?;
        let read = |buf: &mut [u8], at| file.read_exact_at(buf, at).map_err(|e| error::io("read", &path, e));
        let bad = || {
            let segment = Segment { index: known.index, path: path.clone(), file: Arc::clone(&file), len: 0 };
            damaged(&segment, &format!("is damaged at byte {}, record {}", place.offset, place.seq))
        };
        let mut head = [0; HEADER_BYTES];
        if known.bytes - place.offset < HEADER_BYTES as u64 {
            return Err(bad());
        }
        read(&mut head, place.offset)?;
        let Parsed::Record(header, total) = parse_header(&head, known.bytes - place.offset) else {
            return Err(bad());
        };
        let mut whole = vec![0; total];
        read(&mut whole, place.offset)?;
        if header.seq != place.seq || !verify(&header, &whole) {
            return Err(bad());
        }
        whole.truncate(HEADER_BYTES + header.len as usize);
        whole.drain(..HEADER_BYTES);
        let seq = number_behind(&header, &whole);
        *place = Place { offset: place.offset + total as u64, seq, ..*place };
        Ok((header.kind, whole))
    }

    /// Deletes the oldest segment, which may be the one that is written to.
    pub fn drop_oldest(&mut self) -> Result<Option<SpoolSegment>, Error> {
        let Some(oldest) = self.segments.front().copied() else { return Ok(None) };
        let path = segment::segment_path(&self.dir, oldest.index);
        if self.segments.len() == 1 {
            // The number of what comes next must not be used again.
            self.sync()?;
            self.begin_segment()?;
        }
        let disk = &*self.world.disk;
        disk.remove_file(&path).map_err(|e| error::io("remove spool segment", &path, e))?;
        // One by one, so that a crash leaves no hole.
        disk.sync_dir(&self.dir).map_err(|e| error::io("sync spool folder", &self.dir, e))?;
        self.segments.pop_front();
        Ok(Some(oldest))
    }
}

/// The number of the record at the front of a segment, if there is one.
pub(crate) fn first_of(segment: &Segment) -> Result<Option<u64>, Error> {
    Ok(Scan::new(segment).peek_any()?.map(|header| header.seq))
}

fn damaged(segment: &Segment, what: &str) -> Error {
    let path = segment.path.display();
    Error::new(Kind::Corrupt, format!("segment {path} {what}"))
}
