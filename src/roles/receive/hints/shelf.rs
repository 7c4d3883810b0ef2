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
mod tests {
    use std::sync::Arc;

    use model::TenantId;
    use rpc::WriteCall;
    use testkit::{MemDisk, Replay};

    use super::*;
    use crate::pending::tests::batch;

    const DIR: &str = "/data/hints/a";

    fn bounds(max_bytes: u64) -> Bounds {
        Bounds { max_bytes, max_age: 1000, segment_bytes: 4096 }
    }

    fn world(disk: &MemDisk) -> World {
        testkit::world(Arc::new(disk.clone()), 0, 1).0
    }

    fn open(disk: &MemDisk, noted: Option<HintCursor>) -> Result<Shelf, Error> {
        Shelf::open(&world(disk), Path::new(DIR), "a:1", bounds(1 << 20), noted)
    }

    /// A hint of `n` samples.
    fn hint(n: usize, kept_at: i64) -> Vec<u8> {
        let (tenant, rows) = (TenantId::new("t").unwrap(), vec![0]);
        let call = WriteCall { tenant, batch: batch(1, n), rows, replica: 1, judged_at: 5, ring_epoch: 0 };
        frame::encode(&call, kept_at).unwrap().0
    }

    fn drain(shelf: &mut Shelf, now: i64) -> Vec<u32> {
        let mut out = Vec::new();
        for most in [1, 3, 8].into_iter().cycle() {
            let some = shelf.next(now, most).unwrap();
            if some.is_empty() {
                break;
            }
            for next in some {
                out.push(next.frame.samples);
                shelf.passed(&next.mark()).unwrap();
            }
        }
        out
    }

    fn first(shelf: &mut Shelf, now: i64) -> Next {
        shelf.next(now, 1).unwrap().remove(0)
    }

    #[test]
    fn hints_come_in_order_once_and_go_on_after_a_restart() {
        let disk = MemDisk::new();
        let mut shelf = open(&disk, None).unwrap();
        for n in 1..=300 {
            shelf.keep(&hint(n, 10)).unwrap();
        }
        shelf.sync().unwrap();
        assert_eq!(shelf.waiting(), (300, 300 * 301 / 2));
        for n in 1..=200 {
            let next = first(&mut shelf, 20);
            assert_eq!(next.frame.samples, n);
            shelf.passed(&next.mark()).unwrap();
        }
        let noted = shelf.cursor();
        drop(shelf);
        let mut again = open(&disk, Some(noted)).unwrap();
        assert_eq!(again.waiting().0, 100);
        assert_eq!(drain(&mut again, 20), (201..=300).collect::<Vec<_>>());
        again.keep(&hint(7, 10)).unwrap();
        assert_eq!(drain(&mut again, 20), [7]);
        drop(again);
        // A note of another life says nothing: what is still there comes again.
        let other = HintCursor { life: [9; 16], ..noted };
        assert!(open(&disk, Some(other)).unwrap().waiting().0 >= 1);
    }

    #[test]
    fn beyond_its_bounds_the_oldest_go() {
        let disk = MemDisk::new();
        let world = world(&disk);
        let mut shelf = Shelf::open(&world, Path::new(DIR), "a:1", bounds(20_000), None).unwrap();
        for n in 1..=400 {
            shelf.keep(&hint(n, n as i64)).unwrap();
            assert!(shelf.bytes() <= 20_000 + 4096, "{}", shelf.bytes());
        }
        let left = drain(&mut shelf, 400);
        assert!(left.len() < 300 && left.last() == Some(&400), "{left:?}");
        assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        shelf.keep(&hint(1, 500)).unwrap();
        shelf.keep(&hint(2, 1600)).unwrap();
        assert_eq!(drain(&mut shelf, 1700), [2], "the first is too old");
        assert_eq!(shelf.waiting(), (0, 0));
        shelf.remove(None).unwrap();
        assert!(!world.disk.exists(Path::new(DIR)));
    }

    /// Stopped at any operation, with or without a note: what was synced and not passed comes, whole, in order.
    #[test]
    fn every_crash_keeps_what_was_synced() {
        let disk = MemDisk::new();
        disk.record();
        let mut shelf = open(&disk, None).unwrap();
        // (operations, synced, kept, passed, note)
        let mut marks = vec![(0, 0u32, 0u32, 0u32, None)];
        let mut passed = 0;
        for n in 1..=90u32 {
            shelf.keep(&hint(n as usize, 10)).unwrap();
            let synced = if n % 4 == 0 {
                shelf.sync().unwrap();
                n
            } else {
                marks.last().unwrap().1
            };
            if n % 8 == 0 {
                for _ in 0..5 {
                    let next = first(&mut shelf, 20);
                    passed = next.frame.samples;
                    marks.push((disk.recorded(), synced, n, passed, Some(shelf.cursor())));
                    shelf.passed(&next.mark()).unwrap();
                }
            }
            marks.push((disk.recorded(), synced, n, passed, Some(shelf.cursor())));
        }
        let mut replay = Replay::of(&disk);
        while replay.step().unwrap() {
            let at = marks.partition_point(|(ops, ..)| *ops <= replay.done());
            let (_, synced, _, _, note) = marks[at - 1];
            let (_, _, kept, passed, _) = marks[at.min(marks.len() - 1)];
            for seed in 0..4 {
                for noted in [None, note] {
                    let mut again = open(&replay.crash(seed), noted).unwrap();
                    let found = drain(&mut again, 20);
                    assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{found:?}");
                    let last = found.last().copied().unwrap_or(passed);
                    assert!(last >= synced && last <= kept, "{last} of {synced} to {kept}");
                    assert!(
                        found.first().is_none_or(|first| *first <= passed + 1),
                        "{found:?} after {passed}"
                    );
                }
            }
        }
    }

