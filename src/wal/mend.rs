//! A damaged spool is made whole again: what can be read stays in its place, files with damage are kept elsewhere.
//!
//! A segment in which bytes cannot be read is written anew without them, under its name, at once or not at all. Its records
//! keep their numbers; where numbers are gone, a record of kind 0 says which one comes next, so that a reader tells a loss
//! that was named from one that nobody has seen yet. The file as it was is kept in a folder of its own, and its damage is told
//! before anything is replaced: after a crash in between it is told, and kept, once more.
//!
//! A record behind the damage is taken where it checks out, its number is above those before it and below those of the next
//! segment, and no more records are gone than the bytes in between had room for: what stands inside a payload is not one.

use std::path::{Path, PathBuf};

use model::Kind;
use runtime::{Disk, World};

use crate::Error;
use crate::error;
use crate::reader::{READ_BYTES, Scan};
use crate::record::{self, HEADER_BYTES, JUMP};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};
use crate::spool::first_of;

/// What is lost of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file.
    pub segment: String,
    /// The first byte that cannot be read, or the file's end where nothing of it is bad but what follows is gone.
    pub at: u64,
    /// Bytes that hold nothing readable.
    pub bytes: u64,
    /// Records that are known to be gone.
    pub records: u64,
    /// The file as it was; none where all of it could be read.
    pub aside: Option<PathBuf>,
}

/// Mends the spool in `dir`, which nobody has open, and returns how many of its segments were damaged. Each is handed to
/// `told` before it is replaced; files with damage are kept in the folder `aside`, which is made where it is needed.
pub fn mend(world: &World, dir: &Path, aside: &Path, told: &mut dyn FnMut(&Damage)) -> Result<usize, Error> {
    let disk = &*world.disk;
    let segments = found(disk, dir)?;
    let mut damaged = 0;
    let mut next = None;
    for (at, (segment, is_sound)) in segments.iter().enumerate() {
        let survey = Survey::of(segment, *is_sound, next, &segments[at + 1..])?;
        let from = std::mem::replace(&mut next, survey.next);
        let Some(first_bad) = survey.at else { continue };
        let name = segment::segment_name(segment.index);
        let kept = (survey.bytes > 0).then(|| aside.join(&name));
        if let Some(kept) = &kept {
            keep(disk, segment, aside, kept)?;
        }
        told(&Damage {
            segment: name,
            at: first_bad,
            bytes: survey.bytes,
            records: survey.records,
            aside: kept,
        });
        survey.write(disk, segment, from).map_err(|e| error::io("mend", &segment.path, e))?;
        damaged += 1;
    }
    Ok(damaged)
}

/// Every segment of the folder, in order, and whether its header is right.
fn found(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Segment, bool)>, Error> {
    let names = disk.list(dir).map_err(|e| error::io("list spool folder", dir, e))?;
    let mut indices: Vec<u64> = names.iter().filter_map(|n| segment::index_of(n, "segment-")).collect();
    indices.sort_unstable();
    let mut out = Vec::with_capacity(indices.len());
    for index in indices {
        out.push(match segment::open(disk, dir, index) {
            Ok(segment) => (segment, true),
            Err(error) if error.kind == Kind::Corrupt => (segment::open_any(disk, dir, index)?, false),
            Err(error) => return Err(error),
        });
    }
    Ok(out)
}

/// Records that follow each other without a gap.
struct Run {
    /// Their bytes.
    from: u64,
    until: u64,
    /// Number of the first, and of what follows the last.
    first: u64,
    next: u64,
}

/// What can be read of a segment.
#[derive(Default)]
struct Survey {
    runs: Vec<Run>,
    at: Option<u64>,
    bytes: u64,
    records: u64,
    /// Number of the record that follows; none while no number is known.
    next: Option<u64>,
    /// Where the next segment begins with a later number than follows here.
    jump: Option<u64>,
}

