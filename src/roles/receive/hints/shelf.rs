//! The hints of one peer on disk: kept at the back, delivered from the front, bounded in bytes and age.
//!
//! Where the bound is met the oldest file goes, whole, and is counted: what a peer missed last is what its readers ask for
//! first. How far hints were delivered is noted in the catalog; where that was lost, or is of another life of the folder,
//! they are delivered again, which changes nothing at the peer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use catalog::{Catalog, HintCursor, HintFile};
use model::{Kind, Timestamp};
use runtime::World;
use wal::{Place, Spool};

use super::frame::{self, Frame};
use super::mend;
use crate::Error;

/// Says whose hints these are, and which life of the folder this is; the first record of every file.
const OWNER: u8 = 1;
const HINT: u8 = 2;

/// Bounds of one peer's hints.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_bytes: u64,
    /// Milliseconds.
    pub max_age: i64,
    pub segment_bytes: u64,
}

/// Why hints were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    Bytes,
    Age,
}

/// One peer's hints.
pub struct Shelf {
    world: World,
    peer: String,
    dir: PathBuf,
    bounds: Bounds,
    life: [u8; 16],
    spool: Spool,
    files: BTreeMap<u64, File>,
    cursor: Place,
    /// Changed since it was noted: files, files that are gone.
    dirty: Vec<u64>,
    gone: Vec<u64>,
    moved: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct File {
    whole: HintFile,
    /// What of it was not delivered.
    hints: u64,
    samples: u64,
}

impl File {
    fn add(&mut self, index: u64, kept_at: Timestamp, samples: u64, delivered: bool) {
        let whole = &mut self.whole;
        whole.index = index;
        whole.oldest = if whole.hints == 0 { kept_at } else { whole.oldest.min(kept_at) };
        whole.newest = if whole.hints == 0 { kept_at } else { whole.newest.max(kept_at) };
        whole.hints += 1;
        whole.samples += samples;
        if !delivered {
            self.hints += 1;
            self.samples += samples;
        }
    }
}

/// A hint and what comes behind it.
#[derive(Debug)]
pub struct Next {
    pub frame: Frame,
    /// Bytes that it takes on disk.
    pub bytes: u64,
    place: Place,
    after: Place,
}

/// Where a hint lay.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    segment: u64,
    after: Place,
    samples: u64,
}

impl Next {
    /// For [`Shelf::passed`].
    pub fn mark(&self) -> Mark {
        let samples = u64::from(self.frame.samples);
        Mark { segment: self.place.segment, after: self.after, samples }
    }
}

impl Shelf {
    /// Opens or makes the folder `dir` of `peer`, and mends it where it is damaged. `noted`: what the catalog has of it.
    pub fn open(
        world: &World,
        dir: &Path,
        peer: &str,
        bounds: Bounds,
        noted: Option<HintCursor>,
    ) -> Result<Shelf, Error> {
        match Shelf::find(world, dir, peer, bounds, noted) {
            Err(error) if error.kind == Kind::Corrupt => match mend::mend(world, dir, peer)? {
                0 => Err(error),
                _ => Shelf::find(world, dir, peer, bounds, noted),
            },
            found => found,
        }
    }

    fn find(
        world: &World,
        dir: &Path,
        peer: &str,
        bounds: Bounds,
        noted: Option<HintCursor>,
    ) -> Result<Shelf, Error> {
        let mut life = None;
        let mut seen: Vec<(Place, Timestamp, u64)> = Vec::new();
        let mut last = Place::default();
        let spool = Spool::open::<Error>(world, dir, bounds.segment_bytes, &mut |kind, place, bytes| {
            last = after(place, bytes.len());
            match kind {
                OWNER => {
                    let (name, owner) = bytes.split_first_chunk::<16>().ok_or_else(|| strange(dir))?;
                    if owner != peer.as_bytes() || life.is_some_and(|life| life != *name) {
                        return Err(strange(dir));
                    }
                    life = Some(*name);
                }
                _ => {
                    // What is not understood is set aside when it is its turn.
                    let (kept_at, samples) = frame::peek(bytes).unwrap_or((world.clock.now_ms(), 0));
                    seen.push((place, kept_at, u64::from(samples)));
                }
            }
            Ok(())
        })?;
        if spool.healed() > 0 {
            metrics::counter!("tributary_hints_healed_bytes_total").increment(spool.healed());
        }
        let noted = noted.filter(|noted| Some(noted.life) == life);
        // By segment and number, which never change: a segment that was mended has its records at other bytes.
        let cursor = noted.map(|noted| {
            let waits = |place: &Place| (place.segment, place.seq) >= (noted.segment, noted.seq);
            seen.iter().find(|(place, ..)| waits(place)).map_or(last, |(place, ..)| *place)
        });
        let cursor = cursor.unwrap_or_default();
        let mut files: BTreeMap<u64, File> = BTreeMap::new();
        for (place, kept_at, samples) in seen {
            files.entry(place.segment).or_default().add(place.segment, kept_at, samples, place < cursor);
        }
        let life = life.unwrap_or_else(|| {
            let (a, b) = (world.chance.next_u64().to_le_bytes(), world.chance.next_u64().to_le_bytes());
            std::array::from_fn(|at| if at < 8 { a[at] } else { b[at - 8] })
        });
        let dirty = files.keys().copied().collect();
        let mut shelf = Shelf {
            world: world.clone(),
            peer: peer.to_owned(),
            dir: dir.to_owned(),
            bounds,
            life,
            spool,
            files,
            cursor,
            dirty,
            gone: Vec::new(),
            moved: true,
        };
        shelf.measure();
        Ok(shelf)
    }