    /// Hints of 1 to 300 samples, all synced, and where each lies.
    fn filled(disk: &MemDisk) -> (Shelf, Vec<Place>) {
        let mut shelf = open(disk, None).unwrap();
        for n in 1..=300 {
            shelf.keep(&hint(n, 10)).unwrap();
            shelf.sync().unwrap();
        }
        let places: Vec<Place> = shelf.next(20, 300).unwrap().iter().map(|next| next.place).collect();
        assert!(places.len() == 300 && places[299].segment > 4);
        (shelf, places)
    }

    fn harm(disk: &MemDisk, segment: u64, at: u64) {
        let path = Path::new(DIR).join(format!("segment-{segment:012}"));
        disk.damage(&path, |bytes| bytes[at as usize] ^= 0x10).unwrap();
    }

    fn kept_aside(disk: &MemDisk) -> Vec<String> {
        let files = disk.files().into_iter().map(|path| path.display().to_string());
        files.filter(|path| path.contains(mend::DAMAGED)).collect()
    }

    #[test]
    fn damage_costs_what_it_hit_and_all_else_is_delivered_once() {
        let last = filled(&MemDisk::new()).1[299].segment;
        // (the segment whose header is hit, the hint that is hit)
        let cases: [(Option<u64>, Option<usize>); 7] = [
            (Some(1), None),
            (Some(last / 2), None),
            (Some(last), None),
            (None, Some(1)),
            (None, Some(150)),
            (None, Some(298)),
            (Some(2), Some(280)),
        ];
        for (header, hit) in cases {
            for passed in [0, 100] {
                let disk = MemDisk::new();
                let (mut shelf, places) = filled(&disk);
                for _ in 0..passed {
                    let next = first(&mut shelf, 20);
                    shelf.passed(&next.mark()).unwrap();
                }
                let kept = shelf.spool.segments().next().unwrap().index;
                let noted = (passed > 0).then(|| shelf.cursor());
                drop(shelf);
                let header = header.filter(|segment| *segment >= kept);
                if let Some(segment) = header {
                    harm(&disk, segment, 9);
                }
                let hit = hit.filter(|n| *n > passed);
                if let Some(n) = hit {
                    harm(&disk, places[n - 1].segment, places[n - 1].offset + 40);
                }
                let mut again = open(&disk, noted).unwrap();
                let wanted: Vec<u32> =
                    (passed as u32 + 1..=300).filter(|n| hit != Some(*n as usize)).collect();
                assert_eq!(again.waiting().0, wanted.len() as u64, "{header:?} {hit:?} {passed}");
                assert_eq!(drain(&mut again, 20), wanted, "{header:?} {hit:?} {passed}");
                let harmed = usize::from(header.is_some()) + usize::from(hit.is_some());
                assert_eq!(kept_aside(&disk).len(), harmed, "{:?}", kept_aside(&disk));
            }
        }
    }

    #[test]
    fn damage_that_comes_while_it_is_read_is_taken_out_of_the_way() {
        let disk = MemDisk::new();
        let (mut shelf, places) = filled(&disk);
        for n in [50, 299] {
            harm(&disk, places[n - 1].segment, places[n - 1].offset + 30);
        }
        shelf.keep(&hint(7, 10)).unwrap();
        let mut found = drain(&mut shelf, 20);
        shelf.keep(&hint(8, 10)).unwrap();
        found.extend(drain(&mut shelf, 20));
        let wanted: Vec<u32> = (1..=300).chain([7, 8]).filter(|n| ![50, 299].contains(n)).collect();
        assert_eq!(found, wanted);
        assert_eq!(kept_aside(&disk).len(), 2);
        assert_eq!(shelf.waiting(), (0, 0));
    }

    #[test]
    fn a_hint_that_is_not_understood_is_kept_and_the_others_are_delivered() {
        let disk = MemDisk::new();
        let mut shelf = open(&disk, None).unwrap();
        shelf.keep(&hint(1, 10)).unwrap();
        shelf.spool.append(HINT, &[&[9; 40]]).unwrap();
        let mut torn = hint(2, 10);
        torn.truncate(15);
        shelf.keep(&torn).unwrap();
        shelf.keep(&hint(3, 10)).unwrap();
        shelf.sync().unwrap();
        drop(shelf);
        let mut shelf = open(&disk, None).unwrap();
        assert_eq!(shelf.waiting().0, 4);
        assert_eq!(drain(&mut shelf, 20), [1, 3]);
        assert_eq!(shelf.waiting().0, 0);
        let kept = kept_aside(&disk);
        assert_eq!(kept.len(), 2, "{kept:?}");
        let first = kept.iter().find(|path| path.ends_with("-3")).unwrap();
        assert_eq!(world(&disk).disk.read(Path::new(first)).unwrap(), [9; 40]);
    }

    #[test]
    fn hints_of_another_are_not_delivered() {
        let disk = MemDisk::new();
        drop(filled(&disk));
        let other = Shelf::open(&world(&disk), Path::new(DIR), "b:1", bounds(1 << 20), None);
        assert_eq!(other.err().unwrap().kind, Kind::Corrupt);
        assert_eq!(kept_aside(&disk), [""; 0]);
    }
}