impl Survey {
    /// `next`: the number that the first record should have. `later`: the segments behind this one.
    fn of(
        segment: &Segment,
        is_sound: bool,
        next: Option<u64>,
        later: &[(Segment, bool)],
    ) -> Result<Survey, Error> {
        let mut survey = Survey { next, ..Survey::default() };
        // What the crash that made it left of an empty one is healed where it is opened.
        if !is_sound && (!later.is_empty() || segment.len > SEGMENT_HEADER_BYTES) {
            survey.lost(0, segment.len.min(SEGMENT_HEADER_BYTES));
        }
        // Behind a segment that has lost its front nobody knows where a loss began.
        let next_one = later.iter().find(|(later, is_sound)| !is_sound || later.len > SEGMENT_HEADER_BYTES);
        let follows = match next_one.filter(|(later, _)| later.len > SEGMENT_HEADER_BYTES) {
            Some((later, _)) => first_of(later)?,
            None => None,
        };
        let mut scan = Scan::new(segment);
        loop {
            let from = scan.offset();
            let expected = survey.next;
            if let Some(expected) = expected
                && let Some((header, payload)) = scan.next(expected)?
            {
                let next = record::number_behind(&header, payload);
                survey.add(Run { from, until: scan.offset(), first: expected, next });
                continue;
            }
            // Only the last segment ends in what was never synced.
            if expected.is_some() && later.is_empty() && !is_proven(&scan, survey.number())? {
                break;
            }
            let fits = |seq: u64, at: u64| {
                let gone = seq.checked_sub(survey.number());
                let room = (at - from) / HEADER_BYTES as u64;
                follows.is_none_or(|follows| seq < follows)
                    && gone.is_some_and(|gone| survey.runs.is_empty() || gone <= room)
            };
            let (bad, header) = scan.seek(fits)?;
            let until = if header.is_some() { scan.offset() } else { bad.map_or(from, |(_, until)| until) };
            survey.lost(from, until - from);
            let Some(header) = header else { break };
            survey.skip_to(header.seq, from);
        }
        if !is_sound && survey.runs.is_empty() && survey.at.is_some() {
            // Not even zeroes say that nothing was there.
            survey.bytes = segment.len;
        }
        if let Some(follows) = follows
            && survey.next.is_some_and(|next| next < follows)
        {
            let end = survey.runs.last().map_or(SEGMENT_HEADER_BYTES, |run| run.until);
            survey.skip_to(follows, end);
            survey.jump = Some(follows);
        }
        Ok(survey)
    }

    fn number(&self) -> u64 {
        self.next.unwrap_or(1)
    }

    fn add(&mut self, record: Run) {
        self.next = Some(record.next);
        match self.runs.last_mut().filter(|run| run.until == record.from && run.next == record.first) {
            Some(run) => (run.until, run.next) = (record.until, record.next),
            None => self.runs.push(record),
        }
    }

    fn lost(&mut self, from: u64, bytes: u64) {
        if bytes > 0 {
            self.at.get_or_insert(from);
            self.bytes += bytes;
        }
    }

    fn skip_to(&mut self, seq: u64, from: u64) {
        if let Some(gone) = self.next.and_then(|next| seq.checked_sub(next)).filter(|gone| *gone > 0) {
            self.records += gone;
            self.at.get_or_insert(from);
        }
        self.next = Some(seq);
    }

    /// Puts what can be read in the place of the segment. `next`: as in [`Survey::of`].
    fn write(&self, disk: &dyn Disk, segment: &Segment, mut next: Option<u64>) -> std::io::Result<()> {
        let temporary = segment.path.with_extension("tmp");
        if disk.exists(&temporary) {
            disk.remove_file(&temporary)?;
        }
        let file = disk.create(&temporary)?;
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            file.write_all_at(bytes, end)?;
            end += bytes.len() as u64;
            Ok::<(), std::io::Error>(())
        };
        put(&segment::encode_header(segment.index))?;
        let mut buf = Vec::new();
        for run in &self.runs {
            put(&gap(next, run.first))?;
            let mut at = run.from;
            while at < run.until {
                buf.resize((run.until - at).min(READ_BYTES as u64) as usize, 0);
                segment.file.read_exact_at(&mut buf, at)?;
                put(&buf)?;
                at += buf.len() as u64;
            }
            next = Some(run.next);
        }
        if let Some(follows) = self.jump {
            put(&gap(next, follows))?;
        }
        file.sync_data()?;
        disk.rename(&temporary, &segment.path)?;
        disk.sync_dir(segment.path.parent().unwrap_or(Path::new("")))
    }
}

/// What stands for the records from `next` up to `to`; nothing where there are none, or none knows of them.
fn gap(next: Option<u64>, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(number) = next.filter(|next| *next < to) {
        record::put(&mut bytes, JUMP, number, &[&to.to_le_bytes()]);
        record::seal(&mut bytes, number);
    }
    bytes
}

/// Whether what stands at the front of `scan` was durable: something behind it says so.
fn is_proven(scan: &Scan<'_>, expected: u64) -> Result<bool, Error> {
    match scan.dirty_until()? {
        Some(dirty) => Ok(scan.find_proof(expected, dirty)?.is_some()),
        None => Ok(false),
    }
}

/// Keeps the file under a second name, durably.
fn keep(disk: &dyn Disk, segment: &Segment, aside: &Path, kept: &Path) -> Result<(), Error> {
    let attempt = || -> std::io::Result<()> {
        disk.create_dir_all(aside)?;
        if let Some(parent) = aside.parent() {
            disk.sync_dir(parent)?;
        }
        if disk.exists(kept) {
            disk.remove_file(kept)?;
        }
        match disk.hard_link(&segment.path, kept) {
            Ok(()) => disk.sync_dir(aside),
            Err(_) => disk.write_atomic(kept, &disk.read(&segment.path)?),
        }
    };
    attempt().map_err(|e| error::io("keep a copy of damaged", &segment.path, e))
}