    fn measure(&mut self) {
        for segment in self.spool.segments() {
            if let Some(file) = self.files.get_mut(&segment.index) {
                file.whole.bytes = segment.bytes;
            }
        }
    }

    /// Hints and samples that wait.
    pub fn waiting(&self) -> (u64, u64) {
        self.files.values().fold((0, 0), |sum, file| (sum.0 + file.hints, sum.1 + file.samples))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes()
    }

    /// Keeps one hint; durable with [`Shelf::sync`].
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (kept_at, samples) = frame::peek(bytes).ok_or_else(|| strange(&self.dir))?;
        let wanted = wal::framed_len(bytes.len()) as u64;
        while self.spool.bytes() + wanted > self.bounds.max_bytes
            && self.spool.segments().any(|segment| segment.records > 0)
        {
            self.drop_oldest(Some(Dropped::Bytes))?;
        }
        if self.spool.would_switch(bytes.len()) {
            self.spool.append(OWNER, &[&self.life, self.peer.as_bytes()])?;
        }
        let place = self.spool.append(HINT, &[bytes])?;
        let file = self.files.entry(place.segment).or_default();
        file.add(place.segment, kept_at, u64::from(samples), false);
        if self.dirty.last() != Some(&place.segment) {
            self.dirty.push(place.segment);
        }
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), Error> {
        self.spool.sync()
    }

    /// Makes durable what was kept and takes nothing more.
    pub fn end(&mut self) -> Result<(), Error> {
        self.spool.end()
    }

    /// The next hints to deliver, at most `most` of them; those that are too old are given up on the way. Damage that is met is
    /// taken out of the way first.
    pub fn next(&mut self, now: Timestamp, most: usize) -> Result<Vec<Next>, Error> {
        match self.read(now, most) {
            Err(error) if error.kind == Kind::Corrupt => {
                self.mend(error)?;
                self.read(now, most)
            }
            read => read,
        }
    }

    /// Mends the folder because of `error`, and goes on where it was.
    fn mend(&mut self, error: Error) -> Result<(), Error> {
        self.spool.end()?;
        if mend::mend(&self.world, &self.dir, &self.peer)? == 0 {
            return Err(error);
        }
        let noted = Some(self.cursor());
        let mended = Shelf::find(&self.world, &self.dir, &self.peer, self.bounds, noted)?;
        let gone = std::mem::replace(self, mended).gone;
        self.gone = gone;
        Ok(())
    }

    fn cursor(&self) -> HintCursor {
        let Place { segment, offset, seq } = self.cursor;
        HintCursor { life: self.life, segment, offset, seq }
    }

    fn read(&mut self, now: Timestamp, most: usize) -> Result<Vec<Next>, Error> {
        let oldest = now.saturating_sub(self.bounds.max_age);
        while self.files.first_key_value().is_some_and(|(_, file)| file.whole.newest < oldest) {
            self.drop_oldest(Some(Dropped::Age))?;
        }
        let mut out: Vec<Next> = Vec::new();
        while out.len() < most {
            let mut after = out.last().map_or(self.cursor, |last| last.after);
            let mut read = self.spool.read(&mut after)?;
            if out.last().is_some() && matches!(read, Some((OWNER, _))) {
                read = self.spool.read(&mut after)?;
            }
            let Some((kind, bytes)) = read else { break };
            let place = Place {
                offset: after.offset - wal::framed_len(bytes.len()) as u64,
                seq: after.seq - 1,
                ..after
            };
            if kind == OWNER {
                self.cursor = after;
                continue;
            }
            let frame = match frame::decode(&bytes) {
                Ok(frame) => frame,
                // What is before it comes first.
                Err(_) if !out.is_empty() => break,
                Err(error) => {
                    mend::keep_one(&self.world, &self.dir, &self.peer, place, &bytes, &error)?;
                    let samples = frame::peek(&bytes).map_or(0, |(_, samples)| u64::from(samples));
                    self.passed(&Mark { segment: place.segment, after, samples })?;
                    continue;
                }
            };
            let next = Next { frame, bytes: bytes.len() as u64, place, after };
            if next.frame.kept_at >= oldest {
                out.push(next);
            } else if out.is_empty() {
                count_dropped(&self.peer, Dropped::Age, u64::from(next.frame.samples));
                self.passed(&next.mark())?;
            } else {
                break;
            }
        }
        Ok(out)
    }

    /// A hint is done with: delivered, or refused for good.
    pub fn passed(&mut self, next: &Mark) -> Result<(), Error> {
        if next.after <= self.cursor {
            return Ok(());
        }
        (self.cursor, self.moved) = (next.after, true);
        if let Some(file) = self.files.get_mut(&next.segment) {
            file.hints = file.hints.saturating_sub(1);
            file.samples = file.samples.saturating_sub(next.samples);
        }
        // Files before the one that is read are done with.
        while self.spool.segments().next().is_some_and(|first| first.index < self.cursor.segment) {
            self.drop_oldest(None)?;
        }
        Ok(())
    }

    fn drop_oldest(&mut self, why: Option<Dropped>) -> Result<(), Error> {
        let Some(segment) = self.spool.drop_oldest()? else { return Ok(()) };
        let file = self.files.remove(&segment.index).unwrap_or_default();
        self.gone.push(segment.index);
        self.dirty.retain(|index| *index != segment.index);
        if let Some(why) = why {
            count_dropped(&self.peer, why, file.samples);
            if file.hints > 0 {
                tracing::warn!(
                    peer = self.peer,
                    ?why,
                    hints = file.hints,
                    samples = file.samples,
                    "hints were given up: the peer will not have these samples; the other copies do"
                );
            }
        }
        Ok(())
    }

    /// Notes in the catalog what has changed.
    pub fn note(&mut self, catalog: &Catalog) -> Result<(), Error> {
        if !self.moved && self.dirty.is_empty() && self.gone.is_empty() {
            return Ok(());
        }
        self.measure();
        let files: Vec<HintFile> =
            self.dirty.iter().filter_map(|index| self.files.get(index)).map(|file| file.whole).collect();
        catalog.hints_put(&self.peer, &files, &self.gone, Some(&self.cursor()))?;
        self.dirty.clear();
        self.gone.clear();
        self.moved = false;
        Ok(())
    }

    /// Removes the folder; for a shelf that has nothing more.
    pub fn remove(self, catalog: Option<&Catalog>) -> Result<(), Error> {
        remove(&self.world, &self.dir)?;
        if let Some(catalog) = catalog {
            catalog.hints_forget(&self.peer)?;
        }
        Ok(())
    }
}

/// End of the names of folders that are being removed.
pub const GONE: &str = ".gone";

/// Removes a folder so that a crash leaves no part of it under its name.
pub fn remove(world: &World, dir: &Path) -> Result<(), Error> {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(GONE);
    let gone = dir.with_file_name(name);
    let failed = |error: std::io::Error| {
        let text = format!("hints in {} cannot be removed: {error}", dir.display());
        Error::with_source(Kind::Unavailable, text, error)
    };
    if world.disk.exists(&gone) {
        world.disk.remove_dir_all(&gone).map_err(failed)?;
    }
    world.disk.rename(dir, &gone).map_err(failed)?;
    if let Some(parent) = dir.parent() {
        world.disk.sync_dir(parent).map_err(failed)?;
    }
    world.disk.remove_dir_all(&gone).map_err(failed)
}

fn after(place: Place, payload: usize) -> Place {
    Place { offset: place.offset + wal::framed_len(payload) as u64, seq: place.seq + 1, ..place }
}

fn strange(dir: &Path) -> Error {
    Error::new(Kind::Corrupt, format!("hints in {} have a record that cannot be read", dir.display()))
}

pub fn count_dropped(peer: &str, why: Dropped, samples: u64) {
    let reason = match why {
        Dropped::Bytes => "bytes",
        Dropped::Age => "age",
    };
    super::dropped(peer, reason, samples);
}

#[cfg(test)]
mod tests;
